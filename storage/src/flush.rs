//! What a log asks of the disk's flusher, as plain values: a log never syncs by itself.
//!
//! [`FlushItem`]s of one replica are pushed in the order in which they happened, and a flush round
//! takes the whole queue, so a completed [`FlushItem::Ticket`] says that everything its replica
//! pushed before it is durable.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::ids::{FileId, ReplicaId};
use crate::node::NodeState;
use crate::segment::SegmentHeader;
use crate::state::ReplicaState;

/// An open segment file, as the flusher needs to know it.
#[derive(Clone, Debug)]
pub struct SegmentFile {
    /// Which segment it is.
    pub id: FileId,
    /// Its path on the disk; the parent is the replica's directory.
    pub path: PathBuf,
    /// The open file.
    pub file: Arc<dyn DiskFile>,
}

/// One thing to make durable.
#[derive(Clone, Debug)]
pub enum FlushItem {
    /// A segment file was created with this header, which is already written to it.
    Create {
        /// The new file.
        file: Arc<SegmentFile>,
        /// What its first bytes say.
        header: SegmentHeader,
    },
    /// `bytes` were written at `position` of the file and lie in the page cache.
    Write {
        /// The segment.
        file: Arc<SegmentFile>,
        /// Where they begin.
        position: u64,
        /// The bytes, a slice of the file's map: not a copy.
        bytes: Bytes,
    },
    /// The segment is no longer part of any log; the flusher records that and removes the file.
    Delete {
        /// The segment.
        id: FileId,
        /// Its path.
        path: PathBuf,
    },
    /// The row of a replica changed. The flusher keeps `durable` itself.
    State {
        /// Whose row.
        replica: ReplicaId,
        /// The whole new row.
        state: ReplicaState,
    },
    /// A replica was deleted with its directory: its row is dropped.
    Forget {
        /// Which one.
        replica: ReplicaId,
        /// Its directory, removed once the row is durably gone.
        dir: PathBuf,
    },
    /// A file beside the log (index, producer snapshot) is to be synced, with its directory.
    Sync {
        /// The file.
        file: Arc<dyn DiskFile>,
        /// Its directory.
        dir: PathBuf,
    },
    /// A part of a segment lies in the page cache of a log that does not sync, and the kernel may
    /// begin to write it. No ticket waits for that: a round hands it on, and appends wait only where
    /// much of it gathers.
    WriteBack {
        /// The segment.
        file: Arc<SegmentFile>,
        /// Which bytes of it.
        range: Range<u64>,
    },
    /// The node's own row changed.
    Node(NodeState),
    /// Nothing to write: completes when all that the replica pushed before is durable.
    Ticket {
        /// Who waits.
        replica: ReplicaId,
        /// What for; rises per replica.
        ticket: u64,
    },
}

impl FlushItem {
    /// Whether what comes with it may be promised only when it is durable.
    pub fn is_awaited(&self) -> bool {
        !matches!(self, Self::WriteBack { .. })
    }
}
