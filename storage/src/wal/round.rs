//! The frame of the write-ahead file set: one round of the flusher, all of it or nothing.
//!
//! ```text
//!  0  magic "VWAL"     4  format version u16   6  zero u16
//!  8  payload bytes u32                       12  crc32 of the header without it, and the payload
//! 16  sequence u64    24  number u64          32  oldest u64         40  salt u64
//! 48  payload: records, then zeros up to the next multiple of 512
//! ```
//!
//! A round is stale unless `sequence` is that of the file it stands in and `number` follows the
//! round before: a recycled file is full of old rounds with right checksums. `oldest` is the first
//! file of the set that still counts. `salt` is one random number per set, so that nobody who
//! writes records to a log can make up a round: their bytes lie in the set as they came.

use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes};

use super::record::{Record, RecordError};

const MAGIC: u32 = u32::from_be_bytes(*b"VWAL");
const VERSION: u16 = 1;

/// Bytes before the payload.
const ROUND_HEADER_BYTES: usize = 48;

/// Rounds begin at multiples of this: a sector of a later round never holds a part of an earlier
/// one, which a torn write could take away.
pub(super) const ROUND_ALIGNMENT: u64 = 512;

const CRC: std::ops::Range<usize> = 12..16;

/// Writes shorter than this are copied beside their record rather than given to the kernel as a
/// part of their own.
const SPLICE_BYTES_MIN: usize = 1024;

/// Everything a round says beside its records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundHeader {
    /// The number of the file it belongs to.
    pub sequence: u64,
    /// Its own number; rises by one over the whole set.
    pub number: u64,
    /// The first file of the set that recovery still needs.
    pub oldest: u64,
    /// The set it belongs to.
    pub salt: u64,
}

/// A round that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RoundFrame {
    pub(super) header: RoundHeader,
    payload: Bytes,
    /// Where it begins in its file.
    pub(super) position: u64,
    /// Where the next one begins.
    pub(super) end: u64,
}

/// Why there is no round at a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RoundError {
    /// Nothing that looks like a round.
    #[error("no round begins here")]
    Nothing,
    /// It begins like a round, but does not fit its checksum.
    #[error("the round is torn or damaged")]
    Torn,
    /// A newer program wrote it.
    #[error("write-ahead format {0} is newer than this program")]
    Newer(u16),
}

impl RoundFrame {
    /// Reads the round at `position` of a whole file.
    pub(super) fn read(file: &Bytes, position: u64) -> Result<Self, RoundError> {
        let from = file.get(position as usize..).ok_or(RoundError::Nothing)?;
        let header = from.get(..ROUND_HEADER_BYTES).ok_or(RoundError::Nothing)?;
        let mut fields = header;
        if fields.get_u32() != MAGIC {
            return Err(RoundError::Nothing);
        }
        let version = fields.get_u16();
        fields.advance(2);
        let length = fields.get_u32() as usize;
        let crc = fields.get_u32();
        let payload =
            from.get(ROUND_HEADER_BYTES..ROUND_HEADER_BYTES + length).ok_or(RoundError::Torn)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&header[..CRC.start]);
        hasher.update(&header[CRC.end..]);
        hasher.update(payload);
        if hasher.finalize() != crc {
            return Err(RoundError::Torn);
        }
        if version > VERSION {
            return Err(RoundError::Newer(version));
        }
        let header = RoundHeader {
            sequence: fields.get_u64(),
            number: fields.get_u64(),
            oldest: fields.get_u64(),
            salt: fields.get_u64(),
        };
        let payload = file.slice_ref(payload);
        let end = position + (ROUND_HEADER_BYTES + length) as u64;
        Ok(Self { header, payload, position, end: end.next_multiple_of(ROUND_ALIGNMENT) })
    }

    /// Whether this round is the next one in the same file.
    pub(super) fn follows(&self, before: &RoundHeader) -> bool {
        self.header
            == RoundHeader { number: before.number + 1, oldest: self.header.oldest, ..*before }
    }

    /// The records, in order.
    pub(super) fn records(&self) -> Result<Vec<Record>, RecordError> {
        let mut payload = self.payload.clone();
        let mut records = Vec::new();
        while !payload.is_empty() {
            records.push(Record::decode(&mut payload)?);
        }
        Ok(records)
    }
}

/// The payload of a round to be written. The bytes of large writes are not copied.
#[derive(Debug, Default)]
pub(crate) struct RoundBuilder {
    own: Vec<u8>,
    /// Bytes that stand before the given position of `own`.
    spliced: Vec<(usize, Bytes)>,
    spliced_bytes: u64,
    records: u64,
}

impl RoundBuilder {
    /// A payload of any bytes.
    #[cfg(test)]
    pub(super) fn raw(own: Vec<u8>) -> Self {
        Self { own, ..Self::default() }
    }

    pub(crate) fn push(&mut self, record: &Record) {
        self.records += 1;
        let Some(bytes) = record.encode(&mut self.own) else { return };
        if bytes.len() < SPLICE_BYTES_MIN {
            self.own.extend_from_slice(bytes);
        } else {
            self.spliced.push((self.own.len(), bytes.clone()));
            self.spliced_bytes += bytes.len() as u64;
        }
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    fn payload_bytes(&self) -> u64 {
        self.own.len() as u64 + self.spliced_bytes
    }

    /// Bytes in the file, with header and padding.
    pub(crate) fn framed_bytes(&self) -> u64 {
        (ROUND_HEADER_BYTES as u64 + self.payload_bytes()).next_multiple_of(ROUND_ALIGNMENT)
    }

    /// Gives the round, header first, in parts to `write`.
    pub(super) fn write<T>(
        &self,
        header: &RoundHeader,
        write: impl FnOnce(&[IoSlice<'_>]) -> T,
    ) -> T {
        static ZEROS: [u8; ROUND_ALIGNMENT as usize] = [0; ROUND_ALIGNMENT as usize];
        let length = u32::try_from(self.payload_bytes()).expect("a round is below 4 GiB");
        let mut head = Vec::with_capacity(ROUND_HEADER_BYTES);
        head.put_u32(MAGIC);
        head.put_u16(VERSION);
        head.put_u16(0);
        head.put_u32(length);
        head.put_u32(0);
        head.put_u64(header.sequence);
        head.put_u64(header.number);
        head.put_u64(header.oldest);
        head.put_u64(header.salt);
        let mut payload = Vec::with_capacity(self.spliced.len() * 2 + 1);
        let mut from = 0;
        for (until, bytes) in &self.spliced {
            payload.push(&self.own[from..*until]);
            payload.push(bytes);
            from = *until;
        }
        payload.push(&self.own[from..]);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&head[..CRC.start]);
        hasher.update(&head[CRC.end..]);
        for part in &payload {
            hasher.update(part);
        }
        head[CRC].copy_from_slice(&hasher.finalize().to_be_bytes());
        let padding =
            self.framed_bytes() as usize - ROUND_HEADER_BYTES - self.payload_bytes() as usize;
        let parts: Vec<IoSlice<'_>> = std::iter::once(&head[..])
            .chain(payload)
            .chain(std::iter::once(&ZEROS[..padding]))
            .map(IoSlice::new)
            .collect();
        write(&parts)
    }
}

/// What stands at one place of a file of the set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dumped {
    /// A round with a right checksum. Whether it is a stale one its header tells.
    Round {
        /// Where it begins.
        position: u64,
        /// What it says of itself.
        header: RoundHeader,
        /// Its records.
        records: Result<Vec<Record>, RecordError>,
    },
    /// No round, from here to the next one or to the end of the file; never only zeros to its end.
    Gap {
        /// Where it begins.
        position: u64,
        /// Where it ends.
        end: u64,
        /// What is wrong at its beginning.
        error: RoundError,
    },
}

/// Walks over all that a file of the set holds, old rounds and damage included.
pub fn dump(file: &Bytes) -> impl Iterator<Item = Dumped> + use<> {
    let file = file.clone();
    let mut position = 0;
    std::iter::from_fn(move || {
        if position >= file.len() as u64 {
            return None;
        }
        let start = position;
        let error = match RoundFrame::read(&file, position) {
            Ok(round) => {
                position = round.end;
                let records = round.records();
                return Some(Dumped::Round { position: start, header: round.header, records });
            }
            Err(error) => error,
        };
        let next = find_round(&file, position + ROUND_ALIGNMENT, |_| true);
        position = next.map_or(file.len() as u64, |round| round.position);
        let empty = file[start as usize..position as usize].iter().all(|&byte| byte == 0);
        if empty && position == file.len() as u64 {
            return None;
        }
        Some(Dumped::Gap { position: start, end: position, error })
    })
}

/// The first round from `position` on that has a right checksum and is `wanted`.
pub(super) fn find_round(
    file: &Bytes,
    position: u64,
    wanted: impl Fn(&RoundFrame) -> bool,
) -> Option<RoundFrame> {
    (position.next_multiple_of(ROUND_ALIGNMENT)..file.len() as u64)
        .step_by(ROUND_ALIGNMENT as usize)
        .find_map(|position| RoundFrame::read(file, position).ok().filter(&wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{FileId, ReplicaId};

    const HEADER: RoundHeader = RoundHeader { sequence: 3, number: 70, oldest: 2, salt: 9 };

    fn build(records: &[Record], header: &RoundHeader) -> Vec<u8> {
        let mut builder = RoundBuilder::default();
        for record in records {
            builder.push(record);
        }
        let bytes = builder.write(header, |parts| {
            parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>()
        });
        assert_eq!(bytes.len() as u64, builder.framed_bytes());
        bytes
    }

    fn write(length: usize) -> Record {
        let bytes = Bytes::from(vec![7; length]);
        Record::Write { file: FileId::default(), position: 64, bytes }
    }

    #[test]
    fn reads_back_with_and_without_splices() {
        let records =
            [write(10), write(5000), Record::Forget { replica: ReplicaId(1) }, write(1024)];
        let mut file = build(&records, &HEADER);
        let next = RoundHeader { number: 71, ..HEADER };
        file.extend(build(&[], &next));
        let file = Bytes::from(file);
        let first = RoundFrame::read(&file, 0).unwrap();
        assert_eq!(first.records().unwrap(), records);
        let second = RoundFrame::read(&file, first.end).unwrap();
        assert!(second.follows(&first.header) && !first.follows(&second.header));
        assert_eq!(second.end, file.len() as u64);
        assert_eq!(RoundFrame::read(&file, second.end), Err(RoundError::Nothing));
    }

    #[test]
    fn every_flipped_bit_of_header_and_payload_is_seen() {
        let good = build(&[write(100)], &HEADER);
        let covered = ROUND_HEADER_BYTES + 29 + 100;
        for bit in 0..covered * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(RoundFrame::read(&bytes.into(), 0).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let mut bytes = build(&[], &HEADER);
        bytes[5] = 2;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..12]);
        hasher.update(&bytes[16..48]);
        bytes[CRC].copy_from_slice(&hasher.finalize().to_be_bytes());
        assert_eq!(RoundFrame::read(&bytes.into(), 0), Err(RoundError::Newer(2)));
    }

    #[test]
    fn dumps_rounds_and_what_is_wrong() {
        let mut file = build(&[write(600)], &HEADER);
        let torn = file.len();
        file.extend(build(&[write(600)], &RoundHeader { number: 71, ..HEADER }));
        file[torn + 600] ^= 1;
        let stale = file.len() as u64;
        file.extend(build(&[], &RoundHeader { sequence: 1, number: 5, oldest: 1, salt: 9 }));
        file.extend([0; 2048]);
        let dumped: Vec<Dumped> = dump(&file.into()).collect();
        assert_eq!(dumped.len(), 3);
        let Dumped::Round { position: 0, records: Ok(records), .. } = &dumped[0] else {
            panic!("{:?}", dumped[0]);
        };
        assert_eq!(records[..], [write(600)]);
        let gap = Dumped::Gap { position: torn as u64, end: stale, error: RoundError::Torn };
        assert_eq!(dumped[1], gap);
        assert!(matches!(dumped[2], Dumped::Round { header, .. } if header.sequence == 1));
    }
}
