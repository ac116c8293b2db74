//! A value made from files, made anew when they change. Never here: a thread; whoever wants the value looks whether the files changed.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// Clocks of files are this coarse at worst: what was written within it may be followed by a write that looks the same.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// See the module.
pub struct Reloading<T> {
    files: Vec<PathBuf>,
    make: Box<dyn Fn() -> anyhow::Result<T> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    seen: Vec<Stamp>,
    is_settled: bool,
}

/// What tells a file from its successor: length, inode, time of its last change.
type Stamp = Option<(u64, u64, SystemTime)>;

impl<T> Reloading<T> {
    /// Makes the value for the first time.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn new(
        files: Vec<PathBuf>,
        make: Box<dyn Fn() -> anyhow::Result<T> + Send + Sync>,
    ) -> anyhow::Result<Self> {
        let seen = stamps(&files);
        let state = State { value: Arc::new(make()?), is_settled: is_settled(&seen), seen };
        Ok(Self { files, make, state: Mutex::new(state) })
    }

    /// The value of the files as they are now. When they make none, for instance half-written, the last that they made.
    pub fn current(&self) -> Arc<T> {
        let mut state = self.state.lock();
        let now = stamps(&self.files);
        if now == state.seen && state.is_settled {
            return Arc::clone(&state.value);
        }
        let is_news = now != state.seen;
        state.is_settled = is_settled(&now);
        state.seen = now;
        match (self.make)() {
            Ok(value) => {
                if is_news {
                    tracing::info!(files = ?self.files, "using the renewed certificates");
                }
                state.value = Arc::new(value);
            }
            Err(error) if is_news => {
                tracing::warn!(error = format!("{error:#}"), "keeping the previous certificates");
            }
            Err(_) => {}
        }
        Arc::clone(&state.value)
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.len(), meta.ino(), meta.modified().ok()?))
    };
    files.iter().map(stamp).collect()
}

fn is_settled(stamps: &[Stamp]) -> bool {
    let recent = |time: &SystemTime| time.elapsed().is_ok_and(|age| age < SETTLED_AFTER);
    !stamps.iter().flatten().any(|(_, _, time)| recent(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_follows_the_file_and_survives_a_bad_one() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("number");
        std::fs::write(&path, "1").expect("write");
        let read = path.clone();
        let make = move || Ok(std::fs::read_to_string(&read)?.parse::<u32>()?);
        let reloading = Reloading::new(vec![path.clone()], Box::new(make)).expect("a number");
        assert_eq!(*reloading.current(), 1);
        // The same length and, on a coarse clock, the same time.
        for number in 2..10 {
            std::fs::write(&path, number.to_string()).expect("write");
            assert_eq!(*reloading.current(), number);
        }
        std::fs::write(&path, "half").expect("write");
        assert_eq!(*reloading.current(), 9);
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(*reloading.current(), 9);
        std::fs::write(&path, "10").expect("write");
        assert_eq!(*reloading.current(), 10);
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("file");
        let file = std::fs::File::create(&path).expect("create");
        file.set_modified(SystemTime::now() - 2 * SETTLED_AFTER).expect("an old file");
        let count = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&count);
        let make = move || {
            *counter.lock() += 1;
            Ok(())
        };
        let reloading = Reloading::new(vec![path], Box::new(make)).expect("a value");
        for _ in 0..5 {
            reloading.current();
        }
        assert_eq!(*count.lock(), 1);
    }
}
