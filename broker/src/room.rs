//! Back-pressure of a disk: appends wait before they take a partition's lock, so that what waits for
//! the flusher does not grow without bound. Batches of page-cache topics do not wait for it: there
//! the kernel's own limit on dirty pages holds writers back.

use std::sync::Arc;

use tokio::sync::Notify;
use vltava_storage::flusher::FlushQueue;

/// Bytes that may wait for the flusher before appends wait, too.
pub const QUEUED_BYTES_MAX: u64 = 128 << 20;

/// Room on one disk.
#[derive(Debug)]
pub struct Room {
    queue: Arc<FlushQueue>,
    freed: Notify,
}

impl Room {
    /// The room behind `queue`.
    pub fn new(queue: Arc<FlushQueue>) -> Arc<Self> {
        Arc::new(Self { queue, freed: Notify::new() })
    }

    /// Waits until `bytes` more may be queued. One batch is always let through an empty queue,
    /// however large. Cancel-safe.
    pub async fn available(&self, bytes: usize) {
        loop {
            let freed = self.freed.notified();
            if self.has(bytes) {
                return;
            }
            freed.await;
        }
    }

    /// Whether `bytes` more may be queued now.
    pub fn has(&self, bytes: usize) -> bool {
        let queued = self.queue.queued_bytes();
        queued == 0 || queued + bytes as u64 <= QUEUED_BYTES_MAX || self.queue.is_poisoned()
    }

    /// A flush round ended.
    pub fn freed(&self) {
        self.freed.notify_waiters();
    }
}
