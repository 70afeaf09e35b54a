//! What happens when the log does not take an append: everything is as if it had never been asked.

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::Timestamp;

use super::classic::ClassicGroup;
use super::ids::GroupId;
use super::ledger::AfterCommit;
use super::records::OffsetKey;
use super::response::GroupResponse;
use super::timers::Timer;
use super::{Effect, GroupShard};

impl GroupShard {
    /// Tells those who waited for a refused append.
    pub(super) fn refused(
        &mut self,
        after: AfterCommit,
        code: ErrorCode,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        match after {
            AfterCommit::Reply(token, _) => {
                let response = GroupResponse::Failed(response_error(code));
                self.ledger.reply(token, response, out);
            }
            AfterCommit::Created(group_id) => {
                let code = response_error(code);
                self.with_group(&group_id, now, out, |group, desk| group.abandon(code, desk));
                self.forget_group(&group_id);
                self.restore(&group_id, now);
            }
            AfterCommit::Assigned { group_id, generation, .. } => {
                let code = response_error(code);
                self.with_group(&group_id, now, out, |group, desk| {
                    group.assignment_refused(generation, code, desk);
                });
            }
            AfterCommit::StaticReplaced { group_id, member_id, old, .. } => {
                let code = response_error(code);
                self.with_group(&group_id, now, out, |group, desk| {
                    group.static_refused(&member_id, old, code, desk);
                });
            }
        }
    }

    /// Makes a group without members what the records say that are left: there, or not.
    pub(super) fn restore(&mut self, group_id: &GroupId, now: Timestamp) {
        let metadata = self.ledger.metadata.get(group_id);
        let first = self.ledger.offsets.range(&OffsetKey::first_of(group_id)).next();
        let has_offsets = first.is_some_and(|(key, _)| key.group_id == *group_id);
        let exists = metadata.is_some() || has_offsets;
        match self.groups.get(group_id) {
            None if exists => {
                let group = match metadata {
                    Some(metadata) => ClassicGroup::load(group_id.clone(), metadata, now),
                    None => ClassicGroup::new(group_id.clone(), now),
                };
                self.groups.insert(group_id.clone(), group);
            }
            Some(group) if !exists && group.is_idle() => {
                self.forget_group(group_id);
            }
            _ => {}
        }
    }

    /// Removes a group without members.
    pub(super) fn forget_group(&mut self, group_id: &GroupId) {
        if let Some(group) = self.groups.remove(group_id) {
            self.timers.cancel(&Timer::Join(group_id.clone()));
            self.timers.cancel(&Timer::Sync(group_id.clone()));
            for member_id in group.members().keys().chain(group.pending.keys()) {
                self.timers.cancel(&Timer::Session(group_id.clone(), member_id.clone()));
            }
        }
    }
}

/// An error of Produce, as a group's request reports it
/// (`GroupMetadataManager.appendGroupMetadataErrorToResponseError`). Kafka 4.3 answers a commit
/// that is too large for a batch in the same way.
fn response_error(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge
        | ErrorCode::RecordListTooLarge
        | ErrorCode::InvalidFetchSize => ErrorCode::UnknownServerError,
        code => code,
    }
}
