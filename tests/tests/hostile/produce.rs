//! Produce: batches that lie about themselves, and the answers that clients act on.

use std::io::Write;
use std::time::Instant;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use vltava_tests::harness::batch::{self, RawBatch, codec};
use vltava_tests::harness::{Broker, RawClient, Tested, now_ms, raw, requests};

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("bad_crc_is_2", |broker| refused(broker, 2, |batch| batch.crc = Some(1))),
    ("count_above_records_is_87", |broker| refused(broker, 87, |b| b.record_count = Some(3))),
    ("count_below_records_is_87", |broker| refused(broker, 87, |b| b.record_count = Some(1))),
    ("count_zero_is_87", |broker| refused(broker, 87, |batch| batch.record_count = Some(0))),
    ("count_negative_is_87", |broker| refused(broker, 87, |batch| batch.record_count = Some(-5))),
    ("no_records_is_87", |broker| refused(broker, 87, |batch| batch.records.clear())),
    ("giant_count_is_87", giant_count_is_87),
    ("last_offset_delta_lies_is_87", |b| refused(b, 87, |b| b.last_offset_delta = Some(9))),
    ("base_offset_not_zero_is_87", |broker| refused(broker, 87, |batch| batch.base_offset = 5)),
    ("control_batch_is_87", |broker| refused(broker, 87, |b| b.attributes = batch::CONTROL)),
    ("record_past_its_batch_is_refused", record_past_its_batch_is_refused),
    ("bytes_after_the_records_are_refused", bytes_after_the_records_are_refused),
    ("payload_of_another_codec_is_refused", payload_of_another_codec_is_refused),
    ("unknown_codec_is_refused", unknown_codec_is_refused),
    ("gzip_bomb_is_bounded", gzip_bomb_is_bounded),
    ("zstd_bomb_is_bounded", zstd_bomb_is_bounded),
    ("lying_snappy_length_is_refused", lying_snappy_length_is_refused),
    ("two_batches_is_87", two_batches_is_87),
    ("zero_batches_is_87", |broker| refused_bytes(broker, &[87], Bytes::new())),
    ("null_records_are_refused", null_records_are_refused),
    ("magic_one_is_87", |broker| refused_bytes(broker, &[87], batch::magic_one(now_ms()))),
    ("magic_three_is_refused", magic_three_is_refused),
    ("half_a_batch_is_refused", half_a_batch_is_refused),
    ("oversize_is_10", oversize_is_10),
    ("larger_than_a_segment_is_18", larger_than_a_segment_is_18),
    ("null_key_on_compacted_is_87", null_key_on_compacted_is_87),
    ("bad_acks_is_21", bad_acks_is_21),
    ("zstd_below_version_7_is_76", zstd_below_version_7_is_76),
    ("timestamp_two_hours_ahead_is_32", timestamp_two_hours_ahead_is_32),
    ("timestamp_before_the_window_is_32", timestamp_before_the_window_is_32),
    ("claimed_log_append_time_never_sticks", claimed_log_append_time_never_sticks),
    ("no_timestamp_is_accepted", no_timestamp_is_accepted),
    ("log_append_time_is_stamped", log_append_time_is_stamped),
    ("unknown_topic_is_3", unknown_topic_is_3),
    ("unknown_partition_is_3", unknown_partition_is_3),
    ("one_bad_partition_fails_alone", one_bad_partition_fails_alone),
    ("acks_0_is_not_answered", acks_0_is_not_answered),
    ("acks_0_error_closes", acks_0_error_closes),
    ("every_version_appends", every_version_appends),
];

/// A batch of two records, spoiled by `spoil`, must be refused with `code` and leave no trace.
fn refused(broker: &Broker, code: i16, spoil: fn(&mut RawBatch)) -> Tested {
    let mut batch = RawBatch::of(2, now_ms());
    spoil(&mut batch);
    refused_bytes(broker, &[code], batch.encode())
}

/// The bytes must be refused with one of `codes`, and the partition must stay empty.
fn refused_bytes(broker: &Broker, codes: &[i16], records: Bytes) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "refused", 1, &[])?;
    refused_by(&mut client, &topic, codes, records)
}

fn refused_by(client: &mut RawClient, topic: &str, codes: &[i16], records: Bytes) -> Tested {
    let answer = requests::produce(client, topic, records)?;
    assert!(codes.contains(&answer.error_code), "{}, expected {codes:?}", answer.error_code);
    assert_eq!(answer.base_offset, -1);
    assert_eq!(requests::list_offsets(client, 7, topic, -1)?.offset, 0, "something was appended");
    Ok(())
}

/// One real record, a claim of two billion: nothing may be reserved for them.
fn giant_count_is_87(broker: &Broker) -> Tested {
    let mut batch = RawBatch::of(1, now_ms());
    (batch.record_count, batch.last_offset_delta) = (Some(i32::MAX), Some(i32::MAX - 1));
    refused_bytes(broker, &[87], batch.encode())
}

fn record_past_its_batch_is_refused(broker: &Broker) -> Tested {
    for lie in [1_000_i64, i64::from(i32::MAX), -1, -1_000, i64::MAX] {
        let mut batch = RawBatch::of(1, now_ms());
        let mut payload = Vec::new();
        batch::put_varint(&mut payload, lie);
        payload.extend_from_slice(&batch.encoded_records()[1..]);
        batch.payload = Some(payload);
        refused_bytes(broker, &[87, 2, -1], batch.encode())?;
    }
    Ok(())
}

fn bytes_after_the_records_are_refused(broker: &Broker) -> Tested {
    let mut batch = RawBatch::of(1, now_ms());
    let mut payload = batch.encoded_records();
    payload.extend_from_slice(b"more than the records");
    batch.payload = Some(payload);
    refused_bytes(broker, &[87], batch.encode())
}

fn payload_of_another_codec_is_refused(broker: &Broker) -> Tested {
    for codec in [codec::GZIP, codec::SNAPPY, codec::LZ4, codec::ZSTD] {
        let mut batch = RawBatch::of(2, now_ms());
        batch.attributes = codec;
        batch.payload = Some(b"these bytes are no compressed stream of any kind".to_vec());
        refused_bytes(broker, &[2, 87, -1], batch.encode())?;
    }
    Ok(())
}

fn unknown_codec_is_refused(broker: &Broker) -> Tested {
    for codec in [5, 6, 7] {
        let mut batch = RawBatch::of(2, now_ms());
        batch.attributes = codec;
        refused_bytes(broker, &[2, 76, 87, -1], batch.encode())?;
    }
    Ok(())
}

/// The start of a record whose value holds `bytes` bytes, which the caller appends.
fn record_prefix(bytes: usize) -> Vec<u8> {
    let mut fields = vec![0, 0, 0];
    batch::put_varint(&mut fields, -1);
    batch::put_varint(&mut fields, bytes as i64);
    let mut out = Vec::new();
    // The fields, the value, and one byte for the count of headers.
    batch::put_varint(&mut out, (fields.len() + bytes + 1) as i64);
    out.extend_from_slice(&fields);
    out
}

/// What a compressed batch may become once inflated.
const BOMB_BYTES: usize = 900 << 20;

/// Writes one valid record with a value of [`BOMB_BYTES`] zeros.
fn write_bomb(mut stream: impl Write) -> Tested {
    stream.write_all(&record_prefix(BOMB_BYTES))?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..BOMB_BYTES >> 20 {
        stream.write_all(&zeros)?;
    }
    Ok(stream.write_all(&[0])?)
}

/// A small batch that inflates to 900 MiB: any answer is right that does not hold them in memory.
fn bomb_is_bounded(broker: &Broker, attributes: i16, payload: Vec<u8>) -> Tested {
    assert!(payload.len() < 1 << 20, "the bomb itself passes max.message.bytes");
    let mut batch = RawBatch::of(1, now_ms());
    (batch.attributes, batch.payload) = (attributes, Some(payload));
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "bomb", 1, &[])?;
    let answer = requests::produce(&mut client, &topic, batch.encode())?;
    assert!([0, 2, 10, 87, -1].contains(&answer.error_code), "{}", answer.error_code);
    if let Some(resident) = broker.resident_bytes()? {
        assert!(resident <= crate::RESIDENT_BYTES_MAX, "the bomb cost {resident} bytes");
    }
    Ok(())
}

fn gzip_bomb_is_bounded(broker: &Broker) -> Tested {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    write_bomb(&mut encoder)?;
    bomb_is_bounded(broker, codec::GZIP, encoder.finish()?)
}

fn zstd_bomb_is_bounded(broker: &Broker) -> Tested {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1)?;
    write_bomb(&mut encoder)?;
    bomb_is_bounded(broker, codec::ZSTD, encoder.finish()?)
}

/// Raw snappy whose length prefix promises 4 GiB.
fn lying_snappy_length_is_refused(broker: &Broker) -> Tested {
    let mut batch = RawBatch::of(2, now_ms());
    batch.attributes = codec::SNAPPY;
    batch.payload = Some(vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0]);
    refused_bytes(broker, &[2, 87, -1], batch.encode())
}

fn two_batches_is_87(broker: &Broker) -> Tested {
    let mut records = RawBatch::of(1, now_ms()).encode().to_vec();
    records.extend_from_slice(&RawBatch::of(1, now_ms()).encode());
    refused_bytes(broker, &[87], records.into())
}

/// Apache Kafka never answers this one; a refusal or a close is what a client can act on.
fn null_records_are_refused(broker: &Broker) -> Tested {
    if broker.is_external() {
        return Ok(());
    }
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "null-records", 1, &[])?;
    let mut request = requests::produce_request(&topic, 0, -1, Bytes::new());
    request.topic_data[0].partition_data[0].records = None;
    let correlation_id = client.send(requests::PRODUCE_VERSION, &request)?;
    if let Some(frame) = client.read_frame()? {
        let version = requests::PRODUCE_VERSION;
        let response = raw::decode::<ProduceRequest>(version, correlation_id, frame)?;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 87);
    }
    Ok(())
}

fn magic_three_is_refused(broker: &Broker) -> Tested {
    let mut batch = RawBatch::of(1, now_ms());
    batch.magic = 3;
    refused_bytes(broker, &[87, 2], batch.encode())
}

fn half_a_batch_is_refused(broker: &Broker) -> Tested {
    let whole = RawBatch::of(2, now_ms()).encode();
    for length in [1, 12, 17, 60, whole.len() - 1] {
        refused_bytes(broker, &[87, 2], whole.slice(..length))?;
    }
    Ok(())
}

fn oversize_is_10(broker: &Broker) -> Tested {
    refused_bytes(broker, &[10], RawBatch::of_size(1_048_588, now_ms()).encode())?;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let configs = [("max.message.bytes", "1000")];
    let topic = requests::create_topic(&mut client, "small-messages", 1, &configs)?;
    refused_by(&mut client, &topic, &[10], RawBatch::of_size(1_000, now_ms()).encode())?;
    let exact = 1_000 - (RawBatch::of_size(500, now_ms()).encode().len() - 500);
    let fits = RawBatch::of_size(exact, now_ms()).encode();
    assert_eq!(fits.len(), 1_000);
    assert_eq!(requests::produce(&mut client, &topic, fits)?.error_code, 0);
    Ok(())
}

fn larger_than_a_segment_is_18(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let configs = [("segment.bytes", "1048576"), ("max.message.bytes", "4000000")];
    let topic = requests::create_topic(&mut client, "small-segments", 1, &configs)?;
    refused_by(&mut client, &topic, &[18], RawBatch::of_size(2_000_000, now_ms()).encode())
}

fn null_key_on_compacted_is_87(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let configs = [("cleanup.policy", "compact")];
    let topic = requests::create_topic(&mut client, "compacted", 1, &configs)?;
    let mut batch = RawBatch::of(3, now_ms());
    batch.records[1].key = None;
    let answer = requests::produce(&mut client, &topic, batch.encode())?;
    assert_eq!((answer.error_code, answer.base_offset), (87, -1));
    let named: Vec<i32> = answer.record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!(named, [1]);
    assert_eq!(requests::list_offsets(&mut client, 7, &topic, -1)?.offset, 0);
    let keyed = RawBatch::of(3, now_ms()).encode();
    assert_eq!(requests::produce(&mut client, &topic, keyed)?.error_code, 0);
    Ok(())
}

fn bad_acks_is_21(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "bad-acks", 1, &[])?;
    for acks in [2, -2, i16::MAX, i16::MIN] {
        let records = RawBatch::of(1, now_ms()).encode();
        let version = requests::PRODUCE_VERSION;
        let answer = requests::produce_at(&mut client, version, &topic, acks, records)?;
        assert_eq!(answer.error_code, 21, "acks={acks}");
    }
    assert_eq!(requests::list_offsets(&mut client, 7, &topic, -1)?.offset, 0);
    Ok(())
}

fn zstd_batch() -> Tested<Bytes> {
    let mut batch = RawBatch::of(2, now_ms());
    batch.payload = Some(zstd::encode_all(batch.encoded_records().as_slice(), 3)?);
    batch.attributes = codec::ZSTD;
    Ok(batch.encode())
}

fn zstd_below_version_7_is_76(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "old-zstd", 1, &[])?;
    for (version, code) in [(3, 76), (6, 76), (7, 0), (9, 0)] {
        let answer = requests::produce_at(&mut client, version, &topic, -1, zstd_batch()?)?;
        assert_eq!(answer.error_code, code, "version {version}");
    }
    Ok(())
}

fn timestamp_two_hours_ahead_is_32(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "ahead", 1, &[])?;
    let records = RawBatch::of(1, now_ms() + 2 * 3_600_000).encode();
    refused_by(&mut client, &topic, &[32], records)?;
    let records = RawBatch::of(1, now_ms() + 1_800_000).encode();
    assert_eq!(requests::produce(&mut client, &topic, records)?.error_code, 0);
    Ok(())
}

fn timestamp_before_the_window_is_32(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let configs = [("message.timestamp.before.max.ms", "60000")];
    let topic = requests::create_topic(&mut client, "behind", 1, &configs)?;
    let mut batch = RawBatch::of(2, now_ms());
    batch.records[1].timestamp_delta = -120_000;
    let answer = requests::produce(&mut client, &topic, batch.encode())?;
    assert_eq!(answer.error_code, 32);
    let named: Vec<i32> = answer.record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!(named, [1]);
    Ok(())
}

/// Log append time is the broker's to give. A client's claim is refused where the topic has it, and
/// refused or taken off where the topic has create time.
fn claimed_log_append_time_never_sticks(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let mut claim = RawBatch::of(2, now_ms());
    claim.attributes = batch::LOG_APPEND_TIME;
    let configs = [("message.timestamp.type", "LogAppendTime")];
    let topic = requests::create_topic(&mut client, "claims", 1, &configs)?;
    refused_by(&mut client, &topic, &[32], claim.encode())?;

    let topic = requests::create_topic(&mut client, "claims", 1, &[])?;
    let answer = requests::produce(&mut client, &topic, claim.encode())?;
    assert!([0, 32].contains(&answer.error_code), "{}", answer.error_code);
    if answer.error_code == 0 {
        let fetched = requests::fetch(&mut client, &topic, 0)?;
        let batches = batch::split(&fetched.records.ok_or("no records")?)?;
        assert_eq!(batches[0].attributes & batch::LOG_APPEND_TIME, 0);
    }
    Ok(())
}

fn no_timestamp_is_accepted(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "no-timestamp", 1, &[])?;
    let answer = requests::produce(&mut client, &topic, RawBatch::of(1, -1).encode())?;
    assert_eq!((answer.error_code, answer.log_append_time_ms), (0, -1));
    Ok(())
}

fn log_append_time_is_stamped(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let configs = [("message.timestamp.type", "LogAppendTime")];
    let topic = requests::create_topic(&mut client, "append-time", 1, &configs)?;
    let before = now_ms();
    let answer = requests::produce(&mut client, &topic, RawBatch::of(2, 1_000).encode())?;
    assert_eq!(answer.error_code, 0);
    assert!((before..=now_ms()).contains(&answer.log_append_time_ms));
    let fetched = requests::fetch(&mut client, &topic, 0)?;
    let batches = batch::split(&fetched.records.ok_or("no records")?)?;
    assert_eq!(batches[0].max_timestamp, answer.log_append_time_ms);
    assert_eq!(batches[0].attributes, batch::LOG_APPEND_TIME);
    Ok(())
}

fn unknown_topic_is_3(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let records = RawBatch::of(1, now_ms()).encode();
    let answer = requests::produce(&mut client, &requests::unique("nobody"), records.clone())?;
    assert_eq!(answer.error_code, 3);
    // Version 13 names topics by id alone.
    let data = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_topic_id(uuid::Uuid::new_v4())
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
    let response = client.call(13, &request)?;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 100);
    Ok(())
}

fn unknown_partition_is_3(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "one-partition", 1, &[])?;
    for partition in [1, -1, i32::MAX, i32::MIN] {
        let records = RawBatch::of(1, now_ms()).encode();
        let request = requests::produce_request(&topic, partition, -1, records);
        let response = client.call(requests::PRODUCE_VERSION, &request)?;
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!((answer.index, answer.error_code), (partition, 3));
    }
    Ok(())
}

fn one_bad_partition_fails_alone(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "mixed", 3, &[])?;
    let mut bad = RawBatch::of(1, now_ms());
    bad.crc = Some(1);
    let batches = [RawBatch::of(1, now_ms()).encode(), bad.encode(), RawBatch::of(2, -1).encode()];
    let mut request = requests::produce_request(&topic, 0, -1, Bytes::new());
    request.topic_data[0].partition_data = (0..)
        .zip(batches)
        .map(|(index, records)| {
            PartitionProduceData::default().with_index(index).with_records(Some(records))
        })
        .collect();
    let response = client.call(requests::PRODUCE_VERSION, &request)?;
    let mut answers: Vec<_> = response.responses[0]
        .partition_responses
        .iter()
        .map(|answer| (answer.index, answer.error_code, answer.base_offset))
        .collect();
    answers.sort_unstable();
    assert_eq!(answers, [(0, 0, 0), (1, 2, -1), (2, 0, 0)]);
    Ok(())
}

/// With acks=0 the next answer on the connection belongs to the next request.
fn acks_0_is_not_answered(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "fire-and-forget", 1, &[])?;
    for _ in 0..3 {
        let records = RawBatch::of(2, now_ms()).encode();
        client.send(9, &requests::produce_request(&topic, 0, 0, records))?;
    }
    // Nobody said that the records are committed: only that they are on their way.
    let end = Instant::now() + raw::RESPONSE_DEADLINE;
    while requests::list_offsets(&mut client, 7, &topic, -1)?.offset < 6 {
        assert!(Instant::now() < end, "records without acknowledgment never became visible");
    }
    Ok(())
}

/// With acks=0 a closed connection is the only way to say that something went wrong.
fn acks_0_error_closes(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let records = RawBatch::of(1, now_ms()).encode();
    client.send(9, &requests::produce_request(&requests::unique("nobody"), 0, 0, records))?;
    client.expect_closed()
}

fn every_version_appends(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "all-versions", 1, &[])?;
    let id = requests::topic_id(&mut client, &topic)?;
    for (version, offset) in (3..=13).zip(0..) {
        let records = RawBatch::of(1, now_ms()).encode();
        let mut request = requests::produce_request(&topic, 0, -1, records);
        if version >= 13 {
            request.topic_data[0].name = requests::topic_name("");
            request.topic_data[0].topic_id = id;
        }
        let response = client.call(version, &request)?;
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, offset), "version {version}");
    }
    Ok(())
}
