//! Figures of the partitions, gathered when somebody scrapes: they are counted where they arise.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::context::Shared;
use crate::node::Node;
use crate::partitions::Partitions;
use crate::request_memory::RequestMemory;

/// Lets the node's metrics gather from its partitions.
pub fn gather(node: &Node) {
    node.metrics.gather(PartitionFigures(Arc::clone(&node.partitions)));
}

/// Lets the node's metrics gather what its connections share.
pub fn gather_shared(node: &Node, memory: RequestMemory, shared: Arc<Shared>) {
    node.metrics.gather(SharedFigures { memory, shared });
}

/// What is wrong with the node, one line each.
pub fn complaints(node: &Node) -> Vec<String> {
    let fenced = node.partitions.all().iter().filter(|p| p.status().is_fenced).count();
    if fenced == 0 { Vec::new() } else { vec![format!("{fenced} partitions are out of service")] }
}

#[derive(Debug)]
struct PartitionFigures(Arc<Partitions>);

struct SharedFigures {
    memory: RequestMemory,
    shared: Arc<Shared>,
}

impl fmt::Debug for SharedFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedFigures").field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl Collector for SharedFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let sessions = &self.shared.fetch_sessions;
        let figures = [
            ("request_memory_bytes", "Bytes of large requests", self.memory.held_bytes()),
            ("fetch_sessions", "Fetch sessions kept", sessions.len()),
            ("fetch_session_partitions", "Partitions in them", sessions.partitions()),
        ];
        for (name, help, value) in figures {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value as u64).encode(gauge)?;
        }
        Ok(())
    }
}

/// Sums over the partitions of one topic.
#[derive(Default)]
struct TopicFigures {
    partitions: u64,
    leaders: u64,
    size_bytes: u64,
    term_max: u64,
    bytes_in: u64,
    records_in: u64,
    bytes_out: u64,
}

impl PartitionFigures {
    fn by_topic(&self) -> BTreeMap<String, TopicFigures> {
        let mut topics: BTreeMap<String, TopicFigures> = BTreeMap::new();
        for partition in self.0.all() {
            let topic = topics.entry(partition.tp().topic.to_string()).or_default();
            let (status, traffic) = (partition.status(), partition.traffic());
            topic.partitions += 1;
            topic.leaders += u64::from(partition.leadership().is_leader);
            topic.size_bytes += status.size_bytes;
            topic.term_max = topic.term_max.max(status.term);
            topic.bytes_in += traffic.bytes_in.load(Ordering::Relaxed);
            topic.records_in += traffic.records_in.load(Ordering::Relaxed);
            topic.bytes_out += traffic.bytes_out.load(Ordering::Relaxed);
        }
        topics
    }
}

/// Name, help, kind and value of a figure.
type Figure = (&'static str, &'static str, MetricType, fn(&TopicFigures) -> u64);

const FIGURES: &[Figure] = &[
    ("topic_partitions", "Replicas on this node", MetricType::Gauge, |t| t.partitions),
    ("topic_leaders", "Partitions led by this node", MetricType::Gauge, |t| t.leaders),
    ("topic_size_bytes", "Bytes of batches on disk", MetricType::Gauge, |t| t.size_bytes),
    ("topic_raft_term_max", "Highest term of a partition", MetricType::Gauge, |t| t.term_max),
    ("topic_bytes_in", "Batch bytes appended by clients", MetricType::Counter, |t| t.bytes_in),
    ("topic_records_in", "Records appended by clients", MetricType::Counter, |t| t.records_in),
    ("topic_bytes_out", "Batch bytes sent to clients", MetricType::Counter, |t| t.bytes_out),
];

impl Collector for PartitionFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let topics = self.by_topic();
        for (name, help, kind, value) in FIGURES {
            let mut family = encoder.encode_descriptor(name, help, None, *kind)?;
            for (topic, figures) in &topics {
                let labels = [("topic", topic.as_str())];
                let mut metric = family.encode_family(&labels)?;
                let value = value(figures);
                match kind {
                    MetricType::Counter => {
                        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
                    }
                    _ => metric.encode_gauge(&value)?,
                }
            }
        }
        Ok(())
    }
}
