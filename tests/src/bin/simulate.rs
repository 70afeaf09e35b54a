//! Runs simulated histories until told to stop, and tells the story of one that fails.
//!
//! ```text
//! simulate --seeds 1000 --minutes 5        fresh seeds
//! simulate --seed 42 --trace               one seed again, with all that happened
//! ```

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use vltava_tests::coverage::Coverage;
use vltava_tests::plan::Plan;
use vltava_tests::simulate::{run, shrink, story};

/// The deterministic simulator of a cluster: disks, power, networks and clients that misbehave.
#[derive(Parser)]
struct Arguments {
    /// Stop after so many seeds.
    #[arg(long, default_value_t = u64::MAX)]
    seeds: u64,
    /// Stop after so many minutes.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The first seed; fresh if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
    /// Tell the story of a failing seed as it is, without making it shorter.
    #[arg(long)]
    whole: bool,
    /// Go on after a failure.
    #[arg(long)]
    all: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A group that panics is fenced; the violation tells of it.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let first = arguments.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 16);
    let begun = Instant::now();
    let limit = Duration::from_secs_f64(arguments.minutes * 60.0);
    let (mut coverage, mut steps, mut count, mut failures) = (Coverage::default(), 0, 0, 0);
    let mut told = begun;
    while count < arguments.seeds && begun.elapsed() < limit {
        let seed = first + count;
        let plan = Plan::of_seed(seed);
        let outcome = run(&plan, arguments.trace);
        for line in &outcome.trace {
            println!("{line}");
        }
        count += 1;
        steps += outcome.steps;
        coverage.add(&outcome.coverage);
        if let Some(violation) = outcome.violation {
            println!("seed {seed} fails: {violation}");
            failures += 1;
            if !arguments.all {
                if !arguments.whole {
                    let short = shrink(&plan, &violation);
                    let outcome = run(&short, true);
                    std::fs::write("/tmp/short.trace", outcome.trace.join("\n")).expect("a trace");
                    println!("{}", story(&short));
                    println!("fails: {}", outcome.violation.expect("it was shrunk to fail"));
                }
                break;
            }
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            println!("{count} seeds, {:.1} a second", count as f64 / begun.elapsed().as_secs_f64());
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{coverage}");
    println!(
        "{count} seeds from {first}, {steps} steps, {:.1} seeds a second",
        count as f64 / seconds
    );
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
