//! `vltava topic create`.

use clap::Args;
use serde_json::json;

use super::{TOPICS_PER_REQUEST, pair};
use crate::cli::progress::Progress;
use crate::cli::{ClientArgs, CommandError, output, sift};
use crate::client::admin::{CreatedTopic, NewTopic};

/// `vltava topic create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The topics' names.
    #[arg(required = true)]
    names: Vec<String>,
    /// How many partitions; the broker's default if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Replicas of each partition; the broker's default if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// Set a configuration key for the topics. May be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = pair)]
    configs: Vec<(String, String)>,
    /// Check everything, create nothing.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(args: CreateArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let mut progress = Progress::items(args.names.len() as u64, "topics");
    let mut results = Vec::new();
    for names in args.names.chunks(TOPICS_PER_REQUEST) {
        let topic = |name: &String| NewTopic {
            name: name.clone(),
            partitions: args.partitions,
            replication_factor: args.replication_factor,
            configs: args.configs.clone(),
        };
        let topics: Vec<NewTopic> = names.iter().map(topic).collect();
        let created = client.create_topics(&topics, args.validate_only).await?;
        let named = names.iter().zip(created);
        results.extend(named.map(|(name, created)| created.map(|created| (name, created))));
        progress.add(names.len() as u64);
    }
    drop(progress);
    let (created, failed) = sift(results);
    print(&args, &created)?;
    failed
}

fn print(args: &CreateArgs, created: &[(&String, CreatedTopic)]) -> Result<(), CommandError> {
    if args.client.json {
        let topic = |(name, topic): &(&String, CreatedTopic)| {
            json!({
                "topic": name,
                "id": topic.id.to_string(),
                "partitions": topic.partitions,
                "replication_factor": topic.replication_factor,
                "created": !args.validate_only,
            })
        };
        return output::json(&created.iter().map(topic).collect());
    }
    let what = if args.validate_only { "would be created" } else { "created" };
    for (name, topic) in created {
        let (partitions, replicas) = (topic.partitions, topic.replication_factor);
        let numbers = format!("partitions={partitions} replicas={replicas}");
        output::line(&format!("topic {name} {what}: {numbers}"))?;
    }
    Ok(())
}
