//! `vltava topic`: create, list, describe and delete topics.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use vltava_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use vltava_protocol::messages::describe_configs_request::DescribeConfigsResource;
use vltava_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, StrBytes,
};

use super::{ClientArgs, CommandError, output};
use crate::client::{Client, ClientError, ClusterTopic, Versions, code_name, text};

/// The kind of a resource that is a topic.
const TOPIC_RESOURCE: i8 = 2;
/// Where a value comes from that was set for the topic.
const TOPIC_SOURCE: i8 = 1;

/// The commands on topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic.
    #[command(after_help = "Examples:
  vltava topic create rivers
  vltava topic create rivers --partitions 4 --config retention.ms=3600000
  vltava topic create clicks --config durability=page-cache")]
    Create(CreateArgs),
    /// List all topics.
    #[command(after_help = "Example:
  vltava topic list --json")]
    List(ListArgs),
    /// Show partitions, leaders and set configuration of one topic, or of all.
    #[command(after_help = "Example:
  vltava topic describe rivers")]
    Describe(DescribeArgs),
    /// Delete a topic with all its records.
    #[command(after_help = "Example:
  vltava topic delete rivers")]
    Delete(DeleteArgs),
}

/// `vltava topic create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The topic's name.
    name: String,
    /// How many partitions; the broker's default if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Replicas of each partition; the broker's default if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// Set a configuration key for the topic. May be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = pair)]
    configs: Vec<(String, String)>,
    /// Check everything, create nothing.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    client: ClientArgs,
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

/// `vltava topic delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The topic's name.
    name: String,
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
        TopicCommand::Create(args) => create(args).await,
        TopicCommand::List(args) => list(args).await,
        TopicCommand::Describe(args) => describe(args).await,
        TopicCommand::Delete(args) => delete(args).await,
    }
}

async fn create(args: CreateArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let timeout_ms = timeout_ms(&client);
    let config = |(key, value): &(String, String)| {
        CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(text(&args.name).into())
        .with_num_partitions(args.partitions.unwrap_or(-1))
        .with_replication_factor(args.replication_factor.unwrap_or(-1))
        .with_configs(args.configs.iter().map(config).collect());
    let response = client
        .ask(Versions::of(4, 7), |_| {
            CreateTopicsRequest::default()
                .with_topics(vec![topic])
                .with_timeout_ms(timeout_ms)
                .with_validate_only(args.validate_only)
        })
        .await?;
    let name = &args.name;
    let created = response.topics.first().ok_or_else(|| nothing_said(&client))?;
    refused(&format!("topic {name}"), created.error_code, created.error_message.as_ref())?;
    let (partitions, replicas) = (created.num_partitions, created.replication_factor);
    if args.client.json {
        return output::json(&json!({
            "topic": name,
            "id": vltava_protocol::ids::TopicId(created.topic_id).to_string(),
            "partitions": partitions,
            "replication_factor": replicas,
            "created": !args.validate_only,
        }));
    }
    let what = if args.validate_only { "would be created" } else { "created" };
    output::line(&format!("topic {name} {what}: partitions={partitions} replicas={replicas}"))
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
    let configs = configs.iter().map(|(key, value)| format!("{key}={value}"));
    output::line(&format!(
        "topic {}  id {}  partitions {}  config {}",
        topic.name,
        topic.id,
        topic.partitions.len(),
        output::list(configs),
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
    let resource = |topic: &ClusterTopic| {
        DescribeConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(text(&topic.name))
            .with_configuration_keys(None)
    };
    let request =
        DescribeConfigsRequest::default().with_resources(topics.iter().map(resource).collect());
    let response = client.ask(Versions::of(1, 4), |_| request).await?;
    let set_of = |topic: &ClusterTopic| {
        let result = response.results.iter().find(|result| *result.resource_name == *topic.name);
        let entries = result.into_iter().flat_map(|result| &result.configs);
        entries
            .filter(|entry| entry.config_source == TOPIC_SOURCE)
            .filter_map(|entry| Some((entry.name.to_string(), entry.value.as_ref()?.to_string())))
            .collect()
    };
    Ok(topics.iter().map(set_of).collect())
}

async fn delete(args: DeleteArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let timeout_ms = timeout_ms(&client);
    let name = &args.name;
    let response = client
        .ask(Versions::of(1, 5), |_| {
            DeleteTopicsRequest::default()
                .with_topic_names(vec![text(name).into()])
                .with_timeout_ms(timeout_ms)
        })
        .await?;
    let deleted = response.responses.first().ok_or_else(|| nothing_said(&client))?;
    refused(&format!("topic {name}"), deleted.error_code, deleted.error_message.as_ref())?;
    if args.client.json {
        return output::json(&json!({ "topic": name, "deleted": true }));
    }
    output::line(&format!("topic {name} deleted"))
}

fn timeout_ms(client: &Client) -> i32 {
    i32::try_from(client.timeout().as_millis()).unwrap_or(i32::MAX)
}

fn nothing_said(client: &Client) -> CommandError {
    let empty = format!("{} said nothing about the topic", client.bootstrap());
    CommandError::Client(ClientError::Missing(empty))
}

fn refused(what: &str, code: i16, message: Option<&StrBytes>) -> Result<(), CommandError> {
    if code == 0 {
        return Ok(());
    }
    let message = message.map_or_else(String::new, |message| format!(": {message}"));
    Err(CommandError::Argument(format!("{what}: {}{message}", code_name(code))))
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
