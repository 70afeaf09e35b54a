use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vltava_protocol::messages::{ApiKey, HeartbeatResponse, encode_response};

use super::*;
use crate::config::value::ConfigValue;
use crate::connection::{Boxed, Reply, Stage};
use crate::request_memory::RequestMemory;

const PATIENCE: Duration = Duration::from_secs(5);

/// Answers every request with a Heartbeat response.
struct Echo;

impl Service for Echo {
    fn begin(&mut self, _: &Bytes, _: bool) -> Option<Boxed<Stage>> {
        let response = HeartbeatResponse::default();
        let frame = encode_response(7, ApiKey::Heartbeat, 0, &response).unwrap();
        Some(Box::pin(async move { Stage::Done(Reply::Frame(frame.into_frame_of())) }))
    }
}

fn start(connections_max: usize, connections_per_ip_max: usize) -> (Server, ConnectionMetrics) {
    start_with(Limits { connections_max, connections_per_ip_max, overrides: overrides("") })
}

fn overrides(text: &str) -> ConnectionsPerIp {
    ConnectionsPerIp::read(Some(text)).unwrap()
}

fn start_with(limits: Limits) -> (Server, ConnectionMetrics) {
    let connection = ConnectionConfig {
        request_bytes_max: 1000,
        idle_max: None,
        receive_max: None,
        memory: RequestMemory::new(None),
        metrics: ConnectionMetrics::default(),
    };
    let metrics = connection.metrics.clone();
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (_, limits) = tokio::sync::watch::channel(limits);
    (Server::start(listener, limits, connection, |_, _| Echo).unwrap(), metrics)
}

/// Whether a new connection is served; it stays open with its socket.
async fn connect(server: &Server) -> (TcpStream, bool) {
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    socket.write_all(&[0, 0, 0, 1, 9]).await.unwrap();
    let mut response = [0; 10];
    let served = socket.read_exact(&mut response).await.is_ok();
    (socket, served)
}

#[tokio::test]
async fn connections_over_the_limit_of_an_address_are_refused_and_room_comes_back() {
    let overridden = Limits {
        connections_max: 100,
        connections_per_ip_max: 0,
        overrides: overrides("10.0.0.1:0, 127.0.0.1:2"),
    };
    for (server, metrics) in [start(100, 2), start_with(overridden)] {
        let (first, served) = connect(&server).await;
        assert!(served);
        let (_second, served) = connect(&server).await;
        assert!(served);
        assert!(!connect(&server).await.1);
        assert_eq!(metrics.refused.get(), 1);
        drop(first);
        // The end of the first is noticed on the way: the accepting task handles both.
        while !connect(&server).await.1 {}
        server.shutdown_within(PATIENCE).await;
    }
}

#[tokio::test]
async fn connections_over_the_limit_of_all_wait_until_others_end() {
    let (server, metrics) = start(2, 100);
    let (first, _) = connect(&server).await;
    let (_second, served) = connect(&server).await;
    assert!(served);
    let mut third = Box::pin(connect(&server));
    tokio::select! {
        biased;
        _ = &mut third => panic!("there is no room"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(metrics.accepted.get(), 2);
    drop(first);
    assert!(third.as_mut().await.1);
    drop(third);
    assert_eq!((metrics.accepted.get(), metrics.refused.get()), (3, 0));
    server.shutdown_within(PATIENCE).await;
}

#[tokio::test]
async fn shutdown_closes_idle_connections_and_the_port() {
    let (server, _) = start(10, 10);
    let addr = server.addr();
    let (mut socket, _) = connect(&server).await;
    server.shutdown_within(PATIENCE).await;
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(TcpStream::connect(addr).await.is_err());
    assert!(bind(addr).is_ok(), "the port is free at once");
}

#[tokio::test]
async fn a_port_in_use_is_an_error_at_bind() {
    let (server, _) = start(10, 10);
    assert_eq!(bind(server.addr()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    server.shutdown_within(PATIENCE).await;
}

#[test]
fn log_lines_show_a_bounded_client_id() {
    let addr = "127.0.0.1:1".parse().unwrap();
    let peer = Peer::new(1, addr, addr);
    assert_eq!(peer.client_id(), "");
    peer.introduce(&"x".repeat(1000));
    peer.introduce("second");
    assert_eq!(peer.client_id().len(), CLIENT_ID_CHARS_MAX);
}
