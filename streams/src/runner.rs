//! Runs one task against the log: reads, feeds, appends, and knows up to where everything is safe.
//!
//! ```text
//! source ──read──> task ──outputs──> outbox ──append──> flight ──committed──> safe position
//! ```
//! The outbox holds batches that no leader has taken yet; while it is not empty nothing is read. The
//! flight holds, in order, what was appended and not yet committed, and *marks*: when a mark comes to
//! the front, everything that was made of the records before it is safe. If an append is lost with
//! its leader, the task begins again at the last safe position: at least once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{Offset, Timestamp, TopicName, TopicPartition};

use crate::log_access::{AppendError, PartitionAccess, Role, Ticket, Watch};
use crate::outputs::OutputBatch;
use crate::pipeline::Shared;
use crate::runtime::{Job, TaskBudget, Turn};
use crate::stamp::Stamp;
use crate::status::TaskStatus;
use crate::task::StreamTask;

/// How long a task waits before it tries again what was refused.
const RETRY: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Runner {
    pipeline: Arc<Shared>,
    status: Arc<TaskStatus>,
    task: StreamTask,
    budget: TaskBudget,
    source: Arc<dyn PartitionAccess>,
    watch: Option<(Arc<Stamp>, Watch)>,
    /// When it was told of records that it has not read yet.
    told: Option<Instant>,
    /// When it was told of those that it has read last, or began to read them.
    since: Instant,
    sinks: HashMap<TopicPartition, Arc<dyn PartitionAccess>>,
    outbox: VecDeque<OutputBatch>,
    flight: VecDeque<Flight>,
    flight_bytes: usize,
    /// The position of the last mark.
    marked: Offset,
    creating: Option<(TopicName, Box<dyn Ticket>)>,
    /// The changes of the node's topics that it has heeded.
    changes: u64,
    scratch: Vec<OutputBatch>,
}

enum Flight {
    Batch(Sent),
    Mark(Offset),
}

/// A batch that was appended.
struct Sent {
    ticket: Box<dyn Ticket>,
    bytes: usize,
    records: u32,
    first_timestamp: Timestamp,
    /// See [`Runner::since`].
    since: Instant,
}

/// Why a turn ends early.
enum Pause {
    /// Somebody will wake the task.
    Woken,
    /// Nobody will.
    Retry,
}

impl Runner {
    /// A runner of a task that begins at its source's position.
    pub(crate) fn new(
        pipeline: Arc<Shared>,
        status: Arc<TaskStatus>,
        task: StreamTask,
        budget: TaskBudget,
    ) -> Self {
        let source = status.access().clone();
        let marked = task.position();
        Self {
            pipeline,
            status,
            task,
            budget,
            source,
            watch: None,
            told: None,
            since: Instant::now(),
            sinks: HashMap::new(),
            outbox: VecDeque::new(),
            flight: VecDeque::new(),
            flight_bytes: 0,
            marked,
            creating: None,
            changes: 0,
            scratch: Vec::new(),
        }
    }

    fn advance(&mut self, waker: &Waker) -> Result<bool, Pause> {
        self.settle(waker)?;
        self.find_topics(waker)?;
        self.follow_topics();
        self.send()?;
        if self.marked < self.task.position() {
            self.marked = self.task.position();
            self.flight.push_back(Flight::Mark(self.marked));
            self.settle(waker)?;
        }
        let is_held = self.pipeline.is_paused() || self.pipeline.is_ending();
        if is_held || self.status.is_stopped() || self.flight_bytes > self.budget.uncommitted_bytes
        {
            return Err(Pause::Woken);
        }
        self.read()
    }

    /// Takes what is committed out of the flight.
    fn settle(&mut self, waker: &Waker) -> Result<(), Pause> {
        while let Some(first) = self.flight.front_mut() {
            match first {
                Flight::Mark(position) => self.status.set_safe(*position),
                Flight::Batch(sent) => match sent.ticket.poll(waker) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(())) => {
                        self.flight_bytes -= sent.bytes;
                        let turnaround = sent.since.elapsed();
                        self.pipeline.observe(sent.first_timestamp, turnaround, sent.records);
                    }
                    Poll::Ready(Err(code)) => return Err(self.begin_again(code)),
                },
            }
            self.flight.pop_front();
        }
        Ok(())
    }

    /// What was appended is lost, or what is to be appended has no place any more: everything since
    /// the last safe position is made once more.
    fn begin_again(&mut self, code: ErrorCode) -> Pause {
        let source = self.task.source().clone();
        let position = self.status.safe();
        tracing::warn!(
            pipeline = self.pipeline.name(), topic = %source.topic, partition = %source.partition,
            %position, ?code, "an output cannot be committed: the task begins again"
        );
        self.task = self.pipeline.program().task(source, position);
        self.outbox.clear();
        self.flight.clear();
        self.flight_bytes = 0;
        self.marked = position;
        self.status.begin_again();
        Pause::Retry
    }

    /// Learns how many partitions the topics have that were written to for the first time.
    fn find_topics(&mut self, waker: &Waker) -> Result<(), Pause> {
        if let Some((topic, ticket)) = &mut self.creating {
            match ticket.poll(waker) {
                Poll::Pending => return Err(Pause::Woken),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(code)) => tracing::warn!(
                    pipeline = self.pipeline.name(), %topic, ?code, "cannot create a topic"
                ),
            }
            self.creating = None;
            let unknown: Vec<_> = self.task.unknown_topics().cloned().collect();
            let access = self.pipeline.access();
            if unknown.iter().all(|topic| access.partitions(topic).is_none()) {
                return Err(Pause::Retry);
            }
        }
        loop {
            let access = self.pipeline.access();
            let Some(topic) = self.task.unknown_topics().next().cloned() else { return Ok(()) };
            let mut count = access.partitions(&topic);
            if count.is_none() {
                let mut ticket = access.create_topic(&topic);
                // One that is there at once needs no waking.
                if ticket.poll(waker).is_pending() {
                    self.creating = Some((topic, ticket));
                    return Err(Pause::Woken);
                }
                count = access.partitions(&topic);
            }
            let Some(count) = count else { return Err(Pause::Retry) };
            self.task.set_partitions(&topic, count);
        }
    }

    /// Learns which topics have grown that it writes to.
    fn follow_topics(&mut self) {
        let changes = self.pipeline.changes();
        if changes == self.changes {
            return;
        }
        self.changes = changes;
        let known: Vec<_> = self.task.known_topics().cloned().collect();
        for topic in known {
            if let Some(count) = self.pipeline.access().partitions(&topic) {
                self.task.set_partitions(&topic, count);
            }
        }
    }

    /// Appends the task's outputs, in order.
    fn send(&mut self) -> Result<(), Pause> {
        self.task.take_outputs(&mut self.scratch);
        self.outbox.extend(self.scratch.drain(..));
        while let Some(batch) = self.outbox.front() {
            let tp = TopicPartition { topic: batch.topic.clone(), partition: batch.partition };
            if !self.sinks.contains_key(&tp) {
                let access = self.pipeline.access();
                let Some(sink) = access.open(&tp) else {
                    let count = access.partitions(&tp.topic);
                    if count.is_some_and(|count| tp.partition.0 < count) {
                        return Err(Pause::Retry);
                    }
                    // The topic was deleted, and perhaps created anew with fewer partitions.
                    return Err(self.begin_again(ErrorCode::UnknownTopicOrPartition));
                };
                self.sinks.insert(tp.clone(), sink);
            }
            match self.sinks[&tp].append(&batch.bytes) {
                Ok(ticket) => {
                    let sent = Sent {
                        ticket,
                        bytes: batch.bytes.len(),
                        records: batch.records,
                        first_timestamp: batch.first_timestamp,
                        since: self.since,
                    };
                    self.flight_bytes += sent.bytes;
                    self.flight.push_back(Flight::Batch(sent));
                    self.outbox.pop_front();
                }
                Err(AppendError::Later) => {
                    // The topic may have been deleted and created anew.
                    self.sinks.remove(&tp);
                    return Err(Pause::Retry);
                }
                Err(AppendError::Refused(code)) => {
                    self.stop(&format!("{tp} refuses a batch: {code:?}"));
                    return Err(Pause::Woken);
                }
            }
        }
        Ok(())
    }

    /// Takes in what is there. Whether there is more.
    fn read(&mut self) -> Result<bool, Pause> {
        let view = self.source.view();
        if view.role == Role::Offline {
            return Err(Pause::Retry);
        }
        if self.task.position() < view.log_start_offset {
            tracing::warn!(
                pipeline = self.pipeline.name(), source = ?self.task.source(),
                from = %self.task.position(), to = %view.log_start_offset,
                "records were deleted before they were read"
            );
            self.task.skip_to(view.log_start_offset);
        }
        if self.task.position() > view.high_watermark && view.role == Role::Leader {
            let (at, end) = (self.task.position(), view.high_watermark);
            self.stop(&format!(
                "its position {at} lies beyond the end {end} of the log, which is another one or \
                 has lost records: reset the offsets of the pipeline's group"
            ));
            return Ok(false);
        }
        let told = self.told.take();
        if self.task.position() >= view.high_watermark {
            return Ok(false);
        }
        let batches = match self.source.read(self.task.position(), self.budget.pinned_bytes) {
            Ok(batches) => batches,
            Err(code) => {
                tracing::warn!(
                    pipeline = self.pipeline.name(), source = ?self.task.source(), ?code,
                    "cannot read"
                );
                return Err(Pause::Retry);
            }
        };
        let now = self.pipeline.access().now();
        let begun = Instant::now();
        self.since = told.unwrap_or(begun);
        for batch in &batches {
            self.task.feed(batch, now);
        }
        self.pipeline.collect(&mut self.task, begun.elapsed());
        self.status.set_position(self.task.position());
        if let Some(stop) = self.task.stopped() {
            let reason = stop.to_string();
            self.stop(&reason);
        }
        Ok(true)
    }

    fn stop(&self, reason: &str) {
        if self.status.stop(reason) {
            tracing::error!(
                pipeline = self.pipeline.name(), source = ?self.task.source(), reason,
                "the task stops"
            );
        }
    }

    /// Whether it has ended what it had begun and is to begin nothing more.
    fn is_over(&self) -> bool {
        let is_sent = self.outbox.is_empty() && self.task.unknown_topics().next().is_none();
        let is_over = match () {
            () if self.status.is_retired() => is_sent,
            // What is not sent is made again by the next start.
            () if self.pipeline.is_ending() => self.outbox.is_empty() || self.status.is_stopped(),
            () => false,
        };
        is_over && self.flight.is_empty()
    }
}

impl Job for Runner {
    fn turn(&mut self, waker: &Waker) -> Turn {
        let (stamp, _) = self.watch.get_or_insert_with(|| {
            let stamp = Stamp::new(waker.clone());
            let watch = self.source.watch(stamp.clone().into());
            (stamp, watch)
        });
        // The first of them, where it did not come to reading.
        let told = stamp.take();
        self.told = self.told.or(told);
        if self.pipeline.is_killed() {
            return Turn::Done;
        }
        let advanced = self.advance(waker);
        if self.is_over() {
            return Turn::Done;
        }
        match advanced {
            Ok(true) => Turn::Again,
            Ok(false) | Err(Pause::Woken) => Turn::Wait,
            Err(Pause::Retry) => Turn::WaitUntil(Instant::now() + RETRY),
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.pipeline.running.fetch_sub(1, Ordering::AcqRel);
        self.pipeline.ended();
    }
}
