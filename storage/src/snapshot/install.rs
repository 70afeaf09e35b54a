//! Receiving a snapshot and making it the log.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use super::SnapshotManifest;
use crate::disk::Disk;
use crate::epochs::Epochs;
use crate::flush::{FlushItem, SegmentFile};
use crate::ids::{FileId, Generation, LogIndex, ReplicaId, SegmentId};
use crate::index::{BatchStart, SegmentIndex};
use crate::log::{
    AppendError, Created, Ids, LogConfig, PartitionLog, ReadError, create_segment, replay_producers,
};
use crate::paths::{index_file_name, producers_file_name, replica_dir, segment_path};
use crate::producers::ProducerTable;
use crate::recovery::{epochs_of, scan_batches};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::side_file;

/// Why a snapshot cannot be received.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The disk failed or is full. What was received stays; the chunk can be sent again.
    #[error("disk: {0}")]
    Io(#[from] io::Error),
    /// The log has everything that the snapshot has.
    #[error("the snapshot ends at {index}, the log is committed up to {committed}")]
    Stale {
        /// The snapshot's end.
        index: LogIndex,
        /// The log's commit.
        committed: LogIndex,
    },
    /// A chunk that was not asked for.
    #[error("a chunk of segment {base_index} at {position} was not asked for")]
    Chunk {
        /// Of which segment.
        base_index: LogIndex,
        /// From where.
        position: u64,
    },
    /// The bytes received are not what the manifest describes.
    #[error("segment {base_index} is not as described, at {position}: {reason}")]
    Damaged {
        /// Of which segment.
        base_index: LogIndex,
        /// Where.
        position: u64,
        /// What is wrong.
        reason: String,
    },
}

/// A snapshot while it is received, beside the log that it is to replace.
#[derive(Debug)]
pub struct SnapshotInstall {
    disk: Arc<dyn Disk>,
    replica: ReplicaId,
    dir: PathBuf,
    config: LogConfig,
    generation: Generation,
    manifest: SnapshotManifest,
    /// One for each segment of the manifest, and how far it was written: 0 before it is created.
    parts: Vec<(SegmentId, u64)>,
    /// The segment that is written to once the snapshot is the log.
    active: SegmentId,
    /// The part being written.
    writing: Option<(usize, Arc<Segment>, Arc<SegmentFile>)>,
    checked: Option<Checked>,
}

/// A complete snapshot, checked and synced.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) active: Arc<SegmentFile>,
    pub(crate) created: FlushItem,
    pub(crate) epochs: Epochs,
    pub(crate) producers: ProducerTable,
}

impl SnapshotInstall {
    /// Begins to receive a snapshot; the log goes on as it is.
    pub fn begin(log: &PartitionLog, manifest: SnapshotManifest) -> Result<Self, InstallError> {
        let (index, committed) = (manifest.index, log.committed());
        if index <= committed {
            return Err(InstallError::Stale { index, committed });
        }
        let ids = log.ids();
        let generation = ids.next_generation();
        let parts = manifest.segments.iter().map(|_| (ids.next_segment(), 0)).collect();
        Ok(Self {
            disk: log.disk().clone(),
            replica: log.replica(),
            dir: replica_dir(log.replica()),
            config: *log.config(),
            generation,
            manifest,
            parts,
            active: ids.next_segment(),
            writing: None,
            checked: None,
        })
    }

    /// What the snapshot consists of.
    pub fn manifest(&self) -> &SnapshotManifest {
        &self.manifest
    }

    /// What to ask for next: a segment, named by its base index, and the position to go on from.
    /// `None` when all is there.
    pub fn missing(&self) -> Option<(LogIndex, u64)> {
        let described = self.manifest.segments.iter().zip(&self.parts);
        described
            .map(|(segment, (_, written))| (segment, (*written).max(SEGMENT_HEADER_BYTES)))
            .find(|(segment, written)| *written < segment.end_position)
            .map(|(segment, written)| (segment.base_index, written))
    }

    /// Writes a chunk, the one that is [missing](SnapshotInstall::missing) next. Bytes beyond what
    /// the manifest describes are ignored: the leader's segment grew meanwhile.
    pub fn write_chunk(
        &mut self,
        base_index: LogIndex,
        position: u64,
        data: &[u8],
    ) -> Result<(), InstallError> {
        if self.missing() != Some((base_index, position)) {
            return Err(InstallError::Chunk { base_index, position });
        }
        let part = self.part_of(base_index);
        let wanted = self.manifest.segments[part].end_position - position;
        let data = &data[..data.len().min(usize::try_from(wanted).unwrap_or(usize::MAX))];
        let file = self.file_of(part)?;
        file.file.write_at(position, &[IoSlice::new(data)])?;
        file.file.start_write_back(position..position + data.len() as u64);
        self.parts[part].1 = position + data.len() as u64;
        Ok(())
    }

    /// Checks every batch that was received and makes all files durable.
    pub fn finish(&mut self) -> Result<(), InstallError> {
        if let Some((base_index, position)) = self.missing() {
            return Err(InstallError::Chunk { base_index, position });
        }
        if self.checked.is_some() {
            return Ok(());
        }
        self.writing = None;
        let mut segments = Vec::with_capacity(self.parts.len() + 1);
        for part in 0..self.parts.len() {
            segments.push(self.check(part)?);
        }
        let (index, epoch) = (self.manifest.index, self.manifest.epoch);
        let snapshot = ProducerTable::decode(&self.manifest.producers)
            .filter(|(as_of, ..)| *as_of <= index)
            .map(|(as_of, _, table)| (as_of, table));
        let producers = replay_producers(snapshot, &segments, index).map_err(read_error)?;
        let path = self.dir.join(producers_file_name(index));
        let file = side_file::write(&*self.disk, &path, &producers.encode(index, epoch))?;
        file.sync()?;
        let made = match self.start_active() {
            // A second attempt to finish.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(damaged(index, 0, "it was finished before"));
            }
            other => other?,
        };
        segments.push(made.segment);
        let epochs = epochs_of(&segments, self.manifest.log_start.first_index);
        let (active, created) = (made.file, made.item);
        self.checked = Some(Checked { segments, active, created, epochs, producers });
        Ok(())
    }

    /// Creates the segment behind the snapshot, durably.
    fn start_active(&self) -> io::Result<Created> {
        let at = BatchStart {
            position: SEGMENT_HEADER_BYTES,
            index: self.manifest.index.next(),
            offset: self.manifest.end_offset,
            epoch_before: self.manifest.epoch,
        };
        let (replica, generation) = (self.replica, self.generation);
        let made =
            create_segment(&self.disk, replica, self.active, generation, at, 0, &self.config)?;
        made.file.file.sync()?;
        // The row that names the new generation says that all of it is durable: names, too, which
        // those of a replica that was created a moment ago are not.
        for dir in self.dir.ancestors() {
            self.disk.sync_dir(dir)?;
        }
        Ok(made)
    }

    /// Makes the segment behind the snapshot newer than all that the log has begun meanwhile: the
    /// segment that a log writes to is its newest, which is what the row's durable place, and the
    /// choice of the next id, rest on.
    fn renew_active(&mut self, newest: SegmentId, ids: &Ids) -> io::Result<()> {
        if self.active > newest {
            return Ok(());
        }
        let old = segment_path(FileId { replica: self.replica, segment: self.active });
        self.active = ids.next_segment();
        let made = self.start_active()?;
        let checked = self.checked.as_mut().expect("a snapshot is finished before it is installed");
        checked.segments.pop();
        checked.segments.push(made.segment);
        (checked.active, checked.created) = (made.file, made.item);
        if let Err(error) = self.disk.remove(&old) {
            // An empty segment that a newer one supersedes.
            tracing::debug!(path = %old.display(), %error, "it goes at the next start");
        }
        Ok(())
    }

    /// Removes what was received; nothing becomes of it. Without this the next start does it.
    pub fn abandon(mut self) {
        self.writing = None;
        self.checked = None;
        let ids = self.parts.iter().filter(|(_, written)| *written > 0).map(|(id, _)| *id);
        for segment in ids.chain([self.active]) {
            for name in [crate::paths::segment_file_name(segment), index_file_name(segment)] {
                match self.disk.remove(&self.dir.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(%error, "a part of a snapshot was not removed");
                    }
                    _ => {}
                }
            }
        }
    }

    pub(crate) fn into_checked(self) -> (SnapshotManifest, Generation, Checked) {
        let checked = self.checked.expect("a snapshot is finished before it is installed");
        (self.manifest, self.generation, checked)
    }

    fn part_of(&self, base_index: LogIndex) -> usize {
        let segments = &self.manifest.segments;
        segments.partition_point(|segment| segment.base_index < base_index)
    }

    /// The file of a part, created with the first chunk.
    fn file_of(&mut self, part: usize) -> io::Result<Arc<SegmentFile>> {
        if let Some((writing, _, file)) = &self.writing
            && *writing == part
        {
            return Ok(file.clone());
        }
        let described = self.manifest.segments[part];
        let at = BatchStart {
            position: SEGMENT_HEADER_BYTES,
            index: described.base_index,
            offset: described.base_offset,
            epoch_before: described.epoch_before,
        };
        let made = create_segment(
            &self.disk,
            self.replica,
            self.parts[part].0,
            self.generation,
            at,
            described.end_position - SEGMENT_HEADER_BYTES,
            &self.config,
        )?;
        self.parts[part].1 = SEGMENT_HEADER_BYTES;
        let file = made.file.clone();
        self.writing = Some((part, made.segment, made.file));
        Ok(file)
    }

    /// Reads a whole part with its checksums; syncs it and its index.
    fn check(&self, part: usize) -> Result<Arc<Segment>, InstallError> {
        let described = self.manifest.segments[part];
        let path = self.dir.join(crate::paths::segment_file_name(self.parts[part].0));
        let file = self.disk.open(&path, described.end_position)?;
        let id = FileId { replica: self.replica, segment: self.parts[part].0 };
        let file = Arc::new(SegmentFile { id, path, file });
        let header = crate::segment::SegmentHeader {
            id,
            generation: self.generation,
            base_index: described.base_index,
            base_offset: described.base_offset,
            epoch_before: described.epoch_before,
        };
        let mut index = SegmentIndex::new(&header, self.config.index_interval_bytes);
        let length = described.end_position;
        if let Some(reason) =
            scan_batches(&mut index, &file, length, None, 0, &self.manifest.epochs)?
        {
            return Err(damaged(described.base_index, index.end().position, &reason));
        }
        let end = index.end();
        let manifest = &self.manifest;
        let next = match manifest.segments.get(part + 1) {
            Some(next) => (next.base_index, next.base_offset, next.epoch_before),
            None => (manifest.index.next(), manifest.end_offset, manifest.epoch),
        };
        if (end.index, end.offset, end.epoch_before) != next {
            return Err(damaged(
                described.base_index,
                end.position,
                "it does not end where the next one begins",
            ));
        }
        file.file.sync()?;
        let path = self.dir.join(index_file_name(id.segment));
        side_file::write(&*self.disk, &path, &index.encode(&header))?.sync()?;
        let capacity = self.config.segment_bytes.max(length);
        Ok(Arc::new(Segment::new(self.disk.clone(), &file, header, capacity, index)))
    }
}

fn damaged(base_index: LogIndex, position: u64, reason: &str) -> InstallError {
    InstallError::Damaged { base_index, position, reason: reason.into() }
}

fn read_error(error: ReadError) -> InstallError {
    match error {
        ReadError::Io(error) => InstallError::Io(error),
        other => InstallError::Io(io::Error::new(io::ErrorKind::InvalidData, other)),
    }
}

impl PartitionLog {
    /// Makes a finished snapshot the log: raft was shown it and took it. What the log had goes, and
    /// so does a burnt position. The switch is durable with the next flush.
    ///
    /// On an error the log is as it was, and the snapshot is lost.
    pub fn install(&mut self, mut install: SnapshotInstall) -> Result<(), AppendError> {
        let newest = self.newest_segment();
        if let Err(error) = install.renew_active(newest, self.ids()) {
            install.abandon();
            return Err(error.into());
        }
        let (manifest, generation, checked) = install.into_checked();
        self.replace(&manifest, generation, checked);
        Ok(())
    }
}
