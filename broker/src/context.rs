//! What a handler sees of the request, the connection and the broker.
//!
//! A handler sees this, `Partition` and wire types; it sees no socket, no lock, no file and nothing
//! of Raft.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::{
    Encodable, EncodeError, HeaderVersion, ResponseFrame, StrBytes, encode_response,
};

use crate::client_metrics::ClientTraffic;
use crate::connection::{CloseCause, Part, Reply};
use crate::fetch_sessions::FetchSessions;
use crate::metrics::ApiMetrics;
use crate::node::Node;
use crate::producer_ids::ProducerIds;
use crate::server::{Peer, Shutdown};

/// What all connections of a node share beside the node itself; made once, by
/// [`handlers::serve`](crate::handlers::serve).
#[derive(Debug)]
pub struct Shared {
    /// The incremental fetch sessions.
    pub fetch_sessions: FetchSessions,
    /// The producer ids not yet given out of the current block.
    pub producer_ids: ProducerIds,
    /// A permit for each core: held while the blocking pool inflates what a client has sent.
    pub cores: Arc<Semaphore>,
}

/// One request on its way through a handler.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The broker.
    pub node: Arc<Node>,
    /// What the connections share.
    pub shared: Arc<Shared>,
    /// Which API.
    pub api: ApiKey,
    /// Its wire key.
    pub api_key: i16,
    /// A version that the handler serves.
    pub api_version: i16,
    /// Repeated in the response.
    pub correlation_id: i32,
    /// What the client calls itself; no slice of the request's frame, which may be large.
    pub client_id: Option<StrBytes>,
    /// Number of the connection since the start of the process.
    pub connection: u64,
    /// The connection's other end: for handlers that wait for somebody else.
    pub client: Arc<Peer>,
    /// Where the client is.
    pub peer: SocketAddr,
    /// The address it reached us at.
    pub local: SocketAddr,
    /// For handlers that wait long: completes when the server ends.
    pub shutdown: Shutdown,
    /// The connection's one turn: requests of a fetch session are answered one after another.
    pub session_turn: Arc<Semaphore>,
    /// The figures of the client.
    pub traffic: Arc<ClientTraffic>,
    /// When the request began.
    pub begun: Instant,
}

impl RequestContext {
    /// The counters of this API.
    pub fn metrics(&self) -> &ApiMetrics {
        self.node.metrics.api(self.api_key)
    }

    /// Counts an error code that the response carries; `None` is free.
    pub fn count(&self, code: ErrorCode) {
        self.metrics().error(code);
    }

    /// The version whose body this one has: the generated code does not know all that are served.
    pub fn body_version(&self) -> i16 {
        match self.api {
            // 11 only adds a special timestamp (KIP-1023).
            ApiKey::ListOffsets => self.api_version.min(10),
            _ => self.api_version,
        }
    }

    /// The reply of a response, in this request's version.
    pub fn reply<R: Encodable + HeaderVersion>(&self, response: &R) -> Reply {
        let version = self.body_version();
        let frame = encode_response(self.correlation_id, self.api, version, response);
        self.reply_encoded(frame.map(ResponseFrame::into_frame_of))
    }

    /// The reply of a response that was encoded by hand.
    pub fn reply_encoded(&self, frame: Result<ResponseFrame<Part>, EncodeError>) -> Reply {
        self.metrics().answered(self.begun.elapsed());
        match frame {
            Ok(frame) => {
                self.traffic.sent(frame.bytes());
                Reply::Frame(frame)
            }
            Err(error) => Reply::Close(CloseCause::Encode(error.to_string())),
        }
    }

    /// No response, for a request that wants none.
    pub fn silence(&self) -> Reply {
        self.metrics().answered(self.begun.elapsed());
        Reply::Silent
    }
}
