//! A clock for subjects that fill up: files and logs that must be replaced now and then.

use std::time::{Duration, Instant};

/// Bytes that a subject takes before it is replaced, so that a benchmark of any length needs
/// little disk and stays clear of the kernel's limit of dirty pages.
pub const SUBJECT_BYTES_MAX: u64 = 64 << 20;

/// How many times work of `bytes` fits one subject.
pub fn capacity(bytes: usize) -> u64 {
    (SUBJECT_BYTES_MAX / bytes.max(1) as u64).max(1)
}

/// The time that `iterations` of `work` take, in runs of `capacity` on a fresh subject each.
/// Making and dropping subjects is not measured.
pub fn timed<S>(
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
        let started = Instant::now();
        for _ in 0..run {
            work(&mut subject);
        }
        spent += started.elapsed();
        left -= run;
    }
    spent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_subject_takes_more_than_it_holds() {
        let mut subjects = 0;
        let mut work = 0;
        timed(
            10,
            4,
            || {
                subjects += 1;
                0
            },
            |taken: &mut u32| {
                *taken += 1;
                assert!(*taken <= 4);
                work += 1;
            },
        );
        assert_eq!((subjects, work), (3, 10));
    }

    #[test]
    fn even_huge_work_fits_once() {
        assert_eq!(capacity(1 << 40), 1);
        assert_eq!(capacity(1 << 20), 64);
    }
}
