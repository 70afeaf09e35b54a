//! A client that says exactly what a test wants, and the batches it sends.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vltava_protocol::ids::{ProducerEpoch, ProducerId, Sequence, Timestamp};
use vltava_protocol::messages::{
    ApiKey, Decodable, Encodable, HeaderVersion, RequestHeader, ResponseHeader, StrBytes,
};
use vltava_protocol::record::{BatchBuilder, BatchFields, Codec};

/// One connection. Responses are received in the order of the requests.
pub(crate) struct Wire {
    socket: TcpStream,
    sent: i32,
    received: i32,
}

impl Wire {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self { socket: TcpStream::connect(addr).await.unwrap(), sent: 0, received: 0 }
    }

    /// Sends raw bytes.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// The frame of a request, to be sent later with others.
    pub(crate) fn frame<R: Encodable + HeaderVersion>(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &R,
    ) -> Vec<u8> {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        self.frame_of(key, version, R::header_version(version), &body)
    }

    /// The frame of a request whose body is written by hand.
    pub(crate) fn frame_of(
        &mut self,
        key: ApiKey,
        version: i16,
        header_version: i16,
        body: &[u8],
    ) -> Vec<u8> {
        self.sent += 1;
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.sent)
            .with_client_id(Some(StrBytes::from_static_str("wire")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, header_version).unwrap();
        frame.extend_from_slice(body);
        let length = i32::try_from(frame.len()).unwrap();
        [&length.to_be_bytes()[..], &frame].concat()
    }

    /// Counts a request that has no response.
    pub(crate) fn expect_none(&mut self) {
        self.received += 1;
    }

    pub(crate) async fn send<R: Encodable + HeaderVersion>(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &R,
    ) {
        let frame = self.frame(key, version, request);
        self.raw(&frame).await;
    }

    pub(crate) async fn receive<R: Decodable + HeaderVersion>(&mut self, version: i16) -> R {
        let mut frame = self.receive_frame().await;
        let header = ResponseHeader::decode(&mut frame, R::header_version(version)).unwrap();
        self.received += 1;
        assert_eq!(header.correlation_id, self.received, "responses come in order");
        let response = R::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "{} bytes behind the response", frame.len());
        response
    }

    pub(crate) async fn receive_frame(&mut self) -> Bytes {
        let length = self.socket.read_i32().await.expect("the connection is open");
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        self.socket.read_exact(&mut frame).await.unwrap();
        frame.into()
    }

    pub(crate) async fn call<Q, R>(&mut self, key: ApiKey, version: i16, request: &Q) -> R
    where
        Q: Encodable + HeaderVersion,
        R: Decodable + HeaderVersion,
    {
        self.send(key, version, request).await;
        self.receive(version).await
    }

    /// The server closes, without a word.
    pub(crate) async fn assert_closed(mut self) {
        let mut rest = Vec::new();
        // A reset is a close as well: the server may leave unread bytes behind.
        let _ = self.socket.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{rest:?} before the close");
    }
}

pub(crate) fn name(topic: &str) -> vltava_protocol::messages::TopicName {
    vltava_protocol::messages::TopicName(StrBytes::from_string(topic.to_owned()))
}

/// A batch with these values, one millisecond apart from `first` on.
pub(crate) fn batch_at(first: i64, values: &[&str], codec: Codec, fields: &BatchFields) -> Bytes {
    let mut builder = BatchBuilder::new(codec, None);
    for (at, value) in (0..).zip(values) {
        builder.append(Timestamp(first + at), Some(b"key"), Some(value.as_bytes()), &[]);
    }
    builder.build(fields).unwrap()
}

/// A plain batch.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    batch_at(1_000, values, Codec::None, &BatchFields::default())
}

/// A batch of an idempotent producer.
pub(crate) fn idempotent(producer: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    let fields = BatchFields {
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
        ..BatchFields::default()
    };
    batch_at(1_000, values, Codec::None, &fields)
}
