//! Batches against other implementations: Apache Kafka's own bytes, and the wire crate's encoder.
#![allow(clippy::unwrap_used)] // the configured exception knows only `#[test]` functions

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records as theirs;
use vltava_protocol::ids::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TopicPartition,
};
use vltava_protocol::ids::{PartitionIndex, Timestamp};
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, verify_crc};
use vltava_protocol::record::compression::decompress;
use vltava_protocol::record::{
    Attributes, BatchBuilder, BatchFields, BatchHeader, Codec, EndTxnMarker, Header, Records,
    TransactionResult,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn kafkas(name: &str) -> Bytes {
    let lines = include_str!("testdata/kafka_batches.txt").lines();
    let hex = lines.filter_map(|line| line.split_once(' ')).find(|(codec, _)| *codec == name);
    let hex = hex.expect("a batch of that name").1.as_bytes();
    let digit = |d: u8| char::from(d).to_digit(16).expect("a hexadecimal digit") as u8;
    hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The fields of the data batches in the file.
const FIELDS: BatchFields = BatchFields {
    base_offset: Offset(0),
    leader_epoch: LeaderEpoch(7),
    attributes: Attributes(1 << 4),
    producer_id: ProducerId(9),
    producer_epoch: ProducerEpoch(2),
    base_sequence: Sequence(40),
};

fn same_records(codec: Codec) -> Bytes {
    let headers = [Header { key: b"h", value: Some(b"1") }, Header { key: b"h", value: None }];
    let mut builder = BatchBuilder::new(codec, None);
    builder.append(Timestamp(1_700_000_000_000), Some(b"key"), Some(b"value"), &headers);
    builder.append(Timestamp(1_699_999_999_990), None, Some(&[0; 600]), &[]);
    builder.append(Timestamp(1_700_000_000_005), Some(b""), None, &[]);
    builder.build(&FIELDS).expect("the codec takes anything")
}

fn payload(batch: &Bytes) -> Vec<u8> {
    let codec = BatchHeader::parse(batch).unwrap().attributes.codec().unwrap();
    let mut payload = Vec::new();
    decompress(codec, &batch[BATCH_HEADER_BYTES..], 1 << 20, &mut payload).unwrap();
    payload
}

#[test]
fn kafkas_batches_are_read_and_equal_ours() {
    for codec in Codec::ALL {
        let (kafkas, ours) = (kafkas(codec.name()), same_records(codec));
        assert!(verify_crc(&kafkas), "{codec:?}");
        let header = BatchHeader::parse(&kafkas).unwrap();
        assert_eq!(header.size(), kafkas.len());
        let BatchHeader { batch_length, crc, .. } = header;
        let ours_header = BatchHeader::parse(&ours).unwrap();
        assert_eq!(BatchHeader { batch_length, crc, ..ours_header }, header, "{codec:?}");
        assert_eq!(payload(&kafkas), payload(&ours), "{codec:?}");
        let payload = payload(&kafkas);
        let records: Result<Vec<_>, _> = Records::new(&payload, 3).collect();
        assert_eq!(records.map(|records| records.len()), Ok(3));
    }
    assert_eq!(kafkas("none"), same_records(Codec::None));
}

#[test]
fn kafkas_markers_equal_ours() {
    for (name, result, offset) in
        [("commit", TransactionResult::Commit, 33), ("abort", TransactionResult::Abort, 34)]
    {
        let marker = EndTxnMarker { result, coordinator_epoch: 11 };
        let (id, epoch) = (ProducerId(9), ProducerEpoch(2));
        let time = Timestamp(1_700_000_000_000);
        assert_eq!(marker.build(Offset(offset), LeaderEpoch(4), id, epoch, time), kafkas(name));
        assert_eq!(EndTxnMarker::parse(&kafkas(name)), Ok(marker));
    }
}

#[test]
fn uncompressed_batches_equal_the_wire_crates() {
    let time = |n: i64| 1000 + n * n - 20 * n; // falls, then rises
    let value = |n: i64| Some(vec![n as u8; (n * 37) as usize]).filter(|_| n % 5 != 0);
    let key = |n: i64| Some(format!("key {n}")).filter(|_| n % 3 != 0);
    let records: Vec<theirs::Record> = (0..50)
        .map(|n| theirs::Record {
            transactional: true,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 7,
            producer_id: 9,
            producer_epoch: 2,
            timestamp_type: theirs::TimestampType::Creation,
            offset: n,
            sequence: 40 + n as i32,
            timestamp: time(n),
            key: key(n).map(Bytes::from),
            value: value(n).map(Bytes::from),
            headers: IndexMap::from([("h".into(), value(n).map(Bytes::from))]),
        })
        .collect();
    let options =
        theirs::RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
    let mut expected = BytesMut::new();
    theirs::RecordBatchEncoder::encode(&mut expected, &records, &options).unwrap();

    let least = (0..50).map(time).min().unwrap();
    let mut builder = BatchBuilder::new(Codec::None, None);
    builder.count_time_from(Timestamp(least)); // the wire crate counts from the earliest
    for n in 0..50 {
        let (key, value) = (key(n), value(n));
        let header = Header { key: b"h", value: value.as_deref() };
        let key = key.as_deref().map(str::as_bytes);
        builder.append(Timestamp(time(n)), key, value.as_deref(), &[header]);
    }
    assert_eq!(builder.build(&FIELDS).unwrap(), expected);
}

#[test]
fn partitions_are_named_as_kafka_names_them() {
    let partition = TopicPartition::new("a-b", PartitionIndex(3));
    assert_eq!(partition.to_string(), "a-b-3");
}
