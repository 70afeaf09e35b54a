//! The types a configuration value can have, and how their text is read.
//!
//! Texts are read as Kafka's `ConfigDef.parseType` reads them: surrounding blanks are dropped,
//! booleans ignore case, lists are split at commas.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vltava_protocol::record::batch::TimestampType;
use vltava_protocol::record::compression::Codec;
use vltava_storage::log::Durability;

/// The type of a key, as DescribeConfigs names it (`DescribeConfigsResponse.ConfigType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean,
    /// Free text, or one of a set of words.
    String,
    /// A signed 32-bit number.
    Int,
    /// A signed 16-bit number.
    Short,
    /// A signed 64-bit number.
    Long,
    /// A floating-point number.
    Double,
    /// Words separated by commas.
    List,
}

impl ConfigType {
    /// The code on the wire.
    pub fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }

    /// The name in messages, as Kafka writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
        }
    }
}

/// A Rust type that a key's text is read into.
pub trait ConfigValue: Sized {
    /// The key's type.
    const KIND: ConfigType;

    /// Reads a normalized text; `None` is a key without a value. Returns nothing if the text does
    /// not fit the type.
    fn read(text: Option<&str>) -> Option<Self>;
}

macro_rules! numbers {
    ($($type:ty => $kind:ident),+) => {$(
        impl ConfigValue for $type {
            const KIND: ConfigType = ConfigType::$kind;

            fn read(text: Option<&str>) -> Option<Self> {
                text?.parse().ok()
            }
        }
    )+};
}
numbers!(i16 => Short, i32 => Int, i64 => Long, f64 => Double, bool => Boolean);

impl ConfigValue for String {
    const KIND: ConfigType = ConfigType::String;

    fn read(text: Option<&str>) -> Option<Self> {
        text.map(str::to_owned)
    }
}

impl ConfigValue for Vec<String> {
    const KIND: ConfigType = ConfigType::List;

    fn read(text: Option<&str>) -> Option<Self> {
        Some(words(text?).map(str::to_owned).collect())
    }
}

/// A key that may have no value at all.
impl<T: ConfigValue> ConfigValue for Option<T> {
    const KIND: ConfigType = T::KIND;

    fn read(text: Option<&str>) -> Option<Self> {
        match text {
            None => Some(None),
            some => T::read(some).map(Some),
        }
    }
}

/// The words of a list.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// `max.connections.per.ip.overrides`: the most connections of some addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConnectionsPerIp(BTreeMap<IpAddr, usize>);

impl ConnectionsPerIp {
    /// The limit of an address that has one of its own.
    pub fn of(&self, ip: IpAddr) -> Option<usize> {
        self.0.get(&ip).copied()
    }
}

impl ConfigValue for ConnectionsPerIp {
    const KIND: ConfigType = ConfigType::String;

    fn read(text: Option<&str>) -> Option<Self> {
        let pair = |word: &str| {
            let (address, count) = word.rsplit_once(':')?;
            let address = address.trim_start_matches('[').trim_end_matches(']');
            Some((address.trim().parse().ok()?, count.trim().parse().ok()?))
        };
        words(text?).map(pair).collect::<Option<_>>().map(Self)
    }
}

/// `cleanup.policy`. With neither, records are kept for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CleanupPolicy {
    /// Old segments are deleted by time and size.
    pub delete: bool,
    /// Only the last record of each key is kept.
    pub compact: bool,
}

impl ConfigValue for CleanupPolicy {
    const KIND: ConfigType = ConfigType::List;

    fn read(text: Option<&str>) -> Option<Self> {
        let mut policy = Self::default();
        for word in words(text?) {
            match word {
                "delete" => policy.delete = true,
                "compact" => policy.compact = true,
                _ => return None,
            }
        }
        Some(policy)
    }
}

/// `compression.type`: how batches are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompressionType {
    /// As the producer sent them.
    Producer,
    /// With this codec; [`Codec::None`] is `uncompressed`.
    Fixed(Codec),
}

impl ConfigValue for CompressionType {
    const KIND: ConfigType = ConfigType::String;

    fn read(text: Option<&str>) -> Option<Self> {
        Some(match text? {
            "producer" => Self::Producer,
            "uncompressed" => Self::Fixed(Codec::None),
            "gzip" => Self::Fixed(Codec::Gzip),
            "snappy" => Self::Fixed(Codec::Snappy),
            "lz4" => Self::Fixed(Codec::Lz4),
            "zstd" => Self::Fixed(Codec::Zstd),
            _ => return None,
        })
    }
}

impl ConfigValue for TimestampType {
    const KIND: ConfigType = ConfigType::String;

    fn read(text: Option<&str>) -> Option<Self> {
        match text? {
            "CreateTime" => Some(Self::CreateTime),
            "LogAppendTime" => Some(Self::LogAppendTime),
            _ => None,
        }
    }
}

impl ConfigValue for Durability {
    const KIND: ConfigType = ConfigType::String;

    fn read(text: Option<&str>) -> Option<Self> {
        match text? {
            "fsync" => Some(Self::Fsync),
            "page-cache" => Some(Self::PageCache),
            _ => None,
        }
    }
}
