//! `DeleteRecords`, and what a compacted topic takes.

use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::{DeleteRecordsRequest, FindCoordinatorRequest};
use vltava_tests::harness::{Broker, RawBatch, RawClient, Tested, now_ms, requests};

use crate::Row;
use crate::ask::{self, TOPIC};

pub(crate) const ROWS: &[Row] = &[
    ("the_start_moves", the_start_moves),
    ("offsets_out_of_range", offsets_out_of_range),
    ("what_is_not_there", what_is_not_there),
    ("policies", policies),
    ("the_broker_s_own_records_stay", the_broker_s_own_records_stay),
    ("repeated_partitions", repeated_partitions),
    ("no_time_is_enough_for_one_replica", no_time_is_enough_for_one_replica),
    ("a_compacted_topic_wants_keys", a_compacted_topic_wants_keys),
];

type Asked<'a> = &'a [(&'a str, &'a [(i32, i64)])];

fn request(topics: Asked<'_>) -> DeleteRecordsRequest {
    let topic = |&(name, partitions): &(&str, &[(i32, i64)])| {
        let partition = |&(index, offset): &(i32, i64)| {
            DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset)
        };
        DeleteRecordsTopic::default()
            .with_name(requests::topic_name(name))
            .with_partitions(partitions.iter().map(partition).collect())
    };
    DeleteRecordsRequest::default()
        .with_timeout_ms(requests::TIMEOUT_MS)
        .with_topics(topics.iter().map(topic).collect())
}

/// Topic, partition, low watermark and error of each answer, sorted.
fn delete(
    client: &mut RawClient,
    version: i16,
    request: &DeleteRecordsRequest,
) -> Tested<Vec<(String, i32, i64, i16)>> {
    let response = client.call(version, request)?;
    let mut all = Vec::new();
    for topic in &response.topics {
        for answer in &topic.partitions {
            let place = (topic.name.to_string(), answer.partition_index);
            all.push((place.0, place.1, answer.low_watermark, answer.error_code));
        }
    }
    all.sort();
    Ok(all)
}

fn filled(client: &mut RawClient, configs: &[(&str, &str)]) -> Tested<String> {
    let topic = requests::create_topic(client, "records", 2, configs)?;
    requests::produce(client, &topic, RawBatch::of(10, now_ms()).encode())?;
    Ok(topic)
}

fn the_start_moves(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = filled(&mut client, &[])?;
    for (version, offset, start) in [(0, 4, 4), (1, 2, 4), (2, 4, 4), (2, 5, 5), (2, -1, 10)] {
        let got = delete(&mut client, version, &request(&[(&topic, &[(0, offset)])]))?;
        assert_eq!(got, [(topic.clone(), 0, start, 0)], "to {offset}");
        assert_eq!(requests::list_offsets(&mut client, 7, &topic, -2)?.offset, start);
        let below = requests::fetch(&mut client, &topic, start - 1)?;
        assert_eq!((below.error_code, below.log_start_offset), (1, -1));
        let answer = requests::fetch(&mut client, &topic, start)?;
        assert_eq!((answer.error_code, answer.log_start_offset), (0, start));
    }
    // An empty partition has its start where its end is.
    let empty = delete(&mut client, 2, &request(&[(&topic, &[(1, -1)])]))?;
    assert_eq!(empty, [(topic.clone(), 1, 0, 0)]);
    let next = requests::produce(&mut client, &topic, RawBatch::of(1, now_ms()).encode())?;
    assert_eq!((next.base_offset, next.log_start_offset), (10, 10));
    Ok(())
}

fn offsets_out_of_range(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = filled(&mut client, &[])?;
    for offset in [11, -2, i64::MAX, i64::MIN] {
        let got = delete(&mut client, 2, &request(&[(&topic, &[(0, offset)])]))?;
        assert_eq!(got, [(topic.clone(), 0, -1, 1)], "{offset}");
    }
    assert_eq!(requests::list_offsets(&mut client, 7, &topic, -2)?.offset, 0);
    Ok(())
}

fn what_is_not_there(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = filled(&mut client, &[])?;
    let asked: Asked<'_> = &[
        ("nobody", &[(0, 1)]),
        ("a b", &[(0, 1)]),
        ("__cluster_metadata", &[(0, 0)]),
        (&topic, &[(9, 1), (-1, 1), (0, 3)]),
    ];
    let mut expected = vec![
        ("nobody".to_owned(), 0, -1, 3),
        ("a b".to_owned(), 0, -1, 3),
        ("__cluster_metadata".to_owned(), 0, -1, 3),
        (topic.clone(), 9, -1, 3),
        (topic.clone(), -1, -1, 3),
        (topic.clone(), 0, 3, 0),
    ];
    expected.sort();
    assert_eq!(delete(&mut client, 2, &request(asked))?, expected);
    assert_eq!(delete(&mut client, 2, &request(&[]))?, []);
    assert_eq!(delete(&mut client, 2, &request(&[(&topic, &[])]))?, []);
    Ok(())
}

fn policies(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    for (policy, expected) in
        [("compact", (-1, 44)), ("compact,delete", (0, 0)), ("delete", (0, 0)), ("", (0, 0))]
    {
        let configs = [("cleanup.policy", policy)];
        let topic = requests::create_topic(&mut client, "policy", 1, &configs)?;
        let got = delete(&mut client, 2, &request(&[(&topic, &[(0, 0)])]))?;
        assert_eq!(got, [(topic, 0, expected.0, expected.1)], "{policy:?}");
    }
    Ok(())
}

fn the_broker_s_own_records_stay(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let offsets = "__consumer_offsets";
    // The first look for a coordinator makes the topic.
    let request = FindCoordinatorRequest::default()
        .with_key_type(0)
        .with_coordinator_keys(vec![ask::text("anybody")]);
    ask::until("the topic", || {
        client.call(4, &request)?;
        let metadata = client.call(9, &requests::metadata_request(&[offsets]))?;
        let topic = &metadata.topics[0];
        Ok(topic.error_code == 0 && topic.partitions.iter().all(|p| p.error_code == 0))
    })?;
    let got = delete(&mut client, 2, &request_of(offsets))?;
    assert_eq!(got, [(offsets.to_owned(), 0, -1, 17)]);
    let page = client.call(12, &requests::metadata_request(&[offsets]))?;
    assert!(page.topics[0].is_internal);
    Ok(())
}

fn request_of(topic: &str) -> DeleteRecordsRequest {
    request(&[(topic, &[(0, 0)])])
}

fn repeated_partitions(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = filled(&mut client, &[])?;
    let twice = request(&[(&topic, &[(0, 4), (0, 6)])]);
    assert_eq!(delete(&mut client, 2, &twice)?, [(topic.clone(), 0, 6, 0)]);
    let apart = request(&[(&topic, &[(0, 9)]), (&topic, &[(0, 8)])]);
    assert_eq!(delete(&mut client, 2, &apart)?, [(topic, 0, 8, 0)]);
    Ok(())
}

fn no_time_is_enough_for_one_replica(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = filled(&mut client, &[])?;
    for (timeout_ms, offset) in [(0, 3), (-1, 4)] {
        let asked = request(&[(&topic, &[(0, offset)])]).with_timeout_ms(timeout_ms);
        assert_eq!(delete(&mut client, 2, &asked)?, [(topic.clone(), 0, offset, 0)]);
    }
    Ok(())
}

/// A record without a key is refused, with its place in the batch, and nothing is appended; the
/// rule holds from the moment on at which the policy does.
fn a_compacted_topic_wants_keys(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "keys", 1, &[])?;
    let mut batch = RawBatch::of(3, now_ms());
    for record in &mut batch.records {
        record.key = Some(b"k".to_vec());
    }
    batch.records[1].key = None;
    let answer = requests::produce(&mut client, &topic, batch.encode())?;
    assert_eq!(answer.error_code, 0, "only compaction needs keys");
    ask::set(&mut client, TOPIC, &topic, "cleanup.policy", "compact")?;
    ask::until("the policy", || {
        let answer = requests::produce(&mut client, &topic, batch.encode())?;
        if answer.error_code == 0 {
            return Ok(false);
        }
        assert_eq!(answer.error_code, 87);
        let places: Vec<i32> = answer.record_errors.iter().map(|error| error.batch_index).collect();
        assert_eq!(places, [1]);
        Ok(true)
    })?;
    let end = requests::list_offsets(&mut client, 7, &topic, -1)?.offset;
    batch.records[1].key = Some(b"k".to_vec());
    let answer = requests::produce(&mut client, &topic, batch.encode())?;
    assert_eq!((answer.error_code, answer.base_offset), (0, end), "nothing was appended");
    Ok(())
}
