//! What raft and the partition ask a log; cheap, but where stated.

use std::ops::Range;

use bytes::Bytes;
use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_protocol::record::control::InternalKind;

use super::{PartitionLog, ReadError};
use crate::epochs::Epochs;
use crate::ids::{LogIndex, Place};
use crate::segments::read_batches;
use crate::state::Membership;

impl PartitionLog {
    /// The first index that the replicated log still has.
    pub fn first_index(&self) -> LogIndex {
        self.state.log_start.first_index
    }

    /// The index of the last batch; the one before [`PartitionLog::first_index`] without any.
    pub fn last_index(&self) -> LogIndex {
        self.ring.last_index()
    }

    /// How far the group is known to have committed.
    pub fn committed(&self) -> LogIndex {
        self.committed
    }

    /// The index of the batch that holds `offset`, if it lies above the high watermark: what a
    /// retry of an uncommitted batch waits for.
    pub fn index_at(&self, offset: Offset) -> Option<LogIndex> {
        if offset < self.high_watermark() || offset >= self.end_offset() {
            return None;
        }
        let mut index = self.committed.next();
        while self.end_offset_of(index) <= offset {
            index = index.next();
        }
        Some(index)
    }

    /// The epoch of the batch at `index`, from the one before the first to the last.
    pub fn epoch_at(&self, index: LogIndex) -> Option<LeaderEpoch> {
        if index > self.last_index() { None } else { self.epochs.at(index) }
    }

    /// The kind of the batch at `index`, if it is an internal one.
    pub fn internal_at(&self, index: LogIndex) -> Option<InternalKind> {
        let after = self.segments.partition_point(|segment| segment.header.base_index <= index);
        let segment = &self.segments[after.checked_sub(1)?];
        segment.index.read().internal_at(index)
    }

    /// Whether reading from `index` on touches only what this process wrote lately.
    pub fn is_resident(&self, index: LogIndex) -> bool {
        if let Some(entry) = self.ring.get(index) {
            return entry.place >= self.recent;
        }
        let after = self.segments.partition_point(|segment| segment.header.base_index <= index);
        after.checked_sub(1).is_some_and(|at| {
            let segment = &self.segments[at];
            let position = segment.index.read().before_index(index).position;
            Place { segment: segment.header.id.segment, position } >= self.recent
        })
    }

    /// The whole batches at `range`: at least one, then no more than `max_bytes`. Reads the disk
    /// where they are not [resident](PartitionLog::is_resident); what is committed can be read
    /// without the lock by [`ReadView::batches`](crate::read_view::ReadView::batches).
    pub fn batches(
        &self,
        range: Range<LogIndex>,
        max_bytes: u64,
    ) -> Result<Vec<(LogIndex, LeaderEpoch, Bytes)>, ReadError> {
        let (first, last) = (self.first_index(), self.last_index());
        if range.start < first || range.end > last.next() {
            let index = if range.start < first { range.start } else { range.end.prev() };
            return Err(ReadError::IndexOutOfRange { index, first, last });
        }
        read_batches(&self.segments, range, max_bytes, self.recent)
    }

    /// The offset after the last record.
    pub fn end_offset(&self) -> Offset {
        self.end_offset_of(self.last_index())
    }

    /// The offset after the last committed record.
    pub fn high_watermark(&self) -> Offset {
        self.end_offset_of(self.committed)
    }

    /// The offset after the batch at `index`, which lies between the commit and the end.
    pub fn end_offset_of(&self, index: LogIndex) -> Offset {
        self.ring.end_offset(index).expect("asked only from the commit to the end of the log")
    }

    /// The membership in force at `index`.
    pub fn membership_at(&self, index: LogIndex) -> Option<&Membership> {
        let memberships = &self.state.memberships;
        memberships.iter().rev().find(|(from, _)| *from <= index).map(|(_, members)| members)
    }

    /// The leader epochs of the log.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Kafka's `OffsetForLeaderEpoch`: the largest epoch at or below `epoch`, and where it ends;
    /// (-1, -1) for one that this log does not know yet.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        self.epochs.end_offset_for(epoch, self.state.log_start.offset, self.end_offset())
    }
}
