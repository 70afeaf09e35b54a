//! `vltava pipeline`: the pipelines that run inside a broker, asked from its admin listener.

use std::time::Duration;

use clap::{Args, Subcommand};
use vltava_streams::PipelineStatus;

use super::{CommandError, output};
use crate::client::ClientError;
use crate::client::http::{get, percent_encoded, post};

/// How long the admin listener may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The commands on pipelines.
#[derive(Debug, Subcommand)]
pub enum PipelineCommand {
    /// List the pipelines that run in a broker.
    #[command(after_help = "Example:
  vltava pipeline list --admin 127.0.0.1:9644")]
    List(ListArgs),
    /// Show the nodes and tasks of a pipeline, what went through and what is left to read.
    #[command(after_help = "Example:
  vltava pipeline describe orders --json")]
    Describe(NameArgs),
    /// Let a pipeline end what it has begun, and rest.
    #[command(after_help = "Example:
  vltava pipeline pause orders")]
    Pause(NameArgs),
    /// Let a pipeline go on.
    #[command(after_help = "Example:
  vltava pipeline resume orders")]
    Resume(NameArgs),
}

/// Whom to ask.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The admin listener of the broker.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9644")]
    admin: String,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// Which pipeline, and whom to ask.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// The pipeline.
    name: String,
    #[command(flatten)]
    list: ListArgs,
}

/// Runs a command.
pub async fn run(command: PipelineCommand) -> Result<(), CommandError> {
    match command {
        PipelineCommand::List(args) => list(&args).await,
        PipelineCommand::Describe(args) => {
            let path = format!("/pipelines/{}", percent_encoded(&args.name));
            let answer = get(&args.list.admin, &path, PATIENCE).await?;
            describe(&read(&args.list.admin, &answer)?, args.list.json)
        }
        PipelineCommand::Pause(args) => act(&args, "pause").await,
        PipelineCommand::Resume(args) => act(&args, "resume").await,
    }
}

async fn list(args: &ListArgs) -> Result<(), CommandError> {
    let answer = get(&args.admin, "/pipelines", PATIENCE).await?;
    let pipelines: Vec<PipelineStatus> = read(&args.admin, &answer)?;
    if args.json {
        return output::json(&serde_json::json!(pipelines));
    }
    let row = |pipeline: &PipelineStatus| {
        let lag: i64 = pipeline.tasks.iter().map(|task| task.lag).sum();
        let (name, state) = (pipeline.name.clone(), pipeline.state.clone());
        vec![name, state, pipeline.tasks.len().to_string(), lag.to_string()]
    };
    output::table(&["PIPELINE", "STATE", "TASKS", "LAG"], pipelines.iter().map(row).collect())
}

async fn act(args: &NameArgs, action: &str) -> Result<(), CommandError> {
    let path = format!("/pipelines/{}/{action}", percent_encoded(&args.name));
    let answer = post(&args.list.admin, &path, PATIENCE).await?;
    let status: PipelineStatus = read(&args.list.admin, &answer)?;
    if args.list.json {
        return output::json(&serde_json::json!(status));
    }
    output::line(&format!("{} is {}", status.name, status.state))
}

fn describe(status: &PipelineStatus, json: bool) -> Result<(), CommandError> {
    if json {
        return output::json(&serde_json::json!(status));
    }
    output::line(&format!("{} is {}", status.name, status.state))?;
    let ms = |micros: u64| micros as f64 / 1000.0;
    for (name, measured) in [("latency", &status.latency_us), ("turnaround", &status.turnaround_us)]
    {
        output::line(&format!(
            "{name} of {} records: p50 {} ms, p99 {} ms, max {} ms",
            measured.count,
            ms(measured.p50),
            ms(measured.p99),
            ms(measured.max),
        ))?;
    }
    let nodes = status.nodes.iter().map(|node| {
        let counts = [node.records, node.bytes, node.rejects, node.faults];
        let counts = counts.iter().map(ToString::to_string);
        [node.name.clone(), node.operator.clone()].into_iter().chain(counts).collect()
    });
    let header = ["NODE", "OPERATOR", "RECORDS", "BYTES", "REJECTS", "FAULTS"];
    output::table(&header, nodes.collect())?;
    let tasks = status.tasks.iter().map(|task| {
        let figures = [task.position, task.safe, task.lag, task.lag_ms];
        let figures = figures.iter().map(ToString::to_string);
        let source = format!("{}-{}", task.topic, task.partition);
        let stopped = task.stopped.clone().unwrap_or_else(|| "-".to_owned());
        std::iter::once(source).chain(figures).chain([stopped]).collect()
    });
    let header = ["SOURCE", "POSITION", "SAFE", "LAG", "LAG MS", "STOPPED"];
    output::table(&header, tasks.collect())
}

/// What the listener has told.
fn read<T: serde::de::DeserializeOwned>(
    address: &str,
    answer: &crate::client::http::HttpAnswer,
) -> Result<T, CommandError> {
    if answer.status != 200 {
        let told: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
        let reason = told.as_ref().and_then(|told| told["error"].as_str());
        let reason = reason.map_or_else(|| format!("status {}", answer.status), ToOwned::to_owned);
        return Err(ClientError::Missing(format!("{address}: {reason}")).into());
    }
    let malformed = |error: serde_json::Error| ClientError::Malformed {
        address: address.to_owned(),
        api: "HTTP",
        reason: error.to_string(),
    };
    Ok(serde_json::from_slice(&answer.body).map_err(malformed)?)
}
