//! The file of the audit log: appended to, set aside when it is large enough, and old ones compressed and removed. Names are those of upstream's log
//! files (`audit-2024-01-02T03-04-05.678.log`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// When a file is set aside and how long it is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the file in use.
    pub bytes_max: u64,
    /// Files kept; 0 is all.
    pub backups_max: usize,
    /// Days that files are kept; 0 is for ever.
    pub days_max: u32,
    /// Compress what is set aside.
    pub compress: bool,
}

/// The file in use.
pub struct RotatingFile {
    path: PathBuf,
    limits: Limits,
    open: Option<(File, u64)>,
}

impl RotatingFile {
    /// Opens the file, making it and its folder when they are missing.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        let mut file = Self { path: path.to_owned(), limits, open: None };
        file.current()?;
        Ok(file)
    }

    fn current(&mut self) -> io::Result<&mut (File, u64)> {
        if self.open.is_none() {
            if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
            }
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
            let length = file.metadata()?.len();
            self.open = Some((file, length));
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("the file was just opened"))
    }

    /// Appends whole lines.
    ///
    /// # Errors
    /// They are not in the file, or only part of them is: the disk is full, say. The next call tries again.
    pub fn write(&mut self, lines: &[u8], now: Timestamp) -> io::Result<()> {
        let limits = self.limits;
        let added = lines.len() as u64;
        let (_, length) = self.current()?;
        if *length > 0 && *length + added > limits.bytes_max {
            self.rotate(now)?;
        }
        let (file, length) = self.current()?;
        let written = file.write_all(lines);
        match written {
            Ok(()) => *length += added,
            // Opened anew next time, as it may be gone.
            Err(_) => self.open = None,
        }
        written
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        self.open = None;
        std::fs::rename(&self.path, self.backup_name(now))?;
        // What cannot be tidied up is for the next time.
        if let Err(error) = self.tidy(now) {
            tracing::warn!(%error, path = %self.path.display(), "old audit logs cannot be tidied up");
        }
        Ok(())
    }

    fn parts(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
        let stem = part(self.path.file_stem()).unwrap_or_default();
        let extension = part(self.path.extension()).map(|e| format!(".{e}")).unwrap_or_default();
        (format!("{stem}-"), extension)
    }

    fn backup_name(&self, now: Timestamp) -> PathBuf {
        let (prefix, extension) = self.parts();
        self.path.with_file_name(format!("{prefix}{}{extension}", now.strftime(TIME)))
    }

    /// Files set aside, newest first.
    fn backups(&self) -> io::Result<Vec<(Timestamp, PathBuf)>> {
        let (prefix, extension) = self.parts();
        let folder = self.path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let bare = name.strip_suffix(".gz").unwrap_or(&name);
            let time = bare.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&extension));
            let parsed = time.and_then(|time| jiff::civil::DateTime::strptime(TIME, time).ok());
            if let Some(time) = parsed.and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC).ok()) {
                found.push((time.timestamp(), entry.path()));
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        Ok(found)
    }

    fn tidy(&self, now: Timestamp) -> io::Result<()> {
        let Limits { backups_max, days_max, compress, .. } = self.limits;
        for (index, (at, path)) in self.backups()?.into_iter().enumerate() {
            let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
            let too_many = backups_max > 0 && index >= backups_max;
            let too_old = days_max > 0 && age > DAY * days_max;
            if too_many || too_old {
                std::fs::remove_file(&path)?;
            } else if compress && path.extension().is_none_or(|extension| extension != "gz") {
                compress_file(&path)?;
            }
        }
        Ok(())
    }
}

fn compress_file(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let target = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&name)?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    let copied = io::copy(&mut File::open(path)?, &mut encoder).and_then(|_| encoder.finish());
    match copied {
        Ok(_) => std::fs::remove_file(path),
        Err(error) => {
            // The half of it is worth nothing.
            let _ = std::fs::remove_file(&name);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("a time")
    }

    #[test]
    fn files_are_set_aside_and_the_oldest_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sub/audit.log");
        let limits = Limits { bytes_max: 10, backups_max: 2, days_max: 0, compress: false };
        let mut file = RotatingFile::open(&path, limits).expect("opens");
        for second in 0..5 {
            file.write(b"12345678\n", at(second)).expect("is written");
        }
        assert_eq!(
            names(path.parent().expect("a folder")),
            ["audit-2023-11-14T22-13-23.000.log", "audit-2023-11-14T22-13-24.000.log", "audit.log"]
        );
    }

    #[test]
    fn old_files_are_compressed_and_removed_by_age() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let limits = Limits { bytes_max: 1, backups_max: 0, days_max: 1, compress: true };
        let mut file = RotatingFile::open(&path, limits).expect("opens");
        for second in [0, 10, 100_000] {
            file.write(b"x\n", at(second)).expect("is written");
        }
        assert_eq!(names(folder.path()), ["audit-2023-11-16T02-00-00.000.log.gz", "audit.log"]);
    }
}
