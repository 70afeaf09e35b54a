//! The operator tables against a broker: what a client reads of their outputs is what the test
//! driver says, byte by byte, offsets, times and headers included.

use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed};
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use vltava::Broker;
use vltava_protocol::ids::Timestamp;
use vltava_streams::testing::{TestDriver, TestRecord};
use vltava_streams::{Pipeline, PipelineStatus};
use vltava_tests::harness::{RawClient, Tested, now_ms, requests};

use super::readers;
use super::tables::{TABLES, Table};

/// How long a pipeline may take until it has read everything, and a producer to send it.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often a pipeline is asked whether it is idle.
const ASK_INTERVAL: Duration = Duration::from_millis(5);

/// librdkafka reads what the driver says.
pub(crate) fn read_by_librdkafka() -> Tested {
    let played = play()?;
    let read = readers::librdkafka(&played.broker.bootstrap(), &played.topics)?;
    played.compare(&read);
    Ok(())
}

/// The Java client reads what the driver says.
pub(crate) fn read_by_java() -> Tested<Completion> {
    let played = play()?;
    match readers::java(&played.broker.bootstrap(), &played.topics)? {
        Ok(read) => played.compare(&read),
        Err(missing) => return missing.into_completion(),
    }
    Ok(Completion::Completed)
}

/// A broker whose pipelines have read everything, and what the driver says of their outputs.
struct Played {
    broker: Broker,
    topics: Vec<String>,
    expected: Vec<String>,
}

impl Played {
    fn compare(&self, read: &[String]) {
        for (read, expected) in read.iter().zip(&self.expected) {
            assert_eq!(read, expected);
        }
        assert_eq!(read.len(), self.expected.len());
        println!("{} records of {} topics are equal", read.len(), self.topics.len());
    }
}

fn play() -> Tested<Played> {
    let broker = Broker::ephemeral()?;
    let mut played = Played { broker, topics: Vec::new(), expected: Vec::new() };
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", played.broker.bootstrap())
        .set("enable.idempotence", "true")
        .set("linger.ms", "2")
        .set("batch.num.messages", "7")
        .create()?;
    // All times lie before now: a broker refuses those that are far ahead.
    let base = now_ms() - 3_600_000;
    for table in TABLES {
        create_topics(&played.broker, table)?;
        let pipeline = table.build().run_in(&played.broker)?;
        let mut driver = TestDriver::new(table.build().build()?);
        for (of, partitions) in table.topics {
            driver = driver.partitions(&table.topic(of), *partitions);
        }
        for (n, record) in (0..).zip((table.input)()) {
            let record = record.at(Timestamp(base + n * 1_000));
            send(&producer, &table.topic("in"), &record)?;
            driver.send(&table.topic("in"), record);
        }
        producer.flush(DEADLINE)?;
        let status = await_idle(&pipeline)?;
        let stopped = driver.stopped(&table.topic("in"), 0).map(ToString::to_string);
        let task = status.tasks.iter().find(|task| task.topic == table.topic("in"));
        let task = task.ok_or("a task of the input")?;
        assert_eq!(task.stopped, stopped, "{}", table.name);
        assert_eq!(stopped.is_some(), table.name == "stop", "{}: {stopped:?}", table.name);
        for (of, _) in table.topics {
            let topic = table.topic(of);
            let records = driver.read(&topic);
            assert!(!records.is_empty(), "{topic} has nothing to compare");
            played.expected.extend(readers::expected(&topic, &records)?);
            played.topics.push(topic);
        }
    }
    Ok(played)
}

fn create_topics(broker: &Broker, table: &Table) -> Tested {
    let mut client = RawClient::connect(&broker.bootstrap())?;
    for (of, partitions) in table.topics.iter().chain([&("in", 1)]) {
        let topic = table.topic(of);
        let request = requests::create_topic_request(&topic, *partitions, &[]);
        let created = client.call(7, &request)?;
        assert_eq!(created.topics[0].error_code, 0, "{topic}");
        requests::await_leaders(&mut client, &topic, *partitions)?;
    }
    Ok(())
}

fn send(producer: &BaseProducer, topic: &str, record: &TestRecord) -> Tested {
    let mut headers = OwnedHeaders::new();
    for (key, value) in &record.headers {
        headers = headers.insert(Header { key, value: value.as_ref() });
    }
    let time = record.timestamp.ok_or("every record has its time")?.0;
    let mut message =
        BaseRecord::<[u8], [u8]>::to(topic).partition(0).timestamp(time).headers(headers);
    message.key = record.key.as_deref();
    message.payload = record.value.as_deref();
    producer.send(message).map_err(|(error, _)| error)?;
    Ok(())
}

/// Waits until every task has read everything, or has stopped, and what it has made is committed.
fn await_idle(pipeline: &Pipeline) -> Tested<PipelineStatus> {
    let give_up = Instant::now() + DEADLINE;
    loop {
        let status = pipeline.status();
        let is_idle = status.tasks.iter().all(|task| {
            let is_through = task.lag == 0 || task.stopped.is_some();
            is_through && task.position == task.safe
        });
        if is_idle {
            return Ok(status);
        }
        if Instant::now() >= give_up {
            return Err(Failed::from(format!("not idle within {DEADLINE:?}: {status:?}")));
        }
        std::thread::sleep(ASK_INTERVAL);
    }
}
