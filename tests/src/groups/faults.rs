//! What happens to the nodes of a partition of groups: nothing that may lose what is durable on a
//! majority.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{GROUP, NODES};
use crate::network::{Time, Weather};
use crate::plan::Action;
use crate::world::TICK;

/// Faults of one history, at most.
const FAULTS_MAX: usize = 30;

/// The faults of a seed, until `length`.
pub(super) fn plan(seed: u64, length: Time) -> Vec<(Time, Action)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = rng.random_range(5..=FAULTS_MAX);
    let mut plan: Vec<_> =
        (0..count).map(|_| (rng.random_range(0..length), action(&mut rng))).collect();
    plan.sort_by_key(|(at, _)| *at);
    plan
}

fn action(rng: &mut ChaCha8Rng) -> Action {
    let node = rng.random_range(0..NODES);
    let down = rng.random_range(1..150) * TICK;
    let lasts = rng.random_range(1..250) * TICK;
    let seed = rng.random();
    match rng.random_range(0..14) {
        0 | 1 => Action::Crash { node, down },
        2 | 3 => Action::PowerCut { node, seed, down },
        4 => Action::PowerCutAll { seed, down },
        5 => Action::PowerCutAt { node, ops: rng.random_range(0..20), seed, down },
        6 => Action::Stop { node, seed, down },
        7 | 8 => Action::Isolate { node, lasts },
        9 => {
            let to = (node + rng.random_range(1..NODES)) % NODES;
            Action::Cut { from: node, to, both: rng.random(), lasts }
        }
        10 => {
            let weather = Weather {
                delay_min: 100,
                delay_max: rng.random_range(400..8_000),
                loss_permille: rng.random_range(0..150),
                double_permille: rng.random_range(0..100),
            };
            Action::Weather { weather, lasts }
        }
        11 => Action::SlowDisk { node, delay: rng.random_range(500..30_000), lasts },
        12 => Action::Campaign { group: GROUP, pick: rng.random_range(0..NODES) },
        _ => Action::Transfer { group: GROUP, pick: rng.random_range(0..NODES) },
    }
}
