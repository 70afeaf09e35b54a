//! Idempotent producers that keep producing while the broker dies under them, and the audit of what
//! is there afterwards.
//!
//! Every record says who made it and which of its maker's records to that partition it is. So the
//! audit needs no log of attempts: a record acknowledged must be at its offset, a record must not
//! be there twice, and one maker's records must stand in the order of their numbers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use super::{RawClient, RawRecord, Tested, batch, requests};

/// How long the producers may take to deliver what is under way once the broker is up.
const FLUSH_DEADLINE: Duration = Duration::from_mins(1);
/// The pause after each record: thousands a second, so that a run of rounds stays small.
const PACE: Duration = Duration::from_micros(300);

/// One acknowledged record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Index into the load's topics.
    pub topic: usize,
    /// Its partition.
    pub partition: i32,
    /// Where the broker said it is.
    pub offset: i64,
    /// Who made it.
    pub maker: u32,
    /// How many records its maker had made before it.
    pub number: u64,
}

/// What all producers were told, in the order in which they heard it.
#[derive(Debug, Default)]
struct Ledger {
    acknowledged: Vec<Acknowledged>,
    failed: Vec<String>,
}

struct Context {
    topics: Arc<Vec<String>>,
    ledger: Arc<Mutex<Ledger>>,
}

impl ClientContext for Context {
    // A dying broker is the point of these tests: its clients need not report it.
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut ledger = self.ledger.lock().expect("no holder of the ledger panics");
        match result {
            Err((error, _)) => ledger.failed.push(error.to_string()),
            Ok(message) => {
                let topic = self.topics.iter().position(|topic| topic == message.topic());
                let parsed = message.payload().and_then(parse);
                let (Some(topic), Some((maker, number))) = (topic, parsed) else {
                    ledger.failed.push("delivery of a record that nobody made".into());
                    return;
                };
                let (partition, offset) = (message.partition(), message.offset());
                let record = Acknowledged { topic, partition, offset, maker, number };
                ledger.acknowledged.push(record);
            }
        }
    }
}

/// Producers at work; [`Load::finish`] stops them.
pub struct Load {
    topics: Arc<Vec<String>>,
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tested>>,
}

impl Load {
    /// Starts `makers` idempotent producers with acks=all over all partitions of all topics.
    pub fn start(bootstrap: &str, topics: &[String], partitions: i32, makers: u32) -> Tested<Load> {
        let topics = Arc::new(topics.to_vec());
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for maker in 0..makers {
            let context = Context { topics: Arc::clone(&topics), ledger: Arc::clone(&ledger) };
            let producer: ThreadedProducer<Context> = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("enable.idempotence", "true")
                .set("acks", "all")
                .set("linger.ms", "1")
                .set("batch.num.messages", "20")
                .set("message.timeout.ms", "120000")
                .set("reconnect.backoff.ms", "20")
                .set("reconnect.backoff.max.ms", "200")
                .set("retry.backoff.ms", "20")
                .set("queue.buffering.max.messages", "2000")
                .create_with_context(context)?;
            let (topics, stop) = (Arc::clone(&topics), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || {
                make(&producer, maker, &topics, partitions, &stop)
            }));
        }
        Ok(Load { topics, ledger, stop, threads })
    }

    /// How many records were acknowledged so far.
    pub fn count(&self) -> usize {
        self.ledger.lock().expect("no holder of the ledger panics").acknowledged.len()
    }

    /// A copy of what was acknowledged so far.
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        self.ledger.lock().expect("no holder of the ledger panics").acknowledged.clone()
    }

    /// Waits until `more` further records are acknowledged.
    ///
    /// Errors: the broker acknowledges nothing for too long.
    pub fn await_more(&self, more: usize, deadline: Duration) -> Tested {
        let (start, end) = (self.count(), Instant::now() + deadline);
        while self.count() < start + more {
            if Instant::now() >= end {
                let count = self.count() - start;
                return Err(Failed::from(format!("{count} of {more} records in {deadline:?}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Stops the producers, waits for what is under way, gives all that was acknowledged.
    ///
    /// Errors: a producer gave a record up, or was told that its sequence is broken.
    pub fn finish(self) -> Tested<Vec<Acknowledged>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a producer's thread panicked")??;
        }
        let ledger = self.ledger.lock().expect("no holder of the ledger panics");
        match ledger.failed.first() {
            None => Ok(ledger.acknowledged.clone()),
            Some(first) => {
                Err(Failed::from(format!("{} deliveries failed: {first}", ledger.failed.len())))
            }
        }
    }

    /// The topics that are produced to.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }
}

fn make(
    producer: &ThreadedProducer<Context>,
    maker: u32,
    topics: &[String],
    partitions: i32,
    stop: &AtomicBool,
) -> Tested {
    let key = maker.to_string();
    let mut number = 0_u64;
    'records: while !stop.load(Ordering::Relaxed) {
        for topic in topics {
            for partition in 0..partitions {
                let value = format!("{maker} {number} {}", "x".repeat(number as usize * 13 % 300));
                let mut record =
                    BaseRecord::to(topic).partition(partition).key(&key).payload(&value);
                while let Err((error, same)) = producer.send(record) {
                    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                        return Err(Failed::from(format!("maker {maker}: {error}")));
                    }
                    if stop.load(Ordering::Relaxed) {
                        break 'records;
                    }
                    record = same;
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(PACE);
            }
        }
        number += 1;
    }
    Ok(producer.flush(FLUSH_DEADLINE)?)
}

/// The maker and the number in a record's value.
pub fn parse(value: &[u8]) -> Option<(u32, u64)> {
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Reads everything and compares it with what was acknowledged: nothing lost, nothing twice,
/// offsets dense, each maker's records in order.
pub fn audit(
    bootstrap: &str,
    topics: &[String],
    partitions: i32,
    acknowledged: &[Acknowledged],
) -> Tested {
    let mut client = RawClient::connect(bootstrap)?;
    let mut found = HashMap::new();
    for (topic, name) in topics.iter().enumerate() {
        requests::await_leaders(&mut client, name, partitions)?;
        for partition in 0..partitions {
            let mut last_of_maker: HashMap<u32, u64> = HashMap::new();
            for (offset, record) in read(&mut client, name, partition)? {
                let value = record.value.unwrap_or_default();
                let made = parse(&value).ok_or(format!("{name} [{partition}] {offset}: torn"))?;
                if let Some(before) = last_of_maker.insert(made.0, made.1)
                    && before >= made.1
                {
                    return Err(Failed::from(format!(
                        "{name} [{partition}] {offset}: record {} of maker {} after {before}",
                        made.1, made.0
                    )));
                }
                found.insert((topic, partition, offset), made);
            }
        }
    }
    let lost = acknowledged.iter().filter(|record| {
        let at = (record.topic, record.partition, record.offset);
        found.get(&at) != Some(&(record.maker, record.number))
    });
    let lost: Vec<_> = lost.collect();
    match lost.first() {
        None => Ok(()),
        Some(first) => {
            let there = found.get(&(first.topic, first.partition, first.offset));
            let ends = (0..partitions).map(|partition| {
                let of_it = found.keys().filter(|at| (at.0, at.1) == (first.topic, partition));
                of_it.map(|at| at.2 + 1).max().unwrap_or_default()
            });
            Err(Failed::from(format!(
                "{} of {} acknowledged records lost, first {first:?}, there is {there:?}, ends {:?}",
                lost.len(),
                acknowledged.len(),
                ends.collect::<Vec<_>>()
            )))
        }
    }
}

/// All records of a partition with their offsets. Errors: a gap between two offsets.
pub fn read(client: &mut RawClient, topic: &str, partition: i32) -> Tested<Vec<(i64, RawRecord)>> {
    let mut records = Vec::new();
    let mut next = 0;
    loop {
        let mut request = requests::fetch_request(topic, next);
        request.topics[0].partitions[0].partition = partition;
        let answer = requests::fetch_with(client, &request)?;
        if answer.error_code != 0 {
            let code = answer.error_code;
            return Err(Failed::from(format!("{topic} [{partition}] {next}: error {code}")));
        }
        let batches = batch::split(&answer.records.unwrap_or_default())?;
        for batch in &batches {
            if batch.base_offset != next {
                let got = batch.base_offset;
                return Err(Failed::from(format!("{topic} [{partition}]: {got} follows {next}")));
            }
            for (record, offset) in batch.records()?.into_iter().zip(next..) {
                records.push((offset, record));
            }
            next = batch.end_offset();
        }
        if batches.is_empty() {
            let gap = next != answer.high_watermark;
            let end = answer.high_watermark;
            return if gap {
                Err(Failed::from(format!("{topic} [{partition}]: ends at {next}, not {end}")))
            } else {
                Ok(records)
            };
        }
    }
}
