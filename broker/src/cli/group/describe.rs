//! `vltava group describe`: who is in a group, and how far it is.

use clap::Args;
use serde_json::{Value, json};

use super::position::{Position, or_dash, positions};
use crate::cli::{ClientArgs, CommandError, output};
use crate::client::group::protocol::Partitions;
use crate::client::group::{GroupDescription, GroupMember};

/// `vltava group describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// The groups; all if none is given.
    groups: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(args: DescribeArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let names = if args.groups.is_empty() {
        client.list_groups(&[], &[]).await?.into_iter().map(|listed| listed.group).collect()
    } else {
        args.groups
    };
    let mut described = Vec::new();
    for name in &names {
        let group = client.describe_group(name).await?;
        let positions = positions(&mut client, &group).await?;
        described.push((group, positions));
    }
    if args.client.json {
        let groups = described.iter().map(|(group, positions)| as_json(group, positions));
        return output::json(&groups.collect());
    }
    for (place, (group, positions)) in described.iter().enumerate() {
        if place > 0 {
            output::line("")?;
        }
        print(group, positions)?;
    }
    Ok(())
}

/// What JSON says of a group, but for its positions.
pub(super) fn group_as_json(group: &GroupDescription) -> Value {
    let member = |member: &GroupMember| {
        let assignment: Vec<Value> = member
            .assignment
            .iter()
            .map(|(topic, partitions)| {
                let partitions: Vec<i32> = partitions.iter().map(|index| index.0).collect();
                json!({ "topic": topic, "partitions": partitions })
            })
            .collect();
        json!({
            "member": member.member_id,
            "instance": member.instance_id,
            "client": member.client_id,
            "host": member.host,
            "topics": member.topics,
            "assignment": assignment,
        })
    };
    json!({
        "group": group.group,
        "state": group.state,
        "type": group.kind,
        "protocol_type": group.protocol_type,
        "assignor": group.assignor,
        "epoch": group.epoch,
        "coordinator": group.coordinator.0,
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn as_json(group: &GroupDescription, positions: &[Position]) -> Value {
    let position = |position: &Position| {
        let mut object = position.as_json();
        object["member"] = json!(position.owner_of(group).map(|member| member.member_id.as_str()));
        object
    };
    let mut object = group_as_json(group);
    object["offsets"] = positions.iter().map(position).collect();
    object
}

/// The line that begins what is said about a group.
pub(super) fn title(group: &GroupDescription) -> String {
    let assignor = if group.assignor.is_empty() { "-" } else { &group.assignor };
    format!(
        "group {}  state {}  type {}  assignor {assignor}  coordinator {}  members {}",
        group.group,
        group.state,
        group.kind,
        group.coordinator,
        group.members.len(),
    )
}

/// `t:0,1 u:3`
fn show(partitions: &Partitions) -> String {
    let of_topic = |(topic, partitions): (&String, &Vec<_>)| {
        (!partitions.is_empty()).then(|| format!("{topic}:{}", output::list(partitions)))
    };
    let shown: Vec<String> = partitions.iter().filter_map(of_topic).collect();
    if shown.is_empty() { "-".to_owned() } else { shown.join(" ") }
}

fn print(group: &GroupDescription, positions: &[Position]) -> Result<(), CommandError> {
    output::line(&title(group))?;
    if !group.members.is_empty() {
        let row = |member: &GroupMember| {
            vec![
                member.member_id.clone(),
                member.instance_id.clone().unwrap_or_else(|| "-".to_owned()),
                member.client_id.clone(),
                member.host.clone(),
                show(&member.assignment),
            ]
        };
        let rows = group.members.iter().map(row).collect();
        output::table(&["MEMBER", "INSTANCE", "CLIENT", "HOST", "PARTITIONS"], rows)?;
    }
    if positions.is_empty() {
        return Ok(());
    }
    let row = |position: &Position| {
        vec![
            position.topic.clone(),
            position.partition.to_string(),
            or_dash(position.committed.as_ref().map(|committed| committed.offset)),
            or_dash(position.end),
            or_dash(position.lag()),
            or_dash(position.owner_of(group).map(|member| &member.member_id)),
        ]
    };
    let rows = positions.iter().map(row).collect();
    output::table(&["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"], rows)
}
