//! Groups in the simulator on fresh seeds.
//!
//! `VLTAVA_SIM_SEED=n` runs one seed again, `VLTAVA_SIM_SEEDS=n` another number of fresh ones.

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};

use vltava_tests::coverage::Coverage;
use vltava_tests::groups::run;

/// Fresh seeds that every run of the tests tries.
const SEEDS: u64 = 12;

/// What the seeds together must have gone through.
const MUST_HAPPEN: &[&str] = &[
    "commit acknowledged",
    "member goes on from what was committed",
    "member told of a rebalance",
    "member was removed",
    "member left",
    "member looks for another coordinator",
    "coordinator deposed",
    "request lost",
    "answer lost",
    "request timed out",
    "desk compared with its log",
    "fault: process crash",
    "fault: power cut",
    "fault: power cut of all",
    "fault: isolation",
    "fault: bad network",
    "leadership transfer",
];

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn fresh_seeds() {
    let only = number_in("VLTAVA_SIM_SEED");
    let first = only.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 16);
    let count = only.map_or_else(|| number_in("VLTAVA_SIM_SEEDS").unwrap_or(SEEDS), |_| 1);
    println!("seeds {first} to {}", first + count - 1);
    let (mut coverage, mut steps) = (Coverage::default(), 0);
    for seed in first..first + count {
        let outcome = run(seed);
        if let Some(violation) = outcome.violation {
            let mut story = String::new();
            for (at, action) in outcome.story {
                let _ = writeln!(story, "{at:>9} {action}");
            }
            panic!("seed {seed} fails: {violation}\n{story}");
        }
        steps += outcome.steps;
        coverage.add(&outcome.coverage);
    }
    println!("{steps} steps\n{coverage}");
    if count >= SEEDS {
        assert_eq!(coverage.missing(MUST_HAPPEN), Vec::<&str>::new());
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in 1000..1003 {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.steps, second.steps, "seed {seed}");
        assert_eq!(first.coverage, second.coverage, "seed {seed}");
    }
}
