//! `ListGroups` (key 16), versions 0-5: the groups that this node coordinates.
//!
//! From version 4 on with their state, and only those in some states if asked for (KIP-518); from 5
//! on the same by type (KIP-848). A node that is still loading some of its groups says so instead
//! of leaving them out (`GroupCoordinatorService.listGroups`).

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::list_groups_response::ListedGroup;
use vltava_protocol::messages::{ListGroupsRequest, ListGroupsResponse, StrBytes};

use super::groups::{failure, text};
use crate::context::RequestContext;
use crate::coordinator::group::request::ListRequest;
use crate::coordinator::group::{GroupRequest, GroupResponse, response};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::ListGroups, 0..=5);

/// Lists groups.
pub async fn handle(cx: &RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    let texts = |texts: &[StrBytes]| texts.iter().map(StrBytes::to_string).collect();
    let request =
        ListRequest { states: texts(&request.states_filter), types: texts(&request.types_filter) };
    let mut groups = Vec::new();
    for post in cx.node.groups.runtime().posts() {
        let asked = match post.ask(GroupRequest::List(request.clone())) {
            Ok(asked) => asked.answer().await,
            Err(code) => Err(code),
        };
        match asked.unwrap_or_else(GroupResponse::Failed) {
            GroupResponse::List(listed) => groups.extend(listed.iter().map(encode)),
            // Another node lists them.
            GroupResponse::Failed(ErrorCode::NotCoordinator) => {}
            other => {
                let code = failure(&other);
                cx.count(code);
                return ListGroupsResponse::default().with_error_code(code.code());
            }
        }
    }
    ListGroupsResponse::default().with_groups(groups)
}

fn encode(group: &response::ListedGroup) -> ListedGroup {
    ListedGroup::default()
        .with_group_id(text(&group.group_id).into())
        .with_protocol_type(text(&group.protocol_type))
        .with_group_state(text(group.state.name()))
        .with_group_type(text(group.group_type))
}
