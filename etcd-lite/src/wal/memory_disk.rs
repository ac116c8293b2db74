//! A disk in memory that loses what was not synced, for tests and simulations.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Content>,
    sync_fails: bool,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

impl MemoryDisk {
    /// The power goes: of every file remains what was synced, and of the rest the part that `keep` (given its length) says.
    pub fn lose_power(&self, mut keep: impl FnMut(usize) -> usize) {
        for content in self.state.lock().files.values_mut() {
            let unsynced = content.bytes.len() - content.synced_bytes;
            if unsynced > 0 {
                content.bytes.truncate(content.synced_bytes + keep(unsynced).min(unsynced));
                content.synced_bytes = content.bytes.len();
            }
        }
    }

    /// From now on every sync fails.
    pub fn fail_syncs(&self) {
        self.state.lock().sync_fails = true;
    }

    /// Changes a file's bytes behind the log's back.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(content) = self.state.lock().files.get_mut(name) {
            change(&mut content.bytes);
            content.synced_bytes = content.bytes.len();
        }
    }
}

/// A file of a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryFile {
    state: Arc<Mutex<State>>,
    name: String,
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, name.to_owned())
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        self.state.lock().files.get(name).map(|c| Bytes::copy_from_slice(&c.bytes)).ok_or_else(|| missing(name))
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        self.state.lock().files.insert(name.to_owned(), Content::default());
        Ok(MemoryFile { state: Arc::clone(&self.state), name: name.to_owned() })
    }

    fn open(&self, name: &str, length: u64) -> io::Result<MemoryFile> {
        let mut state = self.state.lock();
        let content = state.files.get_mut(name).ok_or_else(|| missing(name))?;
        content.bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        content.synced_bytes = content.bytes.len();
        Ok(MemoryFile { state: Arc::clone(&self.state), name: name.to_owned() })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let content = state.files.remove(from).ok_or_else(|| missing(from))?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state.lock().files.remove(name).map(|_| ()).ok_or_else(|| missing(name))
    }

    fn display(&self, name: &str) -> String {
        name.to_owned()
    }
}

impl DiskFile for MemoryFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let content = state.files.get_mut(&self.name).ok_or_else(|| missing(&self.name))?;
        content.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.sync_fails {
            return Err(io::Error::other("input/output error"));
        }
        let content = state.files.get_mut(&self.name).ok_or_else(|| missing(&self.name))?;
        content.synced_bytes = content.bytes.len();
        Ok(())
    }
}
