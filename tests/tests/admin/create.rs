//! `CreateTopics` and `DeleteTopics`: every refusal with its text, and time that is over.

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{CreateTopicsResponse, DeleteTopicsRequest};
use uuid::Uuid;
use vltava_tests::harness::{Broker, RawClient, Tested, requests};

use crate::Row;
use crate::ask::{Verdict, assigned, counts, create, fine, refused, told};

pub(crate) const ROWS: &[Row] = &[
    ("names", names),
    ("numbers", numbers),
    ("assignments", assignments),
    ("configs", configs),
    ("duplicates", duplicates),
    ("too_many_partitions", too_many_partitions),
    ("what_would_be_is_told", what_would_be_is_told),
    ("nothing_begins_without_time", nothing_begins_without_time),
    ("deletion_refusals", deletion_refusals),
    ("deletion_duplicates", deletion_duplicates),
];

fn verdicts(response: &CreateTopicsResponse) -> Vec<(String, Verdict)> {
    let verdict =
        |topic: &kafka_protocol::messages::create_topics_response::CreatableTopicResult| {
            let verdict = (topic.error_code, told(topic.error_message.as_ref()));
            (topic.name.to_string(), verdict)
        };
    response.topics.iter().map(verdict).collect()
}

/// Asks what would become of each topic by itself, and expects an error and its text.
fn check(broker: &Broker, cases: Vec<(CreatableTopic, i16, &str)>) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    for (topic, code, text) in cases {
        for validate_only in [true, false] {
            let request = create(vec![topic.clone()]).with_validate_only(validate_only);
            let response = client.call(7, &request)?;
            let expected = [(topic.name.to_string(), refused(code, text))];
            assert_eq!(verdicts(&response), expected);
            let answer = &response.topics[0];
            assert_eq!((answer.num_partitions, answer.replication_factor), (-1, -1));
            assert_eq!((answer.topic_id, answer.configs.as_deref()), (Uuid::nil(), Some(&[][..])));
        }
    }
    Ok(())
}

fn names(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let there = requests::create_topic(&mut client, "there.is", 1, &[])?;
    let (long, colliding) = ("x".repeat(250), there.replace('.', "_"));
    let one = |name: &str| counts(name, 1, 1, &[]);
    let characters = |name: &str| {
        format!(
            "Topic name is invalid: '{name}' contains one or more characters other than ASCII \
             alphanumerics, '.', '_' and '-'"
        )
    };
    let too_long = format!(
        "Topic name is invalid: the length of '{long}' is longer than the max allowed length 249"
    );
    let collides = format!("Topic '{colliding}' collides with existing topic: {there}");
    check(
        broker,
        vec![
            (one(""), 17, "Topic name is invalid: the empty string is not allowed"),
            (one("."), 17, "Topic name is invalid: '.' is not allowed"),
            (one(".."), 17, "Topic name is invalid: '..' is not allowed"),
            (one("a b"), 17, &characters("a b")),
            (one("a/b"), 17, &characters("a/b")),
            (one(&long), 17, &too_long),
            (one(&colliding), 17, &collides),
            (one(&there), 36, &format!("Topic '{there}' already exists.")),
            (
                one("__cluster_metadata"),
                42,
                "Creation of internal topic __cluster_metadata is prohibited.",
            ),
        ],
    )
}

fn numbers(broker: &Broker) -> Tested {
    let name = requests::unique("numbers");
    let of = |partitions, replicas| counts(&name, partitions, replicas, &[]);
    let partitions = "Number of partitions was set to an invalid non-positive value.";
    let replicas = "Replication factor must be larger than 0, or -1 to use the default value.";
    check(
        broker,
        vec![
            (of(0, 1), 37, partitions),
            (of(-2, 1), 37, partitions),
            (of(1, 0), 38, replicas),
            (of(1, -2), 38, replicas),
            (of(0, 0), 38, replicas),
        ],
    )?;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let response = client.call(7, &create(vec![of(1, 2)]))?;
    let (code, text) = &verdicts(&response)[0].1;
    assert_eq!(*code, 38);
    // Kafka goes on about directories that take no new replicas.
    let begins = "Unable to replicate the partition 2 time(s): The target replication factor of 2 \
                  cannot be reached because only 1 broker(s) are registered";
    assert!(text.as_ref().is_some_and(|text| text.starts_with(begins)), "{text:?}");
    Ok(())
}

fn assignments(broker: &Broker) -> Tested {
    let name = requests::unique("assigned");
    let of = |assignments: &[(i32, &[i32])]| assigned(&name, assignments);
    let sequence = "partitions should be a consecutive 0-based integer sequence";
    let partitions =
        "A manual partition assignment was specified, but numPartitions was not set to -1.";
    let factor =
        "A manual partition assignment was specified, but replication factor was not set to -1.";
    let nobody =
        "The manual partition assignment includes broker 9, but no such broker is registered.";
    check(
        broker,
        vec![
            (of(&[(0, &[1])]).with_num_partitions(1), 42, partitions),
            (of(&[(0, &[1])]).with_replication_factor(1), 42, factor),
            (of(&[(0, &[1])]).with_num_partitions(1).with_replication_factor(1), 42, factor),
            (
                of(&[(0, &[1]), (0, &[1])]),
                39,
                "Found multiple manual partition assignments for partition 0",
            ),
            (of(&[(0, &[1]), (2, &[1])]), 39, sequence),
            (of(&[(1, &[1])]), 39, sequence),
            (of(&[(-1, &[1])]), 39, sequence),
            (
                of(&[(0, &[])]),
                39,
                "The manual partition assignment includes an empty replica list.",
            ),
            (
                of(&[(0, &[1, 1])]),
                39,
                "The manual partition assignment includes the broker 1 more than once.",
            ),
            (of(&[(0, &[9])]), 39, nobody),
            (of(&[(0, &[1]), (1, &[1, 9])]), 39, nobody),
        ],
    )?;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let response = client.call(7, &create(vec![of(&[(1, &[1]), (0, &[1])])]))?;
    assert_eq!(verdicts(&response), [(name.clone(), fine())]);
    assert_eq!((response.topics[0].num_partitions, response.topics[0].replication_factor), (2, 1));
    Ok(())
}

fn configs(broker: &Broker) -> Tested {
    let name = requests::unique("configs");
    let cases = [
        ("no.such", "1", "Unknown topic config name: no.such"),
        ("message.format.version", "3.0", "Unknown topic config name: message.format.version"),
        (
            "retention.ms",
            "soon",
            "Invalid value soon for configuration retention.ms: Not a number of type LONG",
        ),
        (
            "retention.ms",
            "-2",
            "Invalid value -2 for configuration retention.ms: Value must be at least -1",
        ),
        (
            "segment.bytes",
            "10",
            "Invalid value 10 for configuration segment.bytes: Value must be at least 1048576",
        ),
        (
            "segment.bytes",
            "99999999999",
            "Invalid value 99999999999 for configuration segment.bytes: Not a number of type INT",
        ),
        (
            "cleanup.policy",
            "hoard",
            "Invalid value hoard for configuration cleanup.policy: String must be one of: \
             compact, delete",
        ),
        (
            "compression.type",
            "rar",
            "Invalid value rar for configuration compression.type: String must be one of: \
             uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        (
            "preallocate",
            "yes",
            "Invalid value yes for configuration preallocate: Expected value to be either true \
             or false",
        ),
        (
            "min.cleanable.dirty.ratio",
            "2",
            "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more \
             than 1",
        ),
        (
            "compression.gzip.level",
            "0",
            "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 \
             and 9 or equal to -1",
        ),
        (
            "compression.lz4.level",
            "18",
            "Invalid value 18 for configuration compression.lz4.level: Value must be no more than \
             17",
        ),
        (
            "leader.replication.throttled.replicas",
            "x",
            "Invalid value [x] for configuration leader.replication.throttled.replicas: \
             leader.replication.throttled.replicas must be the literal '*' or a list of replicas \
             in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        ),
        (
            "remote.storage.enable",
            "true",
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
             with remote log storage.",
        ),
    ];
    let of = |configs: &[(&str, Option<&str>)]| counts(&name, 1, 1, configs);
    let mut all: Vec<(CreatableTopic, i16, &str)> =
        cases.iter().map(|&(key, value, text)| (of(&[(key, Some(value))]), 40, text)).collect();
    let lag = [("min.compaction.lag.ms", Some("9")), ("max.compaction.lag.ms", Some("8"))];
    all.extend([
        (
            of(&[("retention.ms", None), ("segment.bytes", None)]),
            40,
            "Null value not supported for topic configs: retention.ms,segment.bytes",
        ),
        (
            of(&lag),
            40,
            "conflict topic config setting min.compaction.lag.ms (9) > max.compaction.lag.ms (8)",
        ),
        (of(&[("a", Some("1")), ("retention.ms", Some("x"))]), 40, "Unknown topic config name: a"),
    ]);
    check(broker, all)
}

fn duplicates(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let (twice, once) = (requests::unique("twice"), requests::unique("once"));
    let one = |name: &str| counts(name, 1, 1, &[]);
    let topics = vec![one(&twice), one(&once), one("a b"), one(&twice), one("a b"), one(&twice)];
    let response = client.call(7, &create(topics))?;
    let mut got = verdicts(&response);
    assert_eq!(got.remove(0), (once, fine()), "those named once come first");
    got.sort();
    let duplicate = refused(42, "Duplicate topic name.");
    let mut expected = [("a b".to_owned(), duplicate.clone()), (twice.clone(), duplicate)];
    expected.sort();
    assert_eq!(got, expected);
    let metadata = client.call(9, &requests::metadata_request(&[&twice]))?;
    assert_eq!(metadata.topics[0].error_code, 3);
    Ok(())
}

fn too_many_partitions(broker: &Broker) -> Tested {
    let text = "Excessively large number of partitions per request.";
    let name = requests::unique("many");
    check(
        broker,
        vec![(counts(&name, 100_000, 1, &[]), 44, text), (counts(&name, 10_001, 1, &[]), 44, text)],
    )?;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let other = requests::unique("many");
    let topics = vec![counts(&name, 5001, 1, &[]), counts(&other, 5001, 1, &[])];
    let response = client.call(7, &create(topics))?;
    let refusal = refused(44, text);
    assert_eq!(verdicts(&response), [(name, refusal.clone()), (other, refusal)]);
    Ok(())
}

fn what_would_be_is_told(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let name = requests::unique("would");
    let topic = counts(&name, 3, -1, &[("retention.ms", Some("77"))]);
    let request = create(vec![topic.clone()]).with_validate_only(true);
    for version in 2..=7 {
        let response = client.call(version, &request)?;
        let answer = &response.topics[0];
        assert_eq!(answer.error_code, 0, "version {version}");
        if version >= 5 {
            assert_eq!((answer.num_partitions, answer.replication_factor), (3, 1));
            let configs = answer.configs.as_ref().ok_or("no configs")?;
            assert!(configs.is_sorted_by(|a, b| a.name < b.name));
            let find = |name: &str| configs.iter().find(|config| &*config.name == name);
            let retention = find("retention.ms").ok_or("no retention.ms")?;
            assert_eq!((retention.value.as_deref(), retention.config_source), (Some("77"), 1));
            let segment = find("segment.bytes").ok_or("no segment.bytes")?;
            assert_eq!((segment.value.as_deref(), segment.config_source), (Some("1073741824"), 5));
        }
        if version >= 7 {
            assert!(!answer.topic_id.is_nil());
        }
    }
    let metadata = client.call(9, &requests::metadata_request(&[&name]))?;
    assert_eq!(metadata.topics[0].error_code, 3);
    Ok(())
}

fn nothing_begins_without_time(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let there = requests::create_topic(&mut client, "stays", 1, &[])?;
    for timeout_ms in [0, -1, i32::MIN] {
        let name = requests::unique("late");
        let request = create(vec![counts(&name, 1, 1, &[])]).with_timeout_ms(timeout_ms);
        let response = client.call(7, &request)?;
        assert_eq!(verdicts(&response), [(name.clone(), (7, None))]);
        let response = client.call(6, &delete(&[by_name(&there)], timeout_ms))?;
        assert_eq!(response.responses[0].error_code, 7);
        let metadata = client.call(9, &requests::metadata_request(&[&name, &there]))?;
        let code = |name: &str| {
            let is_it =
                |topic: &&kafka_protocol::messages::metadata_response::MetadataResponseTopic| {
                    topic.name.as_ref().is_some_and(|told| told.as_str() == name)
                };
            metadata.topics.iter().find(is_it).map(|topic| topic.error_code)
        };
        assert_eq!((code(&name), code(&there)), (Some(3), Some(0)));
    }
    Ok(())
}

fn by_name(name: &str) -> DeleteTopicState {
    DeleteTopicState::default().with_name(Some(requests::topic_name(name)))
}

fn by_id(id: Uuid) -> DeleteTopicState {
    DeleteTopicState::default().with_name(None).with_topic_id(id)
}

fn delete(topics: &[DeleteTopicState], timeout_ms: i32) -> DeleteTopicsRequest {
    DeleteTopicsRequest::default().with_timeout_ms(timeout_ms).with_topics(topics.to_vec())
}

/// Name, id and error of each answer, sorted: Kafka shuffles them.
fn deletions(
    client: &mut RawClient,
    topics: &[DeleteTopicState],
) -> Tested<Vec<(Option<String>, Uuid, Verdict)>> {
    let response = client.call(6, &delete(topics, requests::TIMEOUT_MS))?;
    let mut answers: Vec<_> = response
        .responses
        .iter()
        .map(|answer| {
            let name = answer.name.as_ref().map(|name| name.to_string());
            let verdict = (answer.error_code, told(answer.error_message.as_ref()));
            (name, answer.topic_id, verdict)
        })
        .collect();
    answers.sort();
    Ok(answers)
}

fn deletion_refusals(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "deleted", 1, &[])?;
    let id = requests::topic_id(&mut client, &topic)?;
    let nobody = Uuid::from_u128(7);
    let asked = [
        by_id(Uuid::nil()),
        by_name("a").with_topic_id(id),
        by_name("nobody"),
        by_id(nobody),
        by_name(&topic),
        by_id(id),
        by_name("a b"),
        by_name(""),
    ];
    let unknown = || refused(3, "This server does not host this topic-partition.");
    let some = |name: &str| Some(name.to_owned());
    let mut expected = vec![
        (None, Uuid::nil(), refused(42, "Neither topic name nor id were specified.")),
        (some("a"), id, refused(42, "You may not specify both topic name and topic id.")),
        (some("nobody"), Uuid::nil(), unknown()),
        (None, nobody, refused(100, "This server does not host this topic ID.")),
        (
            some(&topic),
            id,
            refused(42, "The provided topic name maps to an ID that was already supplied."),
        ),
        (some("a b"), Uuid::nil(), unknown()),
        (some(""), Uuid::nil(), unknown()),
    ];
    expected.sort();
    assert_eq!(deletions(&mut client, &asked)?, expected);
    Ok(())
}

fn deletion_duplicates(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "twice", 1, &[])?;
    let id = requests::topic_id(&mut client, &topic)?;
    let asked = [by_name(&topic), by_name(&topic), by_id(id), by_id(id), by_name(&topic)];
    let expected = [
        (None, id, refused(42, "Duplicate topic id.")),
        (Some(topic.clone()), Uuid::nil(), refused(42, "Duplicate topic name.")),
    ];
    assert_eq!(deletions(&mut client, &asked)?, expected);
    assert_eq!(deletions(&mut client, &[by_id(id)])?, [(Some(topic), id, fine())]);
    Ok(())
}
