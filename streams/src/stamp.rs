//! Remembers when a task was told that there is something to read: where its turnaround begins.
//!
//! The log calls from whichever thread has moved the high watermark; the task looks in its turn. A
//! call that had another cause, or that brought nothing, is forgotten when the task has looked.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Instant;

use parking_lot::Mutex;

/// See the module.
pub(crate) struct Stamp {
    told: Mutex<Option<Instant>>,
    task: Waker,
}

impl Stamp {
    /// A stamp that passes every call on to `task`.
    pub(crate) fn new(task: Waker) -> Arc<Self> {
        Arc::new(Self { told: Mutex::new(None), task })
    }

    /// The first call since this was last asked.
    pub(crate) fn take(&self) -> Option<Instant> {
        self.told.lock().take()
    }
}

impl Wake for Stamp {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the task is woken, which looks for it.
        self.told.lock().get_or_insert_with(Instant::now);
        self.task.wake_by_ref();
    }
}
