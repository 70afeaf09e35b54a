//! How far a group is in each partition: what it has committed, and where the log ends.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use vltava_protocol::ids::{Offset, PartitionIndex};

use crate::cli::CommandError;
use crate::client::group::protocol::Partitions;
use crate::client::group::{Committed, GroupDescription, GroupMember};
use crate::client::{Client, ClusterTopic, LATEST};

/// A group's place in a partition that it reads or has committed for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Position {
    pub topic: String,
    pub partition: PartitionIndex,
    pub committed: Option<Committed>,
    /// The end of the log; none if nobody tells, as for a topic that is gone.
    pub end: Option<Offset>,
    /// The member that reads it, by its place in the description.
    pub owner: Option<usize>,
}

impl Position {
    /// Records that are left to read.
    pub(super) fn lag(&self) -> Option<i64> {
        let committed = self.committed.as_ref()?.offset;
        Some((self.end?.0 - committed.0).max(0))
    }

    /// The member that reads it.
    pub(super) fn owner_of<'a>(&self, group: &'a GroupDescription) -> Option<&'a GroupMember> {
        self.owner.map(|place| &group.members[place])
    }

    /// What JSON says of it, but for the member.
    pub(super) fn as_json(&self) -> Value {
        json!({
            "topic": self.topic,
            "partition": self.partition.0,
            "committed": self.committed.as_ref().map(|committed| committed.offset.0),
            "leader_epoch": self.committed.as_ref().map(|committed| committed.leader_epoch),
            "metadata": self.committed.as_ref().map(|committed| committed.metadata.as_str()),
            "end": self.end.map(|end| end.0),
            "lag": self.lag(),
        })
    }
}

/// A number, or `-`.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The topics of some partitions, as the cluster describes them; those that are gone are absent.
pub(super) async fn topics_of(
    client: &mut Client,
    names: impl IntoIterator<Item = &String>,
) -> Result<BTreeMap<String, ClusterTopic>, CommandError> {
    let names: BTreeSet<&str> = names.into_iter().map(String::as_str).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let topics = client.cluster(Some(&names), false).await?.topics.into_iter();
    Ok(topics.filter(|one| one.error == 0).map(|one| (one.name.clone(), one)).collect())
}

/// Where a group is, in order of topics and partitions.
pub(super) async fn positions(
    client: &mut Client,
    group: &GroupDescription,
) -> Result<Vec<Position>, CommandError> {
    let mut committed = client.committed(&group.group, None).await?;
    let mut owners: BTreeMap<(String, PartitionIndex), Option<usize>> =
        committed.keys().map(|place| (place.clone(), None)).collect();
    for (place, member) in group.members.iter().enumerate() {
        for (topic, partitions) in &member.assignment {
            let owned = partitions.iter().map(|index| ((topic.clone(), *index), Some(place)));
            owners.extend(owned);
        }
    }
    let mut wanted = Partitions::new();
    for (topic, partition) in owners.keys() {
        wanted.entry(topic.clone()).or_default().push(*partition);
    }
    let topics = topics_of(client, wanted.keys()).await?;
    let mut ends = BTreeMap::new();
    for (name, partitions) in &wanted {
        let Some(topic) = topics.get(name) else { continue };
        // A partition without leader has no end for now, and must not hide the others.
        let has_leader = |index: &&PartitionIndex| {
            topic.partitions.iter().any(|one| one.index == **index && one.leader.is_some())
        };
        let led: Vec<PartitionIndex> = partitions.iter().filter(has_leader).copied().collect();
        let found = client.list_offsets(topic, &led, LATEST).await?;
        ends.extend(found.into_iter().map(|(index, end)| ((name.clone(), index), end)));
    }
    let position = |(place, owner): ((String, PartitionIndex), Option<usize>)| Position {
        committed: committed.remove(&place),
        end: ends.get(&place).copied(),
        owner,
        topic: place.0,
        partition: place.1,
    };
    Ok(owners.into_iter().map(position).collect())
}
