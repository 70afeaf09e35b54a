//! Runs simulated histories until told to stop, and tells the story of one that fails.
//!
//! ```text
//! simulate --seeds 1000 --minutes 5        fresh seeds
//! simulate --seed 42 --seeds 1 --trace     one seed again, with all that happened
//! simulate --planted all                   with each planted bug: is it caught?
//! ```

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use vltava_tests::coverage::Coverage;
use vltava_tests::plan::Plan;
use vltava_tests::simulate::{Outcome, run, shrink, story};

/// Steps of a history that counts as one of the seeds that were asked for.
const STEPS_MIN: u64 = 2000;
/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

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
    /// Print everything that happens, and what the product logs.
    #[arg(long)]
    trace: bool,
    /// Do not make the story of a failing seed shorter.
    #[arg(long)]
    whole: bool,
    /// Go on after a failure.
    #[arg(long)]
    all: bool,
    /// Lines to print of what happened last in a shortened story.
    #[arg(long, default_value_t = 100)]
    lines: usize,
    /// Plant this bug, or `all` one after the other, and tell after how many seeds each is caught.
    #[cfg(feature = "planted-bugs")]
    #[arg(long)]
    planted: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.trace {
        tracing_subscriber::fmt().without_time().with_ansi(false).init();
    }
    // A group that panics is fenced; the violation tells of it.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let first = arguments.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 16);
    #[cfg(feature = "planted-bugs")]
    if let Some(name) = &arguments.planted {
        return hunt(name, first, arguments.seeds.min(20_000));
    }
    simulate(&arguments, first)
}

fn simulate(arguments: &Arguments, first: u64) -> ExitCode {
    let begun = Instant::now();
    let limit = Duration::from_secs_f64(arguments.minutes * 60.0);
    let (mut coverage, mut steps, mut count, mut failures) = (Coverage::default(), 0, 0, 0);
    // Only histories of some length count; a plan does not know how long its history will be.
    let mut long = 0;
    let mut told = begun;
    while long < arguments.seeds && begun.elapsed() < limit {
        let seed = first + count;
        let plan = Plan::of_seed(seed);
        let outcome = run(&plan, arguments.trace);
        for line in &outcome.trace {
            println!("{line}");
        }
        count += 1;
        steps += outcome.steps;
        long += u64::from(outcome.steps >= STEPS_MIN);
        coverage.add(&outcome.coverage);
        if outcome.violation.is_some() {
            failures += 1;
            tell(arguments, seed, &plan, &outcome);
            if !arguments.all {
                break;
            }
        }
        if told.elapsed() > PROGRESS_EVERY {
            told = Instant::now();
            println!("{count} seeds, {:.1} a second", count as f64 / begun.elapsed().as_secs_f64());
        }
    }
    println!("{coverage}");
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{count} seeds from {first}, {long} of {STEPS_MIN} steps and more, {failures} fail, \
         {steps} steps, {rate:.1} seeds a second"
    );
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(arguments: &Arguments, seed: u64, plan: &Plan, outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    println!("seed {seed} fails: {violation}");
    if arguments.whole || arguments.all {
        return;
    }
    let short = shrink(plan, violation);
    let outcome = run(&short, true);
    let skipped = outcome.trace.len().saturating_sub(arguments.lines);
    for line in &outcome.trace[skipped..] {
        println!("{line}");
    }
    println!("{}", story(&short));
    println!("fails: {}", outcome.violation.expect("it was shrunk to fail"));
}

#[cfg(feature = "planted-bugs")]
fn hunt(name: &str, first: u64, seeds_max: u64) -> ExitCode {
    use vltava_tests::planted::{BUGS, hunt};

    std::panic::set_hook(Box::new(|_| {}));
    let wanted: Vec<_> = BUGS.iter().filter(|(bug, _)| name == "all" || *bug == name).collect();
    if wanted.is_empty() {
        println!("no bug is called {name}");
        return ExitCode::FAILURE;
    }
    let mut is_blind = false;
    for (name, bug) in wanted {
        if let Some(caught) = hunt(*bug, first, seeds_max) {
            println!("{name:<34} caught after {:>5} seeds: {}", caught.seeds, caught.violation);
        } else {
            println!("{name:<34} NOT caught in {seeds_max} seeds from {first}");
            is_blind = true;
        }
    }
    if is_blind { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
