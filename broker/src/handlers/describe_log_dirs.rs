//! `DescribeLogDirs` (key 35), versions 1-4: what lies in the data directory and how large it is.
//!
//! There is one directory. No topics named (null) means all that live here; partitions that do not
//! are left out without an error (`ReplicaManager.describeLogDirs`). A replica is never in the
//! making here, and lacks nothing that it could be asked for. From version 4 on the size and the
//! free room of the file system are told.
//!
//! Differs from Kafka 4.3: version 5, which tells of directories that take no new replicas, is not
//! served.

use std::collections::BTreeMap;
use std::path::Path;

use vltava_protocol::ErrorCode;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::{PartitionIndex, TopicName};
use vltava_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use vltava_protocol::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse, StrBytes, TopicName as WireName,
};

use super::blocking;
use crate::context::RequestContext;
use crate::node::Node;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::DescribeLogDirs, 1..=4);

/// Describes the directory.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let dir = std::path::absolute(&cx.node.config.flags.data_dir)
        .unwrap_or_else(|_| cx.node.config.flags.data_dir.clone());
    let result = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_string(dir.display().to_string()));
    if cx.node.partitions.is_disk_failed() {
        cx.count(ErrorCode::KafkaStorageError);
        let failed = result.with_error_code(ErrorCode::KafkaStorageError.code());
        return DescribeLogDirsResponse::default().with_results(vec![failed]);
    }
    let mut result = result.with_topics(topics(&cx.node, &request));
    if cx.api_version >= 4 {
        let (total, usable) = blocking(move || space(&dir)).await;
        result = result.with_total_bytes(total).with_usable_bytes(usable);
    }
    DescribeLogDirsResponse::default().with_results(vec![result])
}

fn topics(node: &Node, request: &DescribeLogDirsRequest) -> Vec<DescribeLogDirsTopic> {
    let mut sizes: BTreeMap<TopicName, BTreeMap<PartitionIndex, u64>> = BTreeMap::new();
    let mut add = |partition: &crate::partition::Partition| {
        let tp = partition.tp();
        let partitions = sizes.entry(tp.topic.clone()).or_default();
        partitions.insert(tp.partition, partition.view().size_bytes());
    };
    if let Some(asked) = &request.topics {
        for topic in asked {
            let local = |&index: &i32| node.partitions.get(&topic.topic, PartitionIndex(index));
            topic.partitions.iter().filter_map(local).for_each(|partition| add(&partition));
        }
    } else {
        for topic in node.controller.image().topics() {
            let indexes = 0..topic.partitions.len() as i32;
            let local = |index| node.partitions.get_by_id(topic.id, PartitionIndex(index));
            indexes.filter_map(local).for_each(|partition| add(&partition));
        }
    }
    let partition = |(index, size): (PartitionIndex, u64)| {
        DescribeLogDirsPartition::default()
            .with_partition_index(index.0)
            .with_partition_size(i64::try_from(size).unwrap_or(i64::MAX))
    };
    let topic = |(name, partitions): (TopicName, BTreeMap<_, _>)| {
        DescribeLogDirsTopic::default()
            .with_name(WireName::from(&name))
            .with_partitions(partitions.into_iter().map(partition).collect())
    };
    sizes.into_iter().map(topic).collect()
}

/// Bytes of the directory's file system, and those of them that can be used; −1 is unknown.
fn space(dir: &Path) -> (i64, i64) {
    let Ok(stat) = rustix::fs::statvfs(dir) else { return (-1, -1) };
    let bytes = |blocks: u64| {
        i64::try_from(u128::from(blocks) * u128::from(stat.f_frsize)).unwrap_or(i64::MAX)
    };
    (bytes(stat.f_blocks), bytes(stat.f_bavail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_room_for_less_than_it_holds() {
        let (total, usable) = space(&std::env::temp_dir());
        assert!(0 <= usable && usable <= total && total > 0, "{usable} of {total}");
        assert_eq!(space(Path::new("/no/such/directory")), (-1, -1));
    }
}
