//! `SyncGroup` (key 14), versions 0-5: the leader gives the assignment, every member gets its own.
//!
//! The answer waits for the leader and for the commit of what it assigned. From version 5 on a
//! member must name the protocol that it believes in (KIP-559).

use bytes::Bytes;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::groups::{ENDLESS, copied, failure, park, refuse, room, text};
use crate::connection::Stage;
use crate::context::RequestContext;
use crate::coordinator::group::request::SyncRequest;
use crate::coordinator::group::{GroupRequest, GroupResponse};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::SyncGroup, 0..=5);

/// First version that must name type and name of the protocol.
const PROTOCOL_FROM: i16 = 5;

/// Syncs.
pub async fn start(cx: RequestContext, request: SyncGroupRequest) -> Stage {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if cx.api_version >= PROTOCOL_FROM && !names_protocol {
        let code = ErrorCode::InconsistentGroupProtocol;
        let response = respond(&cx, GroupResponse::Failed(code));
        return Stage::Done(refuse(&cx, &response));
    }
    let assigned = request.assignments.iter().map(|assignment| assignment.assignment.len());
    let bytes: usize = assigned.sum();
    if bytes > 0 {
        room(&cx, bytes).await;
    }
    let request = GroupRequest::Sync(sync(&request));
    park(cx, request, ENDLESS, respond)
}

fn sync(request: &SyncGroupRequest) -> SyncRequest {
    let assignments = request.assignments.iter().map(|assignment| {
        (assignment.member_id.as_str().into(), Bytes::copy_from_slice(&assignment.assignment))
    });
    SyncRequest {
        group_id: request.group_id.as_str().into(),
        member_id: request.member_id.as_str().into(),
        instance_id: copied(request.group_instance_id.as_ref()),
        generation: request.generation_id,
        protocol_type: copied(request.protocol_type.as_ref()),
        protocol: copied(request.protocol_name.as_ref()),
        assignments: assignments.collect(),
    }
}

fn respond(cx: &RequestContext, response: GroupResponse) -> SyncGroupResponse {
    match response {
        GroupResponse::Sync(synced) => SyncGroupResponse::default()
            .with_protocol_type(synced.protocol_type.as_deref().map(text))
            .with_protocol_name(synced.protocol.as_deref().map(text))
            .with_assignment(synced.assignment),
        other => {
            let code = failure(&other);
            cx.count(code);
            SyncGroupResponse::default().with_error_code(code.code())
        }
    }
}
