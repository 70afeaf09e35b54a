//! Who of a group reads which partitions: Kafka's `RangeAssignor` without racks.
//!
//! Topic by topic, the partitions in order are cut into as many runs as members are subscribed; the
//! first runs are one longer where it does not come out even. Any member may be the leader that
//! computes this, so the order of members is Kafka's too (`AbstractPartitionAssignor.MemberInfo`):
//! those with an instance id first, by it; then by member id.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use vltava_protocol::ids::PartitionIndex;

use super::protocol::Partitions;

/// The name under which members agree on it.
pub const RANGE: &str = "range";

/// A member as the leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscriber {
    /// Its id.
    pub member_id: String,
    /// Its lasting name, if it has one (KIP-345).
    pub instance_id: Option<String>,
    /// What it wants to read.
    pub topics: Vec<String>,
}

/// Each member's share, by member id. `counts` is how many partitions each topic has; a topic that
/// is not there yet has none.
pub fn range(
    mut subscribers: Vec<Subscriber>,
    counts: &BTreeMap<String, usize>,
) -> BTreeMap<String, Partitions> {
    subscribers.sort_by(order);
    let mut shares: BTreeMap<String, Partitions> =
        subscribers.iter().map(|one| (one.member_id.clone(), Partitions::new())).collect();
    for (topic, &count) in counts {
        let readers: Vec<&Subscriber> =
            subscribers.iter().filter(|one| one.topics.contains(topic)).collect();
        for (place, reader) in readers.iter().enumerate() {
            let run = run(place, readers.len(), count);
            if !run.is_empty() {
                let share = shares.get_mut(&reader.member_id).expect("every member has a share");
                share.insert(topic.clone(), run);
            }
        }
    }
    shares
}

fn order(a: &Subscriber, b: &Subscriber) -> Ordering {
    match (&a.instance_id, &b.instance_id) {
        (Some(a), Some(b)) => a.cmp(b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.member_id.cmp(&b.member_id),
    }
}

/// The run of the reader at `place` among `readers`.
fn run(place: usize, readers: usize, partitions: usize) -> Vec<PartitionIndex> {
    let (length, longer) = (partitions / readers, partitions % readers);
    let start = place * length + place.min(longer);
    let end = start + length + usize::from(place < longer);
    (start..end).map(|index| PartitionIndex(index as i32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(member_id: &str, instance_id: Option<&str>, topics: &[&str]) -> Subscriber {
        Subscriber {
            member_id: member_id.to_owned(),
            instance_id: instance_id.map(str::to_owned),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        }
    }

    fn check(subscribers: &[Subscriber], counts: &[(&str, usize)], expected: &[(&str, &str)]) {
        let counts = counts.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect();
        let shares = range(subscribers.to_vec(), &counts);
        let shown: Vec<(&str, String)> = shares
            .iter()
            .map(|(member, share)| {
                let parts = share.iter().flat_map(|(topic, partitions)| {
                    partitions.iter().map(move |partition| format!("{topic}{partition}"))
                });
                (member.as_str(), parts.collect::<Vec<_>>().join(" "))
            })
            .collect();
        let shown: Vec<(&str, &str)> = shown.iter().map(|(m, s)| (*m, s.as_str())).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn runs_are_as_kafka_cuts_them() {
        let two = [subscriber("b", None, &["t"]), subscriber("a", None, &["t"])];
        check(&two, &[("t", 3)], &[("a", "t0 t1"), ("b", "t2")]);
        check(&two, &[("t", 1)], &[("a", "t0"), ("b", "")]);
        check(&two, &[], &[("a", ""), ("b", "")]);
        let three = [&two[..], &[subscriber("c", None, &["t"])]].concat();
        check(&three, &[("t", 8)], &[("a", "t0 t1 t2"), ("b", "t3 t4 t5"), ("c", "t6 t7")]);
    }

    #[test]
    fn only_subscribers_of_a_topic_get_of_it() {
        let members = [subscriber("a", None, &["t", "u"]), subscriber("b", None, &["u"])];
        check(&members, &[("t", 2), ("u", 2), ("v", 2)], &[("a", "t0 t1 u0"), ("b", "u1")]);
    }

    #[test]
    fn lasting_members_come_first() {
        let members = [
            subscriber("a", None, &["t"]),
            subscriber("z", Some("1"), &["t"]),
            subscriber("y", Some("2"), &["t"]),
        ];
        check(&members, &[("t", 3)], &[("a", "t2"), ("y", "t1"), ("z", "t0")]);
    }
}
