//! `vltava topic`: create, list, describe, alter and delete topics.

mod alter;
mod create;
mod delete;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{ClientArgs, CommandError, output};
use crate::client::admin::{ConfigEntry, Resource};
use crate::client::{Client, ClusterTopic};

/// How many topics one request creates or deletes, and how many it asks the configuration of.
const TOPICS_PER_REQUEST: usize = 100;

/// The commands on topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create topics.
    #[command(after_help = "Examples:
  vltava topic create rivers
  vltava topic create rivers --partitions 4 --config retention.ms=3600000
  vltava topic create clicks views --config durability=page-cache")]
    Create(create::CreateArgs),
    /// List all topics.
    #[command(after_help = "Example:
  vltava topic list --json")]
    List(ListArgs),
    /// Show partitions, leaders and set configuration of one topic, or of all.
    #[command(after_help = "Example:
  vltava topic describe rivers")]
    Describe(DescribeArgs),
    /// Give a topic more partitions, or another configuration.
    #[command(
        after_help = "Keys move to other partitions when their number changes; records that \
are there stay.

Examples:
  vltava topic alter rivers --partitions 8
  vltava topic alter rivers --config retention.ms=3600000 --delete-config segment.ms"
    )]
    Alter(alter::AlterArgs),
    /// Delete topics with all their records.
    #[command(after_help = "Examples:
  vltava topic delete rivers
  vltava topic delete clicks views")]
    Delete(delete::DeleteArgs),
}

/// `vltava topic list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// `vltava topic describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// The topic; all if not given.
    name: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Reads `KEY=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("not of the form KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs one of them.
pub async fn run(command: TopicCommand) -> Result<(), CommandError> {
    match command {
        TopicCommand::Create(args) => create::run(args).await,
        TopicCommand::List(args) => list(args).await,
        TopicCommand::Describe(args) => describe(args).await,
        TopicCommand::Alter(args) => alter::run(args).await,
        TopicCommand::Delete(args) => delete::run(args).await,
    }
}

async fn list(args: ListArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let mut topics = client.cluster(None, false).await?.topics;
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let replicas = |topic: &ClusterTopic| {
        topic.partitions.iter().map(|partition| partition.replicas.len()).max().unwrap_or(0)
    };
    if args.client.json {
        let topic = |topic: &ClusterTopic| {
            json!({
                "topic": topic.name,
                "id": topic.id.to_string(),
                "partitions": topic.partitions.len(),
                "replication_factor": replicas(topic),
                "internal": topic.internal,
            })
        };
        return output::json(&topics.iter().map(topic).collect());
    }
    let row = |topic: &ClusterTopic| {
        vec![
            topic.name.clone(),
            topic.partitions.len().to_string(),
            replicas(topic).to_string(),
            if topic.internal { "internal" } else { "" }.to_owned(),
        ]
    };
    output::table(&["TOPIC", "PARTITIONS", "REPLICAS", ""], topics.iter().map(row).collect())
}

async fn describe(args: DescribeArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let mut topics = match &args.name {
        Some(name) => vec![client.topic(name, false).await?],
        None => client.cluster(None, false).await?.topics,
    };
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let configs = set_configs(&mut client, &topics).await?;
    if args.client.json {
        let topics = topics.iter().zip(configs).map(|(topic, configs)| as_json(topic, configs));
        return output::json(&topics.collect());
    }
    for (place, (topic, configs)) in topics.iter().zip(configs).enumerate() {
        if place > 0 {
            output::line("")?;
        }
        print(topic, &configs)?;
    }
    Ok(())
}

fn as_json(topic: &ClusterTopic, configs: Vec<(String, String)>) -> Value {
    let partitions: Vec<Value> = topic
        .partitions
        .iter()
        .map(|partition| {
            let ids = |nodes: &[vltava_protocol::ids::NodeId]| -> Vec<i32> {
                nodes.iter().map(|node| node.0).collect()
            };
            json!({
                "partition": partition.index.0,
                "leader": partition.leader.map(|leader| leader.0),
                "leader_epoch": partition.leader_epoch,
                "replicas": ids(&partition.replicas),
                "isr": ids(&partition.isr),
            })
        })
        .collect();
    json!({
        "topic": topic.name,
        "id": topic.id.to_string(),
        "internal": topic.internal,
        "partitions": partitions,
        "config": configs.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

fn print(topic: &ClusterTopic, configs: &[(String, String)]) -> Result<(), CommandError> {
    // Values may have commas, so keys are kept apart by spaces.
    let configs: Vec<String> =
        configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    output::line(&format!(
        "topic {}  id {}  partitions {}  config {}",
        topic.name,
        topic.id,
        topic.partitions.len(),
        if configs.is_empty() { "-".to_owned() } else { configs.join(" ") },
    ))?;
    let row = |partition: &crate::client::ClusterPartition| {
        vec![
            partition.index.to_string(),
            output::list(partition.leader),
            partition.leader_epoch.to_string(),
            output::list(&partition.replicas),
            output::list(&partition.isr),
        ]
    };
    let rows = topic.partitions.iter().map(row).collect();
    output::table(&["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR"], rows)
}

/// What was set for each of the topics.
async fn set_configs(
    client: &mut Client,
    topics: &[ClusterTopic],
) -> Result<Vec<Vec<(String, String)>>, CommandError> {
    let mut configs = Vec::new();
    for topics in topics.chunks(TOPICS_PER_REQUEST) {
        let resource = |topic: &ClusterTopic| Resource::Topic(topic.name.clone());
        let resources: Vec<Resource> = topics.iter().map(resource).collect();
        for entries in client.describe_configs(&resources).await? {
            // A topic that was deleted meanwhile has none.
            configs.push(entries.map_or_else(|_| Vec::new(), set_for_the_topic));
        }
    }
    Ok(configs)
}

fn set_for_the_topic(entries: Vec<ConfigEntry>) -> Vec<(String, String)> {
    let of_topic = entries.into_iter().filter(|entry| entry.source == "topic");
    of_topic.filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_keep_what_follows_the_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("a").is_err());
    }
}
