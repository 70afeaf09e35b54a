//! Responses on their way to the client, in the order of their requests.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use vltava_protocol::messages::{ResponseFrame, ResponsePart};
use vltava_storage::slice::LogSlice;

use super::{Boxed, Reply};

/// While this many response bytes wait for the client to read, nothing new begins or completes.
/// One response may exceed it, by the Fetch limits.
pub const OUTGOING_BYTES_MAX: usize = 4 << 20;

/// A begun request whose turn to be answered has not come.
pub(super) enum Waiting {
    /// It is done.
    Ready(Reply),
    /// Its rest is still to be polled.
    Rest(Boxed<Reply>),
}

/// A piece of a response.
#[derive(Clone, Debug)]
pub enum Part {
    /// Bytes in memory, be it a map of a file.
    Memory(Bytes),
    /// Batches that go from their file to the socket.
    File(LogSlice),
}

impl From<Bytes> for Part {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

impl ResponsePart for Part {
    fn bytes(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(slice) => slice.len(),
        }
    }

    fn in_memory(&self) -> Option<&Bytes> {
        match self {
            Self::Memory(bytes) => Some(bytes),
            Self::File(_) => None,
        }
    }
}

/// What goes to the socket next.
pub(super) enum Next<'a> {
    /// So many slices from memory, and whether batches of a file follow.
    Memory(usize, bool),
    /// What follows these many bytes of batches in a file.
    File(&'a LogSlice, usize),
}

/// Response parts that the socket has not taken.
pub(super) struct Outgoing {
    parts: VecDeque<Part>,
    /// Bytes of the first part that it has taken.
    sent: usize,
    pub(super) bytes: usize,
    /// The bytes of all connections.
    unread_bytes: Gauge,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Outgoing {
    pub(super) fn new(unread_bytes: Gauge) -> Self {
        Self { parts: VecDeque::new(), sent: 0, bytes: 0, unread_bytes }
    }

    /// Drops what nobody will read.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.sent = 0;
        self.unread_bytes.dec_by(self.bytes as i64);
        self.bytes = 0;
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= OUTGOING_BYTES_MAX
    }

    pub(super) fn push(&mut self, frame: ResponseFrame<Part>) {
        self.unread_bytes.inc_by(frame.bytes() as i64);
        for part in frame.into_parts() {
            if part.bytes() > 0 {
                self.bytes += part.bytes();
                self.parts.push_back(part);
            }
        }
    }

    /// What goes next; fills `slices` if that is in memory.
    pub(super) fn next<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> Next<'a> {
        let mut skipped = self.sent;
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            match part {
                Part::Memory(bytes) => *slice = IoSlice::new(&bytes[skipped..]),
                Part::File(batches) if count == 0 => return Next::File(batches, skipped),
                Part::File(_) => return Next::Memory(count, true),
            }
            skipped = 0;
            count += 1;
        }
        Next::Memory(count, false)
    }

    /// Drops `written` bytes from the front.
    pub(super) fn advance(&mut self, mut written: usize) {
        assert!(written <= self.bytes, "the socket takes what it was given");
        self.bytes -= written;
        self.unread_bytes.dec_by(written as i64);
        while written > 0 {
            let head = self.parts.front().expect("bytes counts the parts");
            let left = head.bytes() - self.sent;
            if left > written {
                self.sent += written;
                return;
            }
            written -= left;
            self.sent = 0;
            self.parts.pop_front();
        }
    }
}

impl Waiting {
    /// Bytes that wait in it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Ready(Reply::Frame(frame)) => frame.bytes(),
            Self::Ready(_) | Self::Rest(_) => 0,
        }
    }
}
