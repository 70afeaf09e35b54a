//! Clients that lie, hang, flood and break off, over raw sockets. One small test a row.
//!
//! After every one the broker must still serve a good client and must not have grown past
//! [`RESIDENT_BYTES_MAX`]. The expected error codes are Apache Kafka's: the same rows pass against
//! it (`VLTAVA_TEST_BOOTSTRAP=host:port`), except those of limits that only we promise.

mod fetch;
mod frames;
mod group_limits;
mod groups;
mod idempotence;
mod load;
mod lookups;
mod payloads;
mod produce;
mod sessions;
mod topics;
mod user_interfaces;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use vltava_tests::harness::{self, Broker, BrokerOptions, Tested, good_client};

/// What the broker may hold in memory at any time of this file. The largest single thing that a
/// client can make it hold is a frame of 100 MiB, and no row completes one.
const RESIDENT_BYTES_MAX: u64 = 512 << 20;

/// One row: a name and what it does to the broker.
type Row = (&'static str, fn(&Broker) -> Tested);

fn main() -> ExitCode {
    let options = BrokerOptions::new(env!("CARGO_BIN_EXE_vltava-under-test"));
    let broker = match Broker::start(options) {
        Ok(broker) => Arc::new(broker),
        Err(failed) => {
            let message = failed.message().unwrap_or("no message").to_owned();
            let trial = Trial::test("broker_starts", move || Err(Failed::from(message)));
            return harness::run(vec![trial], 1);
        }
    };
    let areas: [(&str, &[Row]); 12] = [
        ("frames", frames::ROWS),
        ("produce", produce::ROWS),
        ("idempotence", idempotence::ROWS),
        ("fetch", fetch::ROWS),
        ("sessions", sessions::ROWS),
        ("lookups", lookups::ROWS),
        ("topics", topics::ROWS),
        ("payloads", payloads::ROWS),
        ("group_limits", group_limits::ROWS),
        ("groups", groups::ROWS),
        ("load", load::ROWS),
        ("user_interfaces", user_interfaces::ROWS),
    ];
    let mut trials = Vec::new();
    for (area, rows) in areas {
        for &(name, row) in rows {
            let broker = Arc::clone(&broker);
            trials.push(harness::trial(&format!("{area}::{name}"), move || attack(&broker, row)));
        }
    }
    // Few at a time: the rows that flood should not make the others look slow.
    harness::run(trials, 2)
}

/// Runs one row, then looks whether the broker survived it.
fn attack(broker: &Broker, row: fn(&Broker) -> Tested) -> Tested {
    let outcome = catch_unwind(AssertUnwindSafe(|| row(broker)));
    let outcome = outcome.unwrap_or_else(|panic| Err(Failed::from(describe(&*panic))));
    outcome.map_err(|failed| with_stderr(broker, &failed))?;
    let served = catch_unwind(AssertUnwindSafe(|| good_client::check(broker.bootstrap())));
    let served = served.unwrap_or_else(|panic| Err(Failed::from(describe(&*panic))));
    served.map_err(|failed| {
        let message = failed.message().unwrap_or("no message");
        with_stderr(broker, &Failed::from(format!("a good client is not served: {message}")))
    })?;
    if let Some(resident) = broker.resident_bytes()? {
        assert!(resident <= RESIDENT_BYTES_MAX, "the broker holds {resident} bytes");
    }
    Ok(())
}

fn describe(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without text").to_owned()
}

fn with_stderr(broker: &Broker, failed: &Failed) -> Failed {
    let message = failed.message().unwrap_or("no message");
    Failed::from(format!("{message}\n--- broker's standard error\n{}", broker.stderr_tail()))
}
