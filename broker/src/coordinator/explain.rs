//! The report of one group: its coordinator's memory, joined with the ends of the partitions that
//! it reads.

use std::collections::HashMap;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{PartitionIndex, TopicName, TopicPartition};

use super::group::classic::ClassicGroup;
use super::group::history::{Cause, Rebalance};
use super::group::ids::{GroupId, MemberId};
use super::group::member::Member;
use super::group::records::{CommittedOffset, OffsetKey};
use super::group::{GroupShard, assignment};
use super::lag::Lag;
use super::report::{
    CoordinatorReport, GroupReport, MemberReport, OffsetReport, RebalanceReport, TopicReport,
};
use crate::node::Node;

/// What is known of a group. Reads files: for threads that may block. Errors: `GROUP_ID_NOT_FOUND`,
/// and those of [`Post::ask`](super::runtime::Post::ask).
pub fn explain(node: &Node, group: &str) -> Result<GroupReport, ErrorCode> {
    let post = node.groups.runtime().post_of(group)?;
    let mut report =
        post.look(|shard| remember(shard, group))?.ok_or(ErrorCode::GroupIdNotFound)?;
    report.coordinator =
        CoordinatorReport { node: node.node_id.0, partition: post.partition().tp().partition.0 };
    add_lags(node, &mut report);
    Ok(report)
}

/// What the shard knows; the lags are still missing. Under the shard's lock, so nothing is read.
fn remember(shard: &GroupShard, group: &str) -> Option<GroupReport> {
    let group_id = GroupId::from(group);
    let offsets: Vec<_> = shard.committed_offsets_of(&group_id).map(offset_of).collect();
    let found = shard.group(group)?;
    let mut report = describe(found);
    report.offsets = offsets;
    Some(report)
}

fn describe(group: &ClassicGroup) -> GroupReport {
    GroupReport {
        group: group.id.to_string(),
        state: group.state().name().to_owned(),
        protocol_type: group.protocol_type.as_deref().unwrap_or("").to_owned(),
        protocol: group.protocol.as_deref().unwrap_or("").to_owned(),
        generation: group.generation,
        leader: group.leader.as_deref().map(str::to_owned),
        members: group.members().iter().map(member_of).collect(),
        rebalances: group.history.rebalances().map(rebalance_of).collect(),
        ..GroupReport::default()
    }
}

fn member_of((member_id, member): (&MemberId, &Member)) -> MemberReport {
    // Of another protocol than the consumers', or of none: nothing that could be told.
    let assigned = assignment::read(&member.assignment).unwrap_or_default();
    let topic = |(topic, mut partitions): (&str, Vec<i32>)| {
        partitions.sort_unstable();
        TopicReport { topic: topic.to_owned(), partitions }
    };
    MemberReport {
        member_id: member_id.to_string(),
        instance_id: member.instance_id.as_deref().map(str::to_owned),
        client_id: member.client.id.to_string(),
        client_host: member.client.host.to_string(),
        session_timeout_ms: member.session_timeout_ms,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        assignment: assigned.into_iter().map(topic).collect(),
    }
}

fn rebalance_of(rebalance: &Rebalance) -> RebalanceReport {
    let reason = match &rebalance.cause {
        Cause::MemberLeft(reason) => reason.clone(),
        _ => None,
    };
    let cause = match &rebalance.cause {
        Cause::MemberLeft(_) => Cause::MemberLeft(None).describe(),
        cause => cause.describe(),
    };
    let member = rebalance.member.clone().unwrap_or_default();
    RebalanceReport {
        at_ms: rebalance.started.0,
        generation: rebalance.generation,
        cause,
        reason,
        member_id: member.member_id.to_string(),
        client_id: member.client.id.to_string(),
        client_host: member.client.host.to_string(),
        took_ms: rebalance.total_ms,
        slowest_member: rebalance.slowest.as_ref().map(|(slow, _)| slow.member_id.to_string()),
    }
}

fn offset_of((key, committed): (&OffsetKey, &CommittedOffset)) -> OffsetReport {
    OffsetReport {
        topic: key.tp.topic.to_string(),
        partition: key.tp.partition.0,
        offset: committed.offset.0,
        leader_epoch: committed.leader_epoch.0,
        metadata: committed.metadata.to_string(),
        committed_at_ms: committed.commit_timestamp.0,
        ..OffsetReport::default()
    }
}

fn add_lags(node: &Node, report: &mut GroupReport) {
    let mut owners = HashMap::new();
    for member in &report.members {
        for topic in &member.assignment {
            for &partition in &topic.partitions {
                let topic = TopicName::new(&topic.topic);
                let tp = TopicPartition { topic, partition: PartitionIndex(partition) };
                owners.insert(tp, member.member_id.clone());
            }
        }
    }
    let now = node.clock.now();
    for offset in &mut report.offsets {
        let topic = TopicName::new(&offset.topic);
        let tp = TopicPartition { topic, partition: PartitionIndex(offset.partition) };
        offset.member_id = owners.get(&tp).cloned();
        if let Some(partition) = node.partitions.get(&tp.topic, tp.partition) {
            let lag = Lag::of(&partition.view(), offset.offset.into(), now);
            offset.end_offset = Some(lag.end_offset.0);
            offset.lag_records = Some(lag.records);
            offset.lag_ms = lag.ms;
        }
    }
    report.lag_records = report.offsets.iter().filter_map(|offset| offset.lag_records).sum();
    report.lag_ms = report.offsets.iter().filter_map(|offset| offset.lag_ms).max().unwrap_or(0);
}
