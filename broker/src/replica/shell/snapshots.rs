//! Receiving a snapshot, and the time that transfers take.

use bytes::Bytes;
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::AppendError;

use super::{Output, Replica, State};
use crate::replica::message::PeerBody;
use crate::replica::snapshot::{ChunkOutcome, SnapshotReceived, Stalled};

impl Replica {
    pub(super) fn tick_snapshots(&mut self, output: &mut Output) {
        let Self { state: State::Active(group), sent, .. } = self else { return };
        for peer in sent.peers() {
            if !group.awaits_snapshot(peer) {
                sent.ended(peer, group.log_mut());
            }
        }
        for peer in sent.tick(group.log_mut()) {
            group.report_snapshot(peer, false);
        }
        let Some(received) = &mut self.received else { return };
        let (to, _) = received.sender();
        match received.tick() {
            Ok(Some(body)) => self.say(to, body, output),
            Ok(None) => {}
            Err(Stalled) => self.abandon_snapshot(),
        }
    }

    pub(super) fn on_snapshot_offer(
        &mut self,
        from: ReplicaId,
        term: u64,
        index: LogIndex,
        last_term: u64,
        manifest: Bytes,
        output: &mut Output,
    ) {
        let group = self.active();
        let (committed, applied) = (group.log().committed(), group.log().state().vote.commit);
        if index <= committed && term == group.term() {
            // The leader waits for this snapshot, and would offer it for ever.
            let is_silent = self.abstention.as_ref().is_some_and(|it| !it.may_acknowledge(term));
            let answer = PeerBody::AppendResponse {
                index: committed,
                reject: false,
                hint_index: LogIndex(0),
                hint_term: 0,
                commit: applied,
            };
            if !is_silent {
                self.say(from, answer, output);
            }
            return;
        }
        let is_stale = term < group.term() || index <= committed;
        if is_stale || self.received.as_ref().is_some_and(|received| received.is(from, index)) {
            return;
        }
        self.abandon_snapshot();
        let Some(log) = self.log() else { return };
        let Some(mut received) = SnapshotReceived::begin(from, term, last_term, manifest, log)
        else {
            return;
        };
        if let Some(body) = received.request() {
            self.received = Some(received);
            self.say(from, body, output);
        } else {
            let outcome = received.finish();
            self.received = Some(received);
            self.on_chunk_outcome(&outcome, output);
        }
    }

    pub(super) fn on_chunk(
        &mut self,
        from: ReplicaId,
        index: LogIndex,
        base_index: LogIndex,
        position: u64,
        data: &[u8],
        output: &mut Output,
    ) {
        let received = self.received.as_mut().filter(|received| received.is(from, index));
        let Some(received) = received else { return };
        let outcome = received.on_chunk(base_index, position, data);
        self.on_chunk_outcome(&outcome, output);
    }

    pub(super) fn on_chunk_outcome(&mut self, outcome: &ChunkOutcome, output: &mut Output) {
        let Some(received) = &self.received else { return };
        let (from, term) = received.sender();
        match outcome {
            ChunkOutcome::Ignored => {}
            ChunkOutcome::More => {
                if let Some(body) = received.request() {
                    self.say(from, body, output);
                }
            }
            ChunkOutcome::Complete => {
                let snapshot = received.received();
                self.active().step_snapshot(from, term, snapshot);
            }
            ChunkOutcome::Failed => self.abandon_snapshot(),
        }
    }

    pub(super) fn install(&mut self) -> Result<(), AppendError> {
        let received = self.received.take().expect("raft was shown a complete snapshot");
        self.log_mut().install(received.into_install())
    }

    pub(super) fn abandon_snapshot(&mut self) {
        if let Some(received) = self.received.take() {
            received.abandon();
        }
    }
}
