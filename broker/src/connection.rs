//! One client connection: frames in, requests started in order, responses out in order.
//!
//! ```text
//!            decode           ordered half            rest, one at a time at the head
//! socket ─▶ buffer ─▶ [starting: 0..1] ─▶ [waiting: 0..=PIPELINE_MAX] ─▶ [outgoing] ─▶ socket
//! ```
//!
//! * A request begins only when the one before it has fixed its order: a Produce once its batches
//!   are in the log, a Fetch once its session is settled. The rest of a Produce or Fetch (quorum,
//!   long poll) overlaps with what follows; every other request begins when all before it are done.
//! * Responses leave in request order. Only the head of `waiting` is polled: what lies behind it
//!   cannot leave earlier, and completes on its own.
//! * Everything is bounded: frames stay in the buffer until they may begin, so a client that sends
//!   without reading, or reads slower than it asks, stops being read. Large frames take room that all
//!   connections share ([`crate::request_memory`]).
//! * Nobody is served at the cost of all: a connection whose requests are always ready gives its
//!   worker up after a slice of time.
//! * A request must be whole within a time of its first byte, or the connection closes; the time that
//!   we do not read it does not count. A large one must come fast while others find no room.
//! * A request that panics, or that cannot be answered, ends this connection alone, after the
//!   responses before it.
//! * A begun request is polled until its order is fixed, an exclusive one to its end, also when the
//!   client has gone; only the end of the process, and of a shutdown's patience, cuts it short.
//!
//! The service behind is a port, [`Service`], so that this file knows no API but the frame. Nothing
//! here survives the connection. All of it runs in the one task of the connection: no lock, no
//! channel.

use std::any::Any;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vltava_protocol::messages::ResponseFrame;

use self::incoming::{Frame, Incoming, Read};
use self::outgoing::{Next, Outgoing, Waiting};
pub use self::outgoing::{OUTGOING_BYTES_MAX, Part};
pub use self::socket::Socket;
use self::timers::{Expired, Timers};
use crate::metrics::{ConnectionMetrics, Histogram};
use crate::request_memory::{Held, RequestMemory};

mod incoming;
mod outgoing;
mod socket;
mod timers;

/// Most requests begun and unanswered at once.
pub const PIPELINE_MAX: usize = 64;
/// How long a connection may keep its worker while requests are ready.
const SLICE: Duration = Duration::from_micros(500);
/// Most slices of one `writev`, Linux's `IOV_MAX` is far above; more gives nothing.
const WRITE_SLICES_MAX: usize = 64;
/// How long a connection that is told to end may take to answer what has begun.
pub const DRAIN_MS_MAX: u64 = 5_000;

/// A boxed future of a connection's task.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What stands behind a connection and answers its requests.
pub trait Service: Send + 'static {
    /// Begins the request in `frame` (header and body, without the length). `None` when it must
    /// wait until everything begun before it is done; it is then offered again, with `idle` true.
    /// With `idle` true it begins in any case.
    fn begin(&mut self, frame: &Bytes, idle: bool) -> Option<Boxed<Stage>>;

    /// The client has ended its side: it will send nothing more. What waits for somebody else may
    /// take that for its end; what is nearly done is answered all the same.
    fn client_ended(&mut self) {}
}

/// How far a begun request has come.
pub enum Stage {
    /// Done.
    Done(Reply),
    /// Its order is fixed: the next request may begin while this rest waits.
    Ordered(Boxed<Reply>),
}

/// What a request leaves behind.
pub enum Reply {
    /// A response.
    Frame(ResponseFrame<Part>),
    /// No response, as for a Produce with acks 0.
    Silent,
    /// The connection closes after the responses before this one; says why.
    Close(CloseCause),
}

/// Why the server closes a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseCause {
    /// The length prefix is outside the bounds.
    #[error("bad frame: {0}")]
    Frame(String),
    /// The request header cannot be read, or names a key or version that is not served.
    #[error("bad request header: {0}")]
    Header(String),
    /// The request body cannot be read.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// A response could not be encoded: a defect of ours.
    #[error("{0}")]
    Encode(String),
    /// A request was not whole in time.
    #[error("a request was received too slowly")]
    Slow,
    /// A Produce with acks 0 failed; closing is the only way to tell.
    #[error("produce without acknowledgment failed: {0}")]
    Unacknowledged(String),
    /// A handler panicked: a defect of ours.
    #[error("request panicked: {0}")]
    Panicked(String),
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// The client closed it.
    ByClient,
    /// Nothing moved for `connections.max.idle.ms`.
    Idle,
    /// The server shuts down.
    Shutdown,
    /// The server closed it.
    Closed(CloseCause),
    /// The socket failed.
    Failed(io::Error),
}

/// What a connection is told at birth.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Largest request, `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`; `None` keeps idle connections.
    pub idle_max: Option<Duration>,
    /// `socket.request.receive.timeout.ms`; `None` waits for as long as the client likes.
    pub receive_max: Option<Duration>,
    /// The room that large requests share.
    pub memory: RequestMemory,
    /// What the connections count together.
    pub metrics: ConnectionMetrics,
}

/// One connection over a stream `S`, a socket or a test's pipe.
pub struct Connection<S, V> {
    socket: S,
    service: V,
    incoming: Incoming,
    /// A whole frame that waits until everything before it is done.
    parked: Option<Frame>,
    starting: Option<Starting>,
    waiting: VecDeque<Waiting>,
    /// Bytes of the responses in `waiting`.
    waiting_bytes: usize,
    outgoing: Outgoing,
    queue_time: Histogram,
    /// When bytes came last: with them whatever is whole and has not begun.
    arrived: Instant,
    /// Whether frames may still begin: not behind a request that closes the connection.
    accepting: bool,
    /// Nobody is left to answer: what the request at work leaves behind is dropped.
    abandoned: bool,
    /// No more is read; this is how it ends once all that has begun is answered.
    ending: Option<Ended>,
    timers: Timers,
    shutdown: Boxed<()>,
}

/// A request that is fixing its order, with the room of its frame.
struct Starting {
    stage: Boxed<Stage>,
    _held: Held,
}

impl<S, V> Connection<S, V>
where
    S: Socket,
    V: Service,
{
    /// A connection that serves `socket` until it ends or `shutdown` completes.
    pub fn new(
        socket: S,
        service: V,
        config: &ConnectionConfig,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self {
            socket,
            service,
            incoming: Incoming::new(config.request_bytes_max, config.memory.clone()),
            parked: None,
            starting: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            outgoing: Outgoing::new(config.metrics.unread_bytes.clone()),
            queue_time: config.metrics.queue_time.clone(),
            arrived: Instant::now(),
            accepting: true,
            abandoned: false,
            ending: None,
            timers: Timers::new(config.idle_max, config.receive_max),
            shutdown: Box::pin(shutdown),
        }
    }

    /// Serves to the end. Dropping the future closes the connection at once: appended batches
    /// stay appended, unsent responses are lost, a request at work is cut short.
    pub async fn serve(mut self) -> Ended {
        let told = poll_fn(|cx| self.poll_until_told(cx)).await;
        if !matches!(told, Ended::Shutdown) {
            return told;
        }
        // Begin nothing more, answer what has begun, within a bound.
        self.accepting = false;
        self.ending = Some(Ended::Shutdown);
        let drained = poll_fn(|cx| self.poll_serve(cx));
        let limit = Duration::from_millis(DRAIN_MS_MAX);
        tokio::time::timeout(limit, drained).await.unwrap_or(Ended::Shutdown)
    }

    fn poll_until_told(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if self.shutdown.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ended::Shutdown);
        }
        self.poll_serve(cx)
    }

    /// Goes round as long as anything moves, within a slice of time: then others have their turn.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let slice = Instant::now() + SLICE;
        loop {
            let mut moved = self.poll_begin(cx, slice);
            moved |= self.poll_waiting(cx);
            moved |= self.poll_write(cx).unwrap_or_else(|error| {
                self.lose(error);
                true
            });
            moved |= self.poll_read(cx);
            if !moved {
                break;
            }
            if Instant::now() >= slice {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        // Nothing moved, so no frame that could begin is left in the buffer.
        if self.is_quiet()
            && let Some(ended) = self.ending.take()
        {
            return Poll::Ready(ended);
        }
        self.poll_timers(cx)
    }

    /// Whether no request is under way and no response unsent.
    fn is_quiet(&self) -> bool {
        self.starting.is_none() && self.waiting.is_empty() && self.outgoing.bytes == 0
    }

    /// Moves the request that is fixing its order, and begins those behind it, until `slice` ends.
    fn poll_begin(&mut self, cx: &mut Context<'_>, slice: Instant) -> bool {
        let mut moved = false;
        loop {
            if let Some(starting) = self.starting.as_mut() {
                match guarded(|| starting.stage.as_mut().poll(cx)) {
                    Ok(Poll::Pending) => return moved,
                    Ok(Poll::Ready(_)) if self.abandoned => self.starting = None,
                    Ok(Poll::Ready(Stage::Done(Reply::Close(cause)))) => {
                        self.starting = None;
                        self.close_in_order(cause);
                    }
                    Ok(Poll::Ready(Stage::Done(reply))) if self.waiting.is_empty() => {
                        self.starting = None;
                        self.finish(reply);
                    }
                    Ok(Poll::Ready(Stage::Done(reply))) => {
                        self.starting = None;
                        self.wait(Waiting::Ready(reply));
                    }
                    Ok(Poll::Ready(Stage::Ordered(rest))) => {
                        self.starting = None;
                        self.wait(Waiting::Rest(rest));
                    }
                    Err(panic) => {
                        self.starting = None;
                        self.close_in_order(CloseCause::Panicked(panic));
                    }
                }
                moved = true;
            }
            if self.is_full() || (moved && Instant::now() >= slice) {
                return moved;
            }
            let Some(frame) = self.next_frame() else {
                return moved;
            };
            let idle = self.waiting.is_empty();
            match guarded(|| self.service.begin(&frame.bytes, idle)) {
                Ok(Some(stage)) => {
                    self.queue_time.observe(self.arrived.elapsed());
                    self.starting = Some(Starting { stage, _held: frame.held });
                }
                Ok(None) => {
                    assert!(!idle, "an idle connection's request begins");
                    self.parked = Some(frame);
                    return moved;
                }
                Err(panic) => self.close_in_order(CloseCause::Panicked(panic)),
            }
            moved = true;
        }
    }

    /// The frame that is next in order, if it is whole.
    fn next_frame(&mut self) -> Option<Frame> {
        if !self.accepting {
            return None;
        }
        if let Some(frame) = self.parked.take() {
            return Some(frame);
        }
        match self.incoming.next() {
            Ok(None) => None,
            Ok(frame) => {
                self.timers.receiving(false);
                frame
            }
            Err(error) => {
                self.close_in_order(CloseCause::Frame(error.to_string()));
                None
            }
        }
    }

    /// Whether as much is under way or unread as may be.
    fn is_full(&self) -> bool {
        self.waiting.len() >= PIPELINE_MAX
            || self.outgoing.bytes + self.waiting_bytes >= OUTGOING_BYTES_MAX
    }

    /// Lets a begun request wait for its turn to be answered.
    fn wait(&mut self, waiting: Waiting) {
        self.waiting_bytes += waiting.bytes();
        self.waiting.push_back(waiting);
    }

    /// Completes the waiting requests from the head on.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.outgoing.is_full()
            && let Some(head) = self.waiting.pop_front()
        {
            self.waiting_bytes -= head.bytes();
            let reply = match head {
                Waiting::Ready(reply) => reply,
                Waiting::Rest(mut rest) => match guarded(|| rest.as_mut().poll(cx)) {
                    Ok(Poll::Pending) => {
                        self.waiting.push_front(Waiting::Rest(rest));
                        break;
                    }
                    Ok(Poll::Ready(reply)) => reply,
                    Err(panic) => Reply::Close(CloseCause::Panicked(panic)),
                },
            };
            self.finish(reply);
            moved = true;
        }
        moved
    }

    /// Takes the reply of the oldest request.
    fn finish(&mut self, reply: Reply) {
        match reply {
            Reply::Frame(frame) => self.outgoing.push(frame),
            Reply::Silent => {}
            Reply::Close(cause) => {
                // What was begun behind it is not answered; what was before it is on its way.
                self.abandon(Ended::Closed(cause));
            }
        }
    }

    /// Closes after the responses of everything begun before; nothing more begins.
    fn close_in_order(&mut self, cause: CloseCause) {
        self.accepting = false;
        self.wait(Waiting::Ready(Reply::Close(cause)));
    }

    /// Answers nothing more and ends. The request at work runs on to where its order is fixed: a
    /// handler that changes things need not fear that a client's disconnect stops it half-way.
    fn abandon(&mut self, ended: Ended) {
        self.accepting = false;
        self.abandoned = true;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.ending = Some(ended);
    }

    /// The socket failed: nobody reads the answers.
    fn lose(&mut self, error: io::Error) {
        self.outgoing.clear();
        self.abandon(Ended::Failed(error));
    }

    /// Writes what waits: many responses with one system call, and large runs of batches straight
    /// from their files.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        while self.outgoing.bytes > 0 {
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
            let sent = match self.outgoing.next(&mut slices) {
                Next::Memory(count, more) => self.socket.poll_send(cx, &slices[..count], more)?,
                Next::File(batches, sent) => self.socket.poll_send_file(cx, batches, sent)?,
            };
            let written = match sent {
                Poll::Pending => return Ok(moved),
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => written,
            };
            self.outgoing.advance(written);
            self.timers.touch();
            moved = true;
        }
        Ok(moved)
    }

    /// Reads when the buffer holds no frame that could begin; everything that has arrived, up to
    /// the room there is.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        let wanted = self.ending.is_none()
            && self.accepting
            && self.parked.is_none()
            && self.starting.is_none()
            && !self.incoming.is_ready()
            && !self.is_full();
        if !wanted {
            self.timers.receiving(false);
            return false;
        }
        let read = self.incoming.poll_read(&mut self.socket, cx);
        self.timers.receiving(self.incoming.awaits_client());
        if let Some(every) = self.incoming.look_every() {
            self.timers.watch(every);
        }
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(Read::End)) => {
                self.ending = Some(Ended::ByClient);
                self.service.client_ended();
            }
            Poll::Ready(Ok(Read::Some)) => {
                self.arrived = Instant::now();
                self.timers.touch();
            }
            Poll::Ready(Err(error)) => self.lose(error),
        }
        true
    }

    /// Ready when no byte has moved for too long and no request is under way; unread responses do
    /// not keep a connection, nor do waiting requests of a client that will send nothing more: it
    /// may be dead, and a long poll would hold its place for as long as it asked. Ready, too, when
    /// a request trickles in.
    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let awaited = self.ending.is_none() && !self.waiting.is_empty();
        let busy = self.starting.is_some() || awaited;
        let incoming = &mut self.incoming;
        self.timers.poll(cx, busy, || incoming.is_too_slow()).map(|expired| match expired {
            Expired::Idle => Ended::Idle,
            Expired::Receiving => Ended::Closed(CloseCause::Slow),
        })
    }
}

/// Runs a piece of a request; its panic becomes a text. State shared with other connections is
/// behind locks that do not poison and whose sections do not panic half-way (an assert there ends
/// the partition's group, not the node).
fn guarded<T>(piece: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(piece)).map_err(|payload| panic_text(payload.as_ref()))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("of unknown kind").to_owned()
}

#[cfg(test)]
mod tests;
