//! What one partition gives to a Fetch, and the budget that all of them share.

use tracing::warn;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_storage::log::ReadError;
use vltava_storage::read_view::ReadView;
use vltava_storage::slice::LogSlice;

use crate::connection::Part;
use crate::fetch_sessions::PartitionFetch;
use crate::handlers::leader;
use crate::partition::Partition;

/// Runs of batches from this length on go from their file to the socket; shorter ones are written
/// together with what is before and behind them. Over loopback the one call more pays from here on.
const FILE_BYTES_MIN: usize = 128 << 10;

/// How far a consumer may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    /// To the high watermark.
    ReadUncommitted,
    /// To the last stable offset.
    ReadCommitted,
}

impl Isolation {
    /// Kafka reads any other value than 1 as `read_uncommitted`.
    pub(super) fn from_wire(level: i8) -> Self {
        if level == 1 { Self::ReadCommitted } else { Self::ReadUncommitted }
    }

    fn limit(self, view: &ReadView) -> Offset {
        match self {
            Self::ReadUncommitted => view.high_watermark,
            Self::ReadCommitted => view.last_stable_offset,
        }
    }
}

/// The bytes of a response, given out in the order of its partitions
/// (`ReplicaManager.readFromLog`): the first partition that has records gives at least one batch,
/// whatever the limits; those behind it only what fits.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    at_least_one: bool,
}

impl Budget {
    /// The budget of a response.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { left: max_bytes, at_least_one: true }
    }

    /// Most bytes for the next partition, and whether its first batch may exceed them.
    fn grant(&self, partition_max_bytes: i32) -> (usize, bool) {
        let most = usize::try_from(partition_max_bytes).unwrap_or(0);
        (most.min(self.left), self.at_least_one)
    }

    /// Takes what the partition gave.
    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        if bytes > 0 {
            self.at_least_one = false;
        }
    }
}

/// What one partition gives.
#[derive(Debug)]
pub(super) struct PartitionRead {
    pub(super) code: ErrorCode,
    pub(super) high_watermark: Offset,
    pub(super) last_stable_offset: Offset,
    pub(super) log_start_offset: Offset,
    /// Where the client's log parts from ours.
    pub(super) diverging: Option<(LeaderEpoch, Offset)>,
    /// Bytes of the slices.
    pub(super) bytes: usize,
    slices: Vec<LogSlice>,
}

impl PartitionRead {
    /// Nothing, and why.
    pub(super) fn failed(code: ErrorCode) -> Self {
        Self {
            code,
            high_watermark: Offset::NONE,
            last_stable_offset: Offset::NONE,
            log_start_offset: Offset::NONE,
            diverging: None,
            bytes: 0,
            slices: Vec::new(),
        }
    }

    /// Whether the client is told at once: an error, or a diverging epoch.
    pub(super) fn is_told(&self) -> bool {
        self.code != ErrorCode::None || self.diverging.is_some()
    }

    /// Whether all of it may be touched without waiting for a disk: it was written lately, or lies
    /// in the page cache. What is dropped from there between this look and the write to the socket
    /// makes that write wait, as it does for a client that takes its time.
    pub(super) fn is_at_hand(&self) -> bool {
        self.slices.iter().all(|slice| slice.is_recent() || slice.is_cached())
    }

    /// Brings what is not at hand into memory. Blocks. What cannot be read must not be touched
    /// through the map, where a failing disk is a signal that ends the process.
    pub(super) fn warm(&mut self) {
        let mut cold = self.slices.iter().filter(|slice| !slice.is_recent());
        if let Err(error) = cold.try_for_each(LogSlice::prefault) {
            *self = Self::failed(storage_failed(&error.into()));
        }
    }

    /// The runs of batches; a failure makes this a failed read.
    pub(super) fn take_runs(&mut self) -> Vec<Part> {
        let part = |slice: LogSlice| match slice.len() {
            FILE_BYTES_MIN.. => Ok(Part::File(slice)),
            _ => slice.bytes().map(Part::Memory),
        };
        let runs: Result<Vec<Part>, _> =
            std::mem::take(&mut self.slices).into_iter().map(part).collect();
        runs.unwrap_or_else(|error| {
            *self = Self::failed(storage_failed(&error.into()));
            Vec::new()
        })
    }
}

/// Reads what the budget grants.
pub(super) fn read(
    partition: &Partition,
    fetch: &PartitionFetch,
    isolation: Isolation,
    budget: &mut Budget,
) -> PartitionRead {
    if let Err(code) = leader::check(&partition.leadership(), fetch.current_leader_epoch) {
        return PartitionRead::failed(code);
    }
    let view = partition.view();
    let mut read = PartitionRead {
        code: ErrorCode::None,
        high_watermark: view.high_watermark,
        last_stable_offset: view.last_stable_offset,
        log_start_offset: view.log_start_offset,
        diverging: None,
        bytes: 0,
        slices: Vec::new(),
    };
    if fetch.last_fetched_epoch != LeaderEpoch::NONE {
        match divergence(partition, fetch, &view) {
            Ok(None) => {}
            Ok(diverging) => return PartitionRead { diverging, ..read },
            Err(code) => return PartitionRead::failed(code),
        }
    }
    let (most, at_least_one) = budget.grant(fetch.max_bytes);
    match view.read(fetch.fetch_offset, isolation.limit(&view), most, at_least_one) {
        Ok(slices) => {
            read.bytes = slices.iter().map(LogSlice::len).sum();
            read.slices = slices;
            budget.spend(read.bytes);
            read
        }
        Err(ReadError::OffsetOutOfRange { .. }) => {
            PartitionRead::failed(ErrorCode::OffsetOutOfRange)
        }
        Err(error) => PartitionRead::failed(storage_failed(&error)),
    }
}

/// Bytes that a client could read from its offset on, up to its limit for the partition.
pub(super) fn available(
    partition: &Partition,
    fetch: &PartitionFetch,
    isolation: Isolation,
) -> usize {
    let view = partition.view();
    let most = usize::try_from(fetch.max_bytes).unwrap_or(0);
    let all = view.read(fetch.fetch_offset, isolation.limit(&view), usize::MAX, true);
    all.map_or(0, |slices| slices.iter().map(LogSlice::len).sum::<usize>().min(most))
}

/// Where the client's log parts from ours, if it does (KIP-595, `Partition.readRecords`).
fn divergence(
    partition: &Partition,
    fetch: &PartitionFetch,
    view: &ReadView,
) -> Result<Option<(LeaderEpoch, Offset)>, ErrorCode> {
    let (epoch, end) = partition.end_offset_for_epoch(fetch.last_fetched_epoch);
    let is_known = epoch != LeaderEpoch::NONE && end != Offset::NONE;
    if !is_known || fetch.fetch_offset < view.log_start_offset {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let parts = epoch < fetch.last_fetched_epoch || end < fetch.fetch_offset;
    Ok(parts.then_some((epoch, end)))
}

/// The client asks again after a look at the metadata; by then the leader may be another, or the
/// log start may have passed a segment that was deleted under the view.
fn storage_failed(error: &ReadError) -> ErrorCode {
    warn!(%error, "a partition cannot be read");
    ErrorCode::KafkaStorageError
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves partitions that hold `batches` in order; what each gives of its whole batches.
    fn serve(max_bytes: usize, partition_max_bytes: i32, partitions: &[&[usize]]) -> Vec<usize> {
        let mut budget = Budget::new(max_bytes);
        partitions
            .iter()
            .map(|batches| {
                let (most, at_least_one) = budget.grant(partition_max_bytes);
                let mut bytes = 0;
                for (at, batch) in batches.iter().enumerate() {
                    if bytes + batch > most && !(at == 0 && at_least_one) {
                        break;
                    }
                    bytes += batch;
                }
                budget.spend(bytes);
                bytes
            })
            .collect()
    }

    #[test]
    fn the_first_non_empty_partition_gives_at_least_one_batch() {
        for (max_bytes, partition_max, partitions, expected) in [
            // Larger than both limits.
            (10, 10, &[&[500][..], &[5]][..], vec![500, 0]),
            (1000, 10, &[&[500], &[5]], vec![500, 5]),
            // Empty ones do not use the privilege up.
            (10, 10, &[&[], &[500], &[500]], vec![0, 500, 0]),
            (0, 10, &[&[500], &[5]], vec![500, 0]),
            // Later ones get only what remains, in whole batches.
            (100, 60, &[&[50, 50], &[30, 30]], vec![50, 30]),
            (100, 60, &[&[50, 10], &[50]], vec![60, 0]),
            (100, -1, &[&[50], &[50]], vec![50, 0]),
        ] {
            let given = serve(max_bytes, partition_max, partitions);
            assert_eq!(given, expected, "{max_bytes} {partition_max} {partitions:?}");
        }
    }

    #[test]
    fn isolation_levels() {
        assert_eq!(Isolation::from_wire(0), Isolation::ReadUncommitted);
        assert_eq!(Isolation::from_wire(1), Isolation::ReadCommitted);
        assert_eq!(Isolation::from_wire(9), Isolation::ReadUncommitted);
    }
}
