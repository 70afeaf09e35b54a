use super::*;
use crate::ids::{ProducerEpoch, ProducerId};
use crate::record::batch::{Attributes, MAGIC};
use crate::record::builder::{BatchBuilder, BatchFields};

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
    use crate::ids::LeaderEpoch;
    use crate::record::control::{InternalBatch, InternalKind};
    let batch = InternalBatch::encode(Offset(0), LeaderEpoch(0), InternalKind::Noop, &[]);
    assert_eq!(BatchHeader::parse(&batch).unwrap().magic, MAGIC);
    check(&batch, &rules(), ErrorCode::InvalidRecord, "spans no offsets");
}

#[test]
fn memory_for_a_large_payload_is_given_back_at_once() {
    let value = vec![0; 2 * SCRATCH_BYTES_KEPT_MAX];
    let mut builder = BatchBuilder::new(Codec::Zstd, None);
    builder.append(NOW, None, Some(&value), &[]);
    let large = builder.build(&BatchFields::default()).unwrap();
    let too_large = ValidationRules { inflated_bytes_max: value.len() - 1, ..rules() };
    for (rules, is_let_in) in [(rules(), true), (too_large, false)] {
        let mut scratch = Scratch::default();
        assert_eq!(validate(&large, NOW, &rules, &mut scratch).is_ok(), is_let_in);
        assert!(scratch.inflated.is_empty());
        assert!(scratch.inflated.capacity() <= SCRATCH_BYTES_KEPT_MAX);
    }
}
