//! Frames of a connection: a big-endian `i32` length, then a request's header and body.
//!
//! Sans-IO: the connection owns socket and buffer, this splits whole frames off it. Nothing is
//! copied, so a frame, and everything decoded from it, keeps the read buffer's allocation alive.
//! A frame that breaks the rules leaves no way to find the next one: the connection closes.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::api::KnownApi;
use crate::record::varint::read_unsigned;

/// Longest frame by default (`socket.request.max.bytes`).
pub const FRAME_BYTES_MAX: usize = 104_857_600;
/// Bytes of the length before a frame.
pub const FRAME_LENGTH_BYTES: usize = 4;

/// Why the bytes of a connection are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length below zero.
    #[error("frame length {0} is negative")]
    Negative(i32),
    /// A frame without even an API key.
    #[error("frame is empty")]
    Zero,
    /// A length above the connection's limit.
    #[error("frame of {len} bytes exceeds the limit of {max}")]
    TooLarge {
        /// As on the wire.
        len: usize,
        /// The limit in force.
        max: usize,
    },
}

/// Splits frames off a connection's buffer.
#[derive(Clone, Copy, Debug)]
pub struct FrameDecoder {
    max_bytes: usize,
}

impl FrameDecoder {
    /// A decoder that refuses frames longer than `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes }
    }

    /// Sets another limit, from the next frame on: small until a client is authenticated.
    pub fn set_max(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    /// Splits the first frame off `buf`, without its length; `None` while it is not whole.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some(len) = self.length(buf)? else { return Ok(None) };
        if buf.len() < FRAME_LENGTH_BYTES + len {
            return Ok(None);
        }
        buf.advance(FRAME_LENGTH_BYTES);
        Ok(Some(buf.split_to(len).freeze()))
    }

    /// Bytes that `buf` lacks of the first frame, or of its length where that is not whole yet;
    /// 0 when [`FrameDecoder::decode`] has something to say. The reader reserves them.
    pub fn missing(&self, buf: &BytesMut) -> usize {
        match self.length(buf) {
            Ok(Some(len)) => (FRAME_LENGTH_BYTES + len).saturating_sub(buf.len()),
            Ok(None) => FRAME_LENGTH_BYTES - buf.len(),
            Err(_) => 0,
        }
    }

    fn length(self, buf: &BytesMut) -> Result<Option<usize>, FrameError> {
        let Some(length) = buf.first_chunk::<FRAME_LENGTH_BYTES>() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        match usize::try_from(length) {
            Err(_) => Err(FrameError::Negative(length)),
            Ok(0) => Err(FrameError::Zero),
            Ok(len) if len > self.max_bytes => {
                Err(FrameError::TooLarge { len, max: self.max_bytes })
            }
            Ok(len) => Ok(Some(len)),
        }
    }
}

/// What stands before a request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Which API; one that [`KnownApi::find`] knows.
    pub api_key: i16,
    /// A version that Kafka knows; whether *we* serve it is the handlers' table's to say.
    pub api_version: i16,
    /// To be repeated in the response.
    pub correlation_id: i32,
    /// A slice of the frame: copy it before keeping it.
    pub client_id: Option<StrBytes>,
}

/// Why a request cannot be read. Kafka closes the connection without a word, but for
/// `ApiVersions` of an unsupported version: that is answered by error 35 in a body of version 0,
/// so that the client can try an older one (KIP-35).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// An API that does not exist, or no longer.
    #[error("request of unknown api key {api_key}, version {api_version}")]
    UnknownKey {
        /// As on the wire.
        api_key: i16,
        /// As on the wire.
        api_version: i16,
        /// As on the wire.
        correlation_id: i32,
    },
    /// A version that Kafka does not know, or no longer.
    #[error("request of api key {api_key} has unsupported version {api_version}")]
    UnsupportedVersion {
        /// As on the wire.
        api_key: i16,
        /// As on the wire.
        api_version: i16,
        /// As on the wire.
        correlation_id: i32,
    },
    /// Cut off, or a client id that is not UTF-8.
    #[error("malformed request header")]
    Malformed,
}

const HEAD_BYTES_MIN: usize = 8;

/// Takes the header off `frame`, whose rest is the body. After an error the frame is unchanged.
pub fn parse_head(frame: &mut Bytes) -> Result<RequestHead, HeadError> {
    let Some(&[k0, k1, v0, v1, c0, c1, c2, c3]) = frame.first_chunk::<HEAD_BYTES_MIN>() else {
        return Err(HeadError::Malformed);
    };
    let api_key = i16::from_be_bytes([k0, k1]);
    let api_version = i16::from_be_bytes([v0, v1]);
    let correlation_id = i32::from_be_bytes([c0, c1, c2, c3]);
    let Some(api) = KnownApi::find(api_key) else {
        return Err(HeadError::UnknownKey { api_key, api_version, correlation_id });
    };
    if api_version < api.min || api_version > api.max {
        return Err(HeadError::UnsupportedVersion { api_key, api_version, correlation_id });
    }
    let (client_id, mut rest) = split_client_id(frame)?;
    if api.request_header_version(api_version) >= 2 {
        skip_tagged_fields(&mut rest).ok_or(HeadError::Malformed)?;
    }
    let header_bytes = frame.len() - rest.len();
    frame.advance(header_bytes);
    Ok(RequestHead { api_key, api_version, correlation_id, client_id })
}

fn split_client_id(frame: &Bytes) -> Result<(Option<StrBytes>, &[u8]), HeadError> {
    let rest = &frame[HEAD_BYTES_MIN..];
    let (length, rest) = rest.split_first_chunk::<2>().ok_or(HeadError::Malformed)?;
    let Ok(length) = usize::try_from(i16::from_be_bytes(*length)) else {
        return Ok((None, rest));
    };
    let (text, rest) = rest.split_at_checked(length).ok_or(HeadError::Malformed)?;
    let text = StrBytes::from_utf8(frame.slice_ref(text)).map_err(|_| HeadError::Malformed)?;
    Ok((Some(text), rest))
}

/// No header tag is defined so far; each has two bytes at least, so an absurd count ends early.
fn skip_tagged_fields(rest: &mut &[u8]) -> Option<()> {
    for _ in 0..read_unsigned(rest)? {
        read_unsigned(rest)?;
        let length = read_unsigned(rest)?;
        *rest = rest.get(length as usize..)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(bytes: &[u8]) -> BytesMut {
        BytesMut::from(bytes)
    }

    #[test]
    fn splits_frames_as_they_become_whole() {
        let mut decoder = FrameDecoder::new(100);
        let stream = [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 1, b'c'];
        let mut buf = BytesMut::new();
        let mut frames = Vec::new();
        for (read, byte) in stream.into_iter().enumerate() {
            let missing = decoder.missing(&buf);
            assert!(missing > 0, "after {read}");
            buf.extend_from_slice(&[byte]);
            assert!(decoder.missing(&buf) < missing || buf.len() == 4, "after {read}");
            frames.extend(decoder.decode(&mut buf).unwrap());
        }
        assert_eq!(frames, [&b"ab"[..], b"c"]);
        assert!(buf.is_empty());
    }

    #[test]
    fn frames_share_the_buffer() {
        let mut buf = buffer(&[0, 0, 0, 1, 7, 0, 0, 0, 1, 8]);
        let start = buf.as_ptr();
        let mut decoder = FrameDecoder::new(100);
        let first = decoder.decode(&mut buf).unwrap().unwrap();
        assert_eq!(first.as_ptr(), start.wrapping_add(4));
        assert_eq!(decoder.decode(&mut buf).unwrap().unwrap(), [8][..]);
        assert_eq!(decoder.decode(&mut buf), Ok(None));
    }

    #[test]
    fn refuses_impossible_lengths() {
        let mut decoder = FrameDecoder::new(4);
        for (bytes, expected) in [
            ([0xff; 4], FrameError::Negative(-1)),
            ([0; 4], FrameError::Zero),
            ([0, 0, 0, 5], FrameError::TooLarge { len: 5, max: 4 }),
        ] {
            assert_eq!(decoder.missing(&buffer(&bytes)), 0);
            assert_eq!(decoder.decode(&mut buffer(&bytes)), Err(expected));
        }
        decoder.set_max(5);
        assert_eq!(decoder.decode(&mut buffer(&[0, 0, 0, 5])), Ok(None));
        assert_eq!(decoder.missing(&buffer(&[0, 0, 0, 5])), 5);
    }

    fn head(bytes: &[u8]) -> Result<(RequestHead, Vec<u8>), HeadError> {
        let mut frame = Bytes::copy_from_slice(bytes);
        parse_head(&mut frame).map(|head| (head, frame.to_vec()))
    }

    #[test]
    fn reads_both_headers() {
        // Metadata v1 is not flexible, v9 is; both with client id "c" and body 0x55.
        for (bytes, version) in [
            (&[0, 3, 0, 1, 0, 0, 0, 9, 0, 1, b'c', 0x55][..], 1),
            (&[0, 3, 0, 9, 0, 0, 0, 9, 0, 1, b'c', 0, 0x55], 9),
            (&[0, 3, 0, 9, 0, 0, 0, 9, 0, 1, b'c', 2, 0, 1, 7, 9, 0, 0x55], 9),
        ] {
            let client_id = Some(StrBytes::from_static_str("c"));
            let expected =
                RequestHead { api_key: 3, api_version: version, correlation_id: 9, client_id };
            assert_eq!(head(bytes), Ok((expected, vec![0x55])));
        }
        let anonymous = head(&[0, 3, 0, 1, 0, 0, 0, 9, 0xff, 0xff]).unwrap();
        assert_eq!(anonymous.0.client_id, None);
    }

    #[test]
    fn refused_requests_still_tell_whom_to_answer() {
        assert_eq!(
            head(&[0, 18, 0, 99, 0, 0, 0, 9]),
            Err(HeadError::UnsupportedVersion { api_key: 18, api_version: 99, correlation_id: 9 })
        );
        assert_eq!(
            head(&[0, 0, 0, 2, 0, 0, 0, 9]),
            Err(HeadError::UnsupportedVersion { api_key: 0, api_version: 2, correlation_id: 9 })
        );
        assert_eq!(
            head(&[0, 4, 0, 1, 0, 0, 0, 9]),
            Err(HeadError::UnknownKey { api_key: 4, api_version: 1, correlation_id: 9 })
        );
        for bytes in [
            &[0, 3, 0, 1, 0, 0, 0][..],
            &[0, 3, 0, 1, 0, 0, 0, 9, 0],
            &[0, 3, 0, 1, 0, 0, 0, 9, 0, 2, b'c'],
            &[0, 3, 0, 1, 0, 0, 0, 9, 0, 1, 0xff],
            &[0, 3, 0, 9, 0, 0, 0, 9, 0, 0],
            &[0, 3, 0, 9, 0, 0, 0, 9, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0, 3, 0, 9, 0, 0, 0, 9, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],
        ] {
            assert_eq!(head(bytes), Err(HeadError::Malformed), "{bytes:?}");
        }
    }
}
