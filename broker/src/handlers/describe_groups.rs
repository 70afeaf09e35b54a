//! `DescribeGroups` (key 15), versions 0-6: state and members of groups.
//!
//! A group that does not exist is in state `Dead`, from version 6 on `GROUP_ID_NOT_FOUND`
//! (KIP-1043). From version 3 on the rights on a group are told when asked for (KIP-430): all that
//! there are, since nothing is forbidden here.

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use vltava_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};

use super::groups::{answer, failure, text};
use crate::context::RequestContext;
use crate::coordinator::group::request::DescribeRequest;
use crate::coordinator::group::response;
use crate::coordinator::group::{GroupRequest, GroupResponse};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::DescribeGroups, 0..=6);

/// First version that tells the names of static members.
const INSTANCE_ID_FROM: i16 = 4;
/// First version that has an error for a group that does not exist.
const GROUP_ID_NOT_FOUND_FROM: i16 = 6;
/// All operations on a group: read, delete, describe, describe and alter configs (bits by
/// `AclOperation` code, `AclEntry.supportedOperations`).
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// Describes groups.
pub async fn handle(cx: &RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for group_id in &request.groups {
        let mut group = describe(cx, group_id).await;
        if request.include_authorized_operations && group.error_code == 0 {
            group.authorized_operations = GROUP_OPERATIONS;
        }
        groups.push(group);
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

async fn describe(cx: &RequestContext, group_id: &GroupId) -> DescribedGroup {
    let request = DescribeRequest {
        group_id: group_id.as_str().into(),
        knows_group_id_not_found: cx.api_version >= GROUP_ID_NOT_FOUND_FROM,
    };
    match answer(cx, GroupRequest::Describe(request)).await {
        GroupResponse::Describe(group) => {
            cx.count(group.error);
            encode(group, cx.api_version)
        }
        other => {
            let code = failure(&other);
            cx.count(code);
            DescribedGroup::default()
                .with_group_id(text(group_id).into())
                .with_error_code(code.code())
        }
    }
}

fn encode(group: response::DescribedGroup, version: i16) -> DescribedGroup {
    let members = group.members.into_iter().map(|member| {
        let instance_id = member.instance_id.filter(|_| version >= INSTANCE_ID_FROM);
        DescribedGroupMember::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(instance_id.as_deref().map(text))
            .with_client_id(text(&member.client.id))
            .with_client_host(text(&member.client.host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    });
    let message = group.error_message.filter(|_| version >= GROUP_ID_NOT_FOUND_FROM);
    DescribedGroup::default()
        .with_error_code(group.error.code())
        .with_error_message(message.as_deref().map(text))
        .with_group_id(text(&group.group_id).into())
        .with_group_state(text(group.state.name()))
        .with_protocol_type(text(&group.protocol_type))
        .with_protocol_data(text(&group.protocol))
        .with_members(members.collect())
}
