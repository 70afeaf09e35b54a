//! What the write-ahead file set can say, one record at a time.
//!
//! ```text
//! Write    1  file          position u64  length u32  bytes
//! Create   2  segment header, as in the file
//! Synced   3  file          position u64
//! Delete   4  file
//! State    5  replica u64   row
//! Forget   6  replica u64
//! Node     7  node_id i32   clean u8      cluster_id text   boot_id text
//!
//! file = replica u64, segment u64         text = length u32, UTF-8
//! row  = generation u32, term u64, vote u64, commit u64,
//!        first_index u64, epoch_before i32, offset i64,
//!        memberships: count u32 of { index u64, 4 lists of ids, auto_leave u8 },
//!        abstaining: 0 | 1 | 2, index u64; unsynced u8,
//!        durable: 0 | 1, segment u64, position u64, epochs
//!
//! epochs = first_index u64, before i32, count u32 of { epoch i32, first_index u64, offset i64 }
//! ```
//!
//! All big-endian. A kind that is not listed is an error, never skipped: a record that was not
//! understood may be the one that deletes what an earlier one wrote.

use bytes::{Buf, BufMut, Bytes};
use vltava_protocol::ids::{LeaderEpoch, Offset};

use crate::epochs::Epochs;
use crate::ids::{FileId, Generation, LogIndex, Place, ReplicaId, SegmentId};
use crate::node::NodeState;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::segment_header::HeaderError;
use crate::state::{LogStart, Membership, ReplicaState, VoteState};

/// One fact about a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// These bytes belong at this position of a segment.
    Write {
        /// The segment.
        file: FileId,
        /// Where they begin in its file.
        position: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// A segment exists, with this header.
    Create {
        /// The first bytes of its file, which also say which segment it is.
        header: SegmentHeader,
    },
    /// All bytes of a segment below a position are durable in its own file.
    Synced {
        /// The segment.
        file: FileId,
        /// The end of what is durable.
        position: u64,
    },
    /// A segment is no longer part of any log.
    Delete {
        /// The segment.
        file: FileId,
    },
    /// The row of a replica, in place of any earlier one.
    State {
        /// Whose.
        replica: ReplicaId,
        /// The row.
        state: ReplicaState,
    },
    /// A replica and all its segments are no more.
    Forget {
        /// Which one.
        replica: ReplicaId,
    },
    /// The row of the node, in place of any earlier one.
    Node(NodeState),
}

/// Why a round's payload cannot be understood, although its checksum is right.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// This program does not know the kind.
    #[error("record kind {0} is not known to this program")]
    UnknownKind(u8),
    /// A record is longer than the round, or a value in it is none that is ever written.
    #[error("record of kind {0} is malformed")]
    Malformed(u8),
    /// The header of a segment cannot be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

const WRITE: u8 = 1;
const CREATE: u8 = 2;
const SYNCED: u8 = 3;
const DELETE: u8 = 4;
const STATE: u8 = 5;
const FORGET: u8 = 6;
const NODE: u8 = 7;

impl Record {
    /// Appends the record, but for the bytes of a write: these are returned, to be appended by the
    /// caller without a copy.
    pub(super) fn encode<'a>(&'a self, to: &mut Vec<u8>) -> Option<&'a Bytes> {
        match self {
            Self::Write { file, position, bytes } => {
                let length = u32::try_from(bytes.len()).expect("a write is at most a segment long");
                to.put_u8(WRITE);
                put_file(to, *file);
                to.put_u64(*position);
                to.put_u32(length);
                return Some(bytes);
            }
            Self::Create { header } => {
                to.put_u8(CREATE);
                to.put_slice(&header.encode());
            }
            Self::Synced { file, position } => {
                to.put_u8(SYNCED);
                put_file(to, *file);
                to.put_u64(*position);
            }
            Self::Delete { file } => {
                to.put_u8(DELETE);
                put_file(to, *file);
            }
            Self::State { replica, state } => {
                to.put_u8(STATE);
                to.put_u64(replica.0);
                put_state(to, state);
            }
            Self::Forget { replica } => {
                to.put_u8(FORGET);
                to.put_u64(replica.0);
            }
            Self::Node(node) => {
                to.put_u8(NODE);
                to.put_i32(node.node_id);
                to.put_u8(u8::from(node.clean));
                put_text(to, &node.cluster_id);
                put_text(to, &node.boot_id);
            }
        }
        None
    }

    /// Takes one record from the front.
    pub(super) fn decode(from: &mut Bytes) -> Result<Self, RecordError> {
        let kind = from.try_get_u8().map_err(|_| RecordError::Malformed(0))?;
        let record = match kind {
            WRITE => take_write(from),
            CREATE => return take_create(from),
            SYNCED => take_file(from)
                .and_then(|file| Some(Self::Synced { file, position: from.try_get_u64().ok()? })),
            DELETE => take_file(from).map(|file| Self::Delete { file }),
            STATE => take_replica(from)
                .and_then(|replica| Some(Self::State { replica, state: take_state(from)? })),
            FORGET => take_replica(from).map(|replica| Self::Forget { replica }),
            NODE => take_node(from).map(Self::Node),
            unknown => return Err(RecordError::UnknownKind(unknown)),
        };
        record.ok_or(RecordError::Malformed(kind))
    }
}

fn put_file(to: &mut Vec<u8>, file: FileId) {
    to.put_u64(file.replica.0);
    to.put_u64(file.segment.0);
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    to.put_u32(u32::try_from(text.len()).expect("an id is short"));
    to.put_slice(text.as_bytes());
}

fn put_state(to: &mut Vec<u8>, state: &ReplicaState) {
    to.put_u32(state.generation.0);
    to.put_u64(state.vote.term);
    to.put_u64(state.vote.vote);
    to.put_u64(state.vote.commit.0);
    to.put_u64(state.log_start.first_index.0);
    to.put_i32(state.log_start.epoch_before.0);
    to.put_i64(state.log_start.offset.0);
    to.put_u32(u32::try_from(state.memberships.len()).expect("few memberships are kept"));
    for (index, membership) in &state.memberships {
        to.put_u64(index.0);
        for ids in [
            &membership.voters,
            &membership.outgoing,
            &membership.learners,
            &membership.learners_next,
        ] {
            to.put_u32(u32::try_from(ids.len()).expect("a group is small"));
            for id in ids {
                to.put_u64(id.0);
            }
        }
        to.put_u8(u8::from(membership.auto_leave));
    }
    match state.abstaining {
        None => to.put_u8(0),
        Some(None) => to.put_u8(1),
        Some(Some(index)) => {
            to.put_u8(2);
            to.put_u64(index.0);
        }
    }
    to.put_u8(u8::from(state.unsynced));
    match state.durable {
        None => to.put_u8(0),
        Some(place) => {
            to.put_u8(1);
            to.put_u64(place.segment.0);
            to.put_u64(place.position);
        }
    }
    state.epochs.encode(to);
}

fn take_replica(from: &mut Bytes) -> Option<ReplicaId> {
    from.try_get_u64().ok().map(ReplicaId)
}

fn take_file(from: &mut Bytes) -> Option<FileId> {
    let replica = take_replica(from)?;
    let segment = SegmentId(from.try_get_u64().ok()?);
    Some(FileId { replica, segment })
}

fn take_flag(from: &mut Bytes) -> Option<bool> {
    match from.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_bytes(from: &mut Bytes) -> Option<Bytes> {
    let length = from.try_get_u32().ok()? as usize;
    (length <= from.len()).then(|| from.split_to(length))
}

fn take_text(from: &mut Bytes) -> Option<String> {
    String::from_utf8(take_bytes(from)?.into()).ok()
}

fn take_write(from: &mut Bytes) -> Option<Record> {
    let file = take_file(from)?;
    let position = from.try_get_u64().ok()?;
    let bytes = take_bytes(from)?;
    position.checked_add(bytes.len() as u64)?;
    Some(Record::Write { file, position, bytes })
}

fn take_create(from: &mut Bytes) -> Result<Record, RecordError> {
    let length = (SEGMENT_HEADER_BYTES as usize).min(from.len());
    let header = SegmentHeader::decode(&from.split_to(length))?;
    Ok(Record::Create { header })
}

fn take_node(from: &mut Bytes) -> Option<NodeState> {
    let node_id = from.try_get_i32().ok()?;
    let clean = take_flag(from)?;
    let cluster_id = take_text(from)?;
    let boot_id = take_text(from)?;
    Some(NodeState { node_id, cluster_id, boot_id, clean })
}

fn take_ids(from: &mut Bytes) -> Option<Vec<ReplicaId>> {
    let count = from.try_get_u32().ok()?;
    // Collected one by one: a wrong count reserves nothing.
    (0..count).map(|_| take_replica(from)).collect()
}

fn take_membership(from: &mut Bytes) -> Option<(LogIndex, Membership)> {
    let index = LogIndex(from.try_get_u64().ok()?);
    let membership = Membership {
        voters: take_ids(from)?,
        outgoing: take_ids(from)?,
        learners: take_ids(from)?,
        learners_next: take_ids(from)?,
        auto_leave: take_flag(from)?,
    };
    Some((index, membership))
}

fn take_state(from: &mut Bytes) -> Option<ReplicaState> {
    let generation = Generation(from.try_get_u32().ok()?);
    let vote = VoteState {
        term: from.try_get_u64().ok()?,
        vote: from.try_get_u64().ok()?,
        commit: LogIndex(from.try_get_u64().ok()?),
    };
    let log_start = LogStart {
        first_index: LogIndex(from.try_get_u64().ok()?),
        epoch_before: LeaderEpoch(from.try_get_i32().ok()?),
        offset: Offset(from.try_get_i64().ok()?),
    };
    let count = from.try_get_u32().ok()?;
    let memberships = (0..count).map(|_| take_membership(from)).collect::<Option<_>>()?;
    let abstaining = match from.try_get_u8().ok()? {
        0 => None,
        1 => Some(None),
        2 => Some(Some(LogIndex(from.try_get_u64().ok()?))),
        _ => return None,
    };
    let unsynced = take_flag(from)?;
    let durable = if take_flag(from)? {
        let segment = SegmentId(from.try_get_u64().ok()?);
        Some(Place { segment, position: from.try_get_u64().ok()? })
    } else {
        None
    };
    let epochs = Epochs::decode(from)?;
    Some(ReplicaState {
        generation,
        vote,
        log_start,
        memberships,
        abstaining,
        unsynced,
        epochs,
        durable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record> {
        let replica = ReplicaId(u64::MAX);
        let file = FileId { replica, segment: SegmentId(4) };
        let membership = Membership {
            voters: vec![ReplicaId(1), ReplicaId(2)],
            outgoing: vec![ReplicaId(3)],
            learners: vec![],
            learners_next: vec![ReplicaId(9)],
            auto_leave: true,
        };
        let mut epochs = Epochs::new(LeaderEpoch(1), LogIndex(2));
        epochs.push(LeaderEpoch(3), LogIndex(2), Offset(10));
        epochs.push(LeaderEpoch(5), LogIndex(9), Offset(10));
        let state = ReplicaState {
            generation: Generation(2),
            vote: VoteState { term: 5, vote: 1, commit: LogIndex(77) },
            log_start: LogStart {
                first_index: LogIndex(2),
                epoch_before: LeaderEpoch(1),
                offset: Offset(10),
            },
            memberships: vec![(LogIndex(1), Membership::default()), (LogIndex(8), membership)],
            abstaining: Some(Some(LogIndex(6))),
            unsynced: true,
            epochs,
            durable: Some(Place { segment: SegmentId(4), position: 4096 }),
        };
        let header = SegmentHeader {
            id: file,
            generation: Generation(2),
            base_index: LogIndex(3),
            base_offset: Offset(4),
            epoch_before: LeaderEpoch(5),
        };
        vec![
            Record::Write { file, position: 64, bytes: Bytes::from_static(b"batch") },
            Record::Create { header },
            Record::Synced { file, position: 1 << 40 },
            Record::Delete { file },
            Record::State { replica, state },
            Record::State {
                replica,
                state: ReplicaState { abstaining: Some(None), ..ReplicaState::default() },
            },
            Record::Forget { replica },
            Record::Node(NodeState {
                node_id: -1,
                cluster_id: "4L6g3nShT-eMCtK--X86sw".into(),
                boot_id: String::new(),
                clean: true,
            }),
        ]
    }

    fn encoded(record: &Record) -> Bytes {
        let mut to = Vec::new();
        let tail = record.encode(&mut to).cloned().unwrap_or_default();
        to.extend_from_slice(&tail);
        to.into()
    }

    #[test]
    fn records_read_back_one_after_the_other() {
        let mut bytes: Bytes = samples().iter().map(encoded).collect::<Vec<_>>().concat().into();
        for sample in samples() {
            assert_eq!(Record::decode(&mut bytes), Ok(sample));
        }
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_cut_record_is_an_error() {
        for sample in samples() {
            let whole = encoded(&sample);
            for length in 0..whole.len() {
                let cut = Record::decode(&mut whole.slice(..length));
                assert!(cut.is_err(), "{sample:?} cut to {length}: {cut:?}");
            }
        }
    }

    #[test]
    fn nothing_is_guessed() {
        let check = |bytes: &'static [u8], error| {
            assert_eq!(Record::decode(&mut Bytes::from_static(bytes)), Err(error));
        };
        check(&[8], RecordError::UnknownKind(8));
        check(&[0], RecordError::UnknownKind(0));
        // A flag that is neither yes nor no, and an absurd count of memberships.
        check(&[NODE, 0, 0, 0, 1, 2], RecordError::Malformed(NODE));
        let mut state = encoded(&samples()[5]).to_vec();
        let memberships = 1 + 8 + 4 + 24 + 8 + 4 + 8;
        state[memberships..memberships + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(Record::decode(&mut state.into()), Err(RecordError::Malformed(STATE)));
    }
}
