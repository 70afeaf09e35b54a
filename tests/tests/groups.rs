//! Groups of real clients: members share partitions, and what one leaves behind the others finish.
//!
//! librdkafka's members (`rdkafka`) and one over a raw socket that falls silent without a word, as
//! a process that is killed or a machine that is cut off.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use libtest_mimic::Failed;
use parking_lot::Mutex;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use vltava_tests::harness::batch::RawBatch;
use vltava_tests::harness::{self, Broker, BrokerOptions, RawClient, Tested, now_ms, requests};

const PARTITIONS: i32 = 6;
const RECORDS: i32 = 50;
const DEADLINE: Duration = Duration::from_mins(1);
/// The least that the broker allows.
const SESSION_MS: i32 = 6_000;
const REBALANCE_IN_PROGRESS: i16 = 27;

fn main() -> ExitCode {
    let trial = harness::trial("a_silent_member_loses_its_partitions_to_the_others", || {
        let options = BrokerOptions::new(env!("CARGO_BIN_EXE_vltava-under-test"))
            .set("group.initial.rebalance.delay.ms", "500");
        let broker = Broker::start(options)?;
        silent_member(broker.bootstrap()).map_err(|failed| {
            let message = failed.message().unwrap_or("no message");
            Failed::from(format!("{message}\n--- broker\n{}", broker.stderr_tail()))
        })
    });
    harness::run(vec![trial], 1)
}

fn silent_member(bootstrap: &str) -> Tested {
    let mut client = RawClient::connect(bootstrap)?;
    let topic = requests::create_topic(&mut client, "shared", PARTITIONS, &[])?;
    fill(&mut client, &topic)?;
    let group = requests::unique("group");
    let stop = Arc::new(AtomicBool::new(false));
    let read = Read::default();
    let join = |_| member(bootstrap, &group, &topic, &stop, &read);
    let members: Vec<_> = (0..2).map(join).collect();
    // The first to come leads, and assigns: not the one that is about to fall silent.
    await_owners(&mut client, &group, 2, Instant::now() + DEADLINE)?;
    let mut silent = join_silently(bootstrap, &group, &topic)?;
    assert_eq!(silent.assigned.len(), 2, "each of three members has two of six partitions");
    // It lives for a while, and keeps what it has.
    for _ in 0..3 {
        assert_eq!(silent.heartbeat()?, 0, "the group is stable");
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(silent.client);
    let fallen = Instant::now();
    let all: BTreeSet<i32> = (0..PARTITIONS).collect();
    await_owners(&mut client, &group, 2, fallen + DEADLINE)?;
    let took = fallen.elapsed();
    assert!(took >= Duration::from_millis(SESSION_MS as u64 - 1_000), "only after {took:?}");

    // What it had not read is read now, from the beginning: it had committed nothing.
    let wanted: BTreeSet<_> =
        all.iter().flat_map(|&p| (0..i64::from(RECORDS)).map(move |offset| (p, offset))).collect();
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end && read.lock().len() < wanted.len() {
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    for member in members {
        member.join().map_err(|_| "a member's thread panicked")??;
    }
    assert_eq!(*read.lock(), wanted);
    await_owners(&mut client, &group, 0, Instant::now() + DEADLINE)
}

fn fill(client: &mut RawClient, topic: &str) -> Tested {
    for partition in 0..PARTITIONS {
        let records = RawBatch::of(RECORDS, now_ms()).encode();
        let request = requests::produce_request(topic, partition, -1, records);
        let response = client.call(requests::PRODUCE_VERSION, &request)?;
        let code = response.responses[0].partition_responses[0].error_code;
        assert_eq!(code, 0, "produce to {partition}");
    }
    Ok(())
}

/// The partitions and offsets that members have read.
type Read = Arc<Mutex<BTreeSet<(i32, i64)>>>;

/// A member of librdkafka that reads and commits until it is told to stop.
fn member(
    bootstrap: &str,
    group: &str,
    topic: &str,
    stop: &Arc<AtomicBool>,
    read: &Read,
) -> JoinHandle<Tested> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", SESSION_MS.to_string())
        .set("heartbeat.interval.ms", "200")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest");
    let (topic, stop, read) = (topic.to_owned(), Arc::clone(stop), Arc::clone(read));
    std::thread::spawn(move || {
        let consumer: BaseConsumer = config.create()?;
        consumer.subscribe(&[&topic])?;
        while !stop.load(Ordering::Relaxed) {
            if let Some(message) = consumer.poll(Duration::from_millis(50)) {
                let message = message?;
                read.lock().insert((message.partition(), message.offset()));
                // In a rebalance it is refused; whoever reads next reads it again.
                let _ = consumer.commit_message(&message, CommitMode::Sync);
            }
        }
        Ok(())
    })
}

/// A member over a raw socket.
struct Silent {
    client: RawClient,
    group: String,
    member_id: StrBytes,
    generation: i32,
    assigned: BTreeSet<i32>,
}

impl Silent {
    fn heartbeat(&mut self) -> Tested<i16> {
        let request = HeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_member_id(self.member_id.clone())
            .with_generation_id(self.generation);
        Ok(self.client.call(3, &request)?.error_code)
    }
}

/// Joins, again for as long as the others still come, until all three are in one generation.
fn join_silently(bootstrap: &str, group: &str, topic: &str) -> Tested<Silent> {
    let mut client = RawClient::connect(bootstrap)?;
    let find = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
    assert_eq!(client.call(3, &find)?.error_code, 0);
    let mut member_id = StrBytes::default();
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        let joined = client.call(5, &join(group, &member_id, topic))?;
        member_id = joined.member_id.clone();
        if joined.error_code != 0 {
            // The id that it is to join with, or a coordinator that loads.
            assert!([79, 14].contains(&joined.error_code), "{joined:?}");
            continue;
        }
        assert_ne!(joined.leader, member_id, "the last to come does not lead");
        let sync = SyncGroupRequest::default()
            .with_group_id(group_id(group))
            .with_member_id(member_id.clone())
            .with_generation_id(joined.generation_id);
        let synced = client.call(3, &sync)?;
        let assigned = match synced.error_code {
            0 => partitions(synced.assignment)?,
            REBALANCE_IN_PROGRESS => continue,
            code => return Err(Failed::from(format!("SyncGroup: error {code}"))),
        };
        let generation = joined.generation_id;
        let group = group.to_owned();
        let mut silent = Silent { client, group, member_id, generation, assigned };
        if silent.assigned.len() == 2 {
            return Ok(silent);
        }
        while silent.heartbeat()? == 0 {
            std::thread::sleep(Duration::from_millis(50));
        }
        Silent { client, member_id, .. } = silent;
    }
    Err(Failed::from("three members did not come together"))
}

fn join(group: &str, member_id: &StrBytes, topic: &str) -> JoinGroupRequest {
    // ConsumerProtocolSubscription, version 0.
    let mut metadata = BytesMut::new();
    metadata.put_i16(0);
    metadata.put_i32(1);
    metadata.put_i16(topic.len() as i16);
    metadata.put_slice(topic.as_bytes());
    metadata.put_i32(-1);
    let range = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(metadata.freeze());
    JoinGroupRequest::default()
        .with_group_id(group_id(group))
        .with_member_id(member_id.clone())
        .with_session_timeout_ms(SESSION_MS)
        .with_rebalance_timeout_ms(30_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![range])
}

/// The partitions of a `ConsumerProtocolAssignment` of one topic.
fn partitions(assignment: Bytes) -> Tested<BTreeSet<i32>> {
    use bytes::Buf;

    let mut rest = assignment;
    rest.try_get_i16()?;
    let mut found = BTreeSet::new();
    for _ in 0..rest.try_get_i32()? {
        let name = usize::try_from(rest.try_get_i16()?)?;
        rest.advance(name);
        for _ in 0..rest.try_get_i32()? {
            found.insert(rest.try_get_i32()?);
        }
    }
    Ok(found)
}

/// Waits until a stable group of `members` members owns each partition once, or an empty one none.
fn await_owners(client: &mut RawClient, group: &str, members: usize, end: Instant) -> Tested {
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
    while Instant::now() < end {
        let response = client.call(4, &request)?;
        let group = response.groups.first().ok_or("no group in the response")?;
        let state = if members == 0 { "Empty" } else { "Stable" };
        if &*group.group_state == state && group.members.len() == members {
            let mut owned = BTreeSet::new();
            for member in &group.members {
                for partition in partitions(member.member_assignment.clone())? {
                    assert!(owned.insert(partition), "{partition} has two owners");
                }
            }
            assert!(members == 0 || owned.len() == PARTITIONS as usize, "{owned:?}");
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(Failed::from(format!("{group} is not a group of {members}")))
}

fn group_id(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}
