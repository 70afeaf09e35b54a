//! SyncGroup and Heartbeat: members learn their assignment, and show that they live.
//!
//! The leader's SyncGroup carries everybody's assignment. It is written to the log, and when it is
//! committed, all members that asked are told theirs and the group is stable. A member that does
//! not ask within the rebalance timeout is removed.

use std::collections::BTreeMap;

use bytes::Bytes;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::Timestamp;

use super::classic::ClassicGroup;
use super::desk::Desk;
use super::history::Cause;
use super::ids::{MemberId, Text};
use super::ledger::AfterCommit;
use super::offsets::Answer;
use super::records::GroupRecord;
use super::request::{HeartbeatRequest, SyncRequest};
use super::response::{GroupResponse, SyncResponse};
use super::state::State;
use super::timers::Timer;
use super::{Effect, GroupShard, Token};

impl GroupShard {
    /// SyncGroup.
    pub(super) fn sync(
        &mut self,
        token: Token,
        request: SyncRequest,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) -> Answer {
        let group_id = request.group_id.clone();
        let mut answer = Err(ErrorCode::UnknownMemberId);
        self.with_group(&group_id, now, out, |group, desk| {
            answer = group.sync(token, request, desk);
        });
        answer
    }

    /// Heartbeat. Tells the member whether it must join again.
    pub(super) fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        now: Timestamp,
    ) -> Result<GroupResponse, ErrorCode> {
        let mut answer = Err(ErrorCode::UnknownMemberId);
        self.with_group(&request.group_id, now, &mut Vec::new(), |group, desk| {
            answer = group.heartbeat(request, desk);
        });
        answer.map(|()| GroupResponse::Heartbeat)
    }
}

impl ClassicGroup {
    fn sync(&mut self, token: Token, request: SyncRequest, desk: &mut Desk<'_>) -> Answer {
        let SyncRequest { member_id, instance_id, generation, .. } = &request;
        self.check_member(member_id, instance_id.as_ref())?;
        if *generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |said: &Option<Text>, ours: &Option<Text>| {
            said.is_some() && ours.is_some() && said != ours
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.state() {
            State::Empty | State::Dead => Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance => {
                self.synced(member_id, desk);
                let group_id = self.id.clone();
                let member = self.member_mut(member_id).expect("just checked");
                desk.park_sync(&group_id, member_id, member, token);
                if self.is_leader(member_id) {
                    self.assign(request.assignments, desk);
                }
                Ok(None)
            }
            State::Stable => {
                self.synced(member_id, desk);
                let assignment = self.member(member_id).expect("just checked").assignment.clone();
                Ok(Some(self.assignment_response(assignment)))
            }
        }
    }

    /// A member has asked for its assignment.
    fn synced(&mut self, member_id: &str, desk: &mut Desk<'_>) {
        self.unsynced.remove(member_id);
        if self.unsynced.is_empty() {
            desk.timers.cancel(&Timer::Sync(self.id.clone()));
        }
    }

    /// Writes the leader's assignment to the log. Members that it forgot get nothing.
    fn assign(&mut self, assignments: Vec<(MemberId, Bytes)>, desk: &mut Desk<'_>) {
        let known = |(member_id, _): &(MemberId, Bytes)| self.member(member_id).is_some();
        let assignments: BTreeMap<MemberId, Bytes> =
            assignments.into_iter().filter(known).collect();
        let record = GroupRecord::Group(self.id.clone(), Some(self.store(&assignments)));
        let (group_id, generation) = (self.id.clone(), self.generation);
        let after = AfterCommit::Assigned { group_id, generation, assignments };
        desk.append(vec![record], Some(after));
    }

    /// The assignment of a generation is committed. If another rebalance has begun since, it is
    /// of no use to anybody.
    pub(super) fn assigned(
        &mut self,
        generation: i32,
        assignments: &BTreeMap<MemberId, Bytes>,
        desk: &mut Desk<'_>,
    ) {
        if self.state() != State::CompletingRebalance || self.generation != generation {
            return;
        }
        let group_id = self.id.clone();
        let response = self.assignment_response(Bytes::new());
        for (member_id, member) in self.members_mut() {
            member.assignment = assignments.get(member_id).cloned().unwrap_or_default();
            if member.sync.is_some() {
                let mut response = response.clone();
                if let GroupResponse::Sync(sync) = &mut response {
                    sync.assignment = member.assignment.clone();
                }
                desk.answer_sync(member, response);
                // It could not send a heartbeat while it waited.
                let timeout_ms = member.session_timeout_ms.into();
                desk.extend_session(&group_id, member_id, member, timeout_ms);
            }
        }
        self.enter(State::Stable, desk.now);
        self.history.finished(desk.now);
        desk.counters.rebalances_completed += 1;
    }

    fn assignment_response(&self, assignment: Bytes) -> GroupResponse {
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        GroupResponse::Sync(SyncResponse { protocol_type, protocol, assignment })
    }

    /// The assignment of a generation could not be written: everybody joins again.
    pub(super) fn assignment_refused(
        &mut self,
        generation: i32,
        code: ErrorCode,
        desk: &mut Desk<'_>,
    ) {
        if self.state() == State::CompletingRebalance && self.generation == generation {
            self.reset_assignments(code, desk);
            self.prepare(Cause::AssignmentRefused(code), None, desk);
        }
    }

    /// Takes all assignments back and tells those who wait for theirs why.
    pub(super) fn reset_assignments(&mut self, code: ErrorCode, desk: &mut Desk<'_>) {
        let group_id = self.id.clone();
        for (member_id, member) in self.members_mut() {
            member.assignment = Bytes::new();
            if member.sync.is_some() {
                desk.answer_sync(member, GroupResponse::Failed(code));
                let timeout_ms = member.session_timeout_ms.into();
                desk.extend_session(&group_id, member_id, member, timeout_ms);
            }
        }
    }

    /// Members have had time enough to ask for their assignment.
    pub(super) fn sync_timer(&mut self, desk: &mut Desk<'_>) {
        let waits = matches!(self.state(), State::CompletingRebalance | State::Stable);
        if !waits || self.unsynced.is_empty() {
            return;
        }
        let silent = std::mem::take(&mut self.unsynced);
        let mut last = None;
        for member_id in &silent {
            if let Some(member) = self.discard(member_id, desk) {
                last = Some(member.participant(member_id));
            }
        }
        self.prepare(Cause::SyncTimedOut, last, desk);
    }

    fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        desk: &mut Desk<'_>,
    ) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        self.show_life(&request.member_id, desk);
        match self.state() {
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// A member has committed offsets, which shows that it lives; but not while it ought to ask
    /// for its assignment.
    pub(super) fn committed_offsets(&mut self, member_id: &str, desk: &mut Desk<'_>) {
        if matches!(self.state(), State::Stable | State::PreparingRebalance) {
            self.show_life(member_id, desk);
        }
    }

    fn show_life(&mut self, member_id: &str, desk: &mut Desk<'_>) {
        if let Some(member) = self.member_mut(member_id) {
            // The deadline only moves on, and the timer that is set already will see that.
            member.session_deadline = desk.after(member.session_timeout_ms);
        }
    }

    /// A group that was loaded: its members' sessions begin anew.
    pub(super) fn resume(&mut self, desk: &mut Desk<'_>) {
        let group_id = self.id.clone();
        for (member_id, member) in self.members_mut() {
            let timeout_ms = member.session_timeout_ms.into();
            desk.extend_session(&group_id, member_id, member, timeout_ms);
        }
        if self.members().len() > desk.config.max_size {
            self.prepare(Cause::OverCapacity, None, desk);
        }
    }
}
