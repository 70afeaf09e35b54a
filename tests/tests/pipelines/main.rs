//! Pipelines in a process of their own and in this one: killed under load, read back by standard
//! clients, shown by Kafka's tools.

mod crash;

use std::process::ExitCode;

use libtest_mimic::Trial;
use vltava_tests::harness;

fn main() -> ExitCode {
    let trials = vec![Trial::ignorable_test("nothing_is_lost_by_sigkill", crash::nothing_is_lost)];
    harness::run(trials, 1)
}
