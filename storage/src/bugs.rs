//! Named bugs that the simulator plants to prove that its checks would catch them.
//!
//! Without the feature `planted-bugs` [`planted`] is a constant `false`, and no trace of a bug is
//! left in the program. With it, at most one bug is in force in the whole process.

/// A mistake that was made somewhere, by someone, and must not survive the simulator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// The write-ahead file set does not record that a segment was created.
    CreationMissingFromWal,
    /// Recovery takes old rounds that a recycled write-ahead file still holds.
    StaleRoundResurrected,
    /// After a cut, recovery still takes the older segment's batches beyond the newer one's base.
    CutRecoveredFromOlderSegment,
    /// A tail found by recovery counts as durable although nobody synced it.
    RecoveredTailNotSynced,
    /// After a failed write, another batch is written at the same position.
    AttemptedPositionReused,
    /// A reader is handed an internal batch, which spans no offset.
    ZeroRecordBatchServed,
    /// The log start is not remembered over a restart.
    LogStartForgotten,
    /// A produce request is acknowledged before its batch is durable.
    AckBeforePersist,
    /// A vote leaves without being saved.
    VoteNotPersisted,
    /// A message of a Ready whose vote is not yet durable leaves at once.
    MessageBeforeVoteDurable,
    /// Held messages leave when raft's `must_sync()` says that nothing is to be synced.
    HeldReleasedByMustSync,
    /// A fresh leader moves the high watermark without an entry of its own term.
    HighWatermarkWithoutOwnTerm,
    /// A fresh leader answers for the high watermark before its own entry is committed.
    HighWatermarkAnsweredEarly,
    /// A learner is started without the membership of its snapshot.
    LearnerWithoutConfState,
    /// A duplicate is acknowledged before its original is committed.
    DuplicateAckedBeforeOriginal,
}

#[cfg(feature = "planted-bugs")]
mod plant {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    /// 0 is none, else the bug's number plus one.
    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// Puts one bug in force, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.store(bug.map_or(0, |bug| bug as u8 + 1), Ordering::SeqCst);
    }

    /// Whether this bug is in force.
    pub fn planted(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8 + 1
    }
}

#[cfg(feature = "planted-bugs")]
pub use plant::{plant, planted};

/// Whether this bug is in force: never, in a program that was built to be used.
#[cfg(not(feature = "planted-bugs"))]
#[inline]
pub const fn planted(_: Bug) -> bool {
    false
}
