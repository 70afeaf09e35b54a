//! A pipeline works off a topic that was filled before, as fast as it can.
//!
//! The first part warms caches and compilers: figures are of what follows, from the moment when the
//! output has that many records to the moment when it has all of them. Every record of the output
//! is then read back and must be what the job's plain function makes of the input.

use std::thread;
use std::time::{Duration, Instant};

use vltava_benches::fixtures::{Batch, Values, batch_of};
use vltava_benches::jobs::Job;
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::compression::Codec;

use super::Cx;
use super::application::{Application, Parts, Start};
use crate::client::Client;
use crate::compare::contents::{Contents, read_records, records_of};
use crate::compare::metric::{Metric, Sample};
use crate::compare::pump::Pump;
use crate::compare::target::Target;
use crate::error::BenchError;

const MEBIBYTE: f64 = 1_048_576.0;
/// Partitions of the topics: tasks of a pipeline.
const PARTITIONS: i32 = 4;
/// A producer's default `batch.size`.
const BATCH_BYTES: usize = 16 << 10;
/// Batches that differ.
const BATCHES: u64 = 8;
/// The first third is not counted.
const WARM_UP_SHARE: u64 = 3;
/// How often the end of the output is asked for, and every which time memory is looked at.
const POLL: Duration = Duration::from_millis(5);
const POLLS_A_LOOK: u32 = 16;
/// A pipeline that writes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pipeline and its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streaming {
    /// What it does.
    pub(crate) job: Job,
    /// What it reads.
    pub(crate) values: Values,
    /// The input is this part of what other loads take: 1 is all of it, 8 an eighth.
    pub(crate) share: u64,
}

/// A topic that was filled.
struct Filled {
    topic: String,
    records: u64,
    /// What must come out.
    expected: Contents,
}

/// What was seen while the output grew.
struct Window {
    outputs: u64,
    wall: Duration,
    processor: Parts,
    /// Own and all, the most of each.
    memory: [f64; 2],
}

impl Streaming {
    /// Runs it once.
    pub(crate) fn run(&self, cx: &Cx<'_>, target: &Target) -> Result<Vec<Sample>, BenchError> {
        let mut client = target.client()?;
        let source = self.source(cx, target, &mut client)?;
        let sink = cx.topic();
        client.create_lasting_topic(&sink, PARTITIONS)?;
        target.settle()?;
        let start = Start { job: self.job, source: &source.topic, sink: &sink, settings: &[] };
        let mut application = Application::start(cx, target, start)?;
        let watched = watch(&application, &mut client, &sink, source.expected.records);
        let window = watched.map_err(|error| application.explain(error))?;
        application.stop()?;
        let outputs = outputs(&mut client, &sink)?;
        if outputs != source.expected.records {
            let produced = format!("{} records", source.expected.records);
            return Err(BenchError::Mismatch { produced, consumed: format!("{outputs} records") });
        }
        read_records(target.address(), (&sink, PARTITIONS), source.expected)?;
        client.delete_topic(&sink)?;
        let share = window.outputs as f64 / source.expected.records as f64;
        let records = source.records as f64 * share;
        let cost = |seconds: f64| seconds * 1e6 / records;
        let [own, all] = window.memory;
        Ok(vec![
            Sample(Metric::Streamed, records / 1e3 / window.wall.as_secs_f64()),
            Sample(Metric::StreamedCost, cost(window.processor.together())),
            Sample(Metric::StreamedBrokerCost, cost(window.processor.broker)),
            Sample(Metric::StreamedPipelineCost, cost(window.processor.pipeline)),
            Sample(Metric::OwnMemoryTogether, own / MEBIBYTE),
            Sample(Metric::PeakMemoryTogether, all / MEBIBYTE),
        ])
    }

    /// The input on this broker, filled when it is asked for first.
    fn source(
        &self,
        cx: &Cx<'_>,
        target: &Target,
        client: &mut Client,
    ) -> Result<Filled, BenchError> {
        let batches: Vec<_> =
            (0..BATCHES).map(|at| batch_of(self.values, at, BATCH_BYTES, Codec::None)).collect();
        // Each batch goes to each partition equally often.
        let round = batches.len() * PARTITIONS as usize;
        let rounds = (cx.scale.bytes / self.share) as usize / (round * BATCH_BYTES);
        let requests = rounds.max(1) * round;
        let times = (requests / batches.len()) as u64;
        let (topic, is_new) = cx.source(target.kind(), self.values, requests);
        if is_new {
            client.create_lasting_topic(&topic, PARTITIONS)?;
            let pump = Pump {
                topic: &topic,
                partitions: PARTITIONS,
                acks: -1,
                connections: 1,
                window: 5,
                requests,
                batches: &batches,
            };
            pump.run(target.address())?;
        }
        let mut expected = Contents::default();
        for batch in &batches {
            expected.add_all(self.outputs(batch));
        }
        let records = batches.iter().map(|batch| batch.records).sum::<u64>() * times;
        Ok(Filled { topic, records, expected: expected.times(times) })
    }

    /// What must come out of a batch.
    fn outputs(&self, batch: &Batch) -> Contents {
        let mut contents = Contents::default();
        let header = BatchHeader::parse(&batch.bytes).expect("it was just built");
        for record in records_of(&header, &batch.bytes) {
            let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
            self.job.outputs(key, value, |key, value| contents.add_record(key, value));
        }
        contents
    }
}

/// Waits until the output has `expected` records.
fn watch(
    application: &Application<'_>,
    client: &mut Client,
    sink: &str,
    expected: u64,
) -> Result<Window, BenchError> {
    let (mut begin, mut memory) = (None, [0.0_f64; 2]);
    let (mut last, mut moved_at) = (0, Instant::now());
    for poll in 0_u32.. {
        let (now, outputs) = (Instant::now(), outputs(client, sink)?);
        let processor = application.processor_time()?;
        if poll % POLLS_A_LOOK == 0 || outputs >= expected {
            let seen = application.memory()?;
            memory.iter_mut().zip(seen).for_each(|(most, seen)| *most = most.max(seen));
        }
        match begin {
            None if outputs >= expected => return Err(BenchError::TooShort("a pipeline's run")),
            None if outputs >= expected / WARM_UP_SHARE => {
                begin = Some((outputs, now, processor));
            }
            Some((before, started, spent)) if outputs >= expected => {
                let (outputs, wall) = (outputs - before, now - started);
                return Ok(Window { outputs, wall, processor: processor.since(spent), memory });
            }
            _ => {}
        }
        if outputs > last {
            (last, moved_at) = (outputs, now);
        } else if now - moved_at > PATIENCE {
            return Err(BenchError::TooLong("an output of a pipeline"));
        }
        thread::sleep(POLL);
    }
    unreachable!("a pipeline is given up long before the polls are counted out")
}

fn outputs(client: &mut Client, sink: &str) -> Result<u64, BenchError> {
    Ok(client.end_offsets(sink, PARTITIONS)?.iter().map(|end| end.unsigned_abs()).sum())
}
