//! A consumer group that keeps reading and committing while the broker dies under it, and what it
//! was promised: every commit that was acknowledged.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;
use libtest_mimic::Failed;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::{RawClient, Tested, requests};

/// How long a member may be silent.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Records that a member reads before it commits.
const RECORDS_PER_COMMIT: usize = 20;
/// What a broker answers while it loads a group.
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;

/// A partition, by the index of its topic.
type Place = (usize, i32);

/// What all members have seen and were told.
#[derive(Debug, Default)]
struct Ledger {
    /// The highest offset whose commit was acknowledged.
    committed: BTreeMap<Place, i64>,
    commits: usize,
    /// Every record that was read.
    read: HashSet<(usize, i32, i64)>,
}

/// Counts the rebalances that a member has seen.
#[derive(Default)]
struct Quiet(AtomicUsize);

impl ClientContext for Quiet {
    // A dying broker is the point of these tests: its clients need not report it.
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Members at work; [`Members::finish`] stops them.
pub struct Members {
    group: String,
    topics: Arc<Vec<String>>,
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tested>>,
}

impl Members {
    /// Starts `count` members of one group on all partitions of all topics.
    pub fn start(bootstrap: &str, group: &str, topics: &[String], count: usize) -> Tested<Members> {
        let topics = Arc::new(topics.to_vec());
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..count {
            let consumer: BaseConsumer<Quiet> = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("group.id", group)
                .set("enable.auto.commit", "false")
                .set("auto.offset.reset", "earliest")
                .set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string())
                .set("heartbeat.interval.ms", "500")
                .set("fetch.wait.max.ms", "50")
                .set("reconnect.backoff.ms", "20")
                .set("reconnect.backoff.max.ms", "200")
                .create_with_context(Quiet::default())?;
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            consumer.subscribe(&names)?;
            let (topics, ledger, stop) =
                (Arc::clone(&topics), Arc::clone(&ledger), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || work(&consumer, &topics, &ledger, &stop)));
        }
        Ok(Members { group: group.to_owned(), topics, ledger, stop, threads })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no holder of the ledger panics")
    }

    /// How many commits were acknowledged so far.
    pub fn commits(&self) -> usize {
        self.ledger().commits
    }

    /// Waits until `more` further commits are acknowledged.
    ///
    /// Errors: that takes longer than `deadline`.
    pub fn await_more(&self, more: usize, deadline: Duration) -> Tested {
        let start = self.commits();
        self.until(deadline, "commits", || self.commits() >= start + more)
    }

    /// Waits until the members have read all of these records.
    ///
    /// Errors: that takes longer than `deadline`.
    pub fn await_read(&self, records: &HashSet<(usize, i32, i64)>, deadline: Duration) -> Tested {
        self.until(deadline, "records", || records.is_subset(&self.ledger().read))
    }

    fn until(&self, deadline: Duration, what: &str, done: impl Fn() -> bool) -> Tested {
        let end = Instant::now() + deadline;
        while !done() {
            if Instant::now() >= end {
                let (commits, read) = (self.commits(), self.ledger().read.len());
                let text = format!("{what} missing after {deadline:?}: {commits} {read}");
                return Err(Failed::from(text));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// What was acknowledged up to now must be what the group would go on from.
    ///
    /// Errors: an acknowledged commit is lost.
    pub fn audit(&self, bootstrap: &str, promised: &BTreeMap<(usize, i32), i64>) -> Tested {
        let found = fetch(bootstrap, &self.group, &self.topics, promised)?;
        for (place, promised) in promised {
            let found = found.get(place).copied().unwrap_or(-1);
            if found < *promised {
                let text = format!("{place:?}: {promised} was acknowledged, {found} is there");
                return Err(Failed::from(text));
            }
        }
        Ok(())
    }

    /// The highest acknowledged commit of each partition up to now.
    pub fn promised(&self) -> BTreeMap<(usize, i32), i64> {
        self.ledger().committed.clone()
    }

    /// Stops the members; they leave the group.
    ///
    /// Errors: a member failed.
    pub fn finish(self) -> Tested {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a member's thread panicked")??;
        }
        Ok(())
    }
}

fn work(
    consumer: &BaseConsumer<Quiet>,
    topics: &[String],
    ledger: &Mutex<Ledger>,
    stop: &AtomicBool,
) -> Tested {
    let mut next: BTreeMap<Place, i64> = BTreeMap::new();
    let mut read = Vec::new();
    let mut rebalances = 0;
    while !stop.load(Ordering::Relaxed) {
        let polled = consumer.poll(Duration::from_millis(50));
        let seen = consumer.context().0.load(Ordering::Relaxed);
        if seen != rebalances {
            // What it read of partitions that are others' now is not its to commit.
            rebalances = seen;
            next.clear();
        }
        let is_idle = polled.is_none();
        // An error is the dying broker's; the client goes on by itself.
        if let Some(Ok(message)) = polled {
            let topic = topics.iter().position(|topic| topic == message.topic());
            let topic = topic.ok_or("a record of a topic that nobody reads")?;
            next.insert((topic, message.partition()), message.offset() + 1);
            read.push((topic, message.partition(), message.offset()));
        }
        if read.len() >= RECORDS_PER_COMMIT || is_idle && !read.is_empty() {
            commit(consumer, topics, std::mem::take(&mut next), ledger)?;
            let mut ledger = ledger.lock().expect("no holder of the ledger panics");
            ledger.read.extend(read.drain(..));
        }
    }
    Ok(())
}

/// Commits, and enters it into the ledger if it was acknowledged. One that was refused or is
/// unanswered promises nothing.
fn commit(
    consumer: &BaseConsumer<Quiet>,
    topics: &[String],
    next: BTreeMap<Place, i64>,
    ledger: &Mutex<Ledger>,
) -> Tested {
    let mut offsets = TopicPartitionList::new();
    for ((topic, partition), offset) in &next {
        offsets.add_partition_offset(&topics[*topic], *partition, Offset::Offset(*offset))?;
    }
    if next.is_empty() || consumer.commit(&offsets, CommitMode::Sync).is_err() {
        return Ok(());
    }
    let mut ledger = ledger.lock().expect("no holder of the ledger panics");
    ledger.commits += 1;
    for (place, offset) in next {
        let known = ledger.committed.entry(place).or_insert(offset);
        *known = offset.max(*known);
    }
    Ok(())
}

/// The group's committed offsets of these partitions; waits while they are loaded.
fn fetch(
    bootstrap: &str,
    group: &str,
    topics: &[String],
    places: &BTreeMap<(usize, i32), i64>,
) -> Tested<BTreeMap<(usize, i32), i64>> {
    let mut client = RawClient::connect(bootstrap)?;
    let asked = topics.iter().enumerate().map(|(topic, name)| {
        let partitions = places.keys().filter(|place| place.0 == topic).map(|place| place.1);
        OffsetFetchRequestTopics::default()
            .with_name(requests::topic_name(name))
            .with_partition_indexes(partitions.collect())
    });
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_member_epoch(-1)
        .with_topics(Some(asked.collect()));
    let request = OffsetFetchRequest::default().with_groups(vec![asked]);
    let end = Instant::now() + SESSION_TIMEOUT;
    loop {
        let response = client.call(9, &request)?;
        let answer = response.groups.into_iter().next().ok_or("no group in the response")?;
        match answer.error_code {
            0 => {
                let mut found = BTreeMap::new();
                for (topic, answer) in answer.topics.iter().enumerate() {
                    for partition in &answer.partitions {
                        let place = (topic, partition.partition_index);
                        found.insert(place, partition.committed_offset);
                    }
                }
                return Ok(found);
            }
            COORDINATOR_LOAD_IN_PROGRESS if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(5));
            }
            code => return Err(Failed::from(format!("OffsetFetch: error {code}"))),
        }
    }
}
