//! Groups in the simulator: a coordinator's shard beside every replica of a simulated partition of
//! `__consumer_offsets`, and members that join, commit, fetch, fall silent and leave, while nodes
//! crash, lose power, are cut off and hand over leadership.
//!
//! A desk is what the broker's `Post` is without its lock and its task: the same
//! [`Seat`] over the same [`GroupShard`], over the replica's log. Members speak with a desk directly;
//! of what they say and of what they are told some is lost.
//!
//! ```text
//! world ──▶ replicas ──▶ desks (seat, shard) ◀──▶ members ──▶ promises
//! ```
//!
//! Checked: an acknowledged commit is what a group goes on from, whoever coordinates it then; no
//! partition has two owners in one generation; nobody is answered twice; once all faults end every
//! member reads again; and in the end all replicas hold the same groups.

use std::collections::{BTreeMap, VecDeque};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vltava::coordinator::group::{
    GroupConfig, GroupRecord, GroupRequest, GroupResponse, GroupShard, Token,
};
use vltava::coordinator::runtime::replay;
use vltava::coordinator::runtime::seat::{Log, Replies, Seat};
use vltava::replica::group::PartitionGroup;
use vltava::replica::shell::Placed;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, Timestamp};
use vltava_protocol::record::validate::Validated;
use vltava_storage::ids::ReplicaId;
use vltava_storage::log::Durability;
use vltava_storage::read_view::ReadView;

use self::member::{Member, Promises, Said};
use crate::checker::{Violation, violated};
use crate::coverage::Coverage;
use crate::network::{NodeId, Time};
use crate::plan::Action;
use crate::world::{Setup, TICK, World};

mod faults;
mod member;

/// Virtual microseconds between two looks at desks and members.
const SLICE: Time = TICK / 4;
/// Virtual microseconds that are one millisecond to the groups: else nothing would ever expire.
const MICROS_PER_MS: Time = 100;
/// How long faults happen.
const LENGTH: Time = 1_500 * TICK;
/// How long the end may take.
const SETTLE: Time = 4_000 * TICK;
/// The partition's group.
const GROUP: usize = 0;
const NODES: usize = 3;
/// Requests, and answers, that are lost on their way, of a thousand.
const LOST_PERMILLE: u32 = 20;

/// What a history led to.
#[derive(Debug)]
pub struct Outcome {
    /// Events of the world.
    pub steps: u64,
    /// What it went through.
    pub coverage: Coverage,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// The faults, as a story.
    pub story: Vec<(Time, Action)>,
}

/// Runs the history of a seed.
pub fn run(seed: u64) -> Outcome {
    let story = faults::plan(seed, LENGTH);
    let mut groups = Groups::new(seed);
    for (at, action) in &story {
        groups.world.plan(*at, action.clone());
    }
    let violation = groups.live().err();
    let mut coverage = std::mem::take(&mut groups.world.coverage);
    coverage.add(&groups.coverage);
    Outcome { steps: groups.world.steps, coverage, violation, story }
}

/// A shard beside a replica, for as long as its broker runs.
struct Desk {
    node: NodeId,
    boot: u64,
    seat: Seat<GroupShard>,
    /// The seat's appends that are not known to be committed, the oldest first.
    placed: VecDeque<Placed>,
}

/// See the module.
struct Groups {
    world: World,
    rng: ChaCha8Rng,
    desks: BTreeMap<ReplicaId, Desk>,
    members: Vec<Member>,
    /// Who waits for what.
    waiting: BTreeMap<Token, usize>,
    next_token: u64,
    promises: Promises,
    coverage: Coverage,
}

impl Groups {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x6f66_6673);
        let setup = Setup {
            nodes: NODES,
            groups: vec![((0..NODES).collect(), Durability::Fsync)],
            segment_bytes: rng.random_range(4_000..40_000),
            wal_bytes: rng.random_range(16_000..64_000),
            append_bytes_max: rng.random_range(500..8_000),
            write_bytes_max: rng.random_range(200..4_000),
            seed,
        };
        let members = (0..rng.random_range(2..6)).map(Member::new).collect();
        Self {
            world: World::new(setup),
            rng,
            desks: BTreeMap::new(),
            members,
            waiting: BTreeMap::new(),
            next_token: 0,
            promises: Promises::default(),
            coverage: Coverage::default(),
        }
    }

    fn live(&mut self) -> Result<(), Violation> {
        while self.world.now() < LENGTH {
            self.step()?;
        }
        self.world.heal();
        self.members.iter_mut().for_each(Member::wake);
        let acknowledged = self.promises.acknowledged;
        let is_alive = |groups: &Self| {
            let is_reading = groups.members.iter().all(Member::is_reading);
            is_reading && groups.promises.acknowledged >= acknowledged + groups.members.len()
        };
        let deadline = self.world.now() + SETTLE;
        while !is_alive(self) {
            if self.world.now() > deadline {
                violated!("no life in the group after all faults ended: {:?}", self.members);
            }
            self.step()?;
        }
        self.world.finish()?;
        self.keep_desks()?;
        self.check_end()
    }

    /// The world goes on for a while, then desks and members look at it.
    fn step(&mut self) -> Result<(), Violation> {
        self.world.run_until(self.world.now() + SLICE)?;
        self.keep_desks()?;
        for member in 0..self.members.len() {
            self.ask(member)?;
        }
        Ok(())
    }

    /// Every replica that takes part has a desk, which looks at what may have moved.
    fn keep_desks(&mut self) -> Result<(), Violation> {
        let lives = self.world.lives(GROUP);
        let lives: Vec<_> = lives.into_iter().map(|(node, id, _)| (node, id)).collect();
        self.desks.retain(|id, desk| {
            let boot = boot_of(&self.world, desk.node);
            lives.contains(&(desk.node, *id)) && boot == Some(desk.boot)
        });
        for (node, id) in lives {
            let Some(boot) = boot_of(&self.world, node) else { continue };
            self.desks.entry(id).or_insert_with(|| Desk::new(node, boot, self.rng.random()));
            self.at_desk(id, Desk::turn)?;
        }
        Ok(())
    }

    /// One event at a desk. What it answers leaves at the end of the event, and not at all if the
    /// power failed within it.
    fn at_desk(
        &mut self,
        id: ReplicaId,
        event: impl FnOnce(&mut Desk, ReplicaId, &mut World, &mut Replies<GroupShard>, &mut Coverage),
    ) -> Result<(), Violation> {
        let Some(mut desk) = self.desks.remove(&id) else { return Ok(()) };
        let mut replies = Vec::new();
        event(&mut desk, id, &mut self.world, &mut replies, &mut self.coverage);
        self.world.end_event()?;
        if boot_of(&self.world, desk.node) != Some(desk.boot) {
            return Ok(());
        }
        let epoch = desk.seat.epoch();
        self.desks.insert(id, desk);
        for (token, response) in replies {
            self.answer(token, response, epoch)?;
        }
        Ok(())
    }

    fn answer(
        &mut self,
        token: Token,
        response: GroupResponse,
        epoch: Option<LeaderEpoch>,
    ) -> Result<(), Violation> {
        let Some(member) = self.waiting.remove(&token) else { return Ok(()) };
        if self.rng.random_ratio(LOST_PERMILLE, 1000) {
            self.coverage.hit("answer lost");
            return Ok(());
        }
        let is_newest = epoch.is_some_and(|epoch| self.world.truths[GROUP].is_newest(epoch));
        if epoch.is_some() && !is_newest {
            self.coverage.hit("answer of a deposed coordinator");
        }
        let now = now(&self.world);
        let Self { members, promises, coverage, .. } = self;
        members[member].hear(token, response, is_newest, now, promises, coverage)
    }

    /// A member says what it has to say, if anything, to the coordinator that it knows.
    fn ask(&mut self, member: usize) -> Result<(), Violation> {
        let leading: Vec<ReplicaId> = {
            let desks = self.desks.iter().filter(|(_, desk)| desk.seat.epoch().is_some());
            desks.map(|(id, _)| *id).collect()
        };
        let now = now(&self.world);
        let newest = self.world.leader(GROUP).map(|(_, id, _)| id);
        let found = if self.rng.random_ratio(1, 10) {
            // Whoever thinks that it leads.
            let pick = self.rng.random_range(0..leading.len().max(1));
            leading.get(pick).copied()
        } else {
            newest.filter(|id| leading.contains(id))
        };
        let this = &mut self.members[member];
        if let Some(token) = this.give_up(now) {
            self.coverage.hit("request timed out");
            self.waiting.remove(&token);
            let desks: Vec<ReplicaId> = self.desks.keys().copied().collect();
            for id in desks {
                // Its connections end with the wait; tokens are never used again.
                self.at_desk(id, |desk, _, _, _, _| desk.seat.cancel(token))?;
            }
            return Ok(());
        }
        let Some(Said { desk, request }) = this.speak(now, found, &mut self.rng) else {
            return Ok(());
        };
        self.next_token += 1;
        let token = Token(self.next_token);
        this.wait(token, now, &self.promises);
        if let GroupRequest::OffsetCommit(commit) = &request {
            self.promises.attempt(commit);
        }
        self.waiting.insert(token, member);
        if self.rng.random_ratio(LOST_PERMILLE, 1000) {
            self.coverage.hit("request lost");
            return Ok(());
        }
        if !leading.contains(&desk) {
            let refused = GroupResponse::Failed(ErrorCode::NotCoordinator);
            return self.answer(token, refused, None);
        }
        self.at_desk(desk, |desk, id, world, replies, _| {
            let Desk { node, seat, placed, .. } = desk;
            let mut log = DeskLog { world, node: *node, id, placed };
            seat.handle(token, request, now, &mut log, replies);
        })
    }

    /// All replicas hold the same groups, and those what was promised.
    fn check_end(&mut self) -> Result<(), Violation> {
        let mut first: Option<(ReplicaId, Vec<GroupRecord>)> = None;
        for (_, id, live) in self.world.lives(GROUP) {
            let Some(log) = live.replica.log() else { violated!("replica {id} has no log") };
            let mut shard = GroupShard::new(config(), 0);
            let view = log.view().read();
            if let Err(error) = replay_all(&view, Offset::ZERO, |key, value| {
                if let Ok(Some(record)) = GroupRecord::decode(key, value) {
                    shard.apply_committed(record);
                }
            }) {
                violated!("replica {id} cannot be replayed: {error}");
            }
            let records: Vec<_> = shard.iter_committed().collect();
            self.promises.check(&shard)?;
            match &first {
                None => first = Some((id, records)),
                Some((other, known)) if *known != records => {
                    violated!("replicas {other} and {id} hold different groups");
                }
                Some(_) => {}
            }
            // A desk that kept up holds what a new one reads.
            let Some(desk) = self.desks.get(&id) else { continue };
            if desk.seat.applied() == view.high_watermark || desk.is_settled() {
                let kept: Vec<_> = desk.seat.shard().iter_committed().collect();
                if first.as_ref().is_some_and(|(_, known)| *known != kept) {
                    violated!("the desk of replica {id} holds other groups than its log");
                }
                self.coverage.hit("desk compared with its log");
            }
        }
        Ok(())
    }
}

impl Desk {
    fn new(node: NodeId, boot: u64, seed: u64) -> Self {
        let seat = Seat::new(GroupShard::new(config(), seed));
        Self { node, boot, seat, placed: VecDeque::new() }
    }

    /// One look at everything that may have moved.
    fn turn(
        &mut self,
        id: ReplicaId,
        world: &mut World,
        replies: &mut Replies<GroupShard>,
        coverage: &mut Coverage,
    ) {
        let now = now(world);
        while let Some(front) = self.placed.front() {
            let log = world.live(id).and_then(|live| live.replica.log());
            let Some(log) = log.filter(|log| log.committed() >= front.index) else { break };
            if log.epoch_at(front.index) != Some(front.epoch) {
                coverage.hit("append of a coordinator lost");
                self.lose(replies);
                break;
            }
            self.placed.pop_front();
            let mut log = DeskLog { world, node: self.node, id, placed: &mut self.placed };
            self.seat.on_committed(now, &mut log, replies);
        }
        let Some(live) = world.live(id) else { return };
        let leading = live.replica.leading();
        if self.seat.epoch().is_some() && self.seat.epoch() != leading {
            coverage.hit("coordinator deposed");
            self.lose(replies);
        }
        if self.seat.epoch().is_some() {
            if self.seat.next_deadline().is_some_and(|due| due <= now) {
                let mut log = DeskLog { world, node: self.node, id, placed: &mut self.placed };
                self.seat.on_time(now, &mut log, replies);
            }
            return;
        }
        let Some(view) = live.replica.log().map(|log| log.view().read()) else { return };
        let is_confirmed = live.replica.group().is_some_and(PartitionGroup::is_confirmed);
        let seat = &mut self.seat;
        match replay_all(&view, seat.applied(), |key, value| seat.replay(key, value)) {
            Ok(end) => seat.advance(end.max(view.high_watermark)),
            // A disk that fails; the next turn reads again, from the same offset.
            Err(_) => return coverage.hit("replay failed"),
        }
        if let Some(epoch) = leading.filter(|_| is_confirmed) {
            coverage.hit("coordinator elected");
            let mut log = DeskLog { world, node: self.node, id, placed: &mut self.placed };
            seat.on_elected(epoch, now, &mut log, replies);
        }
    }

    /// It leads, and all that it has appended is committed.
    fn is_settled(&self) -> bool {
        self.seat.epoch().is_some() && self.placed.is_empty()
    }

    fn lose(&mut self, replies: &mut Replies<GroupShard>) {
        self.placed.clear();
        self.seat.on_lost(replies);
    }
}

/// A replica, as a desk appends to it.
struct DeskLog<'a> {
    world: &'a mut World,
    node: NodeId,
    id: ReplicaId,
    placed: &'a mut VecDeque<Placed>,
}

impl Log for DeskLog<'_> {
    fn append(
        &mut self,
        epoch: LeaderEpoch,
        batch: &Validated,
        now: Timestamp,
    ) -> Result<Offset, ErrorCode> {
        let Self { world, node, id, placed } = self;
        if world.live(*id).and_then(|live| live.replica.leading()) != Some(epoch) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let appended = world.drive(*node, *id, |replica, output| {
            replica.append(&batch.batch, &batch.header, now, output)
        });
        match appended {
            Some(Ok(done)) => {
                placed.push_back(done);
                Ok(done.base_offset + i64::from(batch.header.record_count))
            }
            Some(Err(refused)) => Err(refused.code()),
            None => Err(ErrorCode::NotLeaderOrFollower),
        }
    }
}

/// Visits every committed record from an offset on. Answers the offset after the last.
fn replay_all(
    view: &ReadView,
    from: Offset,
    mut visit: impl FnMut(&[u8], Option<&[u8]>),
) -> Result<Offset, replay::ReplayError> {
    let mut at = from;
    loop {
        let chunk = replay::next_chunk(view, at)?;
        if chunk.is_empty() {
            return Ok(at);
        }
        for batches in chunk {
            at = replay::each_record(&batches, at, &mut visit)?;
        }
    }
}

fn boot_of(world: &World, node: NodeId) -> Option<u64> {
    world.machines[node].broker.as_ref().map(|broker| broker.boot)
}

fn now(world: &World) -> Timestamp {
    Timestamp((world.now() / MICROS_PER_MS) as i64)
}

fn config() -> GroupConfig {
    GroupConfig {
        min_session_timeout_ms: 1,
        initial_rebalance_delay_ms: 50,
        ..GroupConfig::default()
    }
}
