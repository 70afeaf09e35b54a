//! Standard clients, unchanged: librdkafka from Rust and Python, kafka-python, aiokafka, Apache
//! Kafka's Java client, franz-go, sarama and kafkajs.
//!
//! `NAME_exchange` runs one program of `tests/clients/` (or the Rust client here) against one
//! broker: it creates topics, produces keyed records with every codec and acks it knows, idempotent
//! where it can be, with headers and timestamps, and reads them back; checked are exact content,
//! order, dense offsets, seek and lookup by time. `NAME_group` is the life of a consumer group of
//! that library with its administration; `_old` is the same in old versions of the protocol.

#[path = "clients/group.rs"]
mod group;
#[path = "clients/library.rs"]
mod library;
#[path = "clients/member.rs"]
mod member;
#[path = "clients/rust_client.rs"]
mod rust_client;

use std::process::ExitCode;

use libtest_mimic::Completion;
use vltava_tests::harness::{Broker, BrokerOptions, Rows, Tested};

use group::Cast;
use library::{LIBRARIES, Library};

/// Rows side by side: most of a group's life is waiting.
const THREADS: usize = 6;

fn main() -> ExitCode {
    if std::env::var_os(library::AS_RUST_CLIENT).is_some() {
        return rust_client::main();
    }
    let mut rows = Rows::default();
    for library in LIBRARIES {
        let name = library.name;
        rows.add(format!("{name}_exchange"), move |broker| exchange(broker, library));
        let cast = Cast { strategy: "default", versions: "new" };
        rows.add(format!("{name}_group"), move |broker| group::life(broker, library, cast));
        if library.old_versions {
            let old = Cast { strategy: "range", versions: "old" };
            rows.add(format!("{name}_group_old"), move |broker| group::life(broker, library, old));
        }
    }
    for (name, members) in [
        ("mixed_group_jvm_go_c", ["java_kafka_clients", "go_franz_go", "rust_rdkafka"]),
        ("mixed_group_python_go", ["python_kafka_python", "python_aiokafka", "go_sarama"]),
    ] {
        rows.add(name, move |broker| group::mixed(broker, &members));
    }
    rows.run(BrokerOptions::new(env!("CARGO_BIN_EXE_vltava-under-test")), THREADS)
}

/// Produces and reads back, in every way that the library knows.
fn exchange(broker: &Broker, library: Library) -> Tested<Completion> {
    match (library.command)()? {
        Ok(program) => {
            library::play(&program, &["exchange", broker.bootstrap()], library.runs)?;
            Ok(Completion::Completed)
        }
        Err(missing) => missing.into_completion(),
    }
}
