//! Who gets in, and what a client that speaks wrongly gets: the first packets, and their refusals.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vltava_protocol::messages::create_topics_request::CreatableTopic;
use vltava_protocol::messages::metadata_request::MetadataRequestTopic;
use vltava_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse, StrBytes,
    TransactionalId,
};

use crate::node::TestNode;
use crate::wire::name;

#[tokio::test]
async fn api_versions_lists_what_is_served() {
    let node = TestNode::start().await;
    let mut wire = node.connect().await;
    for version in 0..=4 {
        let request = ApiVersionsRequest::default();
        let request = if version >= 3 {
            request
                .with_client_software_name(StrBytes::from_static_str("wire"))
                .with_client_software_version(StrBytes::from_static_str("1.0"))
        } else {
            request
        };
        let response: ApiVersionsResponse = wire.call(ApiKey::ApiVersions, version, &request).await;
        assert_eq!(response.error_code, 0);
        let range = |key: ApiKey| {
            let api = response.api_keys.iter().find(|api| api.api_key == key as i16).unwrap();
            (api.min_version, api.max_version)
        };
        assert_eq!(range(ApiKey::Produce), (0, 13));
        assert_eq!(range(ApiKey::Fetch), (4, 18));
        assert_eq!(range(ApiKey::ListOffsets), (1, 11));
        assert_eq!(range(ApiKey::ApiVersions), (0, 4));
    }
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let node = TestNode::start().await;
    let mut wire = node.connect().await;
    // Key 18, version 99, correlation id 7: what follows is not ours to read.
    wire.raw(&[0, 0, 0, 10, 0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff]).await;
    let frame = wire.receive_frame().await;
    assert_eq!(frame[..], [0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]);
    let response: ApiVersionsResponse =
        wire.call(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default()).await;
    assert_eq!(response.error_code, 0, "the connection lives on");
}

#[tokio::test]
async fn a_software_name_must_be_one() {
    let node = TestNode::start().await;
    let mut wire = node.connect().await;
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("no name"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    let response: ApiVersionsResponse = wire.call(ApiKey::ApiVersions, 3, &request).await;
    assert_eq!((response.error_code, response.api_keys.len()), (42, 0));
}

#[tokio::test]
async fn what_is_not_served_or_not_readable_closes_the_connection() {
    let node = TestNode::start().await;
    for bytes in [
        &[0, 0, 0, 10, 0, 4, 0, 0, 0, 0, 0, 1, 0xff, 0xff][..], // LeaderAndIsr, gone
        &[0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff],     // Produce 2: advertised only
        &[0, 0, 0, 10, 0, 1, 0, 19, 0, 0, 0, 1, 0xff, 0xff],    // Fetch 19, not invented
        &[0, 0, 0, 10, 0, 52, 0, 0, 0, 0, 0, 1, 0xff, 0xff],    // Vote: known, never ours
        &[0, 0, 0, 4, 0, 3, 0, 1],                              // half a header
        &[0, 0, 0, 14, 0, 1, 0, 4, 0, 0, 0, 1, 0xff, 0xff, 1, 2, 3, 4], // half a Fetch
        // OffsetForLeaderEpoch 2 with 2^31-1 topics
        &[0, 0, 0, 14, 0, 23, 0, 2, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0],
        &[0x7f, 0xff, 0xff, 0xff],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut wire = node.connect().await;
        wire.raw(bytes).await;
        wire.assert_closed().await;
    }
    let mut wire = node.connect().await;
    let response: ApiVersionsResponse =
        wire.call(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default()).await;
    assert_eq!(response.error_code, 0, "others are served all the while");
}

#[tokio::test]
async fn a_creation_that_outlasts_its_timeout_is_carried_out() {
    let node = TestNode::start().await;
    let mut wire = node.connect().await;
    // Whether the millisecond is enough or not, the topic comes, and nobody has to ask for a change
    // after it.
    for at in 0..5 {
        let topic = format!("t{at}");
        let creation = CreatableTopic::default()
            .with_name(name(&topic))
            .with_num_partitions(20)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![creation]).with_timeout_ms(1);
        let response: CreateTopicsResponse = wire.call(ApiKey::CreateTopics, 7, &request).await;
        assert!([0, 7].contains(&response.topics[0].error_code), "{response:?}");
        let asked = MetadataRequestTopic::default().with_name(Some(name(&topic)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let request = request.with_allow_auto_topic_creation(false);
        let exists = async {
            loop {
                let response: MetadataResponse = wire.call(ApiKey::Metadata, 9, &request).await;
                if response.topics[0].error_code == 0 {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(1), exists).await.unwrap();
    }
}

#[tokio::test]
async fn producer_ids_are_never_given_twice() {
    let node = TestNode::start().await;
    let mut given = std::collections::HashSet::new();
    for _ in 0..3 {
        let mut wire = node.connect().await;
        for version in 0..=5 {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            let response: InitProducerIdResponse =
                wire.call(ApiKey::InitProducerId, version, &request).await;
            assert_eq!((response.error_code, response.producer_epoch), (0, 0));
            assert!(given.insert(response.producer_id.0), "{}", response.producer_id.0);
        }
    }
    let mut wire = node.connect().await;
    for (id, code) in [("", 42), ("t", 15)] {
        let id = Some(TransactionalId(StrBytes::from_static_str(id)));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(id)
            .with_transaction_timeout_ms(1000);
        let response: InitProducerIdResponse = wire.call(ApiKey::InitProducerId, 4, &request).await;
        assert_eq!((response.error_code, response.producer_id.0), (code, -1));
    }
}

#[tokio::test]
async fn the_admin_listener_tells_of_requests() {
    let node = TestNode::start().await;
    let mut wire = node.connect().await;
    let _: ApiVersionsResponse =
        wire.call(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default()).await;
    for (path, wanted) in
        [("/health", "ok\n"), ("/metrics", "vltava_requests_total{api=\"ApiVersions\"} 1\n")]
    {
        let mut socket = TcpStream::connect(node.broker.admin_addr().unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).await.unwrap();
        assert!(page.contains(wanted), "{wanted} not in\n{page}");
    }
}

#[tokio::test]
async fn shutdown_ends_connections_and_long_polls() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    let request = crate::fetch::request(&[("t", 0, 0)]).with_max_wait_ms(600_000).with_min_bytes(1);
    wire.send(ApiKey::Fetch, 11, &request).await;
    let began = std::time::Instant::now();
    // The request may or may not have begun; both ways the end comes at once.
    tokio::task::spawn_blocking(|| node.broker.shutdown()).await.unwrap();
    assert!(began.elapsed() < std::time::Duration::from_mins(1));
}
