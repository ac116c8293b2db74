//! A queue of events on their way, bounded by their number and by their bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{self, Receiver, Sender};

/// Bytes that may wait or be on their way, whatever their number of events.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where entries come in.
pub struct Queue<T> {
    sender: Sender<T>,
    bytes: QueuedBytes,
}

/// The bytes of all events that have come in and not been released.
#[derive(Clone, Default)]
pub struct QueuedBytes(Arc<AtomicUsize>);

impl QueuedBytes {
    /// So many have arrived where they belong, or are given up.
    pub fn release(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts so many more; how many there were before.
    fn take(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::Relaxed)
    }
}

/// A queue for so many entries, its other end, and what releases bytes.
pub fn bounded<T>(entries_max: usize) -> (Queue<T>, Receiver<T>, QueuedBytes) {
    let (sender, receiver) = mpsc::channel(entries_max);
    let bytes = QueuedBytes::default();
    (Queue { sender, bytes: bytes.clone() }, receiver, bytes)
}

impl<T> Queue<T> {
    /// Takes an entry of so many bytes if there is room for it. Whether there was.
    pub fn offer(&self, entry: T, bytes: usize) -> bool {
        let queued = self.bytes.take(bytes);
        let is_taken = queued < BYTES_MAX && self.sender.try_send(entry).is_ok();
        if !is_taken {
            self.bytes.release(bytes);
        }
        is_taken
    }

    /// Takes an entry of so many bytes as soon as there is room among the entries. Whether anybody is left to take it.
    pub async fn send(&self, entry: T, bytes: usize) -> bool {
        self.bytes.take(bytes);
        self.sender.send(entry).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_not_counted() {
        let (queue, mut entries, bytes) = bounded(2);
        assert!(queue.offer('a', BYTES_MAX));
        assert!(!queue.offer('b', 1), "too many bytes");
        bytes.release(1);
        assert!(queue.offer('c', 1));
        bytes.release(BYTES_MAX);
        assert!(!queue.offer('d', 1), "too many entries");
        assert_eq!((entries.try_recv(), entries.try_recv()), (Ok('a'), Ok('c')));
        assert_eq!(bytes.take(0), 0);
    }
}
