//! What peers say, and what may be said to them.

use vltava_storage::ids::{LogIndex, ReplicaId};

use super::{Output, Replica, State};
use crate::replica::abstention::{LogEnd, Testimony};
use crate::replica::group::{MessageRefused, PartitionGroup};
use crate::replica::message::{PeerBody, PeerMessage};

impl Replica {
    pub(super) fn dispatch(
        &mut self,
        message: PeerMessage,
        output: &mut Output,
    ) -> Result<(), MessageRefused> {
        let from = message.from;
        let is_leaders = matches!(
            message.body,
            PeerBody::Append { .. } | PeerBody::Heartbeat { .. } | PeerBody::Snapshot { .. }
        ) && message.term >= self.active().term();
        if let Some(abstention) = self.abstention.as_mut().filter(|_| is_leaders) {
            abstention.on_leader_heard();
        }
        match message.body {
            PeerBody::Snapshot { index, last_term, manifest } => {
                self.on_snapshot_offer(from, message.term, index, last_term, manifest, output);
            }
            PeerBody::ChunkRequest { index, base_index, position } => {
                let Self { state: State::Active(group), sent, .. } = self else { return Ok(()) };
                let chunk = sent.chunk(from, index, base_index, position, group.log());
                self.say(from, chunk, output);
            }
            PeerBody::Chunk { index, base_index, position, data } => {
                self.on_chunk(from, index, base_index, position, &data, output);
            }
            PeerBody::TailLost { last_index, .. } => {
                if let Some(until) = self.active().forget_progress(from, last_index) {
                    self.say(from, PeerBody::TailRefill { until }, output);
                }
            }
            PeerBody::TailRefill { until } => {
                let group = self.active();
                let is_leaders = group.leader() == Some(from) && group.term() == message.term;
                if let Some(abstention) = self.abstention.as_mut().filter(|_| is_leaders) {
                    abstention.on_refill(message.term, until);
                }
            }
            PeerBody::Survey { nonce, known } => {
                self.active().learn_committed(known);
                let end = self.log_end();
                let testimony = PeerBody::Testimony {
                    nonce,
                    abstains: self.abstention.is_some(),
                    last_index: end.index,
                    last_term: end.term,
                    electorate: self.electorate(),
                    known: self.active().known_committed(),
                };
                self.say(from, testimony, output);
            }
            PeerBody::Testimony { nonce, abstains, last_index, last_term, electorate, known } => {
                self.active().learn_committed(known);
                if let Some(abstention) = &mut self.abstention {
                    let end = LogEnd { term: last_term, index: last_index };
                    abstention.on_testimony(nonce, from, Testimony { abstains, end, electorate });
                }
            }
            PeerBody::RequestVote { .. } if !self.may_vote_for(from) => {
                if let Some(abstention) = &mut self.abstention {
                    abstention.on_candidate(from);
                }
            }
            PeerBody::RequestVote { pre: false, .. } => {
                self.note_vote_for(from, output);
                return self.active().step(message);
            }
            PeerBody::TimeoutNow if self.abstention.is_some() => {}
            _ => return self.active().step(message),
        }
        Ok(())
    }

    /// Notes what is being offered, and drops what an abstaining replica may not say.
    pub(super) fn outgoing(&mut self, messages: Vec<PeerMessage>) -> Vec<PeerMessage> {
        let Self { state: State::Active(group), sent, .. } = self else { return Vec::new() };
        for message in &messages {
            if let PeerBody::Snapshot { index, .. } = message.body {
                sent.offered(message.to, index, group.log_mut());
            }
        }
        messages
    }

    /// What may be said of promises that are durable now. A follower tells how far it has *applied*
    /// what is committed: that says which changes of membership it remembers.
    pub(super) fn allowed(&self, mut messages: Vec<PeerMessage>) -> Vec<PeerMessage> {
        let applied = self.log().map_or(LogIndex(0), |log| log.state().vote.commit);
        for message in &mut messages {
            if let PeerBody::AppendResponse { commit, .. } = &mut message.body {
                *commit = applied;
            }
        }
        let Some(abstention) = &self.abstention else { return messages };
        let may = |message: &PeerMessage| match message.body {
            // Index 0 acknowledges nothing: it tells a leader of an older term that there is a newer.
            PeerBody::AppendResponse { reject: false, index, .. } => {
                index == LogIndex(0) || abstention.may_acknowledge(message.term)
            }
            _ => true,
        };
        messages.into_iter().filter(may).collect()
    }

    pub(super) fn say(&self, to: ReplicaId, body: PeerBody, output: &mut Output) {
        let term = self.group().map_or(0, PartitionGroup::term);
        output.messages.push(PeerMessage { from: self.id, to, term, body });
    }
}
