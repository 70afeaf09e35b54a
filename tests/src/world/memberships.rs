//! Which memberships of a group there were, and who would find them after a restart.

use std::collections::BTreeMap;

use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::state::Membership;

/// The memberships of one group, as its replicas showed them.
#[derive(Debug, Default)]
pub(crate) struct Memberships {
    /// Those that anyone applied, by the index that brought them.
    applied: BTreeMap<LogIndex, Membership>,
    /// Since when the newest is in force that each replica's row holds durably.
    remembered: BTreeMap<ReplicaId, LogIndex>,
}

impl Memberships {
    /// A replica has applied this membership; `is_durable`: and would find it after a restart.
    pub(super) fn shown(
        &mut self,
        replica: ReplicaId,
        (since, membership): &(LogIndex, Membership),
        is_durable: bool,
    ) {
        self.applied.entry(*since).or_insert_with(|| membership.clone());
        if is_durable {
            let remembered = self.remembered.entry(replica).or_default();
            *remembered = (*remembered).max(*since);
        }
    }

    /// The newest that anyone applied.
    pub(crate) fn newest(&self) -> Option<&Membership> {
        self.applied.values().next_back()
    }

    /// Those that may be in force, oldest first. The first is the newest that a quorum of it remembers:
    /// under no later one can anything have been committed. A voter may know a later one all the same.
    pub(super) fn possible(&self) -> impl Iterator<Item = &Membership> {
        let is_remembered = |(since, membership): &(&LogIndex, &Membership)| {
            let knows = |id: &&ReplicaId| self.remembered.get(id).is_some_and(|at| at >= since);
            has_quorum(membership, knows)
        };
        let newest = self.applied.iter().rev().find(is_remembered);
        let from = newest.map_or(LogIndex(0), |(since, _)| *since);
        self.applied.range(from..).map(|(_, membership)| membership)
    }
}

/// Whether most voters of a membership are such, and most of those that it replaces.
pub(super) fn has_quorum(membership: &Membership, is_such: impl Fn(&&ReplicaId) -> bool) -> bool {
    [&membership.voters, &membership.outgoing]
        .into_iter()
        .all(|set| set.is_empty() || set.iter().filter(&is_such).count() > set.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_counts_when_most_of_it_remember() {
        let of = |ids: &[u64]| Membership {
            voters: ids.iter().copied().map(ReplicaId).collect(),
            ..Membership::default()
        };
        let (two, three) = ((LogIndex(1), of(&[1, 2])), (LogIndex(5), of(&[1, 2, 3])));
        let mut memberships = Memberships::default();
        assert_eq!(memberships.possible().next(), None);
        memberships.shown(ReplicaId(1), &two, true);
        memberships.shown(ReplicaId(2), &two, true);
        memberships.shown(ReplicaId(1), &three, false);
        memberships.shown(ReplicaId(3), &three, true);
        assert_eq!(memberships.newest(), Some(&three.1));
        assert!(memberships.possible().eq([&two.1, &three.1]));
        memberships.shown(ReplicaId(1), &three, true);
        assert!(memberships.possible().eq([&three.1]));
    }
}
