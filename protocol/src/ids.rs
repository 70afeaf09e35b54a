//! One newtype per quantity of the protocol, so that an offset never meets an epoch by accident.
//!
//! All but the topic types are `Copy` wrappers of the wire integer, reached as `.0`. The value the
//! wire uses for "absent" is named `NONE`. Nothing here allocates except [`TopicName`].

use std::borrow::Borrow;
use std::fmt;
use std::ops::{Add, Deref, Sub};
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl From<$name> for $inner {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

quantity! {
    /// Position of a record in its partition; counts records, starts at 0.
    Offset(i64)
}
quantity! {
    /// Term of a partition's leader; stamped on every batch, outside its checksum.
    LeaderEpoch(i32)
}
quantity! {
    /// Identity of an idempotent or transactional producer.
    ProducerId(i64)
}
quantity! {
    /// Incarnation of a producer id; a higher one fences the lower ones.
    ProducerEpoch(i16)
}
quantity! {
    /// A producer's running number of a record in one partition; wraps from `i32::MAX` to 0.
    Sequence(i32)
}
quantity! {
    /// Milliseconds since the Unix epoch.
    Timestamp(i64)
}
quantity! {
    /// A broker's id in the cluster.
    NodeId(i32)
}
quantity! {
    /// Number of a partition within its topic, from 0.
    PartitionIndex(i32)
}

impl Offset {
    /// The first offset of a new partition.
    pub const ZERO: Self = Self(0);
    /// The wire's "no offset".
    pub const NONE: Self = Self(-1);

    /// `self + records`, or `None` where that leaves the range of an `i64`.
    pub fn checked_add(self, records: i64) -> Option<Self> {
        self.0.checked_add(records).map(Self)
    }

    /// Records from `earlier` to `self`, or `None` where that leaves the range of an `i64`.
    pub fn checked_sub(self, earlier: Self) -> Option<i64> {
        self.0.checked_sub(earlier.0)
    }

    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        self + 1
    }
}

/// For offsets of our own log, whose range is checked at the door.
///
/// # Panics
/// When the sum leaves the range of an `i64`, which no log reaches; wire values go through
/// [`Offset::checked_add`].
impl Add<i64> for Offset {
    type Output = Self;

    fn add(self, records: i64) -> Self {
        self.checked_add(records).expect("offsets of a log stay below i64::MAX")
    }
}

/// Records between two offsets of our own log.
///
/// # Panics
/// When the difference leaves the range of an `i64`, see [`Offset::checked_sub`].
impl Sub for Offset {
    type Output = i64;

    fn sub(self, earlier: Self) -> i64 {
        self.checked_sub(earlier).expect("offsets of a log are not negative")
    }
}

impl LeaderEpoch {
    /// The wire's "no epoch".
    pub const NONE: Self = Self(-1);
}

impl ProducerId {
    /// The id of a batch without idempotence.
    pub const NONE: Self = Self(-1);
}

impl ProducerEpoch {
    /// The epoch of a batch without idempotence.
    pub const NONE: Self = Self(-1);
}

impl Sequence {
    /// The sequence of a batch without idempotence, and of control batches.
    pub const NONE: Self = Self(-1);

    /// The sequence `records` further on, wrapping from `i32::MAX` to 0
    /// (`DefaultRecordBatch.incrementSequence`). `records` is not negative.
    #[must_use]
    pub fn plus(self, records: i32) -> Self {
        // 2^31 sequences exist, so the wrapped sum is the wrapping sum without its sign bit.
        Self(self.0.wrapping_add(records) & i32::MAX)
    }
}

impl Timestamp {
    /// The wire's "no timestamp".
    pub const NONE: Self = Self(-1);
}

/// Identity of a topic for its lifetime: a name deleted and created again gets a new one (KIP-516).
///
/// Displayed as Kafka does: base64url without padding, 22 characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Uuid);

impl TopicId {
    /// The wire's "no topic id".
    pub const ZERO: Self = Self(Uuid::nil());
}

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const TOPIC_ID_CHARS: usize = 22;

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits are 21 digits of 6 bits and one of 2, which stands in its upper bits.
        let bits = self.0.as_u128();
        let mut text = [0u8; TOPIC_ID_CHARS];
        for (place, digit) in text.iter_mut().enumerate() {
            let shift = 122 - 6 * i32::try_from(place).expect("22 places");
            let value = if shift >= 0 { bits >> shift } else { bits << -shift };
            *digit = BASE64URL[(value & 63) as usize];
        }
        f.pad(std::str::from_utf8(&text).expect("base64url is ASCII"))
    }
}

/// A text that is no topic id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a topic id is 22 base64url characters, not {0:?}")]
pub struct InvalidTopicId(String);

impl FromStr for TopicId {
    type Err = InvalidTopicId;

    /// Also takes the padded form (24 characters), as Kafka's `Uuid.fromString` does.
    fn from_str(text: &str) -> Result<Self, InvalidTopicId> {
        let invalid = || InvalidTopicId(text.chars().take(2 * TOPIC_ID_CHARS).collect());
        let digits = text.strip_suffix("==").unwrap_or(text).as_bytes();
        if digits.len() != TOPIC_ID_CHARS {
            return Err(invalid());
        }
        let mut bits = 0u128;
        for (place, &digit) in digits.iter().enumerate() {
            let value = BASE64URL.iter().position(|&c| c == digit).ok_or_else(invalid)? as u128;
            bits = match place {
                21 if value & 15 != 0 => return Err(invalid()),
                21 => bits << 2 | value >> 4,
                _ => bits << 6 | value,
            };
        }
        Ok(Self(Uuid::from_u128(bits)))
    }
}

/// A topic's name: cheap to clone, equal and hashed as its text.
///
/// Holding one does not prove that the name is legal: that is [`TopicName::validate`]'s to say,
/// at the door of the requests that create topics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Longest legal topic name, in bytes: a file name less room for `-<partition>` (`Topic.java`).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Why a topic name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicName {
    /// No characters at all.
    #[error("topic name is empty")]
    Empty,
    /// `.` or `..`, which would name a directory.
    #[error("topic name cannot be \".\" or \"..\"")]
    Dots,
    /// Longer than [`TOPIC_NAME_BYTES_MAX`].
    #[error("topic name of {0} characters is longer than {TOPIC_NAME_BYTES_MAX}")]
    TooLong(usize),
    /// A character that is not an ASCII letter or digit, `.`, `_` or `-`.
    #[error("topic name contains {0:?}; legal are ASCII letters, digits, '.', '_' and '-'")]
    Character(char),
}

impl TopicName {
    /// A name of the given text, copied.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks Kafka's rules for the name of a new topic (`Topic.validate`).
    pub fn validate(name: &str) -> Result<(), InvalidTopicName> {
        if name.is_empty() {
            return Err(InvalidTopicName::Empty);
        }
        if name == "." || name == ".." {
            return Err(InvalidTopicName::Dots);
        }
        if name.len() > TOPIC_NAME_BYTES_MAX {
            return Err(InvalidTopicName::TooLong(name.chars().count()));
        }
        let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match name.chars().find(|c| !legal(c)) {
            Some(character) => Err(InvalidTopicName::Character(character)),
            None => Ok(()),
        }
    }

    /// Whether two names become one in metrics, where `.` is written `_` (`Topic.hasCollision`).
    /// A name collides with itself.
    pub fn collides(a: &str, b: &str) -> bool {
        let folded = |c: u8| if c == b'.' { b'_' } else { c };
        a.len() == b.len() && a.bytes().map(folded).eq(b.bytes().map(folded))
    }
}

impl Deref for TopicName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TopicName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for TopicName {
    fn from(name: String) -> Self {
        Self(Arc::from(name))
    }
}

impl PartialEq<str> for TopicName {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for TopicName {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: TopicName,
    /// The partition within the topic.
    pub partition: PartitionIndex,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<TopicName>, partition: PartitionIndex) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    /// `<topic>-<partition>`, Kafka's form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        for (from, records, expected) in [
            (0, 1, 1),
            (i32::MAX, 1, 0),
            (i32::MAX - 2, 5, 2),
            (i32::MAX, i32::MAX, i32::MAX - 1),
            (-1, 1, 0),
        ] {
            assert_eq!(Sequence(from).plus(records), Sequence(expected), "{from} + {records}");
        }
    }

    #[test]
    fn offsets_count_records() {
        assert_eq!(Offset(5) + 3, Offset(8));
        assert_eq!(Offset(8) - Offset(5), 3);
        assert_eq!(Offset(i64::MAX).checked_add(1), None);
        assert_eq!(Offset(i64::MIN).checked_sub(Offset(1)), None);
        assert_eq!(Offset(7).next(), Offset(8));
    }

    #[test]
    fn topic_ids_read_and_write_like_kafka() {
        // Pairs printed by org.apache.kafka.common.Uuid.
        for (bits, text) in [
            (0, "AAAAAAAAAAAAAAAAAAAAAA"),
            (1, "AAAAAAAAAAAAAAAAAAAAAQ"),
            (u128::MAX, "_____________________w"),
            (0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, "ASNFZ4mrze_-3LqYdlQyEA"),
        ] {
            let id = TopicId(Uuid::from_u128(bits));
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(format!("{text}==").parse(), Ok(id));
        }
        for bad in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAR", "AAAAAAAAAAAAAAAAAAAA+A", "ä"] {
            assert!(bad.parse::<TopicId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn topic_names_follow_kafkas_rules() {
        let longest = "a".repeat(TOPIC_NAME_BYTES_MAX);
        for good in ["a", "a.b_c-D9", "...", longest.as_str()] {
            assert_eq!(TopicName::validate(good), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("", InvalidTopicName::Empty),
            (".", InvalidTopicName::Dots),
            ("..", InvalidTopicName::Dots),
            ("a b", InvalidTopicName::Character(' ')),
            ("řeka", InvalidTopicName::Character('ř')),
            (&"a".repeat(250), InvalidTopicName::TooLong(250)),
        ] {
            assert_eq!(TopicName::validate(bad), Err(error), "{bad}");
        }
        assert!(TopicName::collides("a.b_c", "a_b.c"));
        assert!(!TopicName::collides("a.b", "a-b"));
        assert!(!TopicName::collides("a.b", "a.b."));
    }
}
