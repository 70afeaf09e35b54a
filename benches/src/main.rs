//! The benchmark command: whole-process figures of the real binary.
//!
//! The micro-benchmarks are not here but under `cargo bench`: see the README of this crate.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod figures;

/// Measures Vltava.
#[derive(Debug, Parser)]
#[command(name = "vltava-benches")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start-up, recovery, memory and idle processor time of one broker, beside their bars.
    Figures(figures::Options),
}

fn main() -> ExitCode {
    let Command::Figures(options) = Cli::parse().command;
    match figures::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vltava-benches: {error}");
            ExitCode::FAILURE
        }
    }
}
