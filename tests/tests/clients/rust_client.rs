//! librdkafka through the `rdkafka` crate, as our own users of Rust have it: a program of its own,
//! played by this test's executable, so that a member of a group can be killed.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use vltava_tests::harness::{RawClient, Tested, now_ms, requests};

const PARTITIONS: i32 = 3;
const RECORDS: i32 = 300;
const DEADLINE: Duration = Duration::from_mins(1);
/// Nothing is negotiated: the versions of this release are spoken.
const OLD: [(&str, &str); 2] =
    [("api.version.request", "false"), ("broker.version.fallback", "0.11.0")];

/// Plays the scene that the command line names.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let played = match words[..] {
        ["exchange", bootstrap] => exchange(bootstrap),
        ["member", bootstrap, group, topic, strategy, versions] => {
            member(bootstrap, group, topic, strategy, versions == "old")
        }
        ["describe", bootstrap, group, topic] => describe(bootstrap, group, topic),
        ["delete", bootstrap, group, topic] => delete(bootstrap, group, topic),
        _ => Err(Failed::from(format!("no such scene: {words:?}"))),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("{}", failed.message().unwrap_or("no message"));
            ExitCode::FAILURE
        }
    }
}

/// Settings that every client of this program has.
fn config(bootstrap: &str, old_versions: bool) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (key, value) in OLD.into_iter().filter(|_| old_versions) {
        config.set(key, value);
    }
    config
}

/// Counts what was delivered and keeps the first failure.
#[derive(Default)]
struct Deliveries(std::sync::Mutex<(i32, Option<String>)>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut state = self.0.lock().expect("no test thread panics while it holds this");
        match result {
            Ok(_) => state.0 += 1,
            Err((error, _)) => state.1 = Some(error.to_string()),
        }
    }
}

/// Every codec that this build of librdkafka has, every acks, idempotence, old versions.
fn exchange(bootstrap: &str) -> Tested {
    for (codec, acks, idempotent, old_versions) in [
        ("none", "all", "false", false),
        ("gzip", "all", "false", false),
        ("snappy", "all", "false", false),
        ("lz4", "all", "false", false),
        ("none", "0", "false", false),
        ("lz4", "1", "false", false),
        ("none", "all", "true", false),
        ("gzip", "all", "true", false),
        ("lz4", "all", "true", true),
        ("snappy", "1", "false", true),
    ] {
        let topic = requests::unique(&format!("rust-{codec}-{acks}"));
        let run = || -> Tested {
            create(bootstrap, &topic)?;
            // With acks=0 a partition without a leader loses records without a word.
            let mut client = RawClient::connect(bootstrap)?;
            requests::await_leaders(&mut client, &topic, PARTITIONS)?;
            let start = now_ms() - 3_600_000;
            let config = config(bootstrap, old_versions);
            produce(&config, &topic, start, &[codec, acks, idempotent])?;
            read(&config, &topic, start)
        };
        let what = format!("codec {codec}, acks {acks}, idempotent {idempotent}, {old_versions}");
        run().map_err(|failed| {
            let message = failed.message().unwrap_or("no message");
            Failed::from(format!("{what}: {message}"))
        })?;
        println!("ok {what}");
    }
    Ok(())
}

fn create(bootstrap: &str, topic: &str) -> Tested {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap, false).create()?;
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(DEADLINE));
    for result in block_on(admin.create_topics(&[new], &options))?? {
        result.map_err(|(topic, code)| format!("creating {topic}: {code}"))?;
    }
    Ok(())
}

fn produce(config: &ClientConfig, topic: &str, start: i64, settings: &[&str; 3]) -> Tested {
    let producer: ThreadedProducer<Deliveries> = config
        .clone()
        .set("compression.type", settings[0])
        .set("acks", settings[1])
        .set("enable.idempotence", settings[2])
        .set("linger.ms", "5")
        .create_with_context(Deliveries::default())?;
    for i in 0..RECORDS {
        let (key, value) = (key(i), value(i));
        let number = i.to_string();
        let record = BaseRecord::to(topic)
            .partition(i % PARTITIONS)
            .key(&key)
            .payload(&value)
            .timestamp(start + i64::from(i) * 1_000)
            .headers(OwnedHeaders::new().insert(Header { key: "number", value: Some(&number) }));
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(DEADLINE)?;
    let state = producer.context().0.lock().expect("no test thread panics while it holds this");
    assert_eq!(*state, (RECORDS, None));
    Ok(())
}

fn read(config: &ClientConfig, topic: &str, start: i64) -> Tested {
    let consumer: BaseConsumer = config
        .clone()
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        // Requests of one connection wait for each other, and a Fetch waits this long.
        .set("fetch.wait.max.ms", "10")
        .create()?;
    for partition in 0..PARTITIONS {
        let count = RECORDS / PARTITIONS;
        take(&consumer, topic, partition, 0..count, start)?;
        let ends = consumer.fetch_watermarks(topic, partition, DEADLINE)?;
        assert_eq!(ends, (0, i64::from(count)));
        take(&consumer, topic, partition, count / 2..count / 2 + 5, start)?;
        for n in [0, 1, count / 2, count - 1] {
            let exact = start + i64::from(n * PARTITIONS + partition) * 1_000;
            for asked in [exact, exact - 1] {
                let mut wanted = TopicPartitionList::new();
                wanted.add_partition_offset(topic, partition, Offset::Offset(asked))?;
                let found = consumer.offsets_for_times(wanted, DEADLINE)?;
                assert_eq!(found.elements()[0].offset(), Offset::Offset(i64::from(n)));
            }
        }
    }
    Ok(())
}

/// Reads the offsets `range` of one partition and compares everything.
fn take(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    range: std::ops::Range<i32>,
    start: i64,
) -> Tested {
    let mut assignment = TopicPartitionList::new();
    let from = Offset::Offset(i64::from(range.start));
    assignment.add_partition_offset(topic, partition, from)?;
    consumer.assign(&assignment)?;
    let end = Instant::now() + DEADLINE;
    for n in range {
        let message = loop {
            assert!(Instant::now() < end, "nothing at offset {n} of {topic} [{partition}]");
            if let Some(message) = consumer.poll(Duration::from_secs(1)) {
                break message?;
            }
        };
        let i = n * PARTITIONS + partition;
        assert_eq!(message.offset(), i64::from(n));
        assert_eq!(message.key(), Some(key(i).as_bytes()));
        assert_eq!(message.payload().unwrap_or_default(), value(i).as_bytes());
        let timestamp = message.timestamp().to_millis();
        assert_eq!(timestamp, Some(start + i64::from(i) * 1_000));
        let headers = message.headers().ok_or("no headers")?;
        let number = i.to_string();
        let expected = Header { key: "number", value: Some(number.as_bytes()) };
        assert_eq!((headers.count(), headers.get(0)), (1, expected));
    }
    Ok(())
}

fn key(i: i32) -> String {
    format!("key-{i}")
}

fn value(i: i32) -> String {
    format!("value-{i}-{}", "x".repeat(usize::try_from(i * 7 % 500).expect("not negative")))
}

/// Waits for one administrative call.
fn block_on<F: Future>(call: F) -> Tested<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(call))
}

/// Says what the member owns whenever that changes.
struct Ownership;

impl ClientContext for Ownership {}

impl ConsumerContext for Ownership {
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        let owned = consumer.assignment().map(|list| {
            let elements = list.elements();
            elements.iter().map(TopicPartitionListElem::partition).collect::<BTreeSet<_>>()
        });
        let numbers: Vec<String> =
            owned.unwrap_or_default().iter().map(ToString::to_string).collect();
        println!("assigned\t{}", numbers.join(","));
    }
}

fn member(bootstrap: &str, group: &str, topic: &str, strategy: &str, old: bool) -> Tested {
    let strategies = if strategy == "range" { "range" } else { "cooperative-sticky" };
    let consumer: BaseConsumer<Ownership> = config(bootstrap, old)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "500")
        .set("partition.assignment.strategy", strategies)
        .create_with_context(Ownership)?;
    consumer.subscribe(&[topic])?;
    let ended = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&ended);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        ends.store(true, Ordering::Release);
    });
    while !ended.load(Ordering::Acquire) {
        // Reads what is there, then commits all of it.
        let mut wait = Duration::from_millis(100);
        let mut uncommitted = false;
        while let Some(message) = consumer.poll(wait) {
            tell(&message?)?;
            (wait, uncommitted) = (Duration::ZERO, true);
        }
        if uncommitted {
            consumer.commit_consumer_state(CommitMode::Sync)?;
        }
    }
    Ok(())
}

fn tell(message: &BorrowedMessage<'_>) -> Tested {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"")).into_owned();
    let headers = message.headers().map(|headers| {
        let pairs = headers.iter().map(|header| format!("{}={}", header.key, text(header.value)));
        pairs.collect::<Vec<_>>().join(",")
    });
    let (partition, offset) = (message.partition(), message.offset());
    let at = message.timestamp().to_millis().ok_or("no timestamp")?;
    let (key, value) = (text(message.key()), text(message.payload()));
    let headers = headers.unwrap_or_default();
    println!("record\t{partition}\t{offset}\t{at}\t{key}\t{value}\t{headers}");
    Ok(())
}

fn describe(bootstrap: &str, group: &str, topic: &str) -> Tested {
    let consumer: BaseConsumer = config(bootstrap, false).set("group.id", group).create()?;
    let groups = consumer.fetch_group_list(Some(group), DEADLINE)?;
    let found = groups.groups().first().ok_or("the group is not listed")?;
    assert_eq!((found.state(), found.protocol_type()), ("Stable", "consumer"));
    assert_eq!(found.members().len(), 2);
    println!("ok describe group");

    let mut asked = TopicPartitionList::new();
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE)?;
    for partition in metadata.topics()[0].partitions() {
        asked.add_partition(topic, partition.id());
    }
    for committed in consumer.committed_offsets(asked, DEADLINE)?.elements() {
        let (_, end) = consumer.fetch_watermarks(topic, committed.partition(), DEADLINE)?;
        assert_eq!(committed.offset(), Offset::Offset(end));
    }
    println!("ok committed offsets");

    let admin: AdminClient<DefaultClientContext> = config(bootstrap, false).create()?;
    let options = AdminOptions::new().request_timeout(Some(DEADLINE));
    let read = || -> Tested<Option<String>> {
        let resource = ResourceSpecifier::Topic(topic);
        let described = block_on(admin.describe_configs([&resource], &options))??;
        let resource = described.into_iter().next().ok_or("no resource in the answer")?;
        let resource = resource.map_err(|code| format!("describing {topic}: {code}"))?;
        Ok(resource.get("retention.ms").and_then(|entry| entry.value.clone()))
    };
    // A broker may answer a change before it shows.
    let await_retention = |expected: &str| -> Tested {
        let end = Instant::now() + DEADLINE;
        while read()?.as_deref() != Some(expected) {
            assert!(Instant::now() < end, "retention.ms is not {expected}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    await_retention("604800000")?;
    // This binding knows the older call only, which replaces the whole configuration.
    let unchanged = || AlterConfig::new(ResourceSpecifier::Topic(topic));
    let hours = unchanged().set("retention.ms", "7200000");
    for (change, then) in [(hours, "7200000"), (unchanged(), "604800000")] {
        for result in block_on(admin.alter_configs([&change], &options))?? {
            result.map_err(|(resource, code)| format!("altering {resource:?}: {code}"))?;
        }
        await_retention(then)?;
    }
    println!("ok configs");
    Ok(())
}

fn delete(bootstrap: &str, group: &str, topic: &str) -> Tested {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap, false).create()?;
    let options = AdminOptions::new().operation_timeout(Some(DEADLINE));
    for result in block_on(admin.delete_groups(&[group], &options))?? {
        result.map_err(|(group, code)| format!("deleting {group}: {code}"))?;
    }
    let consumer: BaseConsumer = config(bootstrap, false).set("group.id", "unused").create()?;
    let listed = consumer.fetch_group_list(None, DEADLINE)?;
    assert!(listed.groups().iter().all(|listed| listed.name() != group), "still listed");
    println!("ok delete group");

    for result in block_on(admin.delete_topics(&[topic], &options))?? {
        result.map_err(|(topic, code)| format!("deleting {topic}: {code}"))?;
    }
    let metadata = consumer.fetch_metadata(None, DEADLINE)?;
    assert!(metadata.topics().iter().all(|listed| listed.name() != topic), "still listed");
    println!("ok delete topic");
    Ok(())
}
