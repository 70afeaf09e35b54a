//! A record on its way through a topology: what an operator's closure is handed.

use vltava_protocol::ids::{Offset, PartitionIndex, Timestamp, TopicName};
use vltava_protocol::record::record::Headers;

use crate::format::{Format, Malformed};

/// The partition that a task reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Its topic.
    pub topic: TopicName,
    /// Its number.
    pub partition: PartitionIndex,
}

/// The bytes of a record and where they come from, without formats.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// The partition of the input record that this one is, or was made of.
    pub source: &'a Source,
    /// The offset of that input record.
    pub offset: Offset,
    /// Its time; what is made of it has the same.
    pub timestamp: Timestamp,
    /// Absent, or bytes.
    pub key: Option<&'a [u8]>,
    /// Absent, or bytes.
    pub value: Option<&'a [u8]>,
    /// As the producer wrote them.
    pub headers: Headers<'a>,
}

impl<'a> RawRecord<'a> {
    /// The record that was made of this one, with another key and value.
    pub(crate) fn with<'short>(
        self,
        key: Option<&'short [u8]>,
        value: Option<&'short [u8]>,
    ) -> RawRecord<'short>
    where
        'a: 'short,
    {
        RawRecord { key, value, ..self }
    }
}

/// A record with a key of format `K` and a value of format `V`, borrowed: from the log, or from
/// what the operator before has just written.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a, K: Format, V: Format> {
    /// The key.
    pub key: K::View<'a>,
    /// The value.
    pub value: V::View<'a>,
    raw: RawRecord<'a>,
}

impl<'a, K: Format, V: Format> Record<'a, K, V> {
    /// Looks at a record through two formats.
    pub(crate) fn new(key: K, value: V, raw: RawRecord<'a>) -> Result<Self, Malformed> {
        Ok(Self { key: key.view(raw.key)?, value: value.view(raw.value)?, raw })
    }

    /// The record with another key, whose bytes are `bytes`.
    pub(crate) fn with_key<K2: Format>(
        self,
        key: K2::View<'a>,
        bytes: Option<&'a [u8]>,
    ) -> Record<'a, K2, V> {
        Record { key, value: self.value, raw: RawRecord { key: bytes, ..self.raw } }
    }

    /// The record with another value, whose bytes are `bytes`.
    pub(crate) fn with_value<V2: Format>(
        self,
        value: V2::View<'a>,
        bytes: Option<&'a [u8]>,
    ) -> Record<'a, K, V2> {
        Record { key: self.key, value, raw: RawRecord { value: bytes, ..self.raw } }
    }

    /// The same record with a shorter life, so that it can stand beside what was made of it.
    pub(crate) fn shorten<'short>(self) -> Record<'short, K, V>
    where
        'a: 'short,
    {
        let (key, value) = (K::shorten(self.key), V::shorten(self.value));
        Record { key, value, raw: self.raw }
    }

    /// The bytes behind it.
    pub fn raw(&self) -> RawRecord<'a> {
        self.raw
    }

    /// The time of the input record.
    pub fn timestamp(&self) -> Timestamp {
        self.raw.timestamp
    }

    /// The offset of the input record.
    pub fn offset(&self) -> Offset {
        self.raw.offset
    }

    /// The topic and partition of the input record.
    pub fn source(&self) -> &'a Source {
        self.raw.source
    }

    /// The headers of the input record.
    pub fn headers(&self) -> Headers<'a> {
        self.raw.headers
    }
}
