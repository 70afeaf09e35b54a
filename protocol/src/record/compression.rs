//! The codecs of a batch's payload, bounded: what a hostile payload inflates to stops at a limit.
//!
//! Both directions append to the caller's buffer. gzip is RFC 1952, also of several members;
//! snappy is Java's framing (`SnappyInputStream`: a 16-byte header, then blocks with their length),
//! and read raw too, as some clients send it; lz4 is the frame format with 64 KiB independent
//! blocks, as Kafka writes it, of which one frame is read; zstd is one or more frames.

use std::io::{self, Read, Write};

/// A codec, by the id in the attributes of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// As it is.
    #[default]
    None,
    /// Levels 1-9, default 6.
    Gzip,
    /// No levels.
    Snappy,
    /// Levels are accepted and have no effect: only the fast mode is built in.
    Lz4,
    /// Levels -131072 to 22, default 3.
    Zstd,
}

impl Codec {
    /// Every codec, in the order of the ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of a wire id, 0 to 4.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// The wire id.
    pub fn id(self) -> u8 {
        self as u8
    }

    /// Kafka's name in the configs and `kafka-dump-log`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Why a payload cannot be inflated, or not be compressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// It would become longer than the caller's limit; what the buffer holds is a part.
    #[error("payload inflates to more than {0} bytes")]
    TooLarge(usize),
    /// Snappy data that is cut off or declares a length that it cannot have.
    #[error("malformed snappy data")]
    Snappy(#[source] Option<snap::Error>),
    /// The codec's own complaint.
    #[error("malformed {} data", .0.name())]
    Codec(Codec, #[source] io::Error),
}

/// First bytes of Java's snappy framing, before two version words.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes a block holds before compression (`SnappyOutputStream`).
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Snappy's densest element makes 64 bytes of 3; a longer claim is a lie and not worth zeroing for.
const SNAPPY_RATIO_MAX: usize = 22;

/// Appends to `out` what `payload` inflates to, at most `limit` bytes.
pub fn decompress(
    codec: Codec,
    payload: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let failed = |error| CompressionError::Codec(codec, error);
    match codec {
        Codec::None if payload.len() > limit => Err(CompressionError::TooLarge(limit)),
        Codec::None => {
            out.extend_from_slice(payload);
            Ok(())
        }
        Codec::Gzip => {
            read_bounded(codec, flate2::bufread::MultiGzDecoder::new(payload), limit, out)
        }
        Codec::Snappy => decompress_snappy(payload, limit, out),
        Codec::Lz4 => read_bounded(codec, lz4_flex::frame::FrameDecoder::new(payload), limit, out),
        Codec::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(payload).map_err(failed)?;
            read_bounded(codec, decoder, limit, out)
        }
    }
}

fn read_bounded(
    codec: Codec,
    reader: impl Read,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    // One byte more than allowed tells "exactly the limit" from "too large".
    let inflated = reader
        .take(limit as u64 + 1)
        .read_to_end(out)
        .map_err(|error| CompressionError::Codec(codec, error))?;
    if inflated > limit { Err(CompressionError::TooLarge(limit)) } else { Ok(()) }
}

fn decompress_snappy(
    payload: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    if !payload.starts_with(XERIAL_MAGIC) {
        return decompress_snappy_block(payload, limit, out).map(drop);
    }
    let cut = || CompressionError::Snappy(None);
    let mut rest = payload.get(XERIAL_HEADER.len()..).ok_or_else(cut)?;
    let mut room = limit;
    while !rest.is_empty() {
        // A stream may be the concatenation of several, each with its header.
        if rest.starts_with(XERIAL_MAGIC) {
            rest = rest.get(XERIAL_HEADER.len()..).ok_or_else(cut)?;
            continue;
        }
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, after) = after.split_at_checked(length).ok_or_else(cut)?;
        room -= decompress_snappy_block(block, room, out).map_err(|error| match error {
            CompressionError::TooLarge(_) => CompressionError::TooLarge(limit),
            error => error,
        })?;
        rest = after;
    }
    Ok(())
}

/// Returns the bytes appended, at most `limit`.
fn decompress_snappy_block(
    block: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<usize, CompressionError> {
    let failed = |error| CompressionError::Snappy(Some(error));
    let declared = snap::raw::decompress_len(block).map_err(failed)?;
    if declared > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(CompressionError::Snappy(None));
    }
    if declared > limit {
        return Err(CompressionError::TooLarge(limit));
    }
    let start = out.len();
    out.resize(start + declared, 0);
    let inflated =
        snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(failed)?;
    out.truncate(start + inflated);
    Ok(inflated)
}

/// Appends the compressed `payload` to `out`. A level out of the codec's range is the nearest one.
pub fn compress(
    codec: Codec,
    level: Option<i32>,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let failed = |error| CompressionError::Codec(codec, error);
    match codec {
        Codec::None => {
            out.extend_from_slice(payload);
            Ok(())
        }
        Codec::Gzip => {
            let level = match level {
                Some(level) => flate2::Compression::new(level.clamp(1, 9) as u32),
                None => flate2::Compression::default(),
            };
            let mut encoder = flate2::write::GzEncoder::new(out, level);
            encoder.write_all(payload).and_then(|()| encoder.finish()).map(drop).map_err(failed)
        }
        Codec::Snappy => compress_snappy(payload, out),
        Codec::Lz4 => {
            use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
            let frame =
                FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(frame, out);
            encoder.write_all(payload).map_err(failed)?;
            encoder.finish().map(drop).map_err(|error| failed(error.into()))
        }
        Codec::Zstd => {
            let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            let mut encoder = zstd::stream::write::Encoder::new(out, level).map_err(failed)?;
            // The length in the frame lets readers allocate once.
            encoder.set_pledged_src_size(Some(payload.len() as u64)).map_err(failed)?;
            encoder.write_all(payload).and_then(|()| encoder.finish()).map(drop).map_err(failed)
        }
    }
}

fn compress_snappy(payload: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    out.extend_from_slice(XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for block in payload.chunks(XERIAL_BLOCK_BYTES) {
        let length_at = out.len();
        let block_at = length_at + 4;
        out.resize(block_at + snap::raw::max_compress_len(block.len()), 0);
        let length = encoder
            .compress(block, &mut out[block_at..])
            .map_err(|error| CompressionError::Snappy(Some(error)))?;
        out.truncate(block_at + length);
        out[length_at..block_at].copy_from_slice(&(length as u32).to_be_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(bytes: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut step = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"the river "[(state >> 24) as usize % 10]
        };
        (0..bytes).map(|_| step()).collect()
    }

    fn compressed(codec: Codec, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress(codec, None, payload, &mut out).unwrap();
        out
    }

    fn inflated(codec: Codec, payload: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
        let mut out = Vec::new();
        decompress(codec, payload, limit, &mut out).map(|()| out)
    }

    #[test]
    fn inflates_what_it_compressed_up_to_the_limit() {
        for codec in Codec::ALL {
            for bytes in [0, 1, 100, XERIAL_BLOCK_BYTES, 200_000] {
                let payload = sample(bytes);
                let packed = compressed(codec, &payload);
                assert_eq!(inflated(codec, &packed, bytes).unwrap(), payload, "{codec:?} {bytes}");
                if bytes > 0 {
                    let short = inflated(codec, &packed, bytes - 1);
                    assert!(
                        matches!(short, Err(CompressionError::TooLarge(n)) if n == bytes - 1),
                        "{codec:?} {bytes}: {short:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn appends_and_takes_levels() {
        let payload = sample(10_000);
        for codec in Codec::ALL {
            for level in [i32::MIN, 1, 9, i32::MAX] {
                if codec == Codec::Zstd && level == i32::MAX {
                    continue; // correct, but slow and hungry
                }
                let mut packed = b"head".to_vec();
                compress(codec, Some(level), &payload, &mut packed).unwrap();
                let mut out = b"kept".to_vec();
                decompress(codec, &packed[4..], payload.len(), &mut out).unwrap();
                assert_eq!(&packed[..4], b"head");
                assert_eq!(&out[..4], b"kept");
                assert_eq!(&out[4..], payload);
            }
        }
    }

    #[test]
    fn agrees_with_the_wire_crates_codecs() {
        use bytes::Bytes;
        use kafka_protocol::compression::{Decompressor, Gzip, Snappy};
        let payload = sample(100_000);
        let mut packed = Bytes::from(compressed(Codec::Gzip, &payload));
        let inflated = Gzip::decompress(&mut packed, |inflated| Ok(inflated.clone())).unwrap();
        assert_eq!(inflated, payload);
        let mut packed = Bytes::from(compressed(Codec::Snappy, &payload));
        let inflated = Snappy::decompress(&mut packed, |inflated| Ok(inflated.clone())).unwrap();
        assert_eq!(inflated, payload);
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        let zeros = vec![0; 64 << 20];
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = compressed(codec, &zeros);
            let mut out = Vec::new();
            let result = decompress(codec, &packed, 1 << 20, &mut out);
            assert!(matches!(result, Err(CompressionError::TooLarge(_))), "{codec:?}");
            assert!(out.capacity() <= 4 << 20, "{codec:?} reserved {}", out.capacity());
        }
    }

    #[test]
    fn reads_raw_snappy_and_several_members() {
        let payload = sample(5000);
        let raw = snap::raw::Encoder::new().compress_vec(&payload).unwrap();
        assert_eq!(inflated(Codec::Snappy, &raw, 5000).unwrap(), payload);
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Zstd] {
            let twice = compressed(codec, &payload).repeat(2);
            assert_eq!(inflated(codec, &twice, 10_000).unwrap(), payload.repeat(2), "{codec:?}");
        }
    }

    #[test]
    fn reads_lz4_as_other_clients_write_it() {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        let payload = sample(300_000);
        let frame = FrameInfo::new()
            .block_size(BlockSize::Max256KB)
            .block_mode(BlockMode::Linked)
            .block_checksums(true)
            .content_checksum(true)
            .content_size(Some(payload.len() as u64));
        let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
        encoder.write_all(&payload).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(inflated(Codec::Lz4, &packed, payload.len()).unwrap(), payload);
    }

    #[test]
    fn refuses_lies_and_cuts() {
        // Raw snappy that claims 4 GiB, and one that claims more than its elements can make.
        let lies = [&[0xff, 0xff, 0xff, 0xff, 0x0f, 0][..], &[0xff, 0xff, 0x3f, 0, b'a']];
        for lie in lies {
            assert!(matches!(
                inflated(Codec::Snappy, lie, 1 << 30),
                Err(CompressionError::Snappy(None))
            ));
        }
        let mut framed = XERIAL_HEADER.to_vec();
        framed.extend_from_slice(&u32::MAX.to_be_bytes());
        assert!(inflated(Codec::Snappy, &framed, 1 << 20).is_err());
        assert!(inflated(Codec::Snappy, &XERIAL_HEADER[..12], 1 << 20).is_err());

        let payload = sample(50_000);
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Zstd] {
            let packed = compressed(codec, &payload);
            for cut in [1, packed.len() / 2, packed.len() - 1] {
                assert!(inflated(codec, &packed[..cut], 1 << 20).is_err(), "{codec:?} {cut}");
            }
        }
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            assert!(inflated(codec, b"certainly not compressed", 1 << 20).is_err(), "{codec:?}");
        }
    }
}
