//! The admin listener: `/metrics` in Prometheus' text format, `/health`, `/groups/<name>`, and
//! `/pipelines` ([`pipelines`]).
//!
//! `/health` answers 200 `ok` while the node serves, 503 with a line for each thing that is wrong.
//! `/groups/<name>` tells all that is known of a group, in the shape of
//! [`report`](crate::coordinator::report).
//! The listener is for operators: it is bound to loopback unless told otherwise, and knows nothing
//! of Kafka's rights.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::error;
use vltava_protocol::error_code::ErrorCode;

use crate::coordinator::explain::explain;
use crate::coordinator::report::{ErrorReport, GroupReport};
use crate::group_metrics;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::node_metrics;
use crate::pipelines;

/// What `/health` asks: one line for each thing that is wrong.
type Complaints = Arc<dyn Fn() -> Vec<String> + Send + Sync>;
/// What `/groups/<name>` asks. It may block.
type Explain = Arc<dyn Fn(&str) -> Result<GroupReport, ErrorCode> + Send + Sync>;

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
        group_metrics::gather(&node);
        pipelines::gather(&node);
        let of_pipelines = pipelines::pages(&node.pipelines);
        let metrics = Arc::clone(&node.metrics);
        let explaining = Arc::clone(&node);
        let explain: Explain = Arc::new(move |group| explain(&explaining, group));
        let complaints: Complaints = Arc::new(move || node_metrics::complaints(&node));
        Self::serve(listener, pages(metrics, complaints, explain).merge(of_pipelines))
    }

    fn serve(listener: TcpListener, pages: Router) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        let (end, told) = oneshot::channel::<()>();
        let serving = axum::serve(listener, pages)
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

fn pages(metrics: Arc<Metrics>, complaints: Complaints, explain: Explain) -> Router {
    const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let page = move || {
        let metrics = Arc::clone(&metrics);
        // The lags of groups are read from logs.
        blocking(move || ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics.encode()).into_response())
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
    let group = move |Path(group): Path<String>| {
        let explain = Arc::clone(&explain);
        blocking(move || group_page(explain(&group), &group))
    };
    Router::new()
        .route("/metrics", get(page))
        .route("/health", get(health))
        .route("/groups/{group}", get(group))
}

/// A page that may take its time.
async fn blocking(page: impl FnOnce() -> Response + Send + 'static) -> Response {
    let made = tokio::task::spawn_blocking(page).await;
    made.unwrap_or_else(|failure| {
        error!(%failure, "a page of the admin listener failed");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

fn group_page(report: Result<GroupReport, ErrorCode>, group: &str) -> Response {
    let (status, body) = match report {
        Ok(report) => (StatusCode::OK, serde_json::to_string(&report)),
        Err(code) => {
            let (status, error) = if code == ErrorCode::GroupIdNotFound {
                (StatusCode::NOT_FOUND, format!("there is no group {group}"))
            } else {
                let error = format!("this node does not coordinate the group {group} now");
                (StatusCode::SERVICE_UNAVAILABLE, error)
            };
            let report = ErrorReport { error, code: code.name().to_owned() };
            (status, serde_json::to_string(&report))
        }
    };
    let body = body.expect("texts and numbers are JSON");
    (status, [(header::CONTENT_TYPE, "application/json")], body + "\n").into_response()
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
        let explain = |group: &str| match group {
            "a/b" => Ok(GroupReport { group: group.to_owned(), ..GroupReport::default() }),
            "elsewhere" => Err(ErrorCode::NotCoordinator),
            _ => Err(ErrorCode::GroupIdNotFound),
        };
        let pages = pages(Arc::default(), Arc::new(complaints), Arc::new(explain));
        AdminServer::serve(listener, pages).unwrap()
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

    #[tokio::test]
    async fn groups_are_told_of_by_their_names() {
        let server = start(&[]).await;
        for (path, status, wanted) in [
            ("/groups/a%2Fb", "200", r#""group":"a/b""#),
            ("/groups/none", "404", r#""code":"GROUP_ID_NOT_FOUND""#),
            ("/groups/elsewhere", "503", r#""code":"NOT_COORDINATOR""#),
        ] {
            let answer = ask(server.addr(), path).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(answer.contains(wanted), "{answer}");
        }
        server.shutdown().await;
    }
}
