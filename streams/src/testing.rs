//! Tests of pipelines, without a broker: the same topology, on time that only moves when told.
//!
//! A [`TestDriver`] holds every topic in memory. A record that is sent goes all the way through
//! before `send` returns, also through topics that the topology both writes and reads. Nothing
//! depends on threads or clocks, so a test gives the same result every time.
//!
//! ```
//! use vltava_streams::testing::{TestDriver, TestRecord};
//! use vltava_streams::{Topology, utf8};
//!
//! let shouts = Topology::new("shouts");
//! shouts
//!     .stream("words", (utf8(), utf8()))
//!     .map_values(utf8(), |word, out| {
//!         out.text(&word.value.to_uppercase());
//!     })
//!     .to("shouts");
//!
//! let mut driver = TestDriver::new(shouts.build()?);
//! driver.send("words", TestRecord::new("k", "ahoj"));
//! let shouts = driver.read("shouts");
//! assert_eq!(shouts[0].value_text(), Some("AHOJ"));
//! # Ok::<(), vltava_streams::BuildError>(())
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::ids::{Offset, PartitionIndex, Timestamp, TopicName};
use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::partitioner::partition_of_key;
use vltava_protocol::record::record::{Header, Records};

use crate::outputs::OutputBatch;
use crate::process::{Meters, Stop};
use crate::record::Source;
use crate::task::{StreamTask, split};
use crate::topology::Program;

/// A record with everything of its own.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TestRecord {
    /// Absent, or bytes.
    pub key: Option<Vec<u8>>,
    /// Absent, or bytes.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its time; the driver's where none is given.
    pub timestamp: Option<Timestamp>,
    /// Its partition; chosen by the key where none is given.
    pub partition: Option<PartitionIndex>,
}

impl TestRecord {
    /// A record with key and value.
    pub fn new(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        let key = Some(key.as_ref().to_vec());
        Self { key, value: Some(value.as_ref().to_vec()), ..Self::default() }
    }

    /// A record without key.
    pub fn keyless(value: impl AsRef<[u8]>) -> Self {
        Self { value: Some(value.as_ref().to_vec()), ..Self::default() }
    }

    /// The same record with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), Some(value.as_ref().to_vec())));
        self
    }

    /// The same record at another time.
    #[must_use]
    pub fn at(self, timestamp: Timestamp) -> Self {
        Self { timestamp: Some(timestamp), ..self }
    }

    /// The same record in a partition of the caller's choice.
    #[must_use]
    pub fn to_partition(self, partition: PartitionIndex) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// The key, if it is text.
    pub fn key_text(&self) -> Option<&str> {
        std::str::from_utf8(self.key.as_deref()?).ok()
    }

    /// The value, if it is text.
    pub fn value_text(&self) -> Option<&str> {
        std::str::from_utf8(self.value.as_deref()?).ok()
    }

    /// The value of a header, if it is there and text.
    pub fn header_text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

/// See the module.
#[derive(Debug)]
pub struct TestDriver {
    program: Program,
    tasks: BTreeMap<(TopicName, PartitionIndex), StreamTask>,
    topics: BTreeMap<TopicName, Topic>,
    now: Timestamp,
}

#[derive(Debug)]
struct Topic {
    /// The batches of each partition, and where it ends.
    partitions: Vec<(Vec<Bytes>, Offset)>,
    /// What nobody has read yet.
    unread: Vec<TestRecord>,
}

impl TestDriver {
    /// A driver at time 0. Topics have one partition where they are not told otherwise.
    pub fn new(program: Program) -> Self {
        let (tasks, topics) = (BTreeMap::new(), BTreeMap::new());
        Self { program, tasks, topics, now: Timestamp(0) }
    }

    /// Creates a topic with so many partitions.
    ///
    /// # Panics
    /// When the topic exists, or the number is not positive.
    #[must_use]
    pub fn partitions(mut self, topic: &str, partitions: i32) -> Self {
        assert!(partitions > 0, "a topic has a partition");
        let name = TopicName::new(topic);
        assert!(!self.topics.contains_key(&name), "topic {topic} exists");
        self.create(&name, partitions);
        self
    }

    /// Lets time pass.
    pub fn advance(&mut self, time: Duration) {
        self.now.0 +=
            i64::try_from(time.as_millis()).expect("a test ends before the year 292 million");
    }

    /// The driver's time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Sends a record, and runs it and all that comes of it through the topology.
    ///
    /// # Panics
    /// When the record names a partition that its topic does not have.
    #[allow(clippy::needless_pass_by_value)] // It reads best where it is called.
    pub fn send(&mut self, topic: &str, record: TestRecord) {
        let name = TopicName::new(topic);
        self.create(&name, 1);
        let count = self.topics[&name].partitions.len() as i32;
        let partition = record.partition.unwrap_or_else(|| {
            record.key.as_deref().map_or(PartitionIndex(0), |key| partition_of_key(key, count))
        });
        let mut builder = BatchBuilder::new(Codec::None, None);
        let headers: Vec<_> = record.headers.iter().map(wire_header).collect();
        let timestamp = record.timestamp.unwrap_or(self.now);
        builder.append(timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
        let bytes = builder.build(&BatchFields::default()).expect("nothing is compressed");
        self.append(&name, partition, &bytes);
        self.run();
    }

    /// The records that came to `topic` since it was last read, in the order in which they came.
    pub fn read(&mut self, topic: &str) -> Vec<TestRecord> {
        let topic = self.topics.get_mut(&TopicName::new(topic));
        topic.map_or_else(Vec::new, |topic| std::mem::take(&mut topic.unread))
    }

    /// Why the task of a partition has stopped, if it has.
    pub fn stopped(&self, topic: &str, partition: i32) -> Option<&Stop> {
        self.tasks.get(&(TopicName::new(topic), PartitionIndex(partition)))?.stopped()
    }

    /// What went through each node of the topology since the last call, in all tasks.
    pub fn meters(&mut self) -> Meters {
        let mut sum = vec![crate::Meter::default(); self.program.nodes().len()];
        for task in self.tasks.values_mut() {
            sum.iter_mut().zip(task.meters()).for_each(|(sum, meter)| sum.add(meter));
        }
        sum
    }

    /// Starts all tasks anew from the beginning of their topics, as after a crash before the first
    /// commit: outputs come again.
    pub fn restart(&mut self) {
        self.tasks.clear();
        let topics: Vec<_> = self.topics.keys().cloned().collect();
        for topic in &topics {
            self.start_tasks(topic);
        }
        self.run();
    }

    fn create(&mut self, name: &TopicName, partitions: i32) {
        if self.topics.contains_key(name) {
            return;
        }
        let partitions = vec![(Vec::new(), Offset::ZERO); partitions as usize];
        self.topics.insert(name.clone(), Topic { partitions, unread: Vec::new() });
        self.start_tasks(name);
    }

    fn start_tasks(&mut self, name: &TopicName) {
        if !self.program.topics().contains(name) {
            return;
        }
        for partition in 0..self.topics[name].partitions.len() {
            let partition = PartitionIndex(partition as i32);
            let source = Source { topic: name.clone(), partition };
            let task = self.program.task(source, Offset::ZERO);
            self.tasks.insert((name.clone(), partition), task);
        }
    }

    fn append(&mut self, name: &TopicName, partition: PartitionIndex, batch: &Bytes) {
        let topic = self.topics.get_mut(name).expect("the caller has created it");
        let slot = topic.partitions.get_mut(partition.0 as usize);
        let (batches, end) = slot.expect("the partition is the topic's");
        let (mut header, payload) = split(batch).expect("a builder has built it");
        for record in Records::new(payload, header.record_count) {
            let record = record.expect("a builder has built it");
            topic.unread.push(TestRecord {
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record.headers.iter().map(test_header).collect(),
                timestamp: Some(header.timestamp_of(record.timestamp_delta)),
                partition: Some(partition),
            });
        }
        header.base_offset = *end;
        *end = header.end_offset();
        let mut placed = batch.to_vec();
        header.write(&mut placed);
        batches.push(placed.into());
    }

    /// Runs all tasks until none has anything to do.
    fn run(&mut self) {
        loop {
            let mut outputs = Vec::new();
            let mut unknown = Vec::new();
            for ((topic, partition), task) in &mut self.tasks {
                let (batches, end) = &self.topics[topic].partitions[partition.0 as usize];
                if task.position() < *end {
                    for batch in batches {
                        task.feed(batch, self.now);
                    }
                }
                unknown.extend(task.unknown_topics().cloned());
                task.take_outputs(&mut outputs);
            }
            for topic in &unknown {
                self.create(topic, 1);
                let count = self.topics[topic].partitions.len() as i32;
                self.tasks.values_mut().for_each(|task| task.set_partitions(topic, count));
            }
            if outputs.is_empty() && unknown.is_empty() {
                return;
            }
            for OutputBatch { topic, partition, bytes, .. } in outputs {
                self.append(&topic, partition, &bytes);
            }
        }
    }
}

fn wire_header((name, value): &(String, Option<Vec<u8>>)) -> Header<'_> {
    Header { key: name.as_bytes(), value: value.as_deref() }
}

fn test_header(header: Header<'_>) -> (String, Option<Vec<u8>>) {
    let name = String::from_utf8_lossy(header.key).into_owned();
    (name, header.value.map(<[u8]>::to_vec))
}
