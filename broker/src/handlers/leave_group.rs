//! `LeaveGroup` (key 13), versions 0-5: members go, from version 3 on several at once (KIP-345),
//! from 5 on with a reason (KIP-800).

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::leave_group_response::MemberResponse;
use vltava_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::groups::{answer, copied, failure, text};
use crate::context::RequestContext;
use crate::coordinator::group::request::{LeaveRequest, LeavingMember};
use crate::coordinator::group::response::LeftMember;
use crate::coordinator::group::{GroupRequest, GroupResponse};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::LeaveGroup, 0..=5);

/// First version that names several members.
const BATCHED_FROM: i16 = 3;

/// Leaves.
pub async fn handle(cx: &RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let members = if cx.api_version < BATCHED_FROM {
        let member_id = request.member_id.as_str().into();
        vec![LeavingMember { member_id, instance_id: None, reason: None }]
    } else {
        let leaving = request.members.iter().map(|member| LeavingMember {
            member_id: member.member_id.as_str().into(),
            instance_id: copied(member.group_instance_id.as_ref()),
            reason: copied(member.reason.as_ref()),
        });
        leaving.collect()
    };
    let leave = LeaveRequest { group_id: request.group_id.as_str().into(), members };
    let response = answer(cx, GroupRequest::Leave(leave)).await;
    let (code, members) = match response {
        GroupResponse::Leave(members) => (ErrorCode::None, members),
        other => (failure(&other), Vec::new()),
    };
    for code in members.iter().map(|member| member.error).chain([code]) {
        cx.count(code);
    }
    encode(code, &members, cx.api_version)
}

/// Old versions have one error for all (`LeaveGroupResponse.getError`).
fn encode(code: ErrorCode, members: &[LeftMember], version: i16) -> LeaveGroupResponse {
    if version < BATCHED_FROM {
        let of_member = members.first().map_or(ErrorCode::None, |member| member.error);
        let code = if code == ErrorCode::None { of_member } else { code };
        return LeaveGroupResponse::default().with_error_code(code.code());
    }
    let members = members.iter().map(|member| {
        MemberResponse::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(member.instance_id.as_deref().map(text))
            .with_error_code(member.error.code())
    });
    LeaveGroupResponse::default().with_error_code(code.code()).with_members(members.collect())
}

#[cfg(test)]
mod tests {
    use vltava_protocol::messages::encode_response;

    use super::*;

    #[test]
    fn old_versions_have_one_error() {
        let left = LeftMember {
            member_id: "m".into(),
            instance_id: None,
            error: ErrorCode::UnknownMemberId,
        };
        for version in API.min..=API.max {
            let response = encode(ErrorCode::None, std::slice::from_ref(&left), version);
            let code = if version < 3 { ErrorCode::UnknownMemberId } else { ErrorCode::None };
            assert_eq!(response.error_code, code.code(), "{version}");
            assert_eq!(response.members.len(), usize::from(version >= 3));
            encode_response(1, ApiKey::LeaveGroup, version, &response).unwrap();
        }
    }
}
