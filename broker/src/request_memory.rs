//! The memory of large requests, bounded for all connections together: `queued.max.request.bytes`.
//!
//! ```text
//! first 64 KiB of a frame      in the connection's own buffer, not counted
//! what comes behind            counted as it is about to be read, step by step
//! until the order is fixed     the request holds what was counted; then its frame is gone
//! ```
//!
//! A connection that finds no room is not read, and TCP holds its client back. Room is counted for
//! what a client has really sent, not for the length it announces: else a few that announce much and
//! send nothing would hold up all others. So many requests may each hold a part of the room and wait
//! for more. For them there is one *express* place: whoever has it goes on without room, to the end
//! of its request. So one always moves, a request larger than all the room passes, and the memory
//! stays below the bound and one request. Requests of a single step never hold a part: they have one
//! half of the room for themselves, and do not wait for giants.
//!
//! While requests find no room it is *crowded*: then the connections of clients that send slowly
//! close, so that nobody keeps room by sending nothing.
//!
//! Waiting is first come, first served, and safe to cancel: what was counted goes back when the
//! [`Held`] is dropped.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What each connection may hold of a request without asking.
pub const UNCOUNTED_BYTES: usize = 64 << 10;
/// The room when `queued.max.request.bytes` is -1: enough for twenty-five hundred requests of
/// 100 KiB, or for two of the largest.
pub const ROOM_BYTES_DEFAULT: usize = 256 << 20;
/// How much is counted at a time.
const STEP_BYTES: usize = 256 << 10;

/// The room that the connections of a listener share. Clones are the same room.
#[derive(Clone, Debug)]
pub struct RequestMemory {
    /// For requests of one step.
    small: Arc<Semaphore>,
    /// For all others.
    large: Arc<Semaphore>,
    express: Arc<Semaphore>,
    /// The room of each of the two.
    half_bytes: usize,
}

/// Room that a request holds.
#[derive(Debug, Default)]
pub struct Held {
    bytes: usize,
    /// Whether it is all of a request of one step.
    is_small: bool,
    room: Option<OwnedSemaphorePermit>,
    express: Option<OwnedSemaphorePermit>,
}

impl RequestMemory {
    /// Room for `bytes`; none is the default.
    pub fn new(bytes: Option<usize>) -> Self {
        let half_bytes =
            bytes.unwrap_or(ROOM_BYTES_DEFAULT).div_ceil(2).clamp(1, Semaphore::MAX_PERMITS);
        let room = |permits| Arc::new(Semaphore::new(permits));
        Self { small: room(half_bytes), large: room(half_bytes), express: room(1), half_bytes }
    }

    /// Bytes that are held now, for metrics.
    pub fn held_bytes(&self) -> usize {
        let left = self.small.available_permits() + self.large.available_permits();
        2 * self.half_bytes - left
    }

    /// Whether others want what `held` holds.
    pub fn is_crowded(&self, held: &Held) -> bool {
        if held.is_small {
            self.small.available_permits() < STEP_BYTES.min(self.half_bytes)
        } else {
            self.express.available_permits() == 0
        }
    }

    /// Adds room to what a request holds: the next step towards its `total` bytes. Waits for it.
    pub async fn grow(self, mut held: Held, total: usize) -> Held {
        if held.express.is_some() {
            held.bytes = total;
            return held;
        }
        let step = (total - held.bytes.min(total)).min(STEP_BYTES);
        let permits = u32::try_from(step.min(self.half_bytes)).expect("a step is small");
        let closed = "the room is never closed";
        if total <= STEP_BYTES {
            let room = Arc::clone(&self.small).acquire_many_owned(permits).await.expect(closed);
            return Held { bytes: total, is_small: true, room: Some(room), express: None };
        }
        tokio::select! {
            biased;
            room = Arc::clone(&self.large).acquire_many_owned(permits) => {
                held.bytes += step;
                let room = room.expect(closed);
                match &mut held.room {
                    Some(before) => before.merge(room),
                    none => *none = Some(room),
                }
            }
            express = Arc::clone(&self.express).acquire_owned() => {
                held.bytes = total;
                held.express = Some(express.expect(closed));
            }
        }
        held
    }
}

impl Held {
    /// How many bytes of the request may be in memory.
    pub fn bytes(&self) -> usize {
        self.bytes.max(UNCOUNTED_BYTES)
    }

    /// Whether it goes on without room, and all others wait for it.
    pub fn is_express(&self) -> bool {
        self.express.is_some()
    }
}

#[cfg(test)]
mod tests {
    use futures_lite_poll::poll_once;

    use super::*;

    /// Polls a future once, without a runtime.
    mod futures_lite_poll {
        use std::pin::Pin;
        use std::task::{Context, Poll, Waker};

        pub(super) fn poll_once<T>(future: &mut Pin<Box<dyn Future<Output = T>>>) -> Option<T> {
            match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            }
        }
    }

    type Growing = std::pin::Pin<Box<dyn Future<Output = Held>>>;

    fn grow(memory: &RequestMemory, held: Held, total: usize) -> Growing {
        Box::pin(memory.clone().grow(held, total))
    }

    #[test]
    fn room_comes_in_steps_and_goes_with_its_holder() {
        let memory = RequestMemory::new(Some(8 * STEP_BYTES));
        let total = STEP_BYTES + 1;
        let held = poll_once(&mut grow(&memory, Held::default(), total)).unwrap();
        assert_eq!((held.bytes(), memory.held_bytes()), (STEP_BYTES, STEP_BYTES));
        let held = poll_once(&mut grow(&memory, held, total)).unwrap();
        assert_eq!((held.bytes(), memory.held_bytes()), (total, total));
        drop(held);
        assert_eq!(memory.held_bytes(), 0);
    }

    #[test]
    fn without_room_one_goes_on_to_its_end_and_the_others_wait() {
        let memory = RequestMemory::new(Some(4 * STEP_BYTES));
        let total = 100 * STEP_BYTES;
        let parts: Vec<Held> = (0..2)
            .map(|_| poll_once(&mut grow(&memory, Held::default(), total)).unwrap())
            .collect();
        let mut parts = parts.into_iter();
        let first = poll_once(&mut grow(&memory, parts.next().unwrap(), total)).unwrap();
        assert_eq!(first.bytes(), total, "express, to the end");
        assert!(memory.is_crowded(&first));
        // A small one does not mind.
        let small = poll_once(&mut grow(&memory, Held::default(), STEP_BYTES)).unwrap();
        assert!(!memory.is_crowded(&small));
        drop(small);
        let mut second = grow(&memory, parts.next().unwrap(), total);
        assert!(poll_once(&mut second).is_none());
        let mut third = grow(&memory, Held::default(), total);
        assert!(poll_once(&mut third).is_none());
        drop(first);
        let second = poll_once(&mut second).unwrap();
        assert!(second.bytes() < total, "the room that the first had held");
        // One that gives up leaves its place to the next.
        drop(third);
        drop(second);
        assert_eq!((memory.held_bytes(), memory.is_crowded(&Held::default())), (0, false));
        assert!(poll_once(&mut grow(&memory, Held::default(), total)).is_some());
    }

    #[test]
    fn a_request_larger_than_all_the_room_passes_alone() {
        let memory = RequestMemory::new(Some(1));
        let mut held = Held::default();
        while held.bytes() < 10 * STEP_BYTES {
            held = poll_once(&mut grow(&memory, held, 10 * STEP_BYTES)).unwrap();
        }
        assert!(poll_once(&mut grow(&memory, Held::default(), 10 * STEP_BYTES)).is_none());
        drop(held);
        assert!(poll_once(&mut grow(&memory, Held::default(), 10 * STEP_BYTES)).is_some());
    }

    #[test]
    fn small_requests_wait_for_each_other_only() {
        let memory = RequestMemory::new(Some(4 * STEP_BYTES));
        let two: Vec<Held> = (0..2)
            .map(|_| poll_once(&mut grow(&memory, Held::default(), STEP_BYTES)).unwrap())
            .collect();
        assert!(memory.is_crowded(&two[0]));
        let mut third = grow(&memory, Held::default(), STEP_BYTES);
        assert!(poll_once(&mut third).is_none());
        assert!(poll_once(&mut grow(&memory, Held::default(), STEP_BYTES + 1)).is_some());
        drop(two);
        assert!(poll_once(&mut third).is_some());
    }

    #[test]
    fn the_default_is_bounded() {
        assert_eq!(2 * RequestMemory::new(None).half_bytes, ROOM_BYTES_DEFAULT);
        assert!(RequestMemory::new(Some(usize::MAX)).half_bytes <= Semaphore::MAX_PERMITS);
    }
}
