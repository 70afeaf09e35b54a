//! When a connection has lasted too long: nothing moved, or a request trickles in.
//!
//! One timer for both, moved only when it fires or would fire too late: bytes that move cost it
//! nothing.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Which time is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expired {
    /// Nothing moved.
    Idle,
    /// A request was not whole in time.
    Receiving,
}

pub(super) struct Timers {
    idle_max: Option<Duration>,
    receive_max: Option<Duration>,
    /// When bytes last moved.
    active: Instant,
    /// Since when a request is being received.
    receiving: Option<Instant>,
    /// When to look next at how it comes on, and how often.
    look: Option<(Instant, Duration)>,
    sleep: Pin<Box<Sleep>>,
}

impl Timers {
    pub(super) fn new(idle_max: Option<Duration>, receive_max: Option<Duration>) -> Self {
        let active = Instant::now();
        let first = idle_max.or(receive_max).unwrap_or_default();
        let sleep = Box::pin(tokio::time::sleep(first));
        Self { idle_max, receive_max, active, receiving: None, look: None, sleep }
    }

    /// Bytes moved.
    pub(super) fn touch(&mut self) {
        if self.idle_max.is_some() {
            self.active = Instant::now();
        }
    }

    /// Whether a part of a request is here and the client is to send the rest.
    pub(super) fn receiving(&mut self, is_receiving: bool) {
        if !is_receiving {
            (self.receiving, self.look) = (None, None);
        } else if self.receiving.is_none() {
            self.receiving = Some(Instant::now());
        }
    }

    /// The request holds room that others may want: it is looked at again and again.
    pub(super) fn watch(&mut self, every: Duration) {
        let is_new = self.look.is_none_or(|(_, before)| before != every);
        if is_new && self.receiving.is_some() {
            self.look = Some((Instant::now() + every, every));
        }
    }

    /// Ready when one of the times is over. A `busy` connection is not idle; `is_too_slow` judges a
    /// watched request as often as it is to be looked at.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        busy: bool,
        mut is_too_slow: impl FnMut() -> bool,
    ) -> Poll<Expired> {
        loop {
            let Some(end) = self.end() else { return Poll::Pending };
            if end < self.sleep.deadline() {
                self.sleep.as_mut().reset(end);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if busy {
                self.active = now;
            }
            if let Some((look, every)) = self.look
                && look <= now
            {
                if is_too_slow() {
                    return Poll::Ready(Expired::Receiving);
                }
                self.look = Some((now + every, every));
            }
            match self.end() {
                Some(end) if end > now => self.sleep.as_mut().reset(end),
                None => return Poll::Pending,
                _ if self.receive_end().is_some_and(|end| end <= now) => {
                    return Poll::Ready(Expired::Receiving);
                }
                _ => return Poll::Ready(Expired::Idle),
            }
        }
    }

    fn receive_end(&self) -> Option<Instant> {
        Some(self.receiving? + self.receive_max?)
    }

    fn end(&self) -> Option<Instant> {
        let idle = self.idle_max.map(|max| self.active + max);
        [idle, self.receive_end(), self.look.map(|(look, _)| look)].into_iter().flatten().min()
    }
}
