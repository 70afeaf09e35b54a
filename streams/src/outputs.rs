//! Where records leave a task: one batch builder for each partition that it writes to.
//!
//! A record's partition is its key's (Kafka's default, so that keys meet those of other producers);
//! records without key go to one partition after the other, a batch each. How many partitions a
//! topic has is told from outside; until it is, its records wait in a builder of their own.

use std::collections::HashMap;

use bytes::Bytes;
use vltava_protocol::ids::{PartitionIndex, Timestamp, TopicName};
use vltava_protocol::record::builder::{BatchBuilder, BatchFields, Mark};
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::partitioner::partition_of_key;
use vltava_protocol::record::record::{Header, Headers, Record as WireRecord, Records};

use crate::process::NodeId;
use crate::record::RawRecord;

/// Topics that one task may write to: more is a mistake in the name of a topic.
pub(crate) const TOPICS_MAX: usize = 10_000;
/// A batch is closed once it is so large; topics take batches up to about 1 MiB by default.
pub(crate) const BATCH_BYTES: usize = 256 << 10;

/// The header of a dead letter or a reject that says why.
pub const REASON_HEADER: &str = "vltava.reason";
/// The header that says which node refused the record.
pub const NODE_HEADER: &str = "vltava.node";
/// The header with topic, partition and offset of the input record, as `topic/partition/offset`.
pub const ORIGIN_HEADER: &str = "vltava.origin";

/// Number of a topic among those of a task.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OutputId(usize);

/// A batch on its way to a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutputBatch {
    /// The topic.
    pub topic: TopicName,
    /// Which of its partitions.
    pub partition: PartitionIndex,
    /// The batch, as a producer sends it.
    pub bytes: Bytes,
    /// Records in it.
    pub records: u32,
    /// The time of the first of its records.
    pub first_timestamp: Timestamp,
}

/// See the module.
#[derive(Debug)]
pub struct Outputs {
    topics: Vec<Topic>,
    by_name: HashMap<String, OutputId>,
    node_names: Vec<String>,
    /// Batches that were full before anybody asked for them.
    closed: Vec<OutputBatch>,
    /// What the present record has written to, and how far that was before.
    touched: Vec<(OutputId, usize, Mark, Timestamp)>,
    /// Number of the present record.
    record: u64,
}

#[derive(Debug)]
struct Topic {
    name: TopicName,
    /// One a partition; one for all while their number is not known.
    slots: Vec<Slot>,
    is_known: bool,
    /// Where the next batch without keys goes.
    sticky: usize,
}

#[derive(Debug)]
struct Slot {
    builder: BatchBuilder,
    /// Of the first record in the builder.
    first_timestamp: Timestamp,
    /// The last record that wrote here.
    record: u64,
}

impl Slot {
    fn new() -> Self {
        let builder = BatchBuilder::new(Codec::None, None);
        Self { builder, first_timestamp: Timestamp::NONE, record: 0 }
    }
}

impl Outputs {
    /// No outputs yet, of a topology whose nodes have these names.
    pub(crate) fn new(node_names: Vec<String>) -> Self {
        Self {
            topics: Vec::new(),
            by_name: HashMap::new(),
            node_names,
            closed: Vec::new(),
            touched: Vec::new(),
            record: 0,
        }
    }

    /// The output of a topic; `None` where its name is impossible, or there are too many.
    pub(crate) fn topic(&mut self, name: &str) -> Option<OutputId> {
        if let Some(&id) = self.by_name.get(name) {
            return Some(id);
        }
        if self.topics.len() >= TOPICS_MAX || TopicName::validate(name).is_err() {
            return None;
        }
        let id = OutputId(self.topics.len());
        let slots = vec![Slot::new()];
        self.topics.push(Topic { name: TopicName::new(name), slots, is_known: false, sticky: 0 });
        self.by_name.insert(name.to_owned(), id);
        Some(id)
    }

    /// Whether no more topics fit.
    pub(crate) fn is_full(&self) -> bool {
        self.topics.len() >= TOPICS_MAX
    }

    /// The topics whose partitions nobody has told.
    pub fn unknown(&self) -> impl Iterator<Item = &TopicName> {
        self.topics.iter().filter(|topic| !topic.is_known).map(|topic| &topic.name)
    }

    /// The topics whose partitions were told.
    pub(crate) fn known(&self) -> impl Iterator<Item = &TopicName> {
        self.topics.iter().filter(|topic| topic.is_known).map(|topic| &topic.name)
    }

    /// Tells how many partitions a topic has. Records that waited for it are dealt out. Where it is
    /// known already, the topic has grown: keys go where all producers send them from now on.
    pub fn set_partitions(&mut self, name: &TopicName, partitions: i32) {
        let Some(&id) = self.by_name.get(name.as_str()) else { return };
        let Ok(count @ 1..) = usize::try_from(partitions) else { return };
        let topic = &mut self.topics[id.0];
        if topic.is_known {
            let count = count.max(topic.slots.len());
            topic.slots.resize_with(count, Slot::new);
            return;
        }
        topic.is_known = true;
        let waiting =
            std::mem::replace(&mut topic.slots, (0..count).map(|_| Slot::new()).collect());
        let [mut waiting] = <[Slot; 1]>::try_from(waiting).expect("an unknown topic has one slot");
        if waiting.builder.is_empty() {
            return;
        }
        let batch = waiting.builder.build(&BatchFields::default());
        let batch = batch.expect("nothing is compressed");
        let (header, payload) = crate::task::split(&batch).expect("it was just built");
        for record in Records::new(payload, header.record_count) {
            let record = record.expect("it was just built");
            self.begin_record();
            let timestamp = header.timestamp_of(record.timestamp_delta);
            self.write(id, timestamp, record.key, record.value, record.headers);
        }
        self.begin_record();
    }

    /// A record begins: what it writes can be taken back until the next one does. Batches that the
    /// one before has filled are closed.
    #[inline]
    pub(crate) fn begin_record(&mut self) {
        self.record += 1;
        while let Some((id, at, ..)) = self.touched.pop() {
            let topic = &mut self.topics[id.0];
            if topic.is_known && topic.slots[at].builder.bytes() >= BATCH_BYTES {
                self.closed.push(topic.close(at));
            }
        }
    }

    /// Takes back what the present record has written.
    pub(crate) fn roll_back(&mut self) {
        for (id, slot, mark, first_timestamp) in self.touched.drain(..).rev() {
            let slot = &mut self.topics[id.0].slots[slot];
            slot.builder.truncate(mark);
            slot.first_timestamp = first_timestamp;
            slot.record = 0;
        }
    }

    /// Adds a record to its partition's batch.
    #[inline]
    pub(crate) fn write(
        &mut self,
        id: OutputId,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers<'_>,
    ) {
        let builder = self.open(id, timestamp, key);
        let record =
            WireRecord { attributes: 0, timestamp_delta: 0, offset_delta: 0, key, value, headers };
        builder.append_record(builder.record_count(), timestamp, &record);
    }

    /// Adds a refused record: its bytes as they came, and why in the headers.
    pub(crate) fn write_letter(
        &mut self,
        id: OutputId,
        record: &RawRecord<'_>,
        node: NodeId,
        reason: &str,
    ) {
        let source = record.source;
        let origin = format!("{}/{}/{}", source.topic, source.partition, record.offset);
        let name = self.node_names[node.0].clone();
        let added = [
            (REASON_HEADER, reason),
            (NODE_HEADER, name.as_str()),
            (ORIGIN_HEADER, origin.as_str()),
        ];
        let added =
            added.map(|(key, value)| Header { key: key.as_bytes(), value: Some(value.as_bytes()) });
        let headers: Vec<_> = record.headers.iter().chain(added).collect();
        let builder = self.open(id, record.timestamp, record.key);
        builder.append(record.timestamp, record.key, record.value, &headers);
    }

    /// The builder that a record goes to, remembered so that the record can be taken back.
    #[inline]
    fn open(
        &mut self,
        id: OutputId,
        timestamp: Timestamp,
        key: Option<&[u8]>,
    ) -> &mut BatchBuilder {
        let topic = &mut self.topics[id.0];
        let count = topic.slots.len();
        let at = match key {
            _ if count == 1 => 0,
            Some(key) => partition_of_key(key, count as i32).0 as usize,
            None => topic.sticky,
        };
        let slot = &mut topic.slots[at];
        if slot.record != self.record {
            slot.record = self.record;
            self.touched.push((id, at, slot.builder.mark(), slot.first_timestamp));
        }
        if slot.builder.is_empty() {
            slot.first_timestamp = timestamp;
        }
        &mut slot.builder
    }

    /// Closes all batches and moves them to `batches`. Not within a record. Topics whose partitions
    /// are unknown keep theirs.
    pub fn close(&mut self, batches: &mut Vec<OutputBatch>) {
        self.begin_record();
        batches.append(&mut self.closed);
        for topic in self.topics.iter_mut().filter(|topic| topic.is_known) {
            for at in 0..topic.slots.len() {
                if !topic.slots[at].builder.is_empty() {
                    batches.push(topic.close(at));
                }
            }
        }
    }
}

impl Topic {
    fn close(&mut self, at: usize) -> OutputBatch {
        let slot = &mut self.slots[at];
        let records = slot.builder.record_count() as u32;
        let bytes = slot.builder.build(&BatchFields::default()).expect("nothing is compressed");
        let first_timestamp = std::mem::replace(&mut slot.first_timestamp, Timestamp::NONE);
        if at == self.sticky {
            self.sticky = (at + 1) % self.slots.len();
        }
        let partition = PartitionIndex(at as i32);
        OutputBatch { topic: self.name.clone(), partition, bytes, records, first_timestamp }
    }
}
