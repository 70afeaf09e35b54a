//! The first bytes of a segment file, which say what the file is.
//!
//! ```text
//!  0  magic "VSEG"      4  format version u16   6  zero u16
//!  8  replica u64      16  segment u64         24  generation u32   28  epoch_before i32
//! 32  base_index u64   40  base_offset i64     48  zero [u8; 12]    60  crc32 of bytes 0..60
//! ```
//!
//! All big-endian. A segment's header is repeated in the write-ahead file set, so that recovery can
//! create the file again.

use bytes::{Buf, BufMut};
use vltava_protocol::ids::{LeaderEpoch, Offset};

use crate::ids::{FileId, Generation, LogIndex, ReplicaId, SegmentId};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};

const MAGIC: u32 = u32::from_be_bytes(*b"VSEG");
const VERSION: u16 = 1;
const CRC_POSITION: usize = 60;

const _: () = assert!(CRC_POSITION + 4 == SEGMENT_HEADER_BYTES as usize);

/// Why bytes are not the header of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// They do not begin as a segment does, or are too few.
    #[error("not a segment")]
    NotASegment,
    /// They do not fit their checksum.
    #[error("the segment's header is damaged")]
    Damaged,
    /// A newer program wrote them.
    #[error("segment format {0} is newer than this program")]
    Newer(u16),
}

impl SegmentHeader {
    /// The bytes at the start of the file.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let mut to = &mut bytes[..];
        to.put_u32(MAGIC);
        to.put_u16(VERSION);
        to.put_u16(0);
        to.put_u64(self.id.replica.0);
        to.put_u64(self.id.segment.0);
        to.put_u32(self.generation.0);
        to.put_i32(self.epoch_before.0);
        to.put_u64(self.base_index.0);
        to.put_i64(self.base_offset.0);
        let crc = crc32fast::hash(&bytes[..CRC_POSITION]);
        bytes[CRC_POSITION..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads what [`SegmentHeader::encode`] wrote; further bytes are not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES as usize).ok_or(HeaderError::NotASegment)?;
        let (mut from, mut crc) = bytes.split_at(CRC_POSITION);
        if from.get_u32() != MAGIC {
            return Err(HeaderError::NotASegment);
        }
        if crc.get_u32() != crc32fast::hash(&bytes[..CRC_POSITION]) {
            return Err(HeaderError::Damaged);
        }
        let version = from.get_u16();
        if version > VERSION {
            return Err(HeaderError::Newer(version));
        }
        from.advance(2);
        let replica = ReplicaId(from.get_u64());
        let segment = SegmentId(from.get_u64());
        let generation = Generation(from.get_u32());
        let epoch_before = LeaderEpoch(from.get_i32());
        let base_index = LogIndex(from.get_u64());
        let base_offset = Offset(from.get_i64());
        let id = FileId { replica, segment };
        Ok(Self { id, generation, base_index, base_offset, epoch_before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            id: FileId { replica: ReplicaId(3), segment: SegmentId(u64::MAX) },
            generation: Generation(7),
            base_index: LogIndex(1 << 40),
            base_offset: Offset(i64::MAX - 1),
            epoch_before: LeaderEpoch(-1),
        }
    }

    #[test]
    fn reads_back() {
        assert_eq!(SegmentHeader::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        for bit in 0..64 * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&[0; 64]), Err(HeaderError::NotASegment));
        assert_eq!(SegmentHeader::decode(&header().encode()[..63]), Err(HeaderError::NotASegment));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let mut bytes = header().encode();
        bytes[5] = 2;
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Newer(2)));
    }
}
