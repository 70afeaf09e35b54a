//! A replica's log as a snapshot: the segment files themselves and a manifest.
//!
//! The leader describes its log as far as it was applied ([`PartitionLog::manifest`]) and serves the bytes
//! ([`PartitionLog::read_segment`]), while it holds its first index. The follower writes them to
//! segments of a generation of their own, beside the log it has, checks every checksum and syncs
//! everything ([`SnapshotInstall`]); only then [`PartitionLog::install`] makes them its log, by one
//! row that names the new generation.
//!
//! **A crash at any point leaves one log whole:** until the row is durable the new files are
//! leftovers of another generation, which recovery removes; from then on the old ones are.

use std::io;

use bytes::{Buf, BufMut, Bytes};
use vltava_protocol::ids::{LeaderEpoch, Offset};

use crate::epochs::Epochs;
use crate::ids::{LogIndex, ReplicaId};
use crate::log::{PartitionLog, ReadError, newest_snapshot};
use crate::producers::ProducerTable;
use crate::scan::read_at;
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::side_file::{self, Magic};
use crate::state::{LogStart, Membership};

mod install;

pub(crate) use install::Checked;

pub use install::{InstallError, SnapshotInstall};

#[cfg(test)]
mod tests;

const MAGIC: Magic = Magic(*b"VSNP");
/// Segments that one snapshot may have.
const SEGMENTS_MAX: u32 = 1 << 20;
/// Replicas that one membership may name.
const MEMBERS_MAX: u32 = 1 << 12;

/// A segment of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ManifestSegment {
    /// The index of its first batch: what names it.
    pub base_index: LogIndex,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The epoch of the batch before the first one.
    pub epoch_before: LeaderEpoch,
    /// Where the last batch that is meant ends in the file, the header included.
    pub end_position: u64,
}

/// What a snapshot consists of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotManifest {
    /// The last batch that it includes.
    pub index: LogIndex,
    /// The epoch of that batch.
    pub epoch: LeaderEpoch,
    /// The offset after it.
    pub end_offset: Offset,
    /// Where the log begins.
    pub log_start: LogStart,
    /// The membership in force at `index`, and since when; empty for a group that has none yet.
    pub memberships: Vec<(LogIndex, Membership)>,
    /// The segments, oldest first; none if nothing was ever committed.
    pub segments: Vec<ManifestSegment>,
    /// The leader epochs of the log up to `index`.
    pub epochs: Epochs,
    /// Producer state as of some batch at or before `index`, as a framed file; or nothing. The
    /// batches behind it tell the rest.
    pub producers: Bytes,
}

/// Bytes that are no manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the manifest of a snapshot")]
pub struct ManifestError;

impl SnapshotManifest {
    /// The membership in force at the snapshot's index.
    pub fn membership(&self) -> Option<&Membership> {
        self.memberships.last().map(|(_, membership)| membership)
    }

    /// Bytes of all segments together.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end_position - SEGMENT_HEADER_BYTES).sum()
    }

    /// The manifest as bytes, with a checksum.
    pub fn encode(&self) -> Bytes {
        let mut body = Vec::new();
        body.put_u64(self.index.0);
        body.put_i32(self.epoch.0);
        body.put_i64(self.end_offset.0);
        body.put_u64(self.log_start.first_index.0);
        body.put_i32(self.log_start.epoch_before.0);
        body.put_i64(self.log_start.offset.0);
        body.put_u32(count(self.memberships.len()));
        for (index, membership) in &self.memberships {
            body.put_u64(index.0);
            for replicas in [
                &membership.voters,
                &membership.outgoing,
                &membership.learners,
                &membership.learners_next,
            ] {
                body.put_u32(count(replicas.len()));
                for replica in replicas {
                    body.put_u64(replica.0);
                }
            }
            body.put_u8(membership.auto_leave.into());
        }
        body.put_u32(count(self.segments.len()));
        for segment in &self.segments {
            body.put_u64(segment.base_index.0);
            body.put_i64(segment.base_offset.0);
            body.put_i32(segment.epoch_before.0);
            body.put_u64(segment.end_position);
        }
        self.epochs.encode(&mut body);
        body.put_slice(&self.producers);
        side_file::encode(MAGIC, &body)
    }

    /// Reads [`SnapshotManifest::encode`].
    pub fn decode(bytes: &Bytes) -> Result<Self, ManifestError> {
        let body = side_file::decode(MAGIC, bytes).ok_or(ManifestError)?;
        Self::decode_body(body).filter(Self::is_sound).ok_or(ManifestError)
    }

    fn decode_body(mut body: Bytes) -> Option<Self> {
        let index = LogIndex(body.try_get_u64().ok()?);
        let epoch = LeaderEpoch(body.try_get_i32().ok()?);
        let end_offset = Offset(body.try_get_i64().ok()?);
        let log_start = LogStart {
            first_index: LogIndex(body.try_get_u64().ok()?),
            epoch_before: LeaderEpoch(body.try_get_i32().ok()?),
            offset: Offset(body.try_get_i64().ok()?),
        };
        let mut memberships = Vec::new();
        for _ in 0..body.try_get_u32().ok().filter(|count| *count <= MEMBERS_MAX)? {
            let index = LogIndex(body.try_get_u64().ok()?);
            let membership = Membership {
                voters: replicas(&mut body)?,
                outgoing: replicas(&mut body)?,
                learners: replicas(&mut body)?,
                learners_next: replicas(&mut body)?,
                auto_leave: body.try_get_u8().ok()? != 0,
            };
            memberships.push((index, membership));
        }
        let mut segments = Vec::new();
        for _ in 0..body.try_get_u32().ok().filter(|count| *count <= SEGMENTS_MAX)? {
            segments.push(ManifestSegment {
                base_index: LogIndex(body.try_get_u64().ok()?),
                base_offset: Offset(body.try_get_i64().ok()?),
                epoch_before: LeaderEpoch(body.try_get_i32().ok()?),
                end_position: body.try_get_u64().ok()?,
            });
        }
        let epochs = Epochs::decode(&mut body)?;
        let producers = body;
        Some(Self { index, epoch, end_offset, log_start, memberships, segments, epochs, producers })
    }

    /// Whether the parts fit together, as far as they can without the batches.
    fn is_sound(&self) -> bool {
        let rises = self.segments.windows(2).all(|pair| {
            pair[0].base_index < pair[1].base_index
                && pair[0].base_offset <= pair[1].base_offset
                && pair[0].epoch_before <= pair[1].epoch_before
        });
        let positions =
            self.segments.iter().all(|segment| segment.end_position > SEGMENT_HEADER_BYTES);
        let start = self.log_start;
        let bounds = match (self.segments.first(), self.segments.last()) {
            (Some(first), Some(last)) => {
                first.base_index == start.first_index
                    && first.epoch_before == start.epoch_before
                    && last.base_index <= self.index
                    && last.base_offset <= self.end_offset
                    && first.base_offset <= start.offset
            }
            _ => start.first_index == self.index.next() && start.epoch_before == self.epoch,
        };
        let epochs = self.epochs.start() == (start.first_index, start.epoch_before)
            && self.epochs.last() == self.epoch
            && self.epochs.starts().last().is_none_or(|last| last.first_index <= self.index);
        rises
            && positions
            && bounds
            && epochs
            && start.offset <= self.end_offset
            && start.offset.0 >= 0
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("bounded by memory that holds it")
}

fn replicas(body: &mut Bytes) -> Option<Vec<ReplicaId>> {
    let count = body.try_get_u32().ok().filter(|count| *count <= MEMBERS_MAX)?;
    (0..count).map(|_| body.try_get_u64().ok().map(ReplicaId)).collect()
}

impl PartitionLog {
    /// Describes the log up to `index`, which was applied: the log start and the membership that the
    /// row holds are those as of it, and a quorum may have committed more. Hold the first index before
    /// the description leaves. Reads the disk where much more is committed.
    pub fn manifest(&self, index: LogIndex) -> Result<SnapshotManifest, ReadError> {
        let epoch = self.epoch_at(index).expect("what was applied lies in the log");
        let (next, end_offset) = self.end_of(index)?;
        let segments: Vec<ManifestSegment> = self
            .all_segments()
            .filter(|segment| segment.header.base_index <= index)
            .map(|segment| {
                let end = segment.index.read().end();
                let header = segment.header;
                ManifestSegment {
                    base_index: header.base_index,
                    base_offset: header.base_offset,
                    epoch_before: header.epoch_before,
                    end_position: if end.index <= index.next() { end.position } else { next },
                }
            })
            .collect();
        let mut epochs = self.epochs().clone();
        epochs.truncate(index.next());
        let current = self.state().memberships.iter().rev().find(|(from, _)| *from <= index);
        Ok(SnapshotManifest {
            index,
            epoch,
            end_offset,
            log_start: self.state().log_start,
            memberships: current.cloned().into_iter().collect(),
            segments,
            epochs,
            producers: self.producers_at_or_before(index, epoch),
        })
    }

    /// The bytes of the segment that begins at `base_index`, from `position`, `length` at most.
    /// Reads the disk; empty at the segment's end.
    pub fn read_segment(
        &self,
        base_index: LogIndex,
        position: u64,
        length: u64,
    ) -> Result<Bytes, ReadError> {
        let segment = self.all_segments().find(|segment| segment.header.base_index == base_index);
        let Some(segment) = segment else {
            let (first, last) = (self.first_index(), self.last_index());
            return Err(ReadError::IndexOutOfRange { index: base_index, first, last });
        };
        let end = segment.index.read().end().position;
        let length = length.min(end.saturating_sub(position));
        Ok(read_at(&*segment.file()?, position, length as usize)?)
    }

    /// Producer state of some batch at or before `index`; nothing where it cannot be read.
    fn producers_at_or_before(&self, index: LogIndex, epoch: LeaderEpoch) -> Bytes {
        if index == self.last_index() {
            return self.producer_table().encode(index, epoch);
        }
        let found: io::Result<Option<(LogIndex, ProducerTable)>> =
            newest_snapshot(self.disk(), self.dir(), self.epochs(), index);
        match found {
            Ok(Some((as_of, table))) => {
                let epoch = self.epoch_at(as_of).expect("a snapshot of this log");
                table.encode(as_of, epoch)
            }
            Ok(None) => Bytes::new(),
            Err(error) => {
                tracing::warn!(dir = %self.dir().display(), %error, "no producer snapshot read");
                Bytes::new()
            }
        }
    }
}
