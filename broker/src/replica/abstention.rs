//! A replica that may have lost a tail that it had acknowledged.
//!
//! A topic with `durability=page-cache` acknowledges what only memory holds. When the operating
//! system died, the log may be shorter than what this replica said it was: its vote could elect a
//! leader that lacks committed entries, and the acknowledgements that the leader remembers are no
//! longer true. So it *abstains*: it neither campaigns, votes nor acknowledges until a leader has
//! forgotten what it had acknowledged and has refilled it.
//!
//! Where fewer than a quorum of the voters are intact there can be no such leader. Then all voters
//! compare what they have; the one with the greatest (term, index) campaigns, the others vote for
//! it alone, and what was lost is logged. If one voter is missing, nobody decides.
//!
//! Pure: the shell calls it and sends what it says.

use std::collections::BTreeMap;

use vltava_storage::ids::{LogIndex, ReplicaId};

/// Ticks between two questions to a leader, or to the other voters.
const ASK_EVERY_TICKS: u32 = 5;

/// The end of a log: what decides whose log is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LogEnd {
    /// The term of the last entry.
    pub term: u64,
    /// Its index.
    pub index: LogIndex,
}

/// What one voter says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Testimony {
    /// It may have lost a tail, too.
    pub abstains: bool,
    /// What it has.
    pub end: LogEnd,
}

/// What to do after a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AbstainAction {
    /// Nothing yet.
    Wait,
    /// Tell the leader what is left, and ask to be refilled.
    AskLeader,
    /// Ask all other voters what they have.
    Survey,
    /// All voters answered, too few are intact, and this one has the most: campaign.
    Campaign,
}

/// Where an abstaining replica stands.
#[derive(Debug, Default)]
pub struct Abstention {
    ticks: u32,
    /// The term of the leader that forgot this replica's acknowledgements, and how far it refills.
    refill: Option<(u64, LogIndex)>,
    testimonies: BTreeMap<ReplicaId, Testimony>,
}

impl Abstention {
    /// Whether this replica may tell the leader of `term` what it holds.
    pub fn may_acknowledge(&self, term: u64) -> bool {
        self.refill.is_some_and(|(refill_term, _)| refill_term == term)
    }

    /// The leader of `term` has forgotten, and refills up to `until`.
    pub fn on_refill(&mut self, term: u64, until: LogIndex) {
        self.refill = Some((term, until));
    }

    /// Whether the refill by the leader of `term` is complete.
    pub fn is_refilled(&self, term: u64, durable: LogIndex) -> bool {
        self.refill.is_some_and(|(at, until)| at == term && durable >= until)
    }

    /// Another voter says what it has.
    pub fn on_testimony(&mut self, from: ReplicaId, testimony: Testimony) {
        self.testimonies.insert(from, testimony);
    }

    /// Whether this replica may vote for `candidate` although it abstains: all voters are known,
    /// too few are intact, and the candidate has the most.
    pub fn may_vote_for(
        &self,
        candidate: ReplicaId,
        own: ReplicaId,
        own_end: LogEnd,
        voters: &[ReplicaId],
    ) -> bool {
        self.greatest(own, own_end, voters) == Some(candidate)
    }

    /// Time passes.
    pub fn tick(
        &mut self,
        own: ReplicaId,
        own_end: LogEnd,
        voters: &[ReplicaId],
        leader: Option<ReplicaId>,
    ) -> AbstainAction {
        self.ticks += 1;
        if self.greatest(own, own_end, voters) == Some(own) && leader.is_none() {
            return AbstainAction::Campaign;
        }
        if !self.ticks.is_multiple_of(ASK_EVERY_TICKS) {
            return AbstainAction::Wait;
        }
        match leader {
            Some(_) if self.refill.is_none() => AbstainAction::AskLeader,
            Some(_) => AbstainAction::Wait,
            None => {
                self.testimonies.clear();
                AbstainAction::Survey
            }
        }
    }

    /// The leader's term changed: an older leader's promise is void.
    pub fn on_new_term(&mut self, term: u64) {
        if self.refill.is_some_and(|(at, _)| at != term) {
            self.refill = None;
        }
    }

    /// Who has the greatest log, if all voters are known and fewer than a quorum are intact.
    fn greatest(&self, own: ReplicaId, own_end: LogEnd, voters: &[ReplicaId]) -> Option<ReplicaId> {
        if !voters.contains(&own) {
            return None;
        }
        let own_testimony = Testimony { abstains: true, end: own_end };
        let mut intact = 0;
        let mut best: Option<(LogEnd, ReplicaId)> = None;
        for id in voters {
            let said = if *id == own { own_testimony } else { *self.testimonies.get(id)? };
            intact += usize::from(!said.abstains);
            best = best.max(Some((said.end, *id)));
        }
        let quorum = voters.len() / 2 + 1;
        if intact >= quorum {
            return None;
        }
        best.map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: ReplicaId = ReplicaId(1);

    fn end(term: u64, index: u64) -> LogEnd {
        LogEnd { term, index: LogIndex(index) }
    }

    fn voters(ids: &[u64]) -> Vec<ReplicaId> {
        ids.iter().copied().map(ReplicaId).collect()
    }

    #[test]
    fn a_lone_voter_decides_alone() {
        let mut abstention = Abstention::default();
        let action = abstention.tick(OWN, end(1, 5), &voters(&[1]), None);
        assert_eq!(action, AbstainAction::Campaign);
    }

    #[test]
    fn the_greatest_of_all_campaigns_and_gets_the_votes() {
        let mut abstention = Abstention::default();
        let three = voters(&[1, 2, 3]);
        abstention.on_testimony(ReplicaId(2), Testimony { abstains: true, end: end(2, 4) });
        assert_eq!(abstention.tick(OWN, end(1, 9), &three, None), AbstainAction::Wait);
        abstention.on_testimony(ReplicaId(3), Testimony { abstains: false, end: end(1, 9) });
        assert_eq!(abstention.tick(OWN, end(1, 9), &three, None), AbstainAction::Wait);
        assert!(abstention.may_vote_for(ReplicaId(2), OWN, end(1, 9), &three));
        assert!(!abstention.may_vote_for(ReplicaId(3), OWN, end(1, 9), &three));
        assert_eq!(abstention.tick(OWN, end(2, 9), &three, None), AbstainAction::Campaign);
    }

    #[test]
    fn an_intact_quorum_needs_no_comparison() {
        let mut abstention = Abstention::default();
        let three = voters(&[1, 2, 3]);
        for id in [2, 3] {
            let testimony = Testimony { abstains: false, end: end(1, 1) };
            abstention.on_testimony(ReplicaId(id), testimony);
        }
        assert_eq!(abstention.tick(OWN, end(5, 5), &three, None), AbstainAction::Wait);
    }

    #[test]
    fn a_refill_counts_only_in_its_term() {
        let mut abstention = Abstention::default();
        assert!(!abstention.may_acknowledge(3));
        abstention.on_refill(3, LogIndex(7));
        assert!(abstention.may_acknowledge(3));
        assert!(!abstention.is_refilled(3, LogIndex(6)));
        assert!(abstention.is_refilled(3, LogIndex(7)));
        abstention.on_new_term(4);
        assert!(!abstention.may_acknowledge(4));
    }
}
