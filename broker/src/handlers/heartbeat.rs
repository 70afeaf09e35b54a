//! `Heartbeat` (key 12), versions 0-4: a member is alive, and learns of rebalances.
//!
//! While the coordinator loads, a member is told that all is well: sessions begin anew when it is
//! done (`GroupCoordinatorService.heartbeat`).

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::groups::{answer, copied, failure};
use crate::context::RequestContext;
use crate::coordinator::group::request;
use crate::coordinator::group::{GroupRequest, GroupResponse};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::Heartbeat, 0..=4);

/// Keeps a session alive.
pub async fn handle(cx: &RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let heartbeat = request::HeartbeatRequest {
        group_id: request.group_id.as_str().into(),
        member_id: request.member_id.as_str().into(),
        instance_id: copied(request.group_instance_id.as_ref()),
        generation: request.generation_id,
    };
    let code = match answer(cx, GroupRequest::Heartbeat(heartbeat)).await {
        GroupResponse::Heartbeat | GroupResponse::Failed(ErrorCode::CoordinatorLoadInProgress) => {
            ErrorCode::None
        }
        other => failure(&other),
    };
    cx.count(code);
    HeartbeatResponse::default().with_error_code(code.code())
}
