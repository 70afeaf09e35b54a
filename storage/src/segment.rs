//! One file of a partition's log.

use vltava_protocol::ids::{LeaderEpoch, Offset};

use crate::ids::{FileId, Generation, LogIndex};

/// Bytes before the first batch of a segment.
pub const SEGMENT_HEADER_BYTES: u64 = 64;

/// What the first [`SEGMENT_HEADER_BYTES`] of a segment say. Written once, at creation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Which segment this is: guards against a file under a wrong name.
    pub id: FileId,
    /// The set of segments it belongs to.
    pub generation: Generation,
    /// The index of its first batch.
    pub base_index: LogIndex,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The epoch of the batch before the first one.
    pub epoch_before: LeaderEpoch,
}
