//! Latency at a fixed rate: records are due at moments that no answer can move.
//!
//! A record is one request. It is due at `start + number / rate`, is sent then or, when this
//! program was late, as soon as it can; and its latency counts from when it was *due*. So a broker
//! that stalls is charged for every record that was due meanwhile, not for one: coordinated
//! omission cannot happen. A consumer waits at the tail all the while, and what it receives carries
//! the time at which it was due.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use vltava_benches::fixtures::{self, NOW};
use vltava_protocol::ids::Timestamp;
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, BatchHeader};
use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::record::Records;

use super::Cx;
use crate::compare::contents::{Contents, Reader};
use crate::compare::metric::{Metric, Sample};
use crate::compare::pump::acknowledged;
use crate::compare::target::Target;
use crate::compare::wire::{Wire, wait};
use crate::error::BenchError;

/// Connections that produce.
const PRODUCERS: usize = 8;
/// The first part of a run warms caches and compilers and is not counted.
const WARM_UP_SHARE: u32 = 4;
/// What is still unanswered so long after the last record was due is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest latency that is told apart from longer ones, and significant digits.
const LATENCY_US_MAX: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// Records at a fixed rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenLoop {
    /// Bytes of a record's value.
    pub(crate) record_bytes: usize,
    /// Records due a second.
    pub(crate) rate: u32,
    /// `acks` on the wire.
    pub(crate) acks: i16,
    /// Partitions of the topic.
    pub(crate) partitions: i32,
}

impl OpenLoop {
    /// Runs it once.
    pub(crate) fn run(&self, cx: &Cx<'_>, target: &Target) -> Result<Vec<Sample>, BenchError> {
        let mut client = target.client()?;
        let topic = cx.topic();
        client.create_ready_topic(&topic, self.partitions)?;
        let count = self.rate * cx.scale.seconds as u32;
        let run = Generator::new(*self, &topic, count, target)?;
        let (latencies, spent) = target.spent(|| run.run())?;
        client.delete_topic(&topic)?;
        let [acks, received] = latencies;
        let of = |histogram: &Histogram<u64>, quantile| {
            histogram.value_at_quantile(quantile) as f64 / 1000.0
        };
        Ok(vec![
            Sample(Metric::AckP50, of(&acks, 0.5)),
            Sample(Metric::AckP99, of(&acks, 0.99)),
            Sample(Metric::AckP999, of(&acks, 0.999)),
            Sample(Metric::AckMax, acks.max() as f64 / 1000.0),
            Sample(Metric::ReceivedP99, of(&received, 0.99)),
            Sample(Metric::ReceivedP999, of(&received, 0.999)),
            Sample(Metric::RecordsCost, spent.processor.as_secs_f64() * 1e6 / f64::from(count)),
        ])
    }
}

/// One run under way.
struct Generator {
    load: OpenLoop,
    topic: String,
    count: u32,
    /// The consumer's connection is the last.
    wires: Vec<Wire>,
    /// Requests without an answer, and when each was due, by connection.
    under_way: Vec<VecDeque<(u32, Duration)>>,
    reader: Reader,
    builder: BatchBuilder,
    value: Vec<u8>,
    produced: Contents,
    acknowledged: u32,
    latencies: [Histogram<u64>; 2],
}

impl Generator {
    fn new(load: OpenLoop, topic: &str, count: u32, target: &Target) -> Result<Self, BenchError> {
        let mut wires = Vec::new();
        for _ in 0..=PRODUCERS {
            wires.push(Wire::connect(target.address())?);
        }
        let histogram =
            || Histogram::new_with_max(LATENCY_US_MAX, DIGITS).expect("these bounds are valid");
        Ok(Self {
            load,
            topic: topic.to_owned(),
            count,
            wires,
            under_way: vec![VecDeque::new(); PRODUCERS],
            reader: Reader::new(topic, load.partitions),
            builder: BatchBuilder::new(Codec::None, None),
            value: vec![b'v'; load.record_bytes],
            produced: Contents::default(),
            acknowledged: 0,
            latencies: [histogram(), histogram()],
        })
    }

    /// Acknowledgments first, then receipts, in microseconds.
    fn run(mut self) -> Result<[Histogram<u64>; 2], BenchError> {
        let request = self.reader.request();
        self.wires[PRODUCERS].send(&request)?;
        let start = Instant::now();
        let end = self.due(self.count) + PATIENCE;
        let mut sent = 0;
        while self.acknowledged < self.count
            || self.reader.contents().records < u64::from(self.count)
        {
            let now = start.elapsed();
            while sent < self.count && self.due(sent) <= now {
                self.send(sent)?;
                sent += 1;
            }
            let next = if sent < self.count { self.due(sent) } else { end };
            wait(&mut self.wires, next.saturating_sub(start.elapsed()))?;
            self.take_answers(start)?;
            if start.elapsed() > end {
                return Err(BenchError::TooLong("a record at a fixed rate"));
            }
        }
        self.reader.contents().must_equal(self.produced)?;
        Ok(self.latencies)
    }

    /// When a record is due.
    fn due(&self, number: u32) -> Duration {
        Duration::from_nanos(u64::from(number) * 1_000_000_000 / u64::from(self.load.rate))
    }

    fn send(&mut self, number: u32) -> Result<(), BenchError> {
        let due = self.due(number);
        self.value[..8].copy_from_slice(&(due.as_nanos() as u64).to_be_bytes());
        let timestamp = Timestamp(NOW.0 + i64::from(number));
        self.builder.append(timestamp, Some(&number.to_be_bytes()), Some(&self.value), &[]);
        let batch = self.builder.build(&BatchFields::default()).expect("it is not compressed");
        self.builder.clear();
        self.produced.add(&batch, 1, 1);
        let partition = number as i32 % self.load.partitions;
        let to = (self.topic.as_str(), partition);
        let frame = fixtures::produce_frame_to(to, self.load.acks, &batch, number as i32);
        let at = number as usize % PRODUCERS;
        self.under_way[at].push_back((number, due));
        self.wires[at].send(&frame)
    }

    fn take_answers(&mut self, start: Instant) -> Result<(), BenchError> {
        let counted_from = self.due(self.count / WARM_UP_SHARE);
        let [acks, received] = &mut self.latencies;
        for (wire, under_way) in self.wires.iter_mut().zip(&mut self.under_way) {
            while let Some(answer) = wire.next()? {
                let (number, due) =
                    under_way.pop_front().ok_or(BenchError::Malformed("Produce"))?;
                acknowledged(answer, Some(number as i32))?;
                if due >= counted_from {
                    acks.saturating_record(start.elapsed().saturating_sub(due).as_micros() as u64);
                }
                self.acknowledged += 1;
            }
        }
        while let Some(answer) = self.wires[PRODUCERS].next()? {
            let now = start.elapsed();
            self.reader.take(answer, |header, batch| {
                for due in due_times(header, batch) {
                    if due >= counted_from {
                        let latency = now.saturating_sub(due);
                        received.saturating_record(latency.as_micros() as u64);
                    }
                }
            })?;
            let request = self.reader.request();
            self.wires[PRODUCERS].send(&request)?;
        }
        Ok(())
    }
}

/// When the records of a batch were due.
fn due_times(header: &BatchHeader, batch: &Bytes) -> impl Iterator<Item = Duration> {
    let records = Records::new(&batch[BATCH_HEADER_BYTES..], header.record_count);
    records.map_while(Result::ok).filter_map(|record| {
        let due = record.value?.first_chunk()?;
        Some(Duration::from_nanos(u64::from_be_bytes(*due)))
    })
}
