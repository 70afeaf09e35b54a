//! Clocks, and runs over subjects that fill up: files and logs that are replaced now and then.
//!
//! What a step costs is measured in processor time, which other programs on the machine lengthen a
//! little; what a client waits for, in wall time, which they lengthen without bound.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Bytes that a subject takes before it is replaced, so that a benchmark of any length needs
/// little disk and stays clear of the kernel's limit of dirty pages.
pub const SUBJECT_BYTES_MAX: u64 = 64 << 20;

/// Which time is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Time that passes.
    Wall,
    /// Processor time of the calling thread, the kernel's work for it included.
    Thread,
    /// Processor time of all threads of this process.
    Process,
}

impl Clock {
    /// Time since some moment that is the same for every call.
    pub fn read(self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let id = match self {
            Self::Wall => return START.elapsed(),
            Self::Thread => ClockId::ThreadCPUTime,
            Self::Process => ClockId::ProcessCPUTime,
        };
        let time = clock_gettime(id);
        let seconds = u64::try_from(time.tv_sec).expect("processor time is not negative");
        Duration::new(seconds, time.tv_nsec as u32)
    }

    /// Time since `earlier`, an answer of [`Clock::read`] on the same thread.
    pub fn since(self, earlier: Duration) -> Duration {
        self.read().checked_sub(earlier).expect("no clock here goes back")
    }
}

/// How many times work of `bytes` fits one subject.
pub fn capacity(bytes: usize) -> u64 {
    (SUBJECT_BYTES_MAX / bytes.max(1) as u64).max(1)
}

/// The time that `iterations` of `work` take, in runs of `capacity` on a fresh subject each.
/// Making and dropping subjects is not measured.
pub fn timed<S>(
    clock: Clock,
    iterations: u64,
    capacity: u64,
    mut fresh: impl FnMut() -> S,
    mut work: impl FnMut(&mut S),
) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let run = left.min(capacity);
        let mut subject = fresh();
        let started = clock.read();
        for _ in 0..run {
            work(&mut subject);
        }
        spent += clock.since(started);
        left -= run;
    }
    spent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_subject_takes_more_than_it_holds() {
        let (mut subjects, mut done) = (0, 0);
        let fresh = || {
            subjects += 1;
            0
        };
        let work = |taken: &mut u32| {
            *taken += 1;
            assert!(*taken <= 4);
            done += 1;
        };
        timed(Clock::Wall, 10, 4, fresh, work);
        assert_eq!((subjects, done), (3, 10));
    }

    #[test]
    fn even_huge_work_fits_once() {
        assert_eq!(capacity(1 << 40), 1);
        assert_eq!(capacity(1 << 20), 64);
    }

    #[test]
    fn no_clock_goes_back() {
        for clock in [Clock::Wall, Clock::Thread, Clock::Process] {
            let before = clock.read();
            assert!(clock.read() >= before, "{clock:?}");
        }
    }
}
