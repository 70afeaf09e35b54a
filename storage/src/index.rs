//! What is known about one segment without reading it: a sparse index of its batches, the places
//! of its internal batches, the leader epochs that begin in it, its greatest timestamp, its end.
//!
//! An [`IndexEntry`] stands for a batch at least every `index_interval_bytes`: finding a place is a
//! binary search and a walk over the headers of at most that many bytes and one batch. The time
//! index is a column of the same entries: the greatest timestamp *before* the entry's batch, which
//! never falls along the segment, so that the first batch at or after a time is found the same way.
//!
//! **Invariant:** entries follow the batches: index, offset and position rise, the first entry is
//! the first batch. The index is memory; its side file (`{segment}.index`) saves a scan at start.

use std::io;
use std::path::Path;

use bytes::{Buf, BufMut, Bytes};
use vltava_protocol::ids::{LeaderEpoch, Offset, Timestamp};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::control::InternalKind;

use self::entries::{ENTRY_BYTES, Entries, IndexEntry};
use crate::disk::{Disk, DiskFile};
use crate::epochs::EpochStart;
use crate::ids::LogIndex;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::side_file::{self, Magic};

mod entries;

const MAGIC: Magic = Magic(*b"VIDX");
/// Entries are relative to the segment's base and positions are `u32`, so a segment ends below.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 2 << 30;
/// Entries of a segment that was left stay in memory below this size, and in a map above it.
const RESIDENT_BYTES_MAX: usize = 64 * 1024;
const INTERNAL_BYTES: usize = 17;
const EPOCH_BYTES: usize = 20;

/// Where an internal batch lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InternalPlace {
    pub(crate) index: LogIndex,
    pub(crate) position: u32,
    pub(crate) length: u32,
    pub(crate) kind: InternalKind,
}

/// Where a batch begins, in every measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchStart {
    pub(crate) position: u64,
    pub(crate) index: LogIndex,
    pub(crate) offset: Offset,
    /// Epoch of the batch before.
    pub(crate) epoch_before: LeaderEpoch,
}

/// Everything known about one segment's content.
#[derive(Clone, Debug)]
pub(crate) struct SegmentIndex {
    base_index: LogIndex,
    base_offset: Offset,
    epoch_before: LeaderEpoch,
    interval_bytes: u32,
    entries: Entries,
    internal: Vec<InternalPlace>,
    epochs: Vec<EpochStart>,
    /// Greatest timestamp of a data batch, or more where a tail was cut off; `NONE` without one.
    max_timestamp: Timestamp,
    /// Of the first data batch, what its segment's age counts from; `NONE` without one.
    first_timestamp: Timestamp,
    end: BatchStart,
}

impl SegmentIndex {
    /// The index of a segment without batches.
    pub(crate) fn new(header: &SegmentHeader, interval_bytes: u32) -> Self {
        Self {
            base_index: header.base_index,
            base_offset: header.base_offset,
            epoch_before: header.epoch_before,
            interval_bytes,
            entries: Entries::new(),
            internal: Vec::new(),
            epochs: Vec::new(),
            max_timestamp: Timestamp::NONE,
            first_timestamp: Timestamp::NONE,
            end: BatchStart {
                position: SEGMENT_HEADER_BYTES,
                index: header.base_index,
                offset: header.base_offset,
                epoch_before: header.epoch_before,
            },
        }
    }

    /// Takes the batch at the end into account. `kind` tells an internal batch.
    pub(crate) fn push(&mut self, header: &BatchHeader, kind: Option<InternalKind>) {
        let at = self.end;
        assert_eq!(header.base_offset, at.offset, "offsets are dense");
        assert!(header.leader_epoch >= at.epoch_before, "leader epochs only grow along the log");
        assert_eq!(header.is_internal(), kind.is_some(), "internal batches alone have a kind");
        let position = u32::try_from(at.position).expect("SEGMENT_BYTES_MAX fits");
        let due =
            self.entries.last().is_none_or(|last| position - last.position >= self.interval_bytes);
        if due {
            self.entries.push(IndexEntry {
                relative_index: u32::try_from(at.index.0 - self.base_index.0).expect("rolled"),
                relative_offset: u32::try_from(at.offset - self.base_offset).expect("rolled"),
                position,
                max_timestamp_before: self.max_timestamp,
            });
        }
        if header.leader_epoch > at.epoch_before {
            let (epoch, first_index) = (header.leader_epoch, at.index);
            self.epochs.push(EpochStart { epoch, first_index, first_offset: at.offset });
        }
        let length = u32::try_from(header.size()).expect("a batch is shorter than 2 GiB");
        if let Some(kind) = kind {
            self.internal.push(InternalPlace { index: at.index, position, length, kind });
        } else {
            if self.first_timestamp == Timestamp::NONE {
                self.first_timestamp = header.max_timestamp;
            }
            self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        }
        self.end = BatchStart {
            position: at.position + u64::from(length),
            index: at.index.next(),
            offset: header.end_offset(),
            epoch_before: header.leader_epoch,
        };
    }

    /// Forgets every batch from `end` on. The greatest timestamp stays an upper bound.
    pub(crate) fn truncate(&mut self, end: BatchStart) {
        assert!(end.index <= self.end.index && end.position <= self.end.position);
        let relative = end.index.0 - self.base_index.0;
        let kept = self.entries.partition_point(|e| u64::from(e.relative_index) < relative);
        self.entries.truncate(kept);
        self.internal.retain(|place| place.index < end.index);
        self.epochs.retain(|start| start.first_index < end.index);
        if kept == 0 {
            (self.max_timestamp, self.first_timestamp) = (Timestamp::NONE, Timestamp::NONE);
        }
        self.end = end;
    }

    /// Forgets the last entry before the batch at `limit`, and all behind it, so that a scan can go
    /// on from there.
    pub(crate) fn rewind(&mut self, limit: LogIndex) {
        if self.end.index > limit {
            let relative = limit.0.saturating_sub(self.base_index.0);
            self.keep(self.entries.partition_point(|e| u64::from(e.relative_index) < relative));
        }
    }

    /// As [`SegmentIndex::rewind`], to before the byte at `position`.
    pub(crate) fn rewind_to_position(&mut self, position: u64) {
        if self.end.position > position {
            self.keep(self.entries.partition_point(|e| u64::from(e.position) < position));
        }
    }

    /// Goes back to the start of the last of the first `entries` entries.
    fn keep(&mut self, entries: usize) {
        let Some(last) = entries.checked_sub(1).map(|last| self.entries.get(last)) else {
            self.truncate(self.start());
            return;
        };
        let start = self.start_of(&last);
        self.truncate(start);
        self.max_timestamp = last.max_timestamp_before;
        if self.max_timestamp == Timestamp::NONE {
            self.first_timestamp = Timestamp::NONE;
        }
    }

    /// The end: where the next batch would begin.
    pub(crate) fn end(&self) -> BatchStart {
        self.end
    }

    pub(crate) fn max_timestamp(&self) -> Timestamp {
        self.max_timestamp
    }

    pub(crate) fn first_timestamp(&self) -> Timestamp {
        self.first_timestamp
    }

    pub(crate) fn entry_count(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }

    /// The kind of the batch at `index`, if it is internal.
    pub(crate) fn internal_at(&self, index: LogIndex) -> Option<InternalKind> {
        let at = self.internal.binary_search_by_key(&index, |place| place.index).ok()?;
        Some(self.internal[at].kind)
    }

    /// The internal batches that begin in `from..to`, in order.
    pub(crate) fn internal_between(&self, from: u64, to: u64) -> &[InternalPlace] {
        let begin = self.internal.partition_point(|place| u64::from(place.position) < from);
        let end = self.internal.partition_point(|place| u64::from(place.position) < to);
        &self.internal[begin..end.max(begin)]
    }

    /// The last entry whose batch begins at or before `offset`; the segment's start without one.
    pub(crate) fn before_offset(&self, offset: Offset) -> BatchStart {
        let after = self
            .entries
            .partition_point(|e| self.base_offset + i64::from(e.relative_offset) <= offset);
        // Batches of zero offsets share their offset with the next: the first of them is taken.
        self.entry_before(after)
    }

    /// The last entry at or before `index`; the segment's start without one.
    pub(crate) fn before_index(&self, index: LogIndex) -> BatchStart {
        let relative = index.0.saturating_sub(self.base_index.0);
        self.entry_before(self.entries.partition_point(|e| u64::from(e.relative_index) <= relative))
    }

    /// The last entry at or before `position`; the segment's start without one.
    pub(crate) fn before_position(&self, position: u64) -> BatchStart {
        self.entry_before(self.entries.partition_point(|e| u64::from(e.position) <= position))
    }

    /// An entry before which no batch reaches `timestamp`.
    pub(crate) fn before_timestamp(&self, timestamp: Timestamp) -> BatchStart {
        self.entry_before(self.entries.partition_point(|e| e.max_timestamp_before < timestamp))
    }

    /// The greatest timestamp before the last entry at or before `offset`.
    pub(crate) fn max_timestamp_before(&self, offset: Offset) -> Timestamp {
        let after = self
            .entries
            .partition_point(|e| self.base_offset + i64::from(e.relative_offset) <= offset);
        match after.checked_sub(1) {
            Some(at) => self.entries.get(at).max_timestamp_before,
            None => Timestamp::NONE,
        }
    }

    fn entry_before(&self, after: usize) -> BatchStart {
        match after.checked_sub(1) {
            Some(at) => self.start_of(&self.entries.get(at)),
            None => self.start(),
        }
    }

    fn start(&self) -> BatchStart {
        BatchStart {
            position: SEGMENT_HEADER_BYTES,
            index: self.base_index,
            offset: self.base_offset,
            epoch_before: self.epoch_before,
        }
    }

    fn start_of(&self, entry: &IndexEntry) -> BatchStart {
        let index = LogIndex(self.base_index.0 + u64::from(entry.relative_index));
        let before = self.epochs.partition_point(|start| start.first_index < index);
        BatchStart {
            position: u64::from(entry.position),
            index,
            offset: self.base_offset + i64::from(entry.relative_offset),
            epoch_before: before
                .checked_sub(1)
                .map_or(self.epoch_before, |at| self.epochs[at].epoch),
        }
    }

    /// The side file's bytes.
    pub(crate) fn encode(&self, header: &SegmentHeader) -> Bytes {
        let mut body = Vec::with_capacity(128 + self.entries.len() * ENTRY_BYTES);
        body.put_u64(header.id.replica.0);
        body.put_u64(header.id.segment.0);
        body.put_u32(header.generation.0);
        body.put_u64(self.base_index.0);
        body.put_i64(self.base_offset.0);
        body.put_u64(self.end.position);
        body.put_u64(self.end.index.0);
        body.put_i64(self.end.offset.0);
        body.put_i32(self.end.epoch_before.0);
        body.put_i64(self.max_timestamp.0);
        body.put_i64(self.first_timestamp.0);
        for count in [self.epochs.len(), self.internal.len(), self.entries.len()] {
            body.put_u32(u32::try_from(count).expect("fewer than the segment's bytes"));
        }
        for start in &self.epochs {
            body.put_i32(start.epoch.0);
            body.put_u64(start.first_index.0);
            body.put_i64(start.first_offset.0);
        }
        for place in &self.internal {
            body.put_u64(place.index.0);
            body.put_u32(place.position);
            body.put_u32(place.length);
            body.put_u8(place.kind as u8);
        }
        self.entries.encode(&mut body);
        side_file::encode(MAGIC, &body)
    }

    /// How a side file of this kind begins.
    pub(crate) const fn magic() -> Magic {
        MAGIC
    }

    /// Reads a side file that [`Self::encode`] wrote for this very segment.
    pub(crate) fn decode(
        body: &Bytes,
        header: &SegmentHeader,
        interval_bytes: u32,
    ) -> Option<Self> {
        let mut body = body.clone();
        let same = body.try_get_u64().ok()? == header.id.replica.0
            && body.try_get_u64().ok()? == header.id.segment.0
            && body.try_get_u32().ok()? == header.generation.0
            && body.try_get_u64().ok()? == header.base_index.0
            && body.try_get_i64().ok()? == header.base_offset.0;
        if !same {
            return None;
        }
        let mut index = Self::new(header, interval_bytes);
        index.end = BatchStart {
            position: body.try_get_u64().ok()?,
            index: LogIndex(body.try_get_u64().ok()?),
            offset: Offset(body.try_get_i64().ok()?),
            epoch_before: LeaderEpoch(body.try_get_i32().ok()?),
        };
        index.max_timestamp = Timestamp(body.try_get_i64().ok()?);
        index.first_timestamp = Timestamp(body.try_get_i64().ok()?);
        let [epochs, internal, entries] =
            [body.try_get_u32().ok()?, body.try_get_u32().ok()?, body.try_get_u32().ok()?]
                .map(|count| count as usize);
        let bytes = epochs * EPOCH_BYTES + internal * INTERNAL_BYTES + entries * ENTRY_BYTES;
        if body.len() != bytes {
            return None;
        }
        for _ in 0..epochs {
            index.epochs.push(EpochStart {
                epoch: LeaderEpoch(body.get_i32()),
                first_index: LogIndex(body.get_u64()),
                first_offset: Offset(body.get_i64()),
            });
        }
        for _ in 0..internal {
            index.internal.push(InternalPlace {
                index: LogIndex(body.get_u64()),
                position: body.get_u32(),
                length: body.get_u32(),
                kind: kind_of(body.get_u8())?,
            });
        }
        index.entries = Entries::Stored(body);
        Some(index)
    }

    /// Gives back what only a growing index needs: `file` is the side file just written.
    pub(crate) fn shrink(&mut self, file: &dyn DiskFile) -> io::Result<()> {
        self.internal.shrink_to_fit();
        self.epochs.shrink_to_fit();
        let bytes = (self.entries.len() * ENTRY_BYTES) as u64;
        let end = file.len()?;
        let entries = file.slice(end - bytes..end)?;
        let is_large = entries.len() > RESIDENT_BYTES_MAX;
        let entries = if is_large { entries } else { Bytes::copy_from_slice(&entries) };
        self.entries = Entries::Stored(entries);
        Ok(())
    }

    /// Reads the index of a segment from its side file.
    pub(crate) fn load(
        disk: &dyn Disk,
        path: &Path,
        header: &SegmentHeader,
        interval_bytes: u32,
    ) -> io::Result<Option<Self>> {
        let file = match disk.open(path, 0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.len()?;
        let content = if length > RESIDENT_BYTES_MAX as u64 {
            file.slice(0..length)?
        } else {
            side_file::content(&*file)?
        };
        let body = side_file::decode(MAGIC, &content);
        Ok(body.and_then(|body| Self::decode(&body, header, interval_bytes)))
    }
}

fn kind_of(byte: u8) -> Option<InternalKind> {
    [
        InternalKind::Noop,
        InternalKind::ConfChange,
        InternalKind::ConfChangeV2,
        InternalKind::LogStart,
        InternalKind::Fence,
    ]
    .into_iter()
    .find(|&kind| kind as u8 == byte)
}
