//! Fetch: versions, size rules, waiting, sessions, epochs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use vltava_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use vltava_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use vltava_protocol::messages::{ApiKey, BrokerId, FetchRequest};
use vltava_protocol::record::BatchHeader;
use vltava_protocol::record::batch::{split_batches, verify_crc};

use crate::node::TestNode;
use crate::produce::append;
use crate::wire::{Wire, batch, name};

/// A request for (topic, partition, offset) that does not wait and has room for all.
pub(crate) fn request(partitions: &[(&str, i32, i64)]) -> FetchRequest {
    let topics = partitions.iter().map(|(topic, partition, offset)| {
        FetchTopic::default().with_topic(name(topic)).with_partitions(vec![
            FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(1 << 20),
        ])
    });
    FetchRequest::default()
        .with_max_bytes(50 << 20)
        .with_min_bytes(1)
        .with_max_wait_ms(0)
        .with_topics(topics.collect())
}

pub(crate) async fn fetch(wire: &mut Wire, version: i16, request: &FetchRequest) -> FetchResponse {
    wire.call(ApiKey::Fetch, version, request).await
}

/// All partitions of a response, in order.
fn partitions(response: &FetchResponse) -> Vec<&PartitionData> {
    response.responses.iter().flat_map(|topic| &topic.partitions).collect()
}

fn sizes(response: &FetchResponse) -> Vec<usize> {
    partitions(response).iter().map(|p| p.records.as_ref().map_or(0, Bytes::len)).collect()
}

/// Everything in partition 0 from `offset` on.
pub(crate) async fn read(wire: &mut Wire, topic: &str, offset: i64) -> Bytes {
    let response = fetch(wire, 11, &request(&[(topic, 0, offset)])).await;
    let partition = partitions(&response)[0];
    assert_eq!(partition.error_code, 0);
    partition.records.clone().unwrap()
}

#[tokio::test]
async fn every_version_gives_the_bytes_that_were_produced() {
    let node = TestNode::start().await;
    let id = node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    let long = "x".repeat(5000);
    let sent = [batch(&["a", "b"]), batch(&[&long]), batch(&["c"])];
    for records in &sent {
        append(&mut wire, "t", records.clone()).await;
    }
    for version in 4..=18 {
        let mut request = request(&[("t", 0, 1)]);
        if version >= 13 {
            request.topics[0].topic_id = id.0;
            request.topics[0].topic = name("");
        }
        let response = fetch(&mut wire, version, &request).await;
        let partition = partitions(&response)[0];
        assert_eq!((partition.error_code, partition.high_watermark), (0, 4), "v{version}");
        assert_eq!(partition.last_stable_offset, 4);
        assert_eq!(partition.aborted_transactions, None);
        if version >= 5 {
            assert_eq!(partition.log_start_offset, 0);
        }
        // The batch that holds offset 1 comes whole; everything behind the prefix is the client's.
        let records = partition.records.clone().unwrap();
        let mut at = 0;
        for (sent, base_offset) in sent.iter().zip([0, 2, 3]) {
            let got = &records[at..at + sent.len()];
            let header = BatchHeader::parse(got).unwrap();
            assert_eq!(header.base_offset.0, base_offset);
            assert_eq!(got[16..], sent[16..], "v{version}");
            at += sent.len();
        }
        assert_eq!(at, records.len());
    }
}

#[tokio::test]
async fn offsets_outside_the_log_are_errors_and_its_end_is_not() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    append(&mut wire, "t", batch(&["a", "b"])).await;
    for (offset, code) in [(0, 0), (2, 0), (3, 1), (-1, 1)] {
        let request =
            request(&[("t", 0, offset)]).with_max_wait_ms(if code == 0 { 0 } else { 60_000 });
        let response = fetch(&mut wire, 11, &request).await;
        assert_eq!(partitions(&response)[0].error_code, code, "{offset}");
    }
    for (topic, partition) in [("t", 1), ("t", -1), ("absent", 0)] {
        // An error answers at once.
        let request = request(&[(topic, partition, 0)]).with_max_wait_ms(60_000);
        let response = fetch(&mut wire, 11, &request).await;
        assert_eq!(partitions(&response)[0].error_code, 3);
    }
    let mut by_id = request(&[("", 0, 0)]);
    by_id.topics[0].topic_id = uuid::Uuid::from_u128(7);
    let response = fetch(&mut wire, 13, &by_id).await;
    assert_eq!(partitions(&response)[0].error_code, 100);
}

#[tokio::test]
async fn the_first_partition_with_records_gives_one_batch_at_least() {
    let node = TestNode::start().await;
    node.create("t", 3, &[]).await;
    let mut wire = node.connect().await;
    let records = batch(&["0123456789"]);
    for partition in [1, 2] {
        for _ in 0..3 {
            let request = crate::produce::request("t", partition, records.clone());
            assert_eq!(crate::produce::produce(&mut wire, 9, &request).await.error_code, 0);
        }
    }
    let one = records.len();
    let all = [("t", 0, 0), ("t", 1, 0), ("t", 2, 0)];
    for (max_bytes, partition_max, expected) in [
        (50 << 20, 1 << 20, [0, 3 * one, 3 * one]),
        (1, 1, [0, one, 0]),
        (0, 0, [0, one, 0]),
        (50 << 20, 1, [0, one, 0]),
        (one as i32 * 2 + 1, 1 << 20, [0, 2 * one, 0]),
        (one as i32 * 4, 1 << 20, [0, 3 * one, one]),
        (50 << 20, one as i32 * 2, [0, 2 * one, 2 * one]),
    ] {
        let mut request = request(&all).with_max_bytes(max_bytes);
        for topic in &mut request.topics {
            topic.partitions[0].partition_max_bytes = partition_max;
        }
        let response = fetch(&mut wire, 11, &request).await;
        assert_eq!(sizes(&response), expected, "{max_bytes} {partition_max}");
        assert_eq!(response.responses.len(), 1, "partitions of one topic stand together");
    }
}

#[tokio::test]
async fn what_does_not_fit_the_response_counts_toward_min_bytes() {
    let node = TestNode::start().await;
    node.create("t", 2, &[]).await;
    let mut wire = node.connect().await;
    let records = batch(&["0123456789"]);
    for partition in [0, 1] {
        let request = crate::produce::request("t", partition, records.clone());
        assert_eq!(crate::produce::produce(&mut wire, 9, &request).await.error_code, 0);
    }
    let one = records.len();
    let most = i32::try_from(one).unwrap() * 2 - 1;
    let request = request(&[("t", 0, 0), ("t", 1, 0)])
        .with_max_bytes(most)
        .with_min_bytes(most)
        .with_max_wait_ms(600_000);
    let answered = tokio::time::timeout(Duration::from_mins(1), fetch(&mut wire, 11, &request));
    assert_eq!(sizes(&answered.await.unwrap()), [one, 0]);
}

#[tokio::test]
async fn the_brokers_own_limit_counts_as_well() {
    let node = TestNode::with(&["fetch.max.bytes=1024"]).await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    let records = batch(&[&"x".repeat(400)]);
    for _ in 0..4 {
        append(&mut wire, "t", records.clone()).await;
    }
    let response = fetch(&mut wire, 11, &request(&[("t", 0, 0)])).await;
    assert_eq!(sizes(&response), [2 * records.len()]);
}

/// Runs that go from their file to the socket, between parts that come from memory; the client reads
/// nothing until all requests are sent, so that the socket takes each answer in pieces.
#[tokio::test]
async fn large_runs_come_whole_to_a_client_that_is_slow() {
    const BATCHES: i64 = 4;
    let node = TestNode::start().await;
    node.create("large", 1, &[]).await;
    node.create("small", 1, &[]).await;
    let (mut wire, mut producer) = (node.connect().await, node.connect().await);
    for at in 0..BATCHES {
        append(&mut producer, "large", batch(&[&at.to_string().repeat(200_000)])).await;
        append(&mut producer, "small", batch(&[&at.to_string()])).await;
    }
    let parts = [("small", 0, 0), ("large", 0, 1)];
    let mut frames = Vec::new();
    for _ in 0..10 {
        frames.extend(wire.frame(ApiKey::Fetch, 12, &request(&parts)));
    }
    wire.raw(&frames).await;
    for _ in 0..10 {
        let response: FetchResponse = wire.receive(12).await;
        let answered = partitions(&response);
        assert_eq!(answered.len(), parts.len());
        for (partition, (topic, _, from)) in answered.into_iter().zip(parts) {
            let records = partition.records.clone().unwrap();
            let batches: Vec<_> = split_batches(&records).map(Result::unwrap).collect();
            let offsets: Vec<_> = batches.iter().map(|(header, _)| header.base_offset.0).collect();
            assert_eq!(offsets, (from..BATCHES).collect::<Vec<_>>(), "{topic}");
            assert!(batches.iter().all(|(_, batch)| verify_crc(batch)), "{topic}");
        }
    }
}

#[tokio::test]
async fn a_waiting_fetch_wakes_when_records_come() {
    let node = TestNode::start().await;
    node.create("t", 2, &[]).await;
    let (mut consumer, mut producer) = (node.connect().await, node.connect().await);
    let request = request(&[("t", 0, 0), ("t", 1, 0)]).with_max_wait_ms(60_000);
    for base_offset in 0..20 {
        let mut waiting = request.clone();
        waiting.topics[0].partitions[0].fetch_offset = base_offset;
        consumer.send(ApiKey::Fetch, 11, &waiting).await;
        append(&mut producer, "t", batch(&["a"])).await;
        let began = Instant::now();
        let response: FetchResponse = consumer.receive(11).await;
        assert!(began.elapsed() < Duration::from_secs(30));
        assert_eq!(partitions(&response)[0].high_watermark, base_offset + 1);
        assert!(sizes(&response)[0] > 0);
    }
}

#[tokio::test]
async fn a_waiting_fetch_ends_with_its_time() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    append(&mut wire, "t", batch(&["a"])).await;
    // Nothing there; then something, but less than wanted.
    for (offset, min_bytes, some) in [(1, 1, false), (0, 1 << 20, true)] {
        let began = Instant::now();
        let request = request(&[("t", 0, offset)]).with_max_wait_ms(200).with_min_bytes(min_bytes);
        let response = fetch(&mut wire, 11, &request).await;
        assert!(began.elapsed() >= Duration::from_millis(200));
        assert_eq!(sizes(&response)[0] > 0, some);
    }
    // Whole batches may not reach min_bytes within the limits, though enough is there.
    append(&mut wire, "t", batch(&[&"x".repeat(500)])).await;
    let mut request = request(&[("t", 0, 0)]).with_max_wait_ms(60_000).with_min_bytes(300);
    request.topics[0].partitions[0].partition_max_bytes = 300;
    let response = fetch(&mut wire, 11, &request).await;
    assert_eq!(sizes(&response), [batch(&["a"]).len()]);
}

#[tokio::test]
async fn produce_and_fetch_overlap_and_answer_in_order() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    // A long poll ahead of the produce that ends it: the produce begins while the fetch waits.
    let waiting = request(&[("t", 0, 0)]).with_max_wait_ms(60_000);
    let produce = crate::produce::request("t", 0, batch(&["a"]));
    let mut frames = wire.frame(ApiKey::Fetch, 11, &waiting);
    frames.extend(wire.frame(ApiKey::Produce, 9, &produce));
    wire.raw(&frames).await;
    let response: FetchResponse = wire.receive(11).await;
    assert!(sizes(&response)[0] > 0);
    let response: vltava_protocol::messages::ProduceResponse = wire.receive(9).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

#[tokio::test]
async fn a_session_tells_only_what_is_new() {
    let node = TestNode::start().await;
    for topic in ["a", "b"] {
        node.create(topic, 1, &[]).await;
    }
    let mut wire = node.connect().await;
    append(&mut wire, "a", batch(&["1"])).await;
    let full = request(&[("a", 0, 0), ("b", 0, 0)]).with_session_epoch(0);
    let response = fetch(&mut wire, 12, &full).await;
    let id = response.session_id;
    assert!(id > 0);
    assert_eq!(partitions(&response).len(), 2);
    let next = |epoch, changes: &[(&str, i32, i64)]| {
        request(changes).with_session_id(id).with_session_epoch(epoch)
    };
    // The client moves on in "a"; nothing is new.
    let response = fetch(&mut wire, 12, &next(1, &[("a", 0, 1)])).await;
    assert_eq!((response.session_id, response.responses.len()), (id, 0));
    // Something is new in "b".
    append(&mut wire, "b", batch(&["1"])).await;
    let response = fetch(&mut wire, 12, &next(2, &[])).await;
    assert_eq!(&*response.responses[0].topic, "b");
    assert_eq!(response.responses.len(), 1);
    // "b" is forgotten: it is told no more.
    let forgotten = ForgottenTopic::default().with_topic(name("b")).with_partitions(vec![0]);
    let request = next(3, &[]).with_forgotten_topics_data(vec![forgotten]);
    let response = fetch(&mut wire, 12, &request).await;
    assert_eq!(response.responses.len(), 0);
    // Wrong epoch, unknown session: whole request, no partitions.
    for (id, epoch, code) in [(id, 9, 71), (id ^ 1, 4, 70)] {
        let request = next(epoch, &[]).with_session_id(id);
        let response = fetch(&mut wire, 12, &request).await;
        assert_eq!((response.error_code, response.session_id), (code, 0));
        assert_eq!(response.responses.len(), 0);
    }
    // The session was made by name; ids are another session's.
    let response = fetch(&mut wire, 13, &next(4, &[])).await;
    assert_eq!(response.error_code, 106);
    // Ended by the client: then it is unknown.
    fetch(&mut wire, 12, &next(-1, &[])).await;
    assert_eq!(fetch(&mut wire, 12, &next(4, &[])).await.error_code, 70);
}

#[tokio::test]
async fn pipelined_fetches_of_a_session_are_answered_one_after_another() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let (mut wire, mut producer) = (node.connect().await, node.connect().await);
    let full = request(&[("t", 0, 0)]).with_session_epoch(0);
    let id = fetch(&mut wire, 12, &full).await.session_id;
    // The first waits for a record; the others are sent without waiting for its answer.
    let next = |epoch| {
        let changes: &[_] = if epoch == 1 { &[] } else { &[("t", 0, 1)] };
        request(changes).with_session_id(id).with_session_epoch(epoch)
    };
    let mut frames = wire.frame(ApiKey::Fetch, 12, &next(1).with_max_wait_ms(60_000));
    for epoch in 2..10 {
        frames.extend(wire.frame(ApiKey::Fetch, 12, &next(epoch).with_max_wait_ms(1)));
    }
    wire.raw(&frames).await;
    append(&mut producer, "t", batch(&["a"])).await;
    for epoch in 1..10 {
        let response: FetchResponse = wire.receive(12).await;
        assert_eq!((response.error_code, response.session_id), (0, id), "epoch {epoch}");
        assert_eq!(sizes(&response).iter().any(|&bytes| bytes > 0), epoch == 1);
    }
}

#[tokio::test]
async fn epochs_are_checked() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    append(&mut wire, "t", batch(&["a"])).await;
    let epoch = BatchHeader::parse(&read(&mut wire, "t", 0).await).unwrap().leader_epoch.0;
    for (believed, code) in [(-1, 0), (epoch, 0), (epoch - 1, 74), (epoch + 1, 75)] {
        let mut request = request(&[("t", 0, 0)]);
        request.topics[0].partitions[0].current_leader_epoch = believed;
        let response = fetch(&mut wire, 16, &by_id(&node, request)).await;
        let partition = partitions(&response)[0];
        assert_eq!(partition.error_code, code, "{believed}");
        if code == 74 {
            assert_eq!(partition.current_leader.leader_epoch, epoch);
            assert_eq!(partition.current_leader.leader_id, BrokerId(1));
        }
    }
    // A client whose last record is of an epoch whose log ends before its offset has parted.
    let mut parted = request(&[("t", 0, 1)]);
    parted.topics[0].partitions[0].last_fetched_epoch = epoch;
    let response = fetch(&mut wire, 12, &parted).await;
    assert_eq!(partitions(&response)[0].diverging_epoch.epoch, -1);
    parted.topics[0].partitions[0].fetch_offset = 5;
    let response = fetch(&mut wire, 12, &parted).await;
    let diverging = &partitions(&response)[0].diverging_epoch;
    assert_eq!((diverging.epoch, diverging.end_offset), (epoch, 1));
    assert_eq!(sizes(&response), [0]);
}

fn by_id(node: &TestNode, mut request: FetchRequest) -> FetchRequest {
    let running = node.broker.node();
    for topic in &mut request.topics {
        topic.topic_id = running.controller.image().topic(&topic.topic).unwrap().id.0;
    }
    request
}

#[tokio::test]
async fn isolation_levels_and_replicas() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    append(&mut wire, "t", batch(&["a"])).await;
    let committed = request(&[("t", 0, 0)]).with_isolation_level(1);
    let response = fetch(&mut wire, 11, &committed).await;
    assert_eq!(partitions(&response)[0].aborted_transactions, Some(vec![]));
    assert!(sizes(&response)[0] > 0);
    let replica = request(&[("t", 0, 0)]).with_replica_id(BrokerId(2));
    let response = fetch(&mut wire, 11, &replica).await;
    assert_eq!(partitions(&response)[0].error_code, 29);
}

#[tokio::test]
async fn small_segments_are_read_across() {
    let node = TestNode::start().await;
    node.create("t", 1, &["internal.segment.bytes=500"]).await;
    let mut wire = node.connect().await;
    let records = batch(&["0123456789"]);
    for _ in 0..40 {
        append(&mut wire, "t", records.clone()).await;
    }
    for from in [0, 1, 17, 39] {
        let got = read(&mut wire, "t", from).await;
        assert_eq!(got.len(), (40 - from as usize) * records.len());
        let mut offsets =
            got.chunks(records.len()).map(|b| BatchHeader::parse(b).unwrap().base_offset.0);
        assert!(offsets.by_ref().eq(from..40));
    }
}
