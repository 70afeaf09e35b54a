//! `CreatePartitions`, `ElectLeaders`, `ListPartitionReassignments`.

use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::{ElectLeadersRequest, ListPartitionReassignmentsRequest};
use vltava_tests::harness::{Broker, RawBatch, RawClient, Tested, now_ms, requests};

use crate::Row;
use crate::ask::{Verdict, create_partitions, fine, grow, refused, told};

pub(crate) const ROWS: &[Row] = &[
    ("growth_refusals", growth_refusals),
    ("a_grown_topic_keeps_its_records", a_grown_topic_keeps_its_records),
    ("growth_in_every_version", growth_in_every_version),
    ("no_growth_without_time", no_growth_without_time),
    ("no_election_is_needed", no_election_is_needed),
    ("elections_of_unknown_kinds", elections_of_unknown_kinds),
    ("all_elections_leave_out_those_not_needed", all_elections_leave_out_those_not_needed),
    ("nothing_is_reassigned", nothing_is_reassigned),
];

fn growth_refusals(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "grow", 2, &[])?;
    let fewer = |count| {
        let text = format!(
            "The topic {topic} currently has 2 partition(s); {count} would not be an increase."
        );
        refused(37, &text)
    };
    let count = |additional, given| {
        let text = format!(
            "Attempted to add {additional} additional partition(s), but only {given} \
             assignment(s) were specified."
        );
        refused(39, &text)
    };
    let cases = [
        (grow("nobody", 3, None), (3, None)),
        (grow("a b", 3, None), (3, None)),
        (grow(&topic, 2, None), refused(37, "Topic already has 2 partition(s).")),
        (grow(&topic, 1, None), fewer(1)),
        (grow(&topic, 0, None), fewer(0)),
        (grow(&topic, -1, None), fewer(-1)),
        (grow(&topic, 4, Some(&[&[1]])), count(2, 1)),
        (grow(&topic, 4, Some(&[])), count(2, 0)),
        (
            grow(&topic, 3, Some(&[&[9]])),
            refused(
                39,
                "The manual partition assignment includes broker 9, but no such broker is \
                 registered.",
            ),
        ),
        (
            grow(&topic, 3, Some(&[&[]])),
            refused(39, "The manual partition assignment includes an empty replica list."),
        ),
        (
            grow(&topic, 3, Some(&[&[1, 1]])),
            refused(39, "The manual partition assignment includes the broker 1 more than once."),
        ),
        (grow(&topic, 100_000, None), (-1, None)),
        (grow(&topic, 10_003, None), (-1, None)),
    ];
    for (asked, expected) in cases {
        for validate_only in [true, false] {
            // Kafka makes as many as it can before it refuses the rest.
            if asked.count > 10_000 && !validate_only && broker.is_external() {
                continue;
            }
            let request = create_partitions(vec![asked.clone()]).with_validate_only(validate_only);
            let response = client.call(3, &request)?;
            assert_eq!(response.results.len(), 1);
            let answer = &response.results[0];
            let verdict = (answer.error_code, told(answer.error_message.as_ref()));
            assert_eq!((&answer.name, verdict), (&asked.name, expected.clone()), "{asked:?}");
        }
    }
    let twice = vec![grow(&topic, 3, None), grow("nobody", 3, None), grow(&topic, 4, None)];
    let response = client.call(3, &create_partitions(twice))?;
    let verdicts: Vec<_> = response
        .results
        .iter()
        .map(|answer| (answer.name.to_string(), answer.error_code))
        .collect();
    assert_eq!(verdicts, [(topic, 42), ("nobody".to_owned(), 3)]);
    Ok(())
}

fn a_grown_topic_keeps_its_records(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "grown", 1, &[])?;
    let id = requests::topic_id(&mut client, &topic)?;
    requests::produce(&mut client, &topic, RawBatch::of(5, now_ms()).encode())?;
    let request = create_partitions(vec![grow(&topic, 3, None)]);
    let would = client.call(3, &request.clone().with_validate_only(true))?;
    assert_eq!(would.results[0].error_code, 0);
    assert_eq!(partitions(&mut client, &topic)?, 1);
    let response = client.call(3, &request)?;
    assert_eq!(response.results[0].error_code, 0);
    requests::await_leaders(&mut client, &topic, 3)?;
    let response =
        client.call(3, &create_partitions(vec![grow(&topic, 5, Some(&[&[1], &[1]]))]))?;
    assert_eq!(response.results[0].error_code, 0);
    requests::await_leaders(&mut client, &topic, 5)?;
    assert_eq!(requests::topic_id(&mut client, &topic)?, id);
    let ends = client
        .call(requests::LIST_OFFSETS_VERSION, &requests::list_offsets_request(&topic, 0..5, -1))?;
    let ends = ends.topics[0].partitions.iter().map(|end| (end.partition_index, end.offset));
    let ends: std::collections::BTreeMap<i32, i64> = ends.collect();
    assert_eq!(ends, [(0, 5), (1, 0), (2, 0), (3, 0), (4, 0)].into());
    let batch = RawBatch::of(2, now_ms()).encode();
    let produced =
        client.call(requests::PRODUCE_VERSION, &requests::produce_request(&topic, 4, -1, batch))?;
    let answer = &produced.responses[0].partition_responses[0];
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    Ok(())
}

fn partitions(client: &mut RawClient, topic: &str) -> Tested<usize> {
    let response = client.call(9, &requests::metadata_request(&[topic]))?;
    Ok(response.topics[0].partitions.len())
}

fn growth_in_every_version(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "versions", 1, &[])?;
    for version in 0..=3 {
        let wanted = i32::from(version) + 2;
        let request = create_partitions(vec![grow(&topic, wanted, None)]);
        let response = client.call(version, &request)?;
        assert_eq!(response.results[0].error_code, 0, "version {version}");
        requests::await_leaders(&mut client, &topic, wanted)?;
        let again = client.call(version, &request)?;
        assert_eq!(again.results[0].error_code, 37, "version {version}");
    }
    Ok(())
}

fn no_growth_without_time(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "late", 1, &[])?;
    for timeout_ms in [0, -1] {
        let request = create_partitions(vec![grow(&topic, 2, None)]).with_timeout_ms(timeout_ms);
        let response = client.call(3, &request)?;
        let answer = &response.results[0];
        assert_eq!((answer.error_code, answer.error_message.as_ref()), (7, None));
        assert_eq!(partitions(&mut client, &topic)?, 1);
    }
    Ok(())
}

fn elect(kind: i8, topics: Option<&[(&str, &[i32])]>) -> ElectLeadersRequest {
    let topic = |&(name, partitions): &(&str, &[i32])| {
        TopicPartitions::default()
            .with_topic(requests::topic_name(name))
            .with_partitions(partitions.to_vec())
    };
    ElectLeadersRequest::default()
        .with_election_type(kind)
        .with_topic_partitions(topics.map(|topics| topics.iter().map(topic).collect()))
        .with_timeout_ms(requests::TIMEOUT_MS)
}

/// Topic, partition and verdict of each result.
fn results(
    response: &kafka_protocol::messages::ElectLeadersResponse,
) -> Vec<(String, i32, Verdict)> {
    let mut all = Vec::new();
    for topic in &response.replica_election_results {
        for result in &topic.partition_result {
            let verdict = (result.error_code, told(result.error_message.as_ref()));
            all.push((topic.topic.to_string(), result.partition_id, verdict));
        }
    }
    all
}

fn no_election_is_needed(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "elect", 2, &[])?;
    let needless = || refused(84, "Leader election not needed for topic partition.");
    let unknown = |partition| refused(3, &format!("No such partition as {topic}-{partition}"));
    let expected = [
        (topic.clone(), 0, needless()),
        (topic.clone(), 1, needless()),
        (topic.clone(), 0, needless()),
        (topic.clone(), 9, unknown(9)),
        (topic.clone(), -1, unknown(-1)),
        ("nobody".to_owned(), 0, refused(3, "No such topic as nobody")),
        ("a b".to_owned(), 0, refused(3, "No such topic as a b")),
    ];
    let asked: [(&str, &[i32]); 3] = [(&topic, &[0, 1, 0, 9, -1]), ("nobody", &[0]), ("a b", &[0])];
    for version in 0..=2 {
        for kind in [0, 1] {
            if version == 0 && kind != 0 {
                continue; // Version 0 knows one kind.
            }
            let response = client.call(version, &elect(kind, Some(&asked)))?;
            assert_eq!(response.error_code, 0);
            assert_eq!(results(&response), expected, "version {version} kind {kind}");
        }
    }
    Ok(())
}

fn elections_of_unknown_kinds(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "elect", 1, &[])?;
    let response = client.call(2, &elect(2, Some(&[(&topic, &[0, 9])])))?;
    assert_eq!(response.error_code, 42);
    let unknown = || refused(42, "Unknown election type 2");
    assert_eq!(results(&response), [(topic.clone(), 0, unknown()), (topic.clone(), 9, unknown())]);
    let late = elect(0, Some(&[(&topic, &[0])])).with_timeout_ms(0);
    let response = client.call(2, &late)?;
    assert_eq!(response.error_code, 7);
    assert_eq!(results(&response), [(topic, 0, (7, None))]);
    Ok(())
}

fn all_elections_leave_out_those_not_needed(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "elect", 2, &[])?;
    for version in 0..=2 {
        let response = client.call(version, &elect(0, None))?;
        assert_eq!((response.error_code, results(&response).len()), (0, 0));
        let topics = &response.replica_election_results;
        assert!(topics.iter().any(|told| told.topic.as_str() == topic));
        let none = client.call(version, &elect(0, Some(&[])))?;
        assert_eq!(none.replica_election_results.len(), 0);
    }
    Ok(())
}

fn nothing_is_reassigned(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "still", 1, &[])?;
    let named = |name: &str, partitions: &[i32]| {
        ListPartitionReassignmentsTopics::default()
            .with_name(requests::topic_name(name))
            .with_partition_indexes(partitions.to_vec())
    };
    for topics in
        [None, Some(Vec::new()), Some(vec![named(&topic, &[0, 99]), named("nobody", &[0])])]
    {
        for timeout_ms in [requests::TIMEOUT_MS, 0] {
            let request = ListPartitionReassignmentsRequest::default()
                .with_topics(topics.clone())
                .with_timeout_ms(timeout_ms);
            let response = client.call(0, &request)?;
            assert_eq!((response.error_code, told(response.error_message.as_ref())), fine());
            assert_eq!(response.topics, []);
        }
    }
    Ok(())
}
