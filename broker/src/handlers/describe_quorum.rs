//! `DescribeQuorum` (key 55), versions 0-2: the group that holds the cluster's metadata (KIP-836).
//!
//! Kafka calls its log `__cluster_metadata`, partition 0; here it is that of group 0. A request for
//! anything else, or for more than that, is `UNKNOWN_TOPIC_OR_PARTITION` for each partition
//! (`KafkaRaftClient.handleDescribeQuorumRequest`). A voter is told by the node that it lives on.
//! Version 2 gives the voters' addresses: of ours the ones that clients connect to, since nodes have
//! one listener.

use vltava_protocol::ErrorCode;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::NodeId;
use vltava_protocol::messages::describe_quorum_request;
use vltava_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use vltava_protocol::messages::{
    BrokerId, DescribeQuorumRequest, DescribeQuorumResponse, StrBytes,
};

use crate::context::RequestContext;
use crate::controller::MetadataImage;
use crate::controller::state::METADATA_TOPIC;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::DescribeQuorum, 0..=2);

/// What Kafka says of a partition that is not here.
const NOT_HERE: &str = "This server does not host this topic-partition.";
/// Kafka's name of a listener without encryption or authentication.
const LISTENER: &str = "PLAINTEXT";

/// Describes the group.
pub async fn handle(cx: &RequestContext, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let is_group_zero = match request.topics.as_slice() {
        [topic] => match topic.partitions.as_slice() {
            [partition] => *topic.topic_name == *METADATA_TOPIC && partition.partition_index == 0,
            _ => false,
        },
        _ => false,
    };
    if !is_group_zero {
        return elsewhere(cx, &request);
    }
    let image = cx.node.controller.image();
    let partition = group_zero(cx);
    let nodes = match cx.api_version {
        2 => nodes(&image, &partition),
        _ => Vec::new(),
    };
    let topic = TopicData::default()
        .with_topic_name(request.topics[0].topic_name.clone())
        .with_partitions(vec![partition]);
    let response = DescribeQuorumResponse::default().with_topics(vec![topic]).with_nodes(nodes);
    if cx.api_version >= 2 {
        response.with_error_message(Some(StrBytes::default()))
    } else {
        response
    }
}

/// The group's state as its leader knows it; another node says that it is none.
fn group_zero(cx: &RequestContext) -> PartitionData {
    let group = cx.node.controller.group_zero();
    let leadership = group.leadership();
    let answer = PartitionData::default().with_partition_index(0);
    if !leadership.is_leader {
        cx.count(ErrorCode::NotLeaderOrFollower);
        return answer
            .with_error_code(ErrorCode::NotLeaderOrFollower.code())
            .with_leader_id(BrokerId(leadership.leader.map_or(-1, |leader| leader.0)))
            .with_leader_epoch(leadership.epoch.0);
    }
    let view = group.view();
    let now = if cx.api_version >= 1 { cx.node.clock.now().0 } else { -1 };
    let (own, voters) = (cx.node.node_id, group.nodes());
    let state = |node: NodeId| {
        let state = ReplicaState::default().with_replica_id(BrokerId(node.0));
        let (end, time) = if node == own { (view.log_end_offset.0, now) } else { (-1, -1) };
        state
            .with_log_end_offset(end)
            .with_last_fetch_timestamp(time)
            .with_last_caught_up_timestamp(time)
    };
    let answer = if cx.api_version >= 2 {
        answer.with_error_message(Some(StrBytes::default()))
    } else {
        answer
    };
    answer
        .with_leader_id(BrokerId(own.0))
        .with_leader_epoch(leadership.epoch.0)
        .with_high_watermark(view.high_watermark.0)
        .with_current_voters(voters.into_iter().map(state).collect())
}

/// Where the voters are reached.
fn nodes(image: &MetadataImage, partition: &PartitionData) -> Vec<Node> {
    let node = |voter: &ReplicaState| {
        let info = image.brokers.get(&NodeId(voter.replica_id.0))?;
        let listener = Listener::default()
            .with_name(StrBytes::from_static_str(LISTENER))
            .with_host(StrBytes::from_string(info.host.clone()))
            .with_port(info.port);
        Some(Node::default().with_node_id(voter.replica_id).with_listeners(vec![listener]))
    };
    partition.current_voters.iter().filter_map(node).collect()
}

fn elsewhere(cx: &RequestContext, request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let partition = |asked: &describe_quorum_request::PartitionData| {
        cx.count(ErrorCode::UnknownTopicOrPartition);
        let answer = PartitionData::default()
            .with_partition_index(asked.partition_index)
            .with_error_code(ErrorCode::UnknownTopicOrPartition.code());
        if cx.api_version >= 2 {
            answer.with_error_message(Some(StrBytes::from_static_str(NOT_HERE)))
        } else {
            answer
        }
    };
    let topic = |asked: &describe_quorum_request::TopicData| {
        TopicData::default()
            .with_topic_name(asked.topic_name.clone())
            .with_partitions(asked.partitions.iter().map(partition).collect())
    };
    let response =
        DescribeQuorumResponse::default().with_topics(request.topics.iter().map(topic).collect());
    if cx.api_version >= 2 {
        response.with_error_message(Some(StrBytes::default()))
    } else {
        response
    }
}
