//! Produces prepared batches through many connections at once, each with a few requests under way:
//! a closed loop, as fast as the broker answers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use vltava_benches::fixtures::{self, Batch, PRODUCE_VERSION};
use vltava_protocol::messages::ProduceResponse;

use super::contents::Contents;
use super::wire::{Wire, wait};
use crate::client::{check, decode};
use crate::error::BenchError;

/// A broker that does not answer for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the correlation id of a request stands: behind length, key and version.
const CORRELATION_ID: std::ops::Range<usize> = 8..12;

/// What is produced, and how.
#[derive(Debug)]
pub(crate) struct Pump<'a> {
    /// To which topic.
    pub(crate) topic: &'a str,
    /// Its partitions; each connection goes round all of them.
    pub(crate) partitions: i32,
    /// `acks` on the wire.
    pub(crate) acks: i16,
    /// Connections.
    pub(crate) connections: usize,
    /// Requests under way on each: `max.in.flight.requests.per.connection`.
    pub(crate) window: usize,
    /// Requests of one batch, all connections together.
    pub(crate) requests: usize,
    /// What they carry, in turn.
    pub(crate) batches: &'a [Batch],
}

impl Pump<'_> {
    /// Produces all of it to what listens at `address`; tells what it was.
    pub(crate) fn run(&self, address: SocketAddr) -> Result<Contents, BenchError> {
        let frames = self.frames();
        let mut wires = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            wires.push(Wire::connect(address)?);
        }
        let mut under_way: Vec<VecDeque<i32>> = vec![VecDeque::new(); self.connections];
        let mut contents = Contents::default();
        let (mut sent, mut answered) = (0, 0);
        while answered < self.requests {
            for (at, (wire, under_way)) in wires.iter_mut().zip(&mut under_way).enumerate() {
                while let Some(answer) = wire.next()? {
                    acknowledged(answer, under_way.pop_front())?;
                    answered += 1;
                }
                while under_way.len() < self.window && sent < self.requests {
                    let (frame, batch) = &frames[(at + sent / self.connections) % frames.len()];
                    let correlation_id = sent as i32;
                    let mut frame = frame.clone();
                    frame[CORRELATION_ID].copy_from_slice(&correlation_id.to_be_bytes());
                    wire.queue(&frame);
                    contents.add(&batch.bytes, batch.records, 1);
                    under_way.push_back(correlation_id);
                    sent += 1;
                }
                wire.flush()?;
            }
            if answered < self.requests && !wait(&mut wires, PATIENCE)? {
                return Err(BenchError::TooLong("a Produce"));
            }
        }
        Ok(contents)
    }

    /// A frame for every batch of every partition.
    fn frames(&self) -> Vec<(Vec<u8>, &Batch)> {
        let places = (0..self.partitions).flat_map(|at| self.batches.iter().map(move |b| (at, b)));
        places
            .map(|(partition, batch)| {
                let to = (self.topic, partition);
                let frame = fixtures::produce_frame_to(to, self.acks, &batch.bytes, 0);
                (frame.to_vec(), batch)
            })
            .collect()
    }
}

/// Checks one answer.
pub(crate) fn acknowledged(answer: Bytes, correlation_id: Option<i32>) -> Result<(), BenchError> {
    let correlation_id = correlation_id.ok_or(BenchError::Malformed("Produce"))?;
    let response: ProduceResponse = decode(answer, correlation_id, PRODUCE_VERSION, "Produce")?;
    let partition = response.responses.first().and_then(|topic| topic.partition_responses.first());
    check("Produce", partition.map(|partition| partition.error_code))
}
