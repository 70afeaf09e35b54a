//! A task of the stream runtime without a log: the same batches are fed again and again, as if the
//! log went on.

use bytes::{Bytes, BytesMut};
use vltava_protocol::ids::{Offset, PartitionIndex, TopicName};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::compression::Codec;
use vltava_streams::{OutputBatch, Source, StreamTask, Topology};

use crate::fixtures::{NOW, Values, batch_of};

/// The topic that is read.
pub const SOURCE: &str = "in";
/// The topic that is written; it has one partition.
pub const SINK: &str = "out";

/// Batches as a task reads them from the log.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The batches, their offsets from 0 on without a gap.
    pub bytes: Bytes,
    /// Records in them.
    pub records: u64,
    /// Where each batch begins.
    starts: Vec<usize>,
}

impl Chunk {
    /// So many batches of `batch_bytes` each. A task reads about a mebibyte at a time.
    ///
    /// # Panics
    /// When a batch does not hold one record.
    pub fn new(values: Values, batch_bytes: usize, batches: u64) -> Self {
        let (mut bytes, mut records, mut starts) = (BytesMut::new(), 0, Vec::new());
        for variant in 0..batches {
            let batch = batch_of(values, variant, batch_bytes, Codec::None);
            starts.push(bytes.len());
            bytes.extend_from_slice(&batch.bytes);
            records += batch.records;
        }
        let chunk = Self { bytes: Bytes::new(), records, starts };
        Self { bytes: chunk.moved(bytes, 0), ..chunk }
    }

    /// The batches with offsets from `base` on, as a log sets them: they stand outside of what the
    /// checksum covers.
    fn moved(&self, mut bytes: BytesMut, mut base: i64) -> Bytes {
        for start in &self.starts {
            let batch = &mut bytes[*start..];
            batch[..8].copy_from_slice(&base.to_be_bytes());
            base = BatchHeader::parse(batch).expect("it was just built").end_offset().0;
        }
        bytes.freeze()
    }
}

/// A task, and what it is fed.
#[derive(Debug)]
pub struct Feeder {
    task: StreamTask,
    chunk: Chunk,
    outputs: Vec<OutputBatch>,
}

impl Feeder {
    /// A task of a topology that reads [`SOURCE`] and writes [`SINK`].
    ///
    /// # Panics
    /// When the topology has a mistake.
    pub fn new(topology: Topology, chunk: Chunk) -> Self {
        let program = topology.build().expect("a benchmark's topology has no mistake");
        let mut task = program.task(source(), Offset::ZERO);
        task.set_partitions(&TopicName::new(SINK), 1);
        Self { task, chunk, outputs: Vec::new() }
    }

    /// Feeds the chunk once more and takes what comes out. How many bytes that were.
    ///
    /// # Panics
    /// When the task stops.
    pub fn round(&mut self) -> usize {
        let bytes = self.feed();
        self.go_on();
        bytes
    }

    /// Feeds the chunk, which must have gone on, and takes what comes out: what a task does.
    ///
    /// # Panics
    /// When the task stops.
    pub fn feed(&mut self) -> usize {
        self.task.feed(&self.chunk.bytes, NOW);
        assert!(self.task.stopped().is_none(), "{:?}", self.task.stopped());
        self.task.take_outputs(&mut self.outputs);
        self.outputs.drain(..).map(|batch| batch.bytes.len()).sum()
    }

    /// Moves the chunk behind what was fed.
    pub fn go_on(&mut self) {
        let bytes = std::mem::take(&mut self.chunk.bytes);
        let bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        self.chunk.bytes = self.chunk.moved(bytes, self.task.position().0);
    }
}

/// The partition that is read.
pub fn source() -> Source {
    Source { topic: TopicName::new(SOURCE), partition: PartitionIndex(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::Job;

    #[test]
    fn every_round_does_the_same_work() {
        let chunk = Chunk::new(Values::Noise(100), 16 << 10, 8);
        let records = chunk.records as i64;
        let mut feeder = Feeder::new(Job::FilterMark.topology("test", SOURCE, SINK), chunk);
        let first = feeder.round();
        assert!(first > 8 * (16 << 10) / 3);
        assert_eq!(feeder.round(), first);
        assert_eq!(feeder.task.position(), Offset(2 * records));
    }
}
