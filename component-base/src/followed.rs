//! What is read from files that may be replaced while the process runs: certificates, keys, CA bundles. Users get what was read last; files that
//! do not make sense, half-written ones say, leave it as it was.
//!
//! Never here: what is in the files.

use std::fmt::{self, Display};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// Files are looked at no more often than this.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What tells one state of a file from the next; `None` while it is not there.
type Stamp = Option<(SystemTime, u64, u64)>;

/// A value and the files it was read from.
pub struct Followed<T> {
    paths: Vec<PathBuf>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    generation: u64,
    stamps: Vec<Stamp>,
    looked: Instant,
}

impl<T> Followed<T> {
    /// Reads the value for the first time.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn open<E>(paths: &[&Path], load: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
        // Before reading: what changes in between is seen at the next look.
        let stamps = stamps(&paths);
        let state = State { value: Arc::new(load()?), generation: 1, stamps, looked: Instant::now() };
        Ok(Self { paths, state: Mutex::new(state) })
    }

    /// The value, read anew by `load` if the files changed, and how many there have been. The files are looked at once a second at most.
    pub fn current<E: Display>(&self, load: impl FnOnce() -> Result<T, E>) -> (u64, Arc<T>) {
        let mut state = self.state.lock();
        if state.looked.elapsed() >= LOOK_INTERVAL {
            state.looked = Instant::now();
            let stamps = stamps(&self.paths);
            if stamps != state.stamps {
                match load() {
                    Ok(value) => {
                        tracing::info!(files = ?self.paths, "files were replaced, their new content counts");
                        state.value = Arc::new(value);
                        state.generation += 1;
                        state.stamps = stamps;
                    }
                    // Looked at again, as they may be half-written.
                    Err(error) => {
                        tracing::warn!(%error, files = ?self.paths, "files were replaced, their old content counts");
                    }
                }
            }
        }
        (state.generation, Arc::clone(&state.value))
    }
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    paths
        .iter()
        .map(|path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len(), meta.ino()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Result<u32, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        text.trim().parse().map_err(|error| format!("{error}"))
    }

    impl<T> Followed<T> {
        fn forget_the_last_look(&self) {
            self.state.lock().looked -= LOOK_INTERVAL;
        }
    }

    #[test]
    fn a_new_file_counts_and_a_bad_one_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("number");
        let replace = |text: &str| {
            let new = folder.path().join("new");
            std::fs::write(&new, text).expect("write");
            std::fs::rename(&new, &path).expect("rename");
        };
        replace("1");
        let number = Followed::open(&[&path], || read(&path)).expect("a number");
        let current = || {
            let (generation, value) = number.current(|| read(&path));
            (generation, *value)
        };
        assert_eq!(current(), (1, 1));
        replace("2");
        assert_eq!(current(), (1, 1), "not looked at yet");
        number.forget_the_last_look();
        assert_eq!(current(), (2, 2));
        replace("three");
        number.forget_the_last_look();
        assert_eq!(current(), (2, 2));
        std::fs::remove_file(&path).expect("remove");
        number.forget_the_last_look();
        assert_eq!(current(), (2, 2));
        replace("4");
        number.forget_the_last_look();
        assert_eq!(current(), (3, 4));
        number.forget_the_last_look();
        assert_eq!(current(), (3, 4), "nothing changed");
        assert!(Followed::open(&[folder.path()], || read(folder.path())).is_err());
    }
}
