//! Finding the partition a request names, and who leads it.
//!
//! The one place that turns "not here" into wire codes, and that tells newer clients where the
//! leader is (KIP-951), which spares them a Metadata request.

use std::sync::Arc;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, TopicId};

use crate::controller::state::TopicImage;
use crate::node::Node;
use crate::partition::{Leadership, Partition};

/// The local replica of a partition named by its topic's name.
pub fn by_name(
    node: &Node,
    topic: &str,
    partition: PartitionIndex,
) -> Result<Arc<Partition>, ErrorCode> {
    node.partitions.get(topic, partition).ok_or_else(|| {
        let image = node.controller.image();
        absent(image.topic(topic), partition).unwrap_or(ErrorCode::UnknownTopicOrPartition)
    })
}

/// The local replica of a partition named by its topic's id.
pub fn by_id(
    node: &Node,
    topic: TopicId,
    partition: PartitionIndex,
) -> Result<Arc<Partition>, ErrorCode> {
    node.partitions.get_by_id(topic, partition).ok_or_else(|| {
        let image = node.controller.image();
        absent(image.topic_by_id(topic), partition).unwrap_or(ErrorCode::UnknownTopicId)
    })
}

/// Why a partition is not here, if its topic exists: it lies on other nodes, or nowhere.
fn absent(topic: Option<&Arc<TopicImage>>, partition: PartitionIndex) -> Option<ErrorCode> {
    let topic = topic?;
    Some(match topic.partition(partition) {
        Some(_) => ErrorCode::NotLeaderOrFollower,
        None => ErrorCode::UnknownTopicOrPartition,
    })
}

/// Whether this node may answer a client that believes in epoch `believed`: it leads, and in that
/// epoch (`Partition.checkCurrentLeaderEpoch`, which comes before the role).
pub fn check(leadership: &Leadership, believed: LeaderEpoch) -> Result<(), ErrorCode> {
    if leadership.is_offline {
        Err(ErrorCode::KafkaStorageError)
    } else if believed != LeaderEpoch::NONE && believed < leadership.epoch {
        Err(ErrorCode::FencedLeaderEpoch)
    } else if believed != LeaderEpoch::NONE && believed > leadership.epoch {
        Err(ErrorCode::UnknownLeaderEpoch)
    } else if leadership.is_leader {
        Ok(())
    } else {
        Err(ErrorCode::NotLeaderOrFollower)
    }
}

/// Where a client should go instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader, −1 when none is known.
    pub leader: NodeId,
    /// Its epoch.
    pub epoch: LeaderEpoch,
    /// How it is reached, if it is known.
    pub endpoint: Option<Endpoint>,
}

/// Where clients reach a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
    /// Failure domain.
    pub rack: Option<String>,
}

/// Who leads `partition`, as this node knows it.
pub fn hint(node: &Node, partition: &Partition) -> LeaderHint {
    let leadership = partition.leadership();
    let Some(leader) = leadership.leader else {
        return LeaderHint { leader: NodeId(-1), epoch: leadership.epoch, endpoint: None };
    };
    let image = node.controller.image();
    let endpoint = image.brokers.get(&leader).map(|broker| Endpoint {
        host: broker.host.clone(),
        port: broker.port,
        rack: broker.rack.clone(),
    });
    LeaderHint { leader, epoch: leadership.epoch, endpoint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_judged_before_the_role() {
        let at = |is_leader| Leadership {
            epoch: LeaderEpoch(5),
            is_leader,
            confirmed: true,
            ..Leadership::UNKNOWN
        };
        for (believed, is_leader, expected) in [
            (-1, true, Ok(())),
            (5, true, Ok(())),
            (-1, false, Err(ErrorCode::NotLeaderOrFollower)),
            (5, false, Err(ErrorCode::NotLeaderOrFollower)),
            (4, true, Err(ErrorCode::FencedLeaderEpoch)),
            (4, false, Err(ErrorCode::FencedLeaderEpoch)),
            (6, true, Err(ErrorCode::UnknownLeaderEpoch)),
        ] {
            assert_eq!(check(&at(is_leader), LeaderEpoch(believed)), expected, "{believed}");
        }
    }
}
