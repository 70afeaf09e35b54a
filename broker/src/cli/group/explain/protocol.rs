//! What the protocol alone tells of a group, in the form of a report.
//!
//! The lag in time is how old the record is that the group reads next, by the record's own
//! timestamp: one small Fetch for each partition that is behind.

use std::collections::BTreeMap;

use vltava_protocol::ids::Timestamp;

use crate::cli::CommandError;
use crate::cli::group::position::{Position, positions, topics_of};
use crate::client::group::{GroupDescription, GroupMember};
use crate::client::{Client, ClusterTopic};
use crate::clock::Clock;
use crate::coordinator::report::{
    CoordinatorReport, GroupReport, MemberReport, OffsetReport, TopicReport,
};

/// How many partitions are asked for the age of their next record; the others have no lag in time.
const AGES_MAX: usize = 1_000;

/// Asks the cluster for all that a report has, but for the history.
pub(super) async fn report(
    client: &mut Client,
    group: &GroupDescription,
) -> Result<GroupReport, CommandError> {
    let positions = positions(client, group).await?;
    let topics = topics_of(client, positions.iter().map(|position| &position.topic)).await?;
    let now = Clock::system().now();
    let mut offsets = Vec::new();
    let mut asked = 0;
    for position in &positions {
        let lag_ms = match position.lag() {
            Some(0) => Some(0),
            Some(_) if asked < AGES_MAX => {
                asked += 1;
                age_ms(client, &topics, position, now).await?
            }
            _ => None,
        };
        offsets.extend(offset(group, position, lag_ms));
    }
    Ok(GroupReport {
        group: group.group.clone(),
        state: group.state.clone(),
        protocol_type: group.protocol_type.clone(),
        protocol: group.assignor.clone(),
        generation: group.epoch.unwrap_or_default(),
        coordinator: CoordinatorReport { node: group.coordinator.0, ..Default::default() },
        members: group.members.iter().map(member).collect(),
        lag_records: offsets.iter().filter_map(|offset| offset.lag_records).sum(),
        lag_ms: offsets.iter().filter_map(|offset| offset.lag_ms).max().unwrap_or(0),
        offsets,
        ..GroupReport::default()
    })
}

/// How old the next record of a partition is.
async fn age_ms(
    client: &mut Client,
    topics: &BTreeMap<String, ClusterTopic>,
    position: &Position,
    now: Timestamp,
) -> Result<Option<i64>, CommandError> {
    let (Some(topic), Some(committed)) = (topics.get(&position.topic), &position.committed) else {
        return Ok(None);
    };
    let time = client.timestamp_at(topic, position.partition, committed.offset).await?;
    Ok(time.map(|time| now.0.saturating_sub(time.0).max(0)))
}

fn offset(
    group: &GroupDescription,
    position: &Position,
    lag_ms: Option<i64>,
) -> Option<OffsetReport> {
    let committed = position.committed.as_ref()?;
    Some(OffsetReport {
        topic: position.topic.clone(),
        partition: position.partition.0,
        offset: committed.offset.0,
        leader_epoch: committed.leader_epoch,
        metadata: committed.metadata.clone(),
        end_offset: position.end.map(|end| end.0),
        lag_records: position.lag(),
        lag_ms,
        member_id: position.owner_of(group).map(|member| member.member_id.clone()),
        ..OffsetReport::default()
    })
}

fn member(member: &GroupMember) -> MemberReport {
    let topic = |(topic, partitions): (&String, &Vec<vltava_protocol::ids::PartitionIndex>)| {
        let partitions = partitions.iter().map(|partition| partition.0).collect();
        TopicReport { topic: topic.clone(), partitions }
    };
    MemberReport {
        member_id: member.member_id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.host.clone(),
        assignment: member.assignment.iter().map(topic).collect(),
        ..MemberReport::default()
    }
}
