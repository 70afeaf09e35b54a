//! Many producers of few records each: a hundred devices or services, each with its own connection,
//! keys, and batches far smaller than a client would like.

use vltava_benches::fixtures;
use vltava_protocol::record::compression::Codec;

use super::Cx;
use crate::compare::contents::read_back;
use crate::compare::metric::{Metric, Sample};
use crate::compare::pump::Pump;
use crate::compare::target::Target;
use crate::error::BenchError;

/// Batches of a few records, prepared; their keys differ.
const BATCHES: usize = 8;

/// Producers with keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fleet {
    /// Connections.
    pub(crate) producers: usize,
    /// Partitions, over which the keys of each producer spread.
    pub(crate) partitions: i32,
    /// Bytes of a batch: its header is 61, a record about 120.
    pub(crate) batch_bytes: usize,
    /// Batches of a run at quick scale, for each mebibyte of it.
    pub(crate) requests_per_mebibyte: usize,
}

impl Fleet {
    /// Runs it once.
    pub(crate) fn run(&self, cx: &Cx<'_>, target: &Target) -> Result<Vec<Sample>, BenchError> {
        let mut client = target.client()?;
        let topic = cx.topic();
        client.create_ready_topic(&topic, self.partitions)?;
        let batches: Vec<_> =
            (0..BATCHES).map(|_| fixtures::batch(self.batch_bytes, Codec::None)).collect();
        let requests = self.requests_per_mebibyte * (cx.scale.bytes >> 20) as usize;
        let bytes = (requests * batches[0].bytes.len()) as u64;
        let pump = Pump {
            topic: &topic,
            partitions: self.partitions,
            acks: -1,
            connections: self.producers,
            window: 5,
            requests,
            batches: &batches,
        };
        let (produced, spent) = target.spent(|| pump.run(target.address()))?;
        let samples = vec![
            Sample(Metric::Produced, spent.rate(bytes)),
            Sample(Metric::ProducedCost, spent.per_gibibyte(bytes)),
        ];
        read_back(target.address(), (&topic, self.partitions), 1, produced)?;
        client.delete_topic(&topic)?;
        Ok(samples)
    }
}
