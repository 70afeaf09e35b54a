//! The Kafka listener: accepts connections, keeps their number, ends them all.
//!
//! One task accepts, one task serves each connection; the accepting task owns and joins the
//! others. What a connection serves is a [`Service`] that `make` builds for each, so that this file
//! knows no handler. Out of descriptors is survived: accepting pauses, connections go on.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{Id, JoinHandle, JoinSet};
use tracing::{debug, error, info, warn};

use crate::config::value::ConnectionsPerIp;
use crate::connection::{Connection, ConnectionConfig, Ended, Service};
use crate::metrics::ConnectionMetrics;

/// Connections the kernel completes before they are accepted.
const BACKLOG: u32 = 1024;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE_MS: u64 = 100;
/// More time for connections to end than they were given: each bounds its own drain, this is for
/// one that cannot even do that.
const DRAIN_GRACE: Duration = Duration::from_millis(100);
/// Most characters of a client id that a log line shows.
const CLIENT_ID_CHARS_MAX: usize = 100;

/// How many connections there may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `max.connections`: more wait unaccepted (`ConnectionQuotas.waitForConnectionSlot`).
    pub connections_max: usize,
    /// `max.connections.per.ip`: more are closed at once.
    pub connections_per_ip_max: usize,
    /// `max.connections.per.ip.overrides`.
    pub overrides: ConnectionsPerIp,
}

impl Limits {
    fn of(&self, ip: IpAddr) -> usize {
        // An IPv4 client of a listener on all addresses may show as an IPv6 one.
        self.overrides.of(ip.to_canonical()).unwrap_or(self.connections_per_ip_max)
    }
}

/// The other end of a connection, for log lines and handlers.
#[derive(Debug)]
pub struct Peer {
    /// Number of the connection since the start of the process.
    pub connection: u64,
    /// Where it comes from.
    pub addr: SocketAddr,
    /// The address it reached us at.
    pub local: SocketAddr,
    client_id: OnceLock<Box<str>>,
    /// Whether the client has ended its side.
    ended: watch::Sender<bool>,
}

/// Tells everything begun that the server wants to end. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Option<Duration>>);

/// A running listener. Dropping it aborts its connections; [`Self::shutdown_within`] lets them finish.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    /// How long the connections may take once the end was asked for.
    end: watch::Sender<Option<Duration>>,
    accepting: JoinHandle<()>,
}

/// Binds `addr`, so that a port in use is known before anything else has begun. Port 0 takes a
/// free one.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a former process in TIME_WAIT do not keep the port.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

impl Peer {
    /// A peer whose client id is not known yet.
    pub fn new(connection: u64, addr: SocketAddr, local: SocketAddr) -> Self {
        let ended = watch::Sender::new(false);
        Self { connection, addr, local, client_id: OnceLock::new(), ended }
    }

    /// Remembers the client id of the first request that names one.
    pub fn introduce(&self, client_id: &str) {
        if self.client_id.get().is_none() {
            let shown: String = client_id.chars().take(CLIENT_ID_CHARS_MAX).collect();
            let _ = self.client_id.set(shown.into());
        }
    }

    /// Remembers that the client has ended its side.
    pub fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Completes when the client has ended its side.
    pub async fn ended(&self) {
        // The sender lives as long as this.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// The client id, or nothing.
    pub fn client_id(&self) -> &str {
        self.client_id.get().map_or("", |id| id)
    }
}

impl Shutdown {
    /// Completes when the server wants to end, also when it is gone.
    pub async fn requested(&self) {
        let mut told = self.0.clone();
        // An error says that the sender is dropped: that is an end as well.
        let _ = told.wait_for(Option::is_some).await;
    }

    /// How long the connections may take to end. Nothing, if the server is gone.
    fn patience(&self) -> Duration {
        self.0.borrow().unwrap_or_default()
    }
}

impl Server {
    /// Serves `listener`; each connection with what `make` builds for it. Limits may change while
    /// it runs; connections that there are stay, however many.
    pub fn start<V: Service>(
        listener: TcpListener,
        limits: watch::Receiver<Limits>,
        connection: ConnectionConfig,
        make: impl Fn(Arc<Peer>, Shutdown) -> V + Send + 'static,
    ) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        let (end, told) = watch::channel(None);
        let shutdown = Shutdown(told);
        let acceptor = Acceptor {
            limits,
            metrics: connection.metrics.clone(),
            connection,
            shutdown: shutdown.clone(),
            connections: JoinSet::new(),
            addresses: HashMap::new(),
            per_ip: HashMap::new(),
            accepted: 0,
        };
        let accepting = tokio::spawn(acceptor.run(listener, make));
        Ok(Self { addr, end, accepting })
    }

    /// The address listened on, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting and reading, answers what has begun, within `patience` and
    /// [`DRAIN_MS_MAX`](crate::connection::DRAIN_MS_MAX), and returns when all connections are
    /// closed.
    pub async fn shutdown_within(self, patience: Duration) {
        let _ = self.end.send(Some(patience));
        if let Err(failure) = self.accepting.await {
            error!(%failure, "the accepting task failed");
        }
    }
}

/// The accepting task.
struct Acceptor {
    limits: watch::Receiver<Limits>,
    connection: ConnectionConfig,
    metrics: ConnectionMetrics,
    shutdown: Shutdown,
    connections: JoinSet<()>,
    addresses: HashMap<Id, IpAddr>,
    per_ip: HashMap<IpAddr, usize>,
    accepted: u64,
}

impl Acceptor {
    async fn run<V: Service>(
        mut self,
        listener: TcpListener,
        make: impl Fn(Arc<Peer>, Shutdown) -> V + Send,
    ) {
        let shutdown = self.shutdown.clone();
        let mut told = std::pin::pin!(shutdown.requested());
        loop {
            let has_room = self.connections.len() < self.limits.borrow().connections_max;
            tokio::select! {
                () = &mut told => break,
                Some(ended) = self.connections.join_next_with_id() => {
                    self.forget(ended.map_or_else(|failed| failed.id(), |(id, ())| id));
                }
                () = changed(&mut self.limits) => {}
                accepted = listener.accept(), if has_room => match accepted {
                    Ok((socket, addr)) => self.admit(socket, addr, &make),
                    Err(error) => pause_after(&error).await,
                },
            }
        }
        drop(listener);
        info!(connections = self.connections.len(), "draining client connections");
        let drained = async { while self.connections.join_next().await.is_some() {} };
        let limit = shutdown.patience() + DRAIN_GRACE;
        if tokio::time::timeout(limit, drained).await.is_err() {
            warn!("client connections did not drain in time");
            self.connections.shutdown().await;
        }
    }

    fn admit<V: Service>(
        &mut self,
        socket: TcpStream,
        addr: SocketAddr,
        make: &impl Fn(Arc<Peer>, Shutdown) -> V,
    ) {
        let of_ip = self.per_ip.get(&addr.ip()).copied().unwrap_or(0);
        if of_ip >= self.limits.borrow().of(addr.ip()) {
            self.metrics.refused.inc();
            debug!(peer = %addr, "connection refused: too many of this address");
            return;
        }
        let set_up = socket.set_nodelay(true).and_then(|()| socket.local_addr());
        let local = match set_up {
            Ok(local) => local,
            Err(error) => {
                debug!(peer = %addr, %error, "connection gone before it was served");
                return;
            }
        };
        self.accepted += 1;
        self.metrics.accepted.inc();
        self.metrics.open.inc();
        let peer = Arc::new(Peer::new(self.accepted, addr, local));
        let service = make(Arc::clone(&peer), self.shutdown.clone());
        let shutdown = self.shutdown.clone();
        let told = async move { shutdown.requested().await };
        let connection = Connection::new(socket, service, &self.connection, told);
        let connections_max = self.limits.borrow().connections_max;
        if self.connections.len() + 1 == connections_max {
            warn!(connections = connections_max, "max.connections reached: more wait");
        }
        let metrics = self.metrics.clone();
        let task = self.connections.spawn(async move {
            let ended = connection.serve().await;
            report(&peer, &ended, &metrics);
        });
        self.addresses.insert(task.id(), addr.ip());
        *self.per_ip.entry(addr.ip()).or_default() += 1;
    }

    fn forget(&mut self, connection: Id) {
        self.metrics.open.dec();
        let ip = self.addresses.remove(&connection).expect("every task was entered");
        let count = self.per_ip.get_mut(&ip).expect("an address is counted while it has a task");
        *count -= 1;
        if *count == 0 {
            self.per_ip.remove(&ip);
        }
    }
}

/// Completes when the limits change; never, when nobody is left to change them. Cancel-safe.
async fn changed(limits: &mut watch::Receiver<Limits>) {
    if limits.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn report(peer: &Peer, ended: &Ended, metrics: &ConnectionMetrics) {
    let (addr, client_id) = (peer.addr, peer.client_id());
    match ended {
        Ended::Closed(cause) => {
            metrics.closed_for_cause.inc();
            warn!(peer = %addr, client_id, %cause, "connection closed");
        }
        Ended::Failed(error) => debug!(peer = %addr, client_id, %error, "connection failed"),
        Ended::Idle => {
            metrics.closed_idle.inc();
            debug!(peer = %addr, client_id, "connection closed: idle");
        }
        Ended::ByClient | Ended::Shutdown => debug!(peer = %addr, client_id, "connection ended"),
    }
}

/// An accept fails for the one connection, or for want of something: then a pause lets others end.
async fn pause_after(error: &io::Error) {
    let of_one = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
    ];
    if of_one.contains(&error.kind()) {
        debug!(%error, "connection gone before it was accepted");
        return;
    }
    warn!(%error, "cannot accept connections, trying again");
    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
}

#[cfg(test)]
mod tests;
