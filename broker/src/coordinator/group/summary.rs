//! What metrics, lag and `explain` want to know of a shard. Nothing here decides anything.

use super::GroupShard;
use super::classic::ClassicGroup;
use super::ids::GroupId;
use super::records::{CommittedOffset, OffsetKey};
use super::state::State;

/// What a shard has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Offsets that were accepted for a commit.
    pub offset_commits: u64,
    /// Offsets that OffsetDelete, DeleteGroups or the deletion of a topic removed.
    pub offset_deletions: u64,
    /// Offsets that expired.
    pub offsets_expired: u64,
    /// Rebalances that began.
    pub rebalances: u64,
    /// Rebalances whose assignment was committed.
    pub rebalances_completed: u64,
}

impl GroupShard {
    /// What it has done.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The groups that this leader knows, by id; none on a follower.
    pub fn groups(&self) -> impl Iterator<Item = &ClassicGroup> {
        self.groups.values()
    }

    /// A group, with its members and its history.
    pub fn group(&self, group_id: &str) -> Option<&ClassicGroup> {
        self.groups.get(group_id)
    }

    /// How many groups are in each of [`State::LIVING`].
    pub fn states(&self) -> [usize; State::LIVING.len()] {
        State::LIVING.map(|state| self.groups().filter(|group| group.state() == state).count())
    }

    /// All committed offsets, by group, topic and partition.
    pub fn committed_offsets(&self) -> impl Iterator<Item = (&OffsetKey, &CommittedOffset)> {
        self.ledger.offsets.iter_committed()
    }

    /// The committed offsets of one group, by topic and partition.
    pub fn committed_offsets_of(
        &self,
        group_id: &GroupId,
    ) -> impl Iterator<Item = (&OffsetKey, &CommittedOffset)> {
        let from = self.ledger.offsets.range_committed(&OffsetKey::first_of(group_id));
        from.take_while(move |(key, _)| key.group_id == *group_id)
    }

    /// Requests that wait for an answer.
    pub fn parked(&self) -> usize {
        self.ledger.parked()
    }
}
