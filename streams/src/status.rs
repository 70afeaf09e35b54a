//! What a pipeline and its tasks have done so far, for metrics, tools and each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use vltava_protocol::ids::{Offset, Timestamp, TopicPartition};

use crate::log_access::{LogAccess, PartitionAccess};
use crate::pipeline::Shared;
use crate::record::Source;

/// What a pipeline has done so far, for metrics and tools.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct PipelineStatus {
    /// The topology's name.
    pub name: String,
    /// `running`, `paused`, or `stopped` where a task has stopped.
    pub state: String,
    /// Its nodes, in the order in which they were made.
    pub nodes: Vec<NodeStatus>,
    /// Its tasks.
    pub tasks: Vec<TaskInfo>,
    /// From a record's time to the time when what was made of it is readable, in microseconds; of a
    /// batch, all count as its first. Both times are whole milliseconds, and the first is the
    /// producer's.
    pub latency_us: Quantiles,
    /// From when a task was told of records (where it is behind, from when it began to read them)
    /// to when it knows that what was made of them is readable, in microseconds: what the pipeline
    /// and the commit take, measured on one clock. Of what is read at once, all count as the first.
    pub turnaround_us: Quantiles,
    /// Time that was spent in operators, in seconds.
    pub busy_seconds: f64,
}

/// One node's counts.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub operator: String,
    /// Records that came in.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Records that it refused.
    pub rejects: u64,
    /// Records that failed in it.
    pub faults: u64,
}

/// One task's place.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct TaskInfo {
    /// The topic that it reads.
    pub topic: String,
    /// The partition that it reads.
    pub partition: i32,
    /// The next record that it wants.
    pub position: i64,
    /// Everything before it is safe.
    pub safe: i64,
    /// Records that it has not read.
    pub lag: i64,
    /// Age of the oldest record that it has not read, in milliseconds; 0 where there is none.
    pub lag_ms: i64,
    /// Why it stands still, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// Quantiles of what was measured.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
pub struct Quantiles {
    /// How many were measured.
    pub count: u64,
    /// Half are below.
    pub p50: u64,
    /// 99 in 100 are below.
    pub p99: u64,
    /// 999 in 1,000 are below.
    pub p999: u64,
    /// The greatest.
    pub max: u64,
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

impl PipelineStatus {
    pub(crate) fn of(shared: &Shared) -> Self {
        let now = shared.access().now();
        let tasks: Vec<_> = shared.tasks().iter().map(|task| TaskInfo::of(task, now)).collect();
        let state = shared.state.lock();
        let nodes = shared.program().nodes().iter().zip(&state.meters).zip(&state.faults);
        let nodes = nodes.map(|((node, meter), &faults)| NodeStatus {
            name: node.name.clone(),
            operator: node.operator.to_owned(),
            records: meter.records,
            bytes: meter.bytes,
            rejects: meter.rejects,
            faults,
        });
        Self {
            name: shared.name().to_owned(),
            state: match () {
                () if tasks.iter().any(|task| task.stopped.is_some()) => "stopped",
                () if shared.is_paused() => "paused",
                () => "running",
            }
            .to_owned(),
            nodes: nodes.collect(),
            latency_us: Quantiles::of(&state.latency),
            turnaround_us: Quantiles::of(&state.turnaround),
            busy_seconds: state.busy.as_secs_f64(),
            tasks,
        }
    }
}

impl TaskInfo {
    fn of(task: &TaskStatus, now: Timestamp) -> Self {
        let position = task.position.load(Ordering::Acquire);
        let view = task.access.view();
        let lag = (view.high_watermark.0 - position).max(0);
        let oldest = (lag > 0).then(|| task.access.timestamp_at(Offset(position))).flatten();
        Self {
            topic: task.source.topic.to_string(),
            partition: task.source.partition.0,
            position,
            safe: task.safe().0,
            lag,
            lag_ms: oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0).max(0)),
            stopped: task.stop.lock().clone(),
        }
    }
}

/// One task, as others see it.
#[derive(Debug)]
pub(crate) struct TaskStatus {
    pub(crate) source: Source,
    access: Arc<dyn PartitionAccess>,
    position: AtomicI64,
    safe: AtomicI64,
    stop: Mutex<Option<String>>,
    /// Its topic is gone: it ends, and its position is nobody's any more.
    is_retired: AtomicBool,
}

impl std::fmt::Debug for dyn PartitionAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartitionAccess").finish_non_exhaustive()
    }
}

impl TaskStatus {
    /// The task of a partition that begins where it had committed, or at the log's start; `None`
    /// where the partition has no replica here.
    pub(crate) fn open(
        access: &dyn LogAccess,
        tp: &TopicPartition,
        committed: Option<Offset>,
    ) -> Option<Arc<Self>> {
        let partition = access.open(tp)?;
        let begin = committed.unwrap_or_else(|| partition.view().log_start_offset);
        Some(Arc::new(Self {
            source: Source { topic: tp.topic.clone(), partition: tp.partition },
            access: partition,
            position: AtomicI64::new(begin.0),
            safe: AtomicI64::new(begin.0),
            stop: Mutex::new(None),
            is_retired: AtomicBool::new(false),
        }))
    }

    /// The replica that it reads.
    pub(crate) fn access(&self) -> &Arc<dyn PartitionAccess> {
        &self.access
    }

    pub(crate) fn safe(&self) -> Offset {
        Offset(self.safe.load(Ordering::Acquire))
    }

    pub(crate) fn set_safe(&self, position: Offset) {
        self.safe.store(position.0, Ordering::Release);
    }

    pub(crate) fn set_position(&self, position: Offset) {
        self.position.store(position.0, Ordering::Release);
    }

    /// Notes why the task stands still. Whether that is news.
    pub(crate) fn stop(&self, reason: &str) -> bool {
        let mut stop = self.stop.lock();
        let is_news = stop.is_none();
        stop.get_or_insert_with(|| reason.to_owned());
        is_news
    }

    /// Whether it stands still.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.lock().is_some()
    }

    /// It goes back to its safe position: what has stopped it behind that will do so again.
    pub(crate) fn begin_again(&self) {
        if !self.is_retired() {
            *self.stop.lock() = None;
        }
    }

    /// Notes that its topic is gone. Whether that is news.
    pub(crate) fn retire(&self, reason: &str) -> bool {
        let is_news = !self.is_retired.swap(true, Ordering::AcqRel);
        // Above whatever else has stopped it before: that has lost its meaning.
        *self.stop.lock() = Some(reason.to_owned());
        is_news
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }
}
