//! The administration APIs over raw sockets, answer by answer. One small test a row.
//!
//! What is expected is what Apache Kafka 4.3.1 answers on one node without an authorizer, codes,
//! texts and values; the same rows pass against it:
//!
//! ```text
//! kafka run DIR log.retention.check.interval.ms=200 log.initial.task.delay.ms=100
//! VLTAVA_TEST_BOOTSTRAP=127.0.0.1:19092 cargo test -p vltava-tests --test admin
//! ```
//!
//! The few places where we answer otherwise on purpose are told by [`Broker::is_external`].

mod ask;
mod configs;
mod create;
mod describe;
mod effects;
mod loggers;
mod partitions;
mod records;
mod resources;
mod restart;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use vltava_tests::harness::{self, Broker, BrokerOptions, Tested};

/// One row: a name and what it asks the broker.
type Row = (&'static str, fn(&Broker) -> Tested);

/// The broker under test: one that looks at retention often.
fn options() -> BrokerOptions {
    BrokerOptions::new(env!("CARGO_BIN_EXE_vltava-under-test"))
        .set("log.retention.check.interval.ms", "200")
}

fn main() -> ExitCode {
    let broker = match Broker::start(options()) {
        Ok(broker) => Arc::new(broker),
        Err(failed) => {
            let message = failed.message().unwrap_or("no message").to_owned();
            let trial = Trial::test("broker_starts", move || Err(Failed::from(message)));
            return harness::run(vec![trial], 1);
        }
    };
    let areas: [(&str, &[Row]); 9] = [
        ("create", create::ROWS),
        ("partitions", partitions::ROWS),
        ("records", records::ROWS),
        ("configs", configs::ROWS),
        ("resources", resources::ROWS),
        ("loggers", loggers::ROWS),
        ("describe", describe::ROWS),
        ("effects", effects::ROWS),
        ("restart", restart::ROWS),
    ];
    let mut trials = Vec::new();
    for (area, rows) in areas {
        for &(name, row) in rows {
            let broker = Arc::clone(&broker);
            let test = move || {
                row(&broker).map_err(|failed| {
                    let message = failed.message().unwrap_or("no message");
                    Failed::from(format!("{message}\n--- broker\n{}", broker.stderr_tail()))
                })
            };
            trials.push(harness::trial(&format!("{area}::{name}"), test));
        }
    }
    // One at a time: some change what all topics inherit.
    harness::run(trials, 1)
}
