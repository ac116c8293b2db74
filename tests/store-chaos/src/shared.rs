//! What the tasks of one epoch share: the clock, how far the store's history is known, when to stop.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Instant;

use store_checker::Time;

/// Shared by all tasks of an epoch.
pub struct Shared {
    /// The clock's beginning; the same in all epochs.
    origin: Instant,
    /// The store's revision when the epoch began.
    pub start: i64,
    /// Clients begin nothing more.
    has_stopped: AtomicBool,
    /// A disk is full and its member has not noticed yet.
    wants_large_writes: AtomicBool,
    /// The scribe has everything up to this revision; what is compacted must not lie beyond.
    written_down: AtomicI64,
    /// The revision that watchers have to come to before they end; 0 while they go on.
    last_watched: AtomicI64,
    /// The same for the scribe, who ends after them.
    last_written_down: AtomicI64,
}

impl Shared {
    /// At an epoch's beginning.
    pub fn new(origin: Instant, start: i64) -> Self {
        Self {
            origin,
            start,
            has_stopped: AtomicBool::new(false),
            wants_large_writes: AtomicBool::new(false),
            written_down: AtomicI64::new(start),
            last_watched: AtomicI64::new(0),
            last_written_down: AtomicI64::new(0),
        }
    }

    /// Milliseconds now.
    pub fn now(&self) -> Time {
        Time::try_from(self.origin.elapsed().as_millis()).unwrap_or(Time::MAX)
    }

    /// Asks clients to begin nothing more.
    pub fn stop(&self) {
        self.has_stopped.store(true, Ordering::Relaxed);
    }

    /// Whether clients shall begin nothing more.
    pub fn has_stopped(&self) -> bool {
        self.has_stopped.load(Ordering::Relaxed)
    }

    /// Asks clients to write much, or no more than usual.
    pub fn want_large_writes(&self, are_wanted: bool) {
        self.wants_large_writes.store(are_wanted, Ordering::Relaxed);
    }

    /// Whether clients shall write much.
    pub fn wants_large_writes(&self) -> bool {
        self.wants_large_writes.load(Ordering::Relaxed)
    }

    /// The scribe has everything up to a revision.
    pub fn wrote_down(&self, revision: i64) {
        self.written_down.fetch_max(revision, Ordering::Relaxed);
    }

    /// How far the scribe is.
    pub fn written_down(&self) -> i64 {
        self.written_down.load(Ordering::Relaxed)
    }

    /// Tells watchers how far to go.
    pub fn end_watching_at(&self, revision: i64) {
        self.last_watched.store(revision, Ordering::Relaxed);
    }

    /// How far watchers have to go, once that is known.
    pub fn last_watched(&self) -> Option<i64> {
        Some(self.last_watched.load(Ordering::Relaxed)).filter(|last| *last > 0)
    }

    /// Tells the scribe how far to go.
    pub fn end_writing_down_at(&self, revision: i64) {
        self.last_written_down.store(revision, Ordering::Relaxed);
    }

    /// How far the scribe has to go, once that is known.
    pub fn last_written_down(&self) -> Option<i64> {
        Some(self.last_written_down.load(Ordering::Relaxed)).filter(|last| *last > 0)
    }
}
