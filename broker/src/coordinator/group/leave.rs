//! LeaveGroup, and other ways to go.

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::Timestamp;

use super::classic::ClassicGroup;
use super::desk::Desk;
use super::history::{Cause, Participant};
use super::ids::MemberId;
use super::ledger::AfterCommit;
use super::member::Member;
use super::request::{LeaveRequest, LeavingMember};
use super::response::{GroupResponse, JoinResponse, LeftMember};
use super::state::State;
use super::timers::Timer;
use super::{Effect, GroupShard, Token};

impl GroupShard {
    /// LeaveGroup: members leave, or an administrator removes static ones by their names.
    pub(super) fn leave(
        &mut self,
        token: Token,
        request: &LeaveRequest,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) -> Option<GroupResponse> {
        let before = self.ledger.last();
        let mut left = None;
        self.with_group(&request.group_id, now, out, |group, desk| {
            left = Some(group.leave(&request.members, desk));
        });
        let left = left.unwrap_or_else(|| {
            let unknown = |member| leaving(member, ErrorCode::UnknownMemberId);
            request.members.iter().map(unknown).collect()
        });
        let response = GroupResponse::Leave(left);
        if self.ledger.last() == before {
            return Some(response);
        }
        self.ledger.after_last(AfterCommit::Reply(token, response));
        None
    }
}

impl ClassicGroup {
    fn leave(&mut self, members: &[LeavingMember], desk: &mut Desk<'_>) -> Vec<LeftMember> {
        let mut results = Vec::with_capacity(members.len());
        let mut last = None;
        let mut anybody = false;
        for member in members {
            match self.leave_one(member, desk) {
                Ok(participant) => {
                    anybody = true;
                    if participant.is_some() {
                        last = Some((participant, member.reason.clone()));
                    }
                    results.push(leaving(member, ErrorCode::None));
                }
                Err(code) => results.push(leaving(member, code)),
            }
        }
        if !anybody {
            return results;
        }
        match self.state() {
            State::Stable | State::CompletingRebalance => {
                // Only members that have not joined yet left, if nobody did: Kafka rebalances then
                // as well.
                let (participant, reason) = last.unwrap_or_default();
                self.prepare(Cause::MemberLeft(reason), participant, desk);
            }
            State::PreparingRebalance => self.maybe_complete_join(desk),
            State::Empty | State::Dead => {}
        }
        results
    }

    /// Removes one member. Answers who it was, unless it had not joined yet.
    fn leave_one(
        &mut self,
        leaving: &LeavingMember,
        desk: &mut Desk<'_>,
    ) -> Result<Option<Participant>, ErrorCode> {
        let LeavingMember { member_id, instance_id, .. } = leaving;
        let member_id = if member_id.is_empty() {
            let instance_id = instance_id.as_deref().ok_or(ErrorCode::UnknownMemberId)?;
            self.static_member(instance_id).cloned().ok_or(ErrorCode::UnknownMemberId)?
        } else {
            if !self.pending.contains_key(member_id) {
                self.check_member(member_id, instance_id.as_ref())?;
            }
            member_id.clone()
        };
        let member = self.discard(&member_id, desk);
        Ok(member.map(|member| member.participant(&member_id)))
    }

    /// Removes a member, or one that has not joined yet, and answers whatever it waits with.
    pub(super) fn discard(&mut self, member_id: &MemberId, desk: &mut Desk<'_>) -> Option<Member> {
        desk.timers.cancel(&Timer::Session(self.id.clone(), member_id.clone()));
        let mut member = self.remove(member_id)?;
        let code = ErrorCode::UnknownMemberId;
        desk.answer_join(&mut member, JoinResponse::refused(MemberId::default(), code));
        desk.answer_sync(&mut member, GroupResponse::Failed(code));
        Some(member)
    }

    /// The time of a member, or of one that has not joined yet, may have run out.
    pub(super) fn session_timer(&mut self, member_id: &MemberId, desk: &mut Desk<'_>) {
        let deadline = match (self.member(member_id), self.pending.get(member_id)) {
            (Some(member), _) => member.session_deadline,
            (None, Some(deadline)) => *deadline,
            (None, None) => return,
        };
        if deadline > desk.now {
            desk.timers.set(Timer::Session(self.id.clone(), member_id.clone()), deadline);
            return;
        }
        if self.member(member_id).is_some_and(Member::may_be_silent) {
            // Its session begins anew when it is answered.
            return;
        }
        let member = self.discard(member_id, desk);
        match self.state() {
            State::Stable | State::CompletingRebalance => {
                if let Some(member) = member {
                    let participant = member.participant(member_id);
                    self.prepare(Cause::SessionExpired, Some(participant), desk);
                }
            }
            State::PreparingRebalance if self.all_joined() => self.complete_join(desk),
            _ => {}
        }
    }
}

fn leaving(member: &LeavingMember, error: ErrorCode) -> LeftMember {
    LeftMember {
        member_id: member.member_id.clone(),
        instance_id: member.instance_id.clone(),
        error,
    }
}
