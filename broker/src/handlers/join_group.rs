//! `JoinGroup` (key 11), versions 0-9: a member comes, and learns the generation once all have.
//!
//! The answer waits for the other members. From version 4 on a member without an id is given one
//! and comes back with it (KIP-394), from 5 on it may be static (KIP-345), from 8 on it says why it
//! joins (KIP-800), from 9 on a leader may be told to assign nothing (KIP-814).

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::messages::join_group_response::JoinGroupResponseMember;
use vltava_protocol::messages::{JoinGroupRequest, JoinGroupResponse, StrBytes};

use super::groups::{ENDLESS, client, copied, failure, park, room, text};
use crate::connection::Stage;
use crate::context::RequestContext;
use crate::coordinator::group::ids::{MemberId, Text};
use crate::coordinator::group::request::{JoinRequest, Protocol};
use crate::coordinator::group::response::JoinResponse;
use crate::coordinator::group::{GroupRequest, GroupResponse};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::JoinGroup, 0..=9);

/// First version with a rebalance timeout; before, it is the session timeout.
const REBALANCE_TIMEOUT_FROM: i16 = 1;
/// First version that makes a member come back with the id it is given.
const MEMBER_ID_FROM: i16 = 4;
/// First version whose protocol name may be null.
const NULL_PROTOCOL_FROM: i16 = 7;
/// First version that can tell a leader to assign nothing.
const SKIP_ASSIGNMENT_FROM: i16 = 9;
/// Bytes of a member in its group's record, beside its metadata; a guess.
const MEMBER_BYTES: usize = 512;

/// Joins.
pub async fn start(cx: RequestContext, request: JoinGroupRequest) -> Stage {
    let metadata = request.protocols.iter().map(|protocol| protocol.metadata.len());
    room(&cx, MEMBER_BYTES + metadata.sum::<usize>()).await;
    let member_id = MemberId::from(request.member_id.as_str());
    let request = GroupRequest::Join(join(&cx, &request));
    park(cx, request, ENDLESS, move |cx, response| respond(cx, &member_id, response))
}

fn join(cx: &RequestContext, request: &JoinGroupRequest) -> JoinRequest {
    let version = cx.api_version;
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: protocol.name.as_str().into(),
        // A copy: a slice keeps the whole frame for as long as the member lives.
        metadata: bytes::Bytes::copy_from_slice(&protocol.metadata),
    });
    JoinRequest {
        group_id: request.group_id.as_str().into(),
        member_id: request.member_id.as_str().into(),
        instance_id: copied(request.group_instance_id.as_ref()),
        client: client(cx),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: if version >= REBALANCE_TIMEOUT_FROM {
            request.rebalance_timeout_ms
        } else {
            request.session_timeout_ms
        },
        protocol_type: request.protocol_type.as_str().into(),
        protocols: protocols.collect(),
        reason: copied(request.reason.as_ref()),
        requires_member_id: version >= MEMBER_ID_FROM,
        can_skip_assignment: version >= SKIP_ASSIGNMENT_FROM,
    }
}

fn respond(
    cx: &RequestContext,
    member_id: &MemberId,
    response: GroupResponse,
) -> JoinGroupResponse {
    let joined = match response {
        GroupResponse::Join(joined) => joined,
        other => JoinResponse::refused(member_id.clone(), failure(&other)),
    };
    cx.count(joined.error);
    encode(joined, cx.api_version)
}

fn encode(joined: JoinResponse, version: i16) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(member.instance_id.as_deref().map(text))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_error_code(joined.error.code())
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.as_deref().map(text))
        .with_protocol_name(protocol_name(joined.protocol.as_ref(), version))
        .with_leader(text(&joined.leader))
        .with_skip_assignment(joined.skip_assignment && version >= SKIP_ASSIGNMENT_FROM)
        .with_member_id(text(&joined.member_id))
        .with_members(members.collect())
}

/// Null and nothing are the same, each where the other cannot be written (`JoinGroupResponse`).
fn protocol_name(protocol: Option<&Text>, version: i16) -> Option<StrBytes> {
    let name = protocol.map(|name| text(name)).filter(|name| !name.is_empty());
    if version < NULL_PROTOCOL_FROM { Some(name.unwrap_or_default()) } else { name }
}

#[cfg(test)]
mod tests {
    use vltava_protocol::error_code::ErrorCode;
    use vltava_protocol::messages::encode_response;

    use super::*;
    use crate::coordinator::group::response::JoinedMember;

    #[test]
    fn every_version_takes_every_answer() {
        let member = JoinedMember {
            member_id: "m".into(),
            instance_id: Some("i".into()),
            metadata: bytes::Bytes::from_static(b"x"),
        };
        let joined = JoinResponse {
            error: ErrorCode::None,
            generation: 3,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            leader: "m".into(),
            skip_assignment: true,
            member_id: "m".into(),
            members: vec![member],
        };
        let refused = JoinResponse::refused("m".into(), ErrorCode::MemberIdRequired);
        for version in API.min..=API.max {
            for answer in [&joined, &refused] {
                let response = encode(answer.clone(), version);
                encode_response(1, ApiKey::JoinGroup, version, &response).unwrap();
                assert_eq!(response.skip_assignment, version >= 9 && answer.error.is_none());
            }
            let name = encode(refused.clone(), version).protocol_name;
            assert_eq!(name.is_none(), version >= 7, "{version}");
        }
    }
}
