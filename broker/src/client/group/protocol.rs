//! What consumers of a group tell each other through the coordinator, which does not read it: their
//! subscriptions and assignments (Kafka's `ConsumerProtocol`, KIP-429 for the newer versions).
//!
//! ```text
//! subscription: version i16 | topics [string] | user data bytes | …
//! assignment:   version i16 | [topic string, partitions [i32]] | user data bytes | …
//! ```
//!
//! Later versions only add fields at the end, so what is wanted here is read alike in all of them.
//! Reading is by hand: these are bytes of other members, which a broker passes on unread, and the
//! wire crate would reserve memory for as many elements as they claim.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use vltava_protocol::ids::PartitionIndex;
use vltava_protocol::messages::consumer_protocol_assignment::TopicPartition;
use vltava_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, Encodable,
};

use crate::client::text;

/// The protocol type of groups of consumers.
pub const CONSUMER: &str = "consumer";
/// The version written: a member that gives up everything before it joins again has no more to say.
const WRITTEN_VERSION: i16 = 0;

/// Partitions by topic, both in order.
pub type Partitions = BTreeMap<String, Vec<PartitionIndex>>;

/// A member's subscription.
pub fn subscription(topics: &[String]) -> Bytes {
    let topics = topics.iter().map(|topic| text(topic)).collect();
    let subscription = ConsumerProtocolSubscription::default().with_topics(topics);
    versioned(&subscription)
}

/// The topics of a member's subscription; none if it is not a consumer's.
pub fn subscribed_topics(metadata: &Bytes) -> Option<Vec<String>> {
    let mut bytes = body(metadata)?;
    let mut topics = Vec::new();
    for _ in 0..bytes.try_get_i32().ok()? {
        topics.push(string(&mut bytes)?);
    }
    Some(topics)
}

/// A member's share.
pub fn assignment(partitions: &Partitions) -> Bytes {
    let of_topic = |(topic, partitions): (&String, &Vec<PartitionIndex>)| {
        TopicPartition::default()
            .with_topic(text(topic).into())
            .with_partitions(partitions.iter().map(|partition| partition.0).collect())
    };
    let assigned = partitions.iter().map(of_topic).collect();
    versioned(&ConsumerProtocolAssignment::default().with_assigned_partitions(assigned))
}

/// The partitions of a member's share. An empty one is no bytes at all; none if it is not a
/// consumer's.
pub fn assigned_partitions(assignment: &Bytes) -> Option<Partitions> {
    if assignment.is_empty() {
        return Some(Partitions::new());
    }
    let mut bytes = body(assignment)?;
    let mut assigned = Partitions::new();
    for _ in 0..bytes.try_get_i32().ok()? {
        let partitions = assigned.entry(string(&mut bytes)?).or_default();
        for _ in 0..bytes.try_get_i32().ok()? {
            partitions.push(PartitionIndex(bytes.try_get_i32().ok()?));
        }
        partitions.sort_unstable();
    }
    Some(assigned)
}

fn versioned(message: &impl Encodable) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(WRITTEN_VERSION);
    message.encode(&mut bytes, WRITTEN_VERSION).expect("the oldest version has all that is set");
    bytes.freeze()
}

/// What follows the version; none if that is not one.
fn body(bytes: &Bytes) -> Option<Bytes> {
    let mut bytes = bytes.clone();
    let version = bytes.try_get_i16().ok()?;
    (version >= 0).then_some(bytes)
}

fn string(bytes: &mut Bytes) -> Option<String> {
    let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
    let text = (length <= bytes.len()).then(|| bytes.split_to(length))?;
    std::str::from_utf8(&text).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let topics = ["b".to_owned(), "a".to_owned()];
        assert_eq!(subscribed_topics(&subscription(&topics)).unwrap(), topics);
        let share = Partitions::from([
            ("a".to_owned(), vec![PartitionIndex(0), PartitionIndex(2)]),
            ("b".to_owned(), vec![]),
        ]);
        assert_eq!(assigned_partitions(&assignment(&share)).unwrap(), share);
    }

    #[test]
    fn newer_versions_are_read() {
        // Version 9: one topic `t`, no user data, no owned partitions, generation 5, no rack.
        let newer: &[u8] = &[
            0, 9, 0, 0, 0, 1, 0, 1, b't', 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 5, 255, 255, 7,
        ];
        assert_eq!(subscribed_topics(&Bytes::from_static(newer)).unwrap(), ["t"]);
    }

    #[test]
    fn foreign_bytes_are_nobodys() {
        for bytes in [&b""[..], b"\x00", b"\xff\xff", b"\x00\x00\x7f\xff\xff\xff"] {
            assert_eq!(subscribed_topics(&Bytes::from_static(bytes)), None, "{bytes:?}");
        }
        assert_eq!(assigned_partitions(&Bytes::new()), Some(Partitions::new()));
        assert_eq!(assigned_partitions(&Bytes::from_static(b"\x00\x00\x00")), None);
    }
}
