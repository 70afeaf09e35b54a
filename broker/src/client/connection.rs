//! One connection of the client: frames, correlation and the versions of the broker behind it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use vltava_protocol::api::KnownApi;
use vltava_protocol::frame::FrameDecoder;
use vltava_protocol::messages::{
    ApiVersionsRequest, Decodable, Encodable, HeaderVersion, Request, RequestHeader, ResponseHeader,
};

use super::{ClientError, text};

/// The longest response that is read.
const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// How much is read at a time, at least.
const READ_BYTES: usize = 64 << 10;
/// The name in the headers of requests.
const CLIENT_ID: &str = "vltava";

/// The versions of an API that a caller understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    min: i16,
    max: i16,
}

impl Versions {
    /// From `min` to `max`.
    pub const fn of(min: i16, max: i16) -> Self {
        assert!(min <= max);
        Self { min, max }
    }

    /// The highest that both sides know.
    fn agree(self, broker: Option<&(i16, i16)>) -> Option<i16> {
        let &(min, max) = broker?;
        let highest = self.max.min(max);
        (highest >= self.min.max(min)).then_some(highest)
    }
}

/// A connection with its broker's versions known.
///
/// An exchange that did not come to its end (the connection broke, the time was up, the caller
/// stopped waiting) leaves bytes under way that belong to nobody. So the next one dials again.
#[derive(Debug)]
pub(super) struct Connection {
    address: String,
    stream: TcpStream,
    input: BytesMut,
    correlation_id: i32,
    versions: BTreeMap<i16, (i16, i16)>,
    is_abandoned: bool,
}

impl Connection {
    /// Connects and asks for the versions.
    pub(super) async fn open(address: &str, limit: Duration) -> Result<Self, ClientError> {
        let api_versions = ApiVersionsRequest::KEY;
        let mut connection = Self {
            address: address.to_owned(),
            stream: dial(address, limit).await?,
            input: BytesMut::new(),
            correlation_id: 0,
            versions: [(api_versions, (0, 3))].into(),
            is_abandoned: false,
        };
        let request = |_| {
            ApiVersionsRequest::default()
                .with_client_software_name(text(CLIENT_ID))
                .with_client_software_version(text(env!("CARGO_PKG_VERSION")))
        };
        let mut response = connection.call(Versions::of(3, 3), limit, request).await;
        if !matches!(&response, Ok(response) if response.error_code == 0) {
            // Older brokers answer in version 0 that they do not know version 3.
            response = connection.call(Versions::of(0, 0), limit, request).await;
        }
        let versions = response?.api_keys;
        connection.versions =
            versions.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Ok(connection)
    }

    /// Sends one request and waits for its response.
    pub(super) async fn call<R: Request>(
        &mut self,
        versions: Versions,
        limit: Duration,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let api = KnownApi::find(R::KEY).expect("every request of the wire crate is known");
        let version = versions.agree(self.versions.get(&R::KEY)).ok_or_else(|| {
            ClientError::Unsupported { address: self.address.clone(), api: api.name }
        })?;
        let frame = self.encode(api, version, &build(version))?;
        self.begin(limit).await?;
        let address = self.address.clone();
        let exchange = async {
            self.stream.write_all(&frame).await?;
            self.receive().await
        };
        let frame = within(&address, limit, exchange)
            .await?
            .map_err(|error| ClientError::Broken { address: address.clone(), error })?;
        self.is_abandoned = false;
        self.decode(api, version, frame)
    }

    /// Sends one request that is not answered (Produce with acks=0).
    pub(super) async fn tell<R: Request>(
        &mut self,
        versions: Versions,
        limit: Duration,
        build: impl FnOnce(i16) -> R,
    ) -> Result<(), ClientError> {
        let api = KnownApi::find(R::KEY).expect("every request of the wire crate is known");
        let version = versions.agree(self.versions.get(&R::KEY)).ok_or_else(|| {
            ClientError::Unsupported { address: self.address.clone(), api: api.name }
        })?;
        let frame = self.encode(api, version, &build(version))?;
        self.begin(limit).await?;
        within(&self.address, limit, self.stream.write_all(&frame))
            .await?
            .map_err(|error| ClientError::Broken { address: self.address.clone(), error })?;
        self.is_abandoned = false;
        Ok(())
    }

    /// Begins an exchange, on a new socket if the one before was abandoned. Its end clears the
    /// mark.
    async fn begin(&mut self, limit: Duration) -> Result<(), ClientError> {
        if self.is_abandoned {
            self.stream = dial(&self.address, limit).await?;
            self.input.clear();
        }
        self.is_abandoned = true;
        Ok(())
    }

    fn encode<R: Request>(
        &mut self,
        api: &'static KnownApi,
        version: i16,
        request: &R,
    ) -> Result<Bytes, ClientError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(text(CLIENT_ID)));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header
            .encode(&mut frame, R::header_version(version))
            .and_then(|()| request.encode(&mut frame, version))
            .map_err(|error| self.malformed(api, &format!("request: {error}")))?;
        let length = i32::try_from(frame.len() - 4)
            .map_err(|_| self.malformed(api, &"request of more than 2 GiB"))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(frame.freeze())
    }

    async fn receive(&mut self) -> std::io::Result<Bytes> {
        let mut decoder = FrameDecoder::new(RESPONSE_BYTES_MAX);
        loop {
            let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
            if let Some(frame) = decoder.decode(&mut self.input).map_err(invalid)? {
                return Ok(frame);
            }
            self.input.reserve(decoder.missing(&self.input).max(READ_BYTES));
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn decode<R: Decodable + HeaderVersion>(
        &self,
        api: &'static KnownApi,
        version: i16,
        mut frame: Bytes,
    ) -> Result<R, ClientError> {
        let header = ResponseHeader::decode(&mut frame, R::header_version(version))
            .map_err(|error| self.malformed(api, &error))?;
        if header.correlation_id != self.correlation_id {
            return Err(self.malformed(api, &"it belongs to another request"));
        }
        R::decode(&mut frame, version).map_err(|error| self.malformed(api, &error))
    }

    fn malformed(&self, api: &'static KnownApi, reason: &dyn std::fmt::Display) -> ClientError {
        let (address, api) = (self.address.clone(), api.name);
        ClientError::Malformed { address, api, reason: reason.to_string() }
    }
}

async fn dial(address: &str, limit: Duration) -> Result<TcpStream, ClientError> {
    let stream = within(address, limit, TcpStream::connect(address))
        .await?
        .map_err(|error| ClientError::Connect { address: address.to_owned(), error })?;
    // Requests are written whole: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Bounds a step.
async fn within<F: Future>(
    address: &str,
    limit: Duration,
    step: F,
) -> Result<F::Output, ClientError> {
    timeout(limit, step).await.map_err(|_| ClientError::Timeout {
        address: address.to_owned(),
        timeout_ms: limit.as_millis(),
    })
}

#[cfg(test)]
mod tests {
    use vltava_protocol::ids::{Offset, PartitionIndex};

    use super::*;
    use crate::client::admin::NewTopic;
    use crate::client::{Client, LATEST};

    #[test]
    fn the_highest_common_version_is_spoken() {
        let check = |ours: (i16, i16), broker: Option<(i16, i16)>, expected| {
            assert_eq!(Versions::of(ours.0, ours.1).agree(broker.as_ref()), expected);
        };
        check((1, 12), Some((0, 9)), Some(9));
        check((1, 4), Some((0, 9)), Some(4));
        check((5, 9), Some((0, 4)), None);
        check((0, 3), Some((4, 9)), None);
        check((0, 3), None, None);
    }

    #[tokio::test]
    async fn an_abandoned_exchange_disturbs_nobody() {
        let broker = crate::Broker::ephemeral().unwrap();
        let limit = Duration::from_secs(30);
        let mut client = Client::connect(&broker.bootstrap(), limit).await.unwrap();
        let topic = NewTopic { name: "t".to_owned(), ..NewTopic::default() };
        client.create_topics(&[topic], false).await.unwrap().pop().unwrap().unwrap();
        let topic = loop {
            let topic = client.topic("t", false).await.unwrap();
            if topic.partitions[0].leader.is_some() {
                break topic;
            }
        };
        let (partition, start) = (PartitionIndex(0), Offset::ZERO);
        for _ in 0..3 {
            // Nothing comes for as long as it may wait, and whoever asked goes away sooner.
            let mut positions = [(partition, start)].into();
            let fetch = client.fetch(&topic, &mut positions, limit / 2);
            assert!(timeout(Duration::from_millis(20), fetch).await.is_err());
            let end = client.list_offsets(&topic, &[partition], LATEST).await.unwrap();
            assert_eq!(end[&partition], start);
        }
    }
}
