//! Where replicas go: which nodes a new topic's partitions are put on.
//!
//! Pure and deterministic. Leaders are spread evenly by walking the nodes round; a partition's
//! replicas prefer racks that it is not on yet; the starting node moves on from topic to topic, so
//! that many small topics do not all begin at the same one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vltava_protocol::ids::NodeId;

use super::state::BrokerInfo;

/// Chooses `replicas` nodes for each of `partitions` partitions, the preferred leader first.
/// Returns nothing if there are fewer nodes than that. `start` is any number that differs from
/// topic to topic.
pub fn place(
    brokers: &BTreeMap<NodeId, BrokerInfo>,
    partitions: usize,
    replicas: usize,
    start: u64,
) -> Option<Vec<Vec<NodeId>>> {
    if replicas == 0 || replicas > brokers.len() {
        return None;
    }
    let ring = alternate_racks(brokers);
    let nodes = ring.len();
    let start = (start % nodes as u64) as usize;
    let place = |partition: usize| {
        let leader = (start + partition) % nodes;
        // Each time round, the followers sit one further from the leader: the load of a node that
        // fails is taken over by all others, not by its neighbor.
        let step = 1 + (start + partition / nodes) % (nodes - 1).max(1);
        let followers = (0..nodes - 1).map(|n| (leader + 1 + (step - 1 + n) % (nodes - 1)) % nodes);
        choose(&ring, leader, followers, replicas)
    };
    Some((0..partitions).map(place).collect())
}

/// The nodes so ordered that neighbors are on different racks as long as possible. A node without
/// a rack is a rack of its own.
fn alternate_racks(brokers: &BTreeMap<NodeId, BrokerInfo>) -> Vec<(NodeId, Option<&str>)> {
    let mut racks: BTreeMap<(Option<&str>, Option<NodeId>), VecDeque<NodeId>> = BTreeMap::new();
    for (&node, info) in brokers {
        let rack = info.rack.as_deref();
        racks.entry((rack, rack.is_none().then_some(node))).or_default().push_back(node);
    }
    let mut ring = Vec::with_capacity(brokers.len());
    while ring.len() < brokers.len() {
        for ((rack, _), nodes) in &mut racks {
            ring.extend(nodes.pop_front().map(|node| (node, *rack)));
        }
    }
    ring
}

/// The leader, then the first candidates on fresh racks, then the first of the rest.
fn choose(
    ring: &[(NodeId, Option<&str>)],
    leader: usize,
    followers: impl Iterator<Item = usize> + Clone,
    replicas: usize,
) -> Vec<NodeId> {
    let mut chosen = vec![ring[leader].0];
    let mut racks: BTreeSet<&str> = ring[leader].1.into_iter().collect();
    let mut passed_over = Vec::new();
    for (node, rack) in followers.map(|place| ring[place]) {
        if chosen.len() == replicas {
            return chosen;
        }
        if rack.is_none_or(|rack| racks.insert(rack)) {
            chosen.push(node);
        } else {
            passed_over.push(node);
        }
    }
    let missing = replicas - chosen.len();
    chosen.extend(passed_over.into_iter().take(missing));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(racks: &[Option<&str>]) -> BTreeMap<NodeId, BrokerInfo> {
        let info = |rack: Option<&str>| BrokerInfo {
            host: "h".into(),
            port: 9092,
            rack: rack.map(str::to_owned),
        };
        racks.iter().enumerate().map(|(n, rack)| (NodeId(n as i32 + 1), info(*rack))).collect()
    }

    fn count(placed: &[Vec<NodeId>], of: impl Fn(&[NodeId]) -> &[NodeId]) -> BTreeMap<NodeId, u32> {
        let mut counts = BTreeMap::new();
        for node in placed.iter().flat_map(|replicas| of(replicas)) {
            *counts.entry(*node).or_default() += 1;
        }
        counts
    }

    #[test]
    fn one_node_takes_all() {
        let one = brokers(&[None]);
        assert_eq!(place(&one, 2, 1, 7), Some(vec![vec![NodeId(1)], vec![NodeId(1)]]));
        assert_eq!(place(&one, 2, 2, 7), None);
        assert_eq!(place(&one, 2, 0, 7), None);
        assert_eq!(place(&brokers(&[]), 1, 1, 0), None);
    }

    #[test]
    fn replicas_are_distinct_and_spread_evenly() {
        for nodes in 1..=7_usize {
            let brokers = brokers(&vec![None; nodes]);
            for replicas in 1..=nodes {
                for start in 0..20 {
                    let placed = place(&brokers, nodes * 6, replicas, start).unwrap();
                    for partition in &placed {
                        let distinct: BTreeSet<_> = partition.iter().collect();
                        assert_eq!((partition.len(), distinct.len()), (replicas, replicas));
                    }
                    let leaders = count(&placed, |replicas| &replicas[..1]);
                    assert!(leaders.values().all(|&n| n == 6), "{leaders:?}");
                    let all = count(&placed, |replicas| replicas);
                    assert!(all.values().all(|&n| n as usize == 6 * replicas), "{all:?}");
                }
            }
        }
    }

    #[test]
    fn racks_are_used_before_any_is_used_twice() {
        let racks = [Some("a"), Some("a"), Some("b"), Some("b"), Some("c"), Some("c")];
        let brokers = brokers(&racks);
        for partition in place(&brokers, 60, 3, 5).unwrap() {
            let racks: BTreeSet<_> = partition.iter().map(|node| &brokers[node].rack).collect();
            assert_eq!(racks.len(), 3, "{partition:?}");
        }
        let four = place(&brokers, 6, 4, 0).unwrap();
        assert!(four.iter().all(|partition| partition.len() == 4));
    }
}
