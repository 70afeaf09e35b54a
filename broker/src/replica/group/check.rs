//! Judging a peer's message before raft sees it: raft-rs panics by design on impossible indexes.

use vltava_protocol::record::batch::BatchHeader;
use vltava_storage::ids::LogIndex;

use super::{MessageRefused, PartitionGroup, Role};
use crate::replica::log_store::term_of;
use crate::replica::message::{Payload, PeerBody, PeerMessage};

impl PartitionGroup {
    /// A leader's entries agree with what is committed here, but after a loss.
    pub(super) fn check_agreement(&self, message: &PeerMessage) -> Result<(), MessageRefused> {
        let PeerBody::Append { prev_index, prev_term, entries, .. } = &message.body else {
            return Ok(());
        };
        if message.term < self.term() {
            return Ok(());
        }
        let committed = LogIndex(self.node.raft.raft_log.committed);
        let named = entries.iter().map(|entry| (entry.index, entry.term));
        let named = std::iter::once((*prev_index, *prev_term)).chain(named);
        for (index, term) in named.take_while(|(index, _)| *index <= committed) {
            if self.log().epoch_at(index).is_some_and(|known| term_of(known) != term) {
                return Err(MessageRefused::Diverged { from: message.from, index });
            }
        }
        Ok(())
    }

    pub(super) fn check(&self, message: &PeerMessage) -> Result<(), MessageRefused> {
        let &PeerMessage { from, to, term, ref body } = message;
        if to != self.id || from == self.id || from.0 == 0 {
            return Err(MessageRefused::Misaddressed { from, to, replica: self.id });
        }
        let impossible = |what| Err(MessageRefused::Impossible { from, what });
        if term == 0 || term > i32::MAX as u64 {
            return impossible("term out of range");
        }
        match body {
            PeerBody::Append { prev_index, prev_term, entries, .. } => {
                let (mut index, mut last_term) = (*prev_index, *prev_term);
                for entry in entries {
                    if entry.index != index.next() || entry.term < last_term || entry.term > term {
                        return impossible("entries out of order");
                    }
                    if let Payload::Batch(batch) = &entry.payload
                        && !is_batch_of(batch, entry.term)
                    {
                        return impossible("an entry is not a batch of its term");
                    }
                    (index, last_term) = (entry.index, entry.term);
                }
                Ok(())
            }
            PeerBody::AppendResponse { index, reject, .. }
                if !reject && self.role() == Role::Leader && term == self.term() =>
            {
                if index.0 > self.node.raft.raft_log.last_index() {
                    return impossible("acknowledges what was never sent");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn is_batch_of(batch: &bytes::Bytes, term: u64) -> bool {
    BatchHeader::parse(batch).is_ok_and(|header| {
        header.size() == batch.len() && i64::from(header.leader_epoch.0) == term as i64
    })
}
