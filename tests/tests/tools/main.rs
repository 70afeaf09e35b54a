//! Apache Kafka's command line tools from their published artifacts, one row a field of work: what
//! they print is what they print against Apache Kafka 4.3.1.

mod admin_client;
mod flow;
mod groups;
mod topics;

use std::process::ExitCode;

use vltava_tests::harness::{BrokerOptions, Rows};

/// Rows side by side: each is a virtual machine that starts, then mostly waits.
const THREADS: usize = 3;

fn main() -> ExitCode {
    let mut rows = Rows::default();
    rows.add("admin_client", admin_client::transcript);
    rows.add("consumer_groups", groups::empty);
    rows.add("consumer_groups_live", groups::live);
    rows.add("console", flow::console);
    rows.add("perf", flow::perf);
    rows.add("verifiable", flow::verifiable);
    rows.add("topics", topics::topics);
    rows.add("configs", topics::configs);
    rows.add("records_and_offsets", topics::records_and_offsets);
    rows.add("cluster", topics::cluster);
    rows.run(BrokerOptions::new(env!("CARGO_BIN_EXE_vltava-under-test")), THREADS)
}
