//! The benchmark command: whole-process figures of the real binary, and the table of what
//! `cargo bench` measured. See the README of this crate.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod client;
mod compare;
mod dialog;
mod embed;
mod error;
mod figures;
mod process;
mod table;
mod vltava;

/// As in the broker's binary, which this program is in one of its parts.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures Vltava.
#[derive(Debug, Parser)]
#[command(name = "vltava-benches")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Vltava beside Apache Kafka under the same loads; writes `benches/results`.
    Compare(compare::Options),
    /// A broker with pipelines inside, told by lines on its input: a part of `compare --streams`.
    #[command(hide = true)]
    Embed(embed::Options),
    /// Start-up, recovery, memory and idle processor time of one broker, beside their bars.
    Figures(figures::Options),
    /// What the last `cargo bench` measured, best and median sample, limits and ours together.
    Table(table::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compare(options) => compare::run(&options).map_err(|error| error.to_string()),
        Command::Embed(options) => embed::run(&options).map_err(|error| error.to_string()),
        Command::Figures(options) => figures::run(&options).map_err(|error| error.to_string()),
        Command::Table(options) => {
            table::run(&options).map_err(|error| format!("cannot read criterion's files: {error}"))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vltava-benches: {error}");
            ExitCode::FAILURE
        }
    }
}
