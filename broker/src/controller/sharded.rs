//! A map whose copies share what they have in common.
//!
//! Keys are spread over shards that are copied only when they are written while a copy of the map
//! still holds them, so that publishing an image after one change to 10,000 topics copies one shard
//! of about forty. Iteration goes shard by shard: its order depends on nothing but the keys.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many shards a map has: about the square root of the number of keys it is made for.
const SHARDS: usize = 256;

/// The bytes of a key that choose its shard; the same for a key and its borrowed form.
pub(super) trait ShardBytes {
    /// Any bytes of the key that vary.
    fn shard_bytes(&self) -> &[u8];
}

impl ShardBytes for str {
    fn shard_bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl ShardBytes for vltava_protocol::ids::TopicName {
    fn shard_bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl ShardBytes for vltava_protocol::ids::TopicId {
    fn shard_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A persistent map. Cloning it costs one reference count a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShardedMap<K, V> {
    shards: Vec<Arc<BTreeMap<K, V>>>,
    len: usize,
}

impl<K: Ord, V> Default for ShardedMap<K, V> {
    fn default() -> Self {
        // All empty shards are one until they are written.
        let empty = Arc::new(BTreeMap::new());
        Self { shards: std::iter::repeat_n(empty, SHARDS).collect(), len: 0 }
    }
}

impl<K: Ord + Clone + ShardBytes, V: Clone> ShardedMap<K, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + ShardBytes + ?Sized,
    {
        self.shards[shard(key)].get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        let shard = &mut self.shards[shard(&key)];
        if Arc::make_mut(shard).insert(key, value).is_none() {
            self.len += 1;
        }
    }

    pub(super) fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Ord + ShardBytes + ?Sized,
    {
        let shard = &mut self.shards[shard(key)];
        if shard.contains_key(key) {
            Arc::make_mut(shard).remove(key);
            self.len -= 1;
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| shard.values())
    }
}

/// FNV-1a: short, and the same in every process, which the standard hasher does not promise.
fn shard(key: &(impl ShardBytes + ?Sized)) -> usize {
    let hash = key.shard_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash % SHARDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use vltava_protocol::ids::TopicName;

    use super::*;

    #[test]
    fn copies_share_all_shards_but_the_written_one() {
        let mut map = ShardedMap::default();
        for n in 0..1000 {
            map.insert(TopicName::from(format!("topic-{n}")), n);
        }
        let before = map.clone();
        map.insert(TopicName::from("topic-7"), -7);
        map.remove("topic-8");
        assert_eq!((before.len(), map.len()), (1000, 999));
        assert_eq!((before.get("topic-7"), map.get("topic-7")), (Some(&7), Some(&-7)));
        assert_eq!((before.get("topic-8"), map.get("topic-8")), (Some(&8), None));
        let shared = before.shards.iter().zip(&map.shards).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert!(shared.count() >= SHARDS - 2);
    }

    #[test]
    fn removing_what_is_not_there_changes_nothing() {
        let mut map: ShardedMap<TopicName, i32> = ShardedMap::default();
        map.remove("a");
        map.insert("a".into(), 1);
        map.insert("a".into(), 2);
        assert_eq!(map.len(), 1);
        assert_eq!(map.values().collect::<Vec<_>>(), [&2]);
    }
}
