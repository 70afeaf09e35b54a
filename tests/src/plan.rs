//! What will happen to a world, decided before it begins: so a story that fails can be made shorter
//! by leaving events out.

use std::fmt;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vltava_storage::log::Durability;

use crate::cluster::GroupId;
use crate::network::{NodeId, Time, Weather};
use crate::workload::Acks;
use crate::world::{Setup, TICK, World};

mod tales;

/// Something that clients, operators or fate do. Whom it meets may depend on the moment: `pick`
/// chooses among those that are there.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are the words of `Display` below")]
pub enum Action {
    /// A producer has a new batch.
    Produce { producer: usize, records: i32, value_bytes: usize },
    /// A producer sends an acknowledged batch again.
    Repeat { producer: usize },
    /// A consumer reads from a replica, from a thousandth of its log on.
    Read { group: GroupId, pick: usize, permille: u64, max_bytes: usize },
    /// Records up to a thousandth of the log are deleted.
    DeleteRecords { group: GroupId, permille: u64 },
    /// Leadership is handed over.
    Transfer { group: GroupId, pick: usize },
    /// A replica campaigns out of turn.
    Campaign { group: GroupId, pick: usize },
    /// The group is to live elsewhere.
    Retarget { group: GroupId, nodes: Vec<NodeId> },
    /// The leader promotes nobody for a while.
    KeepLearners { group: GroupId, lasts: Time },
    /// The topic's durability changes.
    Flip { group: GroupId },
    /// The broker dies and starts again.
    Crash { node: NodeId, down: Time },
    /// The machine loses power.
    PowerCut { node: NodeId, seed: u64, down: Time },
    /// All machines lose power.
    PowerCutAll { seed: u64, down: Time },
    /// The machine loses power in the middle of a disk operation.
    PowerCutAt { node: NodeId, ops: u64, seed: u64, down: Time },
    /// The broker is stopped in order, then the machine loses power.
    Stop { node: NodeId, seed: u64, down: Time },
    /// The disk is lost.
    Wipe { node: NodeId, down: Time },
    /// A bit flips on the disk.
    Damage { node: NodeId, seed: u64, down: Time },
    /// A damaged disk is replaced.
    Replace { node: NodeId },
    /// The disk is full but for some bytes.
    DiskFull { node: NodeId, spare: u64, lasts: Time },
    /// A disk operation fails, once or for a while; a failed sync poisons the disk.
    DiskError { node: NodeId, ops: u64, written: u16, lasts: Option<Time> },
    /// Flush rounds take longer.
    SlowDisk { node: NodeId, delay: Time, lasts: Time },
    /// The node's clock is fast or slow.
    Skew { node: NodeId, tick: Time, lasts: Time },
    /// A link is cut.
    Cut { from: NodeId, to: NodeId, both: bool, lasts: Time },
    /// A node is cut off.
    Isolate { node: NodeId, lasts: Time },
    /// All links are bad.
    Weather { weather: Weather, lasts: Time },
}

impl Action {
    /// Whether it is a fault, rather than work.
    pub fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::Produce { .. }
                | Self::Repeat { .. }
                | Self::Read { .. }
                | Self::DeleteRecords { .. }
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A history before it happens.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the world is made of.
    pub setup: Setup,
    /// Who writes where.
    pub producers: Vec<(GroupId, Acks)>,
    /// What happens when.
    pub actions: Vec<(Time, Action)>,
    /// When all faults end.
    pub length: Time,
}

/// How likely each kind of fault is in one history: some have many of one kind, some of none.
struct Taste {
    crash: u32,
    power: u32,
    disk: u32,
    network: u32,
    loss: u32,
    members: u32,
    flips: u32,
    deletes: u32,
}

impl Plan {
    /// The history of a seed.
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let nodes = *[1, 1, 2, 3, 3, 3, 3, 4, 5].choose(&mut rng).expect("not empty");
        let group_count = rng.random_range(1..=3);
        let groups = (0..group_count).map(|_| group(nodes, &mut rng)).collect();
        let mut setup = Setup {
            nodes,
            groups,
            segment_bytes: *[700, 2000, 6000].choose(&mut rng).expect("not empty"),
            wal_bytes: *[2048, 4096, 16_384].choose(&mut rng).expect("not empty"),
            append_bytes_max: *[1, 300, 2000, 1 << 20].choose(&mut rng).expect("not empty"),
            write_bytes_max: *[256, 1024, 65_536].choose(&mut rng).expect("not empty"),
            seed,
        };
        let producers: Vec<_> = (0..group_count * 2)
            .map(|at| (at / 2, if at % 2 == 0 { Acks::All } else { Acks::Leader }))
            .chain((0..group_count).map(|group| (group, Acks::All)))
            .collect();
        let mut taste =
            |most: u32| if rng.random_bool(0.5) { rng.random_range(0..=most) } else { 0 };
        let taste = Taste {
            crash: taste(20),
            power: taste(20),
            disk: taste(20),
            network: taste(40),
            loss: taste(8),
            members: taste(15),
            flips: taste(4),
            deletes: taste(20),
        };
        // Fewer nodes need longer for as many events.
        let stretch = match nodes {
            1 => 6,
            2 => 3,
            _ => 2,
        };
        let length = stretch * rng.random_range(100..250) * TICK;
        let mut actions = Vec::new();
        let mut now = 30 * TICK;
        while now < length {
            now += rng.random_range(100..1500);
            actions.push((now, action(nodes, group_count, producers.len(), &taste, &mut rng)));
        }
        match rng.random_range(0..12) {
            0 => tales::lonely_leader(&mut setup, length, &mut actions, &mut rng),
            1 => tales::elections(&mut setup, length, &mut actions, &mut rng),
            2 => tales::burnt_positions(&mut setup, length, &mut actions, &mut rng),
            _ => {}
        }
        actions.sort_by_key(|(at, _)| *at);
        Self { setup, producers, actions, length }
    }

    /// The world of this plan, before anything happened.
    pub fn world(&self) -> World {
        let mut world = World::new(self.setup.clone());
        for (group, acks) in &self.producers {
            world.add_producer(*group, *acks);
        }
        for (at, action) in &self.actions {
            world.plan(*at, action.clone());
        }
        world
    }
}

fn group(nodes: usize, rng: &mut ChaCha8Rng) -> (Vec<NodeId>, Durability) {
    let durability = if rng.random_bool(0.3) { Durability::PageCache } else { Durability::Fsync };
    (some_nodes(nodes, rng), durability)
}

/// One, three or five nodes, or two.
fn some_nodes(nodes: usize, rng: &mut ChaCha8Rng) -> Vec<NodeId> {
    let wanted = *[1, 2, 3, 3, 3, 3, 5].choose(rng).expect("not empty");
    let mut some: Vec<_> = (0..nodes).collect();
    while some.len() > wanted {
        some.remove(rng.random_range(0..some.len()));
    }
    some
}

fn action(
    nodes: usize,
    groups: usize,
    producers: usize,
    taste: &Taste,
    rng: &mut ChaCha8Rng,
) -> Action {
    let (group, node, pick) =
        (rng.random_range(0..groups), rng.random_range(0..nodes), rng.random_range(0..16));
    let Taste { crash, power, disk, network, loss, members, flips, deletes } = *taste;
    let mut roll = rng
        .random_range(0..100 + crash + power + disk + network + loss + members + flips + deletes);
    let mut is = |weight: u32| {
        let hit = roll < weight;
        roll = roll.wrapping_sub(weight);
        hit
    };
    let is_crash = is(crash);
    let is_power = !is_crash && is(power);
    let is_disk = !is_crash && !is_power && is(disk);
    if is_crash {
        return Action::Crash { node, down: down(rng) };
    }
    if is_power {
        return power_fault(node, rng);
    }
    if is_disk {
        return disk_fault(node, rng);
    }
    if is(network) {
        return network_fault(nodes, node, rng);
    }
    if is(loss) {
        let down = down(rng);
        if rng.random_bool(0.5) {
            return Action::Wipe { node, down };
        }
        return Action::Damage { node, seed: rng.random(), down };
    }
    if is(members) {
        return match rng.random_range(0..3) {
            0 => Action::Transfer { group, pick },
            1 => Action::Campaign { group, pick },
            _ => Action::Retarget { group, nodes: some_nodes(nodes, rng) },
        };
    }
    if is(flips) {
        return Action::Flip { group };
    }
    if is(deletes) {
        return Action::DeleteRecords { group, permille: rng.random_range(0..=1000) };
    }
    work(group, pick, producers, rng)
}

fn work(group: GroupId, pick: usize, producers: usize, rng: &mut ChaCha8Rng) -> Action {
    let producer = rng.random_range(0..producers);
    match rng.random_range(0..20) {
        0 => Action::Repeat { producer },
        1..4 => {
            let permille = rng.random_range(0..=1000);
            Action::Read { group, pick, permille, max_bytes: rng.random_range(1..4000) }
        }
        _ => {
            let records = rng.random_range(1..5);
            let value_bytes = *[0, 10, 50, 50, 200, 800].choose(rng).expect("not empty");
            Action::Produce { producer, records, value_bytes }
        }
    }
}

fn down(rng: &mut ChaCha8Rng) -> Time {
    match rng.random_range(0..3) {
        0 => rng.random_range(1..TICK),
        1 => rng.random_range(TICK..20 * TICK),
        _ => rng.random_range(20 * TICK..80 * TICK),
    }
}

fn lasts(rng: &mut ChaCha8Rng) -> Time {
    rng.random_range(TICK..60 * TICK)
}

fn power_fault(node: NodeId, rng: &mut ChaCha8Rng) -> Action {
    let (seed, down) = (rng.random(), down(rng));
    match rng.random_range(0..8) {
        0..3 => Action::PowerCut { node, seed, down },
        3..6 => Action::PowerCutAt { node, ops: rng.random_range(0..30), seed, down },
        6 => Action::PowerCutAll { seed, down },
        _ => Action::Stop { node, seed, down },
    }
}

fn disk_fault(node: NodeId, rng: &mut ChaCha8Rng) -> Action {
    match rng.random_range(0..8) {
        0..2 => Action::DiskFull { node, spare: rng.random_range(0..2000), lasts: lasts(rng) },
        2..4 => {
            let (ops, written) = (rng.random_range(0..40), written(rng));
            Action::DiskError { node, ops, written, lasts: None }
        }
        4..6 => {
            let (ops, written) = (rng.random_range(0..40), written(rng));
            Action::DiskError { node, ops, written, lasts: Some(lasts(rng)) }
        }
        6 => Action::SlowDisk { node, delay: rng.random_range(500..20 * TICK), lasts: lasts(rng) },
        _ => Action::Skew { node, tick: rng.random_range(TICK / 3..3 * TICK), lasts: lasts(rng) },
    }
}

/// How much of a failing write is there all the same: often nothing, often all.
fn written(rng: &mut ChaCha8Rng) -> u16 {
    match rng.random_range(0..4) {
        0 => 0,
        1 => 256,
        _ => rng.random_range(0..=256),
    }
}

fn network_fault(nodes: usize, node: NodeId, rng: &mut ChaCha8Rng) -> Action {
    let lasts = lasts(rng);
    match rng.random_range(0..8) {
        0..3 if nodes > 1 => {
            let to = (node + rng.random_range(1..nodes)) % nodes;
            Action::Cut { from: node, to, both: rng.random_bool(0.5), lasts }
        }
        3..5 => Action::Isolate { node, lasts },
        _ => {
            let delay_min = rng.random_range(50..500);
            let weather = Weather {
                delay_min,
                delay_max: delay_min + rng.random_range(100..10 * TICK),
                loss_permille: rng.random_range(0..200),
                double_permille: rng.random_range(0..200),
            };
            Action::Weather { weather, lasts }
        }
    }
}
