//! Bytes on their way from the client: the read buffer, its size, and the room of a large request.
//!
//! The buffer's size follows the client: thousands of connections that say little cost a page each,
//! one that pipelines gets many requests with one system call.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use vltava_protocol::frame::{FRAME_LENGTH_BYTES, FrameDecoder, FrameError};

use crate::request_memory::{Held, RequestMemory, UNCOUNTED_BYTES};

/// The size of a new read buffer, and of one of a client that says little.
const BUFFER_BYTES_MIN: usize = 4 << 10;
/// The size of the read buffer of a client that fills it.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// So much is made ready at once for a frame as long as the one before it. Twice what is common, so
/// that batches of 64 KiB and what stands before them are not moved while they arrive.
const FRAME_AT_ONCE_BYTES_MAX: usize = 128 << 10;
/// By how much a buffer grows or shrinks.
const BUFFER_FACTOR: usize = 4;
/// So many reads in a row that fill little of a buffer make it shrink.
const SMALL_READS_MAX: u32 = 32;

/// How often a large request that is being received is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The same of one that all others wait for.
const LOOK_EVERY_EXPRESS: Duration = Duration::from_millis(500);
/// So much of a large request must come between two looks at it while others find no room.
const CROWDED_BYTES_MIN: usize = 64 << 10;

const _: () = assert!(BUFFER_BYTES_MAX <= UNCOUNTED_BYTES);

/// A whole frame, and the room it holds until it is dropped.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) held: Held,
}

/// The reading half of a connection.
pub(super) struct Incoming {
    decoder: FrameDecoder,
    memory: RequestMemory,
    buffer: BytesMut,
    /// How large the next buffer is.
    buffer_bytes: usize,
    small_reads: u32,
    /// The length of the last frame, up to [`FRAME_AT_ONCE_BYTES_MAX`].
    frame_bytes: usize,
    /// The room of the frame that is being received.
    held: Held,
    /// How much of it was here when it was last looked at.
    seen: usize,
    growing: Option<Pin<Box<dyn Future<Output = Held> + Send>>>,
}

/// What a look at the socket gave.
pub(super) enum Read {
    /// The client has closed its side.
    End,
    /// Some bytes, or the room for them.
    Some,
}

impl Incoming {
    pub(super) fn new(frame_bytes_max: usize, memory: RequestMemory) -> Self {
        Self {
            decoder: FrameDecoder::new(frame_bytes_max),
            memory,
            buffer: BytesMut::new(),
            buffer_bytes: BUFFER_BYTES_MIN,
            small_reads: 0,
            frame_bytes: 0,
            held: Held::default(),
            seen: 0,
            growing: None,
        }
    }

    /// The next frame, if it is whole.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let frame = self.decoder.decode(&mut self.buffer)?;
        if let Some(frame) = &frame {
            self.seen = 0;
            self.frame_bytes = (FRAME_LENGTH_BYTES + frame.len()).min(FRAME_AT_ONCE_BYTES_MAX);
        }
        Ok(frame.map(|bytes| Frame { bytes, held: std::mem::take(&mut self.held) }))
    }

    /// Whether [`Incoming::next`] has something to say.
    pub(super) fn is_ready(&self) -> bool {
        self.decoder.missing(&self.buffer) == 0
    }

    /// Whether a frame has begun and is not whole, and nothing but the client keeps it so.
    pub(super) fn awaits_client(&self) -> bool {
        !self.buffer.is_empty() && self.growing.is_none()
    }

    /// How often to look at the frame that is being received, if it holds room of others.
    pub(super) fn look_every(&self) -> Option<Duration> {
        let every = if self.held.is_express() { LOOK_EVERY_EXPRESS } else { LOOK_EVERY };
        (self.held.bytes() > UNCOUNTED_BYTES).then_some(every)
    }

    /// Whether it should give it up: others find none, and little of it came since the last look.
    pub(super) fn is_too_slow(&mut self) -> bool {
        let came = self.buffer.len().saturating_sub(self.seen);
        self.seen = self.buffer.len();
        self.memory.is_crowded(&self.held) && came < CROWDED_BYTES_MIN
    }

    /// Reads once, as much as has arrived and there is room for. Called while no whole frame is in
    /// the buffer. Pending while there is nothing, or no room.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Read>> {
        let missing = self.decoder.missing(&self.buffer);
        let total = self.buffer.len() + missing;
        if self.buffer.is_empty() && self.buffer.capacity() < self.frame_bytes {
            self.buffer.reserve(self.frame_bytes);
        }
        let limit = if self.buffer.len() < UNCOUNTED_BYTES {
            // The length of a larger one is only announced yet.
            self.make_room(missing.min(UNCOUNTED_BYTES - self.buffer.len()));
            UNCOUNTED_BYTES - self.buffer.len()
        } else {
            if self.growing.is_some() || self.buffer.len() == self.held.bytes() {
                ready!(self.poll_grow(total, cx));
            }
            assert!(self.buffer.len() < self.held.bytes(), "not more is read than has room");
            self.make_room(missing);
            self.held.bytes() - self.buffer.len()
        };
        let room = limit.min(self.buffer.capacity() - self.buffer.len());
        let mut limited = (&mut self.buffer).limit(limit);
        let read = ready!(pin!(socket.read_buf(&mut limited)).poll(cx))?;
        self.adapt(read, room);
        Poll::Ready(Ok(if read == 0 { Read::End } else { Read::Some }))
    }

    fn poll_grow(&mut self, total: usize, cx: &mut Context<'_>) -> Poll<()> {
        let growing = self.growing.get_or_insert_with(|| {
            let held = std::mem::take(&mut self.held);
            Box::pin(self.memory.clone().grow(held, total))
        });
        self.held = ready!(growing.as_mut().poll(cx));
        self.growing = None;
        Poll::Ready(())
    }

    fn make_room(&mut self, missing: usize) {
        let least = missing.max(self.buffer_bytes / BUFFER_FACTOR);
        if self.buffer.capacity() - self.buffer.len() < least {
            self.buffer.reserve(missing.max(self.buffer_bytes));
        }
    }

    fn adapt(&mut self, read: usize, room: usize) {
        if read == room {
            self.small_reads = 0;
            self.buffer_bytes = (self.buffer_bytes * BUFFER_FACTOR).min(BUFFER_BYTES_MAX);
        } else if read > self.buffer_bytes / BUFFER_FACTOR {
            self.small_reads = 0;
        } else {
            self.small_reads += 1;
        }
        if self.small_reads > SMALL_READS_MAX && self.buffer_bytes > BUFFER_BYTES_MIN {
            self.small_reads = 0;
            self.buffer_bytes /= BUFFER_FACTOR;
            // Its bytes are copied, so that the large one goes.
            let small = BytesMut::with_capacity(self.buffer.len().max(self.buffer_bytes));
            let large = std::mem::replace(&mut self.buffer, small);
            self.buffer.extend_from_slice(&large);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Reads everything that `bytes` holds, and splits the frames off.
    fn receive(incoming: &mut Incoming, mut bytes: &[u8]) -> Vec<usize> {
        let mut frames = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(Read::Some)) = incoming.poll_read(&mut bytes, &mut cx) {
            while let Ok(Some(frame)) = incoming.next() {
                frames.push(frame.bytes.len());
            }
        }
        frames
    }

    fn frame(length: usize) -> Vec<u8> {
        [&u32::try_from(length).unwrap().to_be_bytes()[..], &vec![7; length]].concat()
    }

    #[test]
    fn a_buffer_follows_its_client() {
        let mut incoming = Incoming::new(1 << 30, RequestMemory::new(None));
        assert_eq!(receive(&mut incoming, &frame(100)), [100]);
        assert_eq!(incoming.buffer_bytes, BUFFER_BYTES_MIN);
        let pipelined: Vec<u8> = (0..2000).flat_map(|_| frame(100)).collect();
        assert_eq!(receive(&mut incoming, &pipelined).len(), 2000);
        assert_eq!(incoming.buffer_bytes, BUFFER_BYTES_MAX);
        for _ in 0..3 * SMALL_READS_MAX {
            receive(&mut incoming, &frame(100));
        }
        assert_eq!(incoming.buffer_bytes, BUFFER_BYTES_MIN);
        assert!(incoming.buffer.capacity() <= 2 * BUFFER_BYTES_MIN);
    }

    #[test]
    fn what_is_announced_costs_nothing_until_it_comes() {
        let memory = RequestMemory::new(None);
        let mut incoming = Incoming::new(1 << 30, memory.clone());
        let announced = frame(100 << 20);
        receive(&mut incoming, &announced[..5]);
        assert!(incoming.buffer.capacity() <= UNCOUNTED_BYTES);
        receive(&mut incoming, &announced[5..1 << 20]);
        let held = memory.held_bytes();
        assert!((1 << 20..2 << 20).contains(&held), "{held}");
        assert!(incoming.awaits_client());
        assert_eq!(receive(&mut incoming, &announced[1 << 20..]), [100 << 20]);
        assert_eq!(memory.held_bytes(), 0, "the frame was dropped");
    }

    #[test]
    fn frames_of_all_sizes_come_through() {
        let mut incoming = Incoming::new(1 << 30, RequestMemory::new(Some(1 << 20)));
        let sizes: Vec<usize> = (0..60).map(|at| (at * 7_919) % 300_000 + 1).collect();
        let bytes: Vec<u8> = sizes.iter().flat_map(|&length| frame(length)).collect();
        assert_eq!(receive(&mut incoming, &bytes), sizes);
    }

    #[test]
    fn without_room_nothing_is_read() {
        let memory = RequestMemory::new(Some(0));
        let large = frame(1 << 20);
        let mut first = Incoming::new(1 << 30, memory.clone());
        receive(&mut first, &large[..1 << 19]);
        let mut second = Incoming::new(1 << 30, memory);
        receive(&mut second, &large);
        assert_eq!(second.buffer.len(), UNCOUNTED_BYTES);
        assert!(receive(&mut second, &large).is_empty());
        assert!(!second.awaits_client(), "it is us that it waits for");
        assert_eq!(receive(&mut first, &large[1 << 19..]), [1 << 20]);
        assert_eq!(receive(&mut second, &large[UNCOUNTED_BYTES..]), [1 << 20]);
    }
}
