//! `CreatePartitions`: more partitions for topics that exist
//! (`ReplicationControlManager.createPartitions`).

use std::collections::BTreeMap;

use vltava_protocol::ids::{NodeId, TopicId};

use super::{
    AssignmentError, ControlError, Decision, PARTITIONS_PER_REQUEST_MAX, check_assignment, with_ids,
};
use crate::controller::placement;
use crate::controller::records::MetadataRecord;
use crate::controller::state::{MetadataImage, TopicImage};

/// What a request wants of one topic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MorePartitions {
    /// Its name.
    pub topic: String,
    /// How many partitions it shall have in all.
    pub count: i32,
    /// The nodes of each new partition, if the request chooses them itself.
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// Decides on the topics of one request, each for itself. The answer is the topic's id.
pub fn create_partitions(
    image: &MetadataImage,
    topics: &[MorePartitions],
) -> Vec<Decision<TopicId>> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in topics {
        *counts.entry(&topic.topic).or_default() += 1;
    }
    let mut room = PARTITIONS_PER_REQUEST_MAX;
    let mut image = image.clone();
    let mut decide = |wanted: &MorePartitions| {
        if counts[wanted.topic.as_str()] > 1 {
            return Err(ControlError::Duplicate(wanted.topic.clone()));
        }
        let topic = image.topic(&wanted.topic).cloned();
        let topic = topic.ok_or_else(|| ControlError::UnknownName(wanted.topic.clone()))?;
        let placed = grow(&image, &topic, wanted, room)?;
        room -= placed.len();
        let added = with_ids(&image, placed);
        let record = MetadataRecord::Partitions { id: topic.id, added };
        let applied = image.applied;
        image.apply(applied, record.clone()).expect("the topic exists");
        Ok((Some(record), topic.id))
    };
    topics.iter().map(&mut decide).collect()
}

/// The nodes of the partitions that a topic gets, no more than `room`.
fn grow(
    image: &MetadataImage,
    topic: &TopicImage,
    wanted: &MorePartitions,
    room: usize,
) -> Result<Vec<Vec<NodeId>>, ControlError> {
    let has = topic.partitions.len();
    let count = usize::try_from(wanted.count).unwrap_or(0);
    if count == has {
        return Err(ControlError::HasPartitions(has));
    }
    if count < has {
        let name = wanted.topic.clone();
        return Err(ControlError::Fewer { name, has, wanted: wanted.count });
    }
    let additional = count - has;
    if let Some(given) = wanted.assignments.as_ref().map(Vec::len)
        && given != additional
    {
        return Err(ControlError::AssignmentCount { additional, given });
    }
    if additional > room {
        return Err(ControlError::TooManyAdded);
    }
    let replicas = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
    if let Some(assignments) = &wanted.assignments {
        let check = |nodes: &Vec<NodeId>| check_assignment(&image.brokers, nodes, Some(replicas));
        assignments
            .iter()
            .try_for_each(check)
            .map_err(|error: AssignmentError| error.into())
            .map(|()| assignments.clone())
    } else {
        // Goes on where the topic's partitions were begun, so that leaders stay spread.
        let start = image.next_replica_id.wrapping_add(has as u64);
        let brokers = image.brokers.len();
        placement::place(&image.brokers, additional, replicas, start)
            .ok_or(ControlError::TooFewBrokers { wanted: replicas as i32, brokers })
    }
}
