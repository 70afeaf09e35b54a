//! Fetch without sessions: offsets, limits, waiting, epochs.

use std::time::{Duration, Instant};

use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{FetchRequest, OffsetForLeaderEpochRequest};
use vltava_tests::harness::{Broker, RawBatch, RawClient, Tested, batch, now_ms, requests};

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("offset_out_of_range_is_1", offset_out_of_range_is_1),
    ("end_of_log_is_empty", end_of_log_is_empty),
    ("offset_inside_a_batch_gives_it_whole", offset_inside_a_batch_gives_it_whole),
    ("first_batch_is_whole_whatever_the_limits", first_batch_is_whole_whatever_the_limits),
    ("later_partitions_get_what_is_left", later_partitions_get_what_is_left),
    ("partition_limit_stops_between_batches", partition_limit_stops_between_batches),
    ("nonsense_limits_never_hang", nonsense_limits_never_hang),
    ("waits_for_min_bytes", waits_for_min_bytes),
    ("append_ends_the_wait", append_ends_the_wait),
    ("pipelined_request_waits_its_turn", pipelined_request_waits_its_turn),
    ("unknown_topic_is_3", unknown_topic_is_3),
    ("unknown_topic_id_is_100", unknown_topic_id_is_100),
    ("unknown_partition_is_3", unknown_partition_is_3),
    ("leader_epoch_is_checked", leader_epoch_is_checked),
    ("offset_for_leader_epoch", offset_for_leader_epoch),
    ("every_version_reads", every_version_reads),
    ("read_committed_reads", read_committed_reads),
];

/// A topic with `batches` batches of two records in partition 0.
fn filled(broker: &Broker, prefix: &str, batches: i32) -> Tested<(RawClient, String)> {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, prefix, 2, &[])?;
    for _ in 0..batches {
        let answer = requests::produce(&mut client, &topic, RawBatch::of(2, now_ms()).encode())?;
        assert_eq!(answer.error_code, 0);
    }
    Ok((client, topic))
}

fn offset_out_of_range_is_1(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "range", 1)?;
    for offset in [-1, -2, 3, i64::MAX, i64::MIN] {
        let answer = requests::fetch(&mut client, &topic, offset)?;
        assert_eq!(answer.error_code, 1, "offset {offset}");
        assert!(answer.records.unwrap_or_default().is_empty());
    }
    Ok(())
}

fn end_of_log_is_empty(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "end", 1)?;
    let answer = requests::fetch(&mut client, &topic, 2)?;
    assert_eq!((answer.error_code, answer.high_watermark), (0, 2));
    assert!(answer.records.unwrap_or_default().is_empty());
    Ok(())
}

fn offset_inside_a_batch_gives_it_whole(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "inside", 3)?;
    let answer = requests::fetch(&mut client, &topic, 3)?;
    let batches = batch::split(&answer.records.ok_or("no records")?)?;
    let ranges: Vec<_> = batches.iter().map(|b| (b.base_offset, b.end_offset())).collect();
    assert_eq!(ranges, [(2, 4), (4, 6)]);
    Ok(())
}

fn first_batch_is_whole_whatever_the_limits(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "one-byte", 0)?;
    for _ in 0..2 {
        let large = RawBatch::of_size(300_000, now_ms()).encode();
        assert_eq!(requests::produce(&mut client, &topic, large)?.error_code, 0);
    }
    for (partition_max, max) in [(1, 1), (0, 1 << 20), (1 << 20, 0), (1, 1 << 20), (1 << 20, 1)] {
        let mut request = requests::fetch_request(&topic, 0).with_max_bytes(max);
        request.topics[0].partitions[0].partition_max_bytes = partition_max;
        let answer = requests::fetch_with(&mut client, &request)?;
        let batches = batch::split(&answer.records.ok_or("no records")?)?;
        assert_eq!(batches.len(), 1, "limits {partition_max} and {max}");
        assert_eq!(batches[0].base_offset, 0);
    }
    Ok(())
}

/// Only the first partition with data may pass the limit of the whole response.
fn later_partitions_get_what_is_left(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "later", 2)?;
    let second = requests::produce_request(&topic, 1, -1, RawBatch::of(2, now_ms()).encode());
    client.call(requests::PRODUCE_VERSION, &second)?;
    let mut request = requests::fetch_request(&topic, 0).with_max_bytes(10);
    let mut other: FetchPartition = request.topics[0].partitions[0].clone();
    other.partition = 1;
    request.topics[0].partitions.push(other);
    let response = client.call(requests::FETCH_VERSION, &request)?;
    let records = |index: usize| {
        let partition = &response.responses[0].partitions[index];
        assert_eq!((partition.partition_index as usize, partition.error_code), (index, 0));
        partition.records.clone().unwrap_or_default()
    };
    assert_eq!(batch::split(&records(0))?.len(), 1);
    assert!(records(1).is_empty());
    Ok(())
}

fn partition_limit_stops_between_batches(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "between", 5)?;
    let size = i32::try_from(RawBatch::of(2, now_ms()).encode().len())?;
    let mut request = requests::fetch_request(&topic, 0);
    request.topics[0].partitions[0].partition_max_bytes = 3 * size;
    let answer = requests::fetch_with(&mut client, &request)?;
    assert_eq!(batch::split(&answer.records.ok_or("no records")?)?.len(), 3);
    Ok(())
}

fn nonsense_limits_never_hang(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "nonsense", 1)?;
    for value in [-1, i32::MIN] {
        let mut request = requests::fetch_request(&topic, 0)
            .with_max_bytes(value)
            .with_min_bytes(value)
            .with_max_wait_ms(value);
        request.topics[0].partitions[0].partition_max_bytes = value;
        let code = requests::fetch_with(&mut client, &request)?.error_code;
        assert!([0, -1, 42].contains(&code), "{code}");
    }
    let request = requests::fetch_request(&topic, 0).with_min_bytes(i32::MAX).with_max_wait_ms(50);
    assert_eq!(requests::fetch_with(&mut client, &request)?.error_code, 0);
    Ok(())
}

fn waits_for_min_bytes(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "wait", 1)?;
    let request = requests::fetch_request(&topic, 2).with_min_bytes(1).with_max_wait_ms(300);
    let start = Instant::now();
    let answer = requests::fetch_with(&mut client, &request)?;
    assert_eq!(answer.error_code, 0);
    assert!(start.elapsed() >= Duration::from_millis(250), "answered after {:?}", start.elapsed());
    // Enough is there already: no wait.
    let request = requests::fetch_request(&topic, 0).with_min_bytes(1).with_max_wait_ms(20_000);
    let start = Instant::now();
    requests::fetch_with(&mut client, &request)?;
    assert!(start.elapsed() < Duration::from_secs(10));
    Ok(())
}

fn append_ends_the_wait(broker: &Broker) -> Tested {
    let (mut waiting, topic) = filled(broker, "wake", 1)?;
    let request = requests::fetch_request(&topic, 2).with_min_bytes(1).with_max_wait_ms(25_000);
    let start = Instant::now();
    let correlation_id = waiting.send(requests::FETCH_VERSION, &request)?;
    let mut producer = RawClient::connect(broker.bootstrap())?;
    requests::produce(&mut producer, &topic, RawBatch::of(2, now_ms()).encode())?;
    let answer = waiting.receive::<FetchRequest>(requests::FETCH_VERSION, correlation_id)?;
    assert!(start.elapsed() < Duration::from_secs(15), "the append did not end the wait");
    let records = answer.responses[0].partitions[0].records.clone().ok_or("no records")?;
    assert_eq!(batch::split(&records)?[0].base_offset, 2);
    Ok(())
}

/// Answers keep the order of requests even where the first one waits.
fn pipelined_request_waits_its_turn(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "turn", 1)?;
    let waiting = requests::fetch_request(&topic, 2).with_min_bytes(1).with_max_wait_ms(200);
    let first = client.send(requests::FETCH_VERSION, &waiting)?;
    let second = client.send(12, &requests::metadata_request(&[topic.as_str()]))?;
    client.receive::<FetchRequest>(requests::FETCH_VERSION, first)?;
    client.receive::<kafka_protocol::messages::MetadataRequest>(12, second)?;
    Ok(())
}

fn unknown_topic_is_3(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let answer = requests::fetch(&mut client, &requests::unique("nobody"), 0)?;
    assert_eq!(answer.error_code, 3);
    Ok(())
}

fn unknown_topic_id_is_100(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let mut request = requests::fetch_request("", 0);
    request.topics[0].topic_id = uuid::Uuid::new_v4();
    let response = client.call(13, &request)?;
    assert_eq!(response.responses[0].partitions[0].error_code, 100);
    Ok(())
}

fn unknown_partition_is_3(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "partitions", 0)?;
    for partition in [2, -1, i32::MAX, i32::MIN] {
        let mut request = requests::fetch_request(&topic, 0);
        request.topics[0].partitions[0].partition = partition;
        assert_eq!(requests::fetch_with(&mut client, &request)?.error_code, 3);
    }
    Ok(())
}

/// The leader epoch of partition 0, as Metadata tells it.
fn leader_epoch(client: &mut RawClient, topic: &str) -> Tested<i32> {
    let response = client.call(12, &requests::metadata_request(&[topic]))?;
    let partitions = &response.topics[0].partitions;
    let first = partitions.iter().find(|partition| partition.partition_index == 0);
    Ok(first.ok_or("partition 0 is in the metadata")?.leader_epoch)
}

fn leader_epoch_is_checked(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "epochs", 1)?;
    let epoch = leader_epoch(&mut client, &topic)?;
    let mut cases = vec![(epoch, 0), (epoch + 1, 75), (i32::MAX, 75), (-1, 0)];
    // A leader of epoch 0 has no predecessor to fence.
    if epoch > 0 {
        cases.push((epoch - 1, 74));
    }
    for (asked, code) in cases {
        let mut request = requests::fetch_request(&topic, 0);
        request.topics[0].partitions[0].current_leader_epoch = asked;
        let answer = requests::fetch_with(&mut client, &request)?;
        assert_eq!(answer.error_code, code, "epoch {asked} where {epoch} leads");
    }
    let fetched = requests::fetch(&mut client, &topic, 0)?;
    for batch in batch::split(&fetched.records.ok_or("no records")?)? {
        assert_eq!(batch.leader_epoch, epoch, "each batch carries its leader's epoch");
    }
    Ok(())
}

fn offset_for_leader_epoch(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "epoch-end", 2)?;
    let epoch = leader_epoch(&mut client, &topic)?;
    for (current, asked, expected) in [
        (-1, epoch, (0, epoch, 4)),
        (epoch, epoch, (0, epoch, 4)),
        (-1, epoch + 1, (0, -1, -1)),
        (epoch + 1, epoch, (75, -1, -1)),
    ] {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(current)
            .with_leader_epoch(asked);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(requests::topic_name(&topic))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        let response = client.call(4, &request)?;
        let answer = &response.topics[0].partitions[0];
        let got = (answer.error_code, answer.leader_epoch, answer.end_offset);
        assert_eq!(got, expected, "current {current}, asked {asked}");
    }
    Ok(())
}

fn every_version_reads(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "versions", 1)?;
    let id = requests::topic_id(&mut client, &topic)?;
    for version in 4..=17 {
        let mut request = requests::fetch_request(&topic, 0);
        if version >= 13 {
            request.topics[0].topic = requests::topic_name("");
            request.topics[0].topic_id = id;
        }
        if version < 7 {
            (request.session_id, request.session_epoch) = (0, -1);
        }
        let response = client.call(version, &request)?;
        assert_eq!(response.error_code, 0, "version {version}");
        let answer = &response.responses[0].partitions[0];
        assert_eq!((answer.error_code, answer.high_watermark), (0, 2), "version {version}");
        let batches = batch::split(&answer.records.clone().ok_or("no records")?)?;
        assert_eq!(batches.len(), 1, "version {version}");
    }
    Ok(())
}

fn read_committed_reads(broker: &Broker) -> Tested {
    let (mut client, topic) = filled(broker, "committed", 1)?;
    let request = requests::fetch_request(&topic, 0).with_isolation_level(1);
    let answer = requests::fetch_with(&mut client, &request)?;
    assert_eq!((answer.error_code, answer.last_stable_offset), (0, 2));
    assert_eq!(answer.aborted_transactions.unwrap_or_default().len(), 0);
    assert_eq!(batch::split(&answer.records.ok_or("no records")?)?.len(), 1);
    Ok(())
}
