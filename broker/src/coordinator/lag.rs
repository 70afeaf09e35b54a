//! How far behind the end of a partition a committed offset is: in records and in time.
//!
//! Reads files: for threads that may block, and for people; nothing is decided by it.

use vltava_protocol::ids::{Offset, Timestamp};
use vltava_protocol::record::batch::{TimestampType, split_batches};
use vltava_protocol::record::record::Records;
use vltava_storage::read_view::ReadView;

use super::runtime::replay::{ReplayError, payload};

/// The distance of an offset from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The high watermark.
    pub end_offset: Offset,
    /// Records between the two.
    pub records: i64,
    /// The age of the record at the offset, in milliseconds; 0 at the end. None where that record
    /// cannot be read, or bears no time.
    pub ms: Option<i64>,
}

impl Lag {
    /// The lag of `offset` at the time `now`.
    pub fn of(view: &ReadView, offset: Offset, now: Timestamp) -> Self {
        let lag = Self::in_records(view, offset);
        if lag.records == 0 {
            return Self { ms: Some(0), ..lag };
        }
        let timestamp = timestamp_at(view, offset).ok().flatten();
        let ms = timestamp.filter(|&timestamp| timestamp != Timestamp::NONE);
        Self { ms: ms.map(|timestamp| (now.0 - timestamp.0).max(0)), ..lag }
    }

    /// The same without the time, which costs no look at a file.
    pub fn in_records(view: &ReadView, offset: Offset) -> Self {
        let end_offset = view.high_watermark;
        Self { end_offset, records: (end_offset.0 - offset.0).max(0), ms: None }
    }
}

/// The time of the first record at or after `offset`.
fn timestamp_at(view: &ReadView, offset: Offset) -> Result<Option<Timestamp>, ReplayError> {
    let from = offset.max(view.log_start_offset);
    let slices = view.read(from, view.high_watermark, 1, true)?;
    let Some(slice) = slices.first() else { return Ok(None) };
    if !slice.is_recent() {
        slice.prefault()?;
    }
    let Some(batch) = split_batches(&slice.bytes()?).next() else { return Ok(None) };
    let (header, batch) = batch?;
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Ok(Some(header.max_timestamp));
    }
    let mut inflated = Vec::new();
    let payload = payload(&header, &batch, &mut inflated)?;
    let mut records = Records::new(payload, header.record_count).map_while(Result::ok);
    let record = records.find(|record| header.base_offset + i64::from(record.offset_delta) >= from);
    Ok(record.map(|record| header.timestamp_of(record.timestamp_delta)))
}
