//! The first packets of kafka-ui, AKHQ and Redpanda Console, in every version that the broker
//! advertises: what such a program asks when it opens a cluster, one connection for all of it.
//!
//! Each API is answered without an error or is absent from `ApiVersions`. A broker that closes the
//! connection instead looks dead to these programs.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    DescribeAclsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest,
    DescribeLogDirsRequest, DescribeUserScramCredentialsRequest, FindCoordinatorRequest, GroupId,
    ListGroupsRequest, ListPartitionReassignmentsRequest, MetadataRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::{Message, Request, StrBytes};
use vltava_tests::harness::{Broker, RawBatch, RawClient, Tested, now_ms, requests};

use super::Row;

pub(super) const ROWS: &[Row] = &[("opening_a_cluster", opening_a_cluster)];

/// `ConfigResource.Type`: a topic, a broker.
const RESOURCE_TYPES: [i8; 2] = [2, 4];
/// What a broker without an authorizer says about rules.
const SECURITY_DISABLED: i16 = 54;

/// One connection and what may be asked on it.
struct Interface {
    client: RawClient,
    apis: BTreeMap<i16, (i16, i16)>,
}

impl Interface {
    /// Asks in every advertised version that these messages can be written in.
    fn ask<R: Request + Message>(
        &mut self,
        request: impl Fn(i16) -> R,
        code: impl Fn(&R::Response) -> i16,
        expected: i16,
    ) -> Tested {
        let Some(&(first, last)) = self.apis.get(&R::KEY) else { return Ok(()) };
        let known = R::VERSIONS;
        for version in first.max(known.min)..=last.min(known.max) {
            let response = self.client.call(version, &request(version)).map_err(|failed| {
                let message = failed.message().unwrap_or("no message");
                format!("API {} version {version}: {message}", R::KEY)
            })?;
            assert_eq!(code(&response), expected, "API {} version {version}", R::KEY);
        }
        Ok(())
    }
}

fn opening_a_cluster(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let apis = requests::advertised(&mut client)?;
    let topic = requests::create_topic(&mut client, "shown", 1, &[])?;
    requests::produce(&mut client, &topic, RawBatch::of(2, now_ms()).encode())?;
    let mut ui = Interface { client, apis };
    ask_cluster(&mut ui, &topic)?;
    ask_groups(&mut ui)
}

/// Nodes, topics, configurations, disks, rules, users and moves.
fn ask_cluster(ui: &mut Interface, topic: &str) -> Tested {
    let all_topics = |version| {
        let topics = if version == 0 { Some(Vec::new()) } else { None };
        MetadataRequest::default().with_topics(topics)
    };
    ui.ask(all_topics, |response| i16::from(response.topics.is_empty()), 0)?;
    ui.ask(|_| DescribeClusterRequest::default(), |response| response.error_code, 0)?;
    let configs = |_| {
        let resource = |(kind, name): (i8, &str)| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(StrBytes::from_string(name.to_owned()))
                .with_configuration_keys(None)
        };
        let resources = RESOURCE_TYPES.into_iter().zip([topic, "1"]).map(resource).collect();
        DescribeConfigsRequest::default().with_resources(resources).with_include_synonyms(true)
    };
    ui.ask(
        configs,
        |response| {
            assert_eq!(response.results.len(), 2);
            assert!(response.results.iter().all(|result| !result.configs.is_empty()));
            response.results.iter().map(|result| result.error_code).sum()
        },
        0,
    )?;
    ui.ask(
        |_| DescribeLogDirsRequest::default().with_topics(None),
        |response| response.results.iter().map(|result| result.error_code).sum(),
        0,
    )?;
    // Any resource, any pattern, any operation, any permission.
    let rules = |_| {
        DescribeAclsRequest::default()
            .with_resource_type_filter(1)
            .with_resource_name_filter(None)
            .with_pattern_type_filter(1)
            .with_principal_filter(None)
            .with_host_filter(None)
            .with_operation(1)
            .with_permission_type(1)
    };
    ui.ask(rules, |response| response.error_code, SECURITY_DISABLED)?;
    ui.ask(
        |_| ListPartitionReassignmentsRequest::default().with_topics(None),
        |response| response.error_code,
        0,
    )?;
    ui.ask(
        |_| DescribeUserScramCredentialsRequest::default().with_users(None),
        |response| response.error_code,
        0,
    )
}

/// Groups and what they committed: of all, then of one.
fn ask_groups(ui: &mut Interface) -> Tested {
    let group = StrBytes::from_static_str("a-group-that-is-not-there");
    ui.ask(|_| ListGroupsRequest::default(), |response| response.error_code, 0)?;
    let coordinator = |version| {
        let request = FindCoordinatorRequest::default();
        if version < 4 {
            request.with_key(group.clone())
        } else {
            request.with_coordinator_keys(vec![group.clone()])
        }
    };
    // A broker makes the topic of committed offsets when it is first asked for a coordinator, and
    // says then that there is none yet: programs ask again, which is not looked at here.
    let answered = |response: &kafka_protocol::messages::FindCoordinatorResponse| {
        let several = response.coordinators.iter().map(|coordinator| coordinator.error_code);
        let codes = several.chain([response.error_code]);
        codes.filter(|code| ![0, 15, 16].contains(code)).sum()
    };
    ui.ask(coordinator, answered, 0)?;
    let described = |_| DescribeGroupsRequest::default().with_groups(vec![GroupId(group.clone())]);
    let group_count = |response: &kafka_protocol::messages::DescribeGroupsResponse| {
        i16::try_from(response.groups.len()).unwrap_or(-1)
    };
    ui.ask(described, group_count, 1)?;
    let offsets = |version| {
        let request = OffsetFetchRequest::default();
        if version >= 8 {
            let asked = OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(group.clone()))
                .with_topics(None);
            return request.with_groups(vec![asked]);
        }
        // From version 2 on, no list means all topics.
        let topics = if version < 2 { Some(Vec::new()) } else { None };
        request.with_group_id(GroupId(group.clone())).with_topics(topics)
    };
    ui.ask(
        offsets,
        |response| {
            let several = response.groups.iter().map(|group| group.error_code);
            let codes = several.chain([response.error_code]);
            codes.filter(|code| ![0, 15, 16].contains(code)).sum()
        },
        0,
    )
}
