//! Produce: acknowledgments, order, refusals.

use bytes::Bytes;
use vltava_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use vltava_protocol::messages::produce_response::PartitionProduceResponse;
use vltava_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse};
use vltava_protocol::record::{Attributes, BatchFields, Codec};

use crate::fetch;
use crate::node::TestNode;
use crate::wire::{Wire, batch, batch_at, idempotent, name};

pub(crate) fn request(topic: &str, partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![
        TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]),
    ])
}

pub(crate) async fn produce(
    wire: &mut Wire,
    version: i16,
    request: &ProduceRequest,
) -> PartitionProduceResponse {
    let mut response: ProduceResponse = wire.call(ApiKey::Produce, version, request).await;
    response.responses.remove(0).partition_responses.remove(0)
}

/// Produces one batch to partition 0; its base offset.
pub(crate) async fn append(wire: &mut Wire, topic: &str, records: Bytes) -> i64 {
    let response = produce(wire, 9, &request(topic, 0, records)).await;
    assert_eq!(response.error_code, 0, "{response:?}");
    response.base_offset
}

#[tokio::test]
async fn every_version_appends_and_answers() {
    let node = TestNode::start().await;
    let id = node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    for (version, base_offset) in (3..=13).zip((0..).step_by(2)) {
        for acks in [-1, 1] {
            let mut request = request("t", 0, batch(&["v"])).with_acks(acks);
            if version >= 13 {
                request.topic_data[0].topic_id = id.0;
                request.topic_data[0].name = name("");
            }
            let response = produce(&mut wire, version, &request).await;
            let expected = base_offset + i64::from(acks == 1);
            assert_eq!((response.error_code, response.base_offset), (0, expected), "v{version}");
            assert_eq!(response.log_append_time_ms, -1);
            if version >= 5 {
                assert_eq!(response.log_start_offset, 0);
            }
        }
    }
}

#[tokio::test]
async fn pipelined_batches_get_dense_offsets_in_order() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    let request = request("t", 0, batch(&["a", "b", "c"]));
    let frames: Vec<u8> = (0..200).flat_map(|_| wire.frame(ApiKey::Produce, 9, &request)).collect();
    wire.raw(&frames).await;
    for at in 0..200 {
        let response: ProduceResponse = wire.receive(9).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, 3 * at));
    }
}

#[tokio::test]
async fn without_acknowledgment_there_is_no_answer_and_an_error_closes() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    wire.send(ApiKey::Produce, 9, &request("t", 0, batch(&["a"])).with_acks(0)).await;
    wire.expect_none();
    assert_eq!(append(&mut wire, "t", batch(&["b"])).await, 1);
    wire.send(ApiKey::Produce, 9, &request("absent", 0, batch(&["a"])).with_acks(0)).await;
    wire.assert_closed().await;
}

#[tokio::test]
async fn refusals_carry_their_codes() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    node.create("compact", 1, &["cleanup.policy=compact"]).await;
    node.create("small", 1, &["max.message.bytes=100"]).await;
    let good = batch(&["a"]);
    let mut bad_crc = good.to_vec();
    *bad_crc.last_mut().unwrap() ^= 1;
    let two = [&good[..], &good[..]].concat();
    let transactional = BatchFields {
        attributes: Attributes::default().with_transactional(),
        producer_id: vltava_protocol::ids::ProducerId(5),
        producer_epoch: vltava_protocol::ids::ProducerEpoch(0),
        base_sequence: vltava_protocol::ids::Sequence(0),
        ..BatchFields::default()
    };
    let transactional = batch_at(1_000, &["a"], Codec::None, &transactional);
    let zstd = batch_at(1_000, &["a"], Codec::Zstd, &BatchFields::default());
    let long = "x".repeat(200);
    let mut wire = node.connect().await;
    for (what, topic, partition, records, version, code) in [
        ("topic", "absent", 0, good.clone(), 9, 3),
        ("partition", "t", 1, good.clone(), 9, 3),
        ("partition below", "t", -1, good.clone(), 9, 3),
        ("crc", "t", 0, bad_crc.into(), 9, 2),
        ("two batches", "t", 0, two.into(), 9, 87),
        ("no batch", "t", 0, Bytes::new(), 9, 87),
        ("size", "small", 0, batch(&[&long]), 9, 10),
        ("transaction", "t", 0, transactional, 9, 48),
        ("zstd", "t", 0, zstd.clone(), 6, 76),
        ("zstd", "t", 0, zstd, 7, 0),
    ] {
        let response = produce(&mut wire, version, &request(topic, partition, records)).await;
        assert_eq!(response.error_code, code, "{what}: {response:?}");
        if code != 0 {
            assert_eq!(response.base_offset, -1, "{what}");
        }
    }
    let response = produce(&mut wire, 9, &request("t", 0, good).with_acks(2)).await;
    assert_eq!(response.error_code, 21);
    assert_eq!(append(&mut wire, "t", batch(&["b"])).await, 1, "refused ones leave nothing");
}

#[tokio::test]
async fn a_record_at_fault_is_named() {
    let node = TestNode::start().await;
    node.create("compact", 1, &["cleanup.policy=compact"]).await;
    let mut builder = vltava_protocol::record::BatchBuilder::new(Codec::None, None);
    for key in [Some(&b"k"[..]), None] {
        builder.append(vltava_protocol::ids::Timestamp(1), key, Some(b"v"), &[]);
    }
    let records = builder.build(&BatchFields::default()).unwrap();
    let mut wire = node.connect().await;
    for version in [7, 8] {
        let request = request("compact", 0, records.clone());
        let response = produce(&mut wire, version, &request).await;
        assert_eq!(response.error_code, 87);
        let at_fault: Vec<i32> =
            response.record_errors.iter().map(|error| error.batch_index).collect();
        assert_eq!(at_fault, if version >= 8 { vec![1] } else { vec![] });
        assert_eq!(response.error_message.is_some(), version >= 8);
    }
}

#[tokio::test]
async fn topics_by_id_and_unknown_ids() {
    let node = TestNode::start().await;
    let id = node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    for (id, partition, code) in [(id.0, 0, 0), (id.0, 3, 3), (uuid::Uuid::from_u128(7), 0, 100)] {
        let mut request = request("", partition, batch(&["a"]));
        request.topic_data[0].topic_id = id;
        let response = produce(&mut wire, 13, &request).await;
        assert_eq!(response.error_code, code);
    }
}

#[tokio::test]
async fn an_idempotent_producer_is_held_to_its_sequence() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    for (records, code, offset) in [
        (idempotent(9, 0, 0, &["a", "b"]), 0, 0),
        (idempotent(9, 0, 2, &["c"]), 0, 2),
        (idempotent(9, 0, 0, &["a", "b"]), 0, 0),
        (idempotent(9, 0, 5, &["e"]), 45, -1),
        (idempotent(9, 1, 0, &["d"]), 0, 3),
        (idempotent(9, 0, 3, &["d"]), 47, -1),
    ] {
        let response = produce(&mut wire, 9, &request("t", 0, records)).await;
        assert_eq!((response.error_code, response.base_offset), (code, offset));
    }
}

#[tokio::test]
async fn log_append_time_is_told_and_stored() {
    let node = TestNode::start().await;
    node.create("t", 1, &["message.timestamp.type=LogAppendTime"]).await;
    let mut wire = node.connect().await;
    let response = produce(&mut wire, 9, &request("t", 0, batch(&["a"]))).await;
    assert!(response.log_append_time_ms > 1_577_836_800_000, "{response:?}");
    let records = fetch::read(&mut wire, "t", 0).await;
    let header = vltava_protocol::record::BatchHeader::parse(&records).unwrap();
    assert_eq!(header.max_timestamp.0, response.log_append_time_ms);
}

#[tokio::test]
async fn a_large_compressed_batch_takes_the_long_way() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    // Random digits compress to less than half; 400 KiB stay above the bound of the short way.
    let mut state = 1_u64;
    let mut digit = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (state >> 33) as u8 % 10)
    };
    let value: String = (0..400 << 10).map(|_| digit()).collect();
    let records = batch_at(1_000, &[&value], Codec::Lz4, &BatchFields::default());
    assert!(records.len() > 64 << 10);
    let mut wire = node.connect().await;
    assert_eq!(append(&mut wire, "t", records.clone()).await, 0);
    assert_eq!(fetch::read(&mut wire, "t", 0).await[16..], records[16..]);
}
