//! Early write-back of page-cache logs: what the kernel is to begin writing, long before it would.
//!
//! Nobody waits for it and nothing is promised by it. Left alone the kernel gathers dirty pages for
//! half a minute or to a tenth of the memory, and then writes all of them at once, in the way of
//! every other write and sync of the disk.

use std::ops::Range;

use crate::ids::FileId;

/// How much of a file gathers before the kernel is asked to write it.
pub(super) const WRITE_BACK_BYTES: u64 = 4 << 20;

/// The part of a log's last file that nobody has asked the kernel to write yet.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    file: Option<FileId>,
    range: Range<u64>,
}

impl WriteBack {
    /// Notes a write, which continues the one before or begins another file; what is to be written
    /// back now, if it is enough. The rest of a file that was left is the kernel's to see to.
    pub(super) fn wrote(&mut self, file: FileId, written: Range<u64>) -> Option<Range<u64>> {
        if self.file != Some(file) {
            self.file = Some(file);
            self.range = written.start..written.start;
        }
        self.range.end = written.end;
        if self.range.end - self.range.start < WRITE_BACK_BYTES {
            return None;
        }
        let whole = self.range.clone();
        self.range.start = whole.end;
        Some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ReplicaId, SegmentId};

    #[test]
    fn a_file_is_written_back_once_and_in_large_parts() {
        let id = |segment| FileId { replica: ReplicaId(1), segment: SegmentId(segment) };
        let mut write_back = WriteBack::default();
        let (step, mut parts) = (WRITE_BACK_BYTES / 4 + 1, Vec::new());
        for at in 0..10 {
            parts.extend(write_back.wrote(id(1), 100 + at * step..100 + (at + 1) * step));
        }
        assert_eq!(parts, [100..100 + 4 * step, 100 + 4 * step..100 + 8 * step]);
        // Another file begins anew.
        assert_eq!(write_back.wrote(id(2), 64..65), None);
        let large = 65..65 + WRITE_BACK_BYTES;
        assert_eq!(write_back.wrote(id(2), large.clone()), Some(64..large.end));
    }
}
