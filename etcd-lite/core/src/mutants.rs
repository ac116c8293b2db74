//! Faults planted on purpose, one at a time, to show that the simulation finds each of them.
//!
//! The places ask `mutant!(Name)`. Without the feature `mutants` that is the word `false`, and nothing of this is in the program. With it a fault is
//! chosen per thread, at run time. Never here: what a fault does, which stands where it is planted.

/// Whether a fault of this name is planted; never so in an ordinary build.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

/// Whether a fault of this name is planted.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::Mutant::$name.is_planted()
    };
}

#[cfg(feature = "mutants")]
planted_faults::faults! {
    // Consensus and its log.
    /// Followers acknowledge entries and votes before their disk has them.
    AckBeforeFsync,
    /// A member alone commits what its disk does not have.
    AloneAcksWithoutFsync,
    /// The vote does not reach the disk.
    VoteNotPersisted,
    /// The consensus library adds entries to waiting messages of another place.
    BatchAppend,
    /// After a start everything in the own log counts as committed.
    CommitsOwnLogAtStart,
    /// A member that lost its disk votes before it has caught up.
    RejoiningMemberVotes,
    /// A replayed log keeps entries that the leader had replaced.
    ConflictNotTruncated,
    /// Records of the log are taken whatever their checksum.
    TornTailTakenAsValid,
    /// An unfinished write stays at the end of its file.
    TornTailNotCut,
    /// A damaged record is taken for a write that was never finished.
    DamageTakenAsTorn,
    /// A command is proposed again although it was taken.
    ProposesTwice,
    // Reads.
    /// A member answers reads from what it knows to be committed, without asking the leader.
    ReadWithoutReadIndex,
    /// A member alone answers reads before it knows what its log's end is worth.
    AloneReadsBeforeCommit,
    /// An answer counts for readers who asked after its question was put.
    AnswersLaterReads,
    // State.
    /// The saved state says that it is one entry behind.
    AppliesTwiceAfterRestart,
    /// A state read back goes on from the newest key that is there.
    RevisionReuseAfterSnapshot,
    /// The value before is looked up one revision too early.
    PrevKvOffByOne,
    /// A key created anew goes on with the counts of its earlier life.
    RecreatedKeyKeepsItsPast,
    /// A transaction is checked only after it wrote.
    TxnNotAtomic,
    /// Comparisons of a nested transaction see what was written before them.
    NestedComparesSeeWrites,
    /// Revisions that were compacted are read.
    CompactedRead,
    // Leases.
    /// A lease goes on to own a key that was overwritten without it.
    LeaseKeepsOverwrittenKey,
    /// A state read back does not know which keys its leases have.
    LeaseKeysLostOnLoad,
    /// What the timers of a leader that was replaced say ends leases.
    LeaseExpiryOnFollower,
    /// A new leader forgets how long leases were granted for.
    NewLeaderEndsLeases,
    // Watches.
    /// The event of the compacted revision is gone.
    WatchDropsCompactedRevision,
    /// A deletion at the compacted revision is not kept.
    CompactionDropsDeletion,
    /// A watch from before the compacted revision is not cancelled.
    WatchNotCancelled,
    /// Progress tells the store's revision, not that of what was sent.
    ProgressAheadOfEvents,
    /// Progress is told while watchers of the stream are behind.
    ProgressWhileBehind,
    /// A watch of the future gets what comes before.
    FutureWatchGetsPast,
    /// A slow watcher goes on after what did not fit.
    SlowWatcherLosesEvents,
    /// Changes that the hub was too late for are passed over.
    HubIgnoresLag,
    /// Nobody tells watchers that a snapshot took the store's place.
    WatchMissesSnapshot,
    /// After changes that the hub was too late for, the last one before them is told again.
    ResyncTellsTwice,
    /// News overtake history that waits for room.
    HubOvertakesHistory,
}
