//! Responses on their way to the client, in the order of their requests.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use prometheus_client::metrics::gauge::Gauge;
use vltava_protocol::messages::ResponseFrame;

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

/// Response parts that the socket has not taken.
pub(super) struct Outgoing {
    parts: VecDeque<Bytes>,
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
        Self { parts: VecDeque::new(), bytes: 0, unread_bytes }
    }

    /// Drops what nobody will read.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.unread_bytes.dec_by(self.bytes as i64);
        self.bytes = 0;
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= OUTGOING_BYTES_MAX
    }

    pub(super) fn push(&mut self, frame: ResponseFrame) {
        self.unread_bytes.inc_by(frame.bytes() as i64);
        for part in frame.into_parts() {
            if !part.is_empty() {
                self.bytes += part.len();
                self.parts.push_back(part);
            }
        }
    }

    /// Fills `slices` from the front; how many there are.
    pub(super) fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let count = self.parts.len().min(slices.len());
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(part);
        }
        count
    }

    /// Drops `written` bytes from the front.
    pub(super) fn advance(&mut self, mut written: usize) {
        assert!(written <= self.bytes, "the socket takes what it was given");
        self.bytes -= written;
        self.unread_bytes.dec_by(written as i64);
        while written > 0 {
            let head = self.parts.front_mut().expect("bytes counts the parts");
            if head.len() > written {
                head.advance(written);
                return;
            }
            written -= head.len();
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
