//! Compaction: forgetting what nobody may ask for any more.
//!
//! It takes effect at once for readers and watchers; the memory is given back a little with each following command, so that no
//! command takes long. Both are part of applying, so that members stay the same. The cost is in what is forgotten, not in what is
//! kept: only keys that changed can have anything to drop, and the event log names them.

use crate::error::StoreError;
use crate::key_index::KeyIndex;
use crate::mutant;
use crate::records::{RecordChange, RecordKey};
use crate::store::Store;

/// Revisions looked at with the compaction itself, and with each command after it. More than one, so that it ends.
const REVISIONS_AT_ONCE: i64 = if cfg!(test) { 1 } else { 1024 };
const REVISIONS_PER_COMMAND: i64 = if cfg!(test) { 2 } else { 64 };

impl Store {
    /// Forgets versions superseded at or before `revision`; all at once when `physical`. Reads at `revision` and later and watches
    /// from `revision` on go on as before.
    ///
    /// # Errors
    /// `Compacted` when that is done already, `FutureRevision` beyond the current revision.
    pub(crate) fn compact(
        &mut self,
        revision: i64,
        physical: bool,
        changes: &mut Vec<RecordChange>,
    ) -> Result<(), StoreError> {
        if revision <= self.compacted_revision() {
            return Err(StoreError::Compacted);
        }
        if revision > self.revision() {
            return Err(StoreError::FutureRevision);
        }
        self.meta.compacted_revision = revision;
        self.prune_some(if physical { i64::MAX } else { REVISIONS_AT_ONCE }, changes);
        Ok(())
    }

    /// Goes on with a compaction that is not done yet.
    pub(crate) fn go_on_compacting(&mut self, changes: &mut Vec<RecordChange>) {
        if self.meta.pruned_revision < self.meta.compacted_revision {
            self.prune_some(REVISIONS_PER_COMMAND, changes);
        }
    }

    /// Takes so many revisions out of the log and drops what their keys do not need any more. Counted in revisions, of which every member has
    /// the same, not in log entries, of which a member that was restarted has fewer.
    fn prune_some(&mut self, revision_count: i64, changes: &mut Vec<RecordChange>) {
        let compacted = self.meta.compacted_revision;
        let end = self.meta.pruned_revision.saturating_add(revision_count).min(compacted);
        let (index, bytes) = (&mut self.index, &mut self.bytes);
        let kept_from = if mutant!(WatchDropsCompactedRevision) { end + 1 } else { end };
        while let Some(event) = self.log.pop_below(kept_from) {
            prune_key(index, event.version.key(), compacted, bytes, changes);
        }
        self.meta.pruned_revision = end;
        if end == compacted {
            for event in self.log.forget_previous_at(compacted) {
                prune_key(index, event.version.key(), compacted, bytes, changes);
            }
            self.log.shrink();
        }
    }
}

fn prune_key(
    index: &mut KeyIndex,
    key: &[u8],
    compacted: i64,
    bytes: &mut usize,
    changes: &mut Vec<RecordChange>,
) {
    index.prune(key, compacted, |version| {
        *bytes -= version.size_bytes();
        changes.push(RecordChange::Delete(RecordKey::version(version.revision)));
    });
}
