//! What a replica must remember beside its batches: one small row, rewritten whole in the
//! write-ahead file set whenever it changes. The row is also the replica's manifest: its
//! [`Generation`] says which segments form the log, so that switching it is atomic.

use vltava_protocol::ids::{LeaderEpoch, Offset};

use crate::epochs::Epochs;
use crate::ids::{Generation, LogIndex, Place, ReplicaId};

/// Raft's hard state: the term, the vote in it, and how far the log was known to be committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VoteState {
    /// The current term.
    pub term: u64,
    /// Whom this replica voted for in `term`; 0 is nobody.
    pub vote: u64,
    /// The commit index, saved lazily and never above the durable end of the log.
    pub commit: LogIndex,
}

/// Who takes part in a group. While `outgoing` is not empty the group is in joint consensus.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// Voters of the (incoming) configuration.
    pub voters: Vec<ReplicaId>,
    /// Voters of the configuration that is being left.
    pub outgoing: Vec<ReplicaId>,
    /// Replicas that receive the log but do not vote.
    pub learners: Vec<ReplicaId>,
    /// Voters of `outgoing` that become learners when the joint configuration is left.
    pub learners_next: Vec<ReplicaId>,
    /// Whether the joint configuration is left as soon as it is committed.
    pub auto_leave: bool,
}

/// Where the log begins: everything before was deleted, or was never here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogStart {
    /// The first index that the replicated log still has. A logical floor: segments below it may
    /// still be on disk, and it never passes the applied index.
    pub first_index: LogIndex,
    /// The epoch of the batch before `first_index`.
    pub epoch_before: LeaderEpoch,
    /// The first offset that a client may read.
    pub offset: Offset,
}

/// The row of one replica.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplicaState {
    /// Which segments form the log.
    pub generation: Generation,
    /// Term, vote and commit.
    pub vote: VoteState,
    /// Where the log begins.
    pub log_start: LogStart,
    /// The membership as of each index at which it changed, oldest first. The last is in force;
    /// older ones are kept as long as a snapshot may be taken at their index.
    pub memberships: Vec<(LogIndex, Membership)>,
    /// Set while this replica may have lost a tail that it had acknowledged: it neither votes nor
    /// acknowledges until a leader has refilled it to the index given here (`None` in the inner
    /// option: not known yet).
    pub abstaining: Option<Option<LogIndex>>,
    /// Batches of the log may be in memory only: it was written in page-cache durability since all of
    /// it was last synced. If the operating system dies while this is set, a tail may be lost that
    /// was acknowledged; while it is not set, a missing tail is damage.
    pub unsynced: bool,
    /// The newest epochs of the log. An epoch is in a row that is saved before its first batch is,
    /// so every batch of the log can be held against this list. It may name epochs past the end of
    /// a log that lost a tail.
    pub epochs: Epochs,
    /// All bytes of the log before this place were synced in their segment files. Kept by the
    /// flusher; whoever saves a row leaves it as it is.
    pub durable: Option<Place>,
}
