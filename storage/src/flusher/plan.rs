//! What a round has to do for the items it took: a pure function of the items.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::bugs::{Bug, planted};
use crate::disk::DiskFile;
use crate::flush::{FlushItem, SegmentFile};
use crate::ids::{FileId, ReplicaId};
use crate::segment::SegmentHeader;
use crate::state::ReplicaState;
use crate::wal::{Record, WalConfig};

/// The writes to one segment.
pub(super) struct Dirty<'a> {
    pub(super) file: &'a Arc<SegmentFile>,
    pub(super) bytes: u64,
    /// Where the last of them ends.
    pub(super) end: u64,
    largest: u64,
    writes: Vec<(u64, &'a Bytes)>,
    /// Synced in its own file instead of being written to the set.
    pub(super) in_place: bool,
}

/// The items of a round, sorted by what is to be done.
#[derive(Default)]
pub(super) struct Plan<'a> {
    pub(super) created: Vec<(&'a Arc<SegmentFile>, &'a SegmentHeader)>,
    pub(super) dirty: BTreeMap<FileId, Dirty<'a>>,
    pub(super) deleted: Vec<(FileId, &'a Path)>,
    /// The last row of each replica.
    pub(super) rows: BTreeMap<ReplicaId, &'a ReplicaState>,
    pub(super) forgotten: BTreeMap<ReplicaId, &'a Path>,
    pub(super) side_files: Vec<&'a Arc<dyn DiskFile>>,
    pub(super) side_dirs: BTreeSet<&'a PathBuf>,
    /// The highest ticket of each replica.
    pub(super) tickets: BTreeMap<ReplicaId, u64>,
}

impl<'a> Plan<'a> {
    pub(super) fn of(items: &'a [FlushItem], config: &WalConfig) -> Self {
        let mut plan = Self::default();
        for item in items {
            plan.add(item);
        }
        plan.drop_what_is_gone();
        let alone = plan.dirty.len() == 1 && !plan.has_rows_or_files();
        for dirty in plan.dirty.values_mut() {
            dirty.in_place = dirty.largest > config.write_bytes_max
                || (alone && dirty.bytes >= config.alone_bytes_min);
        }
        plan
    }

    fn add(&mut self, item: &'a FlushItem) {
        match item {
            FlushItem::Create { file, header } => self.created.push((file, header)),
            FlushItem::Write { file, position, bytes } => {
                let length = bytes.len() as u64;
                let dirty = self.dirty.entry(file.id).or_insert_with(|| Dirty {
                    file,
                    bytes: 0,
                    end: 0,
                    largest: 0,
                    writes: Vec::new(),
                    in_place: false,
                });
                dirty.bytes += length;
                dirty.end = dirty.end.max(position + length);
                dirty.largest = dirty.largest.max(length);
                dirty.writes.push((*position, bytes));
            }
            FlushItem::Delete { id, path } => self.deleted.push((*id, path)),
            FlushItem::State { replica, state } => _ = self.rows.insert(*replica, state),
            FlushItem::Forget { replica, dir } => _ = self.forgotten.insert(*replica, dir),
            FlushItem::Sync { file, dir } => {
                self.side_files.push(file);
                self.side_dirs.insert(dir);
            }
            // The flusher has taken them over before.
            FlushItem::Node(_) | FlushItem::WriteBack { .. } => {}
            FlushItem::Ticket { replica, ticket } => {
                let highest = self.tickets.entry(*replica).or_default();
                *highest = (*highest).max(*ticket);
            }
        }
    }

    /// Nobody will ask for the content of what the same round deletes.
    fn drop_what_is_gone(&mut self) {
        let deleted: BTreeSet<FileId> = self.deleted.iter().map(|(id, _)| *id).collect();
        let forgotten = &self.forgotten;
        let gone = |id: &FileId| deleted.contains(id) || forgotten.contains_key(&id.replica);
        self.created.retain(|(file, _)| !gone(&file.id));
        self.dirty.retain(|id, _| !gone(id));
        self.rows.retain(|replica, _| !forgotten.contains_key(replica));
    }

    fn has_rows_or_files(&self) -> bool {
        !(self.created.is_empty()
            && self.deleted.is_empty()
            && self.rows.is_empty()
            && self.forgotten.is_empty())
    }

    /// Whether anything of it goes through the write-ahead set.
    pub(super) fn needs_round(&self) -> bool {
        self.has_rows_or_files() || self.dirty.values().any(|dirty| !dirty.in_place)
    }

    /// What it says to the write-ahead set, but for the rows.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        let created = self
            .created
            .iter()
            .filter(|_| !planted(Bug::CreationMissingFromWal))
            .map(|(_, header)| Record::Create { header: **header });
        let dirty = self.dirty.values().filter(|dirty| !dirty.in_place);
        let written = dirty.flat_map(|dirty| {
            let file = dirty.file.id;
            dirty.writes.iter().map(move |&(position, bytes)| Record::Write {
                file,
                position,
                bytes: bytes.clone(),
            })
        });
        let deleted = self.deleted.iter().map(|&(file, _)| Record::Delete { file });
        let forgotten = self.forgotten.keys().map(|&replica| Record::Forget { replica });
        created.chain(written).chain(deleted).chain(forgotten)
    }
}
