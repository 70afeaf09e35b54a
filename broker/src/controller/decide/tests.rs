//! Tables of requests and the errors of Kafka's that they must meet.

use std::collections::BTreeSet;

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::Offset;

use super::*;
use crate::config::broker::Flags;
use crate::config::settings::Settings;

fn config(sets: &[&str]) -> BrokerConfig {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    let settings = Settings::collect(None, [], &sets).unwrap().settings;
    let flags = Flags {
        node_id: NodeId(1),
        data_dir: "data".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        admin: None,
    };
    BrokerConfig::new(flags, settings).unwrap()
}

fn image(brokers: i32) -> MetadataImage {
    let mut image = MetadataImage::default();
    for node in 1..=brokers {
        let host = format!("node{node}");
        let record = MetadataRecord::Broker { node, host, port: 9092, rack: None };
        image.apply(image.applied, record).unwrap();
    }
    image
}

fn ids() -> impl Iterator<Item = TopicId> {
    (1..).map(|n| TopicId(uuid::Uuid::from_u128(n)))
}

fn create(
    image: &mut MetadataImage,
    topics: &[NewTopic],
    sets: &[&str],
) -> Vec<Result<CreatedTopic, ErrorCode>> {
    let config = config(sets);
    let mut ids = ids().skip(image.topic_count());
    create_topics(image, topics, &config, &mut || ids.next().unwrap())
        .into_iter()
        .map(|decision| match decision {
            Ok((record, created)) => {
                image.apply(image.applied, record.unwrap()).unwrap();
                Ok(created)
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                Err(error.code())
            }
        })
        .collect()
}

fn counts(name: &str, partitions: i32, replication_factor: i32) -> NewTopic {
    NewTopic { name: name.into(), partitions, replication_factor, ..NewTopic::default() }
}

fn manual(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    let nodes = |nodes: &[i32]| nodes.iter().map(|&node| NodeId(node)).collect();
    let assignments = assignments
        .iter()
        .map(|&(partition, brokers)| (PartitionIndex(partition), nodes(brokers)))
        .collect();
    NewTopic { assignments, ..counts(name, -1, -1) }
}

fn with_config(key: &str, value: &str) -> NewTopic {
    let configs = vec![(key.to_owned(), Some(value.to_owned()))];
    NewTopic { configs, ..counts("t", 1, 1) }
}

#[test]
fn creation_is_refused_with_kafka_s_errors() {
    use ErrorCode::{
        InvalidConfig, InvalidPartitions, InvalidReplicaAssignment, InvalidReplicationFactor,
        InvalidRequest, InvalidTopicException, PolicyViolation, TopicAlreadyExists,
    };
    let long = "x".repeat(250);
    for (topic, expected) in [
        (counts("there.is", 1, 1), TopicAlreadyExists),
        (counts("there_is", 1, 1), InvalidTopicException),
        (counts("", 1, 1), InvalidTopicException),
        (counts(".", 1, 1), InvalidTopicException),
        (counts("..", 1, 1), InvalidTopicException),
        (counts("a b", 1, 1), InvalidTopicException),
        (counts("a/b", 1, 1), InvalidTopicException),
        (counts(&long, 1, 1), InvalidTopicException),
        (counts("__cluster_metadata", 1, 1), InvalidRequest),
        (counts("t", 0, 1), InvalidPartitions),
        (counts("t", -2, 1), InvalidPartitions),
        (counts("t", 10_001, 1), PolicyViolation),
        (counts("t", i32::MAX, 1), PolicyViolation),
        (counts("t", 1, 0), InvalidReplicationFactor),
        (counts("t", 1, -2), InvalidReplicationFactor),
        (counts("t", 1, 4), InvalidReplicationFactor),
        (counts("t", 0, 0), InvalidReplicationFactor),
        (manual("t", &[(0, &[])]), InvalidReplicaAssignment),
        (manual("t", &[(0, &[1, 1])]), InvalidReplicaAssignment),
        (manual("t", &[(0, &[9])]), InvalidReplicaAssignment),
        (manual("t", &[(0, &[1]), (0, &[2])]), InvalidReplicaAssignment),
        (manual("t", &[(0, &[1]), (2, &[2])]), InvalidReplicaAssignment),
        (manual("t", &[(1, &[1])]), InvalidReplicaAssignment),
        (manual("t", &[(-1, &[1])]), InvalidReplicaAssignment),
        (manual("t", &[(0, &[1, 2]), (1, &[1])]), InvalidReplicaAssignment),
        (NewTopic { partitions: 1, ..manual("t", &[(0, &[1])]) }, InvalidRequest),
        (NewTopic { replication_factor: 1, ..manual("t", &[(0, &[1])]) }, InvalidRequest),
        (with_config("no.such.key", "1"), InvalidConfig),
        (with_config("segment.bytes", "1"), InvalidConfig),
        (with_config("cleanup.policy", "shred"), InvalidConfig),
    ] {
        let mut image = image(3);
        create(&mut image, &[counts("there.is", 1, 1)], &[])[0].as_ref().unwrap();
        let got = create(&mut image, std::slice::from_ref(&topic), &[]);
        assert_eq!(got, [Err(expected)], "{topic:?}");
        assert_eq!(image.topic_count(), 1);
    }
}

#[test]
fn topics_of_one_request_are_decided_each_for_itself() {
    let mut image = image(1);
    let request = [
        counts("a", 2, 1),
        counts("twice", 1, 1),
        counts("b", 0, 1),
        counts("twice", 1, 1),
        counts("x.y", 1, 1),
        counts("x_y", 1, 1),
    ];
    let got: Vec<_> = create(&mut image, &request, &[])
        .into_iter()
        .map(|result| result.map(|created| created.partitions))
        .collect();
    let duplicate = Err(ErrorCode::InvalidRequest);
    assert_eq!(
        got,
        [
            Ok(2),
            duplicate,
            Err(ErrorCode::InvalidPartitions),
            duplicate,
            Ok(1),
            Err(ErrorCode::InvalidTopicException),
        ]
    );
}

#[test]
fn many_topics_of_one_request_share_the_limit() {
    let request = [counts("a", 6000, 1), counts("b", 6000, 1)];
    let refused = Err(ErrorCode::PolicyViolation);
    assert_eq!(create(&mut image(1), &request, &[]), [refused.clone(), refused]);
    assert!(create(&mut image(1), &request[..1], &[])[0].is_ok());
}

#[test]
fn defaults_and_replica_ids_are_filled_in() {
    let mut image = image(3);
    let sets = ["num.partitions=4", "default.replication.factor=2"];
    let created = create(&mut image, &[counts("a", -1, -1)], &sets);
    let created = created[0].as_ref().unwrap();
    assert_eq!((created.partitions, created.replication_factor), (4, 2));
    create(&mut image, &[manual("b", &[(1, &[2, 1]), (0, &[3, 1])])], &[]);
    let mut seen = BTreeSet::new();
    for topic in image.topics() {
        for (replica, _) in topic.partitions.iter().flat_map(|partition| &partition.replicas) {
            assert!(replica.0 >= super::super::state::FIRST_REPLICA_ID && seen.insert(*replica));
        }
    }
    assert_eq!(seen.len(), 12);
    assert_eq!(image.next_replica_id, 1012);
    let b = image.topic("b").unwrap();
    assert_eq!(b.partition(PartitionIndex(0)).unwrap().replicas[0].1, NodeId(3));
    assert_eq!(b.partition(PartitionIndex(2)), None);
    assert_eq!(b.partition(PartitionIndex(-1)), None);
}

fn grow(image: &mut MetadataImage, topics: &[MorePartitions]) -> Vec<Result<usize, ErrorCode>> {
    create_partitions(image, topics)
        .into_iter()
        .map(|decision| match decision {
            Ok((record, id)) => {
                image.apply(image.applied, record.unwrap()).unwrap();
                Ok(image.topic_by_id(id).unwrap().partitions.len())
            }
            Err(error) => Err(error.code()),
        })
        .collect()
}

fn more(topic: &str, count: i32, assignments: Option<&[&[i32]]>) -> MorePartitions {
    let nodes = |nodes: &&[i32]| nodes.iter().map(|&node| NodeId(node)).collect();
    let assignments = assignments.map(|all| all.iter().map(nodes).collect());
    MorePartitions { topic: topic.into(), count, assignments }
}

#[test]
fn growth_is_refused_with_kafka_s_errors() {
    use ErrorCode::{
        InvalidPartitions, InvalidReplicaAssignment, UnknownServerError, UnknownTopicOrPartition,
    };
    for (wanted, expected) in [
        (more("nobody", 3, None), UnknownTopicOrPartition),
        (more("a b", 3, None), UnknownTopicOrPartition),
        (more("t", 2, None), InvalidPartitions),
        (more("t", 1, None), InvalidPartitions),
        (more("t", 0, None), InvalidPartitions),
        (more("t", i32::MIN, None), InvalidPartitions),
        (more("t", 10_003, None), UnknownServerError),
        (more("t", i32::MAX, None), UnknownServerError),
        (more("t", 4, Some(&[&[1, 2]])), InvalidReplicaAssignment),
        (more("t", 4, Some(&[])), InvalidReplicaAssignment),
        (more("t", 3, Some(&[&[]])), InvalidReplicaAssignment),
        (more("t", 3, Some(&[&[1]])), InvalidReplicaAssignment),
        (more("t", 3, Some(&[&[1, 9]])), InvalidReplicaAssignment),
        (more("t", 3, Some(&[&[2, 2]])), InvalidReplicaAssignment),
    ] {
        let mut image = image(3);
        create(&mut image, &[counts("t", 2, 2)], &[])[0].as_ref().unwrap();
        assert_eq!(grow(&mut image, std::slice::from_ref(&wanted)), [Err(expected)], "{wanted:?}");
    }
}

#[test]
fn a_grown_topic_keeps_its_replication_and_its_partitions() {
    let mut image = image(3);
    create(&mut image, &[counts("t", 2, 2), counts("u", 1, 1)], &[]);
    let before = image.topic("t").unwrap().clone();
    let wanted = [more("t", 6, None), more("u", 3, Some(&[&[3], &[2]]))];
    assert_eq!(grow(&mut image, &wanted), [Ok(6), Ok(3)]);
    let after = image.topic("t").unwrap();
    assert_eq!(after.partitions[..2], before.partitions);
    assert!(after.partitions.iter().all(|partition| partition.replicas.len() == 2));
    let u = &image.topic("u").unwrap().partitions;
    assert_eq!((u[1].replicas[0].1, u[2].replicas[0].1), (NodeId(3), NodeId(2)));
    let replicas = image.topics().flat_map(|topic| &topic.partitions).flat_map(|p| &p.replicas);
    let ids: BTreeSet<_> = replicas.map(|(replica, _)| *replica).collect();
    assert_eq!(ids.len(), 6 * 2 + 3, "no replica id is given twice");
}

#[test]
fn growths_of_one_request_share_the_limit_and_each_name_counts_once() {
    let mut image = image(1);
    create(&mut image, &[counts("t", 1, 1), counts("u", 1, 1), counts("v", 1, 1)], &[]);
    let wanted =
        [more("t", 9001, None), more("u", 9001, None), more("v", 2, None), more("v", 3, None)];
    let twice = Err(ErrorCode::InvalidRequest);
    let expected = [Ok(9001), Err(ErrorCode::UnknownServerError), twice, twice];
    assert_eq!(grow(&mut image, &wanted), expected);
}

#[test]
fn internal_topics_bring_their_own_settings() {
    let mut image = image(1);
    let config = config(&[]);
    let offsets = automatic(&image, OFFSETS_TOPIC, &config);
    let plain = automatic(&image, "plain", &config);
    let got = create(&mut image, &[offsets, plain], &[]);
    let shape: Vec<_> =
        got.iter().flatten().map(|topic| (topic.partitions, topic.replication_factor)).collect();
    assert_eq!(shape, [(50, 1), (1, 1)]);
    let config = &image.topic(OFFSETS_TOPIC).unwrap().config;
    assert_eq!(config["cleanup.policy"], "compact");
    assert_eq!(config["segment.bytes"], "104857600");
    assert!(image.topic("plain").unwrap().config.is_empty());
}

#[test]
fn deletion_finds_topics_by_name_and_id() {
    let mut image = image(1);
    let created = create(&mut image, &[counts("a", 1, 1), counts("b", 1, 1)], &[]);
    let b = created[1].as_ref().unwrap().id;
    let name = |name: &str| TopicRef::Name(name.into());
    let delete = |topics: &[TopicRef], sets: &[&str]| -> Vec<_> {
        delete_topics(&image, topics, &config(sets))
            .into_iter()
            .map(|decision| decision.map(|(_, (name, _))| name.to_string()).map_err(|e| e.code()))
            .collect()
    };
    assert_eq!(
        delete(&[name("a"), TopicRef::Id(b), name("c"), TopicRef::Id(TopicId::ZERO)], &[]),
        [
            Ok("a".into()),
            Ok("b".into()),
            Err(ErrorCode::UnknownTopicOrPartition),
            Err(ErrorCode::UnknownTopicId),
        ]
    );
    let twice = Err(ErrorCode::InvalidRequest);
    assert_eq!(delete(&[name("b"), TopicRef::Id(b)], &[]), [twice.clone(), twice.clone()]);
    assert_eq!(delete(&[name("c"), name("c")], &[]), [twice.clone(), twice.clone()]);
    assert_eq!(delete(&[TopicRef::Id(b), TopicRef::Id(b)], &[]), [twice.clone(), twice]);
    assert_eq!(
        delete(&[name("a")], &["delete.topic.enable=false"]),
        [Err(ErrorCode::TopicDeletionDisabled)]
    );
}

#[test]
fn producer_ids_come_in_blocks_until_they_run_out() {
    let mut image = MetadataImage::default();
    let (record, first) = allocate_producer_ids(&image).unwrap();
    image.apply(Offset(0), record.unwrap()).unwrap();
    let (record, second) = allocate_producer_ids(&image).unwrap();
    assert_eq!((first, second), (0..1000, 1000..2000));
    image.apply(Offset(1), record.unwrap()).unwrap();
    let last = MetadataRecord::ProducerIds { next: i64::MAX - 3 };
    image.apply(Offset(2), last).unwrap();
    assert_eq!(allocate_producer_ids(&image), Err(ControlError::NoProducerIds));
}

#[test]
fn a_node_registers_once_and_when_it_moves() {
    let mut image = MetadataImage::default();
    let info = |port| BrokerInfo { host: "h".into(), port, rack: Some("r".into()) };
    let records = register(&image, "cluster", NodeId(1), &info(1));
    assert_eq!(records.len(), 2);
    for record in records {
        image.apply(image.applied, record).unwrap();
    }
    assert_eq!(register(&image, "other", NodeId(1), &info(1)), []);
    assert_eq!(register(&image, "other", NodeId(1), &info(2)).len(), 1);
    assert_eq!(image.cluster_id, "cluster");
}
