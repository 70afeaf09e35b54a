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
    let (header, batch) = single_batch(records)?;
    let codec = check_codec(&header, rules)?;
    check_envelope(&header, &batch, rules)?;
    check_header(&header)?;
    scratch.clear();
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
mod tests {
    use super::super::batch::{Attributes, MAGIC};
    use super::super::builder::{BatchBuilder, BatchFields};
    use super::*;
    use crate::ids::{ProducerEpoch, ProducerId};

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn rules() -> ValidationRules {
        ValidationRules {
            max_message_bytes: 1_048_588,
            segment_bytes: 1 << 30,
            compression: None,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compacted: false,
            produce_version: 13,
            inflated_bytes_max: 16 << 20,
        }
    }

    fn batch_of(codec: Codec, times: &[i64], fields: &BatchFields) -> Bytes {
        let mut builder = BatchBuilder::new(codec, None);
        for &time in times {
            builder.append(Timestamp(time), Some(b"key"), Some(b"a value of a record"), &[]);
        }
        builder.build(fields).unwrap()
    }

    fn batch(codec: Codec) -> Bytes {
        let now = NOW.0;
        batch_of(codec, &[now - 5, now, now - 1], &BatchFields::default())
    }

    /// The batch with another header, its checksum set right.
    fn edited(batch: &Bytes, edit: impl Fn(&mut BatchHeader)) -> Bytes {
        let mut header = BatchHeader::parse(batch).unwrap();
        edit(&mut header);
        let mut bytes = batch.to_vec();
        header.seal(&mut bytes);
        bytes.into()
    }

    fn judge(records: &Bytes, rules: &ValidationRules) -> Result<Validated, Rejected> {
        validate(records, NOW, rules, &mut Scratch::default())
    }

    fn check(records: &Bytes, rules: &ValidationRules, code: ErrorCode, part: &str) {
        let rejected = judge(records, rules).unwrap_err();
        assert_eq!(rejected.code, code, "{}", rejected.message);
        assert!(rejected.message.contains(part), "{:?} has no {part:?}", rejected.message);
    }

    #[test]
    fn lets_in_the_clients_own_bytes() {
        for codec in Codec::ALL {
            let batch = batch(codec);
            let validated = judge(&batch, &rules()).unwrap();
            assert_eq!(validated.batch.as_ptr(), batch.as_ptr(), "{codec:?}");
            assert_eq!(validated.header, BatchHeader::parse(&batch).unwrap());
            assert_eq!(validated.log_append_time, Timestamp::NONE);
            assert_eq!(validated.offset_of_max_timestamp, Offset(1));
        }
    }

    #[test]
    fn envelope_rules() {
        let good = batch(Codec::None);
        let invalid = ErrorCode::InvalidRecord;
        let corrupt = ErrorCode::CorruptMessage;
        let rules = rules();
        check(&Bytes::new(), &rules, invalid, "no record batch");
        check(&Bytes::from(good.repeat(2)), &rules, invalid, "more than one");
        check(&Bytes::from([&good[..], b"x"].concat()), &rules, invalid, "more than one");
        check(&good.slice(..good.len() - 1), &rules, invalid, "cut off");
        check(&edited(&good, |h| h.magic = 1), &rules, invalid, "magic 1");
        check(&edited(&good, |h| h.magic = 3), &rules, corrupt, "magic 3");
        check(&edited(&good, |h| h.base_offset = Offset(1)), &rules, invalid, "base offset");
        let unknown = |h: &mut BatchHeader| h.attributes = Attributes(7);
        check(&edited(&good, unknown), &rules, corrupt, "unknown compression");
        let mut flipped = good.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        check(&flipped.into(), &rules, corrupt, "checksum");
        let mut short = good.to_vec();
        short[8..12].copy_from_slice(&3i32.to_be_bytes());
        check(&short.into(), &rules, corrupt, "length 3");

        let size = i32::try_from(good.len()).unwrap();
        let exact = ValidationRules { max_message_bytes: size, segment_bytes: size, ..rules };
        assert!(judge(&good, &exact).is_ok());
        let small = ValidationRules { max_message_bytes: size - 1, ..rules };
        check(&good, &small, ErrorCode::MessageTooLarge, "max.message.bytes");
        let small = ValidationRules { segment_bytes: size - 1, ..rules };
        check(&good, &small, ErrorCode::RecordListTooLarge, "segment");
        let old = ValidationRules { produce_version: 6, ..rules };
        let zstd = batch(Codec::Zstd);
        check(&zstd, &old, ErrorCode::UnsupportedCompressionType, "zstd");
        assert!(judge(&good, &old).is_ok());
    }

    #[test]
    fn header_rules() {
        let good = batch(Codec::None);
        let check = |edit: fn(&mut BatchHeader), part| {
            check(&edited(&good, edit), &rules(), ErrorCode::InvalidRecord, part);
        };
        check(|h| h.last_offset_delta = -1, "spans no offsets");
        check(|h| h.record_count = 0, "declares 0");
        check(|h| h.record_count = -3, "declares -3");
        check(|h| h.record_count = 2, "last offset delta is 2");
        check(|h| h.last_offset_delta = i32::MAX, "last offset delta");
        check(|h| h.attributes = h.attributes.with_control(), "control");
        check(|h| h.producer_id = ProducerId(4), "sequence -1");
        check(|h| (h.record_count, h.last_offset_delta) = (4, 3), "cut off");
        check(|h| (h.record_count, h.last_offset_delta) = (2, 1), "follow the last");
    }

    #[test]
    fn idempotent_and_transactional_batches_pass() {
        let fields = BatchFields {
            producer_id: ProducerId(4),
            producer_epoch: ProducerEpoch(0),
            base_sequence: Sequence(0),
            attributes: Attributes::default().with_transactional(),
            ..BatchFields::default()
        };
        let batch = batch_of(Codec::None, &[NOW.0], &fields);
        assert!(judge(&batch, &rules()).unwrap().header.attributes.is_transactional());
    }

    #[test]
    fn offset_deltas_ascend_by_one() {
        let mut builder = BatchBuilder::new(Codec::None, None);
        builder.append(NOW, None, None, &[]);
        let plain = builder.build(&BatchFields::default()).unwrap();
        let record = Records::new(&plain[BATCH_HEADER_BYTES..], 1).next().unwrap().unwrap();
        for codec in [Codec::None, Codec::Lz4] {
            let mut builder = BatchBuilder::new(codec, None);
            builder.append_record(0, NOW, &record);
            builder.append_record(2, NOW, &record);
            let gap = builder.build(&BatchFields::default()).unwrap();
            let gap = edited(&gap, |h| h.last_offset_delta = 1);
            let rejected = judge(&gap, &rules()).unwrap_err();
            assert_eq!(rejected.code, ErrorCode::InvalidRecord);
            assert_eq!(rejected.record_errors[0].0, 1);
        }
    }

    #[test]
    fn timestamps_lie_in_the_window() {
        let rules =
            ValidationRules { timestamp_before_max_ms: 10, timestamp_after_max_ms: 5, ..rules() };
        let now = NOW.0;
        let judge =
            |times: &[i64]| judge(&batch_of(Codec::None, times, &BatchFields::default()), &rules);
        assert!(judge(&[now - 10, now + 5, -1]).is_ok());
        let rejected = judge(&[now - 11, now, now + 6]).unwrap_err();
        assert_eq!(rejected.code, ErrorCode::InvalidTimestamp);
        let indices: Vec<_> = rejected.record_errors.iter().map(|error| error.0).collect();
        assert_eq!(indices, [0, 2]);
        for hostile in [i64::MIN, i64::MAX] {
            assert!(judge(&[hostile]).is_err());
        }
    }

    #[test]
    fn a_claim_of_log_append_time_is_refused() {
        let attributes = Attributes::default().with_timestamp_type(TimestampType::LogAppendTime);
        let fields = BatchFields { attributes, ..BatchFields::default() };
        let batch = batch_of(Codec::None, &[NOW.0], &fields);
        for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
            let rules = ValidationRules { timestamp_type, ..rules() };
            check(&batch, &rules, ErrorCode::InvalidTimestamp, "timestamps");
        }
    }

    #[test]
    fn compacted_topics_need_keys_and_timestamps_weigh_more() {
        let mut builder = BatchBuilder::new(Codec::Gzip, None);
        builder.append(NOW, Some(b""), None, &[]);
        builder.append(NOW, None, Some(b"v"), &[]);
        builder.append(NOW, None, Some(b"v"), &[]);
        let keyless = builder.build(&BatchFields::default()).unwrap();
        assert!(judge(&keyless, &rules()).is_ok());
        let compacted = ValidationRules { compacted: true, ..rules() };
        let rejected = judge(&keyless, &compacted).unwrap_err();
        assert_eq!(rejected.code, ErrorCode::InvalidRecord);
        let indices: Vec<_> = rejected.record_errors.iter().map(|error| error.0).collect();
        assert_eq!(indices, [1, 2]);

        builder.append(NOW, None, None, &[]);
        builder.append(Timestamp(i64::MAX), Some(b"k"), None, &[]);
        let mixed = builder.build(&BatchFields::default()).unwrap();
        check(&mixed, &compacted, ErrorCode::InvalidTimestamp, "2 records");
    }

    #[test]
    fn record_errors_are_bounded() {
        let mut builder = BatchBuilder::new(Codec::None, None);
        for _ in 0..RECORD_ERRORS_MAX + 5 {
            builder.append(NOW, None, None, &[]);
        }
        let batch = builder.build(&BatchFields::default()).unwrap();
        let rejected = judge(&batch, &ValidationRules { compacted: true, ..rules() }).unwrap_err();
        assert_eq!(rejected.record_errors.len(), RECORD_ERRORS_MAX);
        assert!(rejected.message.contains("1005"));
    }

    #[test]
    fn log_append_time_rewrites_the_header_alone() {
        let rules = ValidationRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
        let batch = batch_of(Codec::Snappy, &[1, i64::MAX], &BatchFields::default());
        let validated = judge(&batch, &rules).unwrap();
        assert_eq!(validated.log_append_time, NOW);
        assert_eq!(validated.header.max_timestamp, NOW);
        assert_eq!(BatchHeader::parse(&validated.batch), Ok(validated.header));
        assert!(verify_crc(&validated.batch));
        assert_eq!(validated.batch[BATCH_HEADER_BYTES..], batch[BATCH_HEADER_BYTES..]);
    }

    #[test]
    fn a_wrong_max_timestamp_is_set_right() {
        let batch = edited(&batch(Codec::Zstd), |h| h.max_timestamp = Timestamp(i64::MAX));
        let validated = judge(&batch, &rules()).unwrap();
        assert_eq!(validated.header.max_timestamp, NOW);
        assert!(verify_crc(&validated.batch));
    }

    #[test]
    fn the_topics_codec_replaces_the_producers() {
        for (theirs, ours) in [(Codec::None, Codec::Zstd), (Codec::Gzip, Codec::None)] {
            let batch = batch(theirs);
            let rules = ValidationRules { compression: Some((ours, None)), ..rules() };
            let validated = judge(&batch, &rules).unwrap();
            assert_eq!(validated.header.attributes.codec(), Some(ours));
            assert_eq!(BatchHeader::parse(&validated.batch), Ok(validated.header));
            assert!(judge(&validated.batch, &rules).is_ok());
            let same = ValidationRules { compression: Some((theirs, Some(9))), ..rules };
            assert_eq!(judge(&batch, &same).unwrap().batch.as_ptr(), batch.as_ptr());
        }
        let zeros = [0; 10_000];
        let mut builder = BatchBuilder::new(Codec::Gzip, None);
        builder.append(NOW, None, Some(&zeros), &[]);
        let batch = builder.build(&BatchFields::default()).unwrap();
        let compression = Some((Codec::None, None));
        let rules = ValidationRules { compression, max_message_bytes: 5000, ..rules() };
        check(&batch, &rules, ErrorCode::MessageTooLarge, "max.message.bytes");
    }

    #[test]
    fn payloads_that_do_not_inflate_are_refused() {
        let rules = ValidationRules { inflated_bytes_max: 1000, ..rules() };
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut builder = BatchBuilder::new(codec, None);
            builder.append(NOW, None, Some(&[0; 2000]), &[]);
            let bomb = builder.build(&BatchFields::default()).unwrap();
            check(&bomb, &rules, ErrorCode::MessageTooLarge, "1000");

            let plain = batch(Codec::None);
            let lie = edited(&plain, |h| h.attributes = h.attributes.with_codec(codec));
            check(&lie, &rules, ErrorCode::CorruptMessage, codec.name());
        }
    }

    #[test]
    fn a_clients_internal_batch_is_refused() {
        use super::super::control::{InternalBatch, InternalKind};
        use crate::ids::LeaderEpoch;
        let batch = InternalBatch::encode(Offset(0), LeaderEpoch(0), InternalKind::Noop, &[]);
        assert_eq!(BatchHeader::parse(&batch).unwrap().magic, MAGIC);
        check(&batch, &rules(), ErrorCode::InvalidRecord, "spans no offsets");
    }
}
