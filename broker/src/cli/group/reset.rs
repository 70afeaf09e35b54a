//! `vltava group reset-offsets`: where a group is to go on.
//!
//! Kafka's own tool decides the rules (`ConsumerGroupCommand`): only a group without members, an
//! offset outside of the log becomes the nearest inside, and nothing happens without `--execute`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde_json::json;
use vltava_protocol::ids::{Offset, PartitionIndex, Timestamp};

use super::position::{or_dash, topics_of};
use super::scope::{Scope, resolve};
use crate::cli::progress::Progress;
use crate::cli::{ClientArgs, CommandError, output, when};
use crate::client::group::protocol::Partitions;
use crate::client::group::{Committed, Offsets};
use crate::client::{Client, ClientError, EARLIEST, LATEST};
use crate::clock::Clock;

/// How many partitions one request is about.
const PARTITIONS_PER_REQUEST: usize = 1_000;

/// `vltava group reset-offsets`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("target").required(true)))]
#[command(group(ArgGroup::new("scope").required(true).multiple(true)))]
pub struct ResetArgs {
    /// The group.
    group: String,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// The offsets that a file says.
    #[arg(long, value_name = "FILE", groups = ["target", "scope"])]
    #[arg(conflicts_with_all = ["scopes", "all_topics"])]
    from_file: Option<PathBuf>,
    /// Do it.
    #[arg(long, conflicts_with = "dry_run")]
    execute: bool,
    /// Only show it; so it is without --execute.
    #[arg(long)]
    dry_run: bool,
    /// Print lines `topic,partition,offset`, as --from-file reads them.
    #[arg(long, conflicts_with = "json")]
    export: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Which partitions.
#[derive(Debug, Args)]
struct ScopeArgs {
    /// A topic, or some of its partitions: rivers, rivers:0,2. May be repeated.
    #[arg(long = "topic", value_name = "TOPIC[:N,N]", group = "scope")]
    scopes: Vec<Scope>,
    /// All that the group has committed for.
    #[arg(long, group = "scope", conflicts_with = "scopes")]
    all_topics: bool,
}

/// Where to.
#[derive(Debug, Args)]
struct TargetArgs {
    /// The first record there is.
    #[arg(long, group = "target")]
    to_earliest: bool,
    /// The end: only what comes from now on.
    #[arg(long, group = "target")]
    to_latest: bool,
    /// What is committed; the end where nothing is.
    #[arg(long, group = "target")]
    to_current: bool,
    /// This offset.
    #[arg(long, value_name = "N", group = "target", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// So many records on from what is committed; back if negative.
    #[arg(long, value_name = "N", group = "target", allow_negative_numbers = true)]
    shift_by: Option<i64>,
    /// The first record from this time on.
    #[arg(long, value_name = "YYYY-MM-DDThh:mm:ss", group = "target", value_parser = when::datetime)]
    to_datetime: Option<Timestamp>,
    /// The first record from so long ago on.
    #[arg(long, value_name = "PnDTnHnMnS", group = "target", value_parser = when::duration_ms)]
    by_duration: Option<i64>,
}

type Place = (String, PartitionIndex);

/// What becomes of one partition.
struct Reset {
    place: Place,
    before: Option<Offset>,
    after: Offset,
    note: String,
}

/// What is asked of a partition, before its log is looked at.
enum Target {
    At(i64),
    Special(i64),
    Time(Timestamp),
}

pub(super) async fn run(args: ResetArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    refuse_active(&mut client, &args.group).await?;
    let committed = client.committed(&args.group, None).await?;
    let targets = targets(&mut client, &args, &committed).await?;
    let resets = plan(&mut client, targets, &committed).await?;
    if args.execute {
        execute(&mut client, &args.group, &resets).await?;
    }
    print(&args, &resets)
}

/// Only a group without members can be reset. One that is not there is made by it.
async fn refuse_active(client: &mut Client, group: &str) -> Result<(), CommandError> {
    match client.describe_group(group).await {
        Err(ClientError::Missing(_)) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(described) if described.is_inactive() => Ok(()),
        Ok(described) => Err(CommandError::Argument(format!(
            "group {group} is {}, with {} member(s): offsets can be reset only while nobody reads",
            described.state,
            described.members.len()
        ))),
    }
}

/// What is asked of each partition.
async fn targets(
    client: &mut Client,
    args: &ResetArgs,
    committed: &BTreeMap<Place, Committed>,
) -> Result<BTreeMap<Place, Target>, CommandError> {
    if let Some(path) = &args.from_file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| CommandError::Io { what: path.display().to_string(), error })?;
        let lines = read_plan(&text, &args.group)
            .map_err(|wrong| CommandError::Argument(format!("{}: {wrong}", path.display())))?;
        return Ok(lines.into_iter().map(|(place, offset)| (place, Target::At(offset))).collect());
    }
    let places: Vec<Place> = if args.scope.all_topics {
        committed.keys().cloned().collect()
    } else {
        let of_topic = |(topic, partitions): (String, Vec<PartitionIndex>)| {
            partitions.into_iter().map(move |index| (topic.clone(), index))
        };
        resolve(client, &args.scope.scopes).await?.into_iter().flat_map(of_topic).collect()
    };
    if places.is_empty() {
        let nothing = format!("group {} has committed nothing", args.group);
        return Err(CommandError::Argument(nothing));
    }
    let now = Clock::system().now();
    let target = |place: Place| {
        let target = target(args, &place, committed.get(&place), now)?;
        Ok((place, target))
    };
    places.into_iter().map(target).collect()
}

fn target(
    args: &ResetArgs,
    (topic, partition): &Place,
    committed: Option<&Committed>,
    now: Timestamp,
) -> Result<Target, CommandError> {
    if args.target.to_earliest {
        return Ok(Target::Special(EARLIEST));
    }
    if let Some(offset) = args.target.to_offset {
        return Ok(Target::At(offset));
    }
    if let Some(shift) = args.target.shift_by {
        let nothing = || {
            let group = &args.group;
            CommandError::Argument(format!(
                "group {group} has committed nothing for {topic}-{partition} that could be shifted"
            ))
        };
        return Ok(Target::At(committed.ok_or_else(nothing)?.offset.0.saturating_add(shift)));
    }
    if let Some(time) = args.target.to_datetime {
        return Ok(Target::Time(time));
    }
    if let Some(ago_ms) = args.target.by_duration {
        return Ok(Target::Time(Timestamp(now.0.saturating_sub(ago_ms))));
    }
    match committed.filter(|_| args.target.to_current) {
        Some(committed) => Ok(Target::At(committed.offset.0)),
        None => Ok(Target::Special(LATEST)),
    }
}

/// Reads lines `topic,partition,offset`, or `group,topic,partition,offset`, of which those of other
/// groups are passed over.
fn read_plan(text: &str, group: &str) -> Result<BTreeMap<Place, i64>, String> {
    let mut plan = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = || format!("line {number} is not of the form topic,partition,offset");
        let unquoted = |field: &str| field.trim().trim_matches('"').to_owned();
        // From the right, since a group may have commas in its name.
        let mut fields = line.rsplitn(4, ',').map(unquoted);
        let mut field = || fields.next().ok_or_else(wrong);
        let (offset, partition, topic) = (field()?, field()?, field()?);
        if fields.next().is_some_and(|named| named != group) {
            continue;
        }
        let partition: i32 = partition.parse().map_err(|_| wrong())?;
        let offset: i64 = offset.parse().map_err(|_| wrong())?;
        if plan.insert((topic, PartitionIndex(partition)), offset).is_some() {
            return Err(format!("line {number} is about the partition of an earlier line"));
        }
    }
    if plan.is_empty() { Err(format!("no line is about group {group}")) } else { Ok(plan) }
}

/// Where each partition goes on, inside of its log.
async fn plan(
    client: &mut Client,
    targets: BTreeMap<Place, Target>,
    committed: &BTreeMap<Place, Committed>,
) -> Result<Vec<Reset>, CommandError> {
    let mut wanted = Partitions::new();
    for (topic, partition) in targets.keys() {
        wanted.entry(topic.clone()).or_default().push(*partition);
    }
    let mut progress = Progress::items(targets.len() as u64, "partitions looked up");
    let topics = topics_of(client, wanted.keys()).await?;
    let mut resets = Vec::new();
    for (name, partitions) in wanted {
        let missing = || ClientError::Missing(format!("topic {name} does not exist"));
        let topic = topics.get(&name).ok_or_else(missing)?;
        for partitions in partitions.chunks(PARTITIONS_PER_REQUEST) {
            let starts = client.list_offsets(topic, partitions, EARLIEST).await?;
            let ends = client.list_offsets(topic, partitions, LATEST).await?;
            let mut found = BTreeMap::new();
            for &partition in partitions {
                let place = (name.clone(), partition);
                if let Target::Time(time) = targets[&place] {
                    // All partitions of a command have the same time.
                    if found.is_empty() {
                        found = client.list_offsets(topic, partitions, time.0).await?;
                    }
                }
                let bounds = (starts[&partition], ends[&partition]);
                let (after, note) = settle(&targets[&place], bounds, found.get(&partition));
                let before = committed.get(&place).map(|committed| committed.offset);
                resets.push(Reset { place, before, after, note });
            }
            progress.add(partitions.len() as u64);
        }
    }
    Ok(resets)
}

/// The offset that a target comes to between the bounds of a log, and what there is to say to it.
fn settle(target: &Target, bounds: (Offset, Offset), found: Option<&Offset>) -> (Offset, String) {
    let (start, end) = bounds;
    match target {
        Target::Special(EARLIEST) => (start, String::new()),
        Target::Special(_) => (end, String::new()),
        Target::Time(_) => match found {
            Some(found) if found.0 >= 0 => (*found, String::new()),
            _ => (end, "no record is as late: the end".to_owned()),
        },
        Target::At(offset) if *offset > end.0 => (end, format!("{offset} is behind the end")),
        Target::At(offset) if *offset < start.0 => (start, format!("{offset} is before the start")),
        Target::At(offset) => (Offset(*offset), String::new()),
    }
}

async fn execute(client: &mut Client, group: &str, resets: &[Reset]) -> Result<(), CommandError> {
    let mut progress = Progress::items(resets.len() as u64, "partitions reset");
    for resets in resets.chunks(PARTITIONS_PER_REQUEST) {
        let offsets: Offsets =
            resets.iter().map(|reset| (reset.place.clone(), reset.after)).collect();
        client.set_offsets(group, &offsets).await?;
        progress.add(resets.len() as u64);
    }
    Ok(())
}

fn print(args: &ResetArgs, resets: &[Reset]) -> Result<(), CommandError> {
    if args.export {
        for Reset { place: (topic, partition), after, .. } in resets {
            output::line(&format!("{topic},{partition},{after}"))?;
        }
        return Ok(());
    }
    if args.client.json {
        let reset = |reset: &Reset| {
            json!({
                "topic": reset.place.0,
                "partition": reset.place.1.0,
                "before": reset.before.map(|before| before.0),
                "after": reset.after.0,
                "note": (!reset.note.is_empty()).then_some(&reset.note),
            })
        };
        return output::json(&json!({
            "group": args.group,
            "executed": args.execute,
            "offsets": resets.iter().map(reset).collect::<Vec<_>>(),
        }));
    }
    let row = |reset: &Reset| {
        vec![
            reset.place.0.clone(),
            reset.place.1.to_string(),
            or_dash(reset.before),
            reset.after.to_string(),
            reset.note.clone(),
        ]
    };
    let header = ["TOPIC", "PARTITION", "BEFORE", "AFTER", ""];
    output::table(&header, resets.iter().map(row).collect())?;
    if args.execute {
        return Ok(());
    }
    output::line("nothing is changed yet: --execute does it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_stay_inside_the_log() {
        let check = |target: Target, found: Option<i64>, expected: i64, noted: bool| {
            let found = found.map(Offset);
            let (after, note) = settle(&target, (Offset(10), Offset(20)), found.as_ref());
            assert_eq!((after.0, !note.is_empty()), (expected, noted), "{note}");
        };
        check(Target::At(15), None, 15, false);
        check(Target::At(20), None, 20, false);
        check(Target::At(21), None, 20, true);
        check(Target::At(10), None, 10, false);
        check(Target::At(-3), None, 10, true);
        check(Target::Special(EARLIEST), None, 10, false);
        check(Target::Special(LATEST), None, 20, false);
        check(Target::Time(Timestamp(0)), Some(17), 17, false);
        check(Target::Time(Timestamp(0)), Some(-1), 20, true);
    }

    #[test]
    fn plans_are_read() {
        let check = |text: &str, expected: Result<&[(&str, i32, i64)], &str>| {
            let read = read_plan(text, "g").map(|plan| {
                plan.into_iter()
                    .map(|((topic, partition), offset)| (topic, partition.0, offset))
                    .collect::<Vec<_>>()
            });
            let read = read.as_ref().map(|plan| {
                plan.iter().map(|(topic, p, offset)| (topic.as_str(), *p, *offset)).collect()
            });
            let expected: Result<Vec<_>, _> = expected.map(<[_]>::to_vec);
            assert_eq!(read.map_err(String::as_str), expected, "{text}");
        };
        check("t,0,5\n\"u\", 1 ,7\n\n", Ok(&[("t", 0, 5), ("u", 1, 7)]));
        check("g,t,0,5\nother,t,0,9\n", Ok(&[("t", 0, 5)]));
        check("other,t,0,9\n", Err("no line is about group g"));
        check("t,0\n", Err("line 1 is not of the form topic,partition,offset"));
        check("t,0,1\nt,0,soon\n", Err("line 2 is not of the form topic,partition,offset"));
        check("t,0,1\nt,0,2\n", Err("line 2 is about the partition of an earlier line"));
    }
}
