//! What a story shows of the cluster.

use vltava::replica::group::Role;
use vltava_storage::ids::ReplicaId;
use vltava_storage::log::PartitionLog;

use super::stage::number;
use crate::network::NodeId;
use crate::world::World;
use crate::world::hands::{GROUP, Seen};

/// `leader=2 epoch=3 high_watermark=13`.
pub(super) fn leader(world: &World) -> String {
    let Some((node, _, epoch)) = world.leader(GROUP) else { return "no leader".to_owned() };
    let end = high_watermark(world, node);
    format!("leader={} epoch={epoch} high_watermark={end}", number(node))
}

/// The high watermark that a node knows, or -1.
pub(super) fn high_watermark(world: &World, node: NodeId) -> i64 {
    log_of(world, node).map_or(-1, |log| log.high_watermark().0)
}

/// The log of the replica on a node.
pub(super) fn log_of(world: &World, node: NodeId) -> Option<&PartitionLog> {
    world.replica_on(node).and_then(|(_, live)| live.replica.log())
}

/// A line for each node.
pub(super) fn nodes(world: &World) -> Vec<String> {
    (0..world.machines.len()).map(|node| one_node(world, node)).collect()
}

/// A node in a line.
pub(super) fn one_node(world: &World, node: NodeId) -> String {
    let name = format!("node {}", number(node));
    if world.machines[node].broker.is_none() {
        return format!("{name}: down");
    }
    if world.is_refused(node) {
        return format!("{name}: fenced");
    }
    let Some((id, live)) = world.replica_on(node) else { return format!("{name}: no replica") };
    let (Some(group), Some(log)) = (live.replica.group(), live.replica.log()) else {
        return format!("{name}: out of service");
    };
    let role = match group.role() {
        Role::Leader => "leader",
        Role::Candidate => "candidate",
        Role::Follower => "follower",
    };
    let membership = live.replica.membership();
    let mut text = format!(
        "{name}: {role} epoch={} log=[{},{}) high_watermark={} replica={id} voters={}",
        group.term(),
        log.state().log_start.offset,
        log.end_offset(),
        log.high_watermark(),
        join(&membership.voters),
    );
    if !membership.learners.is_empty() {
        text.push_str(" learners=");
        text.push_str(&join(&membership.learners));
    }
    if !membership.outgoing.is_empty() {
        text.push_str(" outgoing=");
        text.push_str(&join(&membership.outgoing));
    }
    if live.replica.abstains() {
        text.push_str(" abstains");
    }
    text
}

fn join(ids: &[ReplicaId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    ids.join(",")
}

/// The entries of a log, `index/epoch:what`.
pub(super) fn entries(seen: &[Seen]) -> String {
    let entries =
        seen.iter().map(|Seen { index, epoch, what, .. }| format!("{index}/{epoch}:{what}"));
    let entries: Vec<_> = entries.collect();
    if entries.is_empty() { "empty".to_owned() } else { entries.join(" ") }
}

/// The offsets that a log held before and does not hold any more, as its tail.
pub(super) fn truncated(before: &[Seen], after: &[Seen]) -> Option<String> {
    let first = after.first().map(|seen| seen.index)?;
    let is_gone = |seen: &&Seen| seen.index >= first && !after.contains(seen);
    let gone = before.iter().find(is_gone)?;
    let end = before.last()?.end_offset;
    Some(format!("truncated=[{},{end})", gone.base_offset))
}
