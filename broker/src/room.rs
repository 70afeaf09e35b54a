//! Back-pressure of a disk: appends wait before they take a partition's lock, so that what waits for
//! the flusher does not grow without bound, nor what page-cache topics have in memory only.
//!
//! Of the latter what is counted are the parts of files that were handed over to be written back;
//! each log has one more that has not gathered, which the kernel writes in its own time.

use std::sync::Arc;

use tokio::sync::Notify;
use vltava_storage::flusher::FlushQueue;
use vltava_storage::log::Durability;

/// Bytes that may wait for the flusher before appends wait, too.
pub const QUEUED_BYTES_MAX: u64 = 128 << 20;
/// Bytes of page-cache topics that may wait to be written back before appends wait, too: bursts of
/// a second or so of a fast disk go to memory.
pub const UNWRITTEN_BYTES_MAX: u64 = 1 << 30;

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

    /// Waits until `bytes` more may be appended. One batch is always let through an empty queue,
    /// however large. Cancel-safe.
    pub async fn available(&self, bytes: usize, durability: Durability) {
        loop {
            let freed = self.freed.notified();
            if self.has(bytes, durability) {
                return;
            }
            freed.await;
        }
    }

    /// Whether `bytes` more may be appended now.
    pub fn has(&self, bytes: usize, durability: Durability) -> bool {
        let (waiting, most) = match durability {
            Durability::Fsync => (self.queue.queued_bytes(), QUEUED_BYTES_MAX),
            Durability::PageCache => (self.queue.unwritten_bytes(), UNWRITTEN_BYTES_MAX),
        };
        waiting == 0 || waiting + bytes as u64 <= most || self.queue.is_poisoned()
    }

    /// A flush round ended, or something was written back.
    pub fn freed(&self) {
        self.freed.notify_waiters();
    }
}
