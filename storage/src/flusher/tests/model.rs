//! Logs that write, roll, delete and vote at random, and remember what they were promised.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::ids::{LeaderEpoch, Offset};

use crate::disk::sim::{Fault, FaultPlan, SimDisk};
use crate::disk::{Disk, DiskFile};
use crate::flush::{FlushItem, SegmentFile};
use crate::flusher::{FlushError, FlushQueue, Flusher, Round};
use crate::ids::{FileId, Generation, LogIndex, ReplicaId, SegmentId};
use crate::node::NodeState;
use crate::paths::{LOGS_DIR, replica_dir, segment_path};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::state::{LogStart, Membership, ReplicaState, VoteState};
use crate::wal::{Recovered, WalConfig, WalError, recover};

/// Splitmix64.
#[derive(Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, sides: u64) -> u64 {
        self.roll() % sides
    }

    pub(super) fn one_in(&mut self, sides: u64) -> bool {
        self.below(sides) == 0
    }
}

/// What a replica did, in the order in which it pushed it.
#[derive(Clone, Copy, Debug)]
enum Op {
    Created(SegmentId),
    Wrote(SegmentId, u64),
    Deleted(SegmentId),
    Saved(u64),
    Forgot,
}

#[derive(Debug)]
struct Segment {
    file: Arc<SegmentFile>,
    header: SegmentHeader,
    /// All that was written.
    content: Vec<u8>,
    /// How much of it must be there, whatever happens.
    kept: u64,
    /// How far it must be known to be durable.
    claimed: u64,
    /// Whether it came out of the last recovery, or was durably created since.
    exists: bool,
}

#[derive(Debug)]
struct Replica {
    id: ReplicaId,
    /// Does not tell the flusher what it writes.
    page_cache: bool,
    segments: BTreeMap<SegmentId, Segment>,
    segment_max: SegmentId,
    /// Since the last recovery.
    history: Vec<Op>,
    /// How much of `history` is promised.
    promised: usize,
    /// The saved row when the history began; 0 is none.
    saved: u64,
    saves: u64,
    /// The last write failed: its position is burnt.
    burnt: bool,
}

/// The row that a replica saves at its n-th save.
fn row(n: u64) -> ReplicaState {
    let memberships = (0..n % 3).map(|index| {
        let voters = (1..=n % 5).map(ReplicaId).collect();
        (LogIndex(index), Membership { voters, ..Membership::default() })
    });
    ReplicaState {
        generation: Generation(1),
        vote: VoteState { term: n, vote: n % 3, commit: LogIndex(n * 10) },
        log_start: LogStart { offset: Offset(n as i64), ..LogStart::default() },
        memberships: memberships.collect(),
        ..ReplicaState::default()
    }
}

impl Replica {
    fn new(id: ReplicaId, page_cache: bool) -> Self {
        Self {
            id,
            page_cache,
            segments: BTreeMap::new(),
            segment_max: SegmentId(0),
            history: Vec::new(),
            promised: 0,
            saved: 0,
            saves: 0,
            burnt: false,
        }
    }

    /// Starts a new segment, or fails to.
    fn roll(&mut self, disk: &SimDisk) -> Vec<FlushItem> {
        // An id never returns, even if nothing came of it.
        self.segment_max = self.segment_max.next();
        let id = FileId { replica: self.id, segment: self.segment_max };
        let path = segment_path(id);
        let header = SegmentHeader {
            id,
            generation: Generation(1),
            base_index: LogIndex(id.segment.0),
            base_offset: Offset(7),
            epoch_before: LeaderEpoch(1),
        };
        let Ok(()) = disk.create_dir(&replica_dir(self.id)) else { return vec![] };
        let Ok(file) = disk.create(&path, 1 << 20) else { return vec![] };
        let content = header.encode().to_vec();
        if file.write_at(0, &[IoSlice::new(&content)]).is_err() {
            return vec![];
        }
        let file = Arc::new(SegmentFile { id, path, file });
        let segment =
            Segment { file: file.clone(), header, content, kept: 0, claimed: 0, exists: false };
        self.segments.insert(id.segment, segment);
        self.burnt = false;
        self.history.push(Op::Created(id.segment));
        vec![FlushItem::Create { file, header }]
    }

    fn write(&mut self, disk: &SimDisk, dice: &mut Dice, bytes_max: u64) -> Vec<FlushItem> {
        let mut items = vec![];
        if self.burnt || self.segments.last_key_value().is_none_or(|(id, _)| *id < self.segment_max)
        {
            items = self.roll(disk);
            if items.is_empty() {
                return items;
            }
        }
        let (&id, segment) = self.segments.last_key_value().expect("rolled above");
        let position = segment.content.len() as u64;
        let length = 1 + dice.below(bytes_max);
        let bytes: Vec<u8> = (0..length).map(|_| dice.roll() as u8 | 1).collect();
        if segment.file.file.write_at(position, &[IoSlice::new(&bytes)]).is_err() {
            self.burnt = true;
            return items;
        }
        let file = segment.file.clone();
        let segment = self.segments.get_mut(&id).expect("it is the last");
        segment.content.extend_from_slice(&bytes);
        if !self.page_cache {
            self.history.push(Op::Wrote(id, position + length));
            items.push(FlushItem::Write { file, position, bytes: Bytes::from(bytes) });
        }
        items
    }

    fn delete_oldest(&mut self) -> Vec<FlushItem> {
        let deleted =
            |of| self.history.iter().any(|op| matches!(op, Op::Deleted(segment) if *segment == of));
        let oldest = self.segments.iter().find(|&(&id, _)| !deleted(id) && id < self.segment_max);
        let Some((&id, segment)) = oldest else { return vec![] };
        let item = FlushItem::Delete { id: segment.file.id, path: segment.file.path.clone() };
        self.history.push(Op::Deleted(id));
        vec![item]
    }

    fn save(&mut self) -> FlushItem {
        self.saves += 1;
        self.history.push(Op::Saved(self.saves));
        FlushItem::State { replica: self.id, state: row(self.saves) }
    }

    fn forget(&mut self) -> FlushItem {
        self.history.push(Op::Forgot);
        FlushItem::Forget { replica: self.id, dir: replica_dir(self.id) }
    }

    /// The ticket says how much of the history it waits for.
    fn ticket(&self) -> FlushItem {
        FlushItem::Ticket { replica: self.id, ticket: self.history.len() as u64 }
    }

    fn is_forgotten(&self) -> bool {
        matches!(self.history.last(), Some(Op::Forgot))
    }

    fn promised(&mut self, ticket: u64) {
        let until = ticket as usize;
        assert!(until <= self.history.len());
        for op in &self.history[self.promised.min(until)..until] {
            match *op {
                Op::Created(id) => {
                    let segment = self.segments.get_mut(&id).expect("created");
                    segment.exists = true;
                    segment.kept = segment.kept.max(SEGMENT_HEADER_BYTES);
                    segment.claimed = segment.kept;
                }
                Op::Wrote(id, end) => {
                    let segment = self.segments.get_mut(&id).expect("created");
                    segment.kept = segment.kept.max(end);
                }
                Op::Deleted(_) | Op::Saved(_) | Op::Forgot => {}
            }
        }
        self.promised = self.promised.max(until);
    }

    /// Checks what recovery made of this replica, and takes it over. `false` if it is gone.
    fn check(&mut self, disk: &SimDisk, recovered: &Recovered) -> bool {
        let found = recovered.replicas.get(&self.id);
        let (promised, open) = self.history.split_at(self.promised);
        let saved = |op: &Op| if let Op::Saved(n) = op { Some(*n) } else { None };
        let at_least = promised.iter().filter_map(saved).next_back().unwrap_or(self.saved);
        let forgot = |ops: &[Op]| ops.iter().any(|op| matches!(op, Op::Forgot));
        if forgot(promised) || (forgot(open) && found.is_none()) {
            assert!(found.is_none(), "{}: forgotten, but has a row", self.id);
            let names = disk.list(&replica_dir(self.id)).unwrap();
            // Without a row that was promised, the row may be missing for another reason.
            let sure = forgot(promised) || at_least > 0;
            assert!(names.is_empty() || !sure, "{}: forgotten, but has {names:?}", self.id);
            return false;
        }
        let state = found.map_or(0, |state| state.vote.term);
        assert!(
            (at_least..=self.saves).contains(&state),
            "{}: row {state} of {at_least}..={}",
            self.id,
            self.saves
        );
        if let Some(found) = found {
            let expected = ReplicaState { durable: found.durable, ..row(state) };
            assert_eq!(*found, expected, "{}", self.id);
        }
        let deleted = |ops: &[Op], id: SegmentId| {
            ops.iter().any(|op| matches!(op, Op::Deleted(of) if *of == id))
        };
        let fates: Vec<(SegmentId, bool, bool)> = self
            .segments
            .keys()
            .map(|&id| (id, deleted(promised, id), deleted(open, id)))
            .collect();
        for (id, is_deleted, may_be_deleted) in fates {
            let segment = self.segments.get_mut(&id).expect("listed just now");
            if !segment.check(disk, recovered, is_deleted, may_be_deleted) {
                self.segments.remove(&id);
            }
        }
        self.saved = state;
        self.saves = self.saves.max(state);
        self.history.clear();
        self.promised = 0;
        self.burnt = true; // what comes next goes to a new segment
        true
    }

    /// What a log does when it is recovered: everything that it takes is synced. What the set does
    /// not know to be durable is written again before, because an earlier sync may have failed.
    fn sync(&self, disk: &SimDisk) -> std::io::Result<()> {
        for segment in self.segments.values() {
            segment.file.file.write_at(0, &[IoSlice::new(&segment.content)])?;
            segment.file.file.sync()?;
        }
        if !self.segments.is_empty() {
            disk.sync_dir(&replica_dir(self.id))?;
            disk.sync_dir(Path::new(LOGS_DIR))?;
        }
        Ok(())
    }

    fn kept(&mut self) {
        for segment in self.segments.values_mut() {
            segment.kept = segment.content.len() as u64;
            segment.exists = true;
        }
    }
}

impl Segment {
    /// Whether it is still there.
    fn check(
        &mut self,
        disk: &SimDisk,
        recovered: &Recovered,
        is_deleted: bool,
        may_be_deleted: bool,
    ) -> bool {
        let id = self.file.id;
        let path = &self.file.path;
        let Some(found) = disk.tree().remove(path) else {
            assert!(
                is_deleted || may_be_deleted || !self.exists,
                "{id:?} is missing with {} promised",
                self.kept
            );
            return false;
        };
        assert!(!is_deleted, "{id:?} is back");
        let same = found.iter().zip(&self.content).take_while(|(a, b)| a == b).count() as u64;
        let claimed = recovered.durable_position(id);
        if !may_be_deleted {
            assert!(same >= self.kept, "{id:?}: {same} of {} promised", self.kept);
            assert!(claimed >= self.claimed, "{id:?}: known to {claimed} of {}", self.claimed);
        }
        // What is claimed to be durable is there. A row claims all of an older segment.
        let claimed_bytes = if claimed == u64::MAX { self.content.len() as u64 } else { claimed };
        assert!(same >= claimed_bytes, "{id:?}: {same} of {claimed_bytes} claimed");
        if same < SEGMENT_HEADER_BYTES {
            // A log drops a segment without a header.
            disk.remove(path).ok();
            return false;
        }
        assert_eq!(SegmentHeader::decode(&found), Ok(self.header));
        self.content.truncate(same as usize);
        self.claimed = self.claimed.max(if claimed == u64::MAX { 0 } else { claimed });
        let Ok(file) = disk.open(path, 1 << 20) else { return false };
        self.file = Arc::new(SegmentFile { id, path: path.clone(), file });
        true
    }
}

/// A disk with logs, and what goes wrong.
pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) dice: Dice,
    pub(super) config: WalConfig,
    pub(super) queue: Arc<FlushQueue>,
    flusher: Option<Flusher>,
    replicas: BTreeMap<ReplicaId, Replica>,
    replica_max: u64,
    boots: i32,
    /// The boots whose node row is promised.
    booted: i32,
    side_file: Option<(Arc<dyn DiskFile>, PathBuf)>,
}

/// Two replicas that save their rows together, so that a torn round shows.
const TWINS: [ReplicaId; 2] = [ReplicaId(1001), ReplicaId(1002)];

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let config = WalConfig {
            first_file_bytes: 2048,
            file_bytes: 4096,
            files_max: 2 + dice.below(3) as usize,
            round_bytes_max: 200 + dice.below(4000),
            write_bytes_max: 100 + dice.below(400),
            alone_bytes_min: dice.below(3) * 100,
            synced_unrecorded_bytes_max: 100 + dice.below(2000),
            retired_segments_per_round: 1 + dice.below(3) as usize,
            retired_rows_per_round: 1 + dice.below(3) as usize,
            salt: dice.roll(),
        };
        let mut world = Self {
            disk: SimDisk::new(seed),
            dice,
            config,
            queue: Arc::default(),
            flusher: None,
            replicas: BTreeMap::new(),
            replica_max: 0,
            boots: 0,
            booted: 0,
            side_file: None,
        };
        for id in TWINS {
            world.replicas.insert(id, Replica::new(id, false));
        }
        world
    }

    pub(super) fn flusher(&mut self) -> &mut Flusher {
        self.flusher.as_mut().expect("started")
    }

    /// Recovers the disk and every log, or says what kept it from that.
    pub(super) fn start(&mut self) -> Result<(), WalError> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        self.flusher = None;
        self.side_file = None;
        let mut recovered = recover(disk.clone(), self.config)?;
        // What is checked now is what the disk holds; checking must not fail.
        let plan = self.disk.clone();
        plan.heal();
        let disk_now = self.disk.clone();
        self.replicas.retain(|_, replica| replica.check(&disk_now, &recovered));
        let twins = TWINS.map(|id| recovered.replicas.get(&id).map_or(0, |row| row.vote.term));
        assert_eq!(twins[0], twins[1], "half a round");
        for replica in self.replicas.values_mut() {
            let of = |source| WalError::Io { action: "sync", path: "logs".into(), source };
            replica.sync(&disk_now).map_err(of)?;
            replica.kept();
        }
        let boots = recovered.node.as_ref().map_or(0, |node| node.node_id);
        assert!((self.booted..=self.boots).contains(&boots), "node {boots} of {}", self.booted);
        self.boots += 1;
        self.queue = Arc::default();
        let unknown: Vec<ReplicaId> = recovered
            .replicas
            .keys()
            .copied()
            .filter(|id| !self.replicas.contains_key(id))
            .collect();
        assert_eq!(unknown, [], "nobody's rows");
        recovered.redone = crate::wal::Redone::default();
        let mut flusher = Flusher::new(recovered, disk, self.queue.clone());
        flusher.set_node(NodeState { node_id: self.boots, ..NodeState::default() });
        self.flusher = Some(flusher);
        Ok(())
    }

    /// One random deed of one random log.
    pub(super) fn act(&mut self) {
        let mut items = vec![];
        let count = self.replicas.len() as u64;
        let deed = self.dice.below(20);
        if deed == 0 || count <= TWINS.len() as u64 {
            self.replica_max += 1;
            let id = ReplicaId(self.replica_max);
            let mut replica = Replica::new(id, self.dice.one_in(4));
            items.push(replica.save());
            items.extend(replica.roll(&self.disk));
            self.replicas.insert(id, replica);
        } else if deed == 1 {
            for id in TWINS {
                let twin = self.replicas.get_mut(&id).expect("twins live for ever");
                items.push(twin.save());
            }
        } else {
            let nth = self.dice.below(count) as usize;
            let dice = &mut self.dice;
            let replica = self.replicas.values_mut().nth(nth).expect("counted above");
            if replica.is_forgotten() {
                return;
            }
            let is_twin = TWINS.contains(&replica.id);
            items = match deed {
                2 => replica.roll(&self.disk),
                3 | 4 => replica.delete_oldest(),
                5 | 6 if !is_twin => vec![replica.save()],
                7 if !is_twin && dice.one_in(4) => vec![replica.forget()],
                8 => replica.write(&self.disk, dice, 2000),
                _ => replica.write(&self.disk, dice, 150),
            };
            items.push(replica.ticket());
        }
        if self.dice.one_in(20) {
            self.touch_side_file(&mut items);
        }
        self.queue.push(items);
    }

    fn touch_side_file(&mut self, items: &mut Vec<FlushItem>) {
        if self.side_file.is_none() {
            let dir = PathBuf::from("side");
            let path = dir.join(format!("{}", self.boots));
            let made = self.disk.create_dir(&dir).and_then(|()| self.disk.create(&path, 1 << 20));
            self.side_file = made.ok().map(|file| (file, dir));
        }
        if let Some((file, dir)) = &self.side_file {
            items.push(FlushItem::Sync { file: file.clone(), dir: dir.clone() });
        }
    }

    pub(super) fn round(&mut self) -> Result<(), FlushError> {
        let round = self.flusher().round()?;
        self.completed(&round);
        Ok(())
    }

    pub(super) fn completed(&mut self, round: &Round) {
        self.booted = self.boots;
        for &(id, ticket) in &round.completed {
            let replica = self.replicas.get_mut(&id).expect("only known ones have tickets");
            replica.promised(ticket);
        }
    }

    /// All that was pushed and can be promised is.
    pub(super) fn check_all_promised(&self) {
        assert!(self.queue.is_empty());
        assert_eq!(self.queue.queued_bytes(), 0);
    }

    pub(super) fn power_cut(&mut self) {
        let seed = self.dice.roll();
        self.disk = self.disk.power_cut(seed);
    }

    /// Starts again, whatever stands in the way for a while.
    pub(super) fn restart(&mut self) {
        for attempt in 0.. {
            if attempt < 4 && self.dice.one_in(3) {
                let op = self.disk.op_count() + self.dice.below(25);
                let fault = if self.dice.one_in(2) { Fault::Io } else { Fault::Full };
                self.disk.fail(FaultPlan::from(op, fault));
            } else {
                self.disk.heal();
            }
            match self.start() {
                Ok(()) => return,
                Err(WalError::Io { .. }) if attempt < 4 => {}
                Err(error) => panic!("attempt {attempt}: {error}"),
            }
            match self.dice.below(3) {
                0 => self.power_cut(),
                1 => self.disk = self.disk.crash(),
                _ => {}
            }
        }
    }
}
