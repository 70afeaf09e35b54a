//! Pipelines in a process of their own and in this one: killed under load, read back by standard
//! clients, shown by Kafka's tools.

mod crash;
mod operators;
mod readers;
mod tables;

use std::process::ExitCode;

use libtest_mimic::Trial;
use vltava_tests::harness;

/// As in the shipped binary: a hostile array count reserves memory without touching it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let trials = vec![
        Trial::ignorable_test("nothing_is_lost_by_sigkill", crash::nothing_is_lost),
        harness::trial("operators_read_by_librdkafka", operators::read_by_librdkafka),
        Trial::ignorable_test("operators_read_by_java", operators::read_by_java),
    ];
    harness::run(trials, 1)
}
