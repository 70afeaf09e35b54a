//! The deadlines of a shard, in order.

use std::collections::{BTreeMap, BTreeSet};

use vltava_protocol::ids::Timestamp;

use super::ids::{GroupId, MemberId};

/// What a deadline is for. Each has at most one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A member, or one that was given an id and has not joined, is silent for too long.
    Session(GroupId, MemberId),
    /// The join phase of a rebalance ends.
    Join(GroupId),
    /// The sync phase of a rebalance ends.
    Sync(GroupId),
    /// Expired offsets are looked for.
    Expiry,
}

/// Deadlines by time and by purpose.
///
/// A session's deadline moves with every heartbeat, so it is kept by the member, and the entry here
/// may be earlier ([`no_later_than`](Self::no_later_than)): whoever handles it looks at the
/// member and sets it again.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Timestamp, Timer)>,
    times: BTreeMap<Timer, Timestamp>,
}

impl Timers {
    /// Sets a deadline in the place of any earlier one for the same purpose.
    pub(super) fn set(&mut self, timer: Timer, time: Timestamp) {
        if let Some(old) = self.times.insert(timer.clone(), time) {
            self.by_time.remove(&(old, timer.clone()));
        }
        self.by_time.insert((time, timer));
    }

    /// Sees to it that there is a deadline at `time` or before.
    pub(super) fn no_later_than(&mut self, timer: Timer, time: Timestamp) {
        if self.times.get(&timer).is_none_or(|old| *old > time) {
            self.set(timer, time);
        }
    }

    /// Takes a deadline away.
    pub(super) fn cancel(&mut self, timer: &Timer) {
        if let Some(time) = self.times.remove(timer) {
            self.by_time.remove(&(time, timer.clone()));
        }
    }

    /// The first deadline.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(time, _)| *time)
    }

    /// Takes the first deadline if it has come.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.times.remove(&timer);
        Some(timer)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_has_one_deadline() {
        let mut timers = Timers::default();
        let join = Timer::Join("g".into());
        timers.set(join.clone(), Timestamp(10));
        timers.set(Timer::Expiry, Timestamp(5));
        timers.no_later_than(join.clone(), Timestamp(20));
        assert_eq!(timers.next(), Some(Timestamp(5)));
        timers.set(Timer::Expiry, Timestamp(30));
        timers.no_later_than(Timer::Expiry, Timestamp(25));
        assert_eq!(timers.take_due(Timestamp(9)), None);
        assert_eq!(timers.take_due(Timestamp(99)), Some(join.clone()));
        assert_eq!(timers.next(), Some(Timestamp(25)));
        timers.cancel(&join);
        timers.cancel(&Timer::Expiry);
        assert_eq!((timers.next(), timers.take_due(Timestamp(99))), (None, None));
    }
}
