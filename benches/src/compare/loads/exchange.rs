//! A client library produces to a new topic as fast as it can, then consumes it from the start.

use vltava_protocol::messages::ApiKey;

use super::{Cx, java, librdkafka};
use crate::compare::metric::{Metric, Sample};
use crate::compare::target::{Spent, Target};
use crate::error::BenchError;

/// Whose client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    /// Apache Kafka's own tools: `kafka-producer-perf-test`, `kafka-consumer-perf-test`.
    Java,
    /// librdkafka in this process.
    Librdkafka,
}

/// What is exchanged, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// Whose client.
    pub(crate) library: Library,
    /// Bytes of a record's value.
    pub(crate) record_bytes: u64,
    /// Partitions of the topic.
    pub(crate) partitions: i32,
    /// `1` or `all`.
    pub(crate) acks: &'static str,
    /// `enable.idempotence`.
    pub(crate) is_idempotent: bool,
    /// `linger.ms`, if not the library's default.
    pub(crate) linger_ms: Option<&'static str>,
    /// `compression.type`.
    pub(crate) codec: &'static str,
}

impl Exchange {
    /// Kafka's own defaults: 1 KiB records to one partition, acks=all, idempotent.
    pub(crate) const DEFAULT: Self = Self {
        library: Library::Java,
        record_bytes: 1024,
        partitions: 1,
        acks: "all",
        is_idempotent: true,
        linger_ms: None,
        codec: "none",
    };

    /// The producer's settings, in Kafka's names, which librdkafka shares.
    pub(super) fn settings(&self) -> Vec<(&'static str, &'static str)> {
        let idempotence = if self.is_idempotent { "true" } else { "false" };
        let mut settings = vec![
            ("acks", self.acks),
            ("enable.idempotence", idempotence),
            ("compression.type", self.codec),
        ];
        settings.extend(self.linger_ms.map(|linger| ("linger.ms", linger)));
        settings
    }

    /// Runs it once.
    pub(crate) fn run(&self, cx: &Cx<'_>, target: &Target) -> Result<Vec<Sample>, BenchError> {
        let records = cx.scale.records(self.record_bytes);
        let bytes = records * self.record_bytes;
        let mut client = target.client()?;
        let topic = cx.topic();
        client.create_ready_topic(&topic, self.partitions)?;
        let run = Run { cx, target, exchange: self, topic: &topic, records };
        let mut samples = Vec::new();
        match self.library {
            Library::Java => {
                let (rate, spent) = target.spent(|| java::produce(&run))?;
                samples.extend(produced(rate, spent, bytes));
                if client.serves(ApiKey::JoinGroup)? {
                    let (rate, spent) = target.spent(|| java::consume(&run))?;
                    samples.extend(consumed(rate, spent, bytes));
                }
            }
            Library::Librdkafka => {
                let (sum, spent) = target.spent(|| librdkafka::produce(&run))?;
                samples.extend(produced(spent.rate(bytes), spent, bytes));
                let (read, spent) = target.spent(|| librdkafka::consume(&run))?;
                samples.extend(consumed(spent.rate(bytes), spent, bytes));
                same(sum, read)?;
            }
        }
        let ends: i64 = client.end_offsets(&topic, self.partitions)?.iter().sum();
        same(records, ends.unsigned_abs())?;
        client.delete_topic(&topic)?;
        Ok(samples)
    }
}

/// One run of an exchange.
pub(super) struct Run<'a> {
    pub(super) cx: &'a Cx<'a>,
    pub(super) target: &'a Target,
    pub(super) exchange: &'a Exchange,
    pub(super) topic: &'a str,
    pub(super) records: u64,
}

fn produced(rate: f64, spent: Spent, bytes: u64) -> [Sample; 2] {
    let cost = spent.per_gibibyte(bytes);
    [Sample(Metric::Produced, rate), Sample(Metric::ProducedCost, cost)]
}

fn consumed(rate: f64, spent: Spent, bytes: u64) -> [Sample; 2] {
    let cost = spent.per_gibibyte(bytes);
    [Sample(Metric::Consumed, rate), Sample(Metric::ConsumedCost, cost)]
}

/// An error unless what came out is what went in.
pub(super) fn same(produced: u64, consumed: u64) -> Result<(), BenchError> {
    if produced == consumed {
        return Ok(());
    }
    let [produced, consumed] = [produced, consumed].map(|it| it.to_string());
    Err(BenchError::Mismatch { produced, consumed })
}
