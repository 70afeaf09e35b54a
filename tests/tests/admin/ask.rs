//! Requests of this file, in few words, and answers in fewer.

use kafka_protocol::messages::alter_configs_request as legacy;
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::{
    AlterConfigsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DescribeConfigsRequest, IncrementalAlterConfigsRequest,
};
use kafka_protocol::protocol::StrBytes;
use vltava_tests::harness::{RawClient, Tested, requests};

pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;
pub(crate) const LOGGERS: i8 = 8;
pub(crate) const CLIENT_METRICS: i8 = 16;
pub(crate) const GROUP: i8 = 32;

pub(crate) const SET: i8 = 0;
pub(crate) const DELETE: i8 = 1;
pub(crate) const APPEND: i8 = 2;
pub(crate) const SUBTRACT: i8 = 3;

/// A code, and what is said about it.
pub(crate) type Verdict = (i16, Option<String>);

/// No error.
pub(crate) fn fine() -> Verdict {
    (0, None)
}

/// An error with its text.
pub(crate) fn refused(code: i16, text: &str) -> Verdict {
    (code, Some(text.to_owned()))
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(crate) fn told(message: Option<&StrBytes>) -> Option<String> {
    message.map(ToString::to_string)
}

/// A topic by counts, with configs.
pub(crate) fn counts(
    name: &str,
    partitions: i32,
    replicas: i16,
    configs: &[(&str, Option<&str>)],
) -> CreatableTopic {
    let config = |(name, value): &(&str, Option<&str>)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(value.map(text))
    };
    CreatableTopic::default()
        .with_name(requests::topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
        .with_configs(configs.iter().map(config).collect())
}

/// A topic by assignments.
pub(crate) fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |&(partition, brokers): &(i32, &[i32])| {
        CreatableReplicaAssignment::default()
            .with_partition_index(partition)
            .with_broker_ids(brokers.iter().map(|&id| BrokerId(id)).collect())
    };
    counts(name, -1, -1, &[]).with_assignments(assignments.iter().map(assignment).collect())
}

pub(crate) fn create(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(requests::TIMEOUT_MS)
}

/// More partitions for one topic.
pub(crate) fn grow(
    name: &str,
    count: i32,
    assignments: Option<&[&[i32]]>,
) -> CreatePartitionsTopic {
    let assignment = |brokers: &&[i32]| {
        CreatePartitionsAssignment::default()
            .with_broker_ids(brokers.iter().map(|&id| BrokerId(id)).collect())
    };
    CreatePartitionsTopic::default()
        .with_name(requests::topic_name(name))
        .with_count(count)
        .with_assignments(assignments.map(|all| all.iter().map(assignment).collect()))
}

pub(crate) fn create_partitions(topics: Vec<CreatePartitionsTopic>) -> CreatePartitionsRequest {
    CreatePartitionsRequest::default().with_topics(topics).with_timeout_ms(requests::TIMEOUT_MS)
}

/// One resource of an `IncrementalAlterConfigs`.
pub(crate) fn resource(
    kind: i8,
    name: &str,
    operations: &[(&str, i8, Option<&str>)],
) -> incremental::AlterConfigsResource {
    let config = |&(name, operation, value): &(&str, i8, Option<&str>)| {
        incremental::AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(operation)
            .with_value(value.map(text))
    };
    incremental::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(operations.iter().map(config).collect())
}

/// Changes single keys of one resource.
pub(crate) fn alter(
    client: &mut RawClient,
    kind: i8,
    name: &str,
    operations: &[(&str, i8, Option<&str>)],
) -> Tested<Verdict> {
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(vec![resource(kind, name, operations)]);
    let response = client.call(1, &request)?;
    let answer = response.responses.first().ok_or("no resource in the response")?;
    assert_eq!((answer.resource_type, &*answer.resource_name), (kind, name));
    Ok((answer.error_code, told(answer.error_message.as_ref())))
}

/// Sets one key, which must succeed.
pub(crate) fn set(client: &mut RawClient, kind: i8, name: &str, key: &str, value: &str) -> Tested {
    assert_eq!(alter(client, kind, name, &[(key, SET, Some(value))])?, fine(), "{key}={value}");
    Ok(())
}

/// Deletes one key, which must succeed.
pub(crate) fn unset(client: &mut RawClient, kind: i8, name: &str, key: &str) -> Tested {
    assert_eq!(alter(client, kind, name, &[(key, DELETE, None)])?, fine(), "{key}");
    Ok(())
}

/// Replaces all keys of one resource.
pub(crate) fn replace(
    client: &mut RawClient,
    kind: i8,
    name: &str,
    configs: &[(&str, Option<&str>)],
) -> Tested<Verdict> {
    let config = |&(name, value): &(&str, Option<&str>)| {
        legacy::AlterableConfig::default().with_name(text(name)).with_value(value.map(text))
    };
    let resource = legacy::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.iter().map(config).collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let response = client.call(2, &request)?;
    let answer = response.responses.first().ok_or("no resource in the response")?;
    Ok((answer.error_code, told(answer.error_message.as_ref())))
}

/// Describes one resource, some keys or all, with synonyms and documentation.
pub(crate) fn describe_request(kind: i8, name: &str, keys: &[&str]) -> DescribeConfigsRequest {
    let keys = (!keys.is_empty()).then(|| keys.iter().map(|key| text(key)).collect());
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys);
    DescribeConfigsRequest::default().with_include_synonyms(true).with_resources(vec![resource])
}

pub(crate) fn describe(
    client: &mut RawClient,
    kind: i8,
    name: &str,
    keys: &[&str],
) -> Tested<DescribeConfigsResult> {
    let response = client.call(4, &describe_request(kind, name, keys))?;
    Ok(response.results.into_iter().next().ok_or("no resource in the response")?)
}

/// One key of one resource, which must have it.
pub(crate) fn key(
    client: &mut RawClient,
    kind: i8,
    name: &str,
    key: &str,
) -> Tested<DescribeConfigsResourceResult> {
    let result = describe(client, kind, name, &[key])?;
    assert_eq!(result.error_code, 0, "{name}: {:?}", result.error_message);
    Ok(result.configs.into_iter().next().ok_or(format!("{key} is not described"))?)
}

/// The value of one key, or nothing if the resource does not have the key.
pub(crate) fn value(
    client: &mut RawClient,
    kind: i8,
    name: &str,
    key: &str,
) -> Tested<Option<String>> {
    let result = describe(client, kind, name, &[key])?;
    let found = result.configs.first();
    Ok(found.and_then(|config| config.value.as_ref()).map(ToString::to_string))
}

/// The name of the broker as a resource: the id that Metadata tells.
pub(crate) fn broker_name(client: &mut RawClient) -> Tested<String> {
    let response = client.call(9, &requests::metadata_request(&[]))?;
    Ok(response.brokers.first().ok_or("no broker in the metadata")?.node_id.0.to_string())
}

/// Asks until `done` says so: Kafka applies what is set for brokers and topics after it answers.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> Tested<bool>) -> Tested {
    let end = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !done()? {
        assert!(std::time::Instant::now() < end, "{what} does not happen");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}
