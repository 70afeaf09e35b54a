//! What is set at run time is heeded: the topic's by its log, the broker's by all topics.

use std::path::Path;

use vltava_tests::harness::batch::split;
use vltava_tests::harness::{Broker, RawBatch, RawClient, Tested, now_ms, requests};

use crate::Row;
use crate::ask::{self, BROKER, TOPIC};

pub(crate) const ROWS: &[Row] = &[
    ("max_message_bytes", max_message_bytes),
    ("message_max_bytes_of_all_topics", message_max_bytes_of_all_topics),
    ("compression", compression),
    ("timestamps", timestamps),
    ("retention_by_time", retention_by_time),
    ("nothing_goes_from_a_compacted_topic", nothing_goes_from_a_compacted_topic),
    ("segments", segments),
    ("durability", durability),
    ("connections", connections),
];

fn produce_of(client: &mut RawClient, topic: &str, bytes: usize) -> Tested<i16> {
    let batch = RawBatch::of_size(bytes, now_ms()).encode();
    Ok(requests::produce(client, topic, batch)?.error_code)
}

fn max_message_bytes(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "large", 1, &[])?;
    assert_eq!(produce_of(&mut client, &topic, 20_000)?, 0);
    ask::set(&mut client, TOPIC, &topic, "max.message.bytes", "10000")?;
    ask::until("the limit", || Ok(produce_of(&mut client, &topic, 20_000)? == 10))?;
    assert_eq!(produce_of(&mut client, &topic, 5000)?, 0);
    ask::unset(&mut client, TOPIC, &topic, "max.message.bytes")?;
    ask::until("the end of the limit", || Ok(produce_of(&mut client, &topic, 20_000)? == 0))
}

fn message_max_bytes_of_all_topics(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let node = ask::broker_name(&mut client)?;
    let topic = requests::create_topic(&mut client, "inherits", 1, &[])?;
    let own = [("max.message.bytes", "100000")];
    let other = requests::create_topic(&mut client, "its-own", 1, &own)?;
    ask::set(&mut client, BROKER, "", "message.max.bytes", "10000")?;
    ask::until("the limit", || Ok(produce_of(&mut client, &topic, 20_000)? == 10))?;
    assert_eq!(produce_of(&mut client, &other, 20_000)?, 0, "the topic's own is nearer");
    // One broker's is nearer than that of all.
    ask::set(&mut client, BROKER, &node, "message.max.bytes", "30000")?;
    ask::until("the broker's own", || Ok(produce_of(&mut client, &topic, 20_000)? == 0))?;
    assert_eq!(produce_of(&mut client, &topic, 40_000)?, 10);
    let made = requests::create_topic(&mut client, "made-later", 1, &[])?;
    assert_eq!(produce_of(&mut client, &made, 40_000)?, 10);
    ask::unset(&mut client, BROKER, &node, "message.max.bytes")?;
    ask::unset(&mut client, BROKER, "", "message.max.bytes")?;
    ask::until("the default", || Ok(produce_of(&mut client, &topic, 40_000)? == 0))
}

fn compression(broker: &Broker) -> Tested {
    const CODEC: i16 = 7;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "compressed", 1, &[])?;
    for (name, codec) in [("gzip", 1), ("zstd", 4), ("uncompressed", 0), ("lz4", 3), ("snappy", 2)]
    {
        ask::set(&mut client, TOPIC, &topic, "compression.type", name)?;
        ask::until(name, || {
            let batch = RawBatch::of(100, now_ms()).encode();
            let answer = requests::produce(&mut client, &topic, batch)?;
            assert_eq!(answer.error_code, 0);
            let fetched = requests::fetch(&mut client, &topic, answer.base_offset)?;
            let records = fetched.records.ok_or("records are fetched")?;
            let batches = split(&records)?;
            let is_it = |batch: &&vltava_tests::harness::batch::FetchedBatch| {
                batch.base_offset == answer.base_offset
            };
            let batch = batches.iter().find(is_it).ok_or("the batch is fetched")?;
            assert_eq!(batch.record_count, 100);
            Ok(batch.attributes & CODEC == codec)
        })?;
    }
    Ok(())
}

fn timestamps(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "times", 1, &[])?;
    let produce = |client: &mut RawClient| {
        requests::produce(client, &topic, RawBatch::of(1, now_ms() - 1000).encode())
    };
    assert_eq!(produce(&mut client)?.log_append_time_ms, -1);
    ask::set(&mut client, TOPIC, &topic, "message.timestamp.type", "LogAppendTime")?;
    ask::until("the log's time", || Ok(produce(&mut client)?.log_append_time_ms > 0))?;
    ask::unset(&mut client, TOPIC, &topic, "message.timestamp.type")?;
    ask::set(&mut client, TOPIC, &topic, "message.timestamp.before.max.ms", "100")?;
    ask::until("the window", || Ok(produce(&mut client)?.error_code == 32))
}

fn start(client: &mut RawClient, topic: &str) -> Tested<i64> {
    Ok(requests::list_offsets(client, 7, topic, -2)?.offset)
}

fn old_records(client: &mut RawClient, topic: &str) -> Tested {
    let old = now_ms() - 3_600_000;
    assert_eq!(requests::produce(client, topic, RawBatch::of(5, old).encode())?.error_code, 0);
    Ok(())
}

fn retention_by_time(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let kept = requests::create_topic(&mut client, "kept", 1, &[("retention.ms", "-1")])?;
    let topic = requests::create_topic(&mut client, "aging", 1, &[])?;
    old_records(&mut client, &topic)?;
    old_records(&mut client, &kept)?;
    assert_eq!(start(&mut client, &topic)?, 0, "a week is kept by default");
    ask::set(&mut client, TOPIC, &topic, "retention.ms", "60000")?;
    ask::until("retention", || Ok(start(&mut client, &topic)? == 5))?;
    assert_eq!(start(&mut client, &kept)?, 0);
    // What is set for all brokers reaches the topics that set nothing.
    let inherits = requests::create_topic(&mut client, "aging-too", 1, &[])?;
    old_records(&mut client, &inherits)?;
    ask::set(&mut client, BROKER, "", "log.retention.ms", "60000")?;
    ask::until("retention of all", || Ok(start(&mut client, &inherits)? == 5))?;
    assert_eq!(start(&mut client, &kept)?, 0);
    ask::unset(&mut client, BROKER, "", "log.retention.ms")
}

/// Only the last record of each key may go from such a topic, by compaction and not by age.
fn nothing_goes_from_a_compacted_topic(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let configs = [("cleanup.policy", "compact"), ("retention.ms", "60000")];
    let topic = requests::create_topic(&mut client, "compacted", 1, &configs)?;
    let witness = requests::create_topic(&mut client, "witness", 1, &[("retention.ms", "60000")])?;
    let mut batch = RawBatch::of(5, now_ms() - 3_600_000);
    for (n, record) in batch.records.iter_mut().enumerate() {
        record.key = Some(n.to_string().into_bytes());
    }
    assert_eq!(requests::produce(&mut client, &topic, batch.encode())?.error_code, 0);
    // Written later, so looked at later: when it has lost its records, the other was spared.
    old_records(&mut client, &witness)?;
    ask::until("retention", || Ok(start(&mut client, &witness)? == 5))?;
    old_records(&mut client, &witness)?;
    ask::until("retention again", || Ok(start(&mut client, &witness)? == 10))?;
    assert_eq!(start(&mut client, &topic)?, 0);
    let fetched = requests::fetch(&mut client, &topic, 0)?;
    let batches = split(&fetched.records.ok_or("records are fetched")?)?;
    assert_eq!(batches.iter().map(|batch| batch.record_count).sum::<i32>(), 5);
    Ok(())
}

/// Files of segments below a directory.
fn segment_files(dir: &Path) -> Tested<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            count += segment_files(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "log") {
            count += 1;
        }
    }
    Ok(count)
}

fn segments(broker: &Broker) -> Tested {
    if broker.is_external() {
        return Ok(()); // Its files are not ours to count.
    }
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "segments", 1, &[])?;
    let fill = |client: &mut RawClient| -> Tested {
        for _ in 0..6 {
            assert_eq!(produce_of(client, &topic, 500_000)?, 0);
        }
        Ok(())
    };
    let before = segment_files(broker.data_dir())?;
    fill(&mut client)?;
    assert_eq!(segment_files(broker.data_dir())?, before, "a gigabyte is a segment by default");
    ask::set(&mut client, TOPIC, &topic, "segment.bytes", "1048576")?;
    fill(&mut client)?;
    let after = segment_files(broker.data_dir())?;
    assert!(after >= before + 2, "{before} files became {after}");
    Ok(())
}

fn durability(broker: &Broker) -> Tested {
    if broker.is_external() {
        return Ok(()); // A key of our own.
    }
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "durable", 1, &[])?;
    for (value, source) in [("page-cache", 1), ("fsync", 1)] {
        ask::set(&mut client, TOPIC, &topic, "durability", value)?;
        let described = ask::key(&mut client, TOPIC, &topic, "durability")?;
        assert_eq!((described.value.as_deref(), described.config_source), (Some(value), source));
        assert_eq!(produce_of(&mut client, &topic, 5000)?, 0);
    }
    let wrong = ask::alter(&mut client, TOPIC, &topic, &[("durability", ask::SET, Some("x"))])?;
    assert_eq!(wrong.0, 40);
    Ok(())
}

/// A connection over the limit is closed before it is answered.
fn is_served(broker: &Broker) -> bool {
    let connected = RawClient::connect(broker.bootstrap());
    connected.is_ok_and(|mut client| client.call(9, &requests::metadata_request(&[])).is_ok())
}

fn connections(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let node = ask::broker_name(&mut client)?;
    assert!(is_served(broker));
    ask::set(&mut client, BROKER, &node, "max.connections.per.ip", "1")?;
    ask::until("the limit", || Ok(!is_served(broker)))?;
    ask::unset(&mut client, BROKER, &node, "max.connections.per.ip")?;
    ask::until("the end of the limit", || Ok(is_served(broker)))
}
