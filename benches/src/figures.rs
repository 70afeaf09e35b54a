//! What one broker costs as a process: time to start and to recover, memory, idle processor time.
//!
//! Each figure is a median of several runs where a run is cheap, and stands beside its bar. Every
//! broker has a data directory of its own under the build directory, so on a real disk, and only
//! processes started here are ended, each by its handle.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use vltava_benches::fixtures;
use vltava_protocol::record::compression::Codec;

use crate::client::Client;
use crate::error::BenchError;
use crate::vltava::{Broker, find_or_build, scratch};

/// How long a broker is left alone before its idle memory and processor time are read.
const SETTLE: Duration = Duration::from_secs(2);
/// Most runs of one figure, and most partitions: a slip of the keyboard must not fill the disk.
const RUNS_MAX: u32 = 100;
const PARTITIONS_MAX: i32 = 100_000;

const MEBIBYTE: f64 = 1_048_576.0;

/// How to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Runs per figure, where a run is cheap; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=i64::from(RUNS_MAX)))]
    runs: u32,
    /// Partitions of the broker that is not empty.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(i32).range(1..=i64::from(PARTITIONS_MAX)))]
    partitions: i32,
    /// Seconds over which idle processor time is counted.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    idle_seconds: u64,
    /// The broker to measure; by default `vltava` beside this program, built if it is not there.
    #[arg(long)]
    broker: Option<PathBuf>,
}

/// One line of the result.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// What it must stay under, if there is such a promise.
    bar: Option<f64>,
    /// Whether it does.
    met: Option<bool>,
    /// How many runs it is the median of.
    runs: usize,
}

#[derive(Debug, Default, Serialize)]
struct Figures {
    figures: Vec<Figure>,
}

impl Figures {
    /// Adds the median of `samples`.
    fn add(&mut self, name: &str, unit: &'static str, bar: Option<f64>, mut samples: Vec<f64>) {
        samples.sort_by(f64::total_cmp);
        let value = samples[samples.len() / 2];
        let met = bar.map(|bar| value < bar);
        let runs = samples.len();
        self.figures.push(Figure { name: name.to_owned(), value, unit, bar, met, runs });
    }
}

/// Measures everything and prints it.
pub(crate) fn run(options: &Options) -> Result<(), BenchError> {
    let binary = match &options.broker {
        Some(path) => path.clone(),
        None => find_or_build()?,
    };
    let mut figures = Figures::default();
    fresh(&binary, options, &mut figures)?;
    many_partitions(&binary, options, &mut figures)?;
    one_topic(&binary, options, &mut figures)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&figures).expect("plain values"));
    } else {
        println!("{}", table(&figures));
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn one_record() -> Bytes {
    fixtures::batch(256, Codec::None).bytes
}

/// An empty directory: start, first record, memory.
fn fresh(binary: &Path, options: &Options, figures: &mut Figures) -> Result<(), BenchError> {
    let (mut ready, mut worked) = (Vec::new(), Vec::new());
    let (mut acknowledged, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        let dir = scratch()?;
        let started = Instant::now();
        let broker = Broker::start(binary, dir.path(), &[])?;
        ready.push(milliseconds(started.elapsed()));
        worked.push(milliseconds(broker.processor_time()?));
        let mut client = Client::connect(broker.address())?;
        client.create_topic("first", 1)?;
        client.produce("first", &one_record())?;
        acknowledged.push(milliseconds(started.elapsed()));
        drop(client);
        thread::sleep(SETTLE);
        memory.push(broker.resident_bytes()? / MEBIBYTE);
    }
    figures.add("empty directory to ready", "ms", None, ready);
    figures.add("the same, processor time", "ms", None, worked);
    let name = "empty directory to first record acknowledged, topic created";
    figures.add(name, "ms", Some(150.0), acknowledged);
    figures.add("idle memory, fresh", "MiB", Some(30.0), memory);
    Ok(())
}

/// As many topics of one partition: creation, memory, idle processor time, recovery.
fn many_partitions(
    binary: &Path,
    options: &Options,
    figures: &mut Figures,
) -> Result<(), BenchError> {
    let dir = scratch()?;
    let count = options.partitions;
    let mut broker = Broker::start(binary, dir.path(), &[])?;
    let mut client = Client::connect(broker.address())?;
    let started = Instant::now();
    for number in 0..count {
        client.create_topic(&format!("topic-{number:06}"), 1)?;
    }
    let created = milliseconds(started.elapsed());
    figures.add(&format!("{count} topics created one after another"), "ms", None, vec![created]);
    drop(client);
    thread::sleep(SETTLE);
    let memory = broker.resident_bytes()? / MEBIBYTE;
    figures.add(&format!("idle memory, {count} partitions"), "MiB", Some(30.0), vec![memory]);
    let before = broker.processor_time()?;
    thread::sleep(Duration::from_secs(options.idle_seconds));
    let busy = broker.processor_time()?.saturating_sub(before).as_secs_f64();
    let share = 100.0 * busy / options.idle_seconds as f64;
    let name = format!("idle processor time, {count} partitions");
    figures.add(&name, "% of a core", Some(0.5), vec![share]);

    let (mut ready, mut worked, mut acknowledged) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.runs {
        broker.kill()?;
        let started = Instant::now();
        broker = Broker::start(binary, dir.path(), &[])?;
        ready.push(milliseconds(started.elapsed()));
        worked.push(milliseconds(broker.processor_time()?));
        let mut client = Client::connect(broker.address())?;
        client.produce(&format!("topic-{:06}", count - 1), &one_record())?;
        acknowledged.push(milliseconds(started.elapsed()));
    }
    figures.add(&format!("{count} partitions, kill -9, to ready"), "ms", Some(2000.0), ready);
    figures.add("the same, processor time", "ms", None, worked);
    let name = format!("{count} partitions, kill -9, to a record acknowledged");
    figures.add(&name, "ms", None, acknowledged);
    thread::sleep(SETTLE);
    let memory = broker.resident_bytes()? / MEBIBYTE;
    let name = format!("idle memory, {count} partitions, recovered");
    figures.add(&name, "MiB", Some(30.0), vec![memory]);
    Ok(())
}

/// As many partitions in one request.
fn one_topic(binary: &Path, options: &Options, figures: &mut Figures) -> Result<(), BenchError> {
    let dir = scratch()?;
    let broker = Broker::start(binary, dir.path(), &[])?;
    let mut client = Client::connect(broker.address())?;
    let started = Instant::now();
    client.create_topic("wide", options.partitions)?;
    let created = milliseconds(started.elapsed());
    let name = format!("one topic of {} partitions created", options.partitions);
    figures.add(&name, "ms", None, vec![created]);
    Ok(())
}

fn table(figures: &Figures) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["figure", "value", "bar", "runs"]);
    for figure in &figures.figures {
        let bar = figure.bar.map_or(String::new(), |bar| {
            let verdict = if figure.met == Some(true) { "met" } else { "MISSED" };
            format!("< {bar} {}: {verdict}", figure.unit)
        });
        let digits = if figure.value < 10.0 { 2 } else { 1 };
        let value = format!("{:.digits$} {}", figure.value, figure.unit);
        table.add_row([figure.name.clone(), value, bar, figure.runs.to_string()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_beside_its_bar() {
        let mut figures = Figures::default();
        figures.add("start", "ms", Some(2.5), vec![9.0, 1.0, 2.0]);
        figures.add("memory", "MiB", Some(1.0), vec![1.0]);
        let [start, memory] = &figures.figures[..] else { panic!("two figures") };
        assert_eq!((start.value, start.met, start.runs), (2.0, Some(true), 3));
        assert_eq!(memory.met, Some(false));
        let printed = table(&figures).to_string();
        assert!(printed.contains("2.00 ms") && printed.contains("MISSED"), "{printed}");
    }
}
