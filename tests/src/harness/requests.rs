//! The few requests that most tests need, over a [`RawClient`].

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, CreateTopicsRequest, FetchRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use libtest_mimic::Failed;
use uuid::Uuid;

use super::{RawClient, Tested};

/// A Produce version of today that names topics, before implicit transactions (12).
pub const PRODUCE_VERSION: i16 = 11;
/// The newest Fetch version that names topics instead of giving ids.
pub const FETCH_VERSION: i16 = 12;
/// The newest `ListOffsets` version that every client under test may send.
pub const LIST_OFFSETS_VERSION: i16 = 10;
/// How long a broker may take over a request, as the request says it, in milliseconds.
pub const TIMEOUT_MS: i32 = 30_000;

/// What a broker answers while it fetches its first block of producer ids.
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;

/// Which APIs the broker advertises, each with its first and last version.
pub fn advertised(client: &mut RawClient) -> Tested<BTreeMap<i16, (i16, i16)>> {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("vltava-tests"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    let response = client.call(3, &request)?;
    if response.error_code != 0 {
        return Err(Failed::from(format!("ApiVersions: error {}", response.error_code)));
    }
    let range = |api: &ApiVersion| (api.api_key, (api.min_version, api.max_version));
    Ok(response.api_keys.iter().map(range).collect())
}

/// A topic name that no other test uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", Uuid::new_v4().simple())
}

/// A topic name as the wire types want it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// `CreateTopics` for one topic with one replica.
pub fn create_topic_request(
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> CreateTopicsRequest {
    let config = |(key, value): &(&str, &str)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string((*key).to_owned()))
            .with_value(Some(StrBytes::from_string((*value).to_owned())))
    };
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.iter().map(config).collect());
    CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS)
}

/// Creates a topic of a fresh name and waits until its partitions have leaders.
pub fn create_topic(
    client: &mut RawClient,
    prefix: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> Tested<String> {
    let name = unique(prefix);
    let response = client.call(7, &create_topic_request(&name, partitions, configs))?;
    let result = response.topics.first().ok_or("no topic in the response")?;
    if result.error_code != 0 {
        let (code, message) = (result.error_code, &result.error_message);
        return Err(Failed::from(format!("creating {name}: error {code} {message:?}")));
    }
    await_leaders(client, &name, partitions)?;
    Ok(name)
}

/// Asks until every partition has a leader that answers for its end.
pub fn await_leaders(client: &mut RawClient, name: &str, partitions: i32) -> Tested {
    let end = std::time::Instant::now() + super::raw::RESPONSE_DEADLINE;
    let request = list_offsets_request(name, 0..partitions, -1);
    while std::time::Instant::now() < end {
        let response = client.call(LIST_OFFSETS_VERSION, &request)?;
        let topic = response.topics.first().ok_or("no topic in the response")?;
        if topic.partitions.iter().all(|partition| partition.error_code == 0) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Err(Failed::from(format!("{name} has no leaders")))
}

/// Metadata of the named topics, which it must not create.
pub fn metadata_request(names: &[&str]) -> MetadataRequest {
    let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    MetadataRequest::default()
        .with_topics(Some(names.iter().map(topic).collect()))
        .with_allow_auto_topic_creation(false)
}

/// The id that the broker gave a topic.
pub fn topic_id(client: &mut RawClient, name: &str) -> Tested<Uuid> {
    let response = client.call(12, &metadata_request(&[name]))?;
    Ok(response.topics.first().ok_or("no topic in the metadata")?.topic_id)
}

/// Produce of `records` to one partition.
pub fn produce_request(topic: &str, partition: i32, acks: i16, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic =
        TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(TIMEOUT_MS)
        .with_topic_data(vec![topic])
}

/// Produces to partition 0 with acks=all and gives the partition's answer, whatever it says.
pub fn produce(
    client: &mut RawClient,
    topic: &str,
    records: Bytes,
) -> Tested<PartitionProduceResponse> {
    produce_at(client, PRODUCE_VERSION, topic, -1, records)
}

/// As [`produce`], in a version and with acks of the caller's.
pub fn produce_at(
    client: &mut RawClient,
    version: i16,
    topic: &str,
    acks: i16,
    records: Bytes,
) -> Tested<PartitionProduceResponse> {
    let response = client.call(version, &produce_request(topic, 0, acks, records))?;
    let topic = response.responses.into_iter().next().ok_or("no topic in the response")?;
    Ok(topic.partition_responses.into_iter().next().ok_or("no partition in the response")?)
}

/// Fetch of one partition of one topic from `offset`, answered at once.
pub fn fetch_request(topic: &str, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(offset)
        .with_last_fetched_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(1 << 20);
    let topic =
        FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(64 << 20)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Fetches partition 0 from `offset` and gives the partition's answer, whatever it says.
pub fn fetch(client: &mut RawClient, topic: &str, offset: i64) -> Tested<PartitionData> {
    fetch_with(client, &fetch_request(topic, offset))
}

/// Sends a Fetch of one partition and gives the partition's answer.
pub fn fetch_with(client: &mut RawClient, request: &FetchRequest) -> Tested<PartitionData> {
    let response = client.call(FETCH_VERSION, request)?;
    if response.error_code != 0 {
        return Err(Failed::from(format!("fetch: error {}", response.error_code)));
    }
    let topic = response.responses.into_iter().next().ok_or("no topic in the response")?;
    Ok(topic.partitions.into_iter().next().ok_or("no partition in the response")?)
}

/// `ListOffsets` of some partitions for a timestamp or one of the special values.
pub fn list_offsets_request(
    topic: &str,
    partitions: std::ops::Range<i32>,
    timestamp: i64,
) -> ListOffsetsRequest {
    let partition = |index: i32| {
        ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp)
    };
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(partitions.map(partition).collect());
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic])
        .with_timeout_ms(TIMEOUT_MS)
}

/// `ListOffsets` of partition 0 for a timestamp or one of the special values.
pub fn list_offsets(
    client: &mut RawClient,
    version: i16,
    topic: &str,
    timestamp: i64,
) -> Tested<ListOffsetsPartitionResponse> {
    let response = client.call(version, &list_offsets_request(topic, 0..1, timestamp))?;
    let topic = response.topics.into_iter().next().ok_or("no topic in the response")?;
    Ok(topic.partitions.into_iter().next().ok_or("no partition in the response")?)
}

/// A fresh producer id and epoch for idempotent batches.
pub fn init_producer(client: &mut RawClient) -> Tested<(i64, i16)> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(0)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let end = std::time::Instant::now() + super::raw::RESPONSE_DEADLINE;
    loop {
        let response = client.call(4, &request)?;
        match response.error_code {
            0 => return Ok((response.producer_id.0, response.producer_epoch)),
            COORDINATOR_LOAD_IN_PROGRESS if std::time::Instant::now() < end => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            code => return Err(Failed::from(format!("no producer id: error {code}"))),
        }
    }
}
