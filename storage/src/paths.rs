//! Where everything lies, relative to the root of a disk.
//!
//! ```text
//! .lock                                     held by the running broker
//! wal/{sequence:016x}.wal                   the write-ahead file set
//! logs/{replica:016x}/{segment:016x}.log    one segment
//! logs/{replica:016x}/{segment:016x}.index  its index, rebuildable
//! logs/{replica:016x}/{index:016x}.producers  producer state as of an index, rebuildable
//! ```

use std::path::PathBuf;

use crate::ids::{FileId, LogIndex, ReplicaId, SegmentId};

/// The directory of all replicas.
pub const LOGS_DIR: &str = "logs";

/// The directory of the write-ahead file set.
pub const WAL_DIR: &str = "wal";

/// The directory of one replica.
pub fn replica_dir(replica: ReplicaId) -> PathBuf {
    PathBuf::from(format!("{LOGS_DIR}/{:016x}", replica.0))
}

/// The name of a segment in its replica's directory.
pub fn segment_file_name(segment: SegmentId) -> String {
    format!("{:016x}.log", segment.0)
}

/// The name of a segment's index in its replica's directory.
pub fn index_file_name(segment: SegmentId) -> String {
    format!("{:016x}.index", segment.0)
}

/// The name of a snapshot of producer state as of (after) `index`, in its replica's directory.
pub fn producers_file_name(index: LogIndex) -> String {
    format!("{:016x}.producers", index.0)
}

/// The path of a segment.
pub fn segment_path(id: FileId) -> PathBuf {
    replica_dir(id.replica).join(segment_file_name(id.segment))
}

/// The path of a file of the write-ahead set.
pub fn wal_path(sequence: u64) -> PathBuf {
    PathBuf::from(format!("{WAL_DIR}/{sequence:016x}.wal"))
}

/// Which segment a file name in a replica's directory means, if it is a segment's.
pub fn parse_segment_file_name(name: &str) -> Option<SegmentId> {
    parse_hex(name, ".log").map(SegmentId)
}

/// As of which index a file name in a replica's directory is a snapshot of producer state.
pub fn parse_producers_file_name(name: &str) -> Option<LogIndex> {
    parse_hex(name, ".producers").map(LogIndex)
}

/// Which replica a directory name in [`LOGS_DIR`] means.
pub fn parse_replica_dir_name(name: &str) -> Option<ReplicaId> {
    parse_hex(name, "").map(ReplicaId)
}

/// Which sequence a file name in [`WAL_DIR`] means.
pub fn parse_wal_file_name(name: &str) -> Option<u64> {
    parse_hex(name, ".wal")
}

/// Exactly what the functions above write: sixteen lower-case digits and the extension.
fn parse_hex(name: &str, extension: &str) -> Option<u64> {
    let digits = name.strip_suffix(extension)?;
    let canonical = digits.len() == 16
        && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if canonical { u64::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let id = FileId { replica: ReplicaId(0xabc), segment: SegmentId(u64::MAX) };
        let path = segment_path(id);
        assert_eq!(path.to_str().unwrap(), "logs/0000000000000abc/ffffffffffffffff.log");
        let mut names = path.iter().map(|name| name.to_str().unwrap());
        assert_eq!(names.next(), Some(LOGS_DIR));
        assert_eq!(parse_replica_dir_name(names.next().unwrap()), Some(id.replica));
        assert_eq!(parse_segment_file_name(names.next().unwrap()), Some(id.segment));
        assert_eq!(parse_wal_file_name("0000000000000010.wal"), Some(16));
        assert_eq!(parse_producers_file_name(&producers_file_name(LogIndex(9))), Some(LogIndex(9)));
    }

    #[test]
    fn other_names_are_no_names() {
        for name in
            ["", "10.wal", "000000000000001G.wal", "000000000000001A.wal", "+00000000000001a.wal"]
        {
            assert_eq!(parse_wal_file_name(name), None, "{name}");
        }
        assert_eq!(parse_segment_file_name("0000000000000001.index"), None);
    }
}
