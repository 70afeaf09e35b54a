//! What a leader counts and what a follower may believe: acknowledgements that are counted anew, and
//! a commit index that others tell of.
//!
//! **Invariant:** what is committed by counting under a membership was acknowledged by a quorum of it
//! whose rows held that membership. A replica that restarts without its tail finds such a membership
//! in its own row, or in that of any voter of the one before it (see [`abstention`]).
//!
//! [`abstention`]: crate::replica::abstention

use vltava_storage::ids::{LogIndex, ReplicaId};

use super::{PartitionGroup, Role};
use crate::replica::log_store::term_of;
use crate::replica::message::{Known, PeerBody};

impl PartitionGroup {
    /// `peer` says that it lost entries that it had acknowledged: forget the acknowledgement and
    /// probe its log from `last_index`. Answers the index up to which it must be refilled.
    pub fn forget_progress(&mut self, peer: ReplicaId, last_index: LogIndex) -> Option<LogIndex> {
        if self.role() != Role::Leader || peer == self.id {
            return None;
        }
        let until = LogIndex(self.node.raft.raft_log.last_index());
        let progress = self.node.raft.mut_prs().get_mut(peer.0)?;
        progress.matched = 0;
        progress.become_probe();
        progress.next_idx = last_index.0.min(until.0) + 1;
        Some(until)
    }

    /// This leader applies the change of membership at `index`: acknowledgements of what lies behind
    /// it were given in ignorance of it, its own too, and are worth nothing to the new quorum.
    pub(super) fn count_anew_behind(&mut self, index: LogIndex) {
        if self.role() == Role::Leader {
            for (_, progress) in self.node.raft.mut_prs().iter_mut() {
                progress.matched = progress.matched.min(index.0);
            }
        }
    }

    /// The row of this replica holds the membership in force: a leader counts itself again.
    pub fn count_itself(&mut self) {
        if self.role() != Role::Leader {
            return;
        }
        let (own, raft) = (self.id.0, &mut self.node.raft);
        let persisted = raft.raft_log.persisted;
        let counts = raft.mut_prs().get_mut(own).is_some_and(|own| own.maybe_update(persisted));
        if counts && raft.maybe_commit() && raft.should_bcast_commit() {
            raft.bcast_append();
        }
    }

    /// A follower that does not know of the newest change of membership acknowledges nothing behind
    /// it, and nobody does behind one that is not applied here yet: what is counted under the old
    /// membership may lie with those whom the new one does not ask. They will, once they have heard: a
    /// leader asks again as long as anything is missing.
    pub(super) fn count_ignorance(&self, body: &mut PeerBody) {
        let PeerBody::AppendResponse { reject: false, index, commit, .. } = body else { return };
        if self.role() != Role::Leader {
            return;
        }
        let since = self.log().state().memberships.last().map(|(since, _)| *since);
        if let Some(since) = since.filter(|since| *commit < *since) {
            *index = since.min(*index);
        }
        if let Some(change) = self.change_under_way() {
            *index = change.min(*index);
        }
    }

    /// The first change of membership that this leader has not applied. One of an older term is
    /// committed with the leader's first entry and not before, so that stands for it.
    fn change_under_way(&self) -> Option<LogIndex> {
        let (raft, store) = (&self.node.raft, self.node.store());
        let unapplied = raft.raft_log.applied + 1..=raft.pending_conf_index;
        let change = store.last_changes(unapplied).last()?;
        let office = self.log().epochs().starts().last()?;
        Some(change.max(office.first_index))
    }

    /// What this replica knows to be committed.
    pub fn known_committed(&self) -> Known {
        let index = LogIndex(self.node.raft.raft_log.committed);
        Known { index, term: self.log().epoch_at(index).map_or(0, term_of) }
    }

    /// Another replica knows this to be committed: so does this one, if it holds the same entry. A
    /// learner learns in this way that it votes.
    pub fn learn_committed(&mut self, known: Known) {
        let before = self.node.raft.raft_log.committed;
        if known.term == 0
            || known.index.0 <= before
            || self.role() == Role::Leader
            || self.installing.is_some()
            || !self.node.raft.raft_log.maybe_commit(known.index.0, known.term)
        {
            return;
        }
        let news = before + 1..=known.index.0;
        if self.role() == Role::Candidate && self.node.store().last_changes(news).next().is_some() {
            // It asked for votes under a membership that is no longer in force.
            self.stand_down();
        }
    }
}
