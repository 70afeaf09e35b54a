//! Many connections in one thread: frames in and out without blocking, and one wait for all.
//!
//! The generators of load share two cores with the broker, so they must take little themselves: no
//! task, no thread a connection, no allocation a request beyond its frame.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::{BenchError, io_error};

/// Longest answer that is taken: a Fetch asks for less.
const FRAME_BYTES_MAX: usize = 128 << 20;
/// Least room that is offered to a read.
const READ_BYTES: usize = 64 << 10;

/// One connection that never blocks.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: TcpStream,
    outgoing: Vec<u8>,
    /// Bytes of `outgoing` that the socket has taken.
    sent: usize,
    incoming: Vec<u8>,
    /// Where the first frame of `incoming` that was not taken begins.
    taken: usize,
}

impl Wire {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, BenchError> {
        let socket = TcpStream::connect(address).map_err(io_error("cannot connect"))?;
        socket.set_nodelay(true).map_err(io_error("cannot set TCP_NODELAY"))?;
        socket.set_nonblocking(true).map_err(io_error("cannot make a socket nonblocking"))?;
        let (outgoing, incoming) = (Vec::new(), Vec::new());
        Ok(Self { socket, outgoing, sent: 0, incoming, taken: 0 })
    }

    /// Sends as much of `frame` as the socket takes; [`Wire::flush`] sends the rest.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<(), BenchError> {
        self.queue(frame);
        self.flush()
    }

    /// Keeps `frame` for the next [`Wire::flush`].
    pub(crate) fn queue(&mut self, frame: &[u8]) {
        self.outgoing.extend_from_slice(frame);
    }

    /// Sends what is left, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Result<(), BenchError> {
        while self.sent < self.outgoing.len() {
            match rustix::io::write(&self.socket, &self.outgoing[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io_error("cannot send")(error.into())),
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads what has arrived, up to the room for one frame.
    pub(crate) fn fill(&mut self) -> Result<(), BenchError> {
        let room = self.missing()?.max(READ_BYTES);
        self.incoming.reserve(room);
        let room = rustix::buffer::spare_capacity(&mut self.incoming);
        match rustix::io::read(&self.socket, room) {
            Ok(0) => Err(io_error("the broker hung up")(ErrorKind::UnexpectedEof.into())),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(io_error("cannot receive")(error.into())),
        }
    }

    /// The next whole frame that has arrived, without its length.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, BenchError> {
        if self.missing()? > 0 {
            return Ok(None);
        }
        let rest = &self.incoming[self.taken..];
        let (start, length) = (self.taken + 4, length(rest)?.unwrap_or(0));
        if self.incoming.len() == start + length {
            // Large answers come alone and are not copied.
            let all = Bytes::from(std::mem::take(&mut self.incoming));
            self.taken = 0;
            return Ok(Some(all.slice(start..)));
        }
        let frame = Bytes::copy_from_slice(&self.incoming[start..start + length]);
        self.taken = start + length;
        Ok(Some(frame))
    }

    /// Bytes that the first frame still lacks.
    fn missing(&mut self) -> Result<usize, BenchError> {
        let have = self.incoming.len() - self.taken;
        if have < 4 && self.taken > 0 {
            self.incoming.drain(..self.taken);
            self.taken = 0;
        }
        Ok(match length(&self.incoming[self.taken..])? {
            Some(length) => (4 + length).saturating_sub(have),
            None => 4 - have,
        })
    }
}

fn length(bytes: &[u8]) -> Result<Option<usize>, BenchError> {
    let Some(prefix) = bytes.first_chunk() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(BenchError::Malformed("a request"));
    }
    Ok(Some(length))
}

/// Waits until one of the wires can move or the time is over, then moves all that can: what was
/// kept is sent, what has arrived is read. Whether anything could.
pub(crate) fn wait(wires: &mut [Wire], timeout: Duration) -> Result<bool, BenchError> {
    let mut polled: Vec<PollFd<'_>> = wires
        .iter()
        .map(|wire| {
            let wants_out = wire.sent < wire.outgoing.len();
            let out = if wants_out { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::new(&wire.socket, PollFlags::IN | out)
        })
        .collect();
    let timeout = Timespec::try_from(timeout).expect("a benchmark waits for seconds at most");
    let ready = match poll(&mut polled, Some(&timeout)) {
        Ok(ready) => ready,
        Err(Errno::INTR) => return Ok(true),
        Err(error) => return Err(io_error("cannot wait for sockets")(error.into())),
    };
    let moved: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
    for (wire, moved) in wires.iter_mut().zip(moved) {
        if moved.contains(PollFlags::OUT) {
            wire.flush()?;
        }
        if moved.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP) {
            wire.fill()?;
        }
    }
    Ok(ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn frames_arrive_whole_however_they_were_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let mut wires = [wire];
        let stream = [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 3, b'c', b'd', b'e'];
        let mut frames = Vec::new();
        for chunk in stream.chunks(5) {
            peer.write_all(chunk).unwrap();
            assert!(wait(&mut wires, Duration::from_secs(5)).unwrap());
            while let Some(frame) = wires[0].next().unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames, [&b"ab"[..], b"", b"cde"]);
        wires[0].send(b"xyz").unwrap();
        let mut read = [0; 3];
        peer.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"xyz");
    }
}
