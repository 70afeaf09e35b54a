//! `DeleteGroups` (key 42), versions 0-2: groups without members go, with their offsets (KIP-229).

use std::collections::HashSet;

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_groups_response::DeletableGroupResult;
use vltava_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::groups::{answer, failure, text};
use crate::context::RequestContext;
use crate::coordinator::group::request::DeleteRequest;
use crate::coordinator::group::{GroupRequest, GroupResponse};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::DeleteGroups, 0..=2);

/// Deletes groups, each for itself; one that is named twice is deleted once.
pub async fn handle(cx: &RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut seen = HashSet::new();
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names.iter().filter(|group_id| seen.insert(*group_id)) {
        let delete = DeleteRequest { group_id: group_id.as_str().into() };
        let code = match answer(cx, GroupRequest::Delete(delete)).await {
            GroupResponse::Delete => ErrorCode::None,
            other => failure(&other),
        };
        cx.count(code);
        results.push(
            DeletableGroupResult::default()
                .with_group_id(text(group_id).into())
                .with_error_code(code.code()),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}
