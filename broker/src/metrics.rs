//! Counters of the broker, in Prometheus' text format on the admin listener.
//!
//! Counting costs an atomic addition: every label set is resolved once, when the broker starts, and
//! what belongs to a partition is counted in the partition ([`Traffic`]) and gathered only when
//! somebody scrapes. No lock, allocation or lookup stands on the way of a request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use vltava_protocol::error_code::ErrorCode;

use crate::client_metrics::{ClientFigures, ClientMetrics};

/// API keys that are counted; no client-facing key of Kafka is above.
const API_KEYS: usize = 128;
/// Error codes that are counted, from −1 on.
const ERROR_CODES: usize = 160;

/// All counters of one broker.
pub struct Metrics {
    apis: Arc<Apis>,
    /// Client connections.
    pub connections: ConnectionMetrics,
    /// Requests and bytes by client id.
    pub clients: Arc<ClientMetrics>,
    /// Rounds of the disk's flusher.
    pub flush: FlushMetrics,
    /// Elections and roles.
    pub raft: RaftMetrics,
    registry: Mutex<Registry>,
}

/// Client connections of the Kafka listener.
#[derive(Clone, Debug, Default)]
pub struct ConnectionMetrics {
    /// Open now.
    pub open: Gauge,
    /// Accepted since the start.
    pub accepted: Counter,
    /// Refused at accept, by a limit.
    pub refused: Counter,
    /// Closed by the server because of what the client sent.
    pub closed_for_cause: Counter,
    /// Closed by the server because nothing moved.
    pub closed_idle: Counter,
    /// Bytes of responses that clients have not read yet.
    pub unread_bytes: Gauge,
    /// From the arrival of a request to its beginning: what it waited for those before it.
    pub queue_time: Histogram,
}

/// What the flusher did; one round is one write and one sync for many.
#[derive(Clone, Debug, Default)]
pub struct FlushMetrics {
    /// Rounds done.
    pub rounds: Counter,
    /// Items made durable by them.
    pub items: Counter,
    /// Bytes made durable by them.
    pub bytes: Counter,
    /// Time of a round.
    pub duration: Histogram,
}

/// What the replicas of this node did.
#[derive(Clone, Debug, Default)]
pub struct RaftMetrics {
    /// Times a replica here became leader.
    pub elections_won: Counter,
    /// Groups fenced because of damage or a defect.
    pub groups_fenced: Counter,
}

/// Bytes and records that went through one partition; lives in it.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Batch bytes appended by clients.
    pub bytes_in: AtomicU64,
    /// Records appended by clients.
    pub records_in: AtomicU64,
    /// Batch bytes sent to clients.
    pub bytes_out: AtomicU64,
}

impl Traffic {
    /// Counts an append.
    pub fn appended(&self, bytes: usize, records: i32) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.records_in.fetch_add(u64::try_from(records).unwrap_or(0), Ordering::Relaxed);
    }

    /// Counts what a response holds.
    pub fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Requests of one API.
pub struct ApiMetrics {
    requests: AtomicU64,
    latency: Histogram,
    errors: [AtomicU64; ERROR_CODES],
}

impl ApiMetrics {
    /// Counts a request and the time from its frame to its response.
    pub fn answered(&self, took: Duration) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.latency.observe(took);
    }

    /// Counts an error code of a response, once for every place it stands at; `None` is free.
    pub fn error(&self, code: ErrorCode) {
        if code == ErrorCode::None {
            return;
        }
        let place = usize::try_from(i32::from(code.code()) + 1).ok();
        if let Some(count) = place.and_then(|place| self.errors.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Apis(Vec<(&'static str, ApiMetrics)>);

impl Default for Metrics {
    fn default() -> Self {
        Self::new(|_| None)
    }
}

impl Metrics {
    /// Fresh counters; `name_of` gives the label of an API key that is served.
    pub fn new(name_of: impl Fn(i16) -> Option<&'static str>) -> Self {
        let apis = (0..API_KEYS).map(|key| {
            let name = name_of(key as i16).unwrap_or("");
            let errors = std::array::from_fn(|_| AtomicU64::new(0));
            (
                name,
                ApiMetrics { requests: AtomicU64::new(0), latency: Histogram::default(), errors },
            )
        });
        let metrics = Self {
            apis: Arc::new(Apis(apis.collect())),
            connections: ConnectionMetrics::default(),
            clients: Arc::default(),
            flush: FlushMetrics::default(),
            raft: RaftMetrics::default(),
            registry: Mutex::new(Registry::with_prefix("vltava")),
        };
        metrics.register();
        metrics
    }

    /// The counters of an API.
    ///
    /// # Panics
    /// When no API has this key: keys come from the table of handlers.
    pub fn api(&self, key: i16) -> &ApiMetrics {
        &self.apis.0[usize::try_from(key).expect("served keys are not negative")].1
    }

    /// Adds figures that are gathered when somebody scrapes.
    pub fn gather(&self, collector: impl Collector) {
        self.registry.lock().register_collector(Box::new(collector));
    }

    /// Everything, in Prometheus' text format.
    pub fn encode(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.registry.lock()).expect("a String takes every write");
        page
    }

    fn register(&self) {
        let mut registry = self.registry.lock();
        registry.register_collector(Box::new(Arc::clone(&self.apis)));
        registry.register_collector(Box::new(ClientFigures(Arc::clone(&self.clients))));
        let connections = &self.connections;
        let of = registry.sub_registry_with_prefix("connections");
        of.register("open", "Client connections now open", connections.open.clone());
        of.register("accepted", "Client connections accepted", connections.accepted.clone());
        of.register("refused", "Client connections over a limit", connections.refused.clone());
        let closed = connections.closed_for_cause.clone();
        of.register("closed_for_cause", "Client connections closed by the broker", closed);
        let closed = connections.closed_idle.clone();
        of.register("closed_idle", "Client connections closed because nothing moved", closed);
        let unread = connections.unread_bytes.clone();
        of.register("unread_response_bytes", "Bytes of responses not sent yet", unread);
        let queue_time = connections.queue_time.clone();
        of.register("queue_duration_seconds", "Time a request waited to begin", queue_time);
        let flush = &self.flush;
        let of = registry.sub_registry_with_prefix("flush");
        of.register("rounds", "Rounds of the flusher", flush.rounds.clone());
        of.register("items", "Items made durable", flush.items.clone());
        of.register("bytes", "Bytes made durable", flush.bytes.clone());
        of.register("duration_seconds", "Time of a flusher's round", flush.duration.clone());
        let raft = &self.raft;
        let of = registry.sub_registry_with_prefix("raft");
        of.register("elections_won", "Times a replica became leader", raft.elections_won.clone());
        of.register("groups_fenced", "Groups fenced on this node", raft.groups_fenced.clone());
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl fmt::Debug for Apis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apis").finish_non_exhaustive()
    }
}

impl Collector for Apis {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let served = || {
            self.0
                .iter()
                .filter(|(name, api)| !name.is_empty() && api.requests.load(Ordering::Relaxed) > 0)
        };
        let mut requests = encoder.encode_descriptor(
            "requests",
            "Requests answered",
            None,
            MetricType::Counter,
        )?;
        for (name, api) in served() {
            let count = api.requests.load(Ordering::Relaxed);
            requests
                .encode_family(&[("api", *name)])?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let mut latency = encoder.encode_descriptor(
            "request_duration_seconds",
            "Time from a request's frame to its response",
            None,
            MetricType::Histogram,
        )?;
        for (name, api) in served() {
            api.latency.encode(latency.encode_family(&[("api", *name)])?)?;
        }
        let mut errors = encoder.encode_descriptor(
            "request_errors",
            "Error codes in responses",
            None,
            MetricType::Counter,
        )?;
        for (name, api) in served() {
            for (place, count) in api.errors.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                let Some(code) = ErrorCode::from_code(place as i16 - 1) else { continue };
                if count > 0 {
                    errors
                        .encode_family(&[("api", *name), ("error", code.name())])?
                        .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        Ok(())
    }
}

/// A histogram of durations in powers of two from 64 µs to 34 s, counted with two atomic additions.
///
/// The crate's own histogram takes a lock for each observation.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<HistogramCells>);

/// Buckets, the last one without a bound.
const BUCKETS: usize = 21;
/// Upper bound of the first bucket, in microseconds.
const FIRST_BUCKET_US: u64 = 64;

#[derive(Debug, Default)]
struct HistogramCells {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.counts[bucket_of(us)].fetch_add(1, Ordering::Relaxed);
        self.0.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// The first bucket whose bound is not below `us`.
fn bucket_of(us: u64) -> usize {
    let doublings = us.saturating_sub(1) / FIRST_BUCKET_US;
    ((u64::BITS - doublings.leading_zeros()) as usize).min(BUCKETS - 1)
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let mut buckets = [(f64::INFINITY, 0); BUCKETS];
        let mut total = 0;
        for (place, bucket) in buckets.iter_mut().enumerate() {
            let count = self.0.counts[place].load(Ordering::Relaxed);
            total += count;
            let bound = (FIRST_BUCKET_US << place) as f64 / 1e6;
            *bucket = (if place == BUCKETS - 1 { f64::INFINITY } else { bound }, count);
        }
        let sum = self.0.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_that_bounds_them() {
        for (us, bucket) in [
            (0, 0),
            (1, 0),
            (64, 0),
            (65, 1),
            (128, 1),
            (129, 2),
            (256, 2),
            (257, 3),
            (u64::MAX, BUCKETS - 1),
        ] {
            assert_eq!(bucket_of(us), bucket, "{us}");
        }
    }

    #[test]
    fn the_page_names_what_was_counted() {
        let metrics = Metrics::new(|key| (key == 1).then_some("Fetch"));
        metrics.api(1).answered(Duration::from_micros(100));
        metrics.api(1).error(ErrorCode::OffsetOutOfRange);
        metrics.api(1).error(ErrorCode::None);
        metrics.flush.duration.observe(Duration::from_millis(3));
        let page = metrics.encode();
        for line in [
            "vltava_requests_total{api=\"Fetch\"} 1",
            "vltava_request_errors_total{api=\"Fetch\",error=\"OFFSET_OUT_OF_RANGE\"} 1",
            "vltava_request_duration_seconds_bucket{le=\"0.000064\",api=\"Fetch\"} 0",
            "vltava_request_duration_seconds_bucket{le=\"+Inf\",api=\"Fetch\"} 1",
            "vltava_flush_duration_seconds_count 1",
            "vltava_connections_open 0",
        ] {
            assert!(page.contains(line), "{line} not in\n{page}");
        }
    }
}
