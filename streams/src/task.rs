//! A task: one input partition on its way through a topology. Sans-IO: batches in, batches out, and
//! the position up to which everything was taken in.
//!
//! **Invariant:** the position moves only past records whose outputs are all in the batches that
//! were handed out, or in those that [`StreamTask::take_outputs`] will hand out next. Whoever runs
//! the task commits a position only when the batches handed out before it are safe.
//!
//! A panic in the user's code is caught here: it is that record's fault, as a malformed one is.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use vltava_protocol::ids::{Offset, Timestamp, TopicName};
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, BatchError, BatchHeader, split_batches};
use vltava_protocol::record::compression::{self, Codec};
use vltava_protocol::record::record::RecordError;

use crate::outputs::{OutputBatch, Outputs};
use crate::process::{InputBatch, Meter, Meters, Policy, Run, Stop};
use crate::record::Source;
use crate::topology::Stage;

/// Bytes that one batch may inflate to: what the broker lets in at its door.
const INFLATED_BYTES_MAX: usize = 1 << 30;

/// See the module.
pub struct StreamTask {
    source: Source,
    position: Offset,
    stages: Vec<Box<dyn Stage>>,
    outputs: Outputs,
    policy: Policy,
    /// Where compressed batches are inflated, one after another.
    arena: Vec<u8>,
    meters: Meters,
    faults: Vec<u64>,
    stop: Option<Stop>,
}

impl StreamTask {
    pub(crate) fn new(
        source: Source,
        position: Offset,
        stages: Vec<Box<dyn Stage>>,
        outputs: Outputs,
        policy: Policy,
        nodes: usize,
    ) -> Self {
        Self {
            source,
            position,
            stages,
            outputs,
            policy,
            arena: Vec::new(),
            meters: vec![Meter::default(); nodes],
            faults: vec![0; nodes],
            stop: None,
        }
    }

    /// The partition that it reads.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The offset of the next record that it wants.
    pub fn position(&self) -> Offset {
        self.position
    }

    /// Goes on at `position`, because what lies before it is gone.
    pub fn skip_to(&mut self, position: Offset) {
        assert!(position >= self.position, "a task never goes back");
        self.position = position;
    }

    /// Why it does not go on, if it does not.
    pub fn stopped(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }

    /// Takes in whole batches of its partition, as the log has them; the first may begin before the
    /// position. Does nothing once the task has stopped.
    pub fn feed(&mut self, batches: &Bytes, now: Timestamp) {
        for batch in split_batches(batches) {
            if self.stop.is_some() {
                return;
            }
            match batch {
                Ok((header, bytes)) => self.take(&header, &bytes[BATCH_HEADER_BYTES..], now),
                Err(_) => self.stop = Some(Stop::Batch(RecordError::Truncated)),
            }
        }
    }

    fn take(&mut self, header: &BatchHeader, payload: &[u8], now: Timestamp) {
        if header.end_offset() <= self.position {
            return;
        }
        // A transaction's marker is no record.
        if header.attributes.is_control() {
            self.position = header.end_offset();
            return;
        }
        let mut arena = std::mem::take(&mut self.arena);
        let payload = match header.attributes.codec() {
            Some(Codec::None) => payload,
            codec => {
                arena.clear();
                let inflated = match codec {
                    Some(codec) => {
                        compression::decompress(codec, payload, INFLATED_BYTES_MAX, &mut arena)
                            .map_err(|error| error.to_string())
                    }
                    None => Err("the codec is unknown".to_owned()),
                };
                if let Err(error) = inflated {
                    self.stop = Some(Stop::Compressed(error));
                    return;
                }
                &arena
            }
        };
        self.run(header, payload, now);
        self.arena = arena;
    }

    fn run(&mut self, header: &BatchHeader, payload: &[u8], now: Timestamp) {
        let Self { source, position, stages, outputs, policy, faults, stop, .. } = self;
        let batch = InputBatch { source, header, payload };
        let from = *position;
        for stage in stages.iter_mut() {
            let mut run = Run {
                outputs,
                from,
                at: from,
                taken: Meter::default(),
                now,
                faults,
                policy,
                stop: None,
            };
            loop {
                let passed = catch_unwind(AssertUnwindSafe(|| stage.run(&batch, &mut run)));
                let Err(panic) = passed else { break };
                let reason = format!("panic: {}", said(panic.as_ref()));
                // The records before it are through; it goes on behind the one that panicked.
                let Some(Ok(record)) = batch
                    .records()
                    .find(|record| record.as_ref().is_ok_and(|record| record.offset == run.at))
                else {
                    break;
                };
                run.fail(&record, stage.node(), &reason);
                run.from = run.at + 1;
                if run.stop.is_some() {
                    break;
                }
            }
            if let Some(stopped) = run.stop {
                *stop = Some(stopped);
                return;
            }
        }
        *position = header.end_offset();
    }

    /// Moves the outputs to `batches`. Those of topics whose partitions nobody has told stay.
    pub fn take_outputs(&mut self, batches: &mut Vec<OutputBatch>) {
        self.outputs.close(batches);
    }

    /// The topics that were written to and whose partitions nobody has told. While there are any,
    /// the position is ahead of the outputs.
    pub fn unknown_topics(&self) -> impl Iterator<Item = &TopicName> {
        self.outputs.unknown()
    }

    /// The topics that it has written to and whose partitions were told.
    pub fn known_topics(&self) -> impl Iterator<Item = &TopicName> {
        self.outputs.known()
    }

    /// Tells how many partitions a topic has, or has now.
    pub fn set_partitions(&mut self, topic: &TopicName, partitions: i32) {
        self.outputs.set_partitions(topic, partitions);
    }

    /// What went through each node since the last time.
    pub fn meters(&mut self) -> Meters {
        for stage in &mut self.stages {
            stage.report(&mut self.meters);
        }
        let fresh = vec![Meter::default(); self.meters.len()];
        std::mem::replace(&mut self.meters, fresh)
    }

    /// Records that failed in each node since the last time.
    pub fn faults(&mut self) -> Vec<u64> {
        let fresh = vec![0; self.faults.len()];
        std::mem::replace(&mut self.faults, fresh)
    }
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

/// Header and payload of an uncompressed batch.
pub(crate) fn split(batch: &[u8]) -> Result<(BatchHeader, &[u8]), BatchError> {
    let header = BatchHeader::parse(batch)?;
    Ok((header, &batch[BATCH_HEADER_BYTES..]))
}

impl std::fmt::Debug for StreamTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamTask")
            .field("source", &self.source)
            .field("position", &self.position)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}
