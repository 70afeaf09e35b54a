//! What the tests of real processes stand on: a broker as a child process, a raw socket, batches
//! built byte by byte, foreign clients and their toolchains.
//!
//! Invariant: nothing here knows the broker's inside. A broker is a binary, a ready line, a socket
//! and a process id, so that the same tests run against any Kafka-compatible broker
//! (`VLTAVA_TEST_BOOTSTRAP=host:port` points them at one that is already running).
//!
//! Called by the files in `tests/tests/`. What a test leaves behind lies under `target/`.
#![allow(clippy::disallowed_methods, reason = "tests of real processes use real files and clocks")]

pub mod batch;
pub mod broker;
pub mod desk;
pub mod good_client;
pub mod load;
pub mod members;
pub mod paths;
pub mod process;
pub mod raw;
pub mod requests;
pub mod rows;
pub mod toolchain;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

pub use batch::{RawBatch, RawRecord};
pub use broker::{Broker, BrokerOptions};
pub use raw::RawClient;
pub use rows::Rows;

/// What a step of a test gives: `?` turns every displayable error into a failure.
pub type Tested<T = ()> = Result<T, Failed>;

/// Why a test cannot run on this machine: a toolchain or a right is missing.
#[derive(Debug, Clone)]
pub struct Missing(pub String);

impl Missing {
    /// Reports the test as skipped, or as failed where skipping hides a gap (`CI=true`).
    ///
    /// Errors: in continuous integration every toolchain is expected to be there.
    pub fn into_completion(self) -> Tested<Completion> {
        if std::env::var("CI").is_ok_and(|value| value == "true") {
            return Err(Failed::from(format!("may not be skipped with CI=true: {}", self.0)));
        }
        Ok(Completion::ignored_with(self.0))
    }
}

/// One named test for [`run`]. Panics inside fail the test alone.
pub fn trial<F>(name: &str, test: F) -> Trial
where
    F: FnOnce() -> Tested + Send + 'static,
{
    Trial::test(name, test)
}

/// Runs the tests of one file and prints libtest's closing lines. `threads` bounds how many run at
/// a time where the command line does not say.
pub fn run(tests: Vec<Trial>, threads: usize) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(threads);
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// The seed of a randomized test: `VLTAVA_TEST_SEED`, or a fresh one. It is printed, so that a
/// failing run can be repeated.
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("VLTAVA_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    println!("{test}: VLTAVA_TEST_SEED={seed}");
    seed
}

/// How many rounds a randomized test makes: the environment variable `name`, else `default`.
pub fn rounds(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Milliseconds since the epoch, for record timestamps that a broker's window accepts.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("the clock stands after 1970");
    i64::try_from(since.as_millis()).expect("the clock stands before the year 292 million")
}
