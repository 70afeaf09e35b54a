//! What the simulated cluster's metadata says: the part of group 0 in the simulator.
//!
//! Every node that is up sees the present image at its next tick. The image names the *target* of a
//! group; the group's own membership is the truth, and its leader moves the truth to the target.

use std::collections::{BTreeMap, BTreeSet};

use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::Durability;
use vltava_storage::state::{LogStart, Membership, ReplicaState, VoteState};

use crate::network::NodeId;

/// A group by its number, from 0.
pub type GroupId = usize;

/// One partition of the cluster.
#[derive(Clone, Debug)]
pub struct Group {
    /// The topic's contract.
    pub durability: Durability,
    /// It was `page-cache` at some time: data of that time may be in memory only.
    pub was_page_cache: bool,
    /// Who began the group; they need no snapshot.
    pub founders: Vec<ReplicaId>,
    /// Who is to take part.
    pub target: Vec<ReplicaId>,
    /// Where each replica lives that is not retired.
    pub homes: BTreeMap<ReplicaId, NodeId>,
    /// Those whose disk was wiped or damaged: they will never speak again.
    pub dead: BTreeSet<ReplicaId>,
}

/// The image.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// All groups.
    pub groups: Vec<Group>,
    last_replica: u64,
}

impl Cluster {
    /// Creates a group on these nodes.
    pub fn create(&mut self, nodes: &[NodeId], durability: Durability) -> GroupId {
        let homes: BTreeMap<_, _> = nodes.iter().map(|node| (self.next_replica(), *node)).collect();
        let founders: Vec<_> = homes.keys().copied().collect();
        self.groups.push(Group {
            durability,
            was_page_cache: durability == Durability::PageCache,
            target: founders.clone(),
            founders,
            homes,
            dead: BTreeSet::new(),
        });
        self.groups.len() - 1
    }

    /// The group is to live on these nodes. Replicas that live there stay; others get ids that were
    /// never used before.
    pub fn retarget(&mut self, group: GroupId, nodes: &[NodeId]) {
        let mut target = Vec::new();
        for node in nodes {
            let this = &self.groups[group];
            let alive = |id: &&ReplicaId| !this.dead.contains(*id);
            let here = this.homes.iter().filter(|(_, home)| *home == node).map(|(id, _)| id);
            // The newest one: an older one may be on its way out, and an id never comes back.
            let id = here.filter(alive).max().copied().filter(|id| this.may_stay(*id));
            let id = id.unwrap_or_else(|| self.next_replica());
            self.groups[group].homes.insert(id, *node);
            target.push(id);
        }
        self.groups[group].target = target;
    }

    /// What `node` held of the group is gone for ever: where the target names it, another replica
    /// takes its place.
    pub fn replace(&mut self, group: GroupId, node: NodeId) {
        let homes = self.groups[group].homes.iter();
        let lost: Vec<_> = homes.filter(|(_, home)| **home == node).map(|(id, _)| *id).collect();
        self.replace_replicas(group, node, &lost);
    }

    /// These replicas on `node` are gone for ever.
    pub fn replace_replicas(&mut self, group: GroupId, node: NodeId, lost: &[ReplicaId]) {
        let was_target = lost.iter().any(|id| self.groups[group].target.contains(id));
        let this = &mut self.groups[group];
        this.dead.extend(lost);
        this.target.retain(|id| !lost.contains(id));
        if was_target {
            let id = self.next_replica();
            let this = &mut self.groups[group];
            this.homes.insert(id, node);
            this.target.push(id);
        }
    }

    /// Where a replica lives.
    pub fn home(&self, replica: ReplicaId) -> Option<(GroupId, NodeId)> {
        let found = self.groups.iter().enumerate();
        let mut found = found.filter_map(|(at, group)| Some((at, *group.homes.get(&replica)?)));
        found.next()
    }

    /// The replicas that are to live on a node.
    pub fn on(&self, node: NodeId) -> Vec<(GroupId, ReplicaId)> {
        let mut here = Vec::new();
        for (at, group) in self.groups.iter().enumerate() {
            let homes =
                group.homes.iter().filter(|(id, home)| **home == node && !group.dead.contains(*id));
            here.extend(homes.map(|(id, _)| (at, *id)));
        }
        here
    }

    fn next_replica(&mut self) -> ReplicaId {
        self.last_replica += 1;
        ReplicaId(self.last_replica)
    }
}

impl Group {
    /// Whether a replica on its way out may be wanted again: not one that may have been removed.
    fn may_stay(&self, id: ReplicaId) -> bool {
        self.target.contains(&id)
    }

    /// The row with which a replica begins.
    pub fn first_row(&self, id: ReplicaId) -> ReplicaState {
        if self.founders.contains(&id) {
            founder_row(&self.founders)
        } else {
            ReplicaState {
                log_start: LogStart { first_index: LogIndex(1), ..LogStart::default() },
                ..ReplicaState::default()
            }
        }
    }
}

/// A group begins after a virtual entry of index 1 and epoch 1, so that every later replica gets a
/// snapshot, which brings the membership.
pub fn founder_row(founders: &[ReplicaId]) -> ReplicaState {
    let membership = Membership { voters: founders.to_vec(), ..Membership::default() };
    ReplicaState {
        vote: VoteState { term: 1, vote: 0, commit: LogIndex(1) },
        log_start: LogStart {
            first_index: LogIndex(2),
            epoch_before: LeaderEpoch(1),
            offset: Offset::ZERO,
        },
        memberships: vec![(LogIndex(1), membership)],
        ..ReplicaState::default()
    }
}
