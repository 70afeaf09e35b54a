//! Finding batches in the segments of a log, by index or by offset.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::ids::LeaderEpoch;
use vltava_protocol::record::batch::BatchHeader;

use crate::ids::{LogIndex, Place};
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
        let (mut at, end) = {
            let sparse = segment.index.read();
            (sparse.before_index(next), sparse.end())
        };
        if next >= range.end || at.index >= range.end {
            break;
        }
        let mut walker = Walker::new(segment.file()?, end.position, access);
        while at.index < range.end && at.index < end.index {
            let header = walker.header(at.position).map_err(|error| walk_error(segment, error))?;
            let met = Met { index: at.index, position: at.position, header };
            if at.index >= next {
                if !visit(met, &mut walker)? {
                    return Ok(());
                }
                next = at.index.next();
            }
            at.index = at.index.next();
            at.position += header.size() as u64;
        }
    }
    Ok(())
}

/// The whole batches at `range`, at least one and then no more than `max_bytes`.
pub(crate) fn read_batches(
    segments: &[Arc<Segment>],
    range: Range<LogIndex>,
    max_bytes: u64,
    recent: Place,
) -> Result<Vec<(LogIndex, LeaderEpoch, Bytes)>, ReadError> {
    let mut batches = Vec::new();
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
        batches.push((met.index, met.header.leader_epoch, batch));
        Ok(true)
    })?;
    Ok(batches)
}

/// A walk that failed in a segment of the log, where every batch is whole.
pub(crate) fn walk_error(segment: &Segment, error: WalkError) -> ReadError {
    match error {
        WalkError::Io(error) => error.into(),
        WalkError::Bad { position, reason } => {
            damaged(segment.header.id.segment, position, &reason)
        }
    }
}
