//! `vltava config`: the configuration of topics, brokers, the whole cluster and groups.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use vltava_protocol::ids::NodeId;

use super::topic::pair;
use super::{ClientArgs, CommandError, output};
use crate::client::admin::{ConfigChange, ConfigEntry, ConfigSynonym, Resource};

/// How wide the meaning of a key is printed.
const TEXT_COLUMNS: usize = 92;

/// The commands on configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show what is set; with --all every key, with its default and meaning.
    #[command(after_help = "Examples:
  vltava config describe topic rivers
  vltava config describe broker 1 --all
  vltava config describe cluster --json
  vltava config describe topic rivers --key retention.ms")]
    Describe(DescribeArgs),
    /// Set, extend or forget values, at once and without a restart.
    #[command(after_help = "Examples:
  vltava config alter topic rivers --set retention.ms=3600000 --delete segment.ms
  vltava config alter topic rivers --append cleanup.policy=compact
  vltava config alter broker 1 --set log.cleaner.threads=2
  vltava config alter cluster --set message.max.bytes=2000000 --validate-only")]
    Alter(AlterArgs),
}

/// Whose configuration.
#[derive(Debug, Args)]
struct ResourceArgs {
    /// Of what.
    #[arg(value_name = "topic|broker|cluster|group", hide_possible_values = true)]
    kind: Kind,
    /// Its name; the id of a broker; nothing for the cluster, which is what all brokers share.
    #[arg(required_if_eq_any([("kind", "topic"), ("kind", "broker"), ("kind", "group")]))]
    name: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    Topic,
    Broker,
    Cluster,
    Group,
}

impl ResourceArgs {
    fn resource(self) -> Result<Resource, CommandError> {
        let wrong = |what: &str| Err(CommandError::Argument(what.to_owned()));
        match (self.kind, self.name) {
            (Kind::Topic, Some(name)) => Ok(Resource::Topic(name)),
            (Kind::Group, Some(name)) => Ok(Resource::Group(name)),
            (Kind::Broker, Some(name)) => match name.parse() {
                Ok(node) if node >= 0 => Ok(Resource::Broker(NodeId(node))),
                _ => wrong(&format!("{name:?} is not the id of a broker")),
            },
            (Kind::Cluster, None) => Ok(Resource::Cluster),
            (Kind::Cluster, Some(_)) => wrong("the cluster has no name"),
            (_, None) => wrong("a name is missing"),
        }
    }
}

/// `vltava config describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    #[command(flatten)]
    resource: ResourceArgs,
    /// Show every key with its value, what that could be instead, its kind and its meaning.
    #[arg(long)]
    all: bool,
    /// Show this key so, whether it is set or not. May be repeated.
    #[arg(long = "key", value_name = "KEY", conflicts_with = "all")]
    keys: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// `vltava config alter`.
#[derive(Debug, Args)]
#[group(skip)]
pub struct AlterArgs {
    #[command(flatten)]
    resource: ResourceArgs,
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
    /// Set a key. May be repeated, as all of these.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    sets: Vec<(String, String)>,
    /// Forget what was set for a key.
    #[arg(long = "delete", value_name = "KEY")]
    deletes: Vec<String>,
    /// Add elements to a list.
    #[arg(long = "append", value_name = "KEY=VALUE", value_parser = pair)]
    appends: Vec<(String, String)>,
    /// Take elements out of a list.
    #[arg(long = "subtract", value_name = "KEY=VALUE", value_parser = pair)]
    subtracts: Vec<(String, String)>,
}

impl ChangeArgs {
    fn changes(self) -> Vec<ConfigChange> {
        let sets = self.sets.into_iter().map(|(key, value)| ConfigChange::Set(key, value));
        let appends = self.appends.into_iter().map(|(key, value)| ConfigChange::Append(key, value));
        let subtracts =
            self.subtracts.into_iter().map(|(key, value)| ConfigChange::Subtract(key, value));
        let deletes = self.deletes.into_iter().map(ConfigChange::Delete);
        sets.chain(appends).chain(subtracts).chain(deletes).collect()
    }
}

/// Runs one of them.
pub async fn run(command: ConfigCommand) -> Result<(), CommandError> {
    match command {
        ConfigCommand::Describe(args) => describe(args).await,
        ConfigCommand::Alter(args) => alter(args).await,
    }
}

async fn describe(args: DescribeArgs) -> Result<(), CommandError> {
    let resource = args.resource.resource()?;
    let mut client = args.client.connect().await?;
    let described = client.describe_configs(std::slice::from_ref(&resource)).await?;
    let mut entries = described.into_iter().next().expect("one answer a resource")?;
    let unknown = |key: &&String| !entries.iter().any(|entry| entry.name == **key);
    // The cluster has only what was set: an absent key is no mistake there.
    if let Some(key) = args.keys.iter().find(unknown).filter(|_| resource != Resource::Cluster) {
        return Err(CommandError::Argument(format!("{resource} has no key {key}")));
    }
    let is_wanted = |entry: &ConfigEntry| args.all || entry.is_set;
    entries.retain(|entry| {
        args.keys.contains(&entry.name) || args.keys.is_empty() && is_wanted(entry)
    });
    if args.client.json {
        return output::json(&json!({
            "resource": resource.to_string(),
            "configs": entries.iter().map(as_json).collect::<Vec<_>>(),
        }));
    }
    if entries.is_empty() {
        return output::line(&format!("nothing is set for {resource}"));
    }
    if args.all || !args.keys.is_empty() {
        return entries.iter().try_for_each(print_whole);
    }
    let row = |entry: &ConfigEntry| {
        let value = show(entry.value.as_ref(), entry.sensitive);
        vec![entry.name.clone(), value, entry.source.to_owned()]
    };
    output::table(&["KEY", "VALUE", "SOURCE"], entries.iter().map(row).collect())
}

fn as_json(entry: &ConfigEntry) -> Value {
    let synonym = |synonym: &ConfigSynonym| json!({ "key": synonym.name, "value": synonym.value, "source": synonym.source });
    json!({
        "key": entry.name,
        "value": entry.value,
        "source": entry.source,
        "type": entry.kind,
        "read_only": entry.read_only,
        "sensitive": entry.sensitive,
        "synonyms": entry.synonyms.iter().map(synonym).collect::<Vec<_>>(),
        "documentation": entry.documentation,
    })
}

fn show(value: Option<&String>, is_sensitive: bool) -> String {
    match value {
        Some(value) => value.clone(),
        None if is_sensitive => "(secret)".to_owned(),
        None => "-".to_owned(),
    }
}

/// All that there is to know of a key.
fn print_whole(entry: &ConfigEntry) -> Result<(), CommandError> {
    output::line(&format!("{} = {}", entry.name, show(entry.value.as_ref(), entry.sensitive)))?;
    let changes = if entry.read_only { "changes only at start" } else { "changes at any time" };
    output::line(&format!("    from: {} ({}, {changes})", entry.source, entry.kind))?;
    for synonym in &entry.synonyms {
        let value = show(synonym.value.as_ref(), entry.sensitive);
        output::line(&format!("    {}: {} = {value}", synonym.source, synonym.name))?;
    }
    for line in wrapped(entry.documentation.as_deref().unwrap_or_default()) {
        output::line(&format!("    {line}"))?;
    }
    Ok(())
}

/// Lines of whole words, none longer than [`TEXT_COLUMNS`] unless by its only word.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= TEXT_COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

async fn alter(args: AlterArgs) -> Result<(), CommandError> {
    let resource = args.resource.resource()?;
    let changes = args.changes.changes();
    let mut client = args.client.connect().await?;
    client.alter_config(&resource, &changes, args.validate_only).await?;
    if args.client.json {
        return output::json(&json!({
            "resource": resource.to_string(),
            "changes": changes.len(),
            "altered": !args.validate_only,
        }));
    }
    let what = if args.validate_only { "could be altered" } else { "altered" };
    output::line(&format!("configuration of {resource} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_words() {
        let long = "x".repeat(TEXT_COLUMNS + 1);
        assert_eq!(wrapped(""), Vec::<String>::new());
        assert_eq!(wrapped("a  b\nc"), ["a b c"]);
        assert_eq!(wrapped(&format!("a {long} b")), ["a", long.as_str(), "b"]);
        let half = "y".repeat(TEXT_COLUMNS / 2);
        assert_eq!(wrapped(&format!("{half} {half}")), [half.as_str(), half.as_str()]);
    }
}
