//! Requests and responses: the wire crate's types, and the way from and to their bytes.
//!
//! Everything is kafka-protocol's but [`FetchResponse`], whose records must not be copied. Decoding
//! borrows: strings and records of a request are slices of its frame and keep it alive, so what
//! outlives the request is copied first.
//!
//! A hostile array count makes the wire crate reserve memory for as many elements before it finds
//! that there are none. The program that decodes must therefore run on an allocator that reserves
//! without committing (jemalloc): with the system's, four bytes can abort the process.

pub mod by_topic_id;
pub mod fetch;

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::FRAME_LENGTH_BYTES;
use crate::ids;

pub use fetch::FetchResponse;
// The wire crate's own `FetchResponse` is shadowed: encoding it would copy the records.
pub use kafka_protocol::messages::*;
pub use kafka_protocol::protocol::{
    Decodable, Encodable, HeaderVersion, Message, Request, StrBytes, VersionRange,
};

/// Why the body of a request cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("malformed request body of version {version}: {reason}")]
pub struct DecodeError {
    /// The version it was read as.
    pub version: i16,
    reason: String,
}

/// Why a response cannot be written: a field that the version does not have is set, or a part is
/// longer than its length can say. A fault of ours, never of the client.
#[derive(Debug, thiserror::Error)]
#[error("response of {api_key:?} version {version} cannot be encoded: {reason}")]
pub struct EncodeError {
    /// Which API.
    pub api_key: ApiKey,
    /// The version it was written as.
    pub version: i16,
    reason: String,
}

/// The body of a request: the wire crate's types, and those of ours that read what it does not.
pub trait RequestBody: Sized {
    /// Reads a body that is all of `frame`, or its beginning.
    fn read(frame: Bytes, version: i16) -> Result<Self, DecodeError>;
}

impl<R: Decodable> RequestBody for R {
    fn read(mut frame: Bytes, version: i16) -> Result<Self, DecodeError> {
        Self::decode(&mut frame, version)
            .map_err(|error| DecodeError { version, reason: error.to_string() })
    }
}

/// Reads the body of a request, whose header was taken off `frame` by
/// [`parse_head`](crate::frame::parse_head).
///
/// Bytes behind the body are ignored, as Kafka 4.3 does (`RequestContext.parseRequest`).
pub fn decode_request<R: RequestBody>(frame: Bytes, version: i16) -> Result<R, DecodeError> {
    R::read(frame, version)
}

/// A piece of a response: bytes in memory or, as the sender of the response likes, elsewhere.
pub trait ResponsePart: Clone + From<Bytes> {
    /// How many bytes.
    fn bytes(&self) -> usize;

    /// The bytes, if they are in memory.
    fn in_memory(&self) -> Option<&Bytes>;
}

impl ResponsePart for Bytes {
    fn bytes(&self) -> usize {
        self.len()
    }

    fn in_memory(&self) -> Option<&Bytes> {
        Some(self)
    }
}

/// A response on its way to the socket: parts to be written one behind the other, in one vectored
/// write where possible. The first part starts with the frame's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseFrame<P = Bytes> {
    parts: Vec<P>,
}

impl<P: ResponsePart> ResponseFrame<P> {
    /// A frame of these parts, the first of which starts with the length of the rest.
    pub(crate) fn new(parts: Vec<P>) -> Self {
        Self { parts }
    }

    /// The parts in their order; none is empty.
    pub fn parts(&self) -> &[P] {
        &self.parts
    }

    /// The parts in their order; none is empty.
    pub fn into_parts(self) -> Vec<P> {
        self.parts
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(P::bytes).sum()
    }
}

impl ResponseFrame {
    /// The same among frames whose parts may lie elsewhere.
    pub fn into_frame_of<P: ResponsePart>(self) -> ResponseFrame<P> {
        ResponseFrame::new(self.parts.into_iter().map(P::from).collect())
    }
}

/// Writes a response with its header and frame length.
pub fn encode_response<R: Encodable + HeaderVersion>(
    correlation_id: i32,
    api_key: ApiKey,
    version: i16,
    response: &R,
) -> Result<ResponseFrame, EncodeError> {
    let failed = |reason: String| EncodeError { api_key, version, reason };
    let header_version = R::header_version(version);
    let body_bytes = response.compute_size(version).map_err(|error| failed(error.to_string()))?;
    let mut frame = BytesMut::with_capacity(RESPONSE_HEAD_BYTES_MAX + body_bytes);
    put_response_head(&mut frame, correlation_id, header_version);
    response.encode(&mut frame, version).map_err(|error| failed(error.to_string()))?;
    let length = i32::try_from(frame.len() - FRAME_LENGTH_BYTES)
        .map_err(|_| failed(format!("{} bytes are too many", frame.len())))?;
    frame[..FRAME_LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(ResponseFrame::new(vec![frame.freeze()]))
}

/// Frame length, correlation id and an empty set of tagged fields.
const RESPONSE_HEAD_BYTES_MAX: usize = 9;

/// Appends room for the frame length, and the response header.
fn put_response_head(frame: &mut BytesMut, correlation_id: i32, header_version: i16) {
    frame.put_i32(0);
    frame.put_i32(correlation_id);
    if header_version >= 1 {
        frame.put_u8(0);
    }
}

impl From<&ids::TopicName> for TopicName {
    fn from(name: &ids::TopicName) -> Self {
        Self(StrBytes::from_string(name.as_str().to_owned()))
    }
}

impl From<&TopicName> for ids::TopicName {
    /// Copies the text, so that the name does not keep its request's frame alive.
    fn from(name: &TopicName) -> Self {
        Self::new(&name.0)
    }
}

impl From<ids::NodeId> for BrokerId {
    fn from(node: ids::NodeId) -> Self {
        Self(node.0)
    }
}

impl From<ids::ProducerId> for ProducerId {
    fn from(producer_id: ids::ProducerId) -> Self {
        Self(producer_id.0)
    }
}

impl From<ProducerId> for ids::ProducerId {
    fn from(producer_id: ProducerId) -> Self {
        Self(producer_id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_carry_length_and_header() {
        let response = HeartbeatResponse::default();
        for (version, expected) in [
            (0, &[0, 0, 0, 6, 0, 0, 0, 7, 0, 0][..]),
            (1, &[0, 0, 0, 10, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0]),
            (4, &[0, 0, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let frame = encode_response(7, ApiKey::Heartbeat, version, &response).unwrap();
            assert_eq!(frame.parts(), [Bytes::from_static(expected)], "v{version}");
            assert_eq!(frame.bytes(), expected.len());
        }
    }

    #[test]
    fn the_answer_to_api_versions_has_the_oldest_header() {
        let response = ApiVersionsResponse::default().with_error_code(35);
        let frame = encode_response(7, ApiKey::ApiVersions, 0, &response).unwrap();
        assert_eq!(frame.parts(), [&[0, 0, 0, 10, 0, 0, 0, 7, 0, 35, 0, 0, 0, 0][..]]);
        let frame = encode_response(7, ApiKey::ApiVersions, 3, &response).unwrap();
        assert_eq!(frame.parts()[0][8..10], [0, 35]);
    }

    #[test]
    fn requests_borrow_from_their_frame() {
        let frame = Bytes::from_static(&[0, 1, b'g', 0, 0, 0, 5, 0, 1, b'm', 0xee]);
        let request: HeartbeatRequest = decode_request(frame.clone(), 0).unwrap();
        assert_eq!((request.group_id.as_str(), request.generation_id), ("g", 5));
        assert_eq!(request.group_id.0.as_ptr(), frame[2..].as_ptr());
        assert!(decode_request::<HeartbeatRequest>(frame.slice(..9), 0).is_err());
        assert!(decode_request::<HeartbeatRequest>(frame, 99).is_err());
    }

    #[test]
    fn a_field_of_another_version_is_an_error() {
        let response = fetch_response::FetchResponse::default().with_session_id(1);
        let error = encode_response(1, ApiKey::Fetch, 4, &response).unwrap_err();
        assert_eq!((error.api_key, error.version), (ApiKey::Fetch, 4));
    }
}
