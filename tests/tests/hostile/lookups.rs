//! `ListOffsets`, Metadata and the other questions: their special values and their wrong ones.

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, DescribeClusterRequest, FindCoordinatorRequest, MetadataRequest,
};
use kafka_protocol::protocol::StrBytes;
use vltava_tests::harness::{Broker, RawBatch, RawClient, Tested, now_ms, requests};

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("list_offsets_specials", list_offsets_specials),
    ("list_offsets_specials_of_an_empty_partition", list_offsets_specials_of_an_empty_partition),
    ("list_offsets_by_timestamp", list_offsets_by_timestamp),
    ("list_offsets_special_too_new_is_35", list_offsets_special_too_new_is_35),
    ("list_offsets_twice_the_same_is_42", list_offsets_twice_the_same_is_42),
    ("list_offsets_unknown_is_3", list_offsets_unknown_is_3),
    ("metadata_null_and_empty", metadata_null_and_empty),
    ("metadata_of_unknown_topics", metadata_of_unknown_topics),
    ("metadata_by_topic_id", metadata_by_topic_id),
    ("metadata_of_every_version", metadata_of_every_version),
    ("find_coordinator_is_answered", find_coordinator_is_answered),
    ("describe_cluster_names_the_broker", describe_cluster_names_the_broker),
    ("advertised_versions_are_sane", advertised_versions_are_sane),
];

/// A topic of one partition with batches stamped `timestamps`, two records each.
fn stamped(broker: &Broker, prefix: &str, timestamps: &[i64]) -> Tested<(RawClient, String)> {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, prefix, 1, &[])?;
    for &timestamp in timestamps {
        let mut batch = RawBatch::of(2, timestamp);
        batch.records[1].timestamp_delta = 10;
        let answer = requests::produce(&mut client, &topic, batch.encode())?;
        assert_eq!(answer.error_code, 0);
    }
    Ok((client, topic))
}

fn list_offsets_specials(broker: &Broker) -> Tested {
    let start = now_ms() - 60_000;
    let (mut client, topic) = stamped(broker, "specials", &[start, start + 1_000, start + 500])?;
    for (version, special, offset, timestamp) in [
        (1, -1, 6, -1),
        (10, -1, 6, -1),
        (1, -2, 0, -1),
        (10, -2, 0, -1),
        (7, -3, 3, start + 1_010),
        (8, -4, 0, -1),
        (9, -5, -1, -1),
    ] {
        let answer = requests::list_offsets(&mut client, version, &topic, special)?;
        let got = (answer.error_code, answer.offset, answer.timestamp);
        assert_eq!(got, (0, offset, timestamp), "special {special} in version {version}");
    }
    Ok(())
}

fn list_offsets_specials_of_an_empty_partition(broker: &Broker) -> Tested {
    let (mut client, topic) = stamped(broker, "empty", &[])?;
    for (special, offset) in [(-1, 0), (-2, 0), (-3, -1), (-4, 0), (-5, -1), (1_000, -1)] {
        let answer = requests::list_offsets(&mut client, 10, &topic, special)?;
        assert_eq!((answer.error_code, answer.offset), (0, offset), "timestamp {special}");
    }
    Ok(())
}

fn list_offsets_by_timestamp(broker: &Broker) -> Tested {
    let start = now_ms() - 60_000;
    let (mut client, topic) = stamped(broker, "by-time", &[start, start + 1_000])?;
    for (asked, offset, timestamp) in [
        (0, 0, start),
        (start, 0, start),
        (start + 1, 1, start + 10),
        (start + 10, 1, start + 10),
        (start + 11, 2, start + 1_000),
        (start + 1_010, 3, start + 1_010),
        (start + 1_011, -1, -1),
        (i64::MAX, -1, -1),
    ] {
        let answer = requests::list_offsets(&mut client, 7, &topic, asked)?;
        let got = (answer.error_code, answer.offset, answer.timestamp);
        assert_eq!(got, (0, offset, timestamp), "start + {}", asked - start);
    }
    Ok(())
}

fn list_offsets_special_too_new_is_35(broker: &Broker) -> Tested {
    let (mut client, topic) = stamped(broker, "too-new", &[now_ms()])?;
    for (version, special) in [(6, -3), (7, -4), (8, -5), (10, -7), (10, i64::MIN)] {
        let answer = requests::list_offsets(&mut client, version, &topic, special)?;
        assert_eq!(answer.error_code, 35, "special {special} in version {version}");
        assert_eq!(answer.offset, -1);
    }
    Ok(())
}

fn list_offsets_twice_the_same_is_42(broker: &Broker) -> Tested {
    let (mut client, topic) = stamped(broker, "twice", &[now_ms()])?;
    let mut request = requests::list_offsets_request(&topic, 0..1, -1);
    let again = request.topics[0].partitions[0].clone();
    request.topics[0].partitions.push(again);
    let response = client.call(7, &request)?;
    assert!(!response.topics[0].partitions.is_empty());
    for answer in &response.topics[0].partitions {
        assert_eq!((answer.partition_index, answer.error_code), (0, 42));
    }
    Ok(())
}

fn list_offsets_unknown_is_3(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    for version in [1, 5, 10] {
        let topic = requests::unique("nobody");
        let answer = requests::list_offsets(&mut client, version, &topic, -1)?;
        assert_eq!((answer.error_code, answer.offset), (3, -1));
    }
    Ok(())
}

fn metadata_null_and_empty(broker: &Broker) -> Tested {
    let (mut client, topic) = stamped(broker, "listed", &[])?;
    let listed =
        |version: i16, topics: Option<Vec<MetadataRequestTopic>>, client: &mut RawClient| {
            let request = MetadataRequest::default()
                .with_topics(topics)
                .with_allow_auto_topic_creation(version < 4);
            let response = client.call(version, &request)?;
            assert!(!response.brokers.is_empty(), "brokers are always named");
            let ours = requests::topic_name(&topic);
            Tested::Ok(response.topics.iter().any(|found| found.name.as_ref() == Some(&ours)))
        };
    assert!(listed(0, Some(vec![]), &mut client)?, "version 0: empty means all");
    for version in [1, 4, 9, 12, 13] {
        assert!(!listed(version, Some(vec![]), &mut client)?, "empty means none");
        assert!(listed(version, None, &mut client)?, "null means all");
    }
    Ok(())
}

fn metadata_of_unknown_topics(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let nobody = requests::unique("nobody");
    let long = "x".repeat(250);
    for (name, code) in
        [(nobody.as_str(), 3), ("bad name", 17), ("", 17), ("..", 17), (long.as_str(), 17)]
    {
        let response = client.call(9, &requests::metadata_request(&[name]))?;
        let topic = response.topics.first().ok_or("no topic in the metadata")?;
        assert_eq!(topic.error_code, code, "{name:?}");
        assert!(topic.partitions.is_empty());
    }
    Ok(())
}

fn metadata_by_topic_id(broker: &Broker) -> Tested {
    let (mut client, topic) = stamped(broker, "by-id", &[])?;
    let id = requests::topic_id(&mut client, &topic)?;
    assert!(!id.is_nil());
    for (asked, code) in [(id, 0), (uuid::Uuid::new_v4(), 100)] {
        let by_id = MetadataRequestTopic::default().with_topic_id(asked).with_name(None);
        let request = MetadataRequest::default()
            .with_topics(Some(vec![by_id]))
            .with_allow_auto_topic_creation(false);
        let response = client.call(12, &request)?;
        assert_eq!((response.topics[0].error_code, response.topics[0].topic_id), (code, asked));
        let name = response.topics[0].name.clone();
        assert_eq!(name.is_some_and(|name| name.as_str() == topic), code == 0);
    }
    Ok(())
}

fn metadata_of_every_version(broker: &Broker) -> Tested {
    let (mut client, topic) = stamped(broker, "metadata", &[])?;
    for version in 0..=13 {
        let request = requests::metadata_request(&[topic.as_str()])
            .with_allow_auto_topic_creation(version < 4);
        let response = client.call(version, &request)?;
        let found = &response.topics[0];
        assert_eq!((found.error_code, found.partitions.len()), (0, 1), "version {version}");
        let leader = found.partitions[0].leader_id;
        let broker = response.brokers.iter().find(|broker| broker.node_id == leader);
        assert!(broker.ok_or("the leader is among the brokers")?.port > 0);
    }
    Ok(())
}

/// Without groups the coordinator is "not available", which clients retry; Apache Kafka finds one.
fn find_coordinator_is_answered(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    for version in 0..=3 {
        let request =
            FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("some-group"));
        let response = client.call(version, &request)?;
        assert!([0, 15].contains(&response.error_code), "{}", response.error_code);
    }
    let request = FindCoordinatorRequest::default()
        .with_coordinator_keys(vec![StrBytes::from_static_str("some-group")]);
    let response = client.call(4, &request)?;
    assert_eq!(response.coordinators.len(), 1);
    assert!([0, 15].contains(&response.coordinators[0].error_code));
    Ok(())
}

fn describe_cluster_names_the_broker(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    for version in 0..=2 {
        let request = DescribeClusterRequest::default().with_endpoint_type(1);
        let response = client.call(version, &request)?;
        assert_eq!(response.error_code, 0, "version {version}");
        assert!(!response.cluster_id.is_empty());
        let address = format!("{}:{}", response.brokers[0].host.as_str(), response.brokers[0].port);
        assert_eq!(address, broker.bootstrap());
    }
    Ok(())
}

/// No API twice, no empty range, no API of Kafka's controllers.
fn advertised_versions_are_sane(broker: &Broker) -> Tested {
    const CONTROLLER_APIS: [i16; 12] = [52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82];
    let mut client = RawClient::connect(broker.bootstrap())?;
    let response = client.call(0, &ApiVersionsRequest::default())?;
    let mut keys: Vec<i16> = response.api_keys.iter().map(|api| api.api_key).collect();
    for api in &response.api_keys {
        assert!(0 <= api.min_version && api.min_version <= api.max_version, "{api:?}");
        assert!(!CONTROLLER_APIS.contains(&api.api_key), "{api:?}");
    }
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
    for needed in [0, 1, 2, 3, 10, 18, 19, 20, 22, 23, 32, 60] {
        assert!(keys.contains(&needed), "API {needed} is not advertised");
    }
    Ok(())
}
