//! What must hold in every history, checked at every step of it.
//!
//! The checker keeps one *truth* per group: the committed batches, as the first replica that
//! committed them showed them. Everything else is compared with it: every other replica's committed
//! log, after every restart again; every acknowledgement; every byte that a reader was handed.

use std::collections::BTreeMap;

use bytes::Bytes;
use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_protocol::record::batch::{BATCH_PREFIX_BYTES, BatchHeader, crc32c, verify_crc};
use vltava_protocol::record::control::{InternalBatch, InternalKind};
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::Durability;

/// A property that did not hold. The history ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Ends the enclosing check with a violation.
macro_rules! violated {
    ($($text:tt)*) => { return Err($crate::checker::Violation(format!($($text)*))) };
}
pub(crate) use violated;

/// One committed batch.
#[derive(Clone, Debug)]
struct Entry {
    epoch: LeaderEpoch,
    base_offset: Offset,
    end_offset: Offset,
    /// Empty if nobody ever showed it: it was committed and deleted at once.
    bytes: Bytes,
    is_internal: bool,
}

/// A batch that a producer was told is committed.
#[derive(Clone, Copy, Debug)]
struct Acked {
    payload: u32,
    durability: Durability,
}

/// Who leads an epoch, and what was committed there when it was first seen to.
#[derive(Clone, Copy, Debug)]
struct Office {
    leader: ReplicaId,
    found: LogIndex,
}

/// What is at stake where a voter announces a loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stake {
    /// A quorum is intact: nobody may decide without it.
    Forbidden,
    /// A change of membership is under way, and a quorum of the old or of the new one is intact: it
    /// holds all that was committed, and nothing of that may be missing afterwards.
    Nothing,
    /// Too few voters are intact of every membership that may be in force.
    Records,
}

/// What a confirmed leader said about its log.
#[derive(Clone, Copy, Debug)]
struct Answer {
    high_watermark: Offset,
    log_start: Offset,
}

/// The truth about one group.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// From index 2 on.
    entries: Vec<Entry>,
    leaders: BTreeMap<i32, Office>,
    answers: BTreeMap<i32, Answer>,
    acked: BTreeMap<Offset, Acked>,
    /// The next sequence of each producer.
    sequences: BTreeMap<i64, i32>,
    log_start: Offset,
    /// An abstaining voter announced that what was committed past this index is lost.
    announced: Option<LogIndex>,
    /// Committed batches that were given up with announced losses.
    lost: BTreeMap<LogIndex, Vec<Bytes>>,
    /// Some entries were never shown.
    has_skipped: bool,
    /// How many acknowledged batches went with announced losses.
    pub acked_lost: u64,
}

const FIRST: u64 = 2;

impl Truth {
    /// The last committed index that anyone showed.
    pub fn last_index(&self) -> LogIndex {
        LogIndex(FIRST + self.entries.len() as u64 - 1)
    }

    /// The end of what is committed.
    pub fn end_offset(&self) -> Offset {
        self.entries.last().map_or(Offset::ZERO, |entry| entry.end_offset)
    }

    /// The highest committed log start.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// Acknowledged batches that must be there.
    pub fn acked_count(&self) -> usize {
        self.acked.len()
    }

    /// Whether a batch was given up with an announced loss: who shows it holds more than those that
    /// decided, and is fenced as soon as a leader speaks to it.
    pub fn is_lost(&self, index: LogIndex, batch: &Bytes) -> bool {
        self.lost.get(&index).is_some_and(|lost| lost.contains(batch))
    }

    /// A replica whose log begins at `first_index` shows that `batch` is committed at `index`.
    pub fn on_committed(
        &mut self,
        replica: ReplicaId,
        index: LogIndex,
        first_index: LogIndex,
        epoch: LeaderEpoch,
        batch: &Bytes,
    ) -> Result<(), Violation> {
        if index.0 < FIRST {
            violated!("replica {replica} has an entry at index {index}, before the first");
        }
        let at = (index.0 - FIRST) as usize;
        if let Some(known) = self.entries.get(at) {
            if known.bytes.is_empty() {
                return Ok(());
            }
            if known.bytes == *batch && known.epoch == epoch {
                return Ok(());
            }
            if self.announced.is_none_or(|end| index <= end) || epoch <= known.epoch {
                violated!(
                    "replica {replica} committed another batch at index {index}: epoch {epoch}, \
                     {}; committed there was epoch {}, {}",
                    describe(batch),
                    known.epoch,
                    describe(&known.bytes)
                );
            }
            self.forget_from(at)?;
        }
        if at > self.entries.len() {
            if index > first_index {
                violated!(
                    "replica {replica} shows index {index} as committed, and nobody ever showed {}",
                    FIRST + self.entries.len() as u64
                );
            }
            self.skip_to(at, epoch, batch);
        }
        self.admit(replica, index, epoch, batch)
    }

    /// Entries up to `at` were committed and deleted before anybody could look.
    fn skip_to(&mut self, at: usize, epoch: LeaderEpoch, next: &Bytes) {
        let end_offset = BatchHeader::parse(next).map_or(Offset::ZERO, |header| header.base_offset);
        while self.entries.len() < at {
            let base_offset = self.end_offset();
            let epoch = self.entries.last().map_or(epoch, |before| before.epoch);
            let bytes = Bytes::new();
            self.entries.push(Entry { epoch, base_offset, end_offset, bytes, is_internal: false });
        }
        self.sequences.clear();
        self.has_skipped = true;
    }

    /// A replica applied log starts up to `offset`; one of them nobody may have shown.
    pub fn on_log_start(&mut self, offset: Offset) {
        if self.has_skipped {
            self.log_start = self.log_start.max(offset);
        }
    }

    fn admit(
        &mut self,
        replica: ReplicaId,
        index: LogIndex,
        epoch: LeaderEpoch,
        batch: &Bytes,
    ) -> Result<(), Violation> {
        let header = match BatchHeader::parse(batch) {
            Ok(header) if header.size() == batch.len() && verify_crc(batch) => header,
            _ => violated!("replica {replica} committed a broken batch at index {index}"),
        };
        if header.base_offset != self.end_offset() {
            violated!(
                "offsets are not dense: index {index} begins at {}, the log ends at {}",
                header.base_offset,
                self.end_offset()
            );
        }
        if header.leader_epoch != epoch
            || self.entries.last().is_some_and(|before| before.epoch > epoch)
        {
            violated!("index {index} of epoch {epoch} holds epoch {}", header.leader_epoch);
        }
        let is_internal = header.is_internal();
        if is_internal {
            if let Ok((InternalKind::LogStart, body)) = InternalBatch::parse(batch)
                && let Some(offset) = InternalBatch::parse_log_start(&body)
            {
                self.log_start = self.log_start.max(offset);
            }
        } else if header.producer_id.0 >= 0 {
            // A producer that the log does not know may begin anywhere (KIP-360).
            let first = header.base_sequence.0;
            let next = self.sequences.entry(header.producer_id.0).or_insert(first);
            if first != *next {
                violated!(
                    "producer {} has sequence {} at index {index} where {next} belongs: doubled or \
                     out of order",
                    header.producer_id,
                    header.base_sequence
                );
            }
            *next += header.record_count;
        }
        self.entries.push(Entry {
            epoch,
            base_offset: header.base_offset,
            end_offset: header.end_offset(),
            bytes: batch.clone(),
            is_internal,
        });
        Ok(())
    }

    /// An announced loss took place: the truth ends before entry `at`.
    fn forget_from(&mut self, at: usize) -> Result<(), Violation> {
        let lost = self.entries.split_off(at);
        for (index, entry) in (FIRST + at as u64..).zip(&lost) {
            self.lost.entry(LogIndex(index)).or_default().push(entry.bytes.clone());
        }
        let from = lost[0].base_offset;
        let acked = self.acked.split_off(&from);
        if let Some((offset, _)) =
            acked.iter().find(|(_, acked)| acked.durability == Durability::Fsync)
        {
            violated!("the batch at {offset} was acknowledged as synced, and is lost");
        }
        self.acked_lost += acked.len() as u64;
        self.answers.clear();
        // What the log still knows of its producers is then a matter of luck.
        self.sequences.clear();
        self.log_start = Offset::ZERO;
        for entry in &self.entries {
            if entry.is_internal
                && let Ok((InternalKind::LogStart, body)) = InternalBatch::parse(&entry.bytes)
                && let Some(offset) = InternalBatch::parse_log_start(&body)
            {
                self.log_start = self.log_start.max(offset);
            }
        }
        Ok(())
    }

    /// An abstaining voter leads, or lets lead, without what may have been committed past `end`; the
    /// world says what so few intact voters may give up.
    pub fn on_loss_announced(&mut self, end: LogIndex, stake: Stake) -> Result<(), Violation> {
        match stake {
            Stake::Forbidden => {
                violated!("a voter gave up what lies past index {end} although a quorum is intact")
            }
            Stake::Nothing => {}
            Stake::Records => {
                self.announced = Some(self.announced.map_or(end, |known| known.min(end)));
            }
        }
        Ok(())
    }

    /// Whether data may be missing that was committed.
    pub fn may_have_lost(&self) -> bool {
        self.announced.is_some()
    }

    /// A replica believes that it leads, and that all is committed up to `committed`, an index whose
    /// batch is of the epoch `last`. A leader counts who holds a batch of its own epoch, and never of
    /// an older one: others may hold it in vain (the Raft paper's figure 8).
    pub fn on_leader(
        &mut self,
        epoch: LeaderEpoch,
        replica: ReplicaId,
        committed: LogIndex,
        last: Option<LeaderEpoch>,
    ) -> Result<(), Violation> {
        let new = Office { leader: replica, found: committed };
        let Office { leader, found } = *self.leaders.entry(epoch.0).or_insert(new);
        if leader != replica {
            violated!("replicas {leader} and {replica} both lead epoch {epoch}");
        }
        if committed > found && last.is_some_and(|last| last < epoch) {
            violated!(
                "the leader {replica} of epoch {epoch} counts who holds a batch of an older epoch: \
                 committed was {found}, and now is {committed}"
            );
        }
        Ok(())
    }

    /// Whether nobody was ever seen to lead a newer epoch.
    pub fn is_newest(&self, epoch: LeaderEpoch) -> bool {
        self.leaders.last_key_value().is_some_and(|(newest, _)| *newest == epoch.0)
    }

    /// The leader of `epoch` answers for its high watermark and log start.
    pub fn on_answer(
        &mut self,
        epoch: LeaderEpoch,
        high_watermark: Offset,
        log_start: Offset,
    ) -> Result<(), Violation> {
        for (known_epoch, known) in self.answers.range(..=epoch.0) {
            if high_watermark < known.high_watermark {
                violated!(
                    "the leader of epoch {epoch} answers with high watermark {high_watermark}, that \
                     of epoch {known_epoch} had answered with {}",
                    known.high_watermark
                );
            }
            if log_start < known.log_start {
                violated!(
                    "deleted data came back: epoch {epoch} starts at {log_start}, epoch \
                     {known_epoch} started at {}",
                    known.log_start
                );
            }
        }
        if high_watermark > self.end_offset() {
            violated!("high watermark {high_watermark} lies past what is committed");
        }
        self.answers.insert(epoch.0, Answer { high_watermark, log_start });
        Ok(())
    }

    /// A producer was told that its batch is committed at `base_offset`.
    pub fn on_acked(
        &mut self,
        base_offset: Offset,
        batch: &Bytes,
        durability: Durability,
    ) -> Result<(), Violation> {
        let payload = crc32c(&batch[BATCH_PREFIX_BYTES..]);
        match self.find(base_offset) {
            Some(entry) if entry.bytes.is_empty() => return Ok(()),
            Some(entry) if crc32c(&entry.bytes[BATCH_PREFIX_BYTES..]) == payload => {}
            Some(entry) => violated!(
                "acknowledged at {base_offset} was {}, committed there is {}",
                describe(batch),
                describe(&entry.bytes)
            ),
            None => violated!(
                "{} was acknowledged at {base_offset} before it was committed",
                describe(batch)
            ),
        }
        self.acked.entry(base_offset).or_insert(Acked { payload, durability });
        Ok(())
    }

    /// A reader was handed `records`, which should begin with the batch that holds `from`. Answers
    /// the offset after the last record.
    pub fn on_read(
        &self,
        what: &str,
        from: Offset,
        high_watermark: Offset,
        records: &Bytes,
    ) -> Result<Offset, Violation> {
        let mut next = from;
        for batch in vltava_protocol::record::batch::split_batches(records) {
            let Ok((header, bytes)) = batch else {
                violated!("{what} was handed bytes that are no whole batches");
            };
            if header.record_count <= 0 || header.is_internal() {
                violated!("{what} was handed a batch without records at {}", header.base_offset);
            }
            if header.end_offset() <= next || header.base_offset > next {
                violated!(
                    "{what} was handed [{}, {}) where {next} belongs",
                    header.base_offset,
                    header.end_offset()
                );
            }
            if header.end_offset() > high_watermark {
                violated!(
                    "{what} was handed offset {} past the high watermark {high_watermark}",
                    header.last_offset()
                );
            }
            match self.find(header.base_offset) {
                Some(entry) if entry.bytes.is_empty() || entry.bytes == bytes => {}
                _ if self.lost.values().flatten().any(|lost| *lost == bytes) => {}
                Some(entry) => violated!(
                    "{what} was handed {}, committed is {}",
                    describe(&bytes),
                    describe(&entry.bytes)
                ),
                None => violated!("{what} was handed {}, never committed", describe(&bytes)),
            }
            next = header.end_offset();
        }
        Ok(next)
    }

    /// At the end, when all is well again: the leader's committed log must hold all of the truth.
    pub fn on_end(&self, committed: LogIndex, log_start: Offset) -> Result<(), Violation> {
        if committed < self.last_index() {
            violated!("committed up to {}, the last leader has {committed}", self.last_index());
        }
        if log_start != self.log_start {
            violated!("the log starts at {log_start}, committed is a start at {}", self.log_start);
        }
        for (offset, acked) in &self.acked {
            let there = self.find(*offset).map(|entry| crc32c(&entry.bytes[BATCH_PREFIX_BYTES..]));
            if there != Some(acked.payload) {
                violated!("the acknowledged batch at {offset} is lost");
            }
        }
        Ok(())
    }

    fn find(&self, base_offset: Offset) -> Option<&Entry> {
        let after = self.entries.partition_point(|entry| entry.base_offset < base_offset);
        let same = self.entries[after..].iter();
        let mut same = same.take_while(|entry| entry.base_offset == base_offset);
        let shown = |entry: &&Entry| !entry.is_internal && !entry.bytes.is_empty();
        same.find(shown).or_else(|| self.skipped(base_offset))
    }

    /// The entry that nobody showed and that holds `offset`.
    fn skipped(&self, offset: Offset) -> Option<&Entry> {
        let mut skipped = self.entries.iter().filter(|entry| entry.bytes.is_empty());
        skipped.find(|entry| entry.base_offset <= offset && offset < entry.end_offset)
    }
}

/// A batch in a few words.
fn describe(batch: &Bytes) -> String {
    match BatchHeader::parse(batch) {
        Ok(header) if header.is_internal() => format!(
            "internal {:?} at offset {}",
            InternalBatch::parse(batch).map(|(kind, _)| kind),
            header.base_offset
        ),
        Ok(header) => format!(
            "offsets [{}, {}) of producer {} sequence {} crc {:08x} epoch {}",
            header.base_offset,
            header.end_offset(),
            header.producer_id,
            header.base_sequence,
            header.crc,
            header.leader_epoch
        ),
        Err(error) => format!("no batch ({error})"),
    }
}

#[cfg(test)]
mod tests;
