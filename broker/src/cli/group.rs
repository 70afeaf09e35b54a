//! `vltava group`: list, describe, explain and delete groups, and set what they have committed.

mod delete;
mod describe;
mod explain;
mod position;
mod reset;
mod scope;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ClientArgs, CommandError, output};

/// The commands on groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List all groups.
    #[command(after_help = "Examples:
  vltava group list
  vltava group list --state empty --state dead
  vltava group list --type classic --json")]
    List(ListArgs),
    /// Show members and their partitions, what is committed and what is left to read.
    #[command(after_help = "Examples:
  vltava group describe maps
  vltava group describe --json")]
    Describe(describe::DescribeArgs),
    /// Say why a group was disturbed last, which member is slow, and how far it is behind in records
    /// and in time.
    #[command(
        after_help = "The history of a group is asked from Vltava's admin listener (--admin). \
Any other broker
tells what the protocol has: members, assignments and lag.

Examples:
  vltava group explain maps
  vltava group explain maps --admin broker.example:9644 --json"
    )]
    Explain(explain::ExplainArgs),
    /// Set what a group without members has committed. Without --execute it is only shown.
    #[command(
        after_help = "Points in time are UTC unless they have a zone. An offset that is not \
in the log becomes the
nearest that is. A file has lines `topic,partition,offset`, as --export prints them.

Examples:
  vltava group reset-offsets maps --topic rivers --to-earliest
  vltava group reset-offsets maps --topic rivers:0,2 --to-offset 17 --execute
  vltava group reset-offsets maps --all-topics --shift-by -100 --execute
  vltava group reset-offsets maps --topic rivers --to-datetime 2026-11-24T18:30:00 --execute
  vltava group reset-offsets maps --topic rivers --by-duration PT1H30M --execute
  vltava group reset-offsets maps --all-topics --to-current --export > plan.csv
  vltava group reset-offsets maps --from-file plan.csv --execute"
    )]
    ResetOffsets(reset::ResetArgs),
    /// Forget what a group has committed for some topics.
    #[command(after_help = "Examples:
  vltava group delete-offsets maps --topic rivers
  vltava group delete-offsets maps --topic rivers:0,2")]
    DeleteOffsets(delete::DeleteOffsetsArgs),
    /// Delete groups without members, with all that they have committed.
    #[command(after_help = "Example:
  vltava group delete maps")]
    Delete(delete::DeleteArgs),
}

/// `vltava group list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only groups in this state: stable, empty, … May be repeated.
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<String>,
    /// Only groups of this kind: classic, consumer, … May be repeated.
    #[arg(long = "type", value_name = "KIND")]
    kinds: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs one of them.
pub async fn run(command: GroupCommand) -> Result<(), CommandError> {
    match command {
        GroupCommand::List(args) => list(args).await,
        GroupCommand::Describe(args) => describe::run(args).await,
        GroupCommand::Explain(args) => explain::run(args).await,
        GroupCommand::ResetOffsets(args) => reset::run(args).await,
        GroupCommand::DeleteOffsets(args) => delete::offsets(args).await,
        GroupCommand::Delete(args) => delete::groups(args).await,
    }
}

async fn list(args: ListArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let groups = client.list_groups(&args.states, &args.kinds).await?;
    if args.client.json {
        let listed = groups.iter().map(|one| {
            json!({
                "group": one.group,
                "state": one.state,
                "type": one.kind,
                "protocol_type": one.protocol_type,
                "coordinator": one.coordinator.0,
            })
        });
        return output::json(&listed.collect());
    }
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let rows = groups.iter().map(|one| {
        vec![
            one.group.clone(),
            or_dash(&one.state),
            or_dash(&one.kind),
            or_dash(&one.protocol_type),
            one.coordinator.to_string(),
        ]
    });
    output::table(&["GROUP", "STATE", "TYPE", "PROTOCOL", "COORDINATOR"], rows.collect())
}
