//! The door: what a client's batch must be before it is appended.
//!
//! Kafka's `ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords` and
//! `LogValidator` in their order, which decides the error a client sees when several rules are
//! broken. Every record is walked, a compressed payload inflated for it up to a limit; the batch
//! let in is the client's own bytes unless a header field or the codec has to change. Stricter
//! than Kafka in two points: offset deltas must be 0, 1, 2… (Kafka renumbers those of a compressed
//! batch and lets others pass), and nothing may follow the batch.
//!
//! Pure: runs outside every lock, on whichever thread the caller chooses.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::batch::{
    BATCH_HEADER_BYTES, BatchError, BatchHeader, TimestampType, split_batches, verify_crc,
};
use super::builder;
use super::compression::{self, Codec, CompressionError};
use super::record::Records;
use crate::error_code::ErrorCode;
use crate::ids::{Offset, Sequence, Timestamp};

/// Most records named in a rejection; the client learns of the batch's fate either way.
pub const RECORD_ERRORS_MAX: usize = 1000;
/// Inflation memory that a [`Scratch`] keeps between batches.
pub const SCRATCH_BYTES_KEPT_MAX: usize = 4 << 20;

/// The first Produce version whose clients know zstd (KIP-110).
const ZSTD_PRODUCE_VERSION: i16 = 7;

/// A topic's rules, and those of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidationRules {
    /// `max.message.bytes`: longest batch, compressed.
    pub max_message_bytes: i32,
    /// `segment.bytes`: a batch lies in one segment.
    pub segment_bytes: i32,
    /// `compression.type` and the codec's level; `None` keeps the producer's codec.
    pub compression: Option<(Codec, Option<i32>)>,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how old a record may be.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far ahead of the broker's clock it may be.
    pub timestamp_after_max_ms: i64,
    /// Whether `cleanup.policy` has `compact`, so that each record needs a key.
    pub compacted: bool,
    /// Version of the Produce request.
    pub produce_version: i16,
    /// Longest payload after inflation.
    pub inflated_bytes_max: usize,
}

/// Memory for inflation, to be used again for the next batch.
#[derive(Debug, Default)]
pub struct Scratch {
    inflated: Vec<u8>,
}

impl Scratch {
    /// Forgets the last payload, and gives back memory that only a rare batch needs.
    fn clear(&mut self) {
        self.inflated.clear();
        self.inflated.shrink_to(SCRATCH_BYTES_KEPT_MAX);
    }
}

/// A batch let in. Its base offset is still the client's 0 and its epoch the client's: the leader
/// writes both without touching the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validated {
    /// The header of `batch`.
    pub header: BatchHeader,
    /// The client's own bytes, or new ones where timestamps or codec changed.
    pub batch: Bytes,
    /// For the response: the time of the append under `LogAppendTime`, else `NONE`.
    pub log_append_time: Timestamp,
    /// The first record with the greatest timestamp, counted from the batch's base offset.
    pub offset_of_max_timestamp: Offset,
}

/// A batch refused. Nothing of it is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The partition's error.
    pub code: ErrorCode,
    /// Its text; Produce responses carry it since v8 (KIP-467).
    pub message: Cow<'static, str>,
    /// The records at fault, by their index in the batch, at most [`RECORD_ERRORS_MAX`]; since v8.
    pub record_errors: Vec<(i32, Option<Cow<'static, str>>)>,
}

impl Rejected {
    fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), record_errors: Vec::new() }
    }

    fn record(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidRecord, message)
    }

    fn at(index: i32, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        let record_errors = vec![(index, Some(message.clone()))];
        Self { code: ErrorCode::InvalidRecord, message, record_errors }
    }
}

/// Judges what a Produce request carries for one partition.
pub fn validate(
    records: &Bytes,
    now: Timestamp,
    rules: &ValidationRules,
    scratch: &mut Scratch,
) -> Result<Validated, Rejected> {
    let judged = judge(records, now, rules, scratch);
    // Now, not before the next batch: this thread may not see one for long.
    scratch.clear();
    judged
}

fn judge(
    records: &Bytes,
    now: Timestamp,
    rules: &ValidationRules,
    scratch: &mut Scratch,
) -> Result<Validated, Rejected> {
    // Cleared behind every batch, but for one whose judgment panicked.
    scratch.inflated.clear();
    let (header, batch) = single_batch(records)?;
    let codec = check_codec(&header, rules)?;
    check_envelope(&header, &batch, rules)?;
    check_header(&header)?;
    let payload = if codec == Codec::None {
        &batch[BATCH_HEADER_BYTES..]
    } else {
        inflate(codec, &batch[BATCH_HEADER_BYTES..], rules, &mut scratch.inflated)?;
        &scratch.inflated
    };
    let latest = walk(&header, payload, now, rules)?;
    let validated = admit(header, &batch, payload, latest, now, rules)?;
    let size = validated.batch.len();
    // Once more: another codec may have made it longer.
    check_size(size, rules)?;
    if exceeds(size, rules.segment_bytes) {
        let limit = rules.segment_bytes;
        let message = format!("batch of {size} bytes is longer than a segment, {limit}");
        return Err(Rejected::new(ErrorCode::RecordListTooLarge, message));
    }
    Ok(validated)
}

fn single_batch(records: &Bytes) -> Result<(BatchHeader, Bytes), Rejected> {
    let Some(first) = split_batches(records).next() else {
        return Err(Rejected::record("no record batch for the partition"));
    };
    let (header, batch) = first.map_err(|error| {
        let code = match error {
            BatchError::Truncated { .. } | BatchError::OffsetRange { .. } => {
                ErrorCode::InvalidRecord
            }
            BatchError::Magic(0 | 1) => ErrorCode::InvalidRecord,
            BatchError::Magic(_) | BatchError::Length(_) => ErrorCode::CorruptMessage,
        };
        Rejected::new(code, error.to_string())
    })?;
    if batch.len() < records.len() {
        return Err(Rejected::record("more than one record batch for the partition"));
    }
    Ok((header, batch))
}

fn check_codec(header: &BatchHeader, rules: &ValidationRules) -> Result<Codec, Rejected> {
    match header.attributes.codec() {
        None => Err(Rejected::new(ErrorCode::CorruptMessage, "unknown compression codec")),
        Some(Codec::Zstd) if rules.produce_version < ZSTD_PRODUCE_VERSION => {
            let version = rules.produce_version;
            let message = format!("zstd needs produce version 7, the request has {version}");
            Err(Rejected::new(ErrorCode::UnsupportedCompressionType, message))
        }
        Some(codec) => Ok(codec),
    }
}

fn check_envelope(
    header: &BatchHeader,
    batch: &[u8],
    rules: &ValidationRules,
) -> Result<(), Rejected> {
    if header.base_offset != Offset::ZERO {
        let base = header.base_offset;
        return Err(Rejected::record(format!("base offset of a produced batch is {base}, not 0")));
    }
    check_size(batch.len(), rules)?;
    if !verify_crc(batch) {
        return Err(Rejected::new(ErrorCode::CorruptMessage, "batch fails its checksum"));
    }
    Ok(())
}

fn check_size(size: usize, rules: &ValidationRules) -> Result<(), Rejected> {
    if !exceeds(size, rules.max_message_bytes) {
        return Ok(());
    }
    let limit = rules.max_message_bytes;
    let message = format!("batch of {size} bytes exceeds max.message.bytes {limit}");
    Err(Rejected::new(ErrorCode::MessageTooLarge, message))
}

fn exceeds(size: usize, limit: i32) -> bool {
    usize::try_from(limit).is_ok_and(|limit| size > limit)
}

fn check_header(header: &BatchHeader) -> Result<(), Rejected> {
    let BatchHeader { last_offset_delta, record_count, base_sequence, .. } = *header;
    if last_offset_delta < 0 {
        return Err(Rejected::record("batch spans no offsets"));
    }
    if record_count <= 0 {
        return Err(Rejected::record(format!("batch declares {record_count} records")));
    }
    if i64::from(last_offset_delta) + 1 != i64::from(record_count) {
        let message = format!(
            "batch declares {record_count} records but its last offset delta is {last_offset_delta}"
        );
        return Err(Rejected::record(message));
    }
    if header.attributes.is_control() {
        return Err(Rejected::record("clients cannot write control batches"));
    }
    if header.has_producer() && base_sequence < Sequence(0) {
        let id = header.producer_id;
        let message = format!("batch of producer {id} has sequence {base_sequence}");
        return Err(Rejected::record(message));
    }
    Ok(())
}

fn inflate(
    codec: Codec,
    payload: &[u8],
    rules: &ValidationRules,
    out: &mut Vec<u8>,
) -> Result<(), Rejected> {
    compression::decompress(codec, payload, rules.inflated_bytes_max, out).map_err(|error| {
        let code = match error {
            CompressionError::TooLarge(_) => ErrorCode::MessageTooLarge,
            CompressionError::Snappy(_) | CompressionError::Codec(..) => ErrorCode::CorruptMessage,
        };
        Rejected::new(code, error.to_string())
    })
}

/// The latest record of a batch.
#[derive(Clone, Copy)]
struct Latest {
    timestamp: Timestamp,
    offset_delta: i32,
}

fn walk(
    header: &BatchHeader,
    payload: &[u8],
    now: Timestamp,
    rules: &ValidationRules,
) -> Result<Latest, Rejected> {
    let mut latest = Latest { timestamp: Timestamp::NONE, offset_delta: 0 };
    let mut errors = RecordErrors::default();
    for (index, record) in (0..).zip(Records::new(payload, header.record_count)) {
        let record = record.map_err(|error| Rejected::at(index, error.to_string()))?;
        if record.offset_delta != index {
            let delta = record.offset_delta;
            return Err(Rejected::at(index, format!("record {index} has offset delta {delta}")));
        }
        let timestamp = header.timestamp_of(record.timestamp_delta);
        if rules.compacted && record.key.is_none() {
            let message = "a record of a compacted topic needs a key".into();
            errors.push(ErrorCode::InvalidRecord, index, message);
        } else if let Some(message) = timestamp_error(header, timestamp, now, rules) {
            errors.push(ErrorCode::InvalidTimestamp, index, message);
        }
        if timestamp > latest.timestamp {
            latest = Latest { timestamp, offset_delta: index };
        }
    }
    errors.into_result().map(|()| latest)
}

fn timestamp_error(
    header: &BatchHeader,
    timestamp: Timestamp,
    now: Timestamp,
    rules: &ValidationRules,
) -> Option<Cow<'static, str>> {
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Some("a producer cannot set LogAppendTime".into());
    }
    if rules.timestamp_type == TimestampType::LogAppendTime || timestamp == Timestamp::NONE {
        return None;
    }
    let oldest = now.0.saturating_sub(rules.timestamp_before_max_ms);
    let newest = now.0.saturating_add(rules.timestamp_after_max_ms);
    (timestamp.0 < oldest || timestamp.0 > newest)
        .then(|| format!("timestamp {timestamp} is not within [{oldest}, {newest}]").into())
}

/// Errors of single records: one refuses the batch, all are told.
#[derive(Default)]
struct RecordErrors {
    total: usize,
    any_timestamp: bool,
    errors: Vec<(i32, Option<Cow<'static, str>>)>,
}

impl RecordErrors {
    fn push(&mut self, code: ErrorCode, index: i32, message: Cow<'static, str>) {
        self.total += 1;
        self.any_timestamp |= code == ErrorCode::InvalidTimestamp;
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push((index, Some(message)));
        }
    }

    fn into_result(self) -> Result<(), Rejected> {
        if self.total == 0 {
            return Ok(());
        }
        let (code, message) = if self.any_timestamp {
            (ErrorCode::InvalidTimestamp, "invalid timestamps in".to_owned())
        } else {
            (ErrorCode::InvalidRecord, "invalid".to_owned())
        };
        let message = format!("{message} {} records, the batch is rejected", self.total).into();
        Err(Rejected { code, message, record_errors: self.errors })
    }
}

/// Keeps the client's bytes, or makes new ones where the topic's rules change the batch.
fn admit(
    client: BatchHeader,
    batch: &Bytes,
    payload: &[u8],
    latest: Latest,
    now: Timestamp,
    rules: &ValidationRules,
) -> Result<Validated, Rejected> {
    let (max_timestamp, log_append_time, offset_delta) = match rules.timestamp_type {
        TimestampType::CreateTime => (latest.timestamp, Timestamp::NONE, latest.offset_delta),
        TimestampType::LogAppendTime => (now, now, 0),
    };
    let attributes = client.attributes.with_timestamp_type(rules.timestamp_type);
    let mut header = BatchHeader { attributes, max_timestamp, ..client };
    let batch = match rules.compression {
        Some((codec, level)) if client.attributes.codec() != Some(codec) => {
            let rebuilt = builder::rebuild(&header, payload, codec, level)
                .map_err(|error| Rejected::new(ErrorCode::UnknownServerError, error.to_string()))?;
            header = BatchHeader::parse(&rebuilt).expect("a batch just built");
            rebuilt
        }
        _ if header == client => batch.clone(),
        _ => {
            // Timestamps and attributes are under the checksum: the one rewrite of client bytes.
            let mut copy = BytesMut::from(&batch[..]);
            header.seal(&mut copy);
            copy.freeze()
        }
    };
    let offset_of_max_timestamp = Offset(i64::from(offset_delta));
    Ok(Validated { header, batch, log_append_time, offset_of_max_timestamp })
}

#[cfg(test)]
mod tests;
