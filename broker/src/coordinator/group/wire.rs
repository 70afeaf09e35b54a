//! Reading and writing the primitive types of Kafka's record values.

use bytes::{BufMut, BytesMut};
use vltava_protocol::record::varint::{put_unsigned, read_unsigned};

use super::ids::TEXT_BYTES_MAX;

/// Bytes that are no record of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed record of a group")]
pub struct DecodeError;

/// Takes primitives off a slice.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Whether lengths are compact and structs end with tagged fields.
    pub(super) flexible: bool,
}

impl<'a> Reader<'a> {
    /// Reads with fixed lengths, until [`flexible`](Self::flexible) is set.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, flexible: false }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(DecodeError)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError)
    }

    /// A 16-bit number.
    pub(super) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    /// A 32-bit number.
    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A 64-bit number.
    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A version from 0 to `max`.
    pub(super) fn version(&mut self, max: i16) -> Result<i16, DecodeError> {
        let version = self.i16()?;
        if (0..=max).contains(&version) { Ok(version) } else { Err(DecodeError) }
    }

    fn unsigned(&mut self) -> Result<u32, DecodeError> {
        read_unsigned(&mut self.rest).ok_or(DecodeError)
    }

    /// A length: compact ones are one greater, 0 for null.
    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok((self.unsigned()? as usize).checked_sub(1))
    }

    /// A text that may be null.
    pub(super) fn nullable_text(&mut self) -> Result<Option<&'a str>, DecodeError> {
        let length =
            if self.flexible { self.compact_length()? } else { usize::try_from(self.i16()?).ok() };
        let Some(length) = length else {
            return Ok(None);
        };
        if length > TEXT_BYTES_MAX {
            return Err(DecodeError);
        }
        std::str::from_utf8(self.take(length)?).map(Some).map_err(|_| DecodeError)
    }

    /// A text.
    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        self.nullable_text()?.ok_or(DecodeError)
    }

    /// Bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length =
            if self.flexible { self.compact_length()? } else { usize::try_from(self.i32()?).ok() };
        self.take(length.ok_or(DecodeError)?)
    }

    /// How many elements follow. Each takes at least one byte, so the count is no more than what
    /// is left.
    pub(super) fn array_length(&mut self) -> Result<usize, DecodeError> {
        let length =
            if self.flexible { self.compact_length()? } else { usize::try_from(self.i32()?).ok() };
        length.filter(|length| *length <= self.rest.len()).ok_or(DecodeError)
    }

    /// The tagged fields at the end of a flexible struct; nothing where it is not flexible.
    pub(super) fn tags(
        &mut self,
        mut field: impl FnMut(u32, &'a [u8]) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned()? {
            let tag = self.unsigned()?;
            let bytes = self.unsigned()? as usize;
            field(tag, self.take(bytes)?)?;
        }
        Ok(())
    }
}

/// Writes a text with its length before it, 16 bits.
pub(super) fn put_text(to: &mut BytesMut, text: &str) {
    assert!(text.len() <= TEXT_BYTES_MAX, "texts are measured at the door");
    to.put_i16(text.len() as i16);
    to.put_slice(text.as_bytes());
}

/// Writes a text or null.
pub(super) fn put_nullable_text(to: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_text(to, text),
        None => to.put_i16(-1),
    }
}

/// Writes a text with a compact length.
pub(super) fn put_compact_text(to: &mut BytesMut, text: &str) {
    assert!(text.len() <= TEXT_BYTES_MAX, "texts are measured at the door");
    put_unsigned(to, text.len() as u32 + 1);
    to.put_slice(text.as_bytes());
}

/// Writes bytes with their length before them, 32 bits.
pub(super) fn put_bytes(to: &mut BytesMut, bytes: &[u8]) {
    to.put_i32(bytes.len() as i32);
    to.put_slice(bytes);
}
