//! Keeps the tasks of a pipeline in step with the topics that it reads: a partition that is new
//! gets a task while the others go on, and the tasks of a topic that was deleted end.
//!
//! A topic of the same name that comes later is another one: what was read of the first says
//! nothing about it, so its tasks begin with the next start of the pipeline, which finds no
//! positions. Until then the tasks of the first say why they stand still.
//!
//! Whoever runs pipelines wakes the steward when topics change ([`PipelineWatch::refresh`]).
//!
//! [`PipelineWatch::refresh`]: crate::PipelineWatch::refresh

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use vltava_protocol::ids::{Offset, PartitionIndex, TopicPartition};

use crate::log_access::Ticket;
use crate::pipeline::Shared;
use crate::runtime::{Job, Spawner, Turn};
use crate::status::TaskStatus;

/// How long it waits before it asks again for what was refused.
const RETRY: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Steward {
    pipeline: Arc<Shared>,
    threads: Spawner,
    /// New partitions whose committed positions are asked for.
    asked: Option<Asked>,
}

struct Asked {
    partitions: Vec<TopicPartition>,
    positions: Box<dyn Ticket<Vec<Option<Offset>>>>,
}

impl Steward {
    pub(crate) fn new(pipeline: Arc<Shared>, threads: Spawner) -> Self {
        Self { pipeline, threads, asked: None }
    }

    /// Ends the tasks whose topic is not there any more.
    fn retire(&self) {
        for task in self.pipeline.tasks() {
            let Some(reason) = self.pipeline.loss_of(&task) else { continue };
            if task.retire(&reason) {
                tracing::error!(
                    pipeline = self.pipeline.name(), source = ?task.source, reason,
                    "the task stops"
                );
                self.pipeline.wake();
            }
        }
    }

    /// The partitions that have no task. None of a topic that has lost its tasks.
    fn missing(&self) -> Vec<TopicPartition> {
        let (tasks, access) = (self.pipeline.tasks(), self.pipeline.access());
        let mut missing = Vec::new();
        for topic in self.pipeline.program().topics() {
            let of_topic = tasks.iter().filter(|task| task.source.topic == topic);
            if of_topic.clone().any(|task| task.is_retired()) {
                continue;
            }
            let count = access.partitions(&topic).unwrap_or(0);
            let known = of_topic.count() as i32;
            let new = (known..count).map(PartitionIndex);
            missing.extend(new.map(|at| TopicPartition::new(topic.clone(), at)));
        }
        missing
    }

    /// Starts the tasks of new partitions.
    fn admit(&mut self, waker: &Waker) -> Turn {
        let Some(asked) = &mut self.asked else {
            let partitions = self.missing();
            if partitions.is_empty() {
                return Turn::Wait;
            }
            let access = self.pipeline.access();
            let positions = access.committed(self.pipeline.name(), &partitions);
            self.asked = Some(Asked { partitions, positions });
            return Turn::Again;
        };
        let positions = match asked.positions.poll(waker) {
            Poll::Pending => return Turn::Wait,
            Poll::Ready(positions) => positions,
        };
        let partitions = std::mem::take(&mut asked.partitions);
        self.asked = None;
        let positions = match positions {
            Ok(positions) => positions,
            Err(code) => {
                tracing::warn!(
                    pipeline = self.pipeline.name(),
                    ?code,
                    "cannot learn the positions of new partitions"
                );
                return Turn::WaitUntil(Instant::now() + RETRY);
            }
        };
        for (tp, committed) in partitions.into_iter().zip(positions) {
            // In the order of their numbers: the ones behind it are missing until it is there.
            let Some(task) = TaskStatus::open(self.pipeline.access().as_ref(), &tp, committed)
            else {
                return Turn::WaitUntil(Instant::now() + RETRY);
            };
            tracing::info!(pipeline = self.pipeline.name(), %tp, "a task for a new partition");
            self.pipeline.adopt(task, &self.threads);
        }
        Turn::Again
    }
}

impl Job for Steward {
    fn turn(&mut self, waker: &Waker) -> Turn {
        if self.pipeline.is_killed() || self.pipeline.is_ending() {
            return Turn::Done;
        }
        self.retire();
        self.admit(waker)
    }
}

impl Drop for Steward {
    fn drop(&mut self) {
        self.pipeline.running.fetch_sub(1, Ordering::AcqRel);
        self.pipeline.ended();
    }
}
