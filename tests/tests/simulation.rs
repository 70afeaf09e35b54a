//! The simulator on fresh seeds, each a history of faults over thousands of steps.
//!
//! `VLTAVA_SIM_SEED=n` runs one seed again, `VLTAVA_SIM_SEEDS=n` another number of fresh ones.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use vltava_tests::coverage::Coverage;
use vltava_tests::plan::Plan;
use vltava_tests::simulate::{Outcome, run, shrink, story};

/// Fresh seeds that every run of the tests tries.
const SEEDS: u64 = 200;

/// What the seeds together must have gone through.
const MUST_HAPPEN: &[&str] = &[
    "batch acknowledged",
    "acknowledged batch sent again",
    "duplicate recognized",
    "read",
    "old slice checked",
    "log start proposed",
    "membership change proposed",
    "replica dropped",
    "leadership transfer",
    "durability changed",
    "loss announced",
    "lost tail refilled or given up",
    "page-cache replica abstains",
    "frame lost",
    "frame doubled",
    "frame on a cut link",
    "torn tail recovered",
    "disk poisoned by a failed sync",
    "flush round failed",
    "power cut between two disk operations",
    "fault: process crash",
    "fault: power cut",
    "fault: power cut of all",
    "fault: orderly stop, then power cut",
    "fault: disk wiped",
    "fault: latent damage",
    "fault: disk full",
    "fault: disk error",
    "fault: slow disk",
    "fault: clock skew",
    "fault: cut",
    "fault: asymmetric cut",
    "fault: isolation",
    "fault: bad network",
];

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Fails with the whole of the shortest story found.
fn tell(seed: u64, plan: &Plan, outcome: &Outcome) {
    let violation = outcome.violation.as_ref().expect("it failed");
    let short = shrink(plan, violation);
    let again = run(&short, true);
    for line in again.trace.iter().rev().take(60).rev() {
        println!("{line}");
    }
    panic!(
        "seed {seed} fails: {violation}\n{}\nfails: {}",
        story(&short),
        again.violation.expect("it was shrunk to fail")
    );
}

#[test]
fn fresh_seeds() {
    // A group that panics is fenced, and the violation tells of it.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let only = number_in("VLTAVA_SIM_SEED");
    let first = only.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 16);
    let count = only.map_or_else(|| number_in("VLTAVA_SIM_SEEDS").unwrap_or(SEEDS), |_| 1);
    println!("seeds {first} to {}", first + count - 1);
    let (mut coverage, mut steps) = (Coverage::default(), 0);
    for seed in first..first + count {
        let plan = Plan::of_seed(seed);
        let outcome = run(&plan, false);
        if outcome.violation.is_some() {
            tell(seed, &plan, &outcome);
        }
        steps += outcome.steps;
        coverage.add(&outcome.coverage);
    }
    println!("{steps} steps\n{coverage}");
    if count >= SEEDS {
        assert!(steps >= 2000 * count, "{steps} steps");
        assert_eq!(coverage.missing(MUST_HAPPEN), Vec::<&str>::new());
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in 1000..1008 {
        let plan = Plan::of_seed(seed);
        let (first, second) = (run(&plan, false), run(&plan, false));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.steps, second.steps, "seed {seed}");
        assert_eq!(first.coverage, second.coverage, "seed {seed}");
        assert_eq!(first.violation, second.violation, "seed {seed}");
    }
    let other = run(&Plan::of_seed(1008), false);
    assert_ne!(run(&Plan::of_seed(1000), false).hash, other.hash);
}
