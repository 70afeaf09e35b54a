//! Catch-up reads: large batches are produced, then one consumer or several read all of them from
//! the beginning, from the page cache or from the disk.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{Advice, fadvise};
use vltava_benches::fixtures;
use vltava_protocol::record::compression::Codec;

use super::Cx;
use crate::compare::contents::read_back;
use crate::compare::metric::{Metric, Sample};
use crate::compare::pump::Pump;
use crate::compare::target::Target;
use crate::error::{BenchError, io_error};

/// The least share of the data that must have come from the disk for a read to count as cold.
const COLD_SHARE_MIN: f64 = 0.8;
/// Batches as a busy producer makes them.
const BATCH_BYTES: usize = 64 << 10;

/// One or several consumers far behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reads {
    /// Each reads everything.
    pub(crate) consumers: usize,
    /// Whether the page cache is emptied first.
    pub(crate) is_cold: bool,
}

impl Reads {
    /// Runs it once.
    pub(crate) fn run(&self, cx: &Cx<'_>, target: &Target) -> Result<Vec<Sample>, BenchError> {
        let mut client = target.client()?;
        let topic = cx.topic();
        client.create_ready_topic(&topic, 1)?;
        let batch = fixtures::batch(BATCH_BYTES, Codec::None);
        let requests = cx.scale.bytes as usize / batch.bytes.len();
        let bytes = (requests * batch.bytes.len()) as u64;
        let pump = Pump {
            topic: &topic,
            partitions: 1,
            acks: -1,
            connections: 1,
            window: 5,
            requests,
            batches: &[batch],
        };
        let (produced, spent) = target.spent(|| pump.run(target))?;
        let mut samples = vec![
            Sample(Metric::Produced, spent.rate(bytes)),
            Sample(Metric::ProducedCost, spent.per_gibibyte(bytes)),
        ];
        if self.is_cold {
            forget(target.dir())?;
        }
        let before = target.process().disk_read_bytes()?;
        let place = (topic.as_str(), 1);
        let read = || read_back(target, place, self.consumers, produced);
        let ((), spent) = target.spent(read)?;
        let from_disk = target.process().disk_read_bytes()? - before;
        if self.is_cold && from_disk < COLD_SHARE_MIN * bytes as f64 {
            let said = format!("{from_disk} of {bytes} bytes came from the disk");
            return Err(BenchError::Foreign { what: "emptying the page cache".to_owned(), said });
        }
        let bytes = bytes * self.consumers as u64;
        samples.push(Sample(Metric::Consumed, spent.rate(bytes)));
        samples.push(Sample(Metric::ConsumedCost, spent.per_gibibyte(bytes)));
        client.delete_topic(&topic)?;
        Ok(samples)
    }
}

/// Takes every file below `dir` out of the page cache.
#[allow(clippy::disallowed_methods, reason = "the files of foreign brokers")]
fn forget(dir: &Path) -> Result<(), BenchError> {
    let failed = || io_error(format!("cannot empty the page cache of {}", dir.display()));
    for entry in fs::read_dir(dir).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.is_dir() {
            forget(&path)?;
        } else if let Ok(file) = File::open(&path) {
            // Pages that are not on the disk yet cannot be dropped.
            file.sync_data().map_err(failed())?;
            fadvise(&file, 0, None, Advice::DontNeed).map_err(|error| failed()(error.into()))?;
        }
    }
    Ok(())
}
