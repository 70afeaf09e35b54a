//! A map in two parts: what the log has committed, and what its leader has appended since.
//!
//! The coordinator of a partition decides on what it has appended already, or two requests in a
//! row would not see each other; but it shows only what is committed, since an append may be lost
//! with the leadership. Values are the latest per key, so that applying a record is an insertion or
//! a removal, and forgetting the appended part is forgetting a small map.
//!
//! Invariant: `pending` holds exactly the changes of `appends`, oldest first for each key.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, RangeBounds};

/// The number of an append of one shard, from 1; never used twice, not even in a later leadership,
/// so that what is told late of an earlier one does no harm. Commits follow that order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The number of the append after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The latest value of each key, committed and appended. Values are cheap to clone.
#[derive(Debug)]
pub struct Overlay<K, V> {
    committed: BTreeMap<K, V>,
    /// Changes of each key that are appended and not committed: `None` removes.
    pending: BTreeMap<K, VecDeque<Option<V>>>,
    /// The changed keys in the order of their appends.
    appends: VecDeque<(Seq, K)>,
}

impl<K, V> Default for Overlay<K, V> {
    fn default() -> Self {
        Self { committed: BTreeMap::new(), pending: BTreeMap::new(), appends: VecDeque::new() }
    }
}

impl<K: Ord + Clone, V: Clone> Overlay<K, V> {
    /// The committed value of a key.
    pub fn get_committed(&self, key: &K) -> Option<&V> {
        self.committed.get(key)
    }

    /// The value of a key once everything appended is committed.
    pub fn get(&self, key: &K) -> Option<&V> {
        match self.pending.get(key).and_then(VecDeque::back) {
            Some(change) => change.as_ref(),
            None => self.committed.get(key),
        }
    }

    /// The last append that is not committed.
    pub fn last_pending(&self) -> Option<Seq> {
        self.appends.back().map(|(seq, _)| *seq)
    }

    /// The keys that are changed and not committed.
    pub fn pending_keys(&self) -> impl Iterator<Item = &K> {
        self.pending.keys()
    }

    /// The committed entries, by key.
    pub fn iter_committed(&self) -> impl Iterator<Item = (&K, &V)> {
        self.committed.iter()
    }

    /// The committed entries from `from` on, by key.
    pub fn range_committed<'a>(
        &'a self,
        from: &K,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        self.committed.range((Bound::Included(from), Bound::Unbounded))
    }

    /// The entries from `from` on, by key, as they are once everything appended is committed.
    pub fn range<'a>(&'a self, from: &K) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        let bounds = (Bound::Included(from), Bound::Unbounded);
        Merged::new(&self.committed, &self.pending, bounds)
    }

    /// How many keys have a committed value.
    pub fn committed_len(&self) -> usize {
        self.committed.len()
    }

    /// A change that was just appended under `seq`; `None` removes the key.
    ///
    /// # Panics
    /// When `seq` is smaller than an earlier one's.
    pub fn append(&mut self, key: K, change: Option<V>, seq: Seq) {
        assert!(self.appends.back().is_none_or(|(last, _)| *last <= seq), "appends are in order");
        self.pending.entry(key.clone()).or_default().push_back(change);
        self.appends.push_back((seq, key));
    }

    /// Everything appended up to `seq` is committed.
    pub fn commit(&mut self, seq: Seq) {
        while self.appends.front().is_some_and(|(first, _)| *first <= seq) {
            let (_, key) = self.appends.pop_front().expect("just looked at");
            let changes = self.pending.get_mut(&key).expect("an append has its change");
            let change = changes.pop_front().expect("an append has its change");
            if changes.is_empty() {
                self.pending.remove(&key);
            }
            self.apply_committed(key, change);
        }
    }

    /// The log did not take the appends from `seq` on: they never were. Answers their keys, the
    /// last one first.
    pub fn refuse(&mut self, seq: Seq) -> Vec<K> {
        let mut keys = Vec::new();
        while self.appends.back().is_some_and(|(last, _)| *last >= seq) {
            let (_, key) = self.appends.pop_back().expect("just looked at");
            let changes = self.pending.get_mut(&key).expect("an append has its change");
            changes.pop_back().expect("an append has its change");
            if changes.is_empty() {
                self.pending.remove(&key);
            }
            keys.push(key);
        }
        keys
    }

    /// A change that is committed already: while loading, and on followers.
    pub fn apply_committed(&mut self, key: K, change: Option<V>) {
        match change {
            Some(value) => self.committed.insert(key, value),
            None => self.committed.remove(&key),
        };
    }

    /// Forgets what was appended and not committed: the leadership is lost.
    pub fn forget_pending(&mut self) {
        self.pending.clear();
        self.appends.clear();
    }
}

/// Walks both parts by key; where both have one, the appended part wins.
struct Merged<C: Iterator, P: Iterator> {
    committed: std::iter::Peekable<C>,
    pending: std::iter::Peekable<P>,
}

impl<'a, K: Ord, V> Merged<Entries<'a, K, V>, Entries<'a, K, VecDeque<Option<V>>>> {
    fn new(
        committed: &'a BTreeMap<K, V>,
        pending: &'a BTreeMap<K, VecDeque<Option<V>>>,
        bounds: impl RangeBounds<K> + Clone,
    ) -> Self {
        Self {
            committed: committed.range(bounds.clone()).peekable(),
            pending: pending.range(bounds).peekable(),
        }
    }
}

type Entries<'a, K, V> = std::collections::btree_map::Range<'a, K, V>;

impl<'a, K: Ord, V> Iterator for Merged<Entries<'a, K, V>, Entries<'a, K, VecDeque<Option<V>>>> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((key, _)) = self.pending.peek() else {
                return self.committed.next();
            };
            if self.committed.peek().is_some_and(|(committed, _)| committed < key) {
                return self.committed.next();
            }
            if self.committed.peek().is_some_and(|(committed, _)| committed == key) {
                self.committed.next();
            }
            let (key, changes) = self.pending.next().expect("just looked at");
            if let Some(value) = changes.back().expect("a pending key has a change") {
                return Some((key, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written<'a>(entries: impl Iterator<Item = (&'a i32, &'a char)>) -> String {
        entries.flat_map(|(key, value)| [key.to_string(), value.to_string()]).collect()
    }

    fn view(overlay: &Overlay<i32, char>, from: i32) -> String {
        written(overlay.range(&from))
    }

    fn committed(overlay: &Overlay<i32, char>) -> String {
        written(overlay.iter_committed())
    }

    #[test]
    fn both_views_follow_appends_commits_and_refusals() {
        let mut overlay = Overlay::default();
        for key in [1, 3, 5] {
            overlay.apply_committed(key, Some('a'));
        }
        overlay.append(3, None, Seq(1));
        overlay.append(2, Some('b'), Seq(1));
        overlay.append(3, Some('c'), Seq(2));
        overlay.append(5, None, Seq(3));
        overlay.append(6, Some('d'), Seq(3));
        assert_eq!(
            (committed(&overlay).as_str(), view(&overlay, 0).as_str()),
            ("1a3a5a", "1a2b3c6d")
        );
        assert_eq!(view(&overlay, 3), "3c6d");
        assert_eq!((overlay.get(&5), overlay.get_committed(&5)), (None, Some(&'a')));

        assert_eq!(overlay.refuse(Seq(3)), [6, 5]);
        assert_eq!(view(&overlay, 0), "1a2b3c5a");
        overlay.commit(Seq(1));
        assert_eq!(
            (committed(&overlay).as_str(), view(&overlay, 0).as_str()),
            ("1a2b5a", "1a2b3c5a")
        );
        assert_eq!(overlay.last_pending(), Some(Seq(2)));
        overlay.forget_pending();
        assert_eq!(view(&overlay, 0), "1a2b5a");
        overlay.append(1, None, Seq(1));
        overlay.commit(Seq(7));
        assert_eq!(committed(&overlay), "2b5a");
        assert_eq!(overlay.range_committed(&3).count(), 1);
        assert_eq!(overlay.committed_len(), 2);
    }
}
