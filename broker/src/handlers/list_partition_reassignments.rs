//! `ListPartitionReassignments` (key 46), version 0: the partitions that are on their way to other
//! nodes (KIP-455).
//!
//! The target set of a partition's replicas is group 0's to say, its membership the partition's own;
//! a reassignment is where they differ. No request changes a target yet, so none is under way, and
//! topics that do not exist are left out as in Kafka (`ReplicationControlManager`).

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use crate::context::RequestContext;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::ListPartitionReassignments, 0..=0);

/// Lists reassignments.
pub async fn handle(
    _cx: &RequestContext,
    _request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default().with_error_message(None)
}
