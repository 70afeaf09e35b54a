//! How a record moves through a task: depth first, from operator to operator, by plain calls.
//!
//! A chain of operators is one type, so the compiler sees through all of it; a virtual call stands
//! only where a batch enters a chain and where a stream parts into several. What a record has
//! written is taken back when it fails on the way: a record comes out whole or not at all.

use vltava_protocol::ids::{Offset, Timestamp};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::record::{RecordError, Records};

use crate::format::{Format, Malformed};
use crate::outputs::Outputs;
use crate::record::{RawRecord, Record, Source};

/// Number of a node within its topology.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub usize);

/// Why a record went no further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Where.
    pub node: NodeId,
    /// What is wrong with it.
    pub cause: FaultCause,
}

/// What is wrong with a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FaultCause {
    /// Its bytes are not of the format that the node reads.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It names a topic that cannot exist.
    #[error("it is meant for a topic with an impossible name")]
    TopicName,
    /// It names one topic too many.
    #[error("its task writes to too many topics already")]
    TopicCount,
}

/// What went through a node since it was last asked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Meter {
    /// Records that came in.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Records that it refused.
    pub rejects: u64,
}

impl Meter {
    pub(crate) fn count(&mut self, record: &RawRecord<'_>) {
        self.records += 1;
        self.bytes +=
            (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.rejects += other.rejects;
    }
}

/// The meters of all nodes of a topology.
pub type Meters = Vec<Meter>;

/// What an operator may use beside its record.
pub struct Cx<'a> {
    /// Where records leave the task.
    pub outputs: &'a mut Outputs,
    /// The input record that everything is made of.
    pub origin: RawRecord<'a>,
}

/// An operator, and with it all that come after it.
pub trait Process<K: Format, V: Format>: Send {
    /// Takes one record.
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault>;

    /// Hands over the counts since the last time.
    fn report(&mut self, meters: &mut Meters);

    /// Takes the records of a batch. Provided, so that the loop is compiled into the chain.
    fn process_batch(&mut self, entry: Entry<K, V>, batch: &InputBatch<'_>, run: &mut Run<'_>) {
        for record in batch.records() {
            let raw = match record {
                Ok(raw) => raw,
                Err(error) => return run.stop(Stop::Batch(error)),
            };
            if raw.offset < run.from {
                continue;
            }
            run.at = raw.offset;
            run.taken.count(&raw);
            run.outputs.begin_record();
            let viewed = Record::new(entry.key, entry.value, raw);
            let done = viewed.map_err(|malformed| entry.fault(malformed)).and_then(|record| {
                self.process(record, &mut Cx { outputs: run.outputs, origin: raw })
            });
            if let Err(fault) = done {
                run.fail(&raw, fault.node, &fault.cause.to_string());
                if run.stop.is_some() {
                    return;
                }
            }
        }
    }
}

/// Where a chain begins: the node that reads the records, and through which formats.
#[derive(Clone, Copy, Debug)]
pub struct Entry<K, V> {
    /// The source's node.
    pub node: NodeId,
    /// The format of keys.
    pub key: K,
    /// The format of values.
    pub value: V,
}

impl<K, V> Entry<K, V> {
    fn fault(&self, malformed: Malformed) -> Fault {
        Fault { node: self.node, cause: malformed.into() }
    }
}

/// A batch of the log, its records uncompressed.
#[derive(Clone, Copy, Debug)]
pub struct InputBatch<'a> {
    /// The partition.
    pub source: &'a Source,
    /// The batch's header.
    pub header: &'a BatchHeader,
    /// Its records, uncompressed.
    pub payload: &'a [u8],
}

impl<'a> InputBatch<'a> {
    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = Result<RawRecord<'a>, RecordError>> + use<'a> {
        let Self { source, header, payload } = *self;
        Records::new(payload, header.record_count).map(move |record| {
            let record = record?;
            Ok(RawRecord {
                source,
                offset: header.base_offset + i64::from(record.offset_delta),
                timestamp: header.timestamp_of(record.timestamp_delta),
                key: record.key,
                value: record.value,
                headers: record.headers,
            })
        })
    }
}

/// What becomes of a record that fails in a node, or whose bytes are not of the format.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum OnFault {
    /// The task stops before the record, and stays there until it is started again.
    #[default]
    Stop,
    /// The record is counted and passed over.
    Skip,
    /// The record goes, its bytes unchanged and the reason in headers, to this topic.
    DeadLetter(String),
}

/// Why a task does not go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Stop {
    /// A record failed, and the topology says to stop.
    #[error("record at offset {offset} failed: {reason}")]
    Record {
        /// Which.
        offset: Offset,
        /// Where.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// A batch of the log is not one.
    #[error("a batch of the log cannot be read: {0}")]
    Batch(RecordError),
    /// A batch of the log cannot be inflated.
    #[error("a batch of the log cannot be inflated: {0}")]
    Compressed(String),
}

/// One pass of a batch through a chain.
pub struct Run<'r> {
    /// Where records leave the task.
    pub outputs: &'r mut Outputs,
    /// Records before this offset are done.
    pub from: Offset,
    /// The record under way.
    pub at: Offset,
    /// What was taken in.
    pub taken: Meter,
    /// The time, for the dead letters' headers.
    pub now: Timestamp,
    /// Faults, by node.
    pub faults: &'r mut Vec<u64>,
    /// What becomes of a record that fails.
    pub policy: &'r Policy,
    /// Set when the task must not go on.
    pub stop: Option<Stop>,
}

/// [`OnFault`], resolved for a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Policy {
    /// See [`OnFault::Stop`].
    Stop,
    /// See [`OnFault::Skip`].
    Skip,
    /// See [`OnFault::DeadLetter`].
    DeadLetter(crate::outputs::OutputId),
}

impl Run<'_> {
    /// Takes back what the record has written, and does with it what the policy says.
    pub(crate) fn fail(&mut self, record: &RawRecord<'_>, node: NodeId, reason: &str) {
        self.outputs.roll_back();
        self.faults[node.0] += 1;
        match self.policy {
            Policy::Stop => {
                let (offset, reason) = (record.offset, reason.to_owned());
                self.stop(Stop::Record { offset, node, reason });
            }
            Policy::Skip => {}
            Policy::DeadLetter(output) => self.outputs.write_letter(*output, record, node, reason),
        }
    }

    fn stop(&mut self, stop: Stop) {
        self.stop = Some(stop);
    }
}
