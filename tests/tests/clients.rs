//! Standard clients, unchanged: librdkafka from Rust and Python, kafka-python, aiokafka, Apache
//! Kafka's Java client and its command line tools.
//!
//! Each row runs one program of `tests/clients/` (or the Rust client here) against one broker: it
//! creates topics, produces keyed records with every codec and acks it knows, idempotent where it
//! can be, with headers and timestamps, and reads them back from assigned partitions. Checked are
//! exact content, order, dense offsets, seek and lookup by time.

#[path = "clients/rust_client.rs"]
mod rust_client;
#[path = "clients/tools.rs"]
mod tools;

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use vltava_tests::harness::{self, Broker, BrokerOptions, Tested, paths, process, toolchain};

/// How long one client program may run.
const PROGRAM_DEADLINE: Duration = Duration::from_mins(5);

/// A row that may find its toolchain missing.
type Row = fn(&Broker) -> Tested<Completion>;

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
    let rows: [(&str, Row); 8] = [
        ("rust_rdkafka", rust_client::exchange),
        ("python_confluent_kafka", |broker| python(broker, "confluent.py", 9)),
        ("python_kafka_python", |broker| python(broker, "kafka_python.py", 8)),
        ("python_aiokafka", |broker| python(broker, "aiokafka_client.py", 8)),
        ("java_kafka_clients", java),
        ("tools_topics", tools::topics),
        ("tools_console", tools::console),
        ("tools_producer_perf", tools::producer_perf),
    ];
    let trials = rows.map(|(name, row)| {
        let broker = Arc::clone(&broker);
        Trial::ignorable_test(name, move || {
            row(&broker).map_err(|failed| {
                let message = failed.message().unwrap_or("no message");
                Failed::from(format!("{message}\n--- broker\n{}", broker.stderr_tail()))
            })
        })
    });
    harness::run(trials.into(), 2)
}

/// Runs one Python program, which says "ok" once for each of its `runs`.
fn python(broker: &Broker, program: &str, runs: usize) -> Tested<Completion> {
    let interpreter = match toolchain::python()? {
        Ok(interpreter) => interpreter,
        Err(missing) => return missing.into_completion(),
    };
    let mut command = Command::new(interpreter);
    command.arg("-B").arg(paths::tests_crate().join("clients/python").join(program));
    command.arg(broker.bootstrap());
    said_ok(&process::succeed(&mut command, b"", PROGRAM_DEADLINE)?, runs);
    Ok(Completion::Completed)
}

fn java(broker: &Broker) -> Tested<Completion> {
    let java = match toolchain::java()? {
        Ok(java) => java,
        Err(missing) => return missing.into_completion(),
    };
    let mut command = java.command("Exchange");
    command.arg(broker.bootstrap());
    said_ok(&process::succeed(&mut command, b"", PROGRAM_DEADLINE)?, 8);
    Ok(Completion::Completed)
}

fn said_ok(output: &process::Output, runs: usize) {
    let said = output.stdout.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(said, runs, "the program passed over some of its runs:\n{}", output.stdout);
}
