//! The events since the last compaction in order, for watchers that start in the past or fell behind.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::StoreError;
use crate::key_range::KeyRange;
use crate::mutant;
use crate::store::Store;
use crate::version::Event;

/// A piece of history that ends at a revision's end.
#[derive(Debug, Default)]
pub struct History {
    /// The events asked for, in order.
    pub events: Vec<Event>,
    /// Everything up to and including this revision has been looked at.
    pub through: i64,
}

/// The log of events, from the revision on up to which compaction is done.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventLog {
    events: VecDeque<Event>,
}

impl EventLog {
    pub(crate) fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Events from a revision on.
    pub(crate) fn since(&self, revision: i64) -> impl Iterator<Item = &Event> {
        let first = self.events.partition_point(|e| e.version.revision.main < revision);
        self.events.range(first..)
    }

    /// Removes the oldest event when it is below a revision.
    pub(crate) fn pop_below(&mut self, revision: i64) -> Option<Event> {
        if self.events.front()?.version.revision.main >= revision {
            return None;
        }
        self.events.pop_front()
    }

    /// Forgets the previous versions of the events at one revision, which must be the lowest here.
    pub(crate) fn forget_previous_at(&mut self, revision: i64) -> impl Iterator<Item = &Event> {
        let end = self.events.partition_point(|e| e.version.revision.main <= revision);
        self.events.range_mut(..end).map(|event| {
            event.previous = None;
            &*event
        })
    }

    pub(crate) fn shrink(&mut self) {
        if self.events.capacity() > 1024 && self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to(self.events.len() * 2);
        }
    }
}

impl Store {
    /// Events of a range of keys from `start` (a revision, inclusive) on. Looks at about `scan_max` events and collects about
    /// `bytes_max` bytes, always whole revisions; go on at `through + 1` until `through` is [`Store::revision`].
    ///
    /// # Errors
    /// `Compacted` when `start` lies below the compacted revision.
    pub fn history(
        &self,
        range: &KeyRange,
        start: i64,
        scan_max: usize,
        bytes_max: usize,
    ) -> Result<History, StoreError> {
        if start < self.compacted_revision() && !mutant!(WatchNotCancelled) {
            return Err(StoreError::Compacted);
        }
        let (mut events, mut bytes, mut previous_main) = (Vec::new(), 0, start);
        for (scanned, event) in self.log.since(start).enumerate() {
            let main = event.version.revision.main;
            if main != previous_main && (scanned >= scan_max || bytes >= bytes_max) {
                return Ok(History { events, through: main - 1 });
            }
            previous_main = main;
            if range.contains(event.version.key()) {
                bytes += event.version.size_bytes();
                // What was before the compacted revision is gone, even while it is still in memory.
                let previous = event.previous.clone().filter(|_| main > self.compacted_revision());
                events.push(Event { version: Arc::clone(&event.version), previous });
            }
        }
        Ok(History { events, through: self.revision().max(start - 1) })
    }
}
