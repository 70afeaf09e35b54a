//! Where a log that was found begins its epochs, and what its end consists of.

use std::sync::Arc;

use vltava_protocol::ids::Offset;
use vltava_protocol::record::batch::verify_crc;

use super::{RecoverError, damaged};
use crate::epochs::Epochs;
use crate::ids::{LogIndex, Place};
use crate::index::BatchStart;
use crate::log::ReadError;
use crate::scan::Access;
use crate::segment::Segment;
use crate::segments::{Trail, walk_indexes};

/// Checks the last batch whole: a damaged header in the middle of a log does not fit the next one,
/// but here nothing follows, and everything that is appended would lie at wrong offsets.
pub(super) fn check_last_batch(segments: &[Arc<Segment>]) -> Result<(), RecoverError> {
    let filled = segments.iter().rev().find(|segment| segment.bytes() > 0);
    let Some(segment) = filled else { return Ok(()) };
    let id = segment.header.id.segment;
    let from = {
        let index = segment.index.read();
        index.before_index(index.end().index.prev())
    };
    let mut trail = Trail::begin(segment, from, Access::Pread)?;
    let mut last = None;
    while let Some(header) = trail.here()? {
        last = Some((trail.at().position, header.size()));
        trail.pass(&header);
    }
    if let Some((position, size)) = last
        && !verify_crc(&trail.whole(position, size)?)
    {
        return Err(damaged(id, position, "the last batch does not fit its checksum"));
    }
    Ok(())
}

/// The leader epochs that the segments name.
pub(crate) fn epochs_of(segments: &[Arc<Segment>], first_index: LogIndex) -> Epochs {
    let first = segments[0].header;
    let mut epochs = Epochs::new(first.epoch_before, first.base_index);
    for segment in segments {
        for start in segment.index.read().epochs() {
            epochs.push(start.epoch, start.first_index, start.first_offset);
        }
    }
    epochs.advance(first_index);
    epochs
}

/// Where `committed` ends, and place and end of every batch above it.
pub(super) fn ends_after(
    segments: &[Arc<Segment>],
    committed: LogIndex,
    end: BatchStart,
) -> Result<(Offset, Vec<(Place, Offset)>), ReadError> {
    let mut high_watermark = None;
    let mut uncommitted = Vec::new();
    for segment in segments {
        let id = segment.header.id.segment;
        let from = committed.next().max(segment.header.base_index);
        let to = segment.index.read().end().index;
        if from >= to {
            continue;
        }
        let this = std::slice::from_ref(segment);
        walk_indexes(this, from..to, Access::Pread, |met, _| {
            high_watermark.get_or_insert(met.header.base_offset);
            let place = Place { segment: id, position: met.position };
            uncommitted.push((place, met.header.end_offset()));
            Ok(true)
        })?;
    }
    Ok((high_watermark.unwrap_or(end.offset), uncommitted))
}
