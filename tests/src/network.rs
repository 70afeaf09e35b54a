//! The simulated network: frames as bytes that are delayed, lost, doubled, reordered and cut off.
//!
//! A link is one direction between two nodes. Frames of a link arrive in order, as TCP's do, except
//! for doubles (a connection that broke and was made again). Every decision comes from the world's
//! generator, so one seed is one history.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::{Rng, RngExt};

use crate::coverage::Coverage;

/// A moment in virtual microseconds.
pub type Time = u64;
/// A node by its number, from 0.
pub type NodeId = usize;

/// How links behave while a fault plan has them so.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Least microseconds on the way.
    pub delay_min: Time,
    /// Most microseconds on the way.
    pub delay_max: Time,
    /// Frames lost, of a thousand.
    pub loss_permille: u32,
    /// Frames that arrive once more, of a thousand.
    pub double_permille: u32,
}

impl Weather {
    /// A good network.
    pub const FAIR: Self =
        Self { delay_min: 100, delay_max: 400, loss_permille: 0, double_permille: 0 };
}

/// All links of a world.
#[derive(Debug)]
pub struct Network {
    weather: Weather,
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// When the last frame of a link arrives: none overtakes it.
    busy_until: BTreeMap<(NodeId, NodeId), Time>,
    hash: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            weather: Weather::FAIR,
            cuts: BTreeSet::new(),
            busy_until: BTreeMap::new(),
            hash: 0xcbf2_9ce4_8422_2325,
        }
    }
}

impl Network {
    /// Changes the weather on all links.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Nothing goes from `from` to `to` any more. The other direction is a link of its own.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
    }

    /// Ends the cut of one link.
    pub fn join(&mut self, from: NodeId, to: NodeId) {
        self.cuts.remove(&(from, to));
    }

    /// Whether a link is cut.
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// All cuts end, and the weather is fair.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.weather = Weather::FAIR;
    }

    /// A hash of every frame that was ever sent, with its time and link.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// When a frame sent now arrives: never, once or twice.
    pub fn send(
        &mut self,
        now: Time,
        (from, to): (NodeId, NodeId),
        frame: &Bytes,
        rng: &mut impl Rng,
        coverage: &mut Coverage,
    ) -> Vec<Time> {
        self.mix(&now.to_be_bytes());
        self.mix(&[from as u8, to as u8]);
        self.mix(frame);
        if self.is_cut(from, to) {
            coverage.hit("frame on a cut link");
            return Vec::new();
        }
        let Weather { delay_min, delay_max, loss_permille, double_permille } = self.weather;
        if rng.random_range(0..1000) < loss_permille {
            coverage.hit("frame lost");
            return Vec::new();
        }
        let busy = self.busy_until.entry((from, to)).or_default();
        let arrival = (now + rng.random_range(delay_min..=delay_max)).max(*busy + 1);
        *busy = arrival;
        let mut arrivals = vec![arrival];
        if rng.random_range(0..1000) < double_permille {
            coverage.hit("frame doubled");
            arrivals.push(arrival + rng.random_range(1..=20 * delay_max));
        }
        arrivals
    }

    fn mix(&mut self, bytes: &[u8]) {
        let crc = u64::from(vltava_protocol::record::batch::crc32c(bytes));
        self.hash = (self.hash ^ crc).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_link_keeps_order_and_a_cut_has_a_direction() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut network = Network::default();
        let mut coverage = Coverage::default();
        let frame = Bytes::from_static(b"frame");
        let mut last = 0;
        for now in 0..1000 {
            let arrivals = network.send(now, (0, 1), &frame, &mut rng, &mut coverage);
            assert!(arrivals[0] > last);
            last = arrivals[0];
        }
        network.cut(0, 1);
        assert!(network.send(0, (0, 1), &frame, &mut rng, &mut coverage).is_empty());
        assert_eq!(network.send(0, (1, 0), &frame, &mut rng, &mut coverage).len(), 1);
        network.set_weather(Weather { loss_permille: 1000, ..Weather::FAIR });
        assert!(network.send(0, (1, 0), &frame, &mut rng, &mut coverage).is_empty());
        network.heal();
        network.set_weather(Weather { double_permille: 1000, ..Weather::FAIR });
        assert_eq!(network.send(0, (0, 1), &frame, &mut rng, &mut coverage).len(), 2);
    }

    #[test]
    fn the_hash_tells_histories_apart() {
        let run = |frame: &'static [u8]| {
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let mut network = Network::default();
            let frame = Bytes::from_static(frame);
            network.send(1, (0, 1), &frame, &mut rng, &mut Coverage::default());
            network.hash()
        };
        assert_eq!(run(b"a"), run(b"a"));
        assert_ne!(run(b"a"), run(b"b"));
    }
}
