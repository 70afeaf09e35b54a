//! The command line of the one binary.
//!
//! Every command prints its result on standard output, tables for people by default and JSON with
//! `--json`, and one line on standard error when it fails; it then ends with status 1. A usage
//! error ends with status 2. Of several things at once all are tried; what was done is printed, and
//! the line names the first that failed.

pub mod completion;
pub mod config;
pub mod consume;
pub mod group;
pub mod log;
pub mod output;
pub mod pipeline;
pub mod produce;
pub mod progress;
pub mod serve;
pub mod topic;
pub mod when;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::client::{Client, ClientError};

/// The broker that clients try first when none is given.
pub const DEFAULT_BOOTSTRAP: &str = "127.0.0.1:9092";

/// A Kafka-compatible broker cluster and stream runtime in one binary.
#[derive(Debug, Parser)]
#[command(name = "vltava", version, max_term_width = 100)]
#[command(after_help = "Examples:
  vltava serve                                     one broker, data in ./vltava-data
  vltava topic create rivers --partitions 4
  echo 'prague:bridges' | vltava produce rivers --key-separator :
  vltava consume rivers --from-beginning
  vltava consume rivers --group maps               several share the partitions
  vltava group describe maps                       who reads what, and what is left

Status: 0 it is done; 1 it failed, one line on standard error says why; 2 the command line is wrong.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker.
    Serve(serve::ServeArgs),
    /// Create, list, describe, alter and delete topics.
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Write lines of standard input, or of a file, to a topic.
    Produce(produce::ProduceArgs),
    /// Print records of a topic.
    Consume(consume::ConsumeArgs),
    /// List, describe, explain and delete groups, and set their offsets.
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Show, pause and resume the pipelines that run inside a broker.
    #[command(subcommand)]
    Pipeline(pipeline::PipelineCommand),
    /// Show and change the configuration of topics, brokers and groups.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Look into the files of a data directory.
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Print a script that completes these commands in a shell.
    Completion(completion::CompletionArgs),
}

/// Where a command finds the cluster, and how it prints.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
    /// Brokers to try, HOST:PORT, separated by commas.
    #[arg(long, value_name = "HOST:PORT", default_value = DEFAULT_BOOTSTRAP)]
    pub bootstrap: String,
    /// How long each request may take, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub request_timeout: u64,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
}

impl ClientArgs {
    /// Connects.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(&self.bootstrap, Duration::from_millis(self.request_timeout)).await
    }
}

/// Why a command failed: one line.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The cluster, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Input or output of this process.
    #[error("{what}: {error}")]
    Io {
        /// What was read or written.
        what: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// Several things at once, of which not all could be done.
    #[error("{first} (and {more} more)")]
    Several {
        /// Why the first could not.
        first: ClientError,
        /// How many others could not.
        more: usize,
    },
    /// An argument that is right by itself and wrong here.
    #[error("{0}")]
    Argument(String),
    /// Whoever read the output has gone; nothing is printed about that.
    #[error("the reader of the output has gone")]
    ReaderGone,
}

impl CommandError {
    /// An error of writing to standard output.
    pub fn output(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Io { what: "standard output".to_owned(), error },
        }
    }
}

/// What could be done of several things, and the failure if that is not all.
pub fn sift<T>(
    results: impl IntoIterator<Item = Result<T, ClientError>>,
) -> (Vec<T>, Result<(), CommandError>) {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(one) => done.push(one),
            Err(error) => failed.push(error),
        }
    }
    let more = failed.len().saturating_sub(1);
    let failed = match failed.into_iter().next() {
        None => Ok(()),
        Some(only) if more == 0 => Err(only.into()),
        Some(first) => Err(CommandError::Several { first, more }),
    };
    (done, failed)
}

/// Runs the command that the arguments of this process name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Topic(command) => run(topic::run(command)),
        Command::Produce(args) => run(produce::run(args)),
        Command::Consume(args) => run(consume::run(args)),
        Command::Group(command) => run(group::run(command)),
        Command::Config(command) => run(config::run(command)),
        Command::Pipeline(command) => run(pipeline::run(command)),
        Command::Log(command) => log::run(&command),
        Command::Completion(args) => completion::run(&args, Cli::command()),
    };
    match done {
        Ok(()) | Err(CommandError::ReaderGone) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Says why on standard error, in one line.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("vltava: {}", error.to_string().replace('\n', " "));
    ExitCode::FAILURE
}

/// Runs a client command on a small runtime of its own.
fn run<F>(command: F) -> Result<(), CommandError>
where
    F: Future<Output = Result<(), CommandError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::Io { what: "runtime".to_owned(), error })?;
    let done = runtime.block_on(command);
    // A thread may still be blocked in reading standard input; the process does not wait for it.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_are_understood() {
        for line in [
            "vltava topic create t --partitions 3 --config retention.ms=5 --config a=b",
            "vltava topic list --json",
            "vltava topic describe",
            "vltava topic describe t",
            "vltava topic delete t --bootstrap 127.0.0.1:1",
            "vltava produce t --key-separator : --header a=b --acks all --compression zstd",
            "vltava consume t --from-beginning --max-messages 3",
            "vltava consume t --partition 0 --offset 17 --format json",
            "vltava consume t --group g --from-beginning --commit-interval 100",
            "vltava topic create t u --validate-only",
            "vltava topic alter t --partitions 3 --config a=b --delete-config c",
            "vltava config describe topic t --all",
            "vltava config describe cluster --key a",
            "vltava config alter broker 1 --set a=b --delete c --append d=e --subtract f=g",
            "vltava group list --state empty --type classic",
            "vltava group describe",
            "vltava group describe g h",
            "vltava group reset-offsets g --topic t:0,1 --topic u --to-earliest --dry-run",
            "vltava group reset-offsets g --all-topics --shift-by -5 --execute",
            "vltava group reset-offsets g --topic t --to-datetime 2026-11-24T18:30:00",
            "vltava group reset-offsets g --topic t --by-duration PT1H",
            "vltava group reset-offsets g --from-file plan.csv --execute",
            "vltava group delete-offsets g --topic t",
            "vltava group delete g h",
            "vltava log dump a.log b.log --records --json",
            "vltava completion zsh",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "vltava",
            "vltava topic create",
            "vltava topic create t --partitions 0",
            "vltava produce t --acks 2",
            "vltava produce t --compression rar",
            "vltava produce t --header novalue",
            "vltava consume t --offset soon",
            "vltava consume t --from-beginning --offset 5",
            "vltava consume t --group g --partition 1",
            "vltava consume t --commit-interval 100",
            "vltava topic alter t",
            "vltava config describe topic",
            "vltava config alter topic t",
            "vltava config describe planet t",
            "vltava group reset-offsets g --topic t",
            "vltava group reset-offsets g --to-earliest",
            "vltava group reset-offsets g --topic t --to-earliest --to-latest",
            "vltava group reset-offsets g --topic t --from-file plan.csv",
            "vltava group reset-offsets g --topic t --to-datetime soon",
            "vltava group reset-offsets g --topic t --to-latest --execute --dry-run",
            "vltava group delete",
            "vltava completion fortran",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
