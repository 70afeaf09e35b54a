//! Raft's messages and entries as ours, and back. Batches are handles on both sides: nothing is
//! copied, and raft's own wire format never appears.

use raft::prelude::{Entry, EntryType, Message, MessageType};
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::Durability;

use crate::replica::message::{Payload, PeerBody, PeerEntry, PeerMessage};

/// The context that marks a vote request of a leadership transfer, as raft knows it.
const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";

/// An entry of raft's as ours.
pub(super) fn from_entry(entry: Entry) -> PeerEntry {
    let payload = match entry.entry_type {
        EntryType::EntryNormal if entry.data.is_empty() => Payload::Noop,
        EntryType::EntryNormal => Payload::Batch(entry.data),
        EntryType::EntryConfChange => Payload::ConfChange(entry.data),
        EntryType::EntryConfChangeV2 => Payload::ConfChangeV2(entry.data),
    };
    PeerEntry { index: LogIndex(entry.index), term: entry.term, payload }
}

/// The inverse of [`from_entry`].
pub(super) fn into_entry(entry: PeerEntry) -> Entry {
    let (entry_type, data) = match entry.payload {
        Payload::Batch(data) => (EntryType::EntryNormal, data),
        Payload::Noop => (EntryType::EntryNormal, bytes::Bytes::new()),
        Payload::ConfChange(data) => (EntryType::EntryConfChange, data),
        Payload::ConfChangeV2(data) => (EntryType::EntryConfChangeV2, data),
    };
    Entry { entry_type, data, index: entry.index.0, term: entry.term, ..Entry::default() }
}

/// Raft's message in our words; `None` for kinds that no peer of ours may send.
pub(super) fn from_raft(mut message: Message, durability: Durability) -> Option<PeerMessage> {
    let commit = LogIndex(message.commit);
    let body = match message.msg_type {
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => PeerBody::RequestVote {
            pre: message.msg_type == MessageType::MsgRequestPreVote,
            transfer: message.context == TRANSFER_CONTEXT,
            last_index: LogIndex(message.index),
            last_term: message.log_term,
            commit,
            commit_term: message.commit_term,
        },
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {
            PeerBody::VoteResponse {
                pre: message.msg_type == MessageType::MsgRequestPreVoteResponse,
                reject: message.reject,
                commit,
                commit_term: message.commit_term,
            }
        }
        MessageType::MsgAppend => PeerBody::Append {
            prev_index: LogIndex(message.index),
            prev_term: message.log_term,
            commit,
            durability,
            entries: message.take_entries().into_iter().map(from_entry).collect(),
        },
        MessageType::MsgAppendResponse => PeerBody::AppendResponse {
            index: LogIndex(message.index),
            reject: message.reject,
            hint_index: LogIndex(message.reject_hint),
            hint_term: message.log_term,
            commit,
        },
        MessageType::MsgHeartbeat => PeerBody::Heartbeat { commit },
        MessageType::MsgHeartbeatResponse => PeerBody::HeartbeatResponse { commit },
        MessageType::MsgTimeoutNow => PeerBody::TimeoutNow,
        MessageType::MsgSnapshot => {
            let snapshot = message.take_snapshot();
            PeerBody::Snapshot {
                index: LogIndex(snapshot.get_metadata().index),
                last_term: snapshot.get_metadata().term,
                manifest: snapshot.data,
            }
        }
        _ => return None,
    };
    let (from, to) = (ReplicaId(message.from), ReplicaId(message.to));
    Some(PeerMessage { from, to, term: message.term, body })
}

/// The inverse of [`from_raft`], for the kinds that raft steps itself. A heartbeat's commit index is
/// clamped to what this replica holds: a leader that counts on a lost tail must not end the node.
pub(super) fn into_raft(message: PeerMessage, last_index: LogIndex) -> Message {
    let mut raft = Message {
        from: message.from.0,
        to: message.to.0,
        term: message.term,
        ..Message::default()
    };
    match message.body {
        PeerBody::RequestVote { pre, transfer, last_index, last_term, commit, commit_term } => {
            raft.msg_type =
                if pre { MessageType::MsgRequestPreVote } else { MessageType::MsgRequestVote };
            if transfer {
                raft.context = bytes::Bytes::from_static(TRANSFER_CONTEXT);
            }
            (raft.index, raft.log_term) = (last_index.0, last_term);
            (raft.commit, raft.commit_term) = (commit.0, commit_term);
        }
        PeerBody::VoteResponse { pre, reject, commit, commit_term } => {
            raft.msg_type = if pre {
                MessageType::MsgRequestPreVoteResponse
            } else {
                MessageType::MsgRequestVoteResponse
            };
            raft.reject = reject;
            (raft.commit, raft.commit_term) = (commit.0, commit_term);
        }
        PeerBody::Append { prev_index, prev_term, commit, entries, .. } => {
            raft.msg_type = MessageType::MsgAppend;
            (raft.index, raft.log_term, raft.commit) = (prev_index.0, prev_term, commit.0);
            raft.entries = entries.into_iter().map(into_entry).collect::<Vec<_>>().into();
        }
        PeerBody::AppendResponse { index, reject, hint_index, hint_term, commit } => {
            raft.msg_type = MessageType::MsgAppendResponse;
            (raft.index, raft.reject, raft.commit) = (index.0, reject, commit.0);
            (raft.reject_hint, raft.log_term) = (hint_index.0, hint_term);
        }
        PeerBody::Heartbeat { commit } => {
            raft.msg_type = MessageType::MsgHeartbeat;
            raft.commit = commit.min(last_index).0;
        }
        PeerBody::HeartbeatResponse { commit } => {
            raft.msg_type = MessageType::MsgHeartbeatResponse;
            raft.commit = commit.0;
        }
        PeerBody::TimeoutNow => raft.msg_type = MessageType::MsgTimeoutNow,
        PeerBody::Snapshot { .. }
        | PeerBody::ChunkRequest { .. }
        | PeerBody::Chunk { .. }
        | PeerBody::TailLost { .. }
        | PeerBody::Survey { .. }
        | PeerBody::Testimony { .. }
        | PeerBody::TailRefill { .. } => unreachable!("the shell handles these itself"),
    }
    raft
}
