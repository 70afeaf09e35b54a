//! What a group works with while it acts: the rest of its shard, and the time.

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::Timestamp;

use super::config::GroupConfig;
use super::ids::{GroupId, MemberId};
use super::ledger::{AfterCommit, Ledger, Place};
use super::member::{Member, Waiting};
use super::records::GroupRecord;
use super::response::{GroupResponse, JoinResponse};
use super::summary::Counters;
use super::timers::{Timer, Timers};
use super::{Effect, Token};

/// The rest of the shard, lent to one group for one step.
pub(super) struct Desk<'a> {
    /// Limits and times.
    pub(super) config: &'a GroupConfig,
    /// Records and parked requests.
    pub(super) ledger: &'a mut Ledger,
    /// Deadlines.
    pub(super) timers: &'a mut Timers,
    /// What is counted.
    pub(super) counters: &'a mut Counters,
    /// The time.
    pub(super) now: Timestamp,
    /// What the step wants done.
    pub(super) out: &'a mut Vec<Effect>,
}

impl Desk<'_> {
    /// The time after so many milliseconds.
    pub(super) fn after(&self, ms: impl Into<i64>) -> Timestamp {
        Timestamp(self.now.0.saturating_add(ms.into()))
    }

    /// Appends one batch.
    pub(super) fn append(&mut self, records: Vec<GroupRecord>, after: Option<AfterCommit>) {
        self.ledger.append(records, after, self.out);
    }

    /// Lets a member wait with its JoinGroup. One that it waited with before is answered: it would
    /// hang for ever.
    pub(super) fn park_join(
        &mut self,
        group_id: &GroupId,
        member_id: &MemberId,
        member: &mut Member,
        token: Token,
    ) {
        self.answer_join(
            member,
            JoinResponse::refused(member_id.clone(), ErrorCode::RebalanceInProgress),
        );
        self.ledger.park(token, Place::Join(group_id.clone(), member_id.clone()));
        member.join = Some(Waiting { token: Some(token) });
    }

    /// Lets a member wait with its SyncGroup, see [`park_join`](Self::park_join).
    pub(super) fn park_sync(
        &mut self,
        group_id: &GroupId,
        member_id: &MemberId,
        member: &mut Member,
        token: Token,
    ) {
        self.answer_sync(member, GroupResponse::Failed(ErrorCode::RebalanceInProgress));
        self.ledger.park(token, Place::Sync(group_id.clone(), member_id.clone()));
        member.sync = Some(Waiting { token: Some(token) });
    }

    /// Answers a member's JoinGroup, if it waits with one.
    pub(super) fn answer_join(&mut self, member: &mut Member, response: JoinResponse) {
        if let Some(Waiting { token: Some(token) }) = member.join.take() {
            self.ledger.reply(token, GroupResponse::Join(response), self.out);
        }
    }

    /// Answers a member's SyncGroup, if it waits with one.
    pub(super) fn answer_sync(&mut self, member: &mut Member, response: GroupResponse) {
        if let Some(Waiting { token: Some(token) }) = member.sync.take() {
            self.ledger.reply(token, response, self.out);
        }
    }

    /// A member has shown that it lives; it may be silent for so long from now on.
    pub(super) fn extend_session(
        &mut self,
        group_id: &GroupId,
        member_id: &MemberId,
        member: &mut Member,
        timeout_ms: i64,
    ) {
        member.session_deadline = self.after(timeout_ms);
        let timer = Timer::Session(group_id.clone(), member_id.clone());
        self.timers.no_later_than(timer, member.session_deadline);
    }
}
