//! A log beside its model: what tests of this crate drive. Test code only.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vltava_protocol::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::control::{InternalBatch, InternalKind};
use vltava_protocol::record::{BatchBuilder, BatchFields, Codec};

use super::{AppendError, LogConfig, PartitionLog};
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::flush::FlushItem;
use crate::flusher::{FlushQueue, Flusher};
use crate::ids::{FileId, LogIndex, ReplicaId, SegmentId};
use crate::producers::ProducerTable;
use crate::recovery::{RecoverError, RecoveryReport};
use crate::state::{LogStart, ReplicaState};
use crate::wal::{self, WalConfig};

pub(crate) const REPLICA: ReplicaId = ReplicaId(7);

/// The row of a group's first replica.
pub(crate) fn first_state() -> ReplicaState {
    ReplicaState {
        log_start: LogStart {
            first_index: LogIndex(2),
            epoch_before: LeaderEpoch(1),
            offset: Offset(0),
        },
        ..ReplicaState::default()
    }
}

/// Settings that make every test roll segments and use the index.
pub(crate) fn small() -> LogConfig {
    LogConfig { segment_bytes: 1500, index_interval_bytes: 200, ..LogConfig::default() }
}

/// A client's batch of `records` records of `value_bytes` each, the first at `timestamp`.
pub(crate) fn client_batch(records: usize, value_bytes: usize, timestamp: i64) -> Bytes {
    produced(records, value_bytes, timestamp, BatchFields::default())
}

/// As [`client_batch`], of an idempotent producer.
pub(crate) fn idempotent_batch(producer: i64, epoch: i16, sequence: i32, records: usize) -> Bytes {
    let fields = BatchFields {
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
        ..BatchFields::default()
    };
    produced(records, 20, 1000, fields)
}

fn produced(records: usize, value_bytes: usize, timestamp: i64, fields: BatchFields) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, None);
    for record in 0..records {
        let at = Timestamp(timestamp + record as i64);
        builder.append(at, Some(&[record as u8]), Some(&vec![record as u8; value_bytes]), &[]);
    }
    builder.build(&fields).unwrap()
}

/// A batch of the model: what the log must hold at its index.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Batch {
    pub(crate) epoch: LeaderEpoch,
    pub(crate) bytes: Bytes,
}

impl Batch {
    pub(crate) fn header(&self) -> BatchHeader {
        BatchHeader::parse(&self.bytes).unwrap()
    }
}

/// A log, its disk, and a flusher that syncs in place; its model.
pub(crate) struct Harness {
    pub(crate) disk: SimDisk,
    pub(crate) log: PartitionLog,
    pub(crate) config: LogConfig,
    /// Every batch from index 2 on.
    pub(crate) model: Vec<Batch>,
    pub(crate) committed: LogIndex,
    pub(crate) log_start: Offset,
    pub(crate) epoch: LeaderEpoch,
    /// The row that a restart finds.
    pub(crate) row: ReplicaState,
    /// What the write-ahead set knows.
    pub(crate) durable: HashMap<SegmentId, u64>,
    /// Everything that may lie at an index on disk, from index 2 on.
    history: Vec<Vec<Bytes>>,
    /// How many batches of the model were flushed and never cut since.
    stable: usize,
    /// A write that failed and may come back until a newer segment is durable.
    attempt: Option<(LogIndex, Bytes)>,
    /// The log start that was flushed.
    stable_start: Offset,
    /// The real flusher, in place of one that syncs in place.
    wal: Option<(Arc<FlushQueue>, Flusher)>,
}

impl Harness {
    pub(crate) fn new(seed: u64, config: LogConfig) -> Self {
        Self::on(SimDisk::new(seed), config)
    }

    pub(crate) fn on(disk: SimDisk, config: LogConfig) -> Self {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let log = PartitionLog::create(shared, REPLICA, config, first_state()).unwrap();
        let (row, durable) = (first_state(), HashMap::new());
        let (model, committed) = (Vec::new(), LogIndex(1));
        let (log_start, epoch) = (Offset(0), LeaderEpoch(1));
        let mut this = Self {
            disk,
            log,
            config,
            model,
            committed,
            log_start,
            epoch,
            row,
            durable,
            history: Vec::new(),
            stable: 0,
            attempt: None,
            stable_start: Offset(0),
            wal: None,
        };
        this.flush();
        this
    }

    /// Uses the write-ahead file set from here on; the disk is empty but for the log.
    pub(crate) fn with_wal(seed: u64, config: LogConfig) -> Self {
        let disk = SimDisk::new(seed);
        let wal = open_wal(&disk).1;
        let mut this = Self::on(disk.fork(), config);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        this.disk = disk;
        this.log = PartitionLog::create(shared, REPLICA, config, first_state()).unwrap();
        this.wal = Some(wal);
        this.flush();
        this
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        LogIndex(self.model.len() as u64 + 1)
    }

    pub(crate) fn batch_at(&self, index: LogIndex) -> &Batch {
        &self.model[(index.0 - 2) as usize]
    }

    pub(crate) fn end_offset_of(&self, index: LogIndex) -> Offset {
        if index.0 < 2 { Offset(0) } else { self.batch_at(index).header().end_offset() }
    }

    /// Makes all of the outbox durable.
    pub(crate) fn flush(&mut self) {
        self.disk.heal();
        self.stable = self.model.len();
        self.stable_start = self.log_start;
        if let Some((queue, flusher)) = &mut self.wal {
            queue.push(self.log.take_flush_items());
            while !queue.is_empty() {
                flusher.round().unwrap();
            }
            return;
        }
        for item in self.log.take_flush_items() {
            match item {
                FlushItem::Create { file, .. } => {
                    file.file.sync().unwrap();
                    for dir in file.path.ancestors().skip(1) {
                        self.disk.sync_dir(dir).unwrap();
                    }
                    self.durable.insert(file.id.segment, 64);
                }
                FlushItem::Write { file, position, bytes } => {
                    assert_eq!(
                        &file.file.slice(position..position + bytes.len() as u64).unwrap(),
                        &bytes
                    );
                    file.file.sync().unwrap();
                    let end = self.durable.entry(file.id.segment).or_default();
                    if *end == position {
                        *end += bytes.len() as u64;
                    }
                }
                FlushItem::Delete { path, .. } => {
                    let _gone = self.disk.remove(&path);
                    self.disk.sync_dir(path.parent().unwrap()).unwrap();
                }
                FlushItem::State { state, .. } => self.row = state,
                FlushItem::Sync { file, dir } => {
                    file.sync().unwrap();
                    self.disk.sync_dir(&dir).unwrap();
                }
                FlushItem::Forget { .. }
                | FlushItem::WriteBack { .. }
                | FlushItem::Node(_)
                | FlushItem::Ticket { .. } => {}
            }
        }
    }

    /// Writes ahead and publishes a client's batch.
    pub(crate) fn produce(&mut self, batch: &Bytes) -> Result<(), AppendError> {
        let header = BatchHeader::parse(batch).unwrap();
        let written = self.log.write_ahead(self.epoch, batch, &header, Timestamp(5000));
        if written.is_err() {
            let offset = self.end_offset_of(self.last_index());
            let prefix = BatchHeader::encode_prefix(offset, header.batch_length, self.epoch);
            let bytes = Bytes::from([&prefix[..], &batch[16..]].concat());
            self.attempted(bytes);
        }
        self.published(written?);
        Ok(())
    }

    /// Writes ahead and publishes an internal batch.
    pub(crate) fn internal(&mut self, kind: InternalKind, body: &[u8]) -> Result<(), AppendError> {
        let offset = self.end_offset_of(self.last_index());
        let written = self.log.write_ahead_internal(self.epoch, kind, body);
        if written.is_err() {
            self.attempted(InternalBatch::encode(offset, self.epoch, kind, body));
        }
        self.published(written?);
        Ok(())
    }

    /// A write failed; until a newer segment is durable its bytes may be found.
    fn attempted(&mut self, bytes: Bytes) {
        if !self.log.is_burnt() {
            return; // the write of the batch itself was not what failed
        }
        let index = self.last_index().next();
        self.remember(index, &bytes);
        self.attempt = Some((index, bytes));
    }

    fn remember(&mut self, index: LogIndex, bytes: &Bytes) {
        let at = (index.0 - 2) as usize;
        if at >= self.history.len() {
            self.history.resize(at + 1, Vec::new());
        }
        self.history[at].push(bytes.clone());
    }

    /// After a failed write: leaves the burnt position, durably.
    pub(crate) fn recover_from_failure(&mut self) {
        self.disk.heal();
        if self.log.is_burnt() {
            self.log.unburn().unwrap();
            self.flush();
            self.log.unburnt_durable();
            if let Some((index, bytes)) = self.attempt.take() {
                let history = &mut self.history[(index.0 - 2) as usize];
                let at = history.iter().position(|old| *old == bytes).unwrap();
                history.remove(at);
            }
        }
        assert!(!self.log.is_burnt());
    }

    fn published(&mut self, bytes: Bytes) {
        self.remember(self.last_index().next(), &bytes);
        self.model.push(Batch { epoch: self.epoch, bytes });
        self.log.publish(self.last_index(), self.epoch);
    }

    /// Appends as a follower does.
    pub(crate) fn append(&mut self, batches: &[Bytes]) -> Result<(), AppendError> {
        let mut offset = self.end_offset_of(self.last_index());
        let mut run = Vec::new();
        for (n, batch) in batches.iter().enumerate() {
            let header = BatchHeader::parse(batch).unwrap();
            let prefix = BatchHeader::encode_prefix(offset, header.batch_length, self.epoch);
            let bytes = Bytes::from([&prefix[..], &batch[16..]].concat());
            offset = BatchHeader::parse(&bytes).unwrap().end_offset();
            run.push((LogIndex(self.last_index().0 + 1 + n as u64), self.epoch, bytes));
        }
        for (index, _, bytes) in &run {
            self.remember(*index, bytes); // also of a write that fails half way
        }
        let result = self.log.append_all(&run);
        let landed = (self.log.last_index().0 - self.last_index().0) as usize;
        let landed = run.into_iter().take(landed);
        self.model.extend(landed.map(|(_, epoch, bytes)| Batch { epoch, bytes }));
        result
    }

    pub(crate) fn cut(&mut self, from: LogIndex) -> Result<(), AppendError> {
        self.log.cut(from)?;
        self.model.truncate((from.0 - 2) as usize);
        self.stable = self.stable.min(self.model.len());
        Ok(())
    }

    pub(crate) fn commit(&mut self, index: LogIndex) {
        self.committed = index;
        self.log.commit_to(index);
    }

    /// Commits all, then proposes, commits and applies a log start.
    pub(crate) fn move_start(&mut self, offset: Offset) -> Result<(), AppendError> {
        self.internal(InternalKind::LogStart, &InternalBatch::log_start_body(offset))?;
        let index = self.last_index();
        self.commit(index);
        self.flush(); // raft hands out what is committed *and* durable here
        self.log.apply_log_start(index, offset);
        self.log_start = self.log_start.max(offset);
        Ok(())
    }

    /// Opens the log on what is left of the disk.
    pub(crate) fn reopen(&mut self, disk: SimDisk) -> RecoveryReport {
        if self.wal.is_some() {
            let (recovered, wal) = open_wal(&disk);
            self.row = recovered.0;
            self.durable = recovered.1;
            self.wal = Some(wal);
        }
        let (log, report) = self.try_reopen(&disk).unwrap();
        (self.disk, self.log) = (disk, log);
        report
    }

    pub(crate) fn try_reopen(
        &self,
        disk: &SimDisk,
    ) -> Result<(PartitionLog, RecoveryReport), RecoverError> {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let durable = |segment| self.durable.get(&segment).copied().unwrap_or(0);
        PartitionLog::recover(shared, REPLICA, self.config, self.row.clone(), &durable)
    }

    /// Opens the log after a loss of what was not flushed: everything flushed must be there, what
    /// is behind it must be something that was written there. The model follows.
    pub(crate) fn reopen_after_loss(&mut self, disk: SimDisk) -> RecoveryReport {
        let report = self.reopen(disk);
        let last = self.log.last_index();
        assert!(last.0 > self.stable as u64, "flushed up to {}, found {last}", self.stable + 1);
        assert!(self.log.state().log_start.offset >= self.stable_start, "deleted data came back");
        let mut index = self.log.first_index();
        self.model.truncate(last.0 as usize - 1);
        while index <= last {
            for (at, epoch, bytes) in self.log.batches(index..last.next(), 1 << 20).unwrap() {
                let place = (at.0 - 2) as usize;
                assert!(self.history[place].contains(&bytes), "batch {at} was never written");
                assert!(place >= self.stable || self.model[place].bytes == bytes);
                let batch = Batch { epoch, bytes };
                if place < self.model.len() {
                    self.model[place] = batch;
                } else {
                    self.model.push(batch);
                }
                index = at.next();
            }
        }
        self.log_start = self.log.state().log_start.offset;
        self.committed = LogIndex(self.committed.0.min(self.stable as u64 + 1));
        assert!(self.log.committed() <= self.committed);
        self.log.commit_to(self.committed);
        self.attempt = None;
        report
    }

    /// Whether the log is its model, in every answer.
    pub(crate) fn check(&self) {
        let (log, last) = (&self.log, self.last_index());
        assert_eq!(log.last_index(), last);
        assert_eq!(log.end_offset(), self.end_offset_of(last));
        assert_eq!(log.committed(), self.committed);
        assert_eq!(log.high_watermark(), self.end_offset_of(self.committed));
        assert_eq!(log.state().log_start.offset, self.log_start);
        let first = log.first_index();
        assert!(self.end_offset_of(first.prev()) <= self.log_start, "readable data has an index");
        let mut index = first;
        while index <= last {
            for (at, epoch, bytes) in log.batches(index..last.next(), 700).unwrap() {
                assert_eq!(at, index);
                assert_eq!((epoch, &bytes), (self.batch_at(at).epoch, &self.batch_at(at).bytes));
                index = index.next();
            }
        }
        for index in first.0..=last.0 {
            let (index, batch) = (LogIndex(index), self.batch_at(LogIndex(index)));
            assert_eq!(log.epoch_at(index), Some(batch.epoch), "epoch of {index}");
            assert_eq!(log.internal_at(index).is_some(), batch.header().is_internal());
        }
        if first.0 > 2 {
            assert_eq!(log.epoch_at(first.prev()), Some(self.batch_at(first.prev()).epoch));
        }
        assert_eq!(log.epoch_at(last.next()), None);
        self.check_reads();
        let mut producers = ProducerTable::default();
        self.model.iter().for_each(|batch| producers.apply(&batch.header(), None));
        let (index, epoch) = (last, LeaderEpoch(0));
        assert_eq!(log.producers.encode(index, epoch), producers.encode(index, epoch));
    }

    /// Whether readers see every committed record from any offset, and nothing else.
    fn check_reads(&self) {
        let view = self.log.view().read();
        let high_watermark = self.end_offset_of(self.committed);
        assert_eq!(view.high_watermark, high_watermark);
        assert_eq!(view.log_end_offset, self.end_offset_of(self.last_index()));
        let data: Vec<&Batch> =
            self.model.iter().filter(|batch| !batch.header().is_internal()).collect();
        for from in (self.log_start.0..high_watermark.0).step_by(3) {
            let from = Offset(from);
            let wanted: Vec<u8> = data
                .iter()
                .filter(|batch| {
                    let header = batch.header();
                    header.end_offset() > from && header.base_offset < high_watermark
                })
                .flat_map(|batch| batch.bytes.to_vec())
                .collect();
            let slices = view.read(from, high_watermark, usize::MAX, true).unwrap();
            let got: Vec<u8> =
                slices.iter().flat_map(|slice| slice.bytes().unwrap().to_vec()).collect();
            assert_eq!(got, wanted, "read from {from}");
            let first = BatchHeader::parse(&wanted).unwrap().size();
            for max_bytes in [0, 1, first, first + 150, 2000] {
                let slices = view.read(from, high_watermark, max_bytes, true).unwrap();
                let got: Vec<u8> =
                    slices.iter().flat_map(|slice| slice.bytes().unwrap().to_vec()).collect();
                assert!(got.len() >= first && got.len() <= max_bytes.max(first));
                assert_eq!(got, wanted[..got.len()]);
                let slices = view.read(from, high_watermark, max_bytes, false).unwrap();
                assert_eq!(slices.is_empty(), max_bytes < first);
            }
        }
        assert!(view.read(view.log_end_offset, high_watermark, 100, true).unwrap().is_empty());
        assert!(view.read(view.log_end_offset + 1, high_watermark, 100, true).is_err());
    }
}

type Known = (ReplicaState, HashMap<SegmentId, u64>);

/// Redoes the write-ahead file set of a disk: what it knows of the replica, and a new flusher.
fn open_wal(disk: &SimDisk) -> (Known, (Arc<FlushQueue>, Flusher)) {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let config = WalConfig { first_file_bytes: 4096, file_bytes: 8192, ..WalConfig::default() };
    let recovered = wal::recover(shared.clone(), config).unwrap();
    let row = recovered.replicas.get(&REPLICA).cloned().unwrap_or_default();
    let durable = (0..1000)
        .map(SegmentId)
        .map(|segment| (segment, recovered.durable_position(FileId { replica: REPLICA, segment })))
        .collect();
    let queue = Arc::new(FlushQueue::default());
    let flusher = Flusher::new(recovered, shared, queue.clone());
    ((row, durable), (queue, flusher))
}

/// Picks what to do next.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.random_range(0..bound)
    }

    pub(crate) fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn batch(&mut self) -> Bytes {
        let records = self.below(4) as usize + 1;
        match self.below(3) {
            0 => idempotent_batch(self.below(3) as i64, 0, 0, records),
            _ => client_batch(records, self.below(120) as usize, self.below(5000) as i64),
        }
    }
}
