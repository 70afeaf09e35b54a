//! `DescribeTopicPartitions` (key 75), version 0: topics with their partitions, a page at a time
//! (KIP-966).
//!
//! Topics come in the order of their names; none named means all. A page holds no more partitions
//! than the request and `max.request.partition.size.limit` allow, and at least one; where it ends
//! within a topic or before the next, `next_cursor` says where the next page begins. A request that
//! names topics and a cursor must name the cursor's topic, and a cursor's partition is not negative,
//! else each topic is `INVALID_REQUEST`. Eligible leader replicas are an empty list: a leader here is
//! chosen among the voters of the partition's group.
//!
//! Differs from Kafka 4.3: an empty name is `INVALID_TOPIC_EXCEPTION` for itself, not an error of
//! the whole request.

use std::collections::BTreeSet;

use vltava_protocol::ErrorCode;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::{NodeId, PartitionIndex, TopicName};
use vltava_protocol::messages::describe_topic_partitions_request::TopicRequest;
use vltava_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use vltava_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, StrBytes,
    TopicName as WireName,
};

use super::metadata::{TOPIC_OPERATIONS, leadership};
use crate::context::RequestContext;
use crate::controller::MetadataImage;
use crate::controller::state::{TopicImage, is_internal_topic};
use crate::partition::Leadership;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::DescribeTopicPartitions, 0..=0);

/// Describes a page of partitions.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let node = &cx.node;
    let image = node.controller.image();
    let most = node.config.max_request_partition_size_limit;
    let response = describe(&image, &request, most, &|topic, index| leadership(node, topic, index));
    for topic in &response.topics {
        cx.count(ErrorCode::from_code(topic.error_code).unwrap_or_default());
    }
    response
}

/// The response, without what is counted. `leadership` is what is known of a partition.
fn describe(
    image: &MetadataImage,
    request: &DescribeTopicPartitionsRequest,
    most: i32,
    leadership: &dyn Fn(&TopicImage, PartitionIndex) -> Leadership,
) -> DescribeTopicPartitionsResponse {
    let Some(names) = names(image, request) else {
        return refused(&request.topics);
    };
    let mut room = request.response_partition_limit.min(most).max(1).unsigned_abs() as usize;
    let mut response = DescribeTopicPartitionsResponse::default().with_next_cursor(None);
    for name in names {
        let Some(topic) = image.topic(name) else {
            // All topics are asked for by name: one that is gone by now is not told of.
            response.topics.push(absent(name));
            continue;
        };
        let cursor = request.cursor.as_ref().filter(|cursor| **cursor.topic_name == *name);
        let first = cursor.map_or(0, |cursor| cursor.partition_index.unsigned_abs() as usize);
        if room == 0 {
            response.next_cursor = Some(cursor_at(topic, first));
            return response;
        }
        let left = topic.partitions.len().saturating_sub(first);
        let taken = left.min(room);
        response.topics.push(page(image, topic, first..first + taken, leadership));
        room -= taken;
        if taken < left {
            response.next_cursor = Some(cursor_at(topic, first + taken));
            return response;
        }
    }
    response
}

/// The topics that the page may begin with, in their order. `None` where the request contradicts
/// itself.
fn names<'a>(
    image: &'a MetadataImage,
    request: &'a DescribeTopicPartitionsRequest,
) -> Option<BTreeSet<&'a str>> {
    let begin = request.cursor.as_ref().map_or("", |cursor| &**cursor.topic_name);
    let names: BTreeSet<&str> = if request.topics.is_empty() {
        image.topics().map(|topic| &*topic.name).filter(|name| *name >= begin).collect()
    } else {
        let asked = request.topics.iter().map(|topic| &**topic.name);
        asked.filter(|name| *name >= begin).collect()
    };
    if let Some(cursor) = &request.cursor {
        let is_named = request.topics.is_empty() || names.contains(begin);
        if !is_named || cursor.partition_index < 0 {
            return None;
        }
    }
    Some(names)
}

fn refused(topics: &[TopicRequest]) -> DescribeTopicPartitionsResponse {
    let refuse = |topic: &TopicRequest| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(ErrorCode::InvalidRequest.code())
            .with_name(Some(topic.name.clone()))
    };
    DescribeTopicPartitionsResponse::default()
        .with_topics(topics.iter().map(refuse).collect())
        .with_next_cursor(None)
}

fn absent(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let code = match TopicName::validate(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(code.code())
        .with_name(Some(WireName(StrBytes::from_string(name.to_owned()))))
        .with_is_internal(is_internal_topic(name))
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}

fn page(
    image: &MetadataImage,
    topic: &TopicImage,
    partitions: std::ops::Range<usize>,
    leadership: &dyn Fn(&TopicImage, PartitionIndex) -> Leadership,
) -> DescribeTopicPartitionsResponseTopic {
    let partition = |index: usize| {
        let replicas = topic.partitions[index].replicas.iter().map(|&(_, node)| node);
        let index = index as i32;
        let Leadership { leader, epoch, .. } = leadership(topic, PartitionIndex(index));
        let leader = leader.filter(|leader| image.brokers.contains_key(leader));
        let code = if leader.is_some() { ErrorCode::None } else { ErrorCode::LeaderNotAvailable };
        let (live, gone): (Vec<NodeId>, Vec<NodeId>) =
            replicas.clone().partition(|node| image.brokers.contains_key(node));
        let on_the_wire = |nodes: Vec<NodeId>| nodes.into_iter().map(BrokerId::from).collect();
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(code.code())
            .with_partition_index(index)
            .with_leader_id(BrokerId(leader.map_or(-1, |leader| leader.0)))
            .with_leader_epoch(epoch.0)
            .with_replica_nodes(on_the_wire(replicas.collect()))
            .with_isr_nodes(on_the_wire(live))
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
            .with_offline_replicas(on_the_wire(gone))
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(WireName::from(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_is_internal(is_internal_topic(&topic.name))
        .with_partitions(partitions.map(partition).collect())
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}

fn cursor_at(topic: &TopicImage, partition: usize) -> Cursor {
    Cursor::default()
        .with_topic_name(WireName::from(&topic.name))
        .with_partition_index(partition as i32)
}

#[cfg(test)]
mod tests {
    use vltava_protocol::ids::TopicId;
    use vltava_protocol::messages::describe_topic_partitions_request;
    use vltava_protocol::messages::encode_response;

    use super::*;
    use crate::controller::records::MetadataRecord;

    fn image() -> MetadataImage {
        let mut image = MetadataImage::default();
        let topic = |name: &str, n, partitions| MetadataRecord::Topic {
            name: name.into(),
            id: TopicId(uuid::Uuid::from_u128(n)),
            partitions: (0..partitions).map(|p| vec![(1000 * n as u64 + p, 1)]).collect(),
            config: std::collections::BTreeMap::default(),
        };
        for record in [
            MetadataRecord::Broker { node: 1, host: "h".into(), port: 9, rack: None },
            topic("a", 1, 1),
            topic("b", 2, 3),
            topic("c", 3, 2),
        ] {
            image.apply(image.applied, record).unwrap();
        }
        image
    }

    fn request(
        names: &[&str],
        limit: i32,
        cursor: Option<(&str, i32)>,
    ) -> DescribeTopicPartitionsRequest {
        let wire = |name: &str| WireName(StrBytes::from_string(name.to_owned()));
        let cursor = cursor.map(|(name, partition)| {
            describe_topic_partitions_request::Cursor::default()
                .with_topic_name(wire(name))
                .with_partition_index(partition)
        });
        DescribeTopicPartitionsRequest::default()
            .with_topics(names.iter().map(|n| TopicRequest::default().with_name(wire(n))).collect())
            .with_response_partition_limit(limit)
            .with_cursor(cursor)
    }

    type Told<'a> = (&'a [(&'a str, i16, &'a [i32])], Option<(&'a str, i32)>);

    fn check(request: &DescribeTopicPartitionsRequest, most: i32, expected: Told<'_>) {
        let led = |_: &TopicImage, _| Leadership { leader: Some(NodeId(1)), ..Leadership::UNKNOWN };
        let response = describe(&image(), request, most, &led);
        let told: Vec<_> = response
            .topics
            .iter()
            .map(|topic| {
                let indexes = topic.partitions.iter().map(|p| p.partition_index);
                let name = topic.name.as_ref().unwrap().to_string();
                (name, topic.error_code, indexes.collect::<Vec<_>>())
            })
            .collect();
        let expected_topics: Vec<_> = expected
            .0
            .iter()
            .map(|&(name, code, indexes)| (name.to_owned(), code, indexes.to_vec()))
            .collect();
        assert_eq!(told, expected_topics, "{request:?}");
        let next = response.next_cursor.as_ref();
        let next = next.map(|next| (next.topic_name.to_string(), next.partition_index));
        assert_eq!(next, expected.1.map(|(name, index)| (name.to_owned(), index)), "{request:?}");
        encode_response(1, ApiKey::DescribeTopicPartitions, 0, &response).unwrap();
    }

    #[test]
    fn pages_end_and_go_on_as_kafka_s() {
        let all: Told<'_> = (&[("a", 0, &[0]), ("b", 0, &[0, 1, 2]), ("c", 0, &[0, 1])], None);
        check(&request(&[], 2000, None), 2000, all);
        check(&request(&[], 6, None), 2000, all);
        check(&request(&[], 1, None), 2000, (&[("a", 0, &[0])], Some(("b", 0))));
        check(&request(&[], 0, None), 2000, (&[("a", 0, &[0])], Some(("b", 0))));
        check(&request(&[], -1, None), 2000, (&[("a", 0, &[0])], Some(("b", 0))));
        let two: Told<'_> = (&[("a", 0, &[0]), ("b", 0, &[0, 1])], Some(("b", 2)));
        check(&request(&[], 3, None), 2000, two);
        check(&request(&[], 2000, None), 3, two);
        let rest: Told<'_> = (&[("b", 0, &[2]), ("c", 0, &[0, 1])], None);
        check(&request(&[], 3, Some(("b", 2))), 2000, rest);
        check(&request(&["b"], 9, Some(("b", 7))), 2000, (&[("b", 0, &[])], None));
        check(&request(&[], 9, Some(("bb", 7))), 2000, (&[("c", 0, &[0, 1])], None));
        check(&request(&[], 9, Some(("z", 0))), 2000, (&[], None));
    }

    #[test]
    fn names_are_sorted_and_told_once() {
        let told: Told<'_> = (&[("a", 0, &[0]), ("c", 0, &[0, 1]), ("nobody", 3, &[])], None);
        check(&request(&["nobody", "c", "a", "c"], 9, None), 2000, told);
        check(&request(&["a b", ""], 9, None), 2000, (&[("", 17, &[]), ("a b", 17, &[])], None));
        check(&request(&["x"], 9, Some(("x", 0))), 2000, (&[("x", 3, &[])], None));
    }

    #[test]
    fn a_cursor_that_fits_nothing_is_refused() {
        for cursor in [("a", -1), ("b", 0), ("zz", 0)] {
            check(&request(&["a"], 9, Some(cursor)), 2000, (&[("a", 42, &[])], None));
        }
    }
}
