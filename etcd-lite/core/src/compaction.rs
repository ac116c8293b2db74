//! Compaction: forgetting what nobody may ask for any more.
//!
//! Costs what is forgotten, not what is kept: only keys that changed since the last compaction can have anything to drop, and
//! the event log names them.

use crate::error::StoreError;
use crate::records::{RecordChange, RecordKey};
use crate::store::Store;

impl Store {
    /// Forgets versions superseded at or before `revision`. Reads at `revision` and later and watches from `revision` on
    /// go on as before.
    ///
    /// # Errors
    /// `Compacted` when that is done already, `FutureRevision` beyond the current revision.
    pub(crate) fn compact(
        &mut self,
        revision: i64,
        changes: &mut Vec<RecordChange>,
    ) -> Result<(), StoreError> {
        if revision <= self.compacted_revision() {
            return Err(StoreError::Compacted);
        }
        if revision > self.revision() {
            return Err(StoreError::FutureRevision);
        }
        self.meta.compacted_revision = revision;
        let mut touched = Vec::new();
        while let Some(event) = self.log.pop_below(revision) {
            touched.push(event.version.key.clone());
        }
        touched.extend(self.log.forget_previous_at(revision).map(|event| event.version.key.clone()));
        touched.sort_unstable();
        touched.dedup();
        for key in touched {
            let bytes = &mut self.bytes;
            self.index.prune(&key, revision, |version| {
                *bytes -= version.size_bytes();
                changes.push(RecordChange::Delete(RecordKey::version(version.revision)));
            });
        }
        self.log.shrink();
        Ok(())
    }
}
