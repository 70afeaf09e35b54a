//! The threads that run tasks: a few of them, for all pipelines of a node.
//!
//! A job is called when somebody wakes it, or when the time it asked for has come, and says what it
//! waits for next. Between two turns a thread takes nothing with it, so a job that never ends its
//! turn is the only one that can hold up others; a turn is bounded by what a task reads at once.
//!
//! **A budget protects the broker.** The threads run with a lower priority than those that serve
//! clients, so the kernel gives them what is left; and where `cpu_share` is below 1 each of them
//! rests in proportion to what it has used.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::setpriority_process;
use rustix::time::{ClockId, clock_gettime};

/// Rest that is due is taken once it is so long: shorter ones cost more than they save.
const REST_MIN: Duration = Duration::from_millis(1);

/// How a node runs its pipelines.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RuntimeConfig {
    /// Threads, at least 1.
    pub threads: usize,
    /// Niceness of the threads, 0 to 19: the higher, the more do they leave to others.
    pub niceness: i32,
    /// The part of its time that each thread may use a core, from 0.01 to 1.
    pub cpu_share: f64,
    /// What each task may hold.
    pub budget: TaskBudget,
}

/// What one task may hold, however far it is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskBudget {
    /// Bytes of the log that it reads at a time, about; one batch in any case. It keeps them, and
    /// with them the segments that they lie in, for this turn and no longer.
    pub pinned_bytes: usize,
    /// Bytes that it may have appended without their being committed. Beyond, it does not read.
    pub uncommitted_bytes: usize,
}

impl Default for TaskBudget {
    /// 1 MiB to read, 8 MiB on their way.
    fn default() -> Self {
        Self { pinned_bytes: 1 << 20, uncommitted_bytes: 8 << 20 }
    }
}

impl Default for RuntimeConfig {
    /// A thread a core, nice 5, the whole core where nobody else wants it.
    fn default() -> Self {
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { threads, niceness: 5, cpu_share: 1.0, budget: TaskBudget::default() }
    }
}

/// What a job wants after a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// Another turn, when others had theirs.
    Again,
    /// A turn when it is woken.
    Wait,
    /// A turn when it is woken, or at this time.
    WaitUntil(Instant),
    /// Nothing any more.
    Done,
}

/// Something that a thread runs, turn by turn.
pub(crate) trait Job: Send {
    /// Does what can be done without waiting. `waker` brings the next turn.
    fn turn(&mut self, waker: &Waker) -> Turn;
}

/// See the module. Dropping it ends the threads after their present turns.
#[derive(Debug)]
pub struct Runtime {
    spawner: Spawner,
    threads: Vec<JoinHandle<()>>,
}

/// Gives jobs to the threads of a runtime. It keeps none of them: what comes after their end is
/// dropped.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    budget: TaskBudget,
    inboxes: Arc<[Arc<Inbox>]>,
    next: Arc<AtomicUsize>,
}

/// What a thread is to do, told from outside.
#[derive(Default)]
struct Inbox {
    state: Mutex<InboxState>,
    changed: Condvar,
}

#[derive(Default)]
struct InboxState {
    new: Vec<(Arc<JobWaker>, Box<dyn Job>)>,
    ready: VecDeque<usize>,
    is_ending: bool,
}

/// Wakes one job. Many calls before its turn are one.
struct JobWaker {
    id: usize,
    inbox: Arc<Inbox>,
    is_ready: AtomicBool,
}

impl Wake for JobWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_ready.swap(true, Ordering::AcqRel) {
            self.inbox.state.lock().ready.push_back(self.id);
            self.inbox.changed.notify_one();
        }
    }
}

impl Runtime {
    /// Starts the threads.
    pub fn start(config: RuntimeConfig) -> io::Result<Self> {
        let count = config.threads.max(1);
        let inboxes = std::iter::repeat_with(Arc::<Inbox>::default).take(count).collect();
        let spawner = Spawner { budget: config.budget, inboxes, next: Arc::default() };
        let mut runtime = Self { spawner, threads: Vec::with_capacity(count) };
        for number in 0..count {
            let theirs = runtime.spawner.inboxes[number].clone();
            let thread = thread::Builder::new()
                .name(format!("streams-{number}"))
                .spawn(move || Loop::new(theirs, config).run())?;
            runtime.threads.push(thread);
        }
        Ok(runtime)
    }

    /// What gives jobs to the threads.
    pub(crate) fn spawner(&self) -> &Spawner {
        &self.spawner
    }
}

impl Spawner {
    /// What each task may hold that runs on these threads.
    pub(crate) fn budget(&self) -> TaskBudget {
        self.budget
    }

    /// Gives a job to the next thread in turn. It has its first turn at once. The waker that is
    /// returned brings a turn at any time.
    pub(crate) fn spawn(&self, job: Box<dyn Job>) -> Waker {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let inbox = &self.inboxes[number % self.inboxes.len()];
        let is_ready = AtomicBool::new(true);
        let waker = Arc::new(JobWaker { id: number, inbox: inbox.clone(), is_ready });
        let left = {
            let mut state = inbox.state.lock();
            if state.is_ending {
                Some(job)
            } else {
                state.new.push((waker.clone(), job));
                state.ready.push_back(number);
                None
            }
        };
        // What a job does in its end may wake others, which takes the lock again.
        drop(left);
        inbox.changed.notify_one();
        waker.into()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for inbox in &*self.spawner.inboxes {
            inbox.state.lock().is_ending = true;
            inbox.changed.notify_one();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a stream thread ended with a panic");
            }
        }
    }
}

/// A job, and what will bring its next turn.
struct Slot {
    job: Box<dyn Job>,
    waker: Arc<JobWaker>,
    /// The timer that is set for it.
    timer: Option<Instant>,
}

/// One thread's own state.
struct Loop {
    inbox: Arc<Inbox>,
    jobs: HashMap<usize, Slot>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    config: RuntimeConfig,
    /// Rest that is due.
    due: Duration,
}

impl Loop {
    fn new(inbox: Arc<Inbox>, config: RuntimeConfig) -> Self {
        let due = Duration::ZERO;
        Self { inbox, jobs: HashMap::new(), timers: BinaryHeap::new(), config, due }
    }

    fn run(mut self) {
        if let Err(error) = setpriority_process(None, self.config.niceness) {
            tracing::warn!(%error, "a stream thread keeps the priority of the others");
        }
        while let Some(ready) = self.wait() {
            for id in ready {
                let before = thread_time();
                self.turn(id);
                self.rest(thread_time().saturating_sub(before));
            }
        }
    }

    /// The jobs that are to have a turn; `None` at the end.
    fn wait(&mut self) -> Option<VecDeque<usize>> {
        let mut state = self.inbox.state.lock();
        loop {
            if state.is_ending {
                let left = std::mem::take(&mut state.new);
                drop(state);
                drop(left);
                return None;
            }
            for (waker, job) in state.new.drain(..) {
                self.jobs.insert(waker.id, Slot { job, waker, timer: None });
            }
            let now = Instant::now();
            while let Some(&Reverse((at, id))) = self.timers.peek() {
                if at > now {
                    break;
                }
                self.timers.pop();
                if let Some(slot) = self.jobs.get_mut(&id).filter(|slot| slot.timer == Some(at)) {
                    slot.timer = None;
                    state.ready.push_back(id);
                }
            }
            if !state.ready.is_empty() {
                return Some(std::mem::take(&mut state.ready));
            }
            match self.timers.peek() {
                Some(&Reverse((at, _))) => {
                    let _ = self.inbox.changed.wait_until(&mut state, at);
                }
                None => self.inbox.changed.wait(&mut state),
            }
        }
    }

    fn turn(&mut self, id: usize) {
        let Some(Slot { job, waker, timer }) = self.jobs.get_mut(&id) else { return };
        waker.is_ready.store(false, Ordering::Release);
        let std_waker = Waker::from(waker.clone());
        let turn = catch_unwind(AssertUnwindSafe(|| job.turn(&std_waker))).unwrap_or_else(|_| {
            tracing::error!("a job of the stream runtime panicked and is given up");
            Turn::Done
        });
        match turn {
            Turn::Again => waker.wake_by_ref(),
            Turn::Wait => {}
            Turn::WaitUntil(at) => {
                // One timer a job: the earlier one will do.
                if timer.is_none_or(|set| at < set) {
                    *timer = Some(at);
                    self.timers.push(Reverse((at, id)));
                }
            }
            Turn::Done => drop(self.jobs.remove(&id)),
        }
    }

    /// Rests in proportion to what was used.
    fn rest(&mut self, used: Duration) {
        let share = self.config.cpu_share.clamp(0.01, 1.0);
        self.due += used.mul_f64(1.0 / share - 1.0);
        if self.due >= REST_MIN {
            thread::sleep(std::mem::take(&mut self.due));
        }
    }
}

/// The processor time of this thread.
fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Counting {
        turns: Vec<Turn>,
        told: mpsc::Sender<usize>,
    }

    impl Job for Counting {
        fn turn(&mut self, _: &Waker) -> Turn {
            let turn = self.turns.remove(0);
            self.told.send(self.turns.len()).unwrap();
            turn
        }
    }

    fn config(threads: usize) -> RuntimeConfig {
        RuntimeConfig { threads, ..RuntimeConfig::default() }
    }

    #[test]
    fn a_job_gets_the_turns_that_it_asks_for() {
        let runtime = Runtime::start(config(1)).unwrap();
        let (told, turns) = mpsc::channel();
        let soon = Instant::now() + Duration::from_millis(5);
        let asked = vec![Turn::Again, Turn::WaitUntil(soon), Turn::Wait, Turn::Done];
        let waker = runtime.spawner().spawn(Box::new(Counting { turns: asked, told }));
        assert_eq!([turns.recv(), turns.recv(), turns.recv()], [Ok(3), Ok(2), Ok(1)]);
        assert!(Instant::now() >= soon);
        waker.wake_by_ref();
        assert_eq!(turns.recv(), Ok(0));
        assert!(turns.recv().is_err(), "a job that is done goes away");
    }

    /// Uses processor time, turn after turn.
    struct Busy {
        turns: usize,
        told: mpsc::Sender<Instant>,
    }

    const BURST: Duration = Duration::from_millis(5);

    impl Job for Busy {
        fn turn(&mut self, _: &Waker) -> Turn {
            let begun = thread_time();
            while thread_time() < begun + BURST {}
            self.told.send(Instant::now()).unwrap();
            self.turns -= 1;
            if self.turns == 0 { Turn::Done } else { Turn::Again }
        }
    }

    #[test]
    fn a_thread_rests_in_proportion_to_what_it_has_used() {
        let config = RuntimeConfig { cpu_share: 0.25, ..config(1) };
        let runtime = Runtime::start(config).unwrap();
        let (told, turns) = mpsc::channel();
        runtime.spawner().spawn(Box::new(Busy { turns: 5, told }));
        let turns: Vec<Instant> = turns.iter().collect();
        assert_eq!(turns.len(), 5);
        // Four times a rest of three bursts, and the next burst.
        assert!(turns[4] - turns[0] >= 4 * 4 * BURST, "{:?}", turns[4] - turns[0]);
    }

    #[test]
    fn jobs_are_spread_and_end_with_the_runtime() {
        let runtime = Runtime::start(config(2)).unwrap();
        let (told, turns) = mpsc::channel();
        for _ in 0..4 {
            runtime
                .spawner()
                .spawn(Box::new(Counting { turns: vec![Turn::Wait], told: told.clone() }));
        }
        drop(told);
        for _ in 0..4 {
            assert_eq!(turns.recv(), Ok(0));
        }
        drop(runtime);
        assert!(turns.recv().is_err(), "the jobs are gone");
    }
}
