//! One record, and the walk over the records of an uncompressed payload.
//!
//! ```text
//! length varint | attributes i8 | timestamp_delta varlong | offset_delta varint
//! | key_length varint, key | value_length varint, value
//! | header_count varint { key_length varint, key | value_length varint, value }
//! ```
//! Keys and values are borrowed from the payload and nothing is allocated. A record is handed out
//! only when its length is exactly that of its parts, headers included, so what follows it is found
//! and its headers can be read without a second check.

use super::varint::read_varint;
use super::varint::read_varlong;

/// Least bytes of a record: length, attributes, two deltas, two lengths and a header count.
pub const RECORD_BYTES_MIN: usize = 7;

/// Why a payload is not the records it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A record, or a part of it, ends after the payload, or a number runs on for ever.
    #[error("record is cut off")]
    Truncated,
    /// A record's length is not that of its parts.
    #[error("record has {0} bytes more than its parts")]
    Length(usize),
    /// A header without key, or a negative number of headers.
    #[error("record has malformed headers")]
    Headers,
    /// Fewer than no records.
    #[error("batch declares {0} records")]
    Count(i32),
    /// Bytes behind the last record.
    #[error("{0} bytes follow the last record")]
    Trailing(usize),
}

/// A header of a record. Keys need not be unique, nor UTF-8: the producer's bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Never absent, may be empty.
    pub key: &'a [u8],
    /// Absent, or bytes.
    pub value: Option<&'a [u8]>,
}

/// The headers of a record in their order, duplicates kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    rest: &'a [u8],
    count: u32,
}

/// One record, borrowed from its batch's payload.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Unused by Kafka so far, 0.
    pub attributes: i8,
    /// To the batch's base timestamp: see `BatchHeader::timestamp_of`.
    pub timestamp_delta: i64,
    /// To the batch's base offset.
    pub offset_delta: i32,
    /// Absent, or bytes.
    pub key: Option<&'a [u8]>,
    /// Absent (a tombstone, in a compacted topic), or bytes.
    pub value: Option<&'a [u8]>,
    /// Read lazily.
    pub headers: Headers<'a>,
}

/// Iterator over the records of an uncompressed payload; ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    /// Records still to come.
    left: i32,
}

impl<'a> Records<'a> {
    /// Walks `payload`, which must hold exactly `record_count` records.
    pub fn new(payload: &'a [u8], record_count: i32) -> Self {
        Self { rest: payload, left: record_count }
    }

    fn fail(&mut self, error: RecordError) -> Result<Record<'a>, RecordError> {
        (self.rest, self.left) = (&[], 0);
        Err(error)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.left {
            ..0 => Some(self.fail(RecordError::Count(self.left))),
            0 if self.rest.is_empty() => None,
            0 => Some(self.fail(RecordError::Trailing(self.rest.len()))),
            _ => match parse_record(&mut self.rest) {
                Ok(record) => {
                    self.left -= 1;
                    Some(Ok(record))
                }
                Err(error) => Some(self.fail(error)),
            },
        }
    }
}

fn parse_record<'a>(rest: &mut &'a [u8]) -> Result<Record<'a>, RecordError> {
    let length = read_varint(rest).ok_or(RecordError::Truncated)?;
    let length = usize::try_from(length).map_err(|_| RecordError::Truncated)?;
    let (body, after) = rest.split_at_checked(length).ok_or(RecordError::Truncated)?;
    let mut body = body;
    let record = parse_body(&mut body).ok_or(RecordError::Truncated)?;
    check_headers(body, record.headers.count)?;
    *rest = after;
    Ok(record)
}

fn parse_body<'a>(body: &mut &'a [u8]) -> Option<Record<'a>> {
    let (&attributes, after) = body.split_first()?;
    *body = after;
    let timestamp_delta = read_varlong(body)?;
    let offset_delta = read_varint(body)?;
    let key = read_nullable(body)?;
    let value = read_nullable(body)?;
    let count = read_varint(body)?;
    // A negative count becomes one that no record can hold: `check_headers` refuses it.
    let headers = Headers { rest: body, count: u32::try_from(count).unwrap_or(u32::MAX) };
    let attributes = attributes as i8;
    Some(Record { attributes, timestamp_delta, offset_delta, key, value, headers })
}

fn check_headers(mut rest: &[u8], count: u32) -> Result<(), RecordError> {
    // A header has two bytes at least, so an absurd count costs nothing.
    if count as usize > rest.len() / 2 {
        return Err(RecordError::Headers);
    }
    for _ in 0..count {
        read_header(&mut rest).ok_or(RecordError::Headers)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(RecordError::Length(rest.len())) }
}

/// Bytes with a length before them; any negative length means absent, as in Kafka.
#[inline]
#[allow(clippy::option_option)] // outer: the input ended; inner: the wire's null.
fn read_nullable<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = read_varint(rest)?;
    match usize::try_from(length) {
        Ok(length) => {
            let (bytes, after) = rest.split_at_checked(length)?;
            *rest = after;
            Some(Some(bytes))
        }
        Err(_) => Some(None),
    }
}

fn read_header<'a>(rest: &mut &'a [u8]) -> Option<Header<'a>> {
    let key = read_nullable(rest)??;
    let value = read_nullable(rest)?;
    Some(Header { key, value })
}

impl<'a> Headers<'a> {
    /// How many there are.
    pub fn len(self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Reads them one after the other.
    pub fn iter(self) -> HeadersIter<'a> {
        HeadersIter { headers: self }
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = Header<'a>;
    type IntoIter = HeadersIter<'a>;

    fn into_iter(self) -> HeadersIter<'a> {
        self.iter()
    }
}

/// See [`Headers::iter`].
#[derive(Clone, Debug)]
pub struct HeadersIter<'a> {
    headers: Headers<'a>,
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.headers.count = self.headers.count.checked_sub(1)?;
        read_header(&mut self.headers.rest)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.headers.len(), Some(self.headers.len()))
    }
}

impl ExactSizeIterator for HeadersIter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    // length 12: attributes 0, timestamp delta 2, offset delta 1, key "k", value null,
    // headers: "h" = "v", "h" = null
    const RECORD: &[u8] = &[28, 0, 4, 2, 2, b'k', 1, 4, 2, b'h', 2, b'v', 2, b'h', 1];

    fn walk(payload: &[u8], count: i32) -> Result<Vec<i32>, RecordError> {
        Records::new(payload, count).map(|record| record.map(|r| r.offset_delta)).collect()
    }

    #[test]
    fn borrows_every_part() {
        let record = Records::new(RECORD, 1).next().unwrap().unwrap();
        assert_eq!((record.timestamp_delta, record.offset_delta), (2, 1));
        assert_eq!((record.key, record.value), (Some(&b"k"[..]), None));
        assert_eq!(record.headers.len(), 2);
        let headers: Vec<_> = record.headers.iter().map(|h| (h.key, h.value)).collect();
        assert_eq!(headers, [(&b"h"[..], Some(&b"v"[..])), (b"h", None)]);
    }

    #[test]
    fn a_payload_is_exactly_its_records() {
        let two = [RECORD, RECORD].concat();
        assert_eq!(walk(&two, 2), Ok(vec![1, 1]));
        assert_eq!(walk(&[], 0), Ok(vec![]));
        for (payload, count, expected) in [
            (&two[..], 1, RecordError::Trailing(RECORD.len())),
            (&two, 3, RecordError::Truncated),
            (&two, -1, RecordError::Count(-1)),
            (&two[..20], 2, RecordError::Truncated),
            (&[0], 1, RecordError::Truncated),
            (&[1], 1, RecordError::Truncated),
            (&[14, 0, 0, 0, 1, 1, 0, 0], 1, RecordError::Length(1)),
            (&[12, 0, 0, 0, 1, 1, 2], 1, RecordError::Headers),
            (&[12, 0, 0, 0, 1, 1, 1], 1, RecordError::Headers),
            (&[16, 0, 0, 0, 1, 1, 2, 1, 1], 1, RecordError::Headers),
        ] {
            assert_eq!(walk(payload, count), Err(expected), "{payload:?} of {count}");
        }
    }

    #[test]
    fn ends_after_an_error() {
        let mut records = Records::new(RECORD, -5);
        assert!(records.next().unwrap().is_err());
        assert!(records.next().is_none());
    }
}
