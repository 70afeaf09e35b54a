//! Catch-up reads: large batches are produced, then one consumer or several read all of them from
//! the beginning, from the page cache or from the disk.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{Advice, fadvise};
use vltava_benches::fixtures;
use vltava_protocol::record::compression::Codec;

use super::Cx;
use crate::compare::bare::{self, Sink};
use crate::compare::contents::{Contents, read_back};
use crate::compare::metric::{Metric, Sample};
use crate::compare::pump::Pump;
use crate::compare::target::{Kind, Spent, Target};
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
        let (produced, taken_in) = target.spent(|| pump.run(target.address()))?;
        if self.is_cold {
            forget(target.dir())?;
        }
        let before = target.process().disk_read_bytes()?;
        let read = || read_back(target.address(), (&topic, 1), self.consumers, produced);
        let ((), given_out) = target.spent(read)?;
        let from_disk = target.process().disk_read_bytes()? - before;
        if self.is_cold && from_disk < COLD_SHARE_MIN * bytes as f64 {
            let said = format!("{from_disk} of {bytes} bytes came from the disk");
            return Err(BenchError::Foreign { what: "emptying the page cache".to_owned(), said });
        }
        client.delete_topic(&topic)?;
        let consumed_bytes = bytes * self.consumers as u64;
        let [cost_in, cost_out] =
            [taken_in.per_gibibyte(bytes), given_out.per_gibibyte(consumed_bytes)];
        let mut samples = vec![
            Sample(Metric::Produced, taken_in.rate(bytes)),
            Sample(Metric::ProducedCost, cost_in),
            Sample(Metric::Consumed, given_out.rate(consumed_bytes)),
            Sample(Metric::ConsumedCost, cost_out),
        ];
        if target.kind() == Kind::PageCache && !self.is_cold {
            target.settle()?;
            let [bare_in, bare_out] = self.run_bare(target.dir(), &pump, produced)?;
            let bare_in = bare_in.per_gibibyte(bytes);
            let bare_out = bare_out.per_gibibyte(consumed_bytes);
            samples.extend([
                Sample(Metric::BareIn, bare_in),
                Sample(Metric::ProducedOverBare, cost_in / bare_in),
                Sample(Metric::BareOut, bare_out),
                Sample(Metric::ConsumedOverBare, cost_out / bare_out),
            ]);
        }
        Ok(samples)
    }

    /// The same load on a bare loop: what it took to take in, and to give out.
    fn run_bare(
        &self,
        dir: &Path,
        pump: &Pump<'_>,
        produced: Contents,
    ) -> Result<[Spent; 2], BenchError> {
        let mut sink = Sink::new(dir, pump.topic, &pump.batches[0])?;
        let (_, taken_in) = bare::beside(&mut sink, pump.connections, |to| pump.run(to))?;
        let mut source = sink.into_source(pump.topic)?;
        let read = |from| read_back(from, (pump.topic, 1), self.consumers, produced);
        let ((), given_out) = bare::beside(&mut source, self.consumers, read)?;
        Ok([taken_in, given_out])
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
