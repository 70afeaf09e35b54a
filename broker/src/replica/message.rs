//! What replicas of one group say to each other, in our own types: neither the `raft` crate nor its
//! wire format is visible here, so that either could be replaced.

use bytes::Bytes;
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::Durability;

/// A message between two replicas of one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerMessage {
    /// Who sends it.
    pub from: ReplicaId,
    /// Whom it is for.
    pub to: ReplicaId,
    /// The sender's term; for a pre-vote the term that it would campaign in.
    pub term: u64,
    /// What it says.
    pub body: PeerBody,
}

/// What a [`PeerMessage`] says. The first group are Raft's own messages (Ongaro's dissertation, §3
/// and §9.6 for pre-votes); the second moves snapshots; the third is about lost tails.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerBody {
    /// A candidate asks for a vote.
    RequestVote {
        /// Only asks whether it would be granted: changes nobody's term.
        pre: bool,
        /// The present leader told the candidate to campaign: leases do not protect it.
        transfer: bool,
        /// The candidate's last index.
        last_index: LogIndex,
        /// The term of that entry.
        last_term: u64,
        /// What the candidate knows to be committed.
        commit: LogIndex,
        /// The term of that entry.
        commit_term: u64,
    },
    /// The answer to a [`PeerBody::RequestVote`].
    VoteResponse {
        /// It answers a pre-vote.
        pre: bool,
        /// The vote was refused.
        reject: bool,
        /// What the voter knows to be committed (set when it refuses).
        commit: LogIndex,
        /// The term of that entry.
        commit_term: u64,
    },
    /// Entries for a follower, or none to probe its log.
    Append {
        /// The index before the first entry.
        prev_index: LogIndex,
        /// The term of that entry.
        prev_term: u64,
        /// The leader's commit index.
        commit: LogIndex,
        /// When these entries count as persisted. The leader decides, the follower obeys.
        durability: Durability,
        /// The entries, consecutive from `prev_index + 1`.
        entries: Vec<PeerEntry>,
    },
    /// The answer to an [`PeerBody::Append`] or an installed snapshot.
    AppendResponse {
        /// The last index that is persisted, or the index refused.
        index: LogIndex,
        /// The previous entry did not match.
        reject: bool,
        /// Where the logs may agree, if refused.
        hint_index: LogIndex,
        /// The term of that entry.
        hint_term: u64,
        /// How far the follower has applied what is committed: no change of membership up to here is
        /// forgotten if it restarts.
        commit: LogIndex,
    },
    /// The leader lives.
    Heartbeat {
        /// The commit index, never above what the follower has acknowledged.
        commit: LogIndex,
    },
    /// The answer to a [`PeerBody::Heartbeat`].
    HeartbeatResponse {
        /// What the follower knows to be committed.
        commit: LogIndex,
    },
    /// The follower is asked to campaign at once: leadership is handed to it.
    TimeoutNow,

    /// The follower is so far behind that it must fetch the segments named in a manifest.
    Snapshot {
        /// The last index that the snapshot covers.
        index: LogIndex,
        /// The term of that entry.
        last_term: u64,
        /// An encoded [`vltava_storage::snapshot::SnapshotManifest`].
        manifest: Bytes,
    },
    /// The follower asks for a part of a segment of the snapshot at `index`.
    ChunkRequest {
        /// Which snapshot.
        index: LogIndex,
        /// Which segment, by the index of its first batch.
        base_index: LogIndex,
        /// Bytes from the start of the segment's batches.
        position: u64,
    },
    /// The answer to a [`PeerBody::ChunkRequest`]; empty data: the snapshot is gone.
    Chunk {
        /// Which snapshot.
        index: LogIndex,
        /// Which segment.
        base_index: LogIndex,
        /// Where the bytes begin.
        position: u64,
        /// The bytes.
        data: Bytes,
    },

    /// The sender may have lost entries that it had acknowledged, and neither votes nor
    /// acknowledges until a leader answers with [`PeerBody::TailRefill`].
    TailLost {
        /// What it still has.
        last_index: LogIndex,
        /// The term of that entry.
        last_term: u64,
    },
    /// A voter that abstains asks the others what they have; there is no leader.
    Survey {
        /// Names the survey: an answer to an earlier one may be out of date.
        nonce: u64,
        /// What the asker knows to be committed.
        known: Known,
    },
    /// The answer to a [`PeerBody::Survey`].
    Testimony {
        /// Which survey it answers.
        nonce: u64,
        /// The sender abstains, too.
        abstains: bool,
        /// What it has.
        last_index: LogIndex,
        /// The term of that entry.
        last_term: u64,
        /// Who decides, as far as the sender knows: the asker may have lost a change of it.
        electorate: Electorate,
        /// What the sender knows to be committed.
        known: Known,
    },
    /// The leader has forgotten what the sender of [`PeerBody::TailLost`] had acknowledged.
    TailRefill {
        /// The index up to which the follower must be refilled before it votes again.
        until: LogIndex,
    },
}

/// What a replica knows to be committed. Whoever holds the same entry may believe it: index and term
/// name an entry and all before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// The last index that is committed.
    pub index: LogIndex,
    /// The term of that entry; 0 if the log does not have it any more.
    pub term: u64,
}

/// The voters of a group, and since which index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Electorate {
    /// The index of the change of membership that made it so.
    pub since: LogIndex,
    /// The voters of the (incoming) configuration.
    pub voters: Vec<ReplicaId>,
    /// The voters of the configuration that is being left, if any.
    pub outgoing: Vec<ReplicaId>,
}

/// One entry of a group's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerEntry {
    /// Its place.
    pub index: LogIndex,
    /// The term in which it was proposed.
    pub term: u64,
    /// What it holds.
    pub payload: Payload,
}

/// What an entry holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// A whole record batch, or an internal batch of ours, byte for byte as it lies in the log.
    Batch(Bytes),
    /// The empty entry with which a leader begins its term.
    Noop,
    /// A membership change, in raft's encoding.
    ConfChange(Bytes),
    /// A joint membership change, in raft's encoding; empty: leave the joint configuration.
    ConfChangeV2(Bytes),
}
