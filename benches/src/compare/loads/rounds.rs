//! Flush rounds: how long this disk takes to write one request's bytes and sync them, with nothing
//! of a broker around it. An acknowledgment that is durable cannot come sooner than such a round.

use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use crate::error::{BenchError, io_error};

/// Rounds in a row for as long as `length`, so many bytes each, at the end of a file that grows in
/// `dir`. A round begins `period` after the one before did, or when that one is over.
pub(super) fn flush_rounds(
    dir: &Path,
    bytes: usize,
    period: Duration,
    length: Duration,
) -> Result<Vec<Duration>, BenchError> {
    let failed = || io_error("cannot write and sync a file");
    let mut file = NamedTempFile::with_prefix_in("rounds-", dir).map_err(failed())?;
    let request = vec![b'v'; bytes];
    let (mut rounds, mut due) = (Vec::new(), Duration::ZERO);
    let start = Instant::now();
    while due < length {
        thread::sleep(due.saturating_sub(start.elapsed()));
        let began = Instant::now();
        file.write_all(&request).map_err(failed())?;
        file.as_file().sync_data().map_err(failed())?;
        rounds.push(began.elapsed());
        due = (due + period).max(start.elapsed());
    }
    Ok(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_keep_their_rate_and_leave_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (period, length) = (Duration::from_millis(10), Duration::from_millis(100));
        let rounds = flush_rounds(dir.path(), 1 << 10, period, length).unwrap();
        assert!((1..=10).contains(&rounds.len()), "{rounds:?}");
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
