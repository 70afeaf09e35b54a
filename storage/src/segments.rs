//! Finding batches in the segments of a log, by index or by offset.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::ids::LeaderEpoch;
use vltava_protocol::record::batch::{BatchHeader, verify_crc};

use crate::epochs::EpochStart;
use crate::ids::{LogIndex, Place};
use crate::index::BatchStart;
use crate::log::{ReadError, damaged};
use crate::scan::{Access, WalkError, Walker};
use crate::segment::Segment;

/// Batches handed out at once.
const BATCHES_MAX: usize = 4096;

/// A batch met on a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Met {
    pub(crate) index: LogIndex,
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

/// Goes from batch to batch of a segment, as its index knows it.
///
/// **Invariant:** no damaged prefix is believed. The first 16 bytes of a batch and its magic lie
/// outside its checksum, but all that they say is known twice: offsets are dense, epochs begin where
/// the index says, the next batch begins where this one ends, and the last ends where the index does.
#[derive(Debug)]
pub(crate) struct Trail<'a> {
    segment: &'a Segment,
    walker: Walker,
    at: BatchStart,
    end: BatchStart,
    /// The epochs that begin at `at` or behind it, the next one last.
    epochs: Vec<EpochStart>,
}

impl<'a> Trail<'a> {
    /// A trail from `at`, which the segment's index named, to the end of the segment.
    pub(crate) fn begin(segment: &'a Segment, at: BatchStart, access: Access) -> io::Result<Self> {
        let (end, epochs) = {
            let sparse = segment.index.read();
            let coming = sparse.epochs().iter().rev();
            let coming = coming.take_while(|start| start.first_index >= at.index);
            (sparse.end(), coming.copied().collect())
        };
        let walker = Walker::new(segment.file()?, end.position, access);
        Ok(Self { segment, walker, at, end, epochs })
    }

    /// Where the trail is.
    pub(crate) fn at(&self) -> BatchStart {
        self.at
    }

    /// Where the segment ended when the trail began.
    pub(crate) fn end(&self) -> BatchStart {
        self.end
    }

    /// Goes on from a place further on, which the segment's index named.
    pub(crate) fn skip_to(&mut self, at: BatchStart) {
        self.at = at;
        while self.epochs.pop_if(|start| start.first_index < at.index).is_some() {}
    }

    /// The header of the batch here; none at the end.
    pub(crate) fn here(&mut self) -> Result<Option<BatchHeader>, ReadError> {
        let BatchStart { position, index, offset, epoch_before } = self.at;
        if index >= self.end.index {
            return Ok(None);
        }
        let header =
            self.walker.header(position).map_err(|error| walk_error(self.segment, error))?;
        let begins = self.epochs.last().filter(|start| start.first_index == index);
        let epoch = begins.map_or(epoch_before, |start| start.epoch);
        let is_last = index.next() == self.end.index;
        let ends_right = position + header.size() as u64 == self.end.position
            && header.end_offset() == self.end.offset;
        if header.base_offset != offset || header.leader_epoch != epoch || (is_last && !ends_right)
        {
            let reason = "the prefix of a batch is not what the index knows";
            return Err(damaged(self.segment.header.id.segment, position, &reason));
        }
        Ok(Some(header))
    }

    /// Goes to the batch behind the one here, which has this header.
    pub(crate) fn pass(&mut self, header: &BatchHeader) {
        self.skip_to(BatchStart {
            position: self.at.position + header.size() as u64,
            index: self.at.index.next(),
            offset: header.end_offset(),
            epoch_before: header.leader_epoch,
        });
    }

    /// The bytes of a batch that was met.
    pub(crate) fn whole(&mut self, position: u64, size: usize) -> io::Result<Bytes> {
        self.walker.whole(position, size)
    }
}

/// Calls `visit` with the batches at `range`, in order, until it returns `false`.
pub(crate) fn walk_indexes(
    segments: &[Arc<Segment>],
    range: Range<LogIndex>,
    access: Access,
    mut visit: impl FnMut(Met, &mut Walker) -> io::Result<bool>,
) -> Result<(), ReadError> {
    let mut next = range.start;
    if range.is_empty() {
        return Ok(());
    }
    let first = segments.partition_point(|segment| segment.header.base_index <= range.start);
    for segment in &segments[first.saturating_sub(1)..] {
        let at = segment.index.read().before_index(next);
        if next >= range.end || at.index >= range.end {
            break;
        }
        let mut trail = Trail::begin(segment, at, access)?;
        while trail.at().index < range.end
            && let Some(header) = trail.here()?
        {
            let BatchStart { index, position, .. } = trail.at();
            if index >= next {
                if !visit(Met { index, position, header }, &mut trail.walker)? {
                    return Ok(());
                }
                next = index.next();
            }
            trail.pass(&header);
        }
    }
    Ok(())
}

/// The whole batches at `range`, at least one and then no more than `max_bytes`. What comes from the
/// disk is held against its checksums: a follower would keep what it is sent.
pub(crate) fn read_batches(
    segments: &[Arc<Segment>],
    range: Range<LogIndex>,
    max_bytes: u64,
    recent: Place,
) -> Result<Vec<(LogIndex, LeaderEpoch, Bytes)>, ReadError> {
    let mut batches = Vec::new();
    let mut bad = None;
    let mut bytes = 0;
    // What is cold is copied out of the page cache; what was written lately lies in the map.
    let cold = segments
        .partition_point(|segment| segment.header.base_index <= range.start)
        .checked_sub(1)
        .is_none_or(|at| {
            let segment = &segments[at];
            let position = segment.index.read().before_index(range.start).position;
            Place { segment: segment.header.id.segment, position } < recent
        });
    let access = if cold { Access::Pread } else { Access::Mapped };
    walk_indexes(segments, range, access, |met, walker| {
        let size = met.header.size();
        if !batches.is_empty() && bytes + size as u64 > max_bytes || batches.len() == BATCHES_MAX {
            return Ok(false);
        }
        bytes += size as u64;
        let batch = walker.whole(met.position, size)?;
        if cold && !verify_crc(&batch) {
            bad = Some(met);
            return Ok(false);
        }
        batches.push((met.index, met.header.leader_epoch, batch));
        Ok(true)
    })?;
    match bad {
        // Those before it are whole; asked for it again, there will be none.
        Some(met) if batches.is_empty() => {
            let at = segments.partition_point(|segment| segment.header.base_index <= met.index);
            let segment = segments[at.saturating_sub(1)].header.id.segment;
            Err(damaged(segment, met.position, &"a batch does not fit its checksum"))
        }
        _ => Ok(batches),
    }
}

/// A walk that failed in a segment of the log, where every batch is whole.
fn walk_error(segment: &Segment, error: WalkError) -> ReadError {
    match error {
        WalkError::Io(error) => error.into(),
        WalkError::Bad { position, reason } => {
            damaged(segment.header.id.segment, position, &reason)
        }
    }
}
