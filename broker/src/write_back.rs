//! The thread that has the kernel write what page-cache topics leave in memory.
//!
//! Every part that is there is begun before the oldest is waited for, so that the disk always has
//! work. An append waits when too much is not written yet ([`Room`]).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, mpsc};

use vltava_storage::flush::SegmentFile;
use vltava_storage::flusher::FlushQueue;

use crate::room::Room;

/// A part of a file that the kernel may begin to write.
pub(crate) type WriteBackPart = (Arc<SegmentFile>, Range<u64>);

/// What the thread works with.
pub(crate) struct WritingBack<F> {
    pub(crate) parts: mpsc::Receiver<WriteBackPart>,
    pub(crate) queue: Arc<FlushQueue>,
    pub(crate) room: Arc<Room>,
    /// Called when the disk was given up.
    pub(crate) on_failure: F,
}

impl<F: Fn()> WritingBack<F> {
    /// Until nobody sends parts any more, or the disk fails.
    pub(crate) fn run(self) {
        let mut begun = VecDeque::new();
        while let Ok(first) = self.parts.recv() {
            let mut next = Some(first);
            loop {
                for (segment, range) in next.take().into_iter().chain(self.parts.try_iter()) {
                    segment.file.start_write_back(range.clone());
                    begun.push_back((segment, range));
                }
                let Some(oldest) = begun.pop_front() else { break };
                if !self.finish(oldest) {
                    return;
                }
            }
        }
    }

    /// Waits for a part. The error of one is that of a sync, which no later sync repeats.
    fn finish(&self, (segment, range): WriteBackPart) -> bool {
        let bytes = range.end - range.start;
        if let Err(error) = segment.file.finish_write_back(range) {
            tracing::error!(%error, "writing back failed: the disk is given up");
            self.queue.poison();
            (self.on_failure)();
        }
        self.queue.written_back(bytes);
        self.room.freed();
        !self.queue.is_poisoned()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vltava_storage::disk::Disk;
    use vltava_storage::disk::mapped::MappedDisk;
    use vltava_storage::flush::FlushItem;
    use vltava_storage::ids::FileId;
    use vltava_storage::log::Durability;

    use super::*;
    use crate::room::UNWRITTEN_BYTES_MAX;

    const PART_BYTES: u64 = 4 << 20;

    #[tokio::test]
    async fn appends_wait_until_something_is_written_back() {
        let dir = tempfile::tempdir().unwrap();
        let disk = MappedDisk::open(dir.path()).unwrap();
        let file = disk.create(Path::new("segment"), PART_BYTES).unwrap();
        let path = "segment".into();
        let segment = Arc::new(SegmentFile { id: FileId::default(), path, file });
        let queue = Arc::new(FlushQueue::default());
        let room = Room::new(queue.clone());
        let (sender, parts) = mpsc::channel();
        let count = UNWRITTEN_BYTES_MAX / PART_BYTES;
        for _ in 0..count {
            assert!(room.has(1, Durability::PageCache));
            let (file, range) = (segment.clone(), 0..PART_BYTES);
            queue.push([FlushItem::WriteBack { file: file.clone(), range: range.clone() }]);
            sender.send((file, range)).unwrap();
        }
        assert!(!room.has(1, Durability::PageCache));
        assert!(room.has(1, Durability::Fsync), "a topic that syncs does not wait for others");
        let waiting = tokio::spawn({
            let room = room.clone();
            async move { room.available(1, Durability::PageCache).await }
        });
        drop(sender);
        let writing = WritingBack { parts, queue: queue.clone(), room, on_failure: || {} };
        tokio::task::spawn_blocking(move || writing.run()).await.unwrap();
        waiting.await.unwrap();
        assert_eq!((queue.unwritten_bytes(), queue.is_poisoned()), (0, false));
    }
}
