//! Moving a snapshot: the follower pulls the leader's segments, chunk by chunk, and only when all
//! are complete and synced is the snapshot shown to raft.
//!
//! The leader keeps the segments while a transfer is under way, for a bounded time; the follower
//! drops what it has when the transfer stalls, and the leader begins again. A crash on either side
//! leaves the follower's old log whole.

use std::collections::BTreeMap;

use bytes::Bytes;
use vltava_storage::bugs::{Bug, planted};
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::PartitionLog;
use vltava_storage::snapshot::{SnapshotInstall, SnapshotManifest};
use vltava_storage::state::Membership;

use super::group::ReceivedSnapshot;
use super::message::PeerBody;

/// Bytes of a segment in one chunk.
pub const CHUNK_BYTES_MAX: u64 = 1 << 20;
/// Ticks without a request or a chunk after which a transfer is given up.
const STALL_TICKS_MAX: u32 = 100;
/// Ticks without a chunk after which it is asked for again.
const ASK_AGAIN_TICKS: u32 = 10;

/// The transfers that a leader serves.
#[derive(Debug, Default)]
pub struct SnapshotsSent {
    peers: BTreeMap<ReplicaId, Sent>,
}

#[derive(Debug)]
struct Sent {
    index: LogIndex,
    idle_ticks: u32,
}

impl SnapshotsSent {
    /// A snapshot at `index` was offered to `peer`: its segments must stay.
    pub fn offered(&mut self, peer: ReplicaId, index: LogIndex, log: &mut PartitionLog) {
        self.peers.insert(peer, Sent { index, idle_ticks: 0 });
        log.hold_first_index();
    }

    /// `peer` asks for a chunk of the snapshot at `index`.
    pub fn chunk(
        &mut self,
        peer: ReplicaId,
        index: LogIndex,
        base_index: LogIndex,
        position: u64,
        log: &PartitionLog,
    ) -> PeerBody {
        let sent = self.peers.get_mut(&peer).filter(|sent| sent.index == index);
        let data = sent.and_then(|sent| {
            sent.idle_ticks = 0;
            log.read_segment(base_index, position, CHUNK_BYTES_MAX).ok()
        });
        PeerBody::Chunk { index, base_index, position, data: data.unwrap_or_default() }
    }

    /// Time passes: those whose transfer stalled.
    pub fn tick(&mut self, log: &mut PartitionLog) -> Vec<ReplicaId> {
        for sent in self.peers.values_mut() {
            sent.idle_ticks += 1;
        }
        let stalled = self.peers.iter().filter(|(_, sent)| sent.idle_ticks > STALL_TICKS_MAX);
        let stalled: Vec<_> = stalled.map(|(peer, _)| *peer).collect();
        for peer in &stalled {
            self.ended(*peer, log);
        }
        stalled
    }

    /// The transfer to `peer` ended, one way or the other.
    pub fn ended(&mut self, peer: ReplicaId, log: &mut PartitionLog) {
        if self.peers.remove(&peer).is_some() && self.peers.is_empty() {
            log.release_first_index();
        }
    }

    /// This replica no longer leads.
    pub fn end_all(&mut self, log: &mut PartitionLog) {
        if !self.peers.is_empty() {
            self.peers.clear();
            log.release_first_index();
        }
    }

    /// Who is being sent a snapshot.
    pub fn peers(&self) -> Vec<ReplicaId> {
        self.peers.keys().copied().collect()
    }
}

/// The transfer that a follower receives.
#[derive(Debug)]
pub struct SnapshotReceived {
    from: ReplicaId,
    term: u64,
    last_term: u64,
    manifest: Bytes,
    install: SnapshotInstall,
    idle_ticks: u32,
}

/// What a chunk led to.
#[derive(Debug)]
pub enum ChunkOutcome {
    /// It was not the one that was waited for.
    Ignored,
    /// The next chunk is to be asked for.
    More,
    /// All segments are complete, checked and synced.
    Complete,
    /// The transfer cannot go on.
    Failed,
}

impl SnapshotReceived {
    /// A leader offered the snapshot of `manifest`. `None` if the manifest cannot be read, or the
    /// disk refuses the files.
    pub fn begin(
        from: ReplicaId,
        term: u64,
        last_term: u64,
        manifest: Bytes,
        log: &PartitionLog,
    ) -> Option<Self> {
        let decoded = match SnapshotManifest::decode(&manifest) {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::warn!(%from, %error, "the manifest of a snapshot cannot be read");
                return None;
            }
        };
        match SnapshotInstall::begin(log, decoded) {
            Ok(install) => Some(Self { from, term, last_term, manifest, install, idle_ticks: 0 }),
            Err(error) => {
                tracing::warn!(%from, %error, "cannot begin to receive a snapshot");
                None
            }
        }
    }

    /// Whether this is the transfer of the snapshot at `index` by `from`.
    pub fn is(&self, from: ReplicaId, index: LogIndex) -> bool {
        self.from == from && self.index() == index
    }

    /// The last index that the snapshot covers.
    pub fn index(&self) -> LogIndex {
        self.install.manifest().index
    }

    /// Who sends it, and in which term it was offered.
    pub fn sender(&self) -> (ReplicaId, u64) {
        (self.from, self.term)
    }

    /// The next request to the leader, unless all is there.
    pub fn request(&self) -> Option<PeerBody> {
        let (base_index, position) = self.install.missing()?;
        Some(PeerBody::ChunkRequest { index: self.index(), base_index, position })
    }

    /// A chunk arrived.
    pub fn on_chunk(&mut self, base_index: LogIndex, position: u64, data: &[u8]) -> ChunkOutcome {
        if self.install.missing() != Some((base_index, position)) {
            return ChunkOutcome::Ignored;
        }
        if data.is_empty() {
            return ChunkOutcome::Failed;
        }
        self.idle_ticks = 0;
        if let Err(error) = self.install.write_chunk(base_index, position, data) {
            tracing::warn!(from = %self.from, %error, "cannot write a chunk of a snapshot");
            return ChunkOutcome::Failed;
        }
        match self.install.missing() {
            Some(_) => ChunkOutcome::More,
            None => self.finish(),
        }
    }

    /// Checks and syncs what has arrived; a snapshot without segments is complete at once.
    pub fn finish(&mut self) -> ChunkOutcome {
        match self.install.finish() {
            Ok(()) => ChunkOutcome::Complete,
            Err(error) => {
                tracing::warn!(from = %self.from, %error, "a received snapshot is not whole");
                ChunkOutcome::Failed
            }
        }
    }

    /// Time passes: what to ask again, or `Err` when the transfer has stalled.
    pub fn tick(&mut self) -> Result<Option<PeerBody>, Stalled> {
        self.idle_ticks += 1;
        if self.idle_ticks > STALL_TICKS_MAX {
            return Err(Stalled);
        }
        Ok(if self.idle_ticks.is_multiple_of(ASK_AGAIN_TICKS) { self.request() } else { None })
    }

    /// What raft needs to know of the complete snapshot.
    pub fn received(&self) -> ReceivedSnapshot {
        let manifest = self.install.manifest();
        ReceivedSnapshot {
            index: manifest.index,
            last_term: self.last_term,
            membership: if planted(Bug::LearnerWithoutConfState) {
                Membership::default()
            } else {
                manifest.membership().cloned().unwrap_or_default()
            },
            manifest: self.manifest.clone(),
        }
    }

    /// The files, to become the log.
    pub fn into_install(self) -> SnapshotInstall {
        self.install
    }

    /// Removes the files: nothing will become of them.
    pub fn abandon(self) {
        self.install.abandon();
    }
}

/// A transfer that nobody serves any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stalled;
