//! The last rebalances of a group: why each began, how long it took and who kept it waiting.
//!
//! For people only; nothing is decided by it, and it is gone with the leadership.

use std::collections::VecDeque;

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::Timestamp;

use super::ids::MemberId;
use super::request::Client;

/// How many rebalances of a group are remembered.
pub const REBALANCES_MAX: usize = 16;

/// The most bytes of a reason that are kept; clients cut theirs at 255 characters (KIP-800).
const REASON_BYTES_MAX: usize = 255;

/// Why a rebalance began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A member is new.
    MemberJoined,
    /// A member left, or was made to, with the reason it gave.
    MemberLeft(Option<String>),
    /// A member was silent for longer than its session timeout.
    SessionExpired,
    /// A member came back with other protocols or other metadata.
    MetadataChanged,
    /// The leader joined again, as it does when partitions were added to a topic.
    LeaderRejoined,
    /// Another process took the place of a static member, and the choice of protocol changed.
    StaticReplaced,
    /// Members joined and then did not ask for their assignment in time.
    SyncTimedOut,
    /// The assignment could not be written to the log.
    AssignmentRefused(ErrorCode),
    /// The group was loaded with more members than `group.max.size` allows.
    OverCapacity,
}

impl Cause {
    /// In a few words.
    pub fn describe(&self) -> String {
        match self {
            Self::MemberJoined => "member joined".into(),
            Self::MemberLeft(None) => "member left".into(),
            Self::MemberLeft(Some(reason)) => format!("member left: {reason}"),
            Self::SessionExpired => "session expired".into(),
            Self::MetadataChanged => "metadata changed".into(),
            Self::LeaderRejoined => "leader rejoined".into(),
            Self::StaticReplaced => "static member replaced".into(),
            Self::SyncTimedOut => "members did not sync in time".into(),
            Self::AssignmentRefused(code) => format!("assignment not written: {code}"),
            Self::OverCapacity => "group over group.max.size".into(),
        }
    }
}

/// A member at the time of a rebalance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Participant {
    /// Its id.
    pub member_id: MemberId,
    /// Its client.
    pub client: Client,
}

/// One rebalance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebalance {
    /// When it began.
    pub started: Timestamp,
    /// Why.
    pub cause: Cause,
    /// Whose doing it was, where it was one member's.
    pub member: Option<Participant>,
    /// The generation that came of it, once all had joined.
    pub generation: Option<i32>,
    /// How long it took until all had joined, in milliseconds.
    pub join_ms: Option<i64>,
    /// How long it took until the assignment was committed. None for one that is running, or that
    /// the next one interrupted.
    pub total_ms: Option<i64>,
    /// The member that joined last.
    pub slowest: Option<(Participant, i64)>,
    /// Members that did not come back in time and were removed.
    pub removed: Vec<Participant>,
}

/// The last rebalances, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    rebalances: VecDeque<Rebalance>,
    total: u64,
}

impl History {
    /// The rebalances that are remembered, the oldest first.
    pub fn rebalances(&self) -> impl ExactSizeIterator<Item = &Rebalance> {
        self.rebalances.iter()
    }

    /// How many the group has had since this node came to lead it.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// One begins.
    pub fn begin(&mut self, now: Timestamp, mut cause: Cause, member: Option<Participant>) {
        if let Cause::MemberLeft(Some(reason)) = &mut cause {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        }
        if self.rebalances.len() == REBALANCES_MAX {
            self.rebalances.pop_front();
        }
        self.total += 1;
        self.rebalances.push_back(Rebalance {
            started: now,
            cause,
            member,
            generation: None,
            join_ms: None,
            total_ms: None,
            slowest: None,
            removed: Vec::new(),
        });
    }

    /// All members have joined, `slowest` as the last, at that time.
    pub fn joined(
        &mut self,
        now: Timestamp,
        generation: i32,
        slowest: Option<(Participant, Timestamp)>,
        removed: Vec<Participant>,
    ) {
        if let Some(last) = self.running() {
            let since = |time: Timestamp| (time.0 - last.started.0).max(0);
            last.slowest = slowest.map(|(member, at)| (member, since(at)));
            last.join_ms = Some(since(now));
            last.generation = Some(generation);
            last.removed = removed;
        }
    }

    /// The assignment is committed, or the group is empty.
    pub fn finished(&mut self, now: Timestamp) {
        if let Some(last) = self.running() {
            last.total_ms = Some((now.0 - last.started.0).max(0));
        }
    }

    fn running(&mut self) -> Option<&mut Rebalance> {
        self.rebalances.back_mut().filter(|last| last.total_ms.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_reasons_are_cut() {
        let mut history = History::default();
        for n in 0..20 {
            let reason = "ř".repeat(200);
            history.begin(Timestamp(n), Cause::MemberLeft(Some(reason)), None);
        }
        assert_eq!((history.rebalances().len(), history.total()), (REBALANCES_MAX, 20));
        let first = history.rebalances().next().unwrap();
        assert_eq!(first.started, Timestamp(4));
        assert_eq!(first.cause, Cause::MemberLeft(Some("ř".repeat(127))));

        let slowest = (Participant::default(), Timestamp(24));
        history.joined(Timestamp(25), 7, Some(slowest), Vec::new());
        history.finished(Timestamp(30));
        history.finished(Timestamp(90));
        let last = history.rebalances().last().unwrap();
        assert_eq!((last.join_ms, last.total_ms, last.generation), (Some(6), Some(11), Some(7)));
        assert_eq!(last.slowest.as_ref().unwrap().1, 5);
    }
}
