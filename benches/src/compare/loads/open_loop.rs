//! Latency at a fixed rate: records are due at moments that no answer can move.
//!
//! A request carries one record or a few. It is due at `start + number / rate`, is sent then or,
//! when this program was late, as soon as it can; and its latency counts from when it was *due*. So
//! a broker that stalls is charged for every record that was due meanwhile, not for one:
//! coordinated omission cannot happen. A consumer waits at the tail all the while; what it receives
//! carries its number. Where a pipeline stands between, the consumer waits at the tail of its
//! output, and what counts is the time from a record's acknowledgment to the receipt of what was
//! made of it.
//!
//! How much of this is the machine's, two yardsticks tell after the load: for a broker that answers
//! from memory, the same schedule against a thread that does nothing but answer; for one that syncs
//! first, a write and a sync of the same bytes at the same rate.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use vltava_benches::fixtures::{self, NOW};
use vltava_benches::jobs::Job;
use vltava_protocol::ids::Timestamp;
use vltava_protocol::record::batch::BATCH_HEADER_BYTES;
use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::compression::Codec;

use super::Cx;
use super::application::{Application, Start};
use super::rounds::flush_rounds;
use crate::compare::bare::{self, Echo};
use crate::compare::contents::{Contents, Reader, records_of};
use crate::compare::metric::{Metric, Sample};
use crate::compare::pump::acknowledged;
use crate::compare::target::{Kind, Target};
use crate::compare::wire::{Wire, wait};
use crate::error::BenchError;

/// Connections that produce.
const PRODUCERS: usize = 8;
/// The first part of a run warms caches and compilers and is not counted.
const WARM_UP_SHARE: usize = 4;
/// What is still unanswered so long after the last record was due is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// `acks=all` on the wire.
const ACKS_ALL: i16 = -1;
/// Length of a yardstick's run.
const YARDSTICK_SECONDS: u32 = 5;
/// Most flush rounds a second.
const ROUNDS_RATE_MAX: u32 = 1000;
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
    /// Records of a request; they are due together.
    pub(crate) request_records: u32,
    /// The pipeline that the records go through, if any.
    pub(crate) through: Option<Through>,
}

/// A pipeline between producers and consumer. It keeps the key and makes one record of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Through {
    /// What it does.
    pub(crate) job: Job,
    /// Kafka Streams' settings that are not its defaults.
    pub(crate) settings: &'static [&'static str],
}

impl OpenLoop {
    /// Runs it once.
    pub(crate) fn run(&self, cx: &Cx<'_>, target: &Target) -> Result<Vec<Sample>, BenchError> {
        let mut client = target.client()?;
        let source = cx.topic();
        client.create_lasting_topic(&source, self.partitions)?;
        let requests = self.requests(cx.scale.seconds as u32);
        let run = |sink: &str| {
            Generator::new(*self, &source, Some(sink), requests, target.address())?.run()
        };
        let samples = match self.through {
            None => {
                let (latencies, spent) = target.spent(|| run(&source))?;
                let records = f64::from(requests * self.request_records);
                let cost = spent.processor.as_secs_f64() * 1e6 / records;
                let [mut samples, received] = [latencies.acks(), latencies.received()];
                samples.extend(received);
                samples.push(Sample(Metric::RecordsCost, cost));
                target.settle()?;
                samples.extend(match target.kind() {
                    Kind::PageCache => vec![self.echo(&source)?],
                    // With `acks=1` no acknowledgment waits for a sync.
                    Kind::Fsync if self.acks == ACKS_ALL => {
                        self.rounds(target.dir(), &latencies)?.to_vec()
                    }
                    _ => Vec::new(),
                });
                samples
            }
            Some(Through { job, settings }) => {
                let sink = cx.topic();
                client.create_lasting_topic(&sink, self.partitions)?;
                let start = Start { job, source: &source, sink: &sink, settings };
                let mut application = Application::start(cx, target, start)?;
                let before = application.processor_time()?;
                let latencies = run(&sink).map_err(|error| application.explain(error))?;
                let spent = application.processor_time()?.since(before);
                application.stop()?;
                client.delete_topic(&sink)?;
                let cost =
                    |seconds: f64| seconds * 1e6 / f64::from(requests * self.request_records);
                let mut samples = latencies.readable();
                samples.push(Sample(Metric::StreamedCost, cost(spent.together())));
                samples.push(Sample(Metric::StreamedBrokerCost, cost(spent.broker)));
                samples.push(Sample(Metric::StreamedPipelineCost, cost(spent.pipeline)));
                samples
            }
        };
        client.delete_topic(&source)?;
        Ok(samples)
    }

    /// The same schedule against a thread that does nothing but answer.
    fn echo(&self, topic: &str) -> Result<Sample, BenchError> {
        let requests = self.requests(YARDSTICK_SECONDS);
        let run = |to| Generator::new(*self, topic, None, requests, to)?.run();
        let (latencies, _) = bare::beside(&mut Echo::new(topic)?, PRODUCERS, run)?;
        Ok(Sample(Metric::BareP999, milliseconds(&latencies.acknowledgments(), 0.999)))
    }

    /// Writes and syncs at the same rate; and how many of them an acknowledgment took.
    fn rounds(&self, dir: &Path, latencies: &Latencies) -> Result<[Sample; 2], BenchError> {
        let bytes = BATCH_HEADER_BYTES + self.request_records as usize * self.record_bytes;
        let rate = (self.rate / self.request_records).min(ROUNDS_RATE_MAX);
        let length = Duration::from_secs(u64::from(YARDSTICK_SECONDS));
        let period = Duration::from_secs(1) / rate;
        let mut rounds = empty_histogram();
        for round in flush_rounds(dir, bytes, period, length)? {
            // A round that takes long is waited for by all that is due meanwhile.
            let recorded = rounds.record_correct(microseconds(round), microseconds(period));
            recorded.expect("it is within the bounds");
        }
        let round = milliseconds(&rounds, 0.99);
        let acknowledgment = milliseconds(&latencies.acknowledgments(), 0.99);
        Ok([
            Sample(Metric::FlushRoundP99, round),
            Sample(Metric::AckRounds, acknowledgment / round),
        ])
    }

    /// Requests that are due in so many seconds.
    fn requests(&self, seconds: u32) -> u32 {
        self.rate / self.request_records * seconds
    }
}

/// When each request of a run was due, acknowledged, and received by the consumer.
struct Latencies {
    load: OpenLoop,
    acknowledged: Vec<Option<Duration>>,
    /// By record.
    received: Vec<Option<Duration>>,
}

impl Latencies {
    fn acknowledgments(&self) -> Histogram<u64> {
        histogram(&self.acknowledged, |at, then| then.saturating_sub(self.load.due(at)))
    }

    fn acks(&self) -> Vec<Sample> {
        let acks = self.acknowledgments();
        vec![
            Sample(Metric::AckP50, milliseconds(&acks, 0.5)),
            Sample(Metric::AckP99, milliseconds(&acks, 0.99)),
            Sample(Metric::AckP999, milliseconds(&acks, 0.999)),
            Sample(Metric::AckMax, acks.max() as f64 / 1000.0),
        ]
    }

    fn received(&self) -> Vec<Sample> {
        let received = histogram(&self.received, |at, then| {
            then.saturating_sub(self.load.due(self.load.request_of(at)))
        });
        vec![
            Sample(Metric::ReceivedP99, milliseconds(&received, 0.99)),
            Sample(Metric::ReceivedP999, milliseconds(&received, 0.999)),
        ]
    }

    /// From the acknowledgment. What is received before it, on another connection, took no time.
    fn readable(&self) -> Vec<Sample> {
        let readable = histogram(&self.received, |at, then| {
            let acknowledged = self.acknowledged[self.load.request_of(at) as usize];
            then.saturating_sub(acknowledged.unwrap_or(then))
        });
        vec![
            Sample(Metric::ReadableP50, milliseconds(&readable, 0.5)),
            Sample(Metric::ReadableP99, milliseconds(&readable, 0.99)),
            Sample(Metric::ReadableP999, milliseconds(&readable, 0.999)),
        ]
    }
}

/// Latencies in microseconds, without those of the warm-up.
fn histogram(
    moments: &[Option<Duration>],
    latency: impl Fn(u32, Duration) -> Duration,
) -> Histogram<u64> {
    let mut histogram = empty_histogram();
    let moments = moments.iter().enumerate().skip(moments.len() / WARM_UP_SHARE);
    for (at, moment) in moments.filter_map(|(at, moment)| Some((at, (*moment)?))) {
        histogram.saturating_record(microseconds(latency(at as u32, moment)));
    }
    histogram
}

fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_US_MAX, DIGITS).expect("these bounds are valid")
}

fn microseconds(latency: Duration) -> u64 {
    (latency.as_micros() as u64).min(LATENCY_US_MAX)
}

fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

impl OpenLoop {
    /// When a request is due.
    fn due(&self, request: u32) -> Duration {
        let rate = u64::from(self.rate / self.request_records);
        Duration::from_nanos(u64::from(request) * 1_000_000_000 / rate)
    }

    /// The request that carries a record.
    fn request_of(&self, record: u32) -> u32 {
        record / self.request_records
    }
}

/// One run under way.
struct Generator {
    load: OpenLoop,
    /// To which it produces.
    topic: String,
    requests: u32,
    /// The consumer's connection, if there is one, is the last.
    wires: Vec<Wire>,
    /// Requests without an answer, by connection.
    under_way: Vec<VecDeque<u32>>,
    /// The consumer, if there is one.
    reader: Option<Reader>,
    builder: BatchBuilder,
    value: Vec<u8>,
    /// What must be received, and what was.
    expected: Contents,
    received: Contents,
    unanswered: u32,
    latencies: Latencies,
}

impl Generator {
    /// A run that produces to the first topic and consumes the second, if there is one.
    fn new(
        load: OpenLoop,
        source: &str,
        sink: Option<&str>,
        requests: u32,
        address: SocketAddr,
    ) -> Result<Self, BenchError> {
        let mut wires = Vec::new();
        for _ in 0..PRODUCERS + usize::from(sink.is_some()) {
            wires.push(Wire::connect(address)?);
        }
        let acknowledged = vec![None; requests as usize];
        let received = vec![None; (requests * load.request_records) as usize];
        Ok(Self {
            load,
            topic: source.to_owned(),
            requests,
            wires,
            under_way: vec![VecDeque::new(); PRODUCERS],
            reader: sink.map(|sink| Reader::new(sink, load.partitions)),
            builder: BatchBuilder::new(Codec::None, None),
            value: vec![b'v'; load.record_bytes],
            expected: Contents::default(),
            received: Contents::default(),
            unanswered: requests,
            latencies: Latencies { load, acknowledged, received },
        })
    }

    fn run(mut self) -> Result<Latencies, BenchError> {
        if let Some(reader) = &mut self.reader {
            self.wires[PRODUCERS].send(&reader.request())?;
        }
        let is_consumed = self.reader.is_some();
        let records = u64::from(self.requests * self.load.request_records);
        let start = Instant::now();
        let end = self.load.due(self.requests) + PATIENCE;
        let mut sent = 0;
        while self.unanswered > 0 || is_consumed && self.received.records < records {
            let now = start.elapsed();
            while sent < self.requests && self.load.due(sent) <= now {
                self.send(sent)?;
                sent += 1;
            }
            let next = if sent < self.requests { self.load.due(sent) } else { end };
            wait(&mut self.wires, next.saturating_sub(start.elapsed()))?;
            self.take_answers(start)?;
            if start.elapsed() > end {
                return Err(BenchError::TooLong("a record at a fixed rate"));
            }
        }
        if is_consumed {
            self.received.must_equal(self.expected)?;
        }
        Ok(self.latencies)
    }

    fn send(&mut self, request: u32) -> Result<(), BenchError> {
        for at in 0..self.load.request_records {
            let number = request * self.load.request_records + at;
            let timestamp = Timestamp(NOW.0 + i64::from(number));
            let key = number.to_be_bytes();
            self.value[..4].copy_from_slice(&key);
            self.builder.append(timestamp, Some(&key), Some(&self.value), &[]);
            let contents = &mut self.expected;
            match self.load.through {
                None => contents.add_record(&key, &self.value),
                Some(Through { job, .. }) => {
                    job.outputs(&key, &self.value, |key, value| contents.add_record(key, value));
                }
            }
        }
        let batch = self.builder.build(&BatchFields::default()).expect("it is not compressed");
        self.builder.clear();
        let partition = request as i32 % self.load.partitions;
        let to = (self.topic.as_str(), partition);
        let frame = fixtures::produce_frame_to(to, self.load.acks, &batch, request as i32);
        let at = request as usize % PRODUCERS;
        self.under_way[at].push_back(request);
        self.wires[at].send(&frame)
    }

    fn take_answers(&mut self, start: Instant) -> Result<(), BenchError> {
        let Latencies { acknowledged: acknowledged_at, received: received_at, .. } =
            &mut self.latencies;
        for (wire, under_way) in self.wires.iter_mut().zip(&mut self.under_way) {
            while let Some(answer) = wire.next()? {
                let request = under_way.pop_front().ok_or(BenchError::Malformed("Produce"))?;
                acknowledged(answer, Some(request as i32))?;
                acknowledged_at[request as usize] = Some(start.elapsed());
                self.unanswered -= 1;
            }
        }
        let Some(reader) = &mut self.reader else { return Ok(()) };
        while let Some(answer) = self.wires[PRODUCERS].next()? {
            let now = start.elapsed();
            let received = &mut self.received;
            reader.take(answer, |header, batch| {
                for record in records_of(header, batch) {
                    let key = record.key.unwrap_or_default();
                    received.add_record(key, record.value.unwrap_or_default());
                    let number = key.first_chunk().map_or(0, |key| u32::from_be_bytes(*key));
                    if let Some(moment) = received_at.get_mut(number as usize) {
                        moment.get_or_insert(now);
                    }
                }
            })?;
            self.wires[PRODUCERS].send(&reader.request())?;
        }
        Ok(())
    }
}
