//! One process a data directory: a lock on a file in it, which the system takes back when the process ends in whatever way.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Holds the directory until dropped.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the lock of a directory, which is made if it is not there. Another process gets `patience` to end: one that was told to stop may be
    /// about to.
    ///
    /// # Errors
    /// Another process has it, or the directory cannot be written.
    pub fn take(dir: &Path, patience: Duration) -> anyhow::Result<Self> {
        const POLL: Duration = Duration::from_millis(10);
        let deadline = Instant::now() + patience;
        let path = dir.join("lock");
        let file = std::fs::create_dir_all(dir)
            .and_then(|()| File::create(&path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(POLL),
                Err(TryLockError::WouldBlock) => {
                    bail!("another process uses {}; end it first, or give another --data-dir", dir.display())
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().expect("dir");
        let first = DataLock::take(dir.path(), Duration::ZERO).expect("the first");
        assert!(
            DataLock::take(dir.path(), Duration::ZERO)
                .expect_err("the second")
                .to_string()
                .contains("another process")
        );
        drop(first);
        DataLock::take(dir.path(), Duration::ZERO).expect("the third");
    }
}
