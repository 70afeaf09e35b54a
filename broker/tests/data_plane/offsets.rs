//! ListOffsets and OffsetForLeaderEpoch.

use vltava_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use vltava_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use vltava_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use vltava_protocol::messages::{
    ApiKey, BrokerId, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};
use vltava_protocol::record::{BatchFields, BatchHeader, Codec};

use crate::fetch::read;
use crate::node::TestNode;
use crate::produce::append;
use crate::wire::{Wire, batch, batch_at, name};

fn request(topic: &str, asked: &[(i32, i64)]) -> ListOffsetsRequest {
    let partitions = asked.iter().map(|(partition, timestamp)| {
        ListOffsetsPartition::default()
            .with_partition_index(*partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(*timestamp)
    });
    let topic =
        ListOffsetsTopic::default().with_name(name(topic)).with_partitions(partitions.collect());
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}

async fn list(
    wire: &mut Wire,
    version: i16,
    request: &ListOffsetsRequest,
) -> Vec<ListOffsetsPartitionResponse> {
    let mut response: ListOffsetsResponse = wire.call(ApiKey::ListOffsets, version, request).await;
    response.topics.remove(0).partitions
}

#[tokio::test]
async fn offsets_by_time() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    // Timestamps 100, 101, 102 · 300, 301 (compressed) · 200
    for (first, values, codec) in [
        (100, &["a", "b", "c"][..], Codec::None),
        (300, &["d", "e"], Codec::Zstd),
        (200, &["f"], Codec::None),
    ] {
        let records = batch_at(first, values, codec, &BatchFields::default());
        append(&mut wire, "t", records).await;
    }
    for (timestamp, version, code, offset, found_at) in [
        (-1, 1, 0, 6, -1),
        (-2, 1, 0, 0, -1),
        (-3, 7, 0, 4, 301),
        (-3, 6, 35, -1, -1),
        (-4, 8, 0, 0, -1),
        (-4, 7, 35, -1, -1),
        (-5, 9, 0, -1, -1),
        (-7, 10, 35, -1, -1),
        (0, 1, 0, 0, 100),
        (100, 4, 0, 0, 100),
        (101, 10, 0, 1, 101),
        (103, 5, 0, 3, 300),
        (301, 5, 0, 4, 301),
        (302, 5, 0, -1, -1),
    ] {
        let response = list(&mut wire, version, &request("t", &[(0, timestamp)])).await;
        let got = (response[0].error_code, response[0].offset, response[0].timestamp);
        assert_eq!(got, (code, offset, found_at), "{timestamp} v{version}");
        if version >= 4 {
            assert_eq!(response[0].leader_epoch >= 0, code == 0 && offset >= 0, "{timestamp}");
        }
    }
}

#[tokio::test]
async fn version_11_has_the_body_of_10() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    let mut frame = wire.frame(ApiKey::ListOffsets, 10, &request("t", &[(0, -6), (0, -1)]));
    frame[7] = 11;
    wire.raw(&frame).await;
    let response: ListOffsetsResponse = wire.receive(10).await;
    let codes: Vec<i16> = response.topics[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [42, 42], "named twice");
    let mut frame = wire.frame(ApiKey::ListOffsets, 10, &request("t", &[(0, -6)]));
    frame[7] = 11;
    wire.raw(&frame).await;
    let response: ListOffsetsResponse = wire.receive(10).await;
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.offset), (0, -1));
}

#[tokio::test]
async fn an_empty_log_and_what_is_not_there() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    for (timestamp, offset) in [(-1, 0), (-2, 0), (-3, -1), (5, -1)] {
        let response = list(&mut wire, 8, &request("t", &[(0, timestamp)])).await;
        assert_eq!((response[0].error_code, response[0].offset), (0, offset), "{timestamp}");
    }
    let response = list(&mut wire, 8, &request("t", &[(7, -1)])).await;
    assert_eq!((response[0].error_code, response[0].offset), (3, -1));
    let mut fenced = request("t", &[(0, -1)]);
    fenced.topics[0].partitions[0].current_leader_epoch = 1_000_000;
    assert_eq!(list(&mut wire, 8, &fenced).await[0].error_code, 75);
}

#[tokio::test]
async fn where_an_epoch_ends() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    append(&mut wire, "t", batch(&["a", "b"])).await;
    let epoch = BatchHeader::parse(&read(&mut wire, "t", 0).await).unwrap().leader_epoch.0;
    for version in 2..=4 {
        for (believed, asked, expected) in [
            (-1, epoch, (0, epoch, 2)),
            (epoch, epoch, (0, epoch, 2)),
            (-1, epoch + 1, (0, -1, -1)),
            (epoch + 1, epoch, (75, -1, -1)),
            (epoch - 1, epoch, (74, -1, -1)),
        ] {
            let partition = OffsetForLeaderPartition::default()
                .with_partition(0)
                .with_current_leader_epoch(believed)
                .with_leader_epoch(asked);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(name("t"))
                .with_partitions(vec![partition]);
            let request = OffsetForLeaderEpochRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(vec![topic]);
            let response: OffsetForLeaderEpochResponse =
                wire.call(ApiKey::OffsetForLeaderEpoch, version, &request).await;
            let partition = &response.topics[0].partitions[0];
            let got = (partition.error_code, partition.leader_epoch, partition.end_offset);
            assert_eq!(got, expected, "{believed} {asked}");
        }
    }
}
