//! Beginning again after a failed write: as a follower, from what the log holds, once that is
//! durable. Raft counts what a new group finds in its log as persisted.

use std::panic::{AssertUnwindSafe, catch_unwind};

use vltava_storage::log::AppendError;

use super::{Output, Replica, State, panic_text};
use crate::replica::group::PartitionGroup;

impl Replica {
    pub(super) fn restart_after(&mut self, error: &AppendError) {
        tracing::warn!(replica = %self.id, %error, "a write failed, the replica begins again");
        self.outstanding.clear();
        self.parked.clear();
        self.held.clear();
        self.abandon_snapshot();
        self.unburn_ticket = None;
        let State::Active(group) = std::mem::replace(&mut self.state, State::Taken) else {
            unreachable!("only an active group executes steps");
        };
        let mut log = group.into_log();
        self.sent.end_all(&mut log);
        let ticket = self.push(log.take_flush_items());
        self.state =
            State::Restarting { log: Box::new(log), ticket, is_durable: false, has_ticked: false };
        self.note_mark();
    }

    pub(super) fn restart_if_due(&mut self, output: &mut Output) {
        let State::Restarting { is_durable: true, has_ticked: true, .. } = self.state else {
            return;
        };
        let State::Restarting { mut log, .. } = std::mem::replace(&mut self.state, State::Taken)
        else {
            unreachable!("it was just seen");
        };
        if log.unburn().is_err() {
            // Still no room for a segment: again at the next tick.
            let ticket = self.last_ticket;
            self.state = State::Restarting { log, ticket, is_durable: true, has_ticked: false };
            return;
        }
        let items = log.take_flush_items();
        if !items.is_empty() {
            let ticket = self.push(items);
            self.state = State::Restarting { log, ticket, is_durable: false, has_ticked: false };
            return;
        }
        log.unburnt_durable();
        let (durability, config) = (self.durability, self.config);
        let begun = AssertUnwindSafe(|| PartitionGroup::new(*log, durability, config));
        match catch_unwind(begun) {
            Ok(group) => {
                self.state = State::Active(Box::new(group));
                self.poll(output);
            }
            Err(panic) => self.fence(format!("panic in a new group: {}", panic_text(&*panic))),
        }
    }
}
