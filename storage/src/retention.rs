//! How far the start of a log may move (`UnifiedLog.deleteOldSegments`). Only the leader asks, and
//! only a committed `LogStart` entry moves it.

use vltava_protocol::ids::{Offset, Timestamp};

use crate::log::PartitionLog;
use crate::segment::Segment;

impl PartitionLog {
    /// Where the log is to start by retention; `None` if nothing is to go. Whole segments go,
    /// oldest first, none of them beyond the high watermark: those whose greatest timestamp is more
    /// than `retention_ms` old, and those without which `retention_bytes` are left all the same.
    /// -1 is no limit. The last segment can go too: applying the start leaves it.
    pub fn retention_start(
        &self,
        now: Timestamp,
        retention_ms: i64,
        retention_bytes: i64,
    ) -> Option<Offset> {
        let start = self.state().log_start.offset;
        let readable: Vec<&Segment> = self
            .all_segments()
            .map(AsRef::as_ref)
            .filter(|segment| segment.index.read().end().offset > start)
            .collect();
        let total: u64 = readable.iter().map(|segment| segment.bytes()).sum();
        let mut excess = match u64::try_from(retention_bytes) {
            Ok(limit) => total.saturating_sub(limit),
            Err(_) => 0,
        };
        let mut moved = None;
        for segment in readable {
            let sparse = segment.index.read();
            let (end, newest) = (sparse.end().offset, sparse.max_timestamp());
            drop(sparse);
            let bytes = segment.bytes();
            // Records without a time never grow old, as a segment that is still written to.
            let old =
                retention_ms >= 0 && newest.0 >= 0 && now.0.saturating_sub(newest.0) > retention_ms;
            let large = retention_bytes >= 0 && excess >= bytes;
            if end > self.high_watermark() || !(old || large) {
                break;
            }
            excess = excess.saturating_sub(bytes);
            moved = Some(end);
        }
        moved
    }
}
