//! Every planted bug is caught by the simulator within a bounded number of seeds.
//!
//! Only with the feature `planted-bugs`, and best optimized, since some take hundreds of seeds:
//! `cargo test --release -p vltava-tests --features planted-bugs --test planted`. One test, because a
//! planted bug is in force in the whole process.

use vltava_tests::planted::{BUGS, hunt};

/// The first seed, fixed: what is caught today is caught tomorrow.
const FIRST: u64 = 100;
/// Seeds for one bug: all bugs together take minutes at worst.
const SEEDS_MAX: u64 = 2000;

#[test]
fn every_planted_bug_is_caught() {
    // A group that panics is fenced, and the violation tells of it.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for (name, bug) in BUGS {
        match hunt(bug, FIRST, SEEDS_MAX) {
            Some(caught) => {
                println!("{name}: caught after {} seeds: {}", caught.seeds, caught.violation);
            }
            None => missed.push(name),
        }
    }
    let _ = std::panic::take_hook();
    assert_eq!(missed, Vec::<&str>::new(), "not caught in {SEEDS_MAX} seeds from {FIRST}");
}
