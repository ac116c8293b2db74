//! Writes a set of files so that a reader sees all of the old set or all of the new one.
//!
//! `DIR/..2026_01_02_03_04_05.123456789/` holds the files, `DIR/..data` is a link to it that is swapped by a rename, and
//! `DIR/FILE` are links through `..data`. Nothing is written when the content is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

use jiff::Timestamp;

/// One file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    /// The bytes.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// The owner, if not root.
    pub owner: Option<u32>,
}

const DATA_LINK: &str = "..data";
const NEW_LINK: &str = "..data_tmp";

/// Makes the directory hold exactly `files` (by relative path). True if anything changed.
///
/// # Errors
/// A path that leaves the directory or begins with `..`; else the file system's.
pub fn write(
    directory: &Path,
    files: &BTreeMap<String, FileContent>,
    group: Option<u32>,
    now: Timestamp,
) -> io::Result<bool> {
    for path in files.keys() {
        check(path)?;
    }
    let old = std::fs::read_link(directory.join(DATA_LINK)).ok();
    if let Some(old) = &old
        && same(&directory.join(old), files)
    {
        link_all(directory, files)?;
        return Ok(false);
    }
    let name = format!("..{}", now.strftime("%Y_%m_%d_%H_%M_%S.%9f"));
    let fresh = directory.join(&name);
    std::fs::create_dir(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))?;
    for (path, content) in files {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, &content.data)?;
        let mode = if group.is_some() { content.mode | (content.mode & 0o400) >> 3 } else { content.mode };
        if group.is_some() || content.owner.is_some() {
            std::os::unix::fs::chown(&target, content.owner, group)?;
        }
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
    }
    let link = directory.join(NEW_LINK);
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&name, &link)?;
    std::fs::rename(&link, directory.join(DATA_LINK))?;
    link_all(directory, files)?;
    if let Some(old) = old {
        let _ = std::fs::remove_dir_all(directory.join(old));
    }
    Ok(true)
}

fn check(path: &str) -> io::Result<()> {
    let relative = Path::new(path);
    let normal = !path.is_empty()
        && relative.components().all(|component| matches!(component, Component::Normal(_)))
        && !path.starts_with("..");
    if normal {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?} in a volume")))
    }
}

fn same(directory: &Path, files: &BTreeMap<String, FileContent>) -> bool {
    let mut present = BTreeSet::new();
    if collect(directory, "", &mut present).is_err() || present.len() != files.len() {
        return false;
    }
    files
        .iter()
        .all(|(path, content)| std::fs::read(directory.join(path)).is_ok_and(|bytes| bytes == content.data))
}

fn collect(directory: &Path, prefix: &str, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

/// Links for the first part of each path; links of files that are gone are removed.
fn link_all(directory: &Path, files: &BTreeMap<String, FileContent>) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = directory.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA_LINK).join(name), &link)?;
        }
    }
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, FileContent> {
        list.iter()
            .map(|(path, text)| {
                ((*path).to_owned(), FileContent { data: text.as_bytes().to_vec(), mode: 0o644, owner: None })
            })
            .collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_second_set_replaces_the_first_in_one_step() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path();
        assert!(write(directory, &files(&[("a", "1"), ("sub/b", "2")]), None, at(1)).unwrap());
        assert_eq!(std::fs::read_to_string(directory.join("sub/b")).unwrap(), "2");
        let first = std::fs::read_link(directory.join("..data")).unwrap();
        assert!(
            !write(directory, &files(&[("a", "1"), ("sub/b", "2")]), None, at(2)).unwrap(),
            "nothing new"
        );
        assert!(write(directory, &files(&[("a", "3"), ("c", "4")]), None, at(3)).unwrap());
        assert_eq!(std::fs::read_to_string(directory.join("a")).unwrap(), "3");
        assert!(!directory.join("sub").exists() && !directory.join(&first).exists());
        assert!(write(directory, &files(&[]), None, at(4)).unwrap());
        assert!(!directory.join("a").exists());
    }

    #[test]
    fn modes_are_set() {
        let root = tempfile::tempdir().unwrap();
        let mut set = files(&[("key", "x")]);
        set.get_mut("key").unwrap().mode = 0o400;
        write(root.path(), &set, None, at(1)).unwrap();
        let meta = std::fs::metadata(root.path().join("key")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o400);
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        let root = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/x", "a/../../x", "..data", ""] {
            assert!(write(root.path(), &files(&[(path, "x")]), None, at(1)).is_err(), "{path}");
        }
    }
}
