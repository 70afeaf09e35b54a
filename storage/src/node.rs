//! What a node remembers of itself beside its replicas: one row in the write-ahead file set.

/// The row of the node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeState {
    /// The node's number in its cluster, Kafka's `node.id`.
    pub node_id: i32,
    /// The cluster it belongs to.
    pub cluster_id: String,
    /// The kernel's boot id when the broker was started: another one means that the operating
    /// system died since, and with it the page cache.
    pub boot_id: String,
    /// Whether the broker was stopped in order, with everything synced. Cleared at the start.
    pub clean: bool,
}
