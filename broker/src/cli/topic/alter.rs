//! `vltava topic alter`: more partitions, another configuration.

use clap::Args;
use serde_json::json;

use super::pair;
use crate::cli::{ClientArgs, CommandError, output};
use crate::client::admin::{ConfigChange, Resource};

/// `vltava topic alter`.
#[derive(Debug, Args)]
pub struct AlterArgs {
    /// The topic's name.
    name: String,
    #[command(flatten)]
    changes: ChangeArgs,
    /// Check everything, change nothing.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// What is changed.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct ChangeArgs {
    /// How many partitions it shall have: more than now.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Set a configuration key. May be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = pair)]
    configs: Vec<(String, String)>,
    /// Forget what was set for a key: the default is back. May be repeated.
    #[arg(long = "delete-config", value_name = "KEY")]
    deletes: Vec<String>,
}

pub(super) async fn run(args: AlterArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let (name, changes) = (&args.name, args.changes);
    let sets = changes.configs.into_iter().map(|(key, value)| ConfigChange::Set(key, value));
    let deletes = changes.deletes.into_iter().map(ConfigChange::Delete);
    let configs: Vec<ConfigChange> = sets.chain(deletes).collect();
    // The configuration goes first: it can be taken back, a partition cannot.
    if !configs.is_empty() {
        let topic = Resource::Topic(name.clone());
        client.alter_config(&topic, &configs, args.validate_only).await?;
    }
    if let Some(partitions) = changes.partitions {
        client.create_partitions(name, partitions, args.validate_only).await?;
    }
    if args.client.json {
        return output::json(&json!({
            "topic": name,
            "partitions": changes.partitions,
            "config_changes": configs.len(),
            "altered": !args.validate_only,
        }));
    }
    let what = if args.validate_only { "could be altered" } else { "altered" };
    output::line(&format!("topic {name} {what}"))
}
