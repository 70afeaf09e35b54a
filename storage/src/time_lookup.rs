//! Finding offsets by time, as `ListOffsets` asks for them (`LogSegment.findOffsetByTimestamp`,
//! `UnifiedLog.fetchOffsetByTimestamp`).
//!
//! The index leads to the batch; only that one batch is opened, and inflated if it is compressed.
//! Call this on a thread that may block.

use std::sync::Arc;

use vltava_protocol::ids::{LeaderEpoch, Offset, Timestamp};
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, BatchHeader};
use vltava_protocol::record::compression::decompress;
use vltava_protocol::record::{Codec, Records, TimestampType};

use crate::log::{ReadError, damaged};
use crate::read_view::ReadView;
use crate::segment::Segment;

/// Bytes that one batch may inflate to; batches were let in with a lower bound.
const INFLATED_BYTES_MAX: usize = 1 << 30;

/// A record found by time: where, when, and the epoch of its batch.
pub type TimedOffset = (Offset, Timestamp, LeaderEpoch);

impl ReadView {
    /// The first readable record below the high watermark with a timestamp of at least `timestamp`.
    pub fn offset_for_timestamp(
        &self,
        timestamp: Timestamp,
    ) -> Result<Option<TimedOffset>, ReadError> {
        for segment in &self.segments[self.segment_of(self.log_start_offset)..] {
            if segment.header.base_offset >= self.high_watermark {
                break;
            }
            if segment.index.read().max_timestamp() < timestamp {
                continue;
            }
            if let Some(found) = self.find_in(segment, timestamp)? {
                return Ok(Some(found).filter(|(offset, ..)| *offset < self.high_watermark));
            }
        }
        Ok(None)
    }

    /// The first readable record below the high watermark with the greatest timestamp
    /// (`ListOffsetsRequest.MAX_TIMESTAMP`).
    pub fn max_timestamp(&self) -> Result<Option<TimedOffset>, ReadError> {
        let mut greatest = None;
        for segment in &self.segments[self.segment_of(self.log_start_offset)..] {
            if segment.header.base_offset >= self.high_watermark {
                break;
            }
            greatest = greatest.max(self.greatest_in(segment)?);
        }
        match greatest {
            Some(timestamp) => self.offset_for_timestamp(timestamp),
            None => Ok(None),
        }
    }

    /// The greatest timestamp of a segment's readable batches.
    fn greatest_in(&self, segment: &Arc<Segment>) -> Result<Option<Timestamp>, ReadError> {
        let whole = segment.header.base_offset >= self.log_start_offset;
        let (from, mut greatest) = {
            let sparse = segment.index.read();
            if whole {
                // Exact up to the entry, whatever was cut off behind it.
                let before = sparse.max_timestamp_before(self.high_watermark);
                let from = sparse.before_offset(self.high_watermark);
                (from, Some(before).filter(|before| before.0 >= 0))
            } else {
                (sparse.before_offset(self.log_start_offset), None)
            }
        };
        let mut trail = self.trail(segment, from)?;
        while let Some(header) = trail.here()? {
            if header.base_offset >= self.high_watermark {
                break;
            }
            if !header.is_internal() && header.end_offset() > self.log_start_offset {
                greatest = greatest.max(Some(header.max_timestamp));
            }
            trail.pass(&header);
        }
        Ok(greatest)
    }

    fn find_in(
        &self,
        segment: &Arc<Segment>,
        timestamp: Timestamp,
    ) -> Result<Option<TimedOffset>, ReadError> {
        let from = {
            let sparse = segment.index.read();
            let by_time = sparse.before_timestamp(timestamp);
            let by_offset = sparse.before_offset(self.log_start_offset);
            if by_time.position > by_offset.position { by_time } else { by_offset }
        };
        let mut trail = self.trail(segment, from)?;
        while let Some(header) = trail.here()? {
            if header.base_offset >= self.high_watermark {
                break;
            }
            let candidate = !header.is_internal()
                && header.end_offset() > self.log_start_offset
                && header.max_timestamp >= timestamp;
            if candidate {
                let position = trail.at().position;
                let batch = trail.whole(position, header.size())?;
                let found = first_record(&header, &batch, timestamp, self.log_start_offset)
                    .map_err(|reason| damaged(segment.header.id.segment, position, &reason))?;
                if let Some((offset, at)) = found {
                    return Ok(Some((offset, at, header.leader_epoch)));
                }
            }
            trail.pass(&header);
        }
        Ok(None)
    }
}

/// The first record of a batch at or after `from` with a timestamp of at least `timestamp`.
fn first_record(
    header: &BatchHeader,
    batch: &[u8],
    timestamp: Timestamp,
    from: Offset,
) -> Result<Option<(Offset, Timestamp)>, String> {
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Ok(Some((header.base_offset.max(from), header.max_timestamp)));
    }
    let payload = &batch[BATCH_HEADER_BYTES..];
    let codec = header.attributes.codec().ok_or("an unknown codec")?;
    let mut inflated = Vec::new();
    let payload = if codec == Codec::None {
        payload
    } else {
        decompress(codec, payload, INFLATED_BYTES_MAX, &mut inflated)
            .map_err(|error| error.to_string())?;
        &inflated
    };
    for record in Records::new(payload, header.record_count) {
        let record = record.map_err(|error| error.to_string())?;
        let offset = header.base_offset + i64::from(record.offset_delta);
        let at = header.timestamp_of(record.timestamp_delta);
        if at >= timestamp && offset >= from {
            return Ok(Some((offset, at)));
        }
    }
    Ok(None)
}
