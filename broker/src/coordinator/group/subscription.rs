//! The topics of a `ConsumerProtocolSubscription`.
//!
//! What a member says for a protocol is the clients' own affair, with two exceptions: offsets of
//! topics that a stable group still reads do not expire, and cannot be deleted. So the first fields
//! of the clients' format are read, which every version begins with (`ConsumerProtocol.java`).

use std::collections::BTreeSet;

use vltava_protocol::ids::TopicName;

use super::wire::{DecodeError, Reader};

/// The protocol type whose metadata is a `ConsumerProtocolSubscription`.
pub const CONSUMER: &str = "consumer";

/// Adds the topics of one member's metadata.
pub fn read_topics(metadata: &[u8], topics: &mut BTreeSet<TopicName>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(metadata);
    if reader.i16()? < 0 {
        return Err(DecodeError);
    }
    for _ in 0..reader.array_length()? {
        let topic = reader.text()?;
        if !topics.contains(topic) {
            topics.insert(TopicName::new(topic));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_any_version_and_rubbish_is_none() {
        let mut topics = BTreeSet::new();
        let metadata = b"\0\x03\0\0\0\x02\0\x01b\0\x01a\xff\xff\xff\xff rest of version 3";
        read_topics(metadata, &mut topics).unwrap();
        read_topics(b"\0\0\0\0\0\x01\0\x01a\xff\xff\xff\xff", &mut topics).unwrap();
        assert_eq!(topics.iter().map(TopicName::as_str).collect::<String>(), "ab");
        for bad in [
            &b""[..],
            b"\0",
            b"\xff\xff\0\0\0\0",
            b"\0\0\x7f\xff\xff\xff",
            b"\0\0\xff\xff\xff\xff",
            b"\0\0\0\0\0\x01\0\x05ab",
            b"\0\0\0\0\0\x01\0\x01\xff",
        ] {
            assert!(read_topics(bad, &mut topics).is_err(), "{bad:?}");
        }
    }
}
