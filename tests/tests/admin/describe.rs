//! `DescribeTopicPartitions`, `DescribeLogDirs`, `DescribeProducers`, `DescribeQuorum`, and the
//! operations that Metadata and `DescribeCluster` allow.

use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_producers_request as producers;
use kafka_protocol::messages::describe_quorum_request as quorum;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeLogDirsRequest, DescribeProducersRequest,
    DescribeQuorumRequest, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
};
use uuid::Uuid;
use vltava_tests::harness::{Broker, RawBatch, RawClient, Tested, now_ms, requests};

use crate::Row;
use crate::ask::{told, until};

pub(crate) const ROWS: &[Row] = &[
    ("pages_of_partitions", pages_of_partitions),
    ("partitions_in_full", partitions_in_full),
    ("cursors_that_fit_nothing", cursors_that_fit_nothing),
    ("log_dirs", log_dirs),
    ("producers_of_partitions", producers_of_partitions),
    ("the_quorum", the_quorum),
    ("quorums_of_nothing_else", quorums_of_nothing_else),
    ("operations_without_an_authorizer", operations_without_an_authorizer),
];

/// All operations on a topic, as bits.
const TOPIC_OPERATIONS: i32 = 3576;
/// All operations on the cluster.
const CLUSTER_OPERATIONS: i32 = 8096;
/// Not asked for, or not to be told.
const NO_OPERATIONS: i32 = i32::MIN;

fn page(names: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> DescribeTopicPartitionsRequest {
    let topic = |name: &&str| TopicRequest::default().with_name(requests::topic_name(name));
    let cursor = cursor.map(|(name, partition)| {
        Cursor::default()
            .with_topic_name(requests::topic_name(name))
            .with_partition_index(partition)
    });
    DescribeTopicPartitionsRequest::default()
        .with_topics(names.iter().map(topic).collect())
        .with_response_partition_limit(limit)
        .with_cursor(cursor)
}

type Page = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

/// Names, errors and partition indexes of the topics, and the next cursor.
fn told_page(response: &DescribeTopicPartitionsResponse) -> Page {
    let topics = response.topics.iter().map(|topic| {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        let partitions = topic.partitions.iter().map(|partition| partition.partition_index);
        (name, topic.error_code, partitions.collect())
    });
    let cursor = response.next_cursor.as_ref();
    let cursor = cursor.map(|cursor| (cursor.topic_name.to_string(), cursor.partition_index));
    (topics.collect(), cursor)
}

fn pages_of_partitions(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let a = requests::create_topic(&mut client, "page-a", 3, &[])?;
    let b = requests::create_topic(&mut client, "page-b", 2, &[])?;
    let absent = requests::unique("page-c");
    let of = |name: &str, indexes: &[i32]| (name.to_owned(), 0, indexes.to_vec());
    let at = |name: &str, partition| Some((name.to_owned(), partition));
    let unknown = (absent.clone(), 3, vec![]);
    let both = vec![of(&a, &[0, 1, 2]), of(&b, &[0, 1])];
    let cases: Vec<(DescribeTopicPartitionsRequest, Page)> = vec![
        (page(&[&b, &a], 2000, None), (both.clone(), None)),
        (page(&[&b, &a, &b], 5, None), (both, None)),
        (page(&[&a, &b], 4, None), (vec![of(&a, &[0, 1, 2]), of(&b, &[0])], at(&b, 1))),
        (page(&[&a, &b], 3, None), (vec![of(&a, &[0, 1, 2])], at(&b, 0))),
        (page(&[&a, &b], 1, None), (vec![of(&a, &[0])], at(&a, 1))),
        (page(&[&a, &b], 0, None), (vec![of(&a, &[0])], at(&a, 1))),
        (page(&[&a, &b], -1, None), (vec![of(&a, &[0])], at(&a, 1))),
        (page(&[&a, &b], 9, Some((&a, 2))), (vec![of(&a, &[2]), of(&b, &[0, 1])], None)),
        (page(&[&a, &b], 9, Some((&b, 1))), (vec![of(&b, &[1])], None)),
        (page(&[&a], 9, Some((&a, 7))), (vec![of(&a, &[])], None)),
        (page(&[&absent, &a], 9, None), (vec![of(&a, &[0, 1, 2]), unknown.clone()], None)),
        (page(&[&absent], 9, Some((&absent, 0))), (vec![unknown], None)),
        (page(&["a b"], 9, None), (vec![("a b".to_owned(), 17, vec![])], None)),
        (page(&[], 9, Some(("zzzz", 0))), (vec![], None)),
    ];
    for (request, expected) in cases {
        let response = client.call(0, &request)?;
        assert_eq!(told_page(&response), expected, "{request:?}");
    }
    // All topics, page by page, are all partitions once.
    let mut seen = Vec::new();
    let mut request = page(&[], 2, None);
    loop {
        let response = client.call(0, &request)?;
        let (topics, cursor) = told_page(&response);
        let partitions = topics.iter().map(|(_, _, indexes)| indexes.len()).sum::<usize>();
        assert!(partitions <= 2, "a page of {partitions}");
        for (name, _, indexes) in topics {
            seen.extend(indexes.into_iter().map(|index| (name.clone(), index)));
        }
        let Some((name, index)) = cursor else { break };
        request = page(&[], 2, Some((&name, index)));
    }
    assert!(seen.is_sorted_by(|one, other| one < other));
    let ours = seen.iter().filter(|(name, _)| *name == a || *name == b);
    assert_eq!(ours.count(), 5);
    Ok(())
}

fn partitions_in_full(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "full", 2, &[])?;
    let id = requests::topic_id(&mut client, &topic)?;
    let response = client.call(0, &page(&[&topic, "nobody"], 2000, None))?;
    let [found, nobody] = response.topics.as_slice() else { return Err("two topics".into()) };
    // Sorted by name: `full-...` before `nobody`.
    assert_eq!((found.topic_id, found.is_internal), (id, false));
    assert_eq!(found.topic_authorized_operations, TOPIC_OPERATIONS);
    for partition in &found.partitions {
        assert_eq!((partition.error_code, partition.leader_id.0), (0, 1));
        assert_eq!(partition.replica_nodes, [1]);
        assert_eq!(partition.isr_nodes, [1]);
        assert_eq!(partition.eligible_leader_replicas.as_deref(), Some(&[][..]));
        assert_eq!(partition.last_known_elr.as_deref(), Some(&[][..]));
        assert!(partition.offline_replicas.is_empty());
    }
    assert_eq!(
        (nobody.topic_id, nobody.topic_authorized_operations),
        (Uuid::nil(), TOPIC_OPERATIONS)
    );
    Ok(())
}

fn cursors_that_fit_nothing(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "cursor", 1, &[])?;
    for cursor in [(&*topic, -1), ("zzzz", 0), ("aaaa", 0)] {
        let response = client.call(0, &page(&[&topic], 9, Some(cursor)))?;
        assert_eq!(told_page(&response), (vec![(topic.clone(), 42, vec![])], None), "{cursor:?}");
        assert_eq!(response.topics[0].topic_authorized_operations, NO_OPERATIONS);
    }
    Ok(())
}

fn log_dirs(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "dirs", 2, &[])?;
    let asked = |topics: Option<&[(&str, &[i32])]>| {
        let topic = |&(name, partitions): &(&str, &[i32])| {
            DescribableLogDirTopic::default()
                .with_topic(requests::topic_name(name))
                .with_partitions(partitions.to_vec())
        };
        DescribeLogDirsRequest::default()
            .with_topics(topics.map(|topics| topics.iter().map(topic).collect()))
    };
    let some = asked(Some(&[(&topic, &[0, 1, 7]), ("nobody", &[0])]));
    let size = |client: &mut RawClient, version: i16| -> Tested<i64> {
        let response = client.call(version, &some)?;
        assert_eq!((response.error_code, response.results.len()), (0, 1));
        let dir = &response.results[0];
        assert_eq!(dir.error_code, 0);
        assert!(dir.log_dir.starts_with('/'), "{}", &*dir.log_dir);
        let has_room = dir.total_bytes > 0 && (0..=dir.total_bytes).contains(&dir.usable_bytes);
        assert_eq!(has_room, version >= 4, "{} of {}", dir.usable_bytes, dir.total_bytes);
        let [told] = dir.topics.as_slice() else { return Err("one topic".into()) };
        assert_eq!(told.name.as_str(), topic);
        let mut indexes: Vec<i32> = told.partitions.iter().map(|p| p.partition_index).collect();
        indexes.sort_unstable();
        assert_eq!(indexes, [0, 1]);
        assert!(told.partitions.iter().all(|p| p.offset_lag == 0 && !p.is_future_key));
        let first = told.partitions.iter().find(|partition| partition.partition_index == 0);
        Ok(first.map_or(-1, |partition| partition.partition_size))
    };
    let before = size(&mut client, 4)?;
    let batch = RawBatch::of_size(50_000, now_ms()).encode();
    let bytes = i64::try_from(batch.len())?;
    requests::produce(&mut client, &topic, batch)?;
    for version in 1..=4 {
        assert_eq!(size(&mut client, version)?, before + bytes, "version {version}");
    }
    for nothing in [asked(Some(&[])), asked(Some(&[(&topic, &[])]))] {
        assert_eq!(client.call(4, &nothing)?.results[0].topics, []);
    }
    let all = client.call(4, &asked(None))?;
    let names: Vec<&str> = all.results[0].topics.iter().map(|topic| topic.name.as_str()).collect();
    assert!(names.contains(&&*topic) && !names.contains(&"__cluster_metadata"));
    Ok(())
}

fn producers_of_partitions(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "producers", 2, &[])?;
    let (id, epoch) = requests::init_producer(&mut client)?;
    let now = now_ms();
    let batch = |sequence| RawBatch::of(3, now).producer(id, epoch, sequence).encode();
    for sequence in [0, 3] {
        assert_eq!(requests::produce(&mut client, &topic, batch(sequence))?.error_code, 0);
    }
    let last = RawBatch::of(3, now).producer(id, epoch, 3);
    let last_timestamp =
        last.base_timestamp + last.records.iter().map(|r| r.timestamp_delta).max().unwrap_or(0);
    let asked = |name: &str, partitions: &[i32]| {
        producers::TopicRequest::default()
            .with_name(requests::topic_name(name))
            .with_partition_indexes(partitions.to_vec())
    };
    let request = DescribeProducersRequest::default().with_topics(vec![
        asked(&topic, &[0, 1, 9, -1]),
        asked("nobody", &[0]),
        asked("a b", &[0]),
        asked("", &[]),
    ]);
    let response = client.call(0, &request)?;
    let names: Vec<&str> = response.topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, [&*topic, "nobody", "a b", ""]);
    let [found, empty, absent, negative] = response.topics[0].partitions.as_slice() else {
        return Err("four partitions".into());
    };
    let [producer] = found.active_producers.as_slice() else { return Err("one producer".into()) };
    assert_eq!((producer.producer_id.0, producer.producer_epoch), (id, i32::from(epoch)));
    assert_eq!((producer.last_sequence, producer.last_timestamp), (5, last_timestamp));
    assert_eq!((producer.coordinator_epoch, producer.current_txn_start_offset), (-1, -1));
    assert_eq!((empty.error_code, empty.active_producers.len()), (0, 0));
    for unknown in [absent, negative] {
        assert_eq!((unknown.error_code, unknown.error_message.as_ref()), (3, None));
    }
    let of = |at: usize| {
        let partition = &response.topics[at].partitions[0];
        (partition.error_code, told(partition.error_message.as_ref()).unwrap_or_default())
    };
    assert_eq!(of(1), (3, "This server does not host this topic-partition.".to_owned()));
    assert_eq!(of(2).0, 17);
    assert!(of(2).1.starts_with("Topic name is invalid: 'a b'"), "{}", of(2).1);
    Ok(())
}

fn quorum_of(topics: &[(&str, &[i32])]) -> DescribeQuorumRequest {
    let partition = |&index: &i32| quorum::PartitionData::default().with_partition_index(index);
    let topic = |&(name, partitions): &(&str, &[i32])| {
        quorum::TopicData::default()
            .with_topic_name(requests::topic_name(name))
            .with_partitions(partitions.iter().map(partition).collect())
    };
    DescribeQuorumRequest::default().with_topics(topics.iter().map(topic).collect())
}

fn the_quorum(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let request = quorum_of(&[("__cluster_metadata", &[0])]);
    for version in 0..=2 {
        let response = client.call(version, &request)?;
        assert_eq!((response.error_code, response.topics.len()), (0, 1));
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.leader_id.0), (0, 1));
        assert!(partition.leader_epoch >= 1);
        let [voter] = partition.current_voters.as_slice() else { return Err("one voter".into()) };
        assert_eq!(voter.replica_id.0, 1);
        assert!(partition.high_watermark > 0);
        assert!(voter.log_end_offset >= partition.high_watermark);
        assert_eq!(partition.observers, []);
        if version >= 1 {
            assert!((now_ms() - voter.last_caught_up_timestamp).abs() < 60_000);
        }
        if version >= 2 {
            let [node] = response.nodes.as_slice() else { return Err("one node".into()) };
            assert_eq!((node.node_id.0, node.listeners.len()), (1, 1));
            assert!(node.listeners[0].port > 0);
        }
    }
    // The metadata's log grows with the metadata.
    let end = |client: &mut RawClient| -> Tested<i64> {
        Ok(client.call(2, &request)?.topics[0].partitions[0].high_watermark)
    };
    let before = end(&mut client)?;
    requests::create_topic(&mut client, "quorum", 1, &[])?;
    until("growth of the metadata's log", || Ok(end(&mut client)? > before))
}

fn quorums_of_nothing_else(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "quorum", 1, &[])?;
    let metadata = "__cluster_metadata";
    for topics in [
        &[(&*topic, &[0][..])][..],
        &[(metadata, &[1])],
        &[(metadata, &[0, 1])],
        &[(metadata, &[0]), (&*topic, &[0])],
    ] {
        for version in 0..=2 {
            let response = client.call(version, &quorum_of(topics))?;
            assert_eq!((response.error_code, response.nodes.len()), (0, 0));
            assert_eq!(response.topics.len(), topics.len());
            for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
                assert_eq!((partition.error_code, partition.high_watermark), (3, 0));
                if version >= 2 {
                    let text = told(partition.error_message.as_ref()).unwrap_or_default();
                    assert_eq!(text, "This server does not host this topic-partition.");
                }
            }
        }
    }
    let nothing = client.call(2, &quorum_of(&[]))?;
    assert_eq!((nothing.error_code, nothing.topics.len()), (0, 0));
    Ok(())
}

fn operations_without_an_authorizer(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "operations", 1, &[])?;
    let request = requests::metadata_request(&[&topic, "nobody"]);
    for version in 8..=13 {
        let plain = client.call(version, &request)?;
        let asked = request.clone().with_include_topic_authorized_operations(true);
        let full = client.call(version, &asked)?;
        for (response, expected) in [(&plain, NO_OPERATIONS), (&full, TOPIC_OPERATIONS)] {
            assert_eq!(response.topics.len(), 2);
            for topic in &response.topics {
                assert_eq!(topic.topic_authorized_operations, expected, "version {version}");
            }
        }
        if version <= 10 {
            let asked = request.clone().with_include_cluster_authorized_operations(true);
            let cluster = client.call(version, &asked)?.cluster_authorized_operations;
            assert_eq!(cluster, CLUSTER_OPERATIONS);
            assert_eq!(plain.cluster_authorized_operations, NO_OPERATIONS);
        }
    }
    let asked = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    assert_eq!(client.call(2, &asked)?.cluster_authorized_operations, CLUSTER_OPERATIONS);
    let controllers = DescribeClusterRequest::default().with_endpoint_type(2);
    let refused = client.call(2, &controllers)?;
    let text = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of \
                type CONTROLLER";
    assert_eq!((refused.error_code, refused.error_message.as_deref()), (114, Some(text)));
    Ok(())
}
