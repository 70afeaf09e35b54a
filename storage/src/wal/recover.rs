//! Recovery: reads the set and puts everything that it speaks of in place.
//!
//! Physical redo: file ids never return and positions are written once, so writing a byte again
//! can only write the same byte, and a crash in the middle of recovery is an ordinary event. At the
//! end all of it is synced, and a fresh file begins with a *checkpoint*: every row, and how far
//! every segment is known to be durable. Only then are the old files free.
//!
//! Nothing is taken for durable because it can be read: the process before may have died before a
//! sync, or of one that failed, after which the kernel takes pages for clean that never reached the
//! disk. So the last round is written and synced again before anything is done that follows from
//! it, and redo does the same for segments.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::file::{self, WalFile};
use super::record::Record;
use super::round::{RoundBuilder, RoundError, RoundFrame, RoundHeader, find_round};
use super::{Failure, Wal, WalConfig, WalError};
use crate::bugs::{Bug, planted};
use crate::disk::{Disk, DiskFile, ignore_missing};
use crate::ids::{FileId, ReplicaId};
use crate::node::NodeState;
use crate::paths::{
    LOGS_DIR, WAL_DIR, parse_replica_dir_name, parse_wal_file_name, replica_dir, segment_path,
    wal_path,
};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::state::ReplicaState;

/// Segments held open during redo, at most.
const OPEN_FILES_MAX: usize = 512;

/// Redo never maps a segment, so that its capacity costs nothing.
const CAPACITY: u64 = 1 << 40;

/// What was found and redone.
#[derive(Debug)]
pub struct Recovered {
    /// The set, ready for the next round.
    pub wal: Wal,
    /// The row of every replica.
    pub replicas: BTreeMap<ReplicaId, ReplicaState>,
    /// How far segments that the set knows of are durable. See [`Recovered::durable_position`].
    pub durable: HashMap<FileId, u64>,
    /// The row of the node; `None` on a disk that never had one.
    pub node: Option<NodeState>,
    /// What it took.
    pub redone: Redone,
    /// The replicas that have a directory, whose name is durable.
    pub(crate) dirs: BTreeSet<ReplicaId>,
}

impl Recovered {
    /// The end of the bytes of a segment that are surely on the disk: what cannot be read below is
    /// damage, above it is a torn tail. `u64::MAX` if all that belongs to the log in it is.
    pub fn durable_position(&self, id: FileId) -> u64 {
        let row = self.replicas.get(&id.replica);
        let by_row = row.map_or(0, |row| position_by_row(row, id));
        by_row.max(self.durable.get(&id).copied().unwrap_or(0))
    }
}

/// How much a recovery had to do, for the log of the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Redone {
    /// Rounds read.
    pub rounds: u64,
    /// Writes that were done again.
    pub writes: u64,
    /// Segments that were created again.
    pub segments_created: u64,
    /// Segments that were synced.
    pub segments_synced: u64,
}

/// Recovers the set of a disk, or begins one on an empty disk.
pub fn recover(disk: Arc<dyn Disk>, config: WalConfig) -> Result<Recovered, WalError> {
    for dir in [WAL_DIR, LOGS_DIR].map(Path::new) {
        disk.create_dir(dir).map_err(WalError::io("create", dir))?;
    }
    let root = Path::new("");
    disk.sync_dir(root).map_err(WalError::io("sync", root))?;

    let set = FileSet::scan(&*disk)?;
    let mut facts = Facts::default();
    for &sequence in &set.needed {
        visit_rounds(&*disk, sequence, |round| {
            facts.redone.rounds += 1;
            facts.learn(&wal_path(sequence), round)
        })?;
    }
    facts.settle();
    set.harden(&*disk)?;
    let mut redo = Redo::new(&*disk, &facts);
    redo.create_segments()?;
    for &sequence in &set.needed {
        visit_rounds(&*disk, sequence, |round| redo.write(&wal_path(sequence), round))?;
    }
    redo.finish()?;
    let redone = redo.redone;
    let logs = Path::new(LOGS_DIR);
    let names = disk.list(logs).map_err(WalError::io("list", logs))?;
    let dirs = names.iter().filter_map(|name| parse_replica_dir_name(name)).collect();
    let wal = set.begin(disk, config, &facts)?;
    let Facts { rows, node, durable, .. } = facts;
    let durable = durable.into_iter().collect();
    Ok(Recovered { wal, replicas: rows, durable, node, redone, dirs })
}

/// How far a row says that a segment is durable.
fn position_by_row(row: &ReplicaState, id: FileId) -> u64 {
    match row.durable {
        Some(place) if place.segment > id.segment => u64::MAX,
        Some(place) if place.segment == id.segment => place.position,
        _ => 0,
    }
}

/// The files of the set, and which of them count.
#[derive(Debug, Default)]
struct FileSet {
    /// All of them, ascending.
    sequences: Vec<u64>,
    /// Those that the last round needs, ascending, its own last.
    needed: Vec<u64>,
    last: Option<RoundHeader>,
}

impl FileSet {
    fn scan(disk: &dyn Disk) -> Result<Self, WalError> {
        let list = |dir| disk.list(Path::new(dir)).map_err(WalError::io("list", Path::new(dir)));
        let mut sequences: Vec<u64> =
            list(WAL_DIR)?.iter().filter_map(|name| parse_wal_file_name(name)).collect();
        sequences.sort_unstable();
        let mut newest = None;
        for &sequence in sequences.iter().rev() {
            let content = read(disk, sequence)?;
            let rounds = walk(&content, sequence)?;
            if let Some(last) = rounds.last() {
                newest = Some((sequence, last.0));
                break;
            }
        }
        let Some((newest, last)) = newest else {
            if !list(LOGS_DIR)?.is_empty() {
                return Err(WalError::Lost);
            }
            return Ok(Self { sequences, ..Self::default() });
        };
        if sequences.binary_search(&last.oldest).is_err() {
            return Err(WalError::Missing(wal_path(last.oldest)));
        }
        let needed =
            sequences.iter().copied().filter(|sequence| (last.oldest..=newest).contains(sequence));
        let set = Self { needed: needed.collect(), sequences, last: Some(last) };
        set.check(disk, &last)?;
        Ok(set)
    }

    /// Every round between the first needed one and the last must be there, and nothing after it.
    fn check(&self, disk: &dyn Disk, last: &RoundHeader) -> Result<(), WalError> {
        let mut expected = None;
        for &sequence in &self.sequences {
            if sequence < last.oldest {
                continue;
            }
            let content = read(disk, sequence)?;
            let rounds = walk(&content, sequence)?;
            let end = rounds.last().map_or(0, |&(_, end)| end);
            let first = rounds.first().map(|(header, _)| header.number);
            if let (Some(expected), Some(first)) = (expected, first)
                && expected != first
            {
                return Err(WalError::Damaged {
                    path: wal_path(sequence),
                    position: 0,
                    number: first,
                });
            }
            let before = expected.map_or(0, |expected| expected - 1);
            let number = rounds.last().map_or(before, |(header, _)| header.number);
            let later = find_round(&content, end, |round| {
                let RoundHeader { sequence: of, number: later, salt, .. } = round.header;
                of == sequence && salt == last.salt && later > number
            });
            if let Some(later) = later
                && !planted(Bug::StaleRoundResurrected)
            {
                let number = later.header.number;
                return Err(WalError::Damaged { path: wal_path(sequence), position: end, number });
            }
            expected = Some(number + 1);
        }
        Ok(())
    }

    /// Makes the last round durable before anything is done that follows from it. It was written,
    /// but the process may have died before the sync, or of a sync that failed, after which the
    /// kernel takes its pages for clean: so it is written again first.
    fn harden(&self, disk: &dyn Disk) -> Result<(), WalError> {
        let Some(&sequence) = self.needed.last() else { return Ok(()) };
        let path = wal_path(sequence);
        let file = WalFile::open(disk, sequence).map_err(WalError::io("open", &path))?;
        let content = read(disk, sequence)?;
        let ends: Vec<u64> = walk(&content, sequence)?.into_iter().map(|(_, end)| end).collect();
        let start = ends.iter().rev().nth(1).copied().unwrap_or(0) as usize;
        let end = ends.last().map_or(start, |&end| content.len().min(end as usize));
        file.file
            .write_at(start as u64, &[IoSlice::new(&content[start..end])])
            .map_err(WalError::io("write", &path))?;
        file.file.sync().map_err(WalError::io("sync", &path))
    }

    /// Begins a fresh file with a checkpoint, and gives back all others.
    fn begin(self, disk: Arc<dyn Disk>, config: WalConfig, facts: &Facts) -> Result<Wal, WalError> {
        let sequence = self.sequences.last().map_or(1, |last| last + 1);
        let path = wal_path(sequence);
        let unneeded = self.sequences.iter().copied().find(|file| !self.needed.contains(file));
        let current = match unneeded {
            Some(file) => WalFile::recycle(&*disk, file, sequence),
            None => WalFile::create(&*disk, sequence),
        };
        let mut current = current.map_err(WalError::io("create", &path))?;
        let dir = Path::new(WAL_DIR);
        disk.sync_dir(dir).map_err(WalError::io("sync", dir))?;
        if let Err(error) = current.fill(config.first_file_bytes) {
            tracing::debug!(%error, "the first write-ahead file is not filled");
        }
        let mut wal = Wal {
            disk,
            config,
            live: VecDeque::new(),
            current,
            position: 0,
            next: None,
            spare: None,
            attempted: false,
            number: self.last.map_or(1, |last| last.number + 1),
            salt: self.last.map_or(config.salt, |last| last.salt),
            sequence_max: sequence,
        };
        match wal.append(&facts.checkpoint(), sequence) {
            Ok(()) => {}
            Err(Failure::Write(source)) => return Err(WalError::io("write", &path)(source)),
            Err(Failure::Sync(source)) => return Err(WalError::io("sync", &path)(source)),
        }
        let old = self.sequences.into_iter().filter(|&file| Some(file) != unneeded);
        old.rev().for_each(|file| wal.give_back(file));
        Ok(wal)
    }
}

fn read(disk: &dyn Disk, sequence: u64) -> Result<Bytes, WalError> {
    let path = wal_path(sequence);
    file::read(disk, &path).map_err(WalError::io("read", &path))
}

/// Visits the rounds of a file that count.
fn visit_rounds(
    disk: &dyn Disk,
    sequence: u64,
    mut visit: impl FnMut(&RoundFrame) -> Result<(), WalError>,
) -> Result<(), WalError> {
    let content = read(disk, sequence)?;
    let mut position = 0;
    for (_, end) in walk(&content, sequence)? {
        let round = RoundFrame::read(&content, position).expect("walked over just now");
        visit(&round)?;
        position = end;
    }
    Ok(())
}

/// The header and the end of every round from the start of a file that may count, in order.
fn walk(content: &Bytes, sequence: u64) -> Result<Vec<(RoundHeader, u64)>, WalError> {
    let mut rounds: Vec<(RoundHeader, u64)> = Vec::new();
    let mut position = 0;
    loop {
        let round = match RoundFrame::read(content, position) {
            Ok(round) => round,
            Err(source @ RoundError::Newer(_)) => {
                return Err(WalError::Newer { path: wal_path(sequence), source });
            }
            Err(RoundError::Nothing | RoundError::Torn) => return Ok(rounds),
        };
        let header = match rounds.last() {
            None if round.header.sequence == sequence => round.header,
            Some((before, _)) if round.follows(before) => round.header,
            Some((before, _)) if planted(Bug::StaleRoundResurrected) => {
                RoundHeader { number: before.number + 1, ..*before }
            }
            _ => return Ok(rounds),
        };
        rounds.push((header, round.end));
        position = round.end;
    }
}

/// What the rounds say, taken together.
#[derive(Debug, Default)]
struct Facts {
    rows: BTreeMap<ReplicaId, ReplicaState>,
    node: Option<NodeState>,
    created: BTreeMap<FileId, SegmentHeader>,
    deleted: BTreeSet<FileId>,
    forgotten: BTreeSet<ReplicaId>,
    synced: BTreeMap<FileId, u64>,
    /// The ranges that were written, in the order of the rounds.
    written: BTreeMap<FileId, Vec<(u64, u64)>>,
    /// Filled by [`Facts::settle`]: the end of what is durable without a gap.
    durable: BTreeMap<FileId, u64>,
    redone: Redone,
}

impl Facts {
    fn learn(&mut self, path: &Path, round: &RoundFrame) -> Result<(), WalError> {
        for record in records(path, round)? {
            match record {
                Record::Write { file, position, bytes } => {
                    let range = (position, position + bytes.len() as u64);
                    self.written.entry(file).or_default().push(range);
                }
                Record::Create { header } => _ = self.created.insert(header.id, header),
                Record::Synced { file, position } => {
                    let known = self.synced.entry(file).or_default();
                    *known = position.max(*known);
                }
                Record::Delete { file } => _ = self.deleted.insert(file),
                Record::State { replica, state } => _ = self.rows.insert(replica, state),
                Record::Forget { replica } => {
                    self.rows.remove(&replica);
                    self.forgotten.insert(replica);
                }
                Record::Node(node) => self.node = Some(node),
            }
        }
        Ok(())
    }

    fn is_gone(&self, id: FileId) -> bool {
        self.deleted.contains(&id) || self.forgotten.contains(&id.replica)
    }

    /// How far a segment was durable in its own file before this recovery.
    fn in_place(&self, id: FileId) -> u64 {
        let by_row = self.rows.get(&id.replica).map_or(0, |row| position_by_row(row, id));
        by_row.max(self.synced.get(&id).copied().unwrap_or(0))
    }

    /// Works out how far each segment will be durable once everything is redone.
    fn settle(&mut self) {
        let files: BTreeSet<FileId> = self
            .created
            .keys()
            .chain(self.synced.keys())
            .chain(self.written.keys())
            .copied()
            .collect();
        for id in files.into_iter().filter(|&id| !self.is_gone(id)).collect::<Vec<_>>() {
            let mut end = self.in_place(id);
            if self.created.contains_key(&id) {
                end = end.max(SEGMENT_HEADER_BYTES);
            }
            let mut written = self.written.get(&id).cloned().unwrap_or_default();
            written.sort_unstable();
            for (from, to) in written {
                if from <= end {
                    end = end.max(to);
                }
            }
            self.durable.insert(id, end);
        }
    }

    /// The first round of the fresh file: with it, no earlier file is needed.
    fn checkpoint(&self) -> RoundBuilder {
        let mut round = RoundBuilder::default();
        for (&file, &position) in &self.durable {
            if position > 0 && position != u64::MAX {
                round.push(&Record::Synced { file, position });
            }
        }
        for (&replica, state) in &self.rows {
            round.push(&Record::State { replica, state: state.clone() });
        }
        self.node.iter().for_each(|node| round.push(&Record::Node(node.clone())));
        round
    }
}

fn records(path: &Path, round: &RoundFrame) -> Result<Vec<Record>, WalError> {
    let position = round.position;
    round.records().map_err(|source| WalError::Record { path: path.into(), position, source })
}

/// Puts in place what the facts say.
struct Redo<'a> {
    disk: &'a dyn Disk,
    facts: &'a Facts,
    open: BTreeMap<FileId, Arc<dyn DiskFile>>,
    /// Segments to be synced.
    touched: BTreeSet<FileId>,
    redone: Redone,
}

impl<'a> Redo<'a> {
    fn new(disk: &'a dyn Disk, facts: &'a Facts) -> Self {
        let redone = facts.redone;
        Self { disk, facts, open: BTreeMap::new(), touched: BTreeSet::new(), redone }
    }

    /// Creates the segments that are missing, and writes their headers.
    fn create_segments(&mut self) -> Result<(), WalError> {
        for (&id, header) in &self.facts.created {
            if self.facts.is_gone(id) || self.facts.in_place(id) >= SEGMENT_HEADER_BYTES {
                continue;
            }
            let path = segment_path(id);
            if self.open(id)?.is_none() {
                let dir = replica_dir(id.replica);
                self.disk.create_dir(&dir).map_err(WalError::io("create", &dir))?;
                let file =
                    self.disk.create(&path, CAPACITY).map_err(WalError::io("create", &path))?;
                self.open.insert(id, file);
                self.redone.segments_created += 1;
            }
            let file = self.open(id)?.expect("opened or created above");
            file.write_at(0, &[IoSlice::new(&header.encode())])
                .map_err(WalError::io("write", &path))?;
            self.touched.insert(id);
        }
        Ok(())
    }

    /// Writes the batches of a round that are not surely in place.
    fn write(&mut self, path: &Path, round: &RoundFrame) -> Result<(), WalError> {
        for record in records(path, round)? {
            let Record::Write { file: id, position, bytes } = record else { continue };
            let end = position + bytes.len() as u64;
            if self.facts.is_gone(id) || end <= self.facts.in_place(id) {
                continue;
            }
            // A segment that is missing although nobody deleted it is for its log to find.
            let Some(file) = self.open(id)? else { continue };
            file.write_at(position, &[IoSlice::new(&bytes)])
                .map_err(WalError::io("write", &segment_path(id)))?;
            self.touched.insert(id);
            self.redone.writes += 1;
        }
        Ok(())
    }

    /// Finishes deletions, and makes everything durable.
    fn finish(&mut self) -> Result<(), WalError> {
        let logs = Path::new(LOGS_DIR);
        let touched: Vec<_> = std::mem::take(&mut self.touched).into_iter().collect();
        for ids in touched.chunks(OPEN_FILES_MAX / 2) {
            let files = ids.iter().map(|id| self.open(*id)).collect::<Result<Vec<_>, _>>()?;
            let files: Vec<_> = files.into_iter().flatten().collect();
            self.disk.sync_many(&files, &[]).map_err(WalError::io("sync segments in", logs))?;
            self.redone.segments_synced += files.len() as u64;
        }
        self.open.clear();
        let mut dirs = BTreeSet::new();
        for &id in self.facts.created.keys() {
            dirs.insert(replica_dir(id.replica));
        }
        for &id in &self.facts.deleted {
            let path = segment_path(id);
            ignore_missing(self.disk.remove(&path)).map_err(WalError::io("remove", &path))?;
            dirs.insert(replica_dir(id.replica));
        }
        for &replica in &self.facts.forgotten {
            let dir = replica_dir(replica);
            self.disk.remove_dir(&dir).map_err(WalError::io("remove", &dir))?;
        }
        let dirs: Vec<_> = dirs.into_iter().collect();
        self.disk.sync_many(&[], &dirs).map_err(WalError::io("sync directories in", logs))?;
        // Whatever is there, the process before may have made without a sync.
        self.disk.sync_dir(logs).map_err(WalError::io("sync", logs))
    }

    fn open(&mut self, id: FileId) -> Result<Option<Arc<dyn DiskFile>>, WalError> {
        if let Some(file) = self.open.get(&id) {
            return Ok(Some(file.clone()));
        }
        let path = segment_path(id);
        match self.disk.open(&path, CAPACITY) {
            Ok(file) => {
                if self.open.len() >= OPEN_FILES_MAX {
                    self.open.clear();
                }
                self.open.insert(id, file.clone());
                Ok(Some(file))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(WalError::io("open", &path)(error)),
        }
    }
}
