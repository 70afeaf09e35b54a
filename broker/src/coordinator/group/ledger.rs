//! What a shard has written and whom it owes an answer.
//!
//! Invariant: a token that is parked is answered exactly once, or canceled; what waits for an
//! append waits in the order of the appends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::ErrorCode;

use super::ids::{GroupId, MemberId};
use super::member::Member;
use super::records::{CommittedOffset, GroupMetadata, GroupRecord, OffsetKey};
use super::response::GroupResponse;
use super::{Effect, Token};
use crate::coordinator::overlay::{Overlay, Seq};

/// The state of a shard that survives, and what hangs on its next commits.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The offsets of all groups.
    pub(super) offsets: Overlay<OffsetKey, CommittedOffset>,
    /// The metadata of all groups.
    pub(super) metadata: Overlay<GroupId, Arc<GroupMetadata>>,
    last: Seq,
    awaiting: VecDeque<(Seq, AfterCommit)>,
    parked: BTreeMap<Token, Place>,
}

/// What happens when an append is committed, or refused.
#[derive(Debug)]
pub(super) enum AfterCommit {
    /// The answer leaves.
    Reply(Token, GroupResponse),
    /// A group that was not there is there.
    Created(GroupId),
    /// The members of this generation are told what the leader assigned.
    Assigned {
        /// The group.
        group_id: GroupId,
        /// The generation.
        generation: i32,
        /// What each was assigned.
        assignments: BTreeMap<MemberId, Bytes>,
    },
    /// Another process has taken the place of a static member.
    StaticReplaced {
        /// The group.
        group_id: GroupId,
        /// The id that it has now.
        member_id: MemberId,
        /// The id it had, and the member as it was.
        old: (MemberId, Box<Member>),
        /// The leader before.
        leader: MemberId,
        /// Whether the new one understands that it need not assign.
        can_skip_assignment: bool,
    },
}

/// Where a parked token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It waits for an append.
    Commit,
    /// It is the JoinGroup of a member.
    Join(GroupId, MemberId),
    /// It is the SyncGroup of a member.
    Sync(GroupId, MemberId),
}

impl Ledger {
    /// The last append.
    pub(super) fn last(&self) -> Seq {
        self.last
    }

    /// Appends records as one batch, and says what follows when they are committed.
    pub(super) fn append(
        &mut self,
        records: Vec<GroupRecord>,
        after: Option<AfterCommit>,
        out: &mut Vec<Effect>,
    ) {
        assert!(!records.is_empty(), "an append has records");
        self.last = self.last.next();
        let seq = self.last;
        for record in &records {
            match record.clone() {
                GroupRecord::Offset(key, value) => self.offsets.append(key, value, seq),
                GroupRecord::Group(group_id, value) => self.metadata.append(group_id, value, seq),
            }
        }
        if let Some(after) = after {
            self.after_last(after);
        }
        out.push(Effect::Append { seq, records });
    }

    /// Says what follows when the last append, one of this same call, is committed.
    pub(super) fn after_last(&mut self, after: AfterCommit) {
        if let AfterCommit::Reply(token, _) = &after {
            self.park(*token, Place::Commit);
        }
        self.awaiting.push_back((self.last, after));
    }

    /// Answers once everything appended so far is committed. That is not [`last`](Self::last):
    /// the log may have refused that one.
    pub(super) fn reply_after_last(
        &mut self,
        token: Token,
        response: GroupResponse,
        out: &mut Vec<Effect>,
    ) {
        match self.offsets.last_pending().max(self.metadata.last_pending()) {
            Some(seq) => {
                self.park(token, Place::Commit);
                self.awaiting.push_back((seq, AfterCommit::Reply(token, response)));
            }
            None => out.push(Effect::Reply { token, response }),
        }
    }

    /// All appends up to `seq` are committed; the next thing that follows is taken. Called until
    /// there is none.
    pub(super) fn commit(&mut self, seq: Seq) -> Option<AfterCommit> {
        self.offsets.commit(seq);
        self.metadata.commit(seq);
        let (awaited, _) = self.awaiting.front()?;
        if *awaited > seq { None } else { self.awaiting.pop_front().map(|(_, after)| after) }
    }

    /// The log did not take the appends from `seq` on. Answers whose records they were, and what
    /// would have followed.
    pub(super) fn refuse(&mut self, seq: Seq) -> (BTreeSet<GroupId>, Vec<AfterCommit>) {
        let mut groups: BTreeSet<GroupId> = self.metadata.refuse(seq).into_iter().collect();
        groups.extend(self.offsets.refuse(seq).into_iter().map(|key| key.group_id));
        let kept = self.awaiting.partition_point(|(awaited, _)| *awaited < seq);
        let hanging = self.awaiting.split_off(kept).into_iter().map(|(_, after)| after);
        (groups, hanging.collect())
    }

    /// Parks a request.
    pub(super) fn park(&mut self, token: Token, place: Place) {
        let earlier = self.parked.insert(token, place);
        assert!(earlier.is_none(), "a token names one request");
    }

    /// Answers a parked request, unless it was canceled.
    pub(super) fn reply(&mut self, token: Token, response: GroupResponse, out: &mut Vec<Effect>) {
        if self.parked.remove(&token).is_some() {
            out.push(Effect::Reply { token, response });
        }
    }

    /// Nobody waits for this answer any more.
    pub(super) fn cancel(&mut self, token: Token) -> Option<Place> {
        self.parked.remove(&token)
    }

    /// Requests that wait.
    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// The leadership is lost: what was appended is forgotten, everybody is told.
    pub(super) fn lose(&mut self, out: &mut Vec<Effect>) {
        self.offsets.forget_pending();
        self.metadata.forget_pending();
        self.awaiting.clear();
        for token in std::mem::take(&mut self.parked).into_keys() {
            let response = GroupResponse::Failed(ErrorCode::NotCoordinator);
            out.push(Effect::Reply { token, response });
        }
    }
}
