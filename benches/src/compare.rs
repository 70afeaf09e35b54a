//! Vltava beside Apache Kafka: the same loads on both, in turn, and one table of ratios.
//!
//! ```text
//! repetition 1:  row 1: Kafka, page-cache, fsync    row 2: …
//! repetition 2:  row 1: fsync, page-cache, Kafka    row 2: …     the order turns: drift cancels
//! ```
//!
//! All brokers run all the time and one at a time is driven; an idle one takes a share of a core
//! that the table tells too. Every row is data ([`rows`]); a load checks that what was consumed is
//! what was produced, and a run that fails this check, or any other, gives a line in the list of
//! failures and no figure.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use crate::error::BenchError;
use crate::vltava::find_or_build;

mod bare;
mod contents;
mod kafka;
mod kafka_streams;
mod loads;
mod machine;
mod measures;
mod metric;
mod plot;
mod pump;
mod report;
mod results;
mod rows;
mod suite;
mod target;
mod wire;

use kafka::Kafka;
use kafka_streams::KafkaStreams;
use loads::{Cx, Scale};
use machine::Machine;
use measures::Life;
use metric::{Metric, Sample};
use results::Results;
use rows::{AFTER, Load, Row, Work};
use suite::{BROKERS, STREAMS};
use target::{Kind, Target, Tools};

const MEBIBYTE: f64 = 1_048_576.0;
const REPETITIONS_QUICK: usize = 2;
const REPETITIONS_FULL: usize = 3;

/// What to compare.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Compare pipelines instead of brokers: ours inside the broker, and Kafka Streams.
    #[arg(long)]
    streams: bool,
    /// Fewer rows, shorter runs: about ten minutes instead of an hour.
    #[arg(long)]
    quick: bool,
    /// Only rows whose name contains this, quick ones or not. May be repeated.
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Only these columns of the table. May be repeated; without Kafka there are no ratios.
    #[arg(long, value_name = "BROKER")]
    on: Vec<Kind>,
    /// How often everything is repeated; by default 2 or 3.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=50))]
    repetitions: Option<u8>,
    /// Only tell which rows there are.
    #[arg(long)]
    list: bool,
    /// Where the results go; by default `benches/results` of the sources.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// The broker to measure; by default `vltava` beside this program, built if it is not there.
    #[arg(long)]
    broker: Option<PathBuf>,
}

impl Options {
    fn takes(&self, row: &Row) -> bool {
        if self.only.is_empty() {
            return row.is_quick || !self.quick;
        }
        self.only.iter().any(|part| row.name.contains(part.as_str()))
    }
}

/// What is run how often on what.
struct Plan<'a> {
    cx: Cx<'a>,
    kinds: Vec<Kind>,
    repetitions: usize,
}

/// Compares, prints the table, writes the results.
pub(crate) fn run(options: &Options) -> Result<(), BenchError> {
    let suite = if options.streams { &STREAMS } else { &BROKERS };
    let rows: Vec<&Row> = suite.rows.iter().filter(|row| options.takes(row)).collect();
    if options.list {
        for row in rows {
            println!("{}", row.name);
        }
        return Ok(());
    }
    let vltava = options.broker.clone().map_or_else(find_or_build, Ok)?;
    let mut kinds = suite.kinds().to_vec();
    kinds.retain(|kind| options.on.is_empty() || options.on.contains(kind));
    let kafka_streams = options.streams.then(KafkaStreams::fetch).transpose()?;
    let tools = Tools { vltava, kafka: Kafka::fetch()?, kafka_streams };
    let (scale, repetitions) = if options.quick {
        (Scale::QUICK, REPETITIONS_QUICK)
    } else {
        (Scale::FULL, REPETITIONS_FULL)
    };
    let repetitions = options.repetitions.map_or(repetitions, usize::from);
    let mut results = Results::new(suite, Machine::look(), options.quick, repetitions);
    let plan = Plan { cx: Cx::new(&tools, scale), kinds, repetitions };
    let (mut loads, mut lives) = (Vec::new(), Vec::new());
    for row in &rows {
        match &row.work {
            Work::Load(load) => loads.push((*row, load)),
            Work::Life(life) => lives.push((*row, life)),
            Work::After => {}
        }
    }
    drive(&plan, &loads, &mut results)?;
    live(&plan, &lives, &mut results);
    results.finish(&[&rows[..], &[&AFTER]].concat());
    println!("{}\n{}", report::table(&results), report::failures(&results));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let dir = options.results.as_deref().unwrap_or(&sources);
    // A part is no result to keep beside the whole.
    let is_whole = options.only.is_empty() && options.on.is_empty();
    report::write(&results, dir, suite.file(is_whole, options.quick))
}

/// Drives loads at brokers that all of them share; then tells their memory.
fn drive(
    plan: &Plan<'_>,
    loads: &[(&Row, &Load)],
    results: &mut Results,
) -> Result<(), BenchError> {
    if loads.is_empty() {
        return Ok(());
    }
    let cx = &plan.cx;
    let start = |kind: &Kind| Target::start(*kind, cx.tools);
    let targets = plan.kinds.iter().map(start).collect::<Result<Vec<_>, _>>()?;
    for repetition in 0..plan.repetitions {
        for (row, load) in loads {
            for target in turn(&targets, repetition) {
                if row.kinds.contains(&target.kind()) {
                    let run = || target.settle().and_then(|()| load.run(cx, target));
                    take(results, row, target.kind(), repetition, run);
                }
            }
        }
    }
    for target in targets.iter().filter(|target| AFTER.kinds.contains(&target.kind())) {
        let process = target.process();
        let own = Sample(Metric::OwnMemory, process.own_bytes()? / MEBIBYTE);
        let peak = Sample(Metric::PeakMemory, process.peak_resident_bytes()? / MEBIBYTE);
        results.add(&AFTER, target.kind(), 0, &[own, peak]);
    }
    Ok(())
}

/// Runs what needs a broker of its own.
fn live(plan: &Plan<'_>, lives: &[(&Row, &Life)], results: &mut Results) {
    for repetition in 0..plan.repetitions {
        for (row, life) in lives {
            for kind in turn(&plan.kinds, repetition) {
                if row.kinds.contains(kind) {
                    take(results, row, *kind, repetition, || life.run(&plan.cx, *kind));
                }
            }
        }
    }
}

/// Forward and backward in turn.
fn turn<T>(all: &[T], repetition: usize) -> impl Iterator<Item = &T> {
    let last = all.len().saturating_sub(1);
    (0..all.len())
        .map(move |at| if repetition.is_multiple_of(2) { &all[at] } else { &all[last - at] })
}

fn take(
    results: &mut Results,
    row: &Row,
    kind: Kind,
    repetition: usize,
    run: impl FnOnce() -> Result<Vec<Sample>, BenchError>,
) {
    let started = Instant::now();
    let outcome = run();
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("{:2} {seconds:6.1} s  {}, {}", repetition + 1, row.name, kind.name());
    match outcome {
        Ok(samples) => results.add(row, kind, repetition, &samples),
        Err(error) => {
            eprintln!("   failed: {error}");
            results.fail(row, kind, error.to_string());
        }
    }
}
