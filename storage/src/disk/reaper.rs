//! Closes removed files in a thread of its own.
//!
//! The kernel frees the blocks of a file with the last descriptor once its name is gone, which took
//! 50 ms for half a GiB. Names are removed by the flusher, for which every producer of the disk
//! waits: it holds the file open over the removal and leaves the rest to this thread.
//!
//! Nothing depends on it: what finds no room in the queue is closed by whoever removed it.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

/// Files that may wait to be closed.
pub(super) const FILES_MAX: usize = 256;

/// The thread; dropping this waits until all is closed.
#[derive(Debug)]
pub(super) struct Reaper {
    files: Option<SyncSender<File>>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    pub(super) fn start() -> io::Result<Self> {
        let (files, waiting) = sync_channel(FILES_MAX);
        let thread = Builder::new().name("reaper".to_owned()).spawn(move || close_all(&waiting))?;
        Ok(Self { files: Some(files), thread: Some(thread) })
    }

    /// Closes a file whose name is gone.
    pub(super) fn close(&self, file: File) {
        if let Some(files) = &self.files {
            // What does not fit comes back, and is closed here.
            drop(files.try_send(file));
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.files = None;
        // It has nothing to say, and nothing that panics.
        self.thread.take().map(JoinHandle::join);
    }
}

fn close_all(files: &Receiver<File>) {
    files.iter().for_each(drop);
}
