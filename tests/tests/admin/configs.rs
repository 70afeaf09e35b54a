//! `DescribeConfigs`, `IncrementalAlterConfigs` and `AlterConfigs` of topics and brokers.

use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use vltava_tests::harness::{Broker, RawClient, Tested, requests};

use crate::Row;
use crate::ask::{
    self, APPEND, BROKER, DELETE, SET, SUBTRACT, TOPIC, alter, fine, key, refused, replace,
    resource, told, value,
};

pub(crate) const ROWS: &[Row] = &[
    ("topic_refusals", topic_refusals),
    ("lists_grow_and_shrink", lists_grow_and_shrink),
    ("values_are_brought_into_shape", values_are_brought_into_shape),
    ("a_set_is_replaced_whole", a_set_is_replaced_whole),
    ("repeated_resources", repeated_resources),
    ("too_many_resources", too_many_resources),
    ("what_is_only_validated_changes_nothing", what_is_only_validated_changes_nothing),
    ("alterations_in_every_version", alterations_in_every_version),
    ("broker_refusals", broker_refusals),
    ("broker_layers", broker_layers),
    ("unknown_broker_keys_are_kept_secret", unknown_broker_keys_are_kept_secret),
    ("all_keys_of_a_topic", all_keys_of_a_topic),
    ("all_keys_of_a_broker", all_keys_of_a_broker),
    ("descriptions_of_what_is_not_there", descriptions_of_what_is_not_there),
];

/// A key, what is done to it, and the value.
type Operation<'a> = (&'a str, i8, Option<&'a str>);

/// Waits until a topic's key has its value from there.
fn await_source(client: &mut RawClient, topic: &str, name: &str, source: i8) -> Tested {
    ask::until(name, || Ok(key(client, TOPIC, topic, name)?.config_source == source))
}

fn topic_refusals(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "alter", 1, &[])?;
    let unknown_name = "Topic name is invalid: 'a b' contains one or more characters other than \
                        ASCII alphanumerics, '.', '_' and '-'";
    let cases: Vec<(&str, Vec<Operation<'_>>, i16, &str)> = vec![
        (&topic, vec![("no.such", SET, Some("1"))], 40, "Unknown topic config name: no.such"),
        (
            &topic,
            vec![("flush.ms", SET, Some("1")), ("flush.ms", SET, Some("1"))],
            42,
            "Error due to duplicate config keys",
        ),
        (
            &topic,
            vec![("flush.ms", SET, None), ("retention.ms", SET, None)],
            42,
            "Null value not supported for : flush.ms, retention.ms",
        ),
        (
            &topic,
            vec![("flush.ms", APPEND, Some("1"))],
            40,
            "Can't APPEND to key flush.ms because its type is not LIST.",
        ),
        (
            &topic,
            vec![("flush.ms", SUBTRACT, Some("1"))],
            40,
            "Can't SUBTRACT to key flush.ms because its type is not LIST.",
        ),
        (
            &topic,
            vec![("no.such", APPEND, Some("1"))],
            40,
            "Can't APPEND to key no.such because its type is not LIST.",
        ),
        (
            &topic,
            vec![("cleanup.policy", APPEND, Some("hoard"))],
            40,
            "Invalid value hoard for configuration cleanup.policy: String must be one of: \
             compact, delete",
        ),
        ("nobody", vec![("flush.ms", SET, Some("1"))], 3, "The topic 'nobody' does not exist."),
        (
            "nobody",
            vec![("flush.ms", SET, Some("x"))],
            40,
            "Invalid value x for configuration flush.ms: Not a number of type LONG",
        ),
        ("a b", vec![("flush.ms", SET, Some("1"))], 17, unknown_name),
        ("", vec![("flush.ms", SET, Some("1"))], 42, "Default topic resources are not allowed."),
    ];
    for (name, operations, code, text) in cases {
        let got = alter(&mut client, TOPIC, name, &operations)?;
        assert_eq!(got, refused(code, text), "{name} {operations:?}");
    }
    for harmless in [&[("no.such", DELETE, None)][..], &[("flush.ms", DELETE, None)][..], &[][..]] {
        assert_eq!(alter(&mut client, TOPIC, &topic, harmless)?, fine(), "{harmless:?}");
    }
    Ok(())
}

fn lists_grow_and_shrink(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "lists", 1, &[])?;
    let throttled = "leader.replication.throttled.replicas";
    for (name, operation, words, expected) in [
        ("cleanup.policy", APPEND, "compact", "delete,compact"),
        ("cleanup.policy", APPEND, "compact", "delete,compact"),
        ("cleanup.policy", SUBTRACT, "compact", "delete"),
        ("cleanup.policy", SUBTRACT, "compact", "delete"),
        ("cleanup.policy", SUBTRACT, "delete", ""),
        (throttled, APPEND, "0:1,1:1", "0:1,1:1"),
        (throttled, APPEND, "0:1,2:1", "0:1,1:1,2:1"),
    ] {
        let operations = [(name, operation, Some(words))];
        assert_eq!(alter(&mut client, TOPIC, &topic, &operations)?, fine());
        ask::until(expected, || {
            Ok(value(&mut client, TOPIC, &topic, name)?.as_deref() == Some(expected))
        })?;
    }
    let policy = key(&mut client, TOPIC, &topic, "cleanup.policy")?;
    let synonyms: Vec<_> = policy
        .synonyms
        .iter()
        .map(|synonym| (synonym.name.to_string(), told(synonym.value.as_ref()), synonym.source))
        .collect();
    let some = |text: &str| Some(text.to_owned());
    let expected = [
        ("cleanup.policy".to_owned(), some(""), 1),
        ("log.cleanup.policy".to_owned(), some("delete"), 5),
    ];
    assert_eq!((synonyms.as_slice(), policy.config_type), (&expected[..], 7));
    Ok(())
}

fn values_are_brought_into_shape(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "shape", 1, &[])?;
    let operations = [
        ("retention.ms", SET, Some(" 050000000 ")),
        ("min.cleanable.dirty.ratio", SET, Some("0.50")),
        ("preallocate", SET, Some(" FALSE ")),
    ];
    assert_eq!(alter(&mut client, TOPIC, &topic, &operations)?, fine());
    await_source(&mut client, &topic, "preallocate", 1)?;
    for (name, expected, kind) in [
        ("retention.ms", "50000000", 5),
        ("min.cleanable.dirty.ratio", "0.5", 6),
        ("preallocate", "false", 1),
    ] {
        let described = key(&mut client, TOPIC, &topic, name)?;
        assert_eq!(described.value.as_deref(), Some(expected));
        assert_eq!((described.config_source, described.config_type), (1, kind), "{name}");
        assert!(!described.read_only && !described.is_sensitive);
    }
    Ok(())
}

fn a_set_is_replaced_whole(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "whole", 1, &[("segment.ms", "100000")])?;
    let before = key(&mut client, TOPIC, &topic, "segment.ms")?;
    assert_eq!((before.value.as_deref(), before.config_source), (Some("100000"), 1));
    let got = replace(&mut client, TOPIC, &topic, &[("flush.ms", Some("100000"))])?;
    assert_eq!(got, fine());
    await_source(&mut client, &topic, "segment.ms", 5)?;
    let after = key(&mut client, TOPIC, &topic, "segment.ms")?;
    assert_eq!((after.value.as_deref(), after.config_source), (Some("604800000"), 5));
    for (configs, code, text) in [
        (&[("flush.ms", None)][..], 42, "Null value not supported for : flush.ms"),
        (
            &[("flush.ms", Some("1")), ("flush.ms", Some("1"))],
            42,
            "Error due to duplicate config keys",
        ),
        (
            &[("flush.ms", Some("x"))],
            40,
            "Invalid value x for configuration flush.ms: Not a number of type LONG",
        ),
        (&[("x", Some("x"))], 40, "Unknown topic config name: x"),
    ] {
        assert_eq!(replace(&mut client, TOPIC, &topic, configs)?, refused(code, text));
    }
    assert_eq!(value(&mut client, TOPIC, &topic, "flush.ms")?.as_deref(), Some("100000"));
    assert_eq!(replace(&mut client, TOPIC, &topic, &[])?, fine());
    await_source(&mut client, &topic, "flush.ms", 5)?;
    for (kind, text) in [(8, "Unknown resource type 8"), (0, "Unknown resource type 0")] {
        assert_eq!(replace(&mut client, kind, "1", &[])?, refused(42, text));
    }
    Ok(())
}

fn repeated_resources(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let twice = requests::create_topic(&mut client, "twice", 1, &[])?;
    let once = requests::create_topic(&mut client, "once", 1, &[])?;
    let of = |name: &str, ms| resource(TOPIC, name, &[("retention.ms", SET, Some(ms))]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
        of(&twice, "50000000"),
        of(&once, "50000000"),
        of(&twice, "60000000"),
    ]);
    let response = client.call(1, &request)?;
    let verdicts: Vec<_> = response
        .responses
        .iter()
        .map(|answer| (&*answer.resource_name, answer.error_code))
        .collect();
    assert_eq!(verdicts, [(&*twice, 42), (&*once, 0), (&*twice, 42)]);
    let text = told(response.responses[0].error_message.as_ref());
    assert_eq!(text.as_deref(), Some("Each resource must appear at most once."));
    assert_eq!(key(&mut client, TOPIC, &twice, "retention.ms")?.config_source, 5);
    await_source(&mut client, &once, "retention.ms", 1)?;
    Ok(())
}

fn too_many_resources(broker: &Broker) -> Tested {
    if broker.is_external() {
        return Ok(()); // Kafka counts records, and closes the connection over them.
    }
    let mut client = RawClient::connect(broker.bootstrap())?;
    let of = |n: i32| resource(TOPIC, &format!("t{n}"), &[("flush.ms", SET, Some("1"))]);
    let request =
        IncrementalAlterConfigsRequest::default().with_resources((0..10_001).map(of).collect());
    let response = client.call(1, &request)?;
    assert_eq!(response.responses.len(), 10_001);
    assert!(response.responses.iter().all(|answer| answer.error_code == 44));
    let request =
        IncrementalAlterConfigsRequest::default().with_resources((0..10_000).map(of).collect());
    let response = client.call(1, &request)?;
    assert!(response.responses.iter().all(|answer| answer.error_code == 3));
    Ok(())
}

fn what_is_only_validated_changes_nothing(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let node = ask::broker_name(&mut client)?;
    let topic = requests::create_topic(&mut client, "only", 1, &[])?;
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(vec![
            resource(TOPIC, &topic, &[("retention.ms", SET, Some("50000000"))]),
            resource(BROKER, &node, &[("log.segment.bytes", SET, Some("2222222"))]),
            resource(TOPIC, &topic.replace("only", "other"), &[("flush.ms", SET, Some("1"))]),
        ])
        .with_validate_only(true);
    let response = client.call(1, &request)?;
    let codes: Vec<i16> = response.responses.iter().map(|answer| answer.error_code).collect();
    assert_eq!(codes, [0, 0, 3]);
    assert_eq!(key(&mut client, TOPIC, &topic, "retention.ms")?.config_source, 5);
    let segment = value(&mut client, BROKER, &node, "log.segment.bytes")?;
    assert_eq!(segment.as_deref(), Some("1073741824"));
    Ok(())
}

fn alterations_in_every_version(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "versions", 1, &[])?;
    for version in 0..=1 {
        let ms = (50_000_000 + i32::from(version)).to_string();
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource(
            TOPIC,
            &topic,
            &[("retention.ms", SET, Some(&ms))],
        )]);
        assert_eq!(client.call(version, &request)?.responses[0].error_code, 0);
        ask::until("the alteration", || {
            Ok(value(&mut client, TOPIC, &topic, "retention.ms")?.as_deref() == Some(&*ms))
        })?;
        let none = IncrementalAlterConfigsRequest::default();
        assert_eq!(client.call(version, &none)?.responses, []);
    }
    for version in 1..=4 {
        let request = ask::describe_request(TOPIC, &topic, &["retention.ms"])
            .with_include_documentation(version >= 3);
        let response = client.call(version, &request)?;
        let described = &response.results[0].configs[0];
        assert_eq!((described.value.as_deref(), described.config_source), (Some("50000001"), 1));
        if version >= 3 {
            let documented = described.documentation.as_ref().is_some_and(|text| text.len() > 20);
            assert!(documented && described.config_type == 5, "version {version}");
        }
    }
    Ok(())
}

fn broker_refusals(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let node = ask::broker_name(&mut client)?;
    let segment = "log.segment.bytes";
    let cases = [
        (
            &*node,
            vec![("process.roles", SET, Some("x"))],
            42,
            "Cannot update these configs dynamically: [process.roles]".to_owned(),
        ),
        (
            &node,
            vec![
                ("num.partitions", SET, Some("3")),
                ("log.dirs", SET, Some("x")),
                (segment, SET, Some("2000000")),
            ],
            42,
            "Cannot update these configs dynamically: [num.partitions, log.dirs]".to_owned(),
        ),
        (
            "",
            vec![("log.retention.hours", SET, Some("2"))],
            42,
            "Cannot update these configs dynamically: [log.retention.hours]".to_owned(),
        ),
        (
            &node,
            vec![(segment, SET, Some("x"))],
            42,
            format!("Invalid value x for configuration {segment}: Not a number of type INT"),
        ),
        (
            &node,
            vec![(segment, SET, Some("1"))],
            42,
            format!("Invalid value 1 for configuration {segment}: Value must be at least 1048576"),
        ),
        (
            &node,
            vec![(segment, APPEND, Some("1"))],
            40,
            format!("Config value append is not allowed for config key: {segment}"),
        ),
        (
            &node,
            vec![("no.such", APPEND, Some("1"))],
            40,
            "Unknown config name: no.such".to_owned(),
        ),
        (&node, vec![(segment, 9, Some("1"))], 42, "Unknown operations type 9".to_owned()),
        (
            "77",
            vec![(segment, SET, Some("2000000"))],
            42,
            format!("Unexpected broker id, expected {node}, but received 77"),
        ),
        (
            "x",
            vec![(segment, SET, Some("2000000"))],
            42,
            "Node id must be an integer, but it is: x".to_owned(),
        ),
    ];
    for (name, operations, code, text) in cases {
        let got = alter(&mut client, BROKER, name, &operations)?;
        assert_eq!(got, refused(code, &text), "{name} {operations:?}");
    }
    // What is only deleted need not be changeable.
    let gone = [("num.partitions", DELETE, None), ("log.retention.ms", DELETE, None)];
    assert_eq!(alter(&mut client, BROKER, &node, &gone)?, fine());
    let replaced = replace(&mut client, BROKER, &node, &[("num.partitions", Some("3"))])?;
    let read_only = "Cannot update these configs dynamically: [num.partitions]";
    assert_eq!(replaced, refused(42, read_only));
    Ok(())
}

/// Value, source and the sources of all synonyms of a key.
fn layers(
    client: &mut RawClient,
    kind: i8,
    name: &str,
    wanted: &str,
) -> Tested<(String, i8, Vec<i8>)> {
    let described = key(client, kind, name, wanted)?;
    let synonyms = described.synonyms.iter().map(|synonym| synonym.source).collect();
    let value = told(described.value.as_ref()).unwrap_or_default();
    Ok((value, described.config_source, synonyms))
}

fn broker_layers(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let node = ask::broker_name(&mut client)?;
    let topic = requests::create_topic(&mut client, "layers", 1, &[])?;
    let segment = "log.segment.bytes";
    let check = |client: &mut RawClient, value: &str, source: i8, synonyms: &[i8]| {
        let expected = (value.to_owned(), source, synonyms.to_vec());
        ask::until(value, || Ok(layers(client, BROKER, &node, segment)? == expected))?;
        ask::until(value, || Ok(layers(client, TOPIC, &topic, "segment.bytes")? == expected))
    };
    check(&mut client, "1073741824", 5, &[5])?;
    ask::set(&mut client, BROKER, "", segment, "3000000")?;
    check(&mut client, "3000000", 3, &[3, 5])?;
    ask::set(&mut client, BROKER, &node, segment, "2000000")?;
    check(&mut client, "2000000", 2, &[2, 3, 5])?;
    let all = ask::describe(&mut client, BROKER, "", &[segment])?;
    let only = &all.configs[0];
    assert_eq!((only.value.as_deref(), only.config_source), (Some("3000000"), 3));
    assert_eq!(only.synonyms.len(), 1);
    ask::unset(&mut client, BROKER, &node, segment)?;
    check(&mut client, "3000000", 3, &[3, 5])?;
    ask::unset(&mut client, BROKER, "", segment)?;
    check(&mut client, "1073741824", 5, &[5])?;
    assert_eq!(ask::describe(&mut client, BROKER, "", &[segment])?.configs, []);
    Ok(())
}

fn unknown_broker_keys_are_kept_secret(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let node = ask::broker_name(&mut client)?;
    for (name, source) in [(&*node, 2), ("", 3)] {
        ask::set(&mut client, BROKER, name, "a.plug.in.key", "secret")?;
        ask::until("the key", || {
            Ok(!ask::describe(&mut client, BROKER, name, &["a.plug.in.key"])?.configs.is_empty())
        })?;
        let shown = key(&mut client, BROKER, name, "a.plug.in.key")?;
        assert_eq!((shown.value.as_ref(), shown.is_sensitive), (None, true));
        assert_eq!((shown.read_only, shown.config_source, shown.config_type), (true, source, 0));
        ask::unset(&mut client, BROKER, name, "a.plug.in.key")?;
        ask::until("the end of the key", || {
            Ok(ask::describe(&mut client, BROKER, name, &["a.plug.in.key"])?.configs.is_empty())
        })?;
    }
    Ok(())
}

/// Keys, their types and defaults, and the broker's keys behind them.
const TOPIC_KEYS: &[(&str, i8, &str, &str)] = &[
    ("cleanup.policy", 7, "delete", "log.cleanup.policy"),
    ("compression.gzip.level", 3, "-1", "compression.gzip.level"),
    ("compression.lz4.level", 3, "9", "compression.lz4.level"),
    ("compression.type", 2, "producer", "compression.type"),
    ("compression.zstd.level", 3, "3", "compression.zstd.level"),
    ("delete.retention.ms", 5, "86400000", "log.cleaner.delete.retention.ms"),
    ("file.delete.delay.ms", 5, "60000", "log.segment.delete.delay.ms"),
    ("flush.messages", 5, "9223372036854775807", "log.flush.interval.messages"),
    ("flush.ms", 5, "9223372036854775807", ""),
    ("follower.replication.throttled.replicas", 7, "", ""),
    ("index.interval.bytes", 3, "4096", "log.index.interval.bytes"),
    ("leader.replication.throttled.replicas", 7, "", ""),
    ("local.retention.bytes", 5, "-2", "log.local.retention.bytes"),
    ("local.retention.ms", 5, "-2", "log.local.retention.ms"),
    ("max.compaction.lag.ms", 5, "9223372036854775807", "log.cleaner.max.compaction.lag.ms"),
    ("max.message.bytes", 3, "1048588", "message.max.bytes"),
    ("message.timestamp.after.max.ms", 5, "3600000", "log.message.timestamp.after.max.ms"),
    (
        "message.timestamp.before.max.ms",
        5,
        "9223372036854775807",
        "log.message.timestamp.before.max.ms",
    ),
    ("message.timestamp.type", 2, "CreateTime", "log.message.timestamp.type"),
    ("min.cleanable.dirty.ratio", 6, "0.5", "log.cleaner.min.cleanable.ratio"),
    ("min.compaction.lag.ms", 5, "0", "log.cleaner.min.compaction.lag.ms"),
    ("preallocate", 1, "false", "log.preallocate"),
    ("remote.log.copy.disable", 1, "false", ""),
    ("remote.log.delete.on.disable", 1, "false", ""),
    ("remote.storage.enable", 1, "false", ""),
    ("retention.bytes", 5, "-1", "log.retention.bytes"),
    ("retention.ms", 5, "604800000", ""),
    ("segment.bytes", 3, "1073741824", "log.segment.bytes"),
    ("segment.index.bytes", 3, "10485760", "log.index.size.max.bytes"),
    ("segment.jitter.ms", 5, "0", ""),
    ("segment.ms", 5, "604800000", ""),
    ("unclean.leader.election.enable", 1, "false", "unclean.leader.election.enable"),
];

fn all_keys_of_a_topic(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "keys", 1, &[])?;
    let request = ask::describe_request(TOPIC, &topic, &[]).with_include_documentation(true);
    let response = client.call(4, &request)?;
    let result = &response.results[0];
    assert_eq!((result.error_code, result.error_message.as_deref()), (0, Some("")));
    for &(name, kind, default, behind) in TOPIC_KEYS {
        let found = result.configs.iter().find(|config| &*config.name == name);
        let config = found.ok_or(format!("{name} is not described"))?;
        assert_eq!(config.value.as_deref(), Some(default), "{name}");
        assert_eq!((config.config_type, config.config_source), (kind, 5), "{name}");
        assert!(!config.read_only && !config.is_sensitive, "{name}");
        assert!(config.documentation.as_ref().is_some_and(|text| text.len() > 20), "{name}");
        let synonyms: Vec<&str> = config.synonyms.iter().map(|synonym| &*synonym.name).collect();
        let expected = if behind.is_empty() { vec![] } else { vec![behind] };
        assert_eq!(synonyms, expected, "{name}");
    }
    // Here eligible leader replicas are on or not: the source differs.
    let replicas = key(&mut client, TOPIC, &topic, "min.insync.replicas")?;
    assert_eq!((replicas.value.as_deref(), replicas.config_type), (Some("1"), 3));
    let ours = usize::from(!broker.is_external());
    assert_eq!(result.configs.len(), TOPIC_KEYS.len() + 1 + ours, "durability is our own");
    Ok(())
}

/// Some of the broker's keys: type, default, and whether only a restart changes them.
const BROKER_KEYS: &[(&str, i8, Option<&str>, bool)] = &[
    ("auto.create.topics.enable", 1, Some("true"), true),
    ("compression.type", 2, Some("producer"), false),
    ("connections.max.idle.ms", 5, Some("600000"), true),
    ("fetch.max.bytes", 3, Some("57671680"), true),
    ("group.consumer.assignors", 7, Some("uniform,range"), true),
    ("log.cleaner.min.cleanable.ratio", 6, Some("0.5"), false),
    ("log.cleanup.policy", 7, Some("delete"), false),
    ("log.retention.hours", 3, Some("168"), true),
    ("log.retention.minutes", 3, None, true),
    ("log.retention.ms", 5, None, false),
    ("log.roll.hours", 3, Some("168"), true),
    ("log.roll.ms", 5, None, false),
    ("log.segment.bytes", 3, Some("1073741824"), false),
    ("max.connections", 3, Some("2147483647"), false),
    ("max.connections.per.ip", 3, Some("2147483647"), false),
    ("message.max.bytes", 3, Some("1048588"), false),
    ("num.partitions", 3, Some("1"), true),
    ("offsets.retention.minutes", 3, Some("10080"), true),
    ("producer.id.expiration.ms", 3, Some("86400000"), false),
    ("queued.max.request.bytes", 5, Some("-1"), true),
    ("socket.request.max.bytes", 3, Some("104857600"), true),
    ("unclean.leader.election.enable", 1, Some("false"), false),
];

fn all_keys_of_a_broker(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let node = ask::broker_name(&mut client)?;
    let request = ask::describe_request(BROKER, &node, &[]).with_include_documentation(true);
    let response = client.call(4, &request)?;
    let result = &response.results[0];
    assert_eq!(result.error_code, 0);
    for &(name, kind, default, read_only) in BROKER_KEYS {
        let found = result.configs.iter().find(|config| &*config.name == name);
        let config = found.ok_or(format!("{name} is not described"))?;
        assert_eq!(config.value.as_deref(), default, "{name}");
        assert_eq!((config.config_type, config.config_source), (kind, 5), "{name}");
        assert_eq!((config.read_only, config.is_sensitive), (read_only, false), "{name}");
        let synonyms: Vec<&str> = config.synonyms.iter().map(|synonym| &*synonym.name).collect();
        let own = if default.is_some() { vec![name] } else { vec![] };
        assert_eq!(synonyms, own, "{name}");
    }
    for config in &result.configs {
        let documented = config.documentation.as_ref().is_some_and(|text| text.len() > 10);
        assert!(documented || config.is_sensitive, "{} has no documentation", &*config.name);
    }
    Ok(())
}

fn descriptions_of_what_is_not_there(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let node = ask::broker_name(&mut client)?;
    let malformed = "This most likely occurs because of a request being malformed by the client \
                     library or the message was sent to an incompatible broker. See the broker \
                     logs for more details.";
    for (kind, name, code, text) in [
        (TOPIC, "nobody", 3, String::new()),
        (TOPIC, "", 17, "Topic name is invalid: the empty string is not allowed".to_owned()),
        (
            BROKER,
            "77",
            42,
            format!("Unexpected broker id, expected {node} or empty string, but received 77"),
        ),
        (BROKER, "x", 42, "Broker id must be an integer, but it is: x".to_owned()),
        (0, "", 42, malformed.to_owned()),
        (3, "", 42, malformed.to_owned()),
    ] {
        let result = ask::describe(&mut client, kind, name, &[])?;
        let got = (result.error_code, told(result.error_message.as_ref()));
        assert_eq!(got, refused(code, &text), "{kind} {name}");
        assert_eq!(result.configs, []);
    }
    for (kind, text) in [(0, "Unknown resource type 0"), (3, "Unknown resource type 3")] {
        let got = alter(&mut client, kind, "1", &[("flush.ms", SET, Some("1"))])?;
        assert_eq!(got, refused(42, text));
    }
    Ok(())
}
