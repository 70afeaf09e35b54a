//! `CreateTopics`, `DeleteTopics`, `DescribeConfigs`: refusals, and what they leave behind.

use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{DeleteTopicsRequest, DescribeConfigsRequest};
use kafka_protocol::protocol::StrBytes;
use vltava_tests::harness::{Broker, RawBatch, RawClient, Tested, now_ms, requests};

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("create_refusals", create_refusals),
    ("existing_topic_is_36", existing_topic_is_36),
    ("colliding_name_is_17", colliding_name_is_17),
    ("bad_config_is_40", bad_config_is_40),
    ("twice_in_a_request_is_42", twice_in_a_request_is_42),
    ("validate_only_creates_nothing", validate_only_creates_nothing),
    ("create_in_every_version", create_in_every_version),
    ("delete_in_every_version", delete_in_every_version),
    ("deleted_topic_comes_back_empty", deleted_topic_comes_back_empty),
    ("unknown_topic_is_not_deleted", unknown_topic_is_not_deleted),
    ("configs_are_described_with_defaults", configs_are_described_with_defaults),
    ("configs_of_unknown_topic_is_3", configs_of_unknown_topic_is_3),
];

/// Creates one topic and gives the error code.
fn create(client: &mut RawClient, name: &str, partitions: i32, replicas: i16) -> Tested<i16> {
    let mut request = requests::create_topic_request(name, partitions, &[]);
    request.topics[0].replication_factor = replicas;
    Ok(client.call(7, &request)?.topics[0].error_code)
}

fn exists(client: &mut RawClient, name: &str) -> Tested<bool> {
    let response = client.call(9, &requests::metadata_request(&[name]))?;
    Ok(response.topics[0].error_code == 0)
}

fn create_refusals(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let good = requests::unique("refusals");
    let long = "x".repeat(250);
    for (name, partitions, replicas, code) in [
        ("", 1, 1, 17),
        (".", 1, 1, 17),
        ("..", 1, 1, 17),
        ("white space", 1, 1, 17),
        ("slash/slash", 1, 1, 17),
        (long.as_str(), 1, 1, 17),
        (good.as_str(), 0, 1, 37),
        (good.as_str(), -2, 1, 37),
        (good.as_str(), 1, 0, 38),
        (good.as_str(), 1, -2, 38),
        (good.as_str(), 1, 99, 38),
    ] {
        let got = create(&mut client, name, partitions, replicas)?;
        assert_eq!(got, code, "{name:?} {partitions} {replicas}");
    }
    assert!(!exists(&mut client, &good)?);
    assert_eq!(create(&mut client, &good, -1, -1)?, 0, "−1 means the broker's defaults");
    Ok(())
}

fn existing_topic_is_36(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "existing", 1, &[])?;
    assert_eq!(create(&mut client, &topic, 3, 1)?, 36);
    Ok(())
}

/// Names that differ only in '.' and '_' share metric names in Kafka.
fn colliding_name_is_17(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "some.topic", 1, &[])?;
    assert_eq!(create(&mut client, &topic.replace('.', "_"), 1, 1)?, 17);
    Ok(())
}

fn bad_config_is_40(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    for (key, value) in [
        ("no.such.config", "1"),
        ("retention.ms", "soon"),
        ("retention.ms", "-2"),
        ("segment.bytes", "10"),
        ("cleanup.policy", "hoard"),
        ("max.message.bytes", "-1"),
        ("compression.type", "rar"),
    ] {
        let name = requests::unique("bad-config");
        let request = requests::create_topic_request(&name, 1, &[(key, value)]);
        let response = client.call(7, &request)?;
        assert_eq!(response.topics[0].error_code, 40, "{key}={value}");
        assert!(!exists(&mut client, &name)?);
    }
    Ok(())
}

fn twice_in_a_request_is_42(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let name = requests::unique("twice");
    let mut request = requests::create_topic_request(&name, 1, &[]);
    request.topics.push(request.topics[0].clone());
    let response = client.call(7, &request)?;
    assert!(!response.topics.is_empty());
    for topic in &response.topics {
        assert_eq!(topic.error_code, 42);
    }
    assert!(!exists(&mut client, &name)?);
    Ok(())
}

fn validate_only_creates_nothing(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let name = requests::unique("validate");
    let request = requests::create_topic_request(&name, 1, &[]).with_validate_only(true);
    assert_eq!(client.call(7, &request)?.topics[0].error_code, 0);
    assert!(!exists(&mut client, &name)?);
    Ok(())
}

fn create_in_every_version(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    for version in 2..=7 {
        let name = requests::unique("create");
        let response = client.call(version, &requests::create_topic_request(&name, 2, &[]))?;
        assert_eq!(response.topics[0].error_code, 0, "version {version}");
        requests::await_leaders(&mut client, &name, 2)?;
        if version >= 7 {
            let id = requests::topic_id(&mut client, &name)?;
            assert_eq!(response.topics[0].topic_id, id);
        }
        if version >= 5 {
            let configs = response.topics[0].configs.as_ref().ok_or("no configs")?;
            assert!(configs.iter().any(|config| config.name.as_str() == "retention.ms"));
            assert_eq!(response.topics[0].num_partitions, 2);
        }
    }
    Ok(())
}

/// A request that deletes one topic by name, as its version says it.
fn delete_request(version: i16, name: &str) -> DeleteTopicsRequest {
    let request = DeleteTopicsRequest::default().with_timeout_ms(requests::TIMEOUT_MS);
    let name = requests::topic_name(name);
    if version < 6 {
        return request.with_topic_names(vec![name]);
    }
    request.with_topics(vec![DeleteTopicState::default().with_name(Some(name))])
}

fn delete_in_every_version(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    for version in 1..=6 {
        let topic = requests::create_topic(&mut client, "delete", 1, &[])?;
        let response = client.call(version, &delete_request(version, &topic))?;
        assert_eq!(response.responses[0].error_code, 0, "version {version}");
        await_gone(&mut client, &topic)?;
    }
    let topic = requests::create_topic(&mut client, "delete-by-id", 1, &[])?;
    let id = requests::topic_id(&mut client, &topic)?;
    let by_id = DeleteTopicState::default().with_name(None).with_topic_id(id);
    let request = DeleteTopicsRequest::default()
        .with_timeout_ms(requests::TIMEOUT_MS)
        .with_topics(vec![by_id]);
    assert_eq!(client.call(6, &request)?.responses[0].error_code, 0);
    await_gone(&mut client, &topic)
}

/// A broker may answer before its metadata has followed.
fn await_gone(client: &mut RawClient, topic: &str) -> Tested {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while exists(client, topic)? {
        assert!(std::time::Instant::now() < end, "{topic} is still there");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

fn deleted_topic_comes_back_empty(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "again", 1, &[])?;
    let id = requests::topic_id(&mut client, &topic)?;
    requests::produce(&mut client, &topic, RawBatch::of(5, now_ms()).encode())?;
    client.call(6, &delete_request(6, &topic))?;
    await_gone(&mut client, &topic)?;
    assert_eq!(create(&mut client, &topic, 1, 1)?, 0);
    requests::await_leaders(&mut client, &topic, 1)?;
    assert_ne!(requests::topic_id(&mut client, &topic)?, id, "a new topic has a new id");
    assert_eq!(requests::list_offsets(&mut client, 7, &topic, -1)?.offset, 0);
    let answer = requests::produce(&mut client, &topic, RawBatch::of(1, now_ms()).encode())?;
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    Ok(())
}

fn unknown_topic_is_not_deleted(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let response = client.call(6, &delete_request(6, &requests::unique("nobody")))?;
    assert_eq!(response.responses[0].error_code, 3);
    let by_id = DeleteTopicState::default().with_name(None).with_topic_id(uuid::Uuid::new_v4());
    let request = DeleteTopicsRequest::default()
        .with_timeout_ms(requests::TIMEOUT_MS)
        .with_topics(vec![by_id]);
    assert_eq!(client.call(6, &request)?.responses[0].error_code, 100);
    Ok(())
}

/// `DescribeConfigs` for one topic (resource type 2).
fn describe(name: &str) -> DescribeConfigsRequest {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_string(name.to_owned()))
        .with_configuration_keys(None);
    DescribeConfigsRequest::default().with_resources(vec![resource])
}

fn configs_are_described_with_defaults(broker: &Broker) -> Tested {
    const DYNAMIC_TOPIC: i8 = 1;
    const DEFAULT: i8 = 5;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "configs", 1, &[("retention.ms", "5000000")])?;
    for version in 1..=4 {
        let response = client.call(version, &describe(&topic))?;
        let result = &response.results[0];
        assert_eq!(result.error_code, 0, "version {version}");
        let find = |name: &str| result.configs.iter().find(|config| config.name.as_str() == name);
        let retention = find("retention.ms").ok_or("retention.ms is described")?;
        assert_eq!(retention.value.as_deref(), Some("5000000"));
        assert_eq!(retention.config_source, DYNAMIC_TOPIC);
        for (name, value) in [
            ("cleanup.policy", "delete"),
            ("max.message.bytes", "1048588"),
            ("segment.bytes", "1073741824"),
            ("compression.type", "producer"),
            ("message.timestamp.type", "CreateTime"),
        ] {
            let config = find(name).ok_or(format!("{name} is described"))?;
            assert_eq!(config.value.as_deref(), Some(value), "{name}");
            assert_eq!(config.config_source, DEFAULT, "{name}");
        }
    }
    Ok(())
}

fn configs_of_unknown_topic_is_3(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let response = client.call(4, &describe(&requests::unique("nobody")))?;
    assert_eq!(response.results[0].error_code, 3);
    assert!(response.results[0].configs.is_empty());
    Ok(())
}
