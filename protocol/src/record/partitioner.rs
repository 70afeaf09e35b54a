//! Which partition a key belongs to: Kafka's default, so that keys meet those of Java producers
//! (`BuiltInPartitioner.partitionForKey`, `Utils.murmur2`).

use crate::ids::PartitionIndex;

/// The 32-bit Murmur2 of a key, with the seed and the signs of Kafka's.
pub fn murmur2(bytes: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let word = u32::from_le_bytes(word.try_into().expect("chunks of four"));
        let mixed = word.wrapping_mul(M);
        let mixed = (mixed ^ (mixed >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ mixed;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (place, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)).cast_signed()
}

/// The partition of a key in a topic of so many partitions.
///
/// # Panics
/// If there are no partitions.
pub fn partition_of_key(key: &[u8], partitions: i32) -> PartitionIndex {
    assert!(partitions > 0, "a topic has partitions");
    PartitionIndex((murmur2(key) & i32::MAX) % partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_java_sends_them() {
        // From Kafka's UtilsTest.testMurmur2.
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(murmur2(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(murmur2(b"abc"), 479_470_107);
        assert_eq!(partition_of_key(b"21", 7), PartitionIndex((murmur2(b"21") & i32::MAX) % 7));
    }
}
