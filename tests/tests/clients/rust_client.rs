//! librdkafka through the `rdkafka` crate, as our own users of Rust have it.

use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use vltava_tests::harness::{Broker, RawClient, Tested, now_ms, requests};

const PARTITIONS: i32 = 3;
const RECORDS: i32 = 300;
const DEADLINE: Duration = Duration::from_mins(1);

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

/// Every codec that this build of librdkafka has, every acks, idempotence.
pub(crate) fn exchange(broker: &Broker) -> Tested<Completion> {
    for (codec, acks, idempotent) in [
        ("none", "all", "false"),
        ("gzip", "all", "false"),
        ("snappy", "all", "false"),
        ("lz4", "all", "false"),
        ("none", "0", "false"),
        ("lz4", "1", "false"),
        ("none", "all", "true"),
        ("gzip", "all", "true"),
    ] {
        let topic = requests::unique(&format!("rust-{codec}-{acks}"));
        let run = || -> Tested {
            create(broker.bootstrap(), &topic)?;
            // With acks=0 a partition without a leader loses records without a word.
            let mut client = RawClient::connect(broker.bootstrap())?;
            requests::await_leaders(&mut client, &topic, PARTITIONS)?;
            let start = now_ms() - 3_600_000;
            produce(broker.bootstrap(), &topic, start, &[codec, acks, idempotent])?;
            read(broker.bootstrap(), &topic, start)
        };
        run().map_err(|failed| {
            let message = failed.message().unwrap_or("no message");
            Failed::from(format!("codec {codec}, acks {acks}, idempotent {idempotent}: {message}"))
        })?;
    }
    Ok(Completion::Completed)
}

fn create(bootstrap: &str, topic: &str) -> Tested {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(DEADLINE));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for result in runtime.block_on(admin.create_topics(&[new], &options))? {
        result.map_err(|(topic, code)| format!("creating {topic}: {code}"))?;
    }
    Ok(())
}

fn produce(bootstrap: &str, topic: &str, start: i64, settings: &[&str; 3]) -> Tested {
    let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
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

fn read(bootstrap: &str, topic: &str, start: i64) -> Tested {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
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
