//! The stage of a story: one world, and what each command does to it.

use std::collections::BTreeSet;

use vltava::replica::group::PartitionGroup;
use vltava_protocol::ids::Offset;
use vltava_storage::disk::sim::{Failed, Fault};
use vltava_storage::log::{Durability, PartitionLog};

use super::line::Command;
use super::struck::Fate;
use super::view;
use crate::checker::Violation;
use crate::coverage::Coverage;
use crate::network::{NodeId, Time};
use crate::workload::Acks;
use crate::world::hands::{GROUP, Seen};
use crate::world::{Setup, TICK, World};

/// How long a command waits for what follows from it.
const MOMENT: Time = 20 * TICK;
/// A cluster is at rest when nothing changed for so long.
const REST: Time = 60 * TICK;
/// A cluster comes to rest within this time, or the story shows that it does not.
const REST_MAX: Time = 2000 * TICK;
/// Candidacies that `elect` tries: more than the ticks of a leader's lease.
const CANDIDACIES_MAX: usize = 25;
/// How long a message may take to be sent.
const UNTIL_MAX: Time = 500 * TICK;
/// How long a machine is without power where a story is cut anywhere.
const DARK: Time = 3 * TICK;
/// How long a disk is full where a story meets that anywhere: longer than a command waits.
const FULL: Time = 30 * TICK;
const NODES_MAX: usize = 9;

type Answers = Result<Vec<String>, String>;

/// A node's name in a story.
pub(super) fn number(node: NodeId) -> usize {
    node + 1
}

/// See the module.
#[derive(Default)]
pub(super) struct Stage {
    world: Option<World>,
    /// What happens in this telling, and at which disk operation, where the story asks for it.
    fate: Option<(Fate, u64)>,
    /// To whom.
    victim: Option<NodeId>,
    /// What clients were told after it happened.
    refusals: BTreeSet<String>,
}

impl Stage {
    pub(super) fn with_fate(fate: Fate, op: u64) -> Self {
        Self { fate: Some((fate, op)), ..Self::default() }
    }

    /// Whether fate struck.
    pub(super) fn was_struck(&self) -> bool {
        let cuts = self.coverage().count("power cut between two disk operations");
        cuts > 0 || !self.failed().is_empty()
    }

    /// What the disk that fate struck refused.
    pub(super) fn failed(&self) -> Vec<Failed> {
        match (&self.world, self.victim, self.fate) {
            (_, _, None | Some((Fate::PowerCut, _))) => Vec::new(),
            (Some(world), Some(node), _) => world.failed_on(node),
            _ => Vec::new(),
        }
    }

    /// What clients were told after it happened.
    pub(super) fn refusals(&self) -> &BTreeSet<String> {
        &self.refusals
    }

    /// What the world went through.
    pub(super) fn coverage(&self) -> Coverage {
        self.world.as_ref().map(|world| world.coverage.clone()).unwrap_or_default()
    }

    pub(super) fn describe(&self) -> String {
        self.world.as_ref().map(|world| world.describe(GROUP)).unwrap_or_default()
    }

    /// All faults end; what must hold then holds.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        let (was_struck, is_cut) =
            (self.was_struck(), matches!(self.fate, Some((Fate::PowerCut, _))));
        let Some(world) = &mut self.world else { return Err("a story has a cluster".to_owned()) };
        if let Some(node) = self.victim {
            if is_cut && !was_struck && !world.awaits_power_cut(node) {
                return Err("it went down in another way before its power was cut".to_owned());
            }
            // Where the story itself had no more operations, this is the telling without any fate.
            world.forget_power_cut(node);
            world.forget_fault(node);
        }
        world.set_clocks(true);
        wait(world)?;
        world.clients_give_up();
        held(world.finish())
    }

    pub(super) fn perform(&mut self, command: &Command) -> Answers {
        if command.name == "cluster" {
            return self.cluster(command);
        }
        let was_struck = self.was_struck();
        let Some(world) = &mut self.world else {
            return Err("a story begins with a cluster".to_owned());
        };
        world.trace = Some(Vec::new());
        let node = |at: usize| node_of(world, command, at);
        match command.name.as_str() {
            name if Fate::all_of(name).is_some() => {
                let (node, seed) = (node(0)?, world.setup.seed);
                match self.fate {
                    Some((Fate::PowerCut, op)) => world.cut_power_at(node, op, seed, DARK),
                    Some((fate, op)) => world.plan_fault(node, fate.plan(op), FULL),
                    None => {}
                }
                self.victim = Some(node);
                Ok(vec![])
            }
            "expect" if was_struck => Ok(vec![]),
            "expect" => expect(world, command),
            "show" => Ok(view::nodes(world)),
            "log" => {
                let node = node(0)?;
                Ok(vec![view::entries(&world.entries_of(node))])
            }
            "produce" => {
                let answers = produce(world, node(0)?, command)?;
                if self.victim.is_some() {
                    let refusals = answers.iter().filter_map(|told| told.strip_prefix("refused: "));
                    self.refusals.extend(refusals.map(str::to_owned));
                }
                Ok(answers)
            }
            "read" => read(world, node(0)?, command),
            "retain" => retain(world, command),
            "elect" => elect(world, node(0)?),
            "campaign" => campaign(world, node(0)?),
            "transfer" => transfer(world, node(0)?, command),
            "stabilize" if command.has("quiet") => stabilize(world).map(|_| vec![]),
            "stabilize" => stabilize(world),
            "losses" => Ok(vec![format!("acknowledged batches lost: {}", world.acked_lost())]),
            "tick" => tick(world, command),
            "wait" => wait(world).map(|()| vec![]),
            "until" => until(world, command),
            "add" | "remove" => retarget(world, node(0)?, command.name == "add"),
            "durability" => {
                world.set_durability(durability_of(command.word(0)?)?);
                Ok(vec![])
            }
            _ => fate(world, command),
        }
    }

    fn cluster(&mut self, command: &Command) -> Answers {
        let replicas: usize = command.word(0)?.parse().map_err(|_| "how many nodes?".to_owned())?;
        let nodes = replicas + command.option("spare", 0)?;
        if !(1..=NODES_MAX).contains(&replicas) || nodes > NODES_MAX {
            return Err(format!("from 1 to {NODES_MAX} nodes"));
        }
        let durability = command.options.get("durability");
        let durability = durability.map_or(Ok(Durability::Fsync), |name| durability_of(name))?;
        let mut world = World::new(Setup {
            nodes,
            groups: vec![((0..replicas).collect(), durability)],
            segment_bytes: command.option("segment", 4000)?,
            wal_bytes: 16_384,
            append_bytes_max: 1 << 20,
            write_bytes_max: 4096,
            seed: command.option("seed", 1)?,
        });
        world.trace = Some(Vec::new());
        world.set_clocks(false);
        hold(world.run_until(MOMENT))?;
        for node in 0..nodes {
            hold(world.tick_once(node))?;
        }
        hold(world.run_until(world.now() + MOMENT))?;
        let answers = elect(&mut world, 0)?;
        self.world = Some(world);
        Ok(answers)
    }
}

fn hold(result: Result<(), Violation>) -> Answers {
    result.map(|()| Vec::new()).map_err(|violation| format!("violated: {violation}"))
}

fn held<T>(result: Result<T, Violation>) -> Result<T, String> {
    result.map_err(|violation| format!("violated: {violation}"))
}

fn node_of(world: &World, command: &Command, at: usize) -> Result<NodeId, String> {
    let word = command.word(at)?;
    let known = 1..=world.machines.len();
    let named = word.parse().ok().filter(|number| known.contains(number));
    named.map(|number: usize| number - 1).ok_or_else(|| format!("there is no node {word}"))
}

/// The links of `command A B`, which are both, or of `command A>B`.
fn links_of(world: &World, command: &Command) -> Result<Vec<(NodeId, NodeId)>, String> {
    let is_node = |node: &NodeId| *node < world.machines.len();
    if let Some(link) = link_of(command.word(0)?) {
        let link = Some(link).filter(|(from, to)| is_node(from) && is_node(to));
        return link.map(|link| vec![link]).ok_or_else(|| "there is no such link".to_owned());
    }
    let (one, two) = (node_of(world, command, 0)?, node_of(world, command, 1)?);
    Ok(vec![(one, two), (two, one)])
}

/// `1>3`: the link from the first node to the third.
fn link_of(word: &str) -> Option<(NodeId, NodeId)> {
    let (from, to) = word.split_once('>')?;
    Some((from.parse::<usize>().ok()?.checked_sub(1)?, to.parse::<usize>().ok()?.checked_sub(1)?))
}

/// The nodes of `command N` or `command all`.
fn nodes_of(world: &World, command: &Command) -> Result<Vec<NodeId>, String> {
    if command.has("all") {
        return Ok((0..world.machines.len()).collect());
    }
    Ok(vec![node_of(world, command, 0)?])
}

/// Waits a moment for what follows from a command.
fn wait(world: &mut World) -> Result<(), String> {
    held(world.run_until(world.now() + MOMENT))
}

fn is_reachable(world: &World, from: NodeId, to: NodeId) -> bool {
    !world.network.is_cut(from, to) && !world.network.is_cut(to, from)
}

fn leads(world: &World, node: NodeId) -> bool {
    world.leader(GROUP).is_some_and(|(leader, ..)| leader == node)
}

fn produce(world: &mut World, node: NodeId, command: &Command) -> Answers {
    let acks = match command.option("acks", "all".to_owned())?.as_str() {
        "all" => Acks::All,
        "1" => Acks::Leader,
        other => return Err(format!("acks={other} is no such value")),
    };
    let (records, size) = (command.need("records")?, command.option("size", 10)?);
    let mut answers = Vec::new();
    for _ in 0..command.option("batches", 1)? {
        let answer = match held(world.produce_once(node, acks, records, size))? {
            Err(reason) => format!("refused: {reason}"),
            Ok((producer, base_offset)) => {
                if !command.has("nowait") {
                    wait(world)?;
                }
                if world.was_answered(producer) {
                    format!(
                        "base_offset={base_offset} high_watermark={}",
                        view::high_watermark(world, node)
                    )
                } else {
                    format!("base_offset={base_offset} pending")
                }
            }
        };
        answers.push(answer);
    }
    // Of many batches the last one tells enough.
    Ok(answers.split_off(answers.len().saturating_sub(1)))
}

fn read(world: &mut World, node: NodeId, command: &Command) -> Answers {
    let from = Offset(command.need("from")?);
    Ok(vec![match held(world.read_from(node, from))? {
        Ok((first, next, end)) if first < next => format!("[{first},{next}) high_watermark={end}"),
        Ok((.., end)) => format!("nothing high_watermark={end}"),
        Err(reason) => format!("refused: {reason}"),
    }])
}

fn retain(world: &mut World, command: &Command) -> Answers {
    let offset = Offset(command.need("offset")?);
    if let Err(reason) = held(world.retain_from(offset))? {
        return Ok(vec![format!("refused: {reason}")]);
    }
    if command.has("nowait") {
        return Ok(vec!["pending".to_owned()]);
    }
    wait(world)?;
    let leader = world.leader(GROUP).and_then(|(node, ..)| view::log_of(world, node));
    let start = leader.map_or(Offset::ZERO, |log| log.state().log_start.offset);
    Ok(vec![format!("log_start={start}")])
}

/// A node asks for votes until `is_enough`. Meanwhile the others wait for the old leader until its
/// lease is over, and no tick longer.
fn ask_for_votes(
    world: &mut World,
    node: NodeId,
    is_enough: impl Fn(&World) -> bool,
) -> Result<bool, String> {
    for _ in 0..CANDIDACIES_MAX {
        if is_enough(world) {
            break;
        }
        held(world.campaign_on(node))?;
        if held(world.run_until_seen(3 * TICK, |world| is_enough(world)))? {
            break;
        }
        for other in 0..world.machines.len() {
            if other != node && is_reachable(world, node, other) {
                held(world.tick_replica(other))?;
            }
        }
    }
    Ok(is_enough(world))
}

/// A node becomes the candidate of an epoch that nobody has heard of; nobody has voted yet.
fn campaign(world: &mut World, node: NodeId) -> Answers {
    let term = |world: &World, node| {
        let group = world.replica_on(node).and_then(|(_, live)| live.replica.group());
        group.map_or(0, PartitionGroup::term)
    };
    let newest = (0..world.machines.len()).map(|node| term(world, node)).max().unwrap_or(0);
    let is_candidate = ask_for_votes(world, node, |world| term(world, node) > newest)?;
    let answer = if is_candidate {
        format!("candidate={} epoch={}", number(node), term(world, node))
    } else {
        "no majority would vote for it".to_owned()
    };
    world.trace = Some(Vec::new());
    Ok(vec![answer])
}

fn elect(world: &mut World, node: NodeId) -> Answers {
    let leader = world.leader(GROUP).map(|(leader, ..)| leader);
    if leader.is_some_and(|leader| leader != node && is_reachable(world, leader, node)) {
        held(world.transfer_to_node(node))?;
        wait(world)?;
    }
    let is_elected = ask_for_votes(world, node, |world| leads(world, node))?;
    wait(world)?;
    let Some((leader, _, epoch)) = world.leader(GROUP).filter(|_| is_elected) else {
        return Ok(vec![format!("node {} does not lead", number(node))]);
    };
    let end = view::log_of(world, leader).map_or(Offset::ZERO, PartitionLog::end_offset);
    Ok(vec![format!("leader={} epoch={epoch} end_offset={end}", number(leader))])
}

fn transfer(world: &mut World, node: NodeId, command: &Command) -> Answers {
    held(world.transfer_to_node(node))?;
    if command.has("nowait") {
        return Ok(vec!["pending".to_owned()]);
    }
    wait(world)?;
    Ok(vec![view::leader(world)])
}

fn logs(world: &World) -> Vec<Vec<Seen>> {
    (0..world.machines.len()).map(|node| world.entries_of(node)).collect()
}

fn stabilize(world: &mut World) -> Answers {
    let before = logs(world);
    world.set_clocks(true);
    let deadline = world.now() + REST_MAX;
    let mut state = world.describe(GROUP);
    let mut since = world.now();
    while world.now() < since + REST && world.now() < deadline {
        held(world.run_until(world.now() + TICK))?;
        let now = world.describe(GROUP);
        if now != state {
            state = now;
            since = world.now();
        }
    }
    world.set_clocks(false);
    let mut answers = vec![view::leader(world)];
    let losses = world.trace.iter().flatten().filter(|line| line.contains("announces a loss"));
    answers.extend(losses.map(|line| {
        line.trim_start_matches(|letter: char| letter == ' ' || letter.is_ascii_digit()).to_owned()
    }));
    for (node, before) in before.iter().enumerate() {
        if let Some(truncated) = view::truncated(before, &world.entries_of(node)) {
            let end = view::log_of(world, node).map_or(Offset::ZERO, PartitionLog::end_offset);
            answers.push(format!("node {}: end_offset={end} {truncated}", number(node)));
        }
    }
    Ok(answers)
}

fn tick(world: &mut World, command: &Command) -> Answers {
    let ticks: Time = command.word(0)?.parse().map_err(|_| "how many ticks?".to_owned())?;
    world.set_clocks(true);
    held(world.run_until(world.now() + ticks * TICK))?;
    world.set_clocks(false);
    Ok(vec![])
}

/// `until Chunk 1>3`: such a message leaves node 1 for node 3; of several links, on each one.
fn until(world: &mut World, command: &Command) -> Answers {
    let kind = command.word(0)?.to_owned();
    let mut links = Vec::new();
    for word in command.words.iter().skip(1).filter(|word| *word != "ticking") {
        let link = link_of(word).ok_or_else(|| format!("{word} is no link such as 1>3"))?;
        links.push(format!("{}>{}", link.0, link.1));
    }
    let are_sent = |world: &mut World| {
        links.iter().all(|link| {
            let trace = world.trace.iter().flatten();
            let mut words = trace.map(|line| line.split_whitespace().skip(1));
            words.any(|mut words| words.next() == Some(link) && words.nth(2) == Some(&kind))
        })
    };
    world.set_clocks(command.has("ticking"));
    let are_sent = held(world.run_until_seen(UNTIL_MAX, are_sent))?;
    world.set_clocks(false);
    if are_sent { Ok(vec![]) } else { Err(format!("no {kind} is sent")) }
}

fn durability_of(name: &str) -> Result<Durability, String> {
    match name {
        "fsync" => Ok(Durability::Fsync),
        "page-cache" => Ok(Durability::PageCache),
        other => Err(format!("{other} is no such durability")),
    }
}

fn retarget(world: &mut World, node: NodeId, is_added: bool) -> Answers {
    let mut nodes = world.target_nodes();
    nodes.retain(|known| *known != node);
    if is_added {
        nodes.push(node);
    }
    if nodes.is_empty() {
        return Err("a partition keeps at least one replica".to_owned());
    }
    world.retarget_to(&nodes);
    Ok(vec![])
}

/// What happens to links, machines and disks.
fn fate(world: &mut World, command: &Command) -> Answers {
    let others = |node: NodeId| (0..world.machines.len()).filter(move |other| *other != node);
    match command.name.as_str() {
        "heal" => world.network.heal(),
        "partition-off" => {
            let node = node_of(world, command, 0)?;
            for other in others(node) {
                world.network.cut(node, other);
                world.network.cut(other, node);
            }
        }
        "cut" | "join" => {
            for (from, to) in links_of(world, command)? {
                match command.name.as_str() {
                    "cut" => world.network.cut(from, to),
                    _ => world.network.join(from, to),
                }
            }
        }
        "crash" => {
            for node in nodes_of(world, command)? {
                world.crash(node, crate::world::hands::NEVER);
            }
        }
        "power-cut" => {
            let nodes = nodes_of(world, command)?;
            let seed = command.option("seed", world.setup.seed)?;
            if !world.cut_power(&nodes, seed) {
                return Err("a voter of this page-cache log is dead: who could tell?".to_owned());
            }
        }
        "restart" => {
            let nodes = nodes_of(world, command)?;
            for node in &nodes {
                world.start(*node);
            }
            wait(world)?;
            return Ok(nodes.into_iter().map(|node| view::one_node(world, node)).collect());
        }
        _ => return disk(world, command),
    }
    Ok(vec![])
}

fn disk(world: &mut World, command: &Command) -> Answers {
    let node = node_of(world, command, 0)?;
    match command.name.as_str() {
        "wipe" => world.wipe(node, crate::world::hands::NEVER),
        "damage" => {
            let position = command.option("position", 100)?;
            let segment = command.option("segment", usize::MAX)?;
            let damaged = world.damage_node(node, segment, position);
            return Ok(vec![damaged.ok_or("nothing on this node is durable")?]);
        }
        "fail-disk" => {
            let fault = match command.word(1)? {
                "eio" => Fault::Io,
                "enospc" => Fault::Full,
                other => return Err(format!("{other} is no such fault")),
            };
            world.fail_disk(node, command.option("after", 0)?, fault);
        }
        "stall-disk" => world.stall_disk(node, true),
        "resume-disk" => world.stall_disk(node, false),
        "fill-disk" => world.fill_disk(node, command.option("spare", 0)?),
        "heal-disk" => world.heal_disk(node),
        other => return Err(format!("there is no command {other}")),
    }
    Ok(vec![])
}

/// Compares what is said with the leader, or with the node that is named.
fn expect(world: &mut World, command: &Command) -> Answers {
    let leader = world.leader(GROUP);
    let node: Option<NodeId> = match command.options.get("node") {
        Some(_) => Some(command.need::<usize>("node")?.wrapping_sub(1)),
        None => leader.map(|(node, ..)| node),
    };
    let log = node.and_then(|node| view::log_of(world, node));
    for (key, expected) in command.options.iter().filter(|(key, _)| *key != "node") {
        let found = match key.as_str() {
            "leader" => leader.map_or("none".into(), |(node, ..)| number(node).to_string()),
            "epoch" => leader.map_or("none".into(), |(.., epoch)| epoch.to_string()),
            "high_watermark" => log.map_or("none".into(), |log| log.high_watermark().to_string()),
            "end_offset" => log.map_or("none".into(), |log| log.end_offset().to_string()),
            "log_start" => {
                log.map_or("none".into(), |log| log.state().log_start.offset.to_string())
            }
            "acked_lost" => world.acked_lost().to_string(),
            other => return Err(format!("nothing is known about {other}")),
        };
        if found != *expected {
            return Err(format!("expected {key}={expected}, there is {key}={found}"));
        }
    }
    Ok(vec![])
}
