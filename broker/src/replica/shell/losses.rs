//! A replica that may have lost a tail it had acknowledged: what it must not do, and how it ends.
//! The decisions are [`abstention`](crate::replica::abstention)'s.

use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::state::Membership;

use super::{Output, Replica, State, TailLoss};
use crate::replica::abstention::{AbstainAction, LogEnd};
use crate::replica::log_store::term_of;
use crate::replica::message::{Electorate, PeerBody};

impl Replica {
    pub(super) fn tick_abstention(&mut self, output: &mut Output) {
        if self.abstention.is_none() {
            return;
        }
        let (own, end) = (self.id, self.log_end());
        let leader = self.active().leader();
        if self.abstention.as_mut().is_some_and(|it| it.is_leader_silent(leader)) {
            self.active().forget_leader();
        }
        let group = self.active();
        let (leader, term) = (group.leader(), group.term());
        let electorate = self.electorate();
        let abstention = self.abstention.as_mut().expect("it was just seen");
        abstention.on_new_term(term);
        match abstention.tick(own, end, &electorate, leader) {
            AbstainAction::Wait => {}
            AbstainAction::AskLeader => {
                let body = PeerBody::TailLost { last_index: end.index, last_term: end.term };
                self.say(leader.expect("it asks the leader"), body, output);
            }
            AbstainAction::Survey => {
                let asked = abstention.asked(own, &electorate);
                let nonce = self.active().draw_nonce();
                let known = self.active().known_committed();
                if let Some(abstention) = &mut self.abstention {
                    abstention.begin_survey(nonce);
                }
                for voter in asked {
                    self.say(voter, PeerBody::Survey { nonce, known }, output);
                }
            }
            AbstainAction::Campaign => self.lead_with_what_is_left(output),
        }
    }

    /// This replica has the most of all voters, too few of which are intact.
    pub(super) fn lead_with_what_is_left(&mut self, output: &mut Output) {
        let log = self.log_mut();
        let loss = TailLoss {
            known_committed: log.committed(),
            end_index: log.last_index(),
            end_offset: Some(log.end_offset()),
        };
        tracing::error!(
            replica = %log.replica(), ?loss,
            "too few voters kept their log: what was acknowledged past this end is lost"
        );
        output.losses.push(loss);
        self.end_abstention();
        self.active().campaign();
    }

    pub(super) fn end_abstention_if_refilled(&mut self) {
        let term = match &self.state {
            State::Active(group) => group.term(),
            _ => return,
        };
        let durable = if self.outstanding.is_empty() {
            self.log_end().index
        } else {
            return;
        };
        if self.abstention.as_ref().is_some_and(|it| it.is_refilled(term, durable)) {
            tracing::info!(replica = %self.id, "refilled by the leader, takes part again");
            self.end_abstention();
        }
    }

    pub(super) fn end_abstention(&mut self) {
        self.abstention = None;
        self.log_mut().set_abstaining(None);
        self.flush_outbox();
    }

    pub(super) fn may_vote_for(&self, candidate: ReplicaId) -> bool {
        let Some(abstention) = &self.abstention else { return true };
        abstention.may_vote_for(candidate, self.id, self.log_end(), &self.electorate())
    }

    /// This replica votes although it abstains: the candidate has what is left.
    pub(super) fn note_vote_for(&self, candidate: ReplicaId, output: &mut Output) {
        let (Some(abstention), Some(log)) = (&self.abstention, self.log()) else { return };
        let Some(end) = abstention.end_of(candidate) else { return };
        let known_committed = log.committed();
        let loss = TailLoss { known_committed, end_index: end.index, end_offset: None };
        tracing::error!(
            replica = %self.id, %candidate, ?loss,
            "too few voters kept their log: what was acknowledged past this end is lost"
        );
        output.losses.push(loss);
    }

    /// Who decides, as far as this replica knows.
    pub(super) fn electorate(&self) -> Electorate {
        let since = self.log().and_then(|log| log.state().memberships.last());
        let Membership { voters, outgoing, .. } = self.membership();
        Electorate { since: since.map_or(LogIndex(0), |(since, _)| *since), voters, outgoing }
    }

    pub(super) fn log_end(&self) -> LogEnd {
        let Some(log) = self.log() else { return LogEnd { term: 0, index: LogIndex(0) } };
        let index = log.last_index();
        let term = log.epoch_at(index).map_or(0, term_of);
        LogEnd { term, index }
    }
}
