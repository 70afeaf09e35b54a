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
//! **Whom to ask.** The voters of the newest membership that anybody asked has *applied* and finds in
//! its row, both halves of a joint one. That none can be overlooked, and so no two majorities that do
//! not meet can decide, follows from five facts. Let `c` be a change of membership at index `i`, from
//! `C` to `D`.
//! 1. *Changes survive.* Who acknowledges `c` has synced it and all before it, in every durability. So
//!    if `c` is committed, a quorum of `C` holds all up to `i` for good.
//! 2. *One at a time.* A leader proposes a change only when it has applied the one before. So a log that
//!    holds `c` and a later change proves that `c` is committed; a lone voter's proves it of the first,
//!    since nobody else decides. A restart counts that as committed and applies it before it asks for
//!    votes (`LogStore::proven_commit`): at most one change of its log is uncertain. `C` and `D` differ
//!    by one voter or are joint, so a quorum of `C` meets every quorum of `D`, and a replica votes once
//!    in a term: the two elect no two leaders of one term, and the later leader has met whatever an
//!    earlier one committed.
//! 3. *Who counts, remembers.* An entry behind `i` is committed by counting under `D` only when a quorum
//!    of `D` had `c` in their rows before they acknowledged it: nothing is settled while an applied
//!    change is not in the row, and when a leader applies `c` it forgets every acknowledgement behind
//!    `i` of those who did not know of it, its own too (`PartitionGroup::count_anew_behind`). Nor is it
//!    committed under `C` by the leader that proposed `c` (`PartitionGroup::count_ignorance`), unless
//!    that votes alone: it would lie with some whom nobody asks under `D`.
//! 4. *All are asked.* Let all voters of `C` have testified, none of a newer membership. Had anything
//!    been committed under `D` before, a quorum of `D` would remember `D` (3), some of it voters of `C`
//!    (2), and would have said so. By induction the newest membership that is named is the last one
//!    under which anything was committed, and what was committed under the one before lies with one of
//!    its voters, too: what is lost although all voters were compared was lost by a quorum.
//! 5. *What is committed meanwhile* needs acknowledgements of a quorum that no abstaining replica is
//!    part of. Whoever gave one and votes afterwards is intact and refuses a lesser log, or has lost it
//!    since, and begins to ask anew.
//!
//! **Who has the most may not know that it votes:** a learner that holds `c` and has not heard that it
//! is committed. Nobody but it may lead, and it would not campaign. So who asks and who testifies also
//! says what it knows to be committed, and who holds the same entry believes it: index and term name
//! an entry and all before it. A promotion that only a lost tail held was never committed (1), and
//! nothing behind it was (3).
//!
//! Pure: the shell calls it and sends what it says.

use std::collections::{BTreeMap, BTreeSet};

use vltava_storage::ids::{LogIndex, ReplicaId};

use super::message::Electorate;

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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Testimony {
    /// It may have lost a tail, too.
    pub abstains: bool,
    /// What it has.
    pub end: LogEnd,
    /// Who decides, as far as it knows.
    pub electorate: Electorate,
}

/// What to do after a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AbstainAction {
    /// Nothing yet.
    Wait,
    /// Tell the leader what is left, and ask to be refilled.
    AskLeader,
    /// Ask all other voters what they have, after [`Abstention::begin_survey`].
    Survey,
    /// All voters answered, too few are intact, and this one has the most: campaign.
    Campaign,
}

/// Ticks without a word of the leader after which it is taken for gone.
const LEADER_SILENT_TICKS_MAX: u32 = 20;

/// Candidates to be asked although no known membership names them.
const CANDIDATES_MAX: usize = 16;

/// Where an abstaining replica stands.
#[derive(Debug, Default)]
pub struct Abstention {
    ticks: u32,
    leader_silent_ticks: u32,
    /// The term that this replica was last seen in: what voters said in an earlier one is void.
    term: u64,
    /// The term of the leader that forgot this replica's acknowledgements, and how far it refills.
    refill: Option<(u64, LogIndex)>,
    /// Who asked for this replica's vote.
    candidates: BTreeSet<ReplicaId>,
    /// Names the present survey.
    survey: u64,
    testimonies: BTreeMap<ReplicaId, Testimony>,
}

impl Abstention {
    /// Whether this replica may tell the leader of `term` what it holds.
    pub fn may_acknowledge(&self, term: u64) -> bool {
        self.refill.is_some_and(|(refill_term, _)| refill_term == term)
    }

    /// The leader said something: whatever voters said before is out of date.
    pub fn on_leader_heard(&mut self) {
        self.leader_silent_ticks = 0;
        self.testimonies.clear();
    }

    /// Whether the leader has said nothing for too long. To be asked once a tick.
    pub fn is_leader_silent(&mut self, leader: Option<ReplicaId>) -> bool {
        self.leader_silent_ticks = leader.map_or(0, |_| self.leader_silent_ticks + 1);
        self.leader_silent_ticks > LEADER_SILENT_TICKS_MAX
    }

    /// The leader of `term` has forgotten, and refills up to `until`.
    pub fn on_refill(&mut self, term: u64, until: LogIndex) {
        self.refill = Some((term, until));
    }

    /// Whether the refill by the leader of `term` is complete.
    pub fn is_refilled(&self, term: u64, durable: LogIndex) -> bool {
        self.refill.is_some_and(|(at, until)| at == term && durable >= until)
    }

    /// A candidate that this replica may not know asks for its vote: it is asked, too.
    pub fn on_candidate(&mut self, candidate: ReplicaId) {
        if self.candidates.len() < CANDIDATES_MAX {
            self.candidates.insert(candidate);
        }
    }

    /// Whom to ask what they have.
    pub fn asked(&self, own: ReplicaId, electorate: &Electorate) -> BTreeSet<ReplicaId> {
        let known = [electorate, self.newest(electorate)].into_iter();
        let known = known.flat_map(|them| them.voters.iter().chain(&them.outgoing));
        known.chain(&self.candidates).copied().filter(|voter| *voter != own).collect()
    }

    /// A new survey begins: what was said before may be true no longer.
    pub fn begin_survey(&mut self, nonce: u64) {
        self.survey = nonce;
        self.testimonies.clear();
    }

    /// Another voter answers the survey `nonce`.
    pub fn on_testimony(&mut self, nonce: u64, from: ReplicaId, testimony: Testimony) {
        if nonce == self.survey {
            self.testimonies.insert(from, testimony);
        }
    }

    /// Whether this replica may vote for `candidate` although it abstains: all voters are known,
    /// too few are intact, and the candidate has the most.
    pub fn may_vote_for(
        &self,
        candidate: ReplicaId,
        own: ReplicaId,
        own_end: LogEnd,
        electorate: &Electorate,
    ) -> bool {
        let Electorate { voters, outgoing, .. } = self.newest(electorate);
        if !voters.contains(&own) && !outgoing.contains(&own) {
            // It was removed, and its vote counts for those only who have not heard of it.
            return voters.contains(&candidate);
        }
        self.greatest(own, own_end, electorate) == Some(candidate)
    }

    /// What `voter` said that it has, in the present survey.
    pub fn end_of(&self, voter: ReplicaId) -> Option<LogEnd> {
        self.testimonies.get(&voter).map(|said| said.end)
    }

    /// The newest electorate that anybody speaks of, `own` to begin with: the log of this replica
    /// may have lost a change of membership with its tail.
    pub fn newest<'a>(&'a self, own: &'a Electorate) -> &'a Electorate {
        let others = self.testimonies.values().map(|said| &said.electorate);
        others.fold(own, |newest, other| if other.since > newest.since { other } else { newest })
    }

    /// Time passes.
    pub fn tick(
        &mut self,
        own: ReplicaId,
        own_end: LogEnd,
        electorate: &Electorate,
        leader: Option<ReplicaId>,
    ) -> AbstainAction {
        self.ticks += 1;
        if leader.is_some() {
            self.testimonies.clear();
        }
        if self.greatest(own, own_end, electorate) == Some(own) && leader.is_none() {
            return AbstainAction::Campaign;
        }
        if !self.ticks.is_multiple_of(ASK_EVERY_TICKS) {
            return AbstainAction::Wait;
        }
        match leader {
            Some(_) if self.refill.is_none() => AbstainAction::AskLeader,
            Some(_) => AbstainAction::Wait,
            None => AbstainAction::Survey,
        }
    }

    /// The leader's term changed: an older leader's promise is void.
    pub fn on_new_term(&mut self, term: u64) {
        if self.term != term {
            self.term = term;
            self.testimonies.clear();
        }
        if self.refill.is_some_and(|(at, _)| at != term) {
            self.refill = None;
        }
    }

    /// Who has the greatest log, if all voters are known and fewer than a quorum are intact.
    fn greatest(
        &self,
        own: ReplicaId,
        own_end: LogEnd,
        electorate: &Electorate,
    ) -> Option<ReplicaId> {
        let Electorate { voters, outgoing, .. } = self.newest(electorate);
        if !voters.contains(&own) && !outgoing.contains(&own) {
            return None;
        }
        // Of equals, the one who knows the newest membership: another may not know that it votes.
        let mut best = (own_end, electorate.since, own);
        for id in voters.iter().chain(outgoing).filter(|id| **id != own) {
            let said = self.testimonies.get(id)?;
            best = best.max((said.end, said.electorate.since, *id));
        }
        let is_intact =
            |id: &&ReplicaId| self.testimonies.get(id).is_some_and(|said| !said.abstains);
        let has_quorum = |set: &[ReplicaId]| {
            set.is_empty() || set.iter().filter(is_intact).count() > set.len() / 2
        };
        (!has_quorum(voters) || !has_quorum(outgoing)).then_some(best.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: ReplicaId = ReplicaId(1);

    fn end(term: u64, index: u64) -> LogEnd {
        LogEnd { term, index: LogIndex(index) }
    }

    fn voters(ids: &[u64]) -> Electorate {
        let voters = ids.iter().copied().map(ReplicaId).collect();
        Electorate { voters, ..Electorate::default() }
    }

    fn testimony(abstains: bool, end: LogEnd) -> Testimony {
        Testimony { abstains, end, electorate: Electorate::default() }
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
        abstention.on_testimony(0, ReplicaId(2), testimony(true, end(2, 4)));
        assert_eq!(abstention.tick(OWN, end(1, 9), &three, None), AbstainAction::Wait);
        abstention.on_testimony(0, ReplicaId(3), testimony(false, end(1, 9)));
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
            abstention.on_testimony(0, ReplicaId(id), testimony(false, end(1, 1)));
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

    #[test]
    fn a_membership_that_was_lost_with_the_tail_is_learned_from_others() {
        let mut abstention = Abstention::default();
        let electorate = Electorate { since: LogIndex(7), ..voters(&[1, 2]) };
        let said = Testimony { electorate, ..testimony(false, end(1, 9)) };
        abstention.on_testimony(0, ReplicaId(2), said);
        assert!(abstention.may_vote_for(ReplicaId(2), OWN, end(1, 5), &voters(&[1, 2, 3])));
    }
}
