//! The door between the logs and the flusher: what is to be made durable, in order.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

use crate::flush::FlushItem;

/// The items of all replicas of a disk that are not durable yet. Its lock is held for a copy of
/// handles, never over anything that waits. Its bound is the byte credits of the disk, which an
/// append takes before it pushes: [`FlushQueue::queued_bytes`] says how many are out, and
/// [`FlushQueue::unwritten_bytes`] for what a page-cache log does not wait for.
#[derive(Debug, Default)]
pub struct FlushQueue {
    inner: Mutex<Inner>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    items: VecDeque<FlushItem>,
    /// Bytes of the items, including those that a round has taken and not completed.
    bytes: u64,
    /// Bytes of the ranges that the kernel is to write back, and has not written.
    unwritten: u64,
    closed: bool,
    poisoned: bool,
}

impl FlushQueue {
    /// Appends items. Those of one replica must be pushed in the order in which they happened. On
    /// a poisoned disk they are dropped: they will never complete.
    pub fn push(&self, items: impl IntoIterator<Item = FlushItem>) {
        let mut inner = self.inner.lock();
        if inner.poisoned {
            return;
        }
        let before = inner.items.len();
        inner.items.extend(items);
        let bytes: u64 = inner.items.range(before..).map(bytes_of).sum();
        inner.bytes += bytes;
        let unwritten: u64 = inner.items.range(before..).map(unwritten_bytes_of).sum();
        inner.unwritten += unwritten;
        drop(inner);
        self.filled.notify_one();
    }

    /// Bytes of batches that were pushed and are not durable yet.
    pub fn queued_bytes(&self) -> u64 {
        self.inner.lock().bytes
    }

    /// Bytes that page-cache logs handed over to be written back and that are in memory only. What
    /// has not gathered to a part that is worth a write is not among them.
    pub fn unwritten_bytes(&self) -> u64 {
        self.inner.lock().unwritten
    }

    /// So many bytes were written back, or are left to the kernel.
    pub fn written_back(&self, bytes: u64) {
        let mut inner = self.inner.lock();
        inner.unwritten = inner.unwritten.checked_sub(bytes).expect("they were pushed before");
    }

    /// Whether nothing is to be taken.
    pub fn is_empty(&self) -> bool {
        self.inner.lock().items.is_empty()
    }

    /// Blocks until there is something to flush; `false` once there never will be: the queue is
    /// closed and empty, or the disk is poisoned.
    pub fn wait(&self) -> bool {
        let mut inner = self.inner.lock();
        loop {
            if inner.poisoned {
                return false;
            }
            if !inner.items.is_empty() {
                return true;
            }
            if inner.closed {
                return false;
            }
            self.filled.wait(&mut inner);
        }
    }

    /// Nothing more will be pushed: [`FlushQueue::wait`] ends when the queue is empty.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.filled.notify_all();
    }

    /// Gives the disk up for ever: a sync failed, and nobody can tell what is durable.
    pub fn poison(&self) {
        let mut inner = self.inner.lock();
        inner.poisoned = true;
        inner.items.clear();
        drop(inner);
        self.filled.notify_all();
    }

    /// Whether the disk was given up.
    pub fn is_poisoned(&self) -> bool {
        self.inner.lock().poisoned
    }

    /// Takes items from the front, all of them or until their bytes reach `bytes_max`; at least one
    /// if there is any.
    pub(super) fn take(&self, bytes_max: u64) -> Vec<FlushItem> {
        let mut inner = self.inner.lock();
        let mut bytes = 0;
        let taken = inner.items.iter().position(|item| {
            bytes += bytes_of(item);
            bytes >= bytes_max
        });
        let count = taken.map_or(inner.items.len(), |last| last + 1);
        inner.items.drain(..count).collect()
    }

    /// Puts items back that a round took and could not complete.
    pub(super) fn put_back(&self, items: Vec<FlushItem>) {
        let mut inner = self.inner.lock();
        for item in items.into_iter().rev() {
            inner.items.push_front(item);
        }
    }

    /// Returns the bytes of completed items.
    pub(super) fn complete(&self, items: &[FlushItem]) {
        let bytes: u64 = items.iter().map(bytes_of).sum();
        self.inner.lock().bytes -= bytes;
    }
}

fn bytes_of(item: &FlushItem) -> u64 {
    if let FlushItem::Write { bytes, .. } = item { bytes.len() as u64 } else { 0 }
}

fn unwritten_bytes_of(item: &FlushItem) -> u64 {
    if let FlushItem::WriteBack { range, .. } = item { range.end - range.start } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::disk::Disk;
    use crate::disk::sim::SimDisk;
    use crate::flush::SegmentFile;
    use crate::ids::{FileId, ReplicaId};

    fn write(length: usize) -> FlushItem {
        let path = PathBuf::from(format!("{length}"));
        let file = SimDisk::new(0).create(&path, 0).unwrap();
        let file = Arc::new(SegmentFile { id: FileId::default(), path, file });
        FlushItem::Write { file, position: 0, bytes: Bytes::from(vec![0; length]) }
    }

    fn ticket(ticket: u64) -> FlushItem {
        FlushItem::Ticket { replica: ReplicaId(1), ticket }
    }

    #[test]
    fn takes_up_to_the_limit_and_gives_bytes_back_when_done() {
        let queue = FlushQueue::default();
        queue.push([write(100), ticket(1), write(50), ticket(2)]);
        assert_eq!(queue.queued_bytes(), 150);
        let taken = queue.take(100);
        assert_eq!(taken.len(), 1);
        queue.put_back(taken);
        let taken = queue.take(101);
        assert_eq!((taken.len(), queue.queued_bytes()), (3, 150));
        queue.complete(&taken);
        assert_eq!(queue.queued_bytes(), 0);
        assert!(queue.wait());
        assert_eq!(queue.take(1).len(), 1);
        queue.close();
        assert!(!queue.wait() && queue.is_empty());
    }

    #[test]
    fn a_waiting_thread_wakes() {
        for end in
            [FlushQueue::close, FlushQueue::poison, |queue: &FlushQueue| queue.push([ticket(1)])]
        {
            let queue = Arc::new(FlushQueue::default());
            let waiting = std::thread::spawn({
                let queue = queue.clone();
                move || queue.wait()
            });
            end(&queue);
            assert_eq!(waiting.join().unwrap(), !queue.is_empty());
        }
    }
}
