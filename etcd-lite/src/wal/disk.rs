//! The few file operations the log needs, behind a trait so that tests can lose power.
//!
//! Never here: what is in the files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// One directory.
pub trait Disk: Send {
    /// A file open for appending.
    type File: DiskFile;

    /// Names of the files in the directory, in order.
    ///
    /// # Errors
    /// Those of the operating system, here and below.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A whole file.
    #[allow(missing_docs)]
    fn read(&self, name: &str) -> io::Result<Bytes>;

    /// A new, empty file; one of that name is replaced.
    #[allow(missing_docs)]
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// An existing file, to be appended to after it is cut to `length` bytes; durable when this returns.
    #[allow(missing_docs)]
    fn open(&self, name: &str, length: u64) -> io::Result<Self::File>;

    /// Gives a file another name, durable when this returns.
    #[allow(missing_docs)]
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    #[allow(missing_docs)]
    fn remove(&self, name: &str) -> io::Result<()>;

    /// How the file is named to people.
    fn display(&self, name: &str) -> String;
}

/// A file open for appending.
pub trait DiskFile: Send {
    /// Appends bytes; not durable yet.
    ///
    /// # Errors
    /// Those of the operating system.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// After an error nothing may be assumed about what was appended since the last success.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Opens a directory, which is created (mode 0700) if it is not there.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        if !path.is_dir() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Disk for Directory {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        std::fs::read(self.path.join(name)).map(Bytes::from)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        File::create(self.path.join(name))
    }

    fn open(&self, name: &str, length: u64) -> io::Result<File> {
        let file = OpenOptions::new().append(true).open(self.path.join(name))?;
        if file.metadata()?.len() != length {
            file.set_len(length)?;
            file.sync_all()?;
        }
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        self.sync()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn display(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

impl DiskFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
