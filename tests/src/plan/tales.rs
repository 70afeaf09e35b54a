//! Histories that chance alone does not tell: each is about one thing that must not go wrong.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use vltava_storage::log::Durability;

use super::Action;
use crate::network::{NodeId, Time, Weather};
use crate::world::{Setup, TICK};

type Actions = Vec<(Time, Action)>;

/// A lone voter with a learner has a slow disk, and loses power just after it became leader: what it
/// said in a term that it forgets must not have left.
pub(super) fn lonely_leader(
    setup: &mut Setup,
    length: Time,
    actions: &mut Actions,
    rng: &mut ChaCha8Rng,
) {
    let Some(leader) = setup.groups[0].0.first().copied().filter(|_| setup.nodes > 1) else {
        return;
    };
    setup.groups[0].1 = Durability::Fsync;
    let learner = (leader + 1) % setup.nodes;
    actions.retain(|(_, action)| !action.is_fault());
    actions.push((20 * TICK, Action::Retarget { group: 0, nodes: vec![leader] }));
    let mut now = 50 * TICK;
    actions.push((now, Action::KeepLearners { group: 0, lasts: length }));
    actions.push((now, Action::Retarget { group: 0, nodes: vec![leader, learner] }));
    now += 15 * TICK;
    let delay = rng.random_range(2 * TICK..20 * TICK);
    actions.push((now, Action::SlowDisk { node: leader, delay, lasts: length }));
    while now < length {
        now += rng.random_range(10 * TICK..40 * TICK);
        for _ in 0..2 {
            let (seed, down) = (rng.random(), rng.random_range(1..TICK));
            actions.push((now, Action::PowerCut { node: leader, seed, down }));
            now += down + rng.random_range(1..4 * TICK);
        }
    }
}

/// Leaders come and go so fast that entries of many terms are spread unevenly, one message each (the
/// Raft paper's figure 8).
pub(super) fn elections(
    setup: &mut Setup,
    length: Time,
    actions: &mut Actions,
    rng: &mut ChaCha8Rng,
) {
    setup.append_bytes_max = 1;
    actions.retain(|(_, action)| !action.is_fault());
    let delay_min = rng.random_range(100..TICK);
    let delay_max = delay_min + rng.random_range(100..3 * TICK);
    let weather = Weather { delay_min, delay_max, ..Weather::FAIR };
    let mut now = 20 * TICK;
    actions.push((now, Action::Weather { weather, lasts: length }));
    while now < length {
        now += rng.random_range(TICK..15 * TICK);
        let node = rng.random_range(0..setup.nodes);
        let group = rng.random_range(0..setup.groups.len());
        let lasts = rng.random_range(TICK..40 * TICK);
        let action = match rng.random_range(0..6) {
            0..3 => Action::Isolate { node, lasts },
            3 => Action::Crash { node, down: lasts },
            4 => Action::Transfer { group, pick: rng.random_range(0..16) },
            _ => Action::Campaign { group, pick: rng.random_range(0..16) },
        };
        actions.push((now, action));
    }
}

/// Writes fail although all bytes are there, others follow, and the power fails before any of it is
/// durable: what stood there in vain must not be found again.
pub(super) fn burnt_positions(
    setup: &mut Setup,
    length: Time,
    actions: &mut Actions,
    rng: &mut ChaCha8Rng,
) {
    for (_, durability) in &mut setup.groups {
        *durability = Durability::Fsync;
    }
    actions.retain(|(_, action)| !action.is_fault());
    for node in 0..setup.nodes {
        let delay = rng.random_range(2 * TICK..10 * TICK);
        actions.push((40 * TICK, Action::SlowDisk { node, delay, lasts: length }));
    }
    let mut now = 50 * TICK;
    while now < length {
        now += rng.random_range(15 * TICK..40 * TICK);
        let node: NodeId = rng.random_range(0..setup.nodes);
        let ops = rng.random_range(0..2);
        actions.push((now, Action::DiskError { node, ops, written: 256, lasts: None }));
        let seed = rng.random();
        let later = now + rng.random_range(TICK..6 * TICK);
        actions.push((later, Action::PowerCut { node, seed, down: rng.random_range(1..4 * TICK) }));
    }
}
