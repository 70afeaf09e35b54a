//! JoinGroup, and the join phase of a rebalance.
//!
//! In the join phase every member must come and say what it could do. It ends when all have come,
//! or after the longest rebalance timeout, without the dynamic members that did not. The first
//! rebalance of an empty group is held open for `group.initial.rebalance.delay.ms` instead, again
//! and again while members keep coming, up to that timeout (KIP-134).

use std::collections::BTreeMap;

use rand_chacha::rand_core::Rng;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::Timestamp;

use super::classic::{ClassicGroup, InitialDelay};
use super::config::{NEW_MEMBER_JOIN_TIMEOUT_MS, PENDING_MEMBERS_MAX};
use super::desk::Desk;
use super::history::{Cause, Participant};
use super::ids::MemberId;
use super::ledger::AfterCommit;
use super::member::Member;
use super::records::GroupRecord;
use super::request::JoinRequest;
use super::response::{GroupResponse, JoinResponse};
use super::state::State;
use super::timers::Timer;
use super::{Effect, GroupShard, Token};

impl GroupShard {
    /// JoinGroup. A group that does not exist begins with it.
    pub(super) fn join(
        &mut self,
        token: Token,
        request: &JoinRequest,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) -> Option<GroupResponse> {
        let refused = |code| {
            let response = JoinResponse::refused(request.member_id.clone(), code);
            Some(GroupResponse::Join(response))
        };
        let limits = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if !limits.contains(&request.session_timeout_ms) {
            return refused(ErrorCode::InvalidSessionTimeout);
        }
        let group_id = &request.group_id;
        let is_new = !self.groups.contains_key(group_id);
        if is_new {
            if !request.member_id.is_empty() {
                return refused(ErrorCode::UnknownMemberId);
            }
            self.groups.insert(group_id.clone(), ClassicGroup::new(group_id.clone(), now));
        }
        let new_id = request.member_id.is_empty().then(|| self.new_member_id(request));
        let mut response = None;
        self.with_group(group_id, now, out, |group, desk| {
            response = group.join(token, request, new_id, desk);
            if is_new && !group.is_idle() {
                let record = GroupRecord::Group(group.id.clone(), Some(group.store_empty()));
                desk.append(vec![record], Some(AfterCommit::Created(group.id.clone())));
            }
        });
        if is_new && self.groups.get(group_id).is_some_and(ClassicGroup::is_idle) {
            self.groups.remove(group_id);
        }
        response.map(GroupResponse::Join)
    }

    /// An id for a member: the name it gives itself and a random UUID.
    fn new_member_id(&mut self, request: &JoinRequest) -> MemberId {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        let uuid = uuid::Builder::from_random_bytes(bytes).into_uuid().hyphenated();
        let name = request.instance_id.as_deref().unwrap_or(&request.client.id);
        // The name may be as long as a text can be; the id must not be longer.
        let room = super::ids::TEXT_BYTES_MAX - 1 - uuid::fmt::Hyphenated::LENGTH;
        let name = &name[..name.floor_char_boundary(room)];
        MemberId::from(format!("{name}-{uuid}"))
    }
}

impl ClassicGroup {
    /// Lets a member join; `new_id` is for one without an id. No answer yet where it waits for the
    /// others.
    fn join(
        &mut self,
        token: Token,
        request: &JoinRequest,
        new_id: Option<MemberId>,
        desk: &mut Desk<'_>,
    ) -> Option<JoinResponse> {
        let member_id = &request.member_id;
        if !self.accepts(member_id, desk.config.max_size) {
            self.discard(member_id, desk);
            if self.state() == State::PreparingRebalance {
                self.maybe_complete_join(desk);
            }
            return Some(refuse(&MemberId::default(), ErrorCode::GroupMaxSizeReached));
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return Some(refuse(member_id, ErrorCode::InconsistentGroupProtocol));
        }
        match new_id {
            Some(new_id) => self.join_new(token, request, new_id, desk),
            None if self.pending.contains_key(member_id) => {
                if request.instance_id.is_some() {
                    // Static members are never made to come back with an id.
                    return Some(refuse(&MemberId::default(), ErrorCode::UnknownServerError));
                }
                self.add_member(token, request, member_id.clone(), desk);
                None
            }
            None => match self.check_member(member_id, request.instance_id.as_ref()) {
                Ok(()) => self.rejoin(token, request, desk),
                Err(code) => Some(refuse(member_id, code)),
            },
        }
    }

    /// Whether there is room (`GroupMetadataManager.acceptJoiningMember`). While a rebalance
    /// gathers members, those count that have come: of a group that is over its size, the last to
    /// come are left out.
    fn accepts(&self, member_id: &str, max_size: usize) -> bool {
        match self.state() {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                self.members().len() < max_size
                    || self.member(member_id).is_some_and(|member| member.join.is_some())
                    || self.joining() < max_size
            }
            State::CompletingRebalance | State::Stable => {
                self.member(member_id).is_some() || self.members().len() < max_size
            }
        }
    }

    fn join_new(
        &mut self,
        token: Token,
        request: &JoinRequest,
        new_id: MemberId,
        desk: &mut Desk<'_>,
    ) -> Option<JoinResponse> {
        let present = request.instance_id.as_deref().and_then(|id| self.static_member(id));
        if let Some(old_id) = present.cloned() {
            self.replace_static(token, request, &old_id, new_id, desk);
            return None;
        }
        if request.instance_id.is_some() || !request.requires_member_id {
            self.add_member(token, request, new_id, desk);
            return None;
        }
        if self.pending.len() >= PENDING_MEMBERS_MAX {
            return Some(refuse(&MemberId::default(), ErrorCode::GroupMaxSizeReached));
        }
        let deadline = desk.after(request.session_timeout_ms);
        desk.timers.set(Timer::Session(self.id.clone(), new_id.clone()), deadline);
        self.pending.insert(new_id.clone(), deadline);
        Some(refuse(&new_id, ErrorCode::MemberIdRequired))
    }

    fn add_member(
        &mut self,
        token: Token,
        request: &JoinRequest,
        member_id: MemberId,
        desk: &mut Desk<'_>,
    ) {
        let mut member = Member::new(request, desk.now);
        let participant = member.participant(&member_id);
        desk.park_join(&self.id, &member_id, &mut member, token);
        desk.extend_session(&self.id, &member_id, &mut member, NEW_MEMBER_JOIN_TIMEOUT_MS);
        if let Some(initial) = &mut self.initial {
            initial.member_added = true;
        }
        if self.members().is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        self.insert(member_id, member);
        self.rebalance_or_complete(Cause::MemberJoined, Some(participant), desk);
    }

    /// A member with an id joins again.
    fn rejoin(
        &mut self,
        token: Token,
        request: &JoinRequest,
        desk: &mut Desk<'_>,
    ) -> Option<JoinResponse> {
        let member_id = &request.member_id;
        let member = self.member(member_id).expect("just checked");
        let changed = !member.matches(&request.protocols);
        let cause = match self.state() {
            State::Empty | State::Dead => {
                return Some(refuse(member_id, ErrorCode::UnknownMemberId));
            }
            State::PreparingRebalance => Cause::MetadataChanged,
            _ if changed => Cause::MetadataChanged,
            // The leader wants another assignment, perhaps for partitions that are new.
            State::Stable if self.is_leader(member_id) => Cause::LeaderRejoined,
            // It did not get the answer, or needs it again: this generation is still good.
            State::CompletingRebalance | State::Stable => {
                let told_members = self.state() == State::CompletingRebalance;
                return Some(self.joined(member_id, told_members));
            }
        };
        let participant = member.participant(member_id);
        self.update_member(token, request, member_id, desk);
        self.rebalance_or_complete(cause, Some(participant), desk);
        None
    }

    fn update_member(
        &mut self,
        token: Token,
        request: &JoinRequest,
        member_id: &MemberId,
        desk: &mut Desk<'_>,
    ) {
        let group_id = self.id.clone();
        self.change(member_id, |member| {
            member.update(request, desk.now);
            desk.park_join(&group_id, member_id, member, token);
        });
    }

    /// A new process takes the place of a static member, under a new id; the old one is fenced
    /// (KIP-345). In a stable group whose choice of protocol stays, it simply takes over the
    /// assignment once the record with its id is committed.
    fn replace_static(
        &mut self,
        token: Token,
        request: &JoinRequest,
        old_id: &MemberId,
        new_id: MemberId,
        desk: &mut Desk<'_>,
    ) {
        let leader = self.leader.clone().unwrap_or_default();
        let old = self.fence(old_id, desk);
        self.rename(old_id, new_id.clone());
        let group_id = self.id.clone();
        self.change(&new_id, |member| {
            member.client = request.client.clone();
            member.update(request, desk.now);
            desk.park_join(&group_id, &new_id, member, token);
            let timeout_ms = member.session_timeout_ms.into();
            desk.extend_session(&group_id, &new_id, member, timeout_ms);
        });
        let participant = self.member(&new_id).map(|member| member.participant(&new_id));
        match self.state() {
            State::Stable if self.select_protocol() == self.protocol => {
                let record = GroupRecord::Group(group_id.clone(), Some(self.store_assigned()));
                let after = AfterCommit::StaticReplaced {
                    group_id,
                    member_id: new_id,
                    old: (old_id.clone(), Box::new(old)),
                    leader,
                    can_skip_assignment: request.can_skip_assignment,
                };
                desk.append(vec![record], Some(after));
            }
            // While the leader assigns, it may have the old id in hand.
            State::Stable | State::CompletingRebalance => {
                self.prepare(Cause::StaticReplaced, participant, desk);
            }
            _ => self.maybe_complete_join(desk),
        }
    }

    /// Tells the process behind a static member that another one has taken its place. Answers the
    /// member as it was.
    fn fence(&mut self, member_id: &MemberId, desk: &mut Desk<'_>) -> Member {
        let code = ErrorCode::FencedInstanceId;
        desk.timers.cancel(&Timer::Session(self.id.clone(), member_id.clone()));
        let member = self.member_mut(member_id).expect("a static member's id is a member's");
        desk.answer_join(member, JoinResponse::refused(member_id.clone(), code));
        desk.answer_sync(member, GroupResponse::Failed(code));
        member.is_new = false;
        member.clone()
    }

    /// The record with a static member's new id is committed. Where a rebalance has begun since,
    /// the member waits for that instead.
    pub(super) fn static_replaced(
        &mut self,
        member_id: &MemberId,
        leader: MemberId,
        can_skip_assignment: bool,
        desk: &mut Desk<'_>,
    ) {
        if self.state() != State::Stable || self.member(member_id).is_none() {
            return;
        }
        let mut response = self.joined(member_id, can_skip_assignment);
        if can_skip_assignment {
            response.skip_assignment = self.is_leader(member_id);
        } else {
            // A leader that cannot be told to assign nothing must not know that it leads.
            response.leader = leader;
        }
        let group_id = self.id.clone();
        let member = self.member_mut(member_id).expect("just looked at");
        desk.answer_join(member, response);
        // The session may have ended unnoticed while it waited.
        let timeout_ms = member.session_timeout_ms.into();
        desk.extend_session(&group_id, member_id, member, timeout_ms);
    }

    /// The record with a static member's new id was refused: the old one stays.
    pub(super) fn static_refused(
        &mut self,
        member_id: &MemberId,
        (old_id, old): (MemberId, Box<Member>),
        code: ErrorCode,
        desk: &mut Desk<'_>,
    ) {
        if self.state() != State::Stable || self.member(member_id).is_none() {
            return;
        }
        desk.timers.cancel(&Timer::Session(self.id.clone(), member_id.clone()));
        let member = self.member_mut(member_id).expect("just looked at");
        desk.answer_join(member, JoinResponse::refused(MemberId::default(), code));
        self.rename(member_id, old_id.clone());
        let group_id = self.id.clone();
        self.change(&old_id, |member| {
            *member = *old;
            let timeout_ms = member.session_timeout_ms.into();
            desk.extend_session(&group_id, &old_id, member, timeout_ms);
        });
    }

    /// What a member of this generation is told; the leader also who is in it.
    fn joined(&self, member_id: &MemberId, tell_members: bool) -> JoinResponse {
        let leads = self.is_leader(member_id) && tell_members;
        JoinResponse {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.clone(),
            members: if leads { self.joined_members() } else { Vec::new() },
        }
    }

    /// The first record of the group was refused: whoever joined it is told, and it is no more.
    pub(super) fn abandon(&mut self, code: ErrorCode, desk: &mut Desk<'_>) {
        for (member_id, member) in self.members_mut() {
            desk.answer_join(member, JoinResponse::refused(member_id.clone(), code));
        }
    }

    /// Begins a rebalance; in one that is gathering members, sees whether that was the last.
    pub(super) fn rebalance_or_complete(
        &mut self,
        cause: Cause,
        member: Option<Participant>,
        desk: &mut Desk<'_>,
    ) {
        if self.state() == State::PreparingRebalance {
            self.maybe_complete_join(desk);
        } else {
            self.prepare(cause, member, desk);
        }
    }

    /// Begins a rebalance.
    pub(super) fn prepare(
        &mut self,
        cause: Cause,
        member: Option<Participant>,
        desk: &mut Desk<'_>,
    ) {
        if self.state() == State::CompletingRebalance {
            self.reset_assignments(ErrorCode::RebalanceInProgress, desk);
        }
        self.unsynced.clear();
        desk.timers.cancel(&Timer::Sync(self.id.clone()));
        let was_empty = self.state() == State::Empty;
        self.enter(State::PreparingRebalance, desk.now);
        self.history.begin(desk.now, cause, member);
        desk.counters.rebalances += 1;
        if was_empty {
            let delay_ms = desk.config.initial_rebalance_delay_ms;
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.initial = Some(InitialDelay { delay_ms, remaining_ms, member_added: false });
            desk.timers.set(Timer::Join(self.id.clone()), desk.after(delay_ms));
        } else if self.all_joined() {
            self.complete_join(desk);
        } else {
            let deadline = desk.after(self.rebalance_timeout_ms());
            desk.timers.set(Timer::Join(self.id.clone()), deadline);
        }
    }

    /// Ends the join phase if everybody has come; that of an empty group lasts its time.
    pub(super) fn maybe_complete_join(&mut self, desk: &mut Desk<'_>) {
        if self.initial.is_none() && self.all_joined() {
            self.complete_join(desk);
        }
    }

    /// The join phase has lasted long enough.
    pub(super) fn join_timer(&mut self, desk: &mut Desk<'_>) {
        if self.state() != State::PreparingRebalance {
            return;
        }
        match &mut self.initial {
            Some(initial) if initial.member_added && initial.remaining_ms > 0 => {
                let delay_ms = desk.config.initial_rebalance_delay_ms.min(initial.remaining_ms);
                *initial = InitialDelay {
                    delay_ms,
                    remaining_ms: (initial.remaining_ms - initial.delay_ms).max(0),
                    member_added: false,
                };
                desk.timers.set(Timer::Join(self.id.clone()), desk.after(delay_ms));
            }
            _ => self.complete_join(desk),
        }
    }

    /// Ends the join phase: the next generation begins with whoever has come, and with the static
    /// members, which have until their session's end.
    pub(super) fn complete_join(&mut self, desk: &mut Desk<'_>) {
        desk.timers.cancel(&Timer::Join(self.id.clone()));
        let removed = self.remove_absent(desk);
        if !self.members().is_empty() && !self.elect_joined_leader() {
            // Only static members are left, and none has come. Their sessions decide.
            let deadline = desk.after(self.rebalance_timeout_ms().max(1));
            desk.timers.set(Timer::Join(self.id.clone()), deadline);
            return;
        }
        let joined = self.members().iter().filter(|(_, member)| member.join.is_some());
        let slowest = joined.max_by_key(|(_, member)| member.joined_at);
        let slowest = slowest.map(|(id, member)| (member.participant(id), member.joined_at));
        self.next_generation(desk.now);
        self.history.joined(desk.now, self.generation, slowest, removed);
        if self.state() == State::Empty {
            self.history.finished(desk.now);
            let record = self.store(&BTreeMap::new());
            desk.append(vec![GroupRecord::Group(self.id.clone(), Some(record))], None);
        } else {
            self.tell_generation(desk);
        }
    }

    /// Removes the dynamic members that have not come.
    fn remove_absent(&mut self, desk: &mut Desk<'_>) -> Vec<Participant> {
        let absent = |(_, member): &(&MemberId, &Member)| {
            member.join.is_none() && member.instance_id.is_none()
        };
        let absent: Vec<MemberId> =
            self.members().iter().filter(absent).map(|(id, _)| id.clone()).collect();
        let removed = absent.iter().filter_map(|member_id| {
            self.discard(member_id, desk).map(|member| member.participant(member_id))
        });
        removed.collect()
    }

    /// Sees to it that a member that has come leads. None if none has come.
    fn elect_joined_leader(&mut self) -> bool {
        let has_come = |id: &MemberId| self.member(id).is_some_and(|m| m.join.is_some());
        if !self.leader.as_ref().is_some_and(has_come) {
            let Some(next) = self.members().keys().find(|id| has_come(id)).cloned() else {
                return false;
            };
            self.leader = Some(next);
        }
        true
    }

    /// Answers all who have come, and waits for their SyncGroup.
    fn tell_generation(&mut self, desk: &mut Desk<'_>) {
        let group_id = self.id.clone();
        let responses: Vec<JoinResponse> =
            self.members().keys().map(|member_id| self.joined(member_id, true)).collect();
        for response in responses {
            let member_id = response.member_id.clone();
            let member = self.member_mut(&member_id).expect("a member of this generation");
            desk.answer_join(member, response);
            let timeout_ms = member.session_timeout_ms.into();
            desk.extend_session(&group_id, &member_id, member, timeout_ms);
            member.is_new = false;
            self.unsynced.insert(member_id);
        }
        let deadline = desk.after(self.rebalance_timeout_ms());
        desk.timers.set(Timer::Sync(group_id), deadline);
    }
}

/// Tells a member what is wrong; the member's id goes back to it.
fn refuse(member_id: &MemberId, code: ErrorCode) -> JoinResponse {
    JoinResponse::refused(member_id.clone(), code)
}
