//! `DescribeCluster` (key 60), versions 0-2: the brokers and the controller.
//!
//! Only brokers are described on this listener; a client that wants controllers is told so as Kafka
//! tells it (`MISMATCHED_ENDPOINT_TYPE`), and an unknown kind is `UNSUPPORTED_ENDPOINT_TYPE`.

use vltava_protocol::ErrorCode;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::NodeId;
use vltava_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use vltava_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse, StrBytes};

use super::metadata::{CLUSTER_OPERATIONS, controller};
use crate::context::RequestContext;
use crate::controller::state::BrokerInfo;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::DescribeCluster, 0..=2);

/// The kind of endpoint that is a broker.
const BROKERS: i8 = 1;
/// The kind of endpoint that is a controller.
const CONTROLLERS: i8 = 2;

/// Describes the cluster.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if let Some((code, message)) = refusal(request.endpoint_type) {
        cx.count(code);
        return DescribeClusterResponse::default()
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_static_str(message)));
    }
    let image = cx.node.controller.image();
    let broker = |(&id, info): (&NodeId, &BrokerInfo)| {
        DescribeClusterBroker::default()
            .with_broker_id(id.0.into())
            .with_host(StrBytes::from_string(info.host.clone()))
            .with_port(info.port.into())
            .with_rack(info.rack.clone().map(StrBytes::from_string))
    };
    let mut response = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(image.cluster_id.clone()))
        .with_controller_id(controller(&cx.node).into())
        .with_brokers(image.brokers.iter().map(broker).collect());
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

fn refusal(endpoint_type: i8) -> Option<(ErrorCode, &'static str)> {
    match endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some((
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
        )),
        _ => Some((ErrorCode::UnsupportedEndpointType, "unknown kind of endpoint")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_not_described_here() {
        let code = |kind| refusal(kind).map(|(code, _)| code);
        assert_eq!(code(BROKERS), None);
        assert_eq!(code(CONTROLLERS), Some(ErrorCode::MismatchedEndpointType));
        assert_eq!(code(3), Some(ErrorCode::UnsupportedEndpointType));
    }
}
