//! A bare loop: what this machine itself needs for the bytes that a broker takes in and gives out.
//!
//! ```text
//! read ──whole frame──> Service::answer ──prepared response, correlation id patched──> writev
//! ```
//!
//! One thread, sockets that do not block, one `poll` for all of them, and of ours nothing but the
//! encoders. It judges, keeps and promises nothing, so no broker can be below it by much. The client
//! is the code that drives the brokers, in the same minute: what a broker takes for a gibibyte,
//! divided by what this thread takes, is what being a broker costs.

use std::io::{ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vltava_benches::runs::Clock;
use vltava_protocol::frame::FRAME_LENGTH_BYTES;

use super::target::Spent;
use crate::error::{BenchError, io_error};

mod services;

pub(crate) use services::{Answer, Echo, Sink};

/// A client that does nothing for so long is given up.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };
/// Longest request that is taken: clients here send batches of 64 KiB.
const FRAME_BYTES_MAX: usize = 2 << 20;

/// What a bare loop does with requests.
pub(crate) trait Service: Send {
    /// Answers the request number `turn` of one connection, counted from 0. `frame` is whole, its
    /// length included.
    fn answer(&mut self, turn: usize, frame: &[u8]) -> Result<Answer, BenchError>;
}

/// Lets `client` talk to `service` through so many connections, which it must open at once and
/// close at the end. Tells what it gave, and what that took: the processor time is the loop's own.
pub(crate) fn beside<T>(
    service: &mut impl Service,
    connections: usize,
    client: impl FnOnce(SocketAddr) -> Result<T, BenchError>,
) -> Result<(T, Spent), BenchError> {
    let failed = || io_error("cannot listen for a bare loop");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed())?;
    let address = listener.local_addr().map_err(failed())?;
    thread::scope(|scope| {
        let server = scope.spawn(move || serve(&listener, connections, service));
        let started = Instant::now();
        let done = client(address);
        let wall = started.elapsed();
        // Where both failed, the loop knows why: the client saw no more than a closed connection.
        let processor = server.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok((done?, Spent { wall, processor }))
    })
}

/// Serves until all connections are closed. Returns the processor time of this thread.
fn serve(
    listener: &TcpListener,
    connections: usize,
    service: &mut impl Service,
) -> Result<Duration, BenchError> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        wait(&mut [PollFd::new(listener, PollFlags::IN)])?;
        let (socket, _) = listener.accept().map_err(io_error("cannot accept"))?;
        open.push(Connection::new(socket)?);
    }
    while !open.is_empty() {
        let mut polled: Vec<_> = open.iter().map(Connection::polled).collect();
        wait(&mut polled)?;
        let can_move: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (connection, can_move) in open.iter_mut().zip(can_move) {
            if can_move {
                connection.advance(service)?;
            }
        }
        open.retain(|connection| connection.is_open);
    }
    Ok(Clock::Thread.read())
}

fn wait(polled: &mut [PollFd<'_>]) -> Result<(), BenchError> {
    match poll(polled, Some(&PATIENCE)) {
        Ok(0) => Err(BenchError::TooLong("the client of a bare loop")),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(io_error("cannot wait for sockets")(error.into())),
    }
}

/// One client. It is read from only while no answer is on its way.
struct Connection {
    socket: TcpStream,
    is_open: bool,
    /// Requests that were answered.
    turn: usize,
    incoming: Vec<u8>,
    /// Bytes of `incoming` that have arrived.
    filled: usize,
    outgoing: Option<Answer>,
    /// Bytes of `outgoing` that the socket has taken.
    sent: usize,
}

impl Connection {
    fn new(socket: TcpStream) -> Result<Self, BenchError> {
        let failed = || io_error("cannot set up a connection");
        socket.set_nodelay(true).map_err(failed())?;
        socket.set_nonblocking(true).map_err(failed())?;
        let incoming = vec![0; FRAME_LENGTH_BYTES];
        let (outgoing, sent) = (None, 0);
        Ok(Self { socket, is_open: true, turn: 0, incoming, filled: 0, outgoing, sent })
    }

    fn polled(&self) -> PollFd<'_> {
        let flags = if self.outgoing.is_some() { PollFlags::OUT } else { PollFlags::IN };
        PollFd::new(&self.socket, flags)
    }

    /// Sends, reads and answers until the socket takes or has nothing more.
    fn advance(&mut self, service: &mut impl Service) -> Result<(), BenchError> {
        while self.is_open && self.send()? {
            let asked = self.make_room()?;
            let room = &mut self.incoming[self.filled..self.filled + asked];
            let got = match rustix::io::read(&self.socket, room) {
                Ok(0) | Err(Errno::CONNRESET) => {
                    self.is_open = false;
                    break;
                }
                Ok(got) => got,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(io_error("cannot receive")(error.into())),
            };
            self.filled += got;
            if let Some(end) = self.frame_end()?.filter(|end| *end <= self.filled) {
                self.outgoing = Some(service.answer(self.turn, &self.incoming[..end])?);
                self.turn += 1;
                self.incoming.copy_within(end..self.filled, 0);
                self.filled -= end;
            }
            if got < asked {
                // The socket was drained: asking again would tell nothing.
                self.send()?;
                break;
            }
        }
        Ok(())
    }

    /// Sends what the socket takes of the answer; whether none is left.
    fn send(&mut self) -> Result<bool, BenchError> {
        while let Some(answer) = &self.outgoing {
            let mut parts = answer.parts().map(IoSlice::new);
            let mut rest = &mut parts[..];
            IoSlice::advance_slices(&mut rest, self.sent);
            match rustix::io::writev(&self.socket, rest) {
                Ok(taken) => self.sent += taken,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET | Errno::PIPE) => {
                    self.is_open = false;
                    return Ok(false);
                }
                Err(error) => return Err(io_error("cannot send")(error.into())),
            }
            if self.sent == answer.bytes() {
                self.outgoing = None;
                self.sent = 0;
            }
        }
        Ok(true)
    }

    /// Makes room for the rest of a frame and the length of the next one, so that a frame of a busy
    /// producer takes one read and is moved nowhere. Returns how much room.
    fn make_room(&mut self) -> Result<usize, BenchError> {
        let end = self.frame_end()?.map_or(FRAME_LENGTH_BYTES, |end| end + FRAME_LENGTH_BYTES);
        if self.incoming.len() < end {
            self.incoming.resize(end, 0);
        }
        Ok(end - self.filled)
    }

    /// Where the first frame ends, once its length has arrived.
    fn frame_end(&self) -> Result<Option<usize>, BenchError> {
        let Some(length) = self.incoming[..self.filled].first_chunk() else { return Ok(None) };
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) if length <= FRAME_BYTES_MAX => Ok(Some(FRAME_LENGTH_BYTES + length)),
            _ => Err(io_error("a request is too long")(ErrorKind::InvalidData.into())),
        }
    }
}
