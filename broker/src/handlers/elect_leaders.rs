//! `ElectLeaders` (key 43), versions 0-2: makes the preferred replica leader (KIP-460).
//!
//! A partition that has the leader that is asked for needs no election: `ELECTION_NOT_NEEDED`, which
//! is left out where all partitions were asked for. Kinds: 0 the preferred replica, 1 any, even one
//! that lacks records; others are `INVALID_REQUEST`. Where a partition has no leader on this node's
//! word, nothing here may force one: `PREFERRED_LEADER_NOT_AVAILABLE` and
//! `ELIGIBLE_LEADERS_NOT_AVAILABLE` (`ReplicationControlManager.electLeader`). A request that gives
//! no time is answered that the time is over.

use vltava_protocol::ErrorCode;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::{NodeId, PartitionIndex};
use vltava_protocol::messages::elect_leaders_request::TopicPartitions;
use vltava_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use vltava_protocol::messages::{
    ElectLeadersRequest, ElectLeadersResponse, StrBytes, TopicName as WireName,
};

use crate::context::RequestContext;
use crate::controller::state::TopicImage;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::ElectLeaders, 0..=2);

/// The preferred replica is to lead.
const PREFERRED: i8 = 0;
/// Any replica is to lead.
const UNCLEAN: i8 = 1;

/// A code, and what is said about it.
type Verdict = (ErrorCode, Option<String>);

/// Elects leaders.
pub async fn handle(cx: &RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let refusal = if request.timeout_ms <= 0 {
        Some((ErrorCode::RequestTimedOut, None))
    } else if !matches!(request.election_type, PREFERRED | UNCLEAN) {
        let unknown = format!("Unknown election type {}", request.election_type);
        Some((ErrorCode::InvalidRequest, Some(unknown)))
    } else {
        None
    };
    let top = refusal.as_ref().map_or(ErrorCode::None, |(code, _)| *code);
    cx.count(top);
    let results = match &request.topic_partitions {
        Some(topics) => {
            let kind = request.election_type;
            topics.iter().map(|topic| answer_topic(cx, topic, kind, refusal.as_ref())).collect()
        }
        None if refusal.is_some() => Vec::new(),
        None => {
            cx.node.controller.image().topics().map(|topic| whole(cx, topic, &request)).collect()
        }
    };
    let response = ElectLeadersResponse::default().with_replica_election_results(results);
    if cx.api_version >= 1 { response.with_error_code(top.code()) } else { response }
}

/// The answer for the partitions of a topic that the request names.
fn answer_topic(
    cx: &RequestContext,
    asked: &TopicPartitions,
    kind: i8,
    refusal: Option<&Verdict>,
) -> ReplicaElectionResult {
    let image = cx.node.controller.image();
    let topic = image.topic(&asked.topic);
    let answer = |&index: &i32| {
        let verdict = match (refusal, topic) {
            (Some(refusal), _) => refusal.clone(),
            (None, None) => {
                let unknown = format!("No such topic as {}", &*asked.topic);
                (ErrorCode::UnknownTopicOrPartition, Some(unknown))
            }
            (None, Some(topic)) => elect(cx, topic, index, kind),
        };
        cx.count(verdict.0);
        on_the_wire(index, verdict)
    };
    ReplicaElectionResult::default()
        .with_topic(asked.topic.clone())
        .with_partition_result(asked.partitions.iter().map(answer).collect())
}

/// The answer for all partitions of a topic: those that lack the leader that is asked for.
fn whole(
    cx: &RequestContext,
    topic: &TopicImage,
    request: &ElectLeadersRequest,
) -> ReplicaElectionResult {
    let partitions = 0..topic.partitions.len() as i32;
    let results = partitions.filter_map(|index| {
        let verdict = elect(cx, topic, index, request.election_type);
        (verdict.0 != ErrorCode::ElectionNotNeeded).then(|| on_the_wire(index, verdict))
    });
    ReplicaElectionResult::default()
        .with_topic(WireName::from(&topic.name))
        .with_partition_result(results.collect())
}

fn elect(cx: &RequestContext, topic: &TopicImage, index: i32, kind: i8) -> Verdict {
    let Some(partition) = topic.partition(PartitionIndex(index)) else {
        let unknown = format!("No such partition as {}-{index}", topic.name);
        return (ErrorCode::UnknownTopicOrPartition, Some(unknown));
    };
    let local = cx.node.partitions.get_by_id(topic.id, PartitionIndex(index));
    let leader = local.and_then(|local| local.leadership().leader);
    let preferred = partition.replicas.first().map(|&(_, node)| node);
    verdict(leader, preferred, kind)
}

/// What Kafka says where the leader is this one.
fn verdict(leader: Option<NodeId>, preferred: Option<NodeId>, kind: i8) -> Verdict {
    let (code, text) = match (leader, kind) {
        (Some(leader), PREFERRED) if Some(leader) != preferred => {
            (ErrorCode::PreferredLeaderNotAvailable, "The preferred leader was not available.")
        }
        (Some(_), _) => {
            (ErrorCode::ElectionNotNeeded, "Leader election not needed for topic partition.")
        }
        (None, PREFERRED) => {
            (ErrorCode::PreferredLeaderNotAvailable, "The preferred leader was not available.")
        }
        (None, _) => (
            ErrorCode::EligibleLeadersNotAvailable,
            "Eligible topic partition leaders are not available.",
        ),
    };
    (code, Some(text.to_owned()))
}

fn on_the_wire(index: i32, (code, text): Verdict) -> PartitionResult {
    PartitionResult::default()
        .with_partition_id(index)
        .with_error_code(code.code())
        .with_error_message(text.map(StrBytes::from_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leads_decides() {
        use ErrorCode::{
            ElectionNotNeeded, EligibleLeadersNotAvailable, PreferredLeaderNotAvailable,
        };
        let (one, two) = (Some(NodeId(1)), Some(NodeId(2)));
        for (leader, kind, expected) in [
            (one, PREFERRED, ElectionNotNeeded),
            (one, UNCLEAN, ElectionNotNeeded),
            (two, PREFERRED, PreferredLeaderNotAvailable),
            (two, UNCLEAN, ElectionNotNeeded),
            (None, PREFERRED, PreferredLeaderNotAvailable),
            (None, UNCLEAN, EligibleLeadersNotAvailable),
        ] {
            assert_eq!(verdict(leader, one, kind).0, expected, "{leader:?} {kind}");
        }
    }
}
