//! The table of APIs, and the way of a request through it: header, version, decode, handler,
//! encode.
//!
//! One file an API, each with its `API` (key and versions) and its handler. Adding one is a file
//! and a line of [`HANDLERS`]. Two shapes: an exclusive handler is an `async fn handle(cx, request)
//! -> response` and runs while nothing else of its connection does; an overlapping one is an
//! `async fn start(cx, request) -> Stage` that returns when its order is fixed.

// One shape for all handlers: some have nothing to wait for, some only look at the request.
#![allow(clippy::unused_async, clippy::needless_pass_by_value)]

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::frame::{HeadError, RequestHead, parse_head};
use vltava_protocol::messages::{RequestBody, StrBytes, decode_request};

use crate::client_metrics::ClientTraffic;
use crate::config::BrokerConfig;
use crate::connection::{Boxed, CloseCause, ConnectionConfig, Reply, Service, Stage};
use crate::context::{RequestContext, Shared};
use crate::fetch_sessions::FetchSessions;
use crate::node::Node;
use crate::node_metrics;
use crate::producer_ids::ProducerIds;
use crate::request_memory::RequestMemory;
use crate::server::{Limits, Peer, Server, Shutdown};

pub mod alter_configs;
pub mod api_versions;
pub mod config_changes;
pub mod control;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod elect_leaders;
pub mod fetch;
pub mod find_coordinator;
mod groups;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leader;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;

/// One API: what is served, and how.
#[derive(Debug)]
pub struct Handler {
    /// Key and versions.
    pub api: Api,
    /// Whether it may begin while requests before it wait.
    overlaps: bool,
    begin: fn(RequestContext, Bytes) -> Boxed<Stage>,
}

/// A handler that runs alone on its connection.
macro_rules! exclusive {
    ($api:ident) => {
        Handler {
            api: $api::API,
            overlaps: false,
            begin: |cx, body| {
                Box::pin(async move {
                    let request = match decode(&cx, body) {
                        Ok(request) => request,
                        Err(close) => return Stage::Done(close),
                    };
                    let response = $api::handle(&cx, request).await;
                    Stage::Done(cx.reply(&response))
                })
            },
        }
    };
}

/// A handler whose second half overlaps with the requests behind it.
macro_rules! overlapping {
    ($api:ident) => {
        Handler {
            api: $api::API,
            overlaps: true,
            begin: |cx, body| {
                Box::pin(async move {
                    match decode(&cx, body) {
                        Ok(request) => $api::start(cx, request).await,
                        Err(close) => Stage::Done(close),
                    }
                })
            },
        }
    };
}

/// A handler that overlaps, and decodes what it is sent by itself.
macro_rules! decoding {
    ($api:ident) => {
        Handler {
            api: $api::API,
            overlaps: true,
            begin: |cx, body| Box::pin($api::start(cx, body)),
        }
    };
}

/// Everything that is served.
pub static HANDLERS: &[Handler] = &[
    overlapping!(produce),
    decoding!(fetch),
    exclusive!(list_offsets),
    exclusive!(metadata),
    overlapping!(offset_commit),
    exclusive!(offset_fetch),
    exclusive!(find_coordinator),
    overlapping!(join_group),
    exclusive!(heartbeat),
    exclusive!(leave_group),
    overlapping!(sync_group),
    exclusive!(describe_groups),
    exclusive!(list_groups),
    exclusive!(delete_groups),
    exclusive!(offset_delete),
    exclusive!(api_versions),
    exclusive!(create_topics),
    exclusive!(delete_topics),
    exclusive!(create_partitions),
    exclusive!(delete_records),
    exclusive!(init_producer_id),
    exclusive!(offset_for_leader_epoch),
    exclusive!(describe_configs),
    exclusive!(alter_configs),
    exclusive!(incremental_alter_configs),
    exclusive!(list_config_resources),
    exclusive!(describe_cluster),
    exclusive!(describe_topic_partitions),
    exclusive!(describe_log_dirs),
    exclusive!(describe_producers),
    exclusive!(describe_quorum),
    exclusive!(elect_leaders),
    exclusive!(list_partition_reassignments),
];

/// The handler of a key, if it serves this version.
fn find(api_key: i16, api_version: i16) -> Option<&'static Handler> {
    let handler = HANDLERS.iter().find(|handler| handler.api.key as i16 == api_key)?;
    handler.api.serves(api_version).then_some(handler)
}

/// Kafka's name of a key that is served, for the labels of the metrics.
pub fn name_of(api_key: i16) -> Option<&'static str> {
    let known = vltava_protocol::api::KnownApi::find(api_key)?;
    HANDLERS.iter().any(|handler| handler.api.key as i16 == api_key).then_some(known.name)
}

fn decode<R: RequestBody>(cx: &RequestContext, body: Bytes) -> Result<R, Reply> {
    decode_request(body, cx.body_version())
        .map_err(|error| Reply::Close(CloseCause::Malformed(format!("{:?}: {error}", cx.api))))
}

/// Serves the node's Kafka clients on `listener`.
pub fn serve(listener: TcpListener, node: Arc<Node>) -> io::Result<Server> {
    let settings = &node.config;
    let seed = node.clock.now().0.unsigned_abs();
    let shared = Arc::new(Shared {
        fetch_sessions: FetchSessions::new(
            usize::try_from(settings.max_incremental_fetch_session_cache_slots).unwrap_or(0),
            seed,
        ),
        producer_ids: ProducerIds::default(),
        cores: Arc::new(Semaphore::new(available_parallelism().map_or(1, NonZero::get))),
    });
    let at_most = |most: i32| usize::try_from(most).unwrap_or(0);
    // Negative is no limit.
    let millis = |ms: i64| u64::try_from(ms).ok().map(Duration::from_millis);
    let room = usize::try_from(settings.queued_max_request_bytes).ok().filter(|&bytes| bytes > 0);
    let connection = ConnectionConfig {
        request_bytes_max: at_most(settings.socket_request_max_bytes),
        idle_max: millis(settings.connections_max_idle_ms),
        receive_max: millis(settings.socket_request_receive_timeout_ms),
        memory: RequestMemory::new(room),
        metrics: node.metrics.connections.clone(),
    };
    node_metrics::gather_shared(&node, connection.memory.clone(), Arc::clone(&shared));
    let limits = move |config: &BrokerConfig| Limits {
        connections_max: at_most(config.max_connections),
        connections_per_ip_max: at_most(config.max_connections_per_ip),
        overrides: config.max_connections_per_ip_overrides.clone(),
    };
    let (sender, limited) = watch::channel(limits(settings));
    node.controller.follow_broker_config(Box::new(move |config| {
        sender.send_if_modified(|current| {
            let new = limits(config);
            let is_new = *current != new;
            *current = new;
            is_new
        });
    }));
    Server::start(listener, limited, connection, move |peer, shutdown| Router {
        node: Arc::clone(&node),
        shared: Arc::clone(&shared),
        peer,
        shutdown,
        session_turn: Arc::new(Semaphore::new(1)),
        traffic: None,
    })
}

/// The service of one connection.
struct Router {
    node: Arc<Node>,
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    shutdown: Shutdown,
    session_turn: Arc<Semaphore>,
    /// Known once a request has come.
    traffic: Option<Arc<ClientTraffic>>,
}

impl Service for Router {
    fn begin(&mut self, frame: &Bytes, idle: bool) -> Option<Boxed<Stage>> {
        let mut body = frame.clone();
        let head = match parse_head(&mut body) {
            Ok(head) => head,
            Err(error) => return Some(done(refuse(&error))),
        };
        let Some(handler) = find(head.api_key, head.api_version) else {
            let (api_key, api_version) = (head.api_key, head.api_version);
            let cause = format!("api key {api_key} version {api_version} is not served");
            return Some(done(Reply::Close(CloseCause::Header(cause))));
        };
        if !idle && !handler.overlaps {
            return None;
        }
        if let Some(client_id) = &head.client_id {
            self.peer.introduce(client_id);
        }
        let clients = &self.node.metrics.clients;
        let traffic = Arc::clone(
            self.traffic
                .get_or_insert_with(|| clients.of(head.client_id.as_deref().unwrap_or_default())),
        );
        traffic.received(frame.len());
        Some((handler.begin)(self.context(handler, head, traffic), body))
    }

    fn client_ended(&mut self) {
        self.peer.end();
    }
}

impl Router {
    fn context(
        &self,
        handler: &Handler,
        head: RequestHead,
        traffic: Arc<ClientTraffic>,
    ) -> RequestContext {
        RequestContext {
            node: Arc::clone(&self.node),
            shared: Arc::clone(&self.shared),
            api: handler.api.key,
            api_key: head.api_key,
            api_version: head.api_version,
            correlation_id: head.correlation_id,
            client_id: head.client_id.as_ref().map(unshared),
            connection: self.peer.connection,
            client: Arc::clone(&self.peer),
            peer: self.peer.addr,
            local: self.peer.local,
            shutdown: self.shutdown.clone(),
            session_turn: Arc::clone(&self.session_turn),
            traffic,
            begun: Instant::now(),
        }
    }
}

/// Kafka closes the connection of a client that asks for what it does not know, without a word;
/// only `ApiVersions` is answered, so that the client can try an older version (KIP-35).
fn refuse(error: &HeadError) -> Reply {
    match *error {
        HeadError::UnsupportedVersion { api_key, correlation_id, .. }
            if api_key == ApiKey::ApiVersions as i16 =>
        {
            api_versions::unsupported(correlation_id)
        }
        _ => Reply::Close(CloseCause::Header(error.to_string())),
    }
}

/// A copy of its own: a slice keeps the whole frame of a request for as long as the request waits,
/// and a frame may be `socket.request.max.bytes` long.
fn unshared(slice: &StrBytes) -> StrBytes {
    StrBytes::from_string(slice.to_string())
}

/// Runs `work` on the blocking pool; its panic goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// Like [`blocking`], for work that keeps a core busy for as long as a client's bytes want it: no
/// more of it at once than there are cores, whatever the number of clients.
async fn computing<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let permit = Arc::clone(&shared.cores).acquire_owned().await.expect("it is never closed");
    blocking(move || {
        let done = work();
        // Held by the work, not by who waits for it: a caller that goes away does not end it.
        drop(permit);
        done
    })
    .await
}

fn done(reply: Reply) -> Boxed<Stage> {
    Box::pin(std::future::ready(Stage::Done(reply)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_has_one_handler_and_one_that_the_protocol_knows() {
        for handler in HANDLERS {
            let key = handler.api.key as i16;
            let known = vltava_protocol::api::KnownApi::find(key).unwrap();
            assert!(known.min <= handler.api.min && handler.api.max <= known.max, "{known:?}");
            assert_eq!(HANDLERS.iter().filter(|other| other.api.key as i16 == key).count(), 1);
        }
    }

    #[test]
    fn a_copied_name_does_not_keep_its_frame() {
        let frame = Bytes::from(vec![b'x'; 1000]);
        let slice = StrBytes::try_from(frame.slice(..4)).unwrap();
        let copy = unshared(&slice);
        assert_eq!(copy, slice);
        drop(slice);
        assert!(frame.is_unique(), "only the frame's owner is left");
    }

    #[test]
    fn versions_outside_the_table_are_not_found() {
        assert!(find(0, 3).is_some());
        assert!(find(0, 2).is_none(), "advertised from 0, served from 3");
        assert!(find(1, 19).is_none());
        assert!(find(-1, 0).is_none());
        assert_eq!(name_of(18), Some("ApiVersions"));
        assert_eq!(name_of(4), None);
    }
}
