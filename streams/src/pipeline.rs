//! A topology at work: its tasks, what they have done, and how to stop them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::{Condvar, Mutex, RwLock};
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{Offset, PartitionIndex, Timestamp, TopicName, TopicPartition};

use crate::committer::Committer;
use crate::explain::Explanation;
use crate::log_access::{LogAccess, Ticket};
use crate::plan::{BuildError, Site};
use crate::process::{Meter, Meters};
use crate::runner::Runner;
use crate::runtime::{Job, Runtime, Spawner};
use crate::status::{PipelineStatus, TaskStatus};
use crate::steward::Steward;
use crate::task::StreamTask;
use crate::topology::{Program, Topology};

/// How long a start waits for what it asks of the node.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Pause before a question that was refused is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long a pipeline that stops waits for what is under way.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// Latencies are counted up to a minute, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Where a topology can run: a broker, or what stands in for one.
pub trait Host {
    /// The logs of the node.
    fn log_access(&self) -> Arc<dyn LogAccess>;

    /// The threads of the node.
    fn runtime(&self) -> io::Result<Arc<Runtime>>;

    /// Makes the pipeline known to the node's metrics and tools. Whether it may run: not where one
    /// of its name does already, nor where the node ends.
    fn register(&self, pipeline: &Pipeline) -> bool;
}

/// Why a topology does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The topology has a mistake.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A topic that is read does not exist, and the node does not create it.
    #[error("topic {topic} of node {node:?}, made at {site}, does not exist")]
    MissingSource {
        /// The topic.
        topic: TopicName,
        /// The node that reads it.
        node: String,
        /// Where it was made.
        site: Site,
    },
    /// A partition has no replica here.
    #[error("partition {0} has no replica on this node")]
    NotHere(TopicPartition),
    /// A pipeline of this name runs already, or the node ends.
    #[error("a pipeline called {0:?} runs already, or the node ends")]
    NotNow(String),
    /// The node has no threads for it.
    #[error("cannot start the stream threads: {0}")]
    Threads(#[from] io::Error),
    /// The committed positions are not to be had.
    #[error("cannot learn the committed positions of {application:?}: {code:?}")]
    Positions {
        /// The topology's name.
        application: String,
        /// Why.
        code: ErrorCode,
    },
}

impl Topology {
    /// Runs the topology inside a broker: a task for each partition of the topics that it reads,
    /// from the positions that were committed under its name, or from the start of the log. Keeps the
    /// thread until the node has answered: not for a worker of an async runtime.
    pub fn run_in(self, host: &impl Host) -> Result<Pipeline, RunError> {
        let (program, runtime) = (self.build()?, host.runtime()?);
        let pipeline = Pipeline::new(program, host.log_access())?;
        if !host.register(&pipeline) {
            return Err(RunError::NotNow(pipeline.name().to_owned()));
        }
        pipeline.begin(&runtime);
        Ok(pipeline)
    }
}

/// A running topology. Dropping the last clone stops it: tasks end what they have begun, and their
/// positions are committed.
#[derive(Clone)]
pub struct Pipeline {
    shared: Arc<Shared>,
    owner: Arc<Owner>,
}

/// Stops the pipeline when it goes.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What tasks and their pipeline share.
pub(crate) struct Shared {
    program: Program,
    access: Arc<dyn LogAccess>,
    /// They only become more.
    tasks: RwLock<Vec<Arc<TaskStatus>>>,
    pub(crate) state: Mutex<State>,
    stopped: Condvar,
    wakers: Mutex<Vec<Waker>>,
    /// How often the topics of the node have changed.
    changes: AtomicU64,
    is_paused: AtomicBool,
    is_ending: AtomicBool,
    is_killed: AtomicBool,
    /// Jobs that are not done.
    pub(crate) running: AtomicUsize,
}

/// What all tasks have counted.
pub(crate) struct State {
    pub(crate) meters: Meters,
    pub(crate) faults: Vec<u64>,
    pub(crate) latency: Histogram<u64>,
    pub(crate) turnaround: Histogram<u64>,
    pub(crate) busy: Duration,
}

impl Shared {
    pub(crate) fn name(&self) -> &str {
        self.program.name()
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    pub(crate) fn access(&self) -> &Arc<dyn LogAccess> {
        &self.access
    }

    pub(crate) fn tasks(&self) -> Vec<Arc<TaskStatus>> {
        self.tasks.read().clone()
    }

    /// Why the topic of a task is not the one that it read any more, if it is not.
    pub(crate) fn loss_of(&self, task: &TaskStatus) -> Option<String> {
        let topic = &task.source.topic;
        match self.access.topic_id(topic) {
            None => Some(format!("topic {topic} was deleted")),
            Some(id) if id == task.access().topic_id() => None,
            Some(_) => Some(format!(
                "topic {topic} was deleted and created anew: a restart of the pipeline reads it"
            )),
        }
    }

    /// Runs a task.
    pub(crate) fn adopt(self: &Arc<Self>, status: Arc<TaskStatus>, threads: &Spawner) {
        self.tasks.write().push(status.clone());
        self.launch(status, threads);
    }

    fn launch(self: &Arc<Self>, status: Arc<TaskStatus>, threads: &Spawner) {
        let task = self.program.task(status.source.clone(), status.safe());
        let runner = Runner::new(self.clone(), status, task, threads.budget());
        self.spawn(Box::new(runner), threads);
    }

    fn spawn(&self, job: Box<dyn Job>, threads: &Spawner) {
        self.running.fetch_add(1, Ordering::AcqRel);
        let waker = threads.spawn(job);
        self.wakers.lock().push(waker.clone());
        // What the others were told before it was among them, it sees now.
        waker.wake();
    }

    /// How often the topics of the node have changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Acquire)
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Acquire)
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }

    /// Only the committer is left.
    pub(crate) fn is_last(&self) -> bool {
        self.running.load(Ordering::Acquire) <= 1
    }

    /// A job has ended.
    pub(crate) fn ended(&self) {
        let _state = self.state.lock();
        self.stopped.notify_all();
        self.wake();
    }

    pub(crate) fn wake(&self) {
        self.wakers.lock().iter().for_each(Waker::wake_by_ref);
    }

    /// Takes over what a task has counted.
    pub(crate) fn collect(&self, task: &mut StreamTask, busy: Duration) {
        let (meters, faults) = (task.meters(), task.faults());
        let mut state = self.state.lock();
        state.meters.iter_mut().zip(meters).for_each(|(sum, meter)| sum.add(meter));
        state.faults.iter_mut().zip(faults).for_each(|(sum, faults)| *sum += faults);
        state.busy += busy;
    }

    /// Counts records that are readable now, the first of which is of this time, and that have taken
    /// so long in here. None has taken longer than the first.
    pub(crate) fn observe(&self, first_timestamp: Timestamp, turnaround: Duration, records: u32) {
        let age_ms = self.access.now().0.saturating_sub(first_timestamp.0);
        let age_us = u64::try_from(age_ms).unwrap_or(0).saturating_mul(1000);
        let turnaround_us = u64::try_from(turnaround.as_micros()).unwrap_or(u64::MAX);
        let mut state = self.state.lock();
        let State { latency, turnaround, .. } = &mut *state;
        for (histogram, micros) in [(latency, age_us), (turnaround, turnaround_us)] {
            histogram.saturating_record_n(micros.clamp(1, LATENCY_US_MAX), records.into());
        }
    }

    fn end(&self) {
        self.is_ending.store(true, Ordering::Release);
        self.wake();
        let deadline = Instant::now() + STOP_WAIT;
        let mut state = self.state.lock();
        while self.running.load(Ordering::Acquire) > 0 {
            if self.stopped.wait_until(&mut state, deadline).timed_out() {
                tracing::warn!(pipeline = self.name(), "the pipeline did not end in time");
                self.is_killed.store(true, Ordering::Release);
                self.wake();
                return;
            }
        }
    }
}

impl Pipeline {
    /// Starts the tasks of a program.
    pub fn start(
        program: Program,
        access: Arc<dyn LogAccess>,
        runtime: &Runtime,
    ) -> Result<Self, RunError> {
        let pipeline = Self::new(program, access)?;
        pipeline.begin(runtime);
        Ok(pipeline)
    }

    /// A pipeline whose tasks do not run yet.
    fn new(program: Program, access: Arc<dyn LogAccess>) -> Result<Self, RunError> {
        let partitions = source_partitions(&program, access.as_ref())?;
        let positions = committed(program.name(), access.as_ref(), &partitions)?;
        let mut tasks = Vec::with_capacity(partitions.len());
        for (tp, committed) in partitions.into_iter().zip(positions) {
            let task = TaskStatus::open(access.as_ref(), &tp, committed);
            tasks.push(task.ok_or(RunError::NotHere(tp))?);
        }
        let nodes = program.nodes().len();
        let latency = Histogram::new_with_max(LATENCY_US_MAX, 2).expect("the bounds are in order");
        let turnaround = latency.clone();
        let (meters, faults) = (vec![Meter::default(); nodes], vec![0; nodes]);
        let state = State { meters, faults, latency, turnaround, busy: Duration::ZERO };
        let shared = Arc::new(Shared {
            program,
            access,
            running: AtomicUsize::new(0),
            tasks: RwLock::new(tasks),
            state: Mutex::new(state),
            stopped: Condvar::new(),
            wakers: Mutex::default(),
            changes: AtomicU64::new(0),
            is_paused: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            is_killed: AtomicBool::new(false),
        });
        Ok(Self { owner: Arc::new(Owner(shared.clone())), shared })
    }

    fn begin(&self, runtime: &Runtime) {
        let (shared, threads) = (&self.shared, runtime.spawner());
        // Whoever ends the pipeline meanwhile waits for all of them.
        shared.running.fetch_add(1, Ordering::AcqRel);
        for status in shared.tasks() {
            shared.launch(status, threads);
        }
        shared.spawn(Box::new(Committer::new(shared.clone())), threads);
        shared.spawn(Box::new(Steward::new(shared.clone(), threads.clone())), threads);
        shared.running.fetch_sub(1, Ordering::AcqRel);
        shared.ended();
    }

    /// The topology's name.
    pub fn name(&self) -> &str {
        self.shared.name()
    }

    /// Lets tasks end what they have begun and then rest. Their positions are committed.
    pub fn pause(&self) {
        self.shared.is_paused.store(true, Ordering::Release);
    }

    /// Lets tasks go on.
    pub fn resume(&self) {
        self.shared.is_paused.store(false, Ordering::Release);
        self.shared.wake();
    }

    /// A reference that does not keep the pipeline running.
    pub fn watch(&self) -> PipelineWatch {
        PipelineWatch { shared: self.shared.clone(), owner: Arc::downgrade(&self.owner) }
    }

    /// What it is.
    pub fn explain(&self) -> Explanation {
        self.shared.program.explain()
    }

    /// What it has done so far.
    pub fn status(&self) -> PipelineStatus {
        PipelineStatus::of(&self.shared)
    }
}

/// A pipeline as the node's tools see it.
#[derive(Clone)]
pub struct PipelineWatch {
    shared: Arc<Shared>,
    owner: std::sync::Weak<Owner>,
}

impl PipelineWatch {
    /// Ends the pipeline, whoever holds it: tasks end what they have begun, positions are committed.
    pub fn stop(&self) {
        self.shared.end();
    }

    /// The topics of the node have changed: partitions that are new get tasks, the tasks of topics
    /// that are gone end, topics that are written to may have grown. Does not wait.
    pub fn refresh(&self) {
        self.shared.changes.fetch_add(1, Ordering::AcqRel);
        self.shared.wake();
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        self.shared.name()
    }

    /// The pipeline, while it runs.
    pub fn upgrade(&self) -> Option<Pipeline> {
        Some(Pipeline { owner: self.owner.upgrade()?, shared: self.shared.clone() })
    }
}

/// The partitions of the topics that a program reads. A topic that does not exist is created as for
/// a consumer, where the node allows that.
fn source_partitions(
    program: &Program,
    access: &dyn LogAccess,
) -> Result<Vec<TopicPartition>, RunError> {
    let mut partitions = Vec::new();
    for topic in program.topics() {
        if access.partitions(&topic).is_none() {
            let deadline = Instant::now() + ANSWER_WAIT;
            let created = wait(access.create_topic(&topic).as_mut(), deadline);
            tracing::debug!(%topic, ?created, "a source that did not exist");
        }
        let Some(count) = access.partitions(&topic) else {
            let node = program.reader_of(&topic).expect("it is one of the program's topics");
            let (node, site) = (node.name.clone(), node.site);
            return Err(RunError::MissingSource { topic, node, site });
        };
        let of_topic = (0..count).map(|at| TopicPartition::new(topic.clone(), PartitionIndex(at)));
        partitions.extend(of_topic);
    }
    Ok(partitions)
}

/// The positions that were committed before. Asks until the coordinator, which may still be loading,
/// answers.
fn committed(
    application: &str,
    access: &dyn LogAccess,
    partitions: &[TopicPartition],
) -> Result<Vec<Option<Offset>>, RunError> {
    let deadline = Instant::now() + ANSWER_WAIT;
    loop {
        match wait(access.committed(application, partitions).as_mut(), deadline) {
            Ok(positions) => return Ok(positions),
            Err(code) if Instant::now() >= deadline => {
                return Err(RunError::Positions { application: application.to_owned(), code });
            }
            Err(_) => std::thread::sleep(ASK_AGAIN),
        }
    }
}

/// Keeps this thread until the ticket is known.
fn wait<T>(ticket: &mut dyn Ticket<T>, deadline: Instant) -> Result<T, ErrorCode> {
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(signal.clone());
    loop {
        if let Poll::Ready(answer) = ticket.poll(&waker) {
            return answer;
        }
        if Instant::now() >= deadline {
            return Err(ErrorCode::RequestTimedOut);
        }
        signal.wait(deadline);
    }
}

/// Wakes a thread that waits for a ticket.
#[derive(Default)]
struct Signal {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn wait(&self, deadline: Instant) {
        let mut is_set = self.is_set.lock();
        while !*is_set && !self.changed.wait_until(&mut is_set, deadline).timed_out() {}
        *is_set = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *self.is_set.lock() = true;
        self.changed.notify_one();
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// Positions by partition.
pub(crate) type Positions = BTreeMap<TopicPartition, Offset>;
