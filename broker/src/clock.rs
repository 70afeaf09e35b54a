//! The clock: the one place of the broker that reads the wall.
//!
//! Everything below the edges takes `now: Timestamp` as an argument, so that the simulator decides
//! what time it is. Handlers read [`Clock::now`] once a request and pass the value down.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use vltava_protocol::ids::Timestamp;

/// Milliseconds since the Unix epoch, from the system or from a test.
#[derive(Debug)]
pub struct Clock {
    source: Source,
}

#[derive(Debug)]
enum Source {
    System,
    Manual(AtomicI64),
}

impl Default for Clock {
    /// The system's wall clock.
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The system's wall clock. It may jump either way; nothing of ours orders events by it.
    pub const fn system() -> Self {
        Self { source: Source::System }
    }

    /// A clock that stands at `now` until [`Self::set`] moves it.
    pub const fn manual(now: Timestamp) -> Self {
        Self { source: Source::Manual(AtomicI64::new(now.0)) }
    }

    /// Moves a manual clock; the system's clock is not ours to move.
    ///
    /// # Panics
    /// When this is the system's clock: that is a mistake of the caller.
    pub fn set(&self, now: Timestamp) {
        match &self.source {
            Source::Manual(place) => place.store(now.0, Ordering::Relaxed),
            Source::System => panic!("only a manual clock can be set"),
        }
    }

    /// The time now; a system clock set before 1970 reads as 0.
    #[allow(clippy::disallowed_methods, reason = "this is the edge that reads the wall clock")]
    pub fn now(&self) -> Timestamp {
        match &self.source {
            Source::System => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                Timestamp(
                    since.map_or(0, |elapsed| {
                        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
                    }),
                )
            }
            Source::Manual(place) => Timestamp(place.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(Timestamp(5));
        assert_eq!(clock.now(), Timestamp(5));
        clock.set(Timestamp(9));
        assert_eq!(clock.now(), Timestamp(9));
    }

    #[test]
    fn the_system_clock_is_past_2020() {
        assert!(Clock::system().now() > Timestamp(1_577_836_800_000));
    }
}
