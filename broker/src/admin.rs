//! The admin listener: `/metrics` in Prometheus' text format, and `/health`.
//!
//! `/health` answers 200 `ok` while the node serves, 503 with a line for each thing that is wrong.
//! The listener is for operators: it is bound to loopback unless told otherwise, and knows nothing
//! of Kafka's rights.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::error;

use crate::metrics::Metrics;
use crate::node::Node;
use crate::node_metrics;

/// What `/health` asks: one line for each thing that is wrong.
type Complaints = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// A running admin listener.
#[derive(Debug)]
pub struct AdminServer {
    addr: SocketAddr,
    end: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl AdminServer {
    /// Serves the node's pages on `listener`, which [`server::bind`](crate::server::bind) has
    /// bound.
    pub fn start(listener: TcpListener, node: Arc<Node>) -> io::Result<Self> {
        node_metrics::gather(&node);
        let metrics = Arc::clone(&node.metrics);
        Self::serve(listener, metrics, Arc::new(move || node_metrics::complaints(&node)))
    }

    fn serve(
        listener: TcpListener,
        metrics: Arc<Metrics>,
        complaints: Complaints,
    ) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        let (end, told) = oneshot::channel::<()>();
        let serving = axum::serve(listener, pages(metrics, complaints))
            // A dropped sender ends it as well.
            .with_graceful_shutdown(async { drop(told.await) });
        let serving = tokio::spawn(async move {
            if let Err(failure) = serving.await {
                error!(%failure, "the admin listener failed");
            }
        });
        Ok(Self { addr, end, serving })
    }

    /// The address listened on, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends the listener; a scraper that keeps its connection open is not waited for.
    pub async fn shutdown(self) {
        drop(self.end);
        self.serving.abort();
        // Aborted or done: both are the end.
        let _ = self.serving.await;
    }
}

fn pages(metrics: Arc<Metrics>, complaints: Complaints) -> Router {
    const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let page = move || {
        let metrics = Arc::clone(&metrics);
        async move { ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics.encode()) }
    };
    let health = move || {
        let complaints = Arc::clone(&complaints);
        async move {
            let wrong = complaints();
            if wrong.is_empty() {
                (StatusCode::OK, "ok\n".to_owned()).into_response()
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, wrong.join("\n") + "\n").into_response()
            }
        }
    };
    Router::new().route("/metrics", get(page)).route("/health", get(health))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(addr: SocketAddr, path: &str) -> String {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn start(wrong: &'static [&'static str]) -> AdminServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let complaints = move || wrong.iter().map(|line| (*line).to_owned()).collect();
        AdminServer::serve(listener, Arc::default(), Arc::new(complaints)).unwrap()
    }

    #[tokio::test]
    async fn pages_answer_until_shutdown() {
        let server = start(&[]).await;
        let addr = server.addr();
        let metrics = ask(addr, "/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
        assert!(metrics.contains("vltava_connections_open 0"), "{metrics}");
        assert!(ask(addr, "/health").await.ends_with("ok\n"));
        assert!(ask(addr, "/").await.starts_with("HTTP/1.1 404"));
        server.shutdown().await;
        assert!(TcpStream::connect(addr).await.is_err());
    }

    #[tokio::test]
    async fn health_tells_what_is_wrong() {
        let server = start(&["disk failed", "2 partitions fenced"]).await;
        let answer = ask(server.addr(), "/health").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("disk failed\n2 partitions fenced\n"), "{answer}");
        server.shutdown().await;
    }
}
