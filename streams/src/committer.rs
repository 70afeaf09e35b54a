//! Commits the safe positions of a pipeline's tasks, all in one request, from time to time; the last
//! time when every task has ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use vltava_protocol::ids::TopicPartition;

use crate::log_access::Ticket;
use crate::pipeline::{Positions, Shared};
use crate::runtime::{Job, Turn};
use crate::status::TaskStatus;

/// Time between two commits: what is done again after a crash.
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Committer {
    pipeline: Arc<Shared>,
    committed: Positions,
    under_way: Option<(Positions, Box<dyn Ticket>)>,
    due: Instant,
}

impl Committer {
    pub(crate) fn new(pipeline: Arc<Shared>) -> Self {
        let due = Instant::now() + COMMIT_INTERVAL;
        Self { pipeline, committed: Positions::new(), under_way: None, due }
    }

    /// The positions that have moved since the last commit. None of a topic that is gone: one of its
    /// name that comes later would begin there.
    fn moved(&self) -> Positions {
        let position = |task: &Arc<TaskStatus>| {
            let source = &task.source;
            (TopicPartition::new(source.topic.clone(), source.partition), task.safe())
        };
        let tasks = self.pipeline.tasks();
        let present = tasks.iter().filter(|task| self.pipeline.loss_of(task).is_none());
        let positions = present.map(position);
        positions.filter(|(tp, safe)| self.committed.get(tp) != Some(safe)).collect()
    }
}

impl Job for Committer {
    fn turn(&mut self, waker: &Waker) -> Turn {
        if self.pipeline.is_killed() {
            return Turn::Done;
        }
        if let Some((positions, ticket)) = &mut self.under_way {
            match ticket.poll(waker) {
                Poll::Pending => return Turn::Wait,
                Poll::Ready(Ok(())) => self.committed.append(positions),
                Poll::Ready(Err(code)) => tracing::warn!(
                    pipeline = self.pipeline.name(),
                    ?code,
                    "cannot commit positions"
                ),
            }
            self.under_way = None;
            self.due = Instant::now() + COMMIT_INTERVAL;
        }
        let is_last = self.pipeline.is_ending() && self.pipeline.is_last();
        if !is_last && Instant::now() < self.due {
            return Turn::WaitUntil(self.due);
        }
        let moved = self.moved();
        if moved.is_empty() {
            self.due = Instant::now() + COMMIT_INTERVAL;
            return if is_last { Turn::Done } else { Turn::WaitUntil(self.due) };
        }
        let positions: Vec<_> = moved.iter().map(|(tp, safe)| (tp.clone(), *safe)).collect();
        let ticket = self.pipeline.access().commit(self.pipeline.name(), &positions);
        self.under_way = Some((moved, ticket));
        Turn::Again
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.pipeline.running.fetch_sub(1, Ordering::AcqRel);
        self.pipeline.ended();
    }
}
