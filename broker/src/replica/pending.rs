//! Producers that wait for the commit of what they appended.

use std::collections::VecDeque;

use vltava_protocol::ids::LeaderEpoch;
use vltava_storage::ids::LogIndex;

/// Waiters by the index that they wait for, oldest first. `T` is what is handed back: a channel in
/// the broker, a number in the simulator.
#[derive(Debug)]
pub struct Pending<T> {
    waiters: VecDeque<Waiter<T>>,
}

#[derive(Debug)]
struct Waiter<T> {
    index: LogIndex,
    epoch: LeaderEpoch,
    token: T,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { waiters: VecDeque::new() }
    }
}

impl<T> Pending<T> {
    /// `token` waits until the entry that `epoch` proposed at `index` is committed. A retry may join
    /// an original of an older epoch, and an older index than the newest one's.
    pub fn push(&mut self, index: LogIndex, epoch: LeaderEpoch, token: T) {
        let at = self.waiters.partition_point(|waiter| waiter.index <= index);
        self.waiters.insert(at, Waiter { index, epoch, token });
    }

    /// Takes those whose entry is committed: `true` where it is the very entry that was waited for,
    /// `false` where another leader's took its place.
    pub fn committed(
        &mut self,
        committed: LogIndex,
        epoch_at: impl Fn(LogIndex) -> Option<LeaderEpoch>,
    ) -> impl Iterator<Item = (T, bool)> {
        let count = self.waiters.partition_point(|waiter| waiter.index <= committed);
        self.waiters.drain(..count).map(move |waiter| {
            let is_ours = epoch_at(waiter.index) == Some(waiter.epoch);
            (waiter.token, is_ours)
        })
    }

    /// Takes all: the leadership is lost, and nobody here will learn what becomes of the entries.
    pub fn lost(&mut self) -> impl Iterator<Item = T> {
        self.waiters.drain(..).map(|waiter| waiter.token)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_entry_is_no_acknowledgement() {
        let mut pending = Pending::default();
        pending.push(LogIndex(5), LeaderEpoch(2), "a");
        pending.push(LogIndex(6), LeaderEpoch(2), "b");
        pending.push(LogIndex(5), LeaderEpoch(2), "retry of a");
        pending.push(LogIndex(7), LeaderEpoch(2), "c");
        let epoch_at = |index| Some(LeaderEpoch(if index >= LogIndex(6) { 3 } else { 2 }));
        let done: Vec<_> = pending.committed(LogIndex(6), epoch_at).collect();
        assert_eq!(done, [("a", true), ("retry of a", true), ("b", false)]);
        assert_eq!(pending.lost().collect::<Vec<_>>(), ["c"]);
        assert!(pending.is_empty());
    }
}
