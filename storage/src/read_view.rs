//! What readers see of a log without its lock: a snapshot of ends and segments.
//!
//! **Invariant:** a reader is handed whole data batches below the high watermark only. Those never
//! change, so a view stays valid however old it is; deleted segments are the one thing that can
//! vanish under it (`NotFound`). Internal batches span no offset and are never handed out: slices
//! are the runs between them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use vltava_protocol::ids::{LeaderEpoch, Offset};

use crate::bugs::{Bug, planted};
use crate::ids::{LogIndex, Place};
use crate::index::BatchStart;
use crate::log::ReadError;
use crate::scan::Access;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::segments::{Trail, read_batches};
use crate::slice::LogSlice;

/// Where a log publishes its view; the lock is held for a copy of a few words.
#[derive(Debug)]
pub struct ViewCell {
    view: RwLock<ReadView>,
}

impl ViewCell {
    pub(crate) fn new(view: ReadView) -> Self {
        Self { view: RwLock::new(view) }
    }

    /// The present view.
    pub fn read(&self) -> ReadView {
        self.view.read().clone()
    }

    /// The present high watermark, without a clone of the view.
    pub fn high_watermark(&self) -> Offset {
        self.view.read().high_watermark
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut ReadView)) {
        let mut view = self.view.write();
        change(&mut view);
        debug_assert!(view.high_watermark <= view.log_end_offset);
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ReadView {
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    /// The first offset that may be read.
    pub log_start_offset: Offset,
    /// The offset after the last committed record.
    pub high_watermark: Offset,
    /// Where the first open transaction begins; the high watermark without one.
    pub last_stable_offset: Offset,
    /// The offset after the last record.
    pub log_end_offset: Offset,
    /// Epoch of the last batch.
    pub leader_epoch: LeaderEpoch,
    /// The first index that the replicated log has.
    pub first_index: LogIndex,
    /// The index up to which the group is known to have committed.
    pub committed: LogIndex,
    /// Everything from here on was written by this process, lately.
    pub(crate) recent: Place,
}

/// A part of a segment to read: where it ends, and whether the read ends there.
struct Part {
    range: Range<u64>,
    full: bool,
}

impl ReadView {
    /// The batches from the one that holds `from` up to those that begin before `limit` and the
    /// high watermark: whole ones, `max_bytes` at most, but the first in any case if `at_least_one`.
    ///
    /// Parses no record: a sparse index, and the headers of what lies between its entries. An
    /// offset from the high watermark to the log end reads nothing.
    pub fn read(
        &self,
        from: Offset,
        limit: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Vec<LogSlice>, ReadError> {
        if from < self.log_start_offset || from > self.log_end_offset {
            let (start, end) = (self.log_start_offset, self.log_end_offset);
            return Err(ReadError::OffsetOutOfRange { offset: from, start, end });
        }
        let limit = limit.min(self.high_watermark);
        let mut slices = Vec::new();
        let mut left = max_bytes as u64;
        if from >= limit {
            return Ok(slices);
        }
        for segment in &self.segments[self.segment_of(from)..] {
            if segment.header.base_offset >= limit {
                break;
            }
            let force = at_least_one && slices.is_empty();
            let Some(part) = self.part(segment, from, limit, left, force)? else { continue };
            let read = push_runs(segment, &part.range, self.recent, &mut slices)?;
            left = left.saturating_sub(read);
            if part.full || left == 0 {
                break;
            }
        }
        Ok(slices)
    }

    /// The committed batches at `range`, internal ones too: at least one, then no more than
    /// `max_bytes`. For followers that are far behind; reads the disk.
    pub fn batches(
        &self,
        range: Range<LogIndex>,
        max_bytes: u64,
    ) -> Result<Vec<(LogIndex, LeaderEpoch, Bytes)>, ReadError> {
        let (first, last) = (self.first_index, self.committed);
        if range.start < first || range.end > last.next() {
            let index = if range.start < first { range.start } else { range.end.prev() };
            return Err(ReadError::IndexOutOfRange { index, first, last });
        }
        read_batches(&self.segments, range, max_bytes, self.recent)
    }

    /// Bytes of batches in all segments.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes()).sum()
    }

    /// The segment that holds `offset`: the last that begins at or before it.
    pub(crate) fn segment_of(&self, offset: Offset) -> usize {
        let after = self.segments.partition_point(|segment| segment.header.base_offset <= offset);
        after.saturating_sub(1)
    }

    pub(crate) fn trail<'a>(
        &self,
        segment: &'a Segment,
        from: BatchStart,
    ) -> Result<Trail<'a>, ReadError> {
        let place = Place { segment: segment.header.id.segment, position: from.position };
        let access = if place >= self.recent { Access::Mapped } else { Access::Pread };
        Ok(Trail::begin(segment, from, access)?)
    }

    /// The batches of one segment from `from` to `limit`, of `budget` bytes at most.
    fn part(
        &self,
        segment: &Arc<Segment>,
        from: Offset,
        limit: Offset,
        budget: u64,
        force: bool,
    ) -> Result<Option<Part>, ReadError> {
        let begin = segment.index.read().before_offset(from.max(segment.header.base_offset));
        let mut trail = self.trail(segment, begin)?;
        let first = loop {
            let Some(header) = trail.here()? else { return Ok(None) };
            if header.end_offset() > from && !header.is_internal() {
                break header;
            }
            trail.pass(&header);
        };
        if first.base_offset >= limit {
            return Ok(None);
        }
        let (start, end) = (trail.at().position, trail.end());
        let hard = start.saturating_add(budget);
        if start + first.size() as u64 > hard {
            let end = if force { start + first.size() as u64 } else { start };
            return Ok(Some(Part { range: start..end, full: true }));
        }
        if end.offset <= limit && end.position <= hard {
            return Ok(Some(Part { range: start..end.position, full: false }));
        }
        // Everything before this entry lies before the limit and within the budget.
        let stop = {
            let sparse = segment.index.read();
            let by_offset = if end.offset <= limit { end } else { sparse.before_offset(limit) };
            let by_bytes = if end.position <= hard { end } else { sparse.before_position(hard) };
            if by_offset.position < by_bytes.position { by_offset } else { by_bytes }
        };
        if stop.position > start {
            trail.skip_to(stop);
        }
        while let Some(header) = trail.here()? {
            let next = trail.at().position + header.size() as u64;
            if header.base_offset >= limit || next > hard {
                break;
            }
            trail.pass(&header);
        }
        Ok(Some(Part { range: start..trail.at().position, full: true }))
    }
}

/// Appends the runs of data batches in a range; returns their bytes.
fn push_runs(
    segment: &Arc<Segment>,
    range: &Range<u64>,
    recent: Place,
    slices: &mut Vec<LogSlice>,
) -> Result<u64, ReadError> {
    let file = segment.file()?;
    let internal = segment.index.read().internal_between(range.start, range.end).to_vec();
    let mut bytes = 0;
    let mut push = |run: Range<u64>| {
        if run.start < run.end {
            bytes += run.end - run.start;
            let place = Place { segment: segment.header.id.segment, position: run.start };
            slices.push(LogSlice::new(file.clone(), run, place >= recent));
        }
    };
    let mut start = range.start;
    debug_assert!(start >= SEGMENT_HEADER_BYTES);
    if !planted(Bug::ZeroRecordBatchServed) {
        for place in internal {
            push(start..u64::from(place.position));
            start = u64::from(place.position) + u64::from(place.length);
        }
    }
    push(start..range.end);
    Ok(bytes)
}
