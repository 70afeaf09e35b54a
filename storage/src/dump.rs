//! What a side file says, for tools that show files. Nothing of the log depends on this.

use bytes::{Buf, Bytes};
use vltava_protocol::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use vltava_protocol::record::control::InternalKind;

use crate::epochs::EpochStart;
use crate::ids::{FileId, Generation, LogIndex, ReplicaId, SegmentId};
use crate::index::SegmentIndex;
use crate::producers::ProducerTable;
use crate::segment::SegmentHeader;
use crate::side_file;

/// The content of a side file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SideFile {
    /// The index of a segment.
    Index(IndexFile),
    /// The producers of a log as of a batch.
    Producers {
        /// The last batch that is included.
        index: LogIndex,
        /// Its epoch.
        epoch: LeaderEpoch,
        /// Each producer with its epoch and last sequence.
        producers: Vec<(ProducerId, ProducerEpoch, Sequence)>,
    },
}

/// What the index of a segment covers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexFile {
    /// The segment.
    pub file: FileId,
    /// The generation of its log.
    pub generation: Generation,
    /// Where the segment begins.
    pub base: (LogIndex, Offset),
    /// Where the indexed part ends.
    pub end: (LogIndex, Offset),
    /// And at which byte.
    pub end_position: u64,
    /// The greatest timestamp of its records.
    pub max_timestamp: Timestamp,
    /// How many batches have an entry.
    pub entries: usize,
    /// The epochs that begin in it.
    pub epochs: Vec<EpochStart>,
    /// Its internal batches and their positions.
    pub internal: Vec<(LogIndex, u32, InternalKind)>,
}

/// Reads a side file of either kind; none if it is damaged or not a side file.
pub fn side_file(file: &Bytes) -> Option<SideFile> {
    if let Some((index, epoch, table)) = ProducerTable::decode(file) {
        let producer = |producer| {
            let (epoch, sequence) = table.last_of(producer)?;
            Some((producer, epoch, sequence))
        };
        let producers = table.producers().filter_map(producer).collect();
        return Some(SideFile::Producers { index, epoch, producers });
    }
    let body = side_file::decode(SegmentIndex::magic(), file)?;
    let header = indexed_segment(body.clone())?;
    let index = SegmentIndex::decode(&body, &header, 1)?;
    let internal = index.internal_between(0, u64::MAX).iter();
    Some(SideFile::Index(IndexFile {
        file: header.id,
        generation: header.generation,
        base: (header.base_index, header.base_offset),
        end: (index.end().index, index.end().offset),
        end_position: index.end().position,
        max_timestamp: index.max_timestamp(),
        entries: index.entry_count(),
        epochs: index.epochs().to_vec(),
        internal: internal.map(|place| (place.index, place.position, place.kind)).collect(),
    }))
}

/// The segment that an index says it belongs to.
fn indexed_segment(mut body: Bytes) -> Option<SegmentHeader> {
    let replica = ReplicaId(body.try_get_u64().ok()?);
    let segment = SegmentId(body.try_get_u64().ok()?);
    Some(SegmentHeader {
        id: FileId { replica, segment },
        generation: Generation(body.try_get_u32().ok()?),
        base_index: LogIndex(body.try_get_u64().ok()?),
        base_offset: Offset(body.try_get_i64().ok()?),
        epoch_before: LeaderEpoch::NONE,
    })
}

#[cfg(test)]
mod tests {
    use vltava_protocol::record::batch::BatchHeader;
    use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
    use vltava_protocol::record::compression::Codec;

    use super::*;

    fn batch() -> BatchHeader {
        let mut builder = BatchBuilder::new(Codec::None, None);
        builder.append(Timestamp(9), None, Some(b"v"), &[]);
        let fields = BatchFields {
            base_offset: Offset(5),
            leader_epoch: LeaderEpoch(2),
            producer_id: ProducerId(7),
            producer_epoch: ProducerEpoch(1),
            base_sequence: Sequence(3),
            ..BatchFields::default()
        };
        BatchHeader::parse(&builder.build(&fields).unwrap()).unwrap()
    }

    #[test]
    fn both_kinds_are_told_apart() {
        let mut table = ProducerTable::default();
        table.apply(&batch(), None);
        let producers = table.encode(LogIndex(4), LeaderEpoch(2));
        let expected = SideFile::Producers {
            index: LogIndex(4),
            epoch: LeaderEpoch(2),
            producers: vec![(ProducerId(7), ProducerEpoch(1), Sequence(3))],
        };
        assert_eq!(side_file(&producers), Some(expected));

        let header = SegmentHeader {
            id: FileId { replica: ReplicaId(1000), segment: SegmentId(2) },
            generation: Generation(1),
            base_index: LogIndex(4),
            base_offset: Offset(5),
            epoch_before: LeaderEpoch(1),
        };
        let mut index = SegmentIndex::new(&header, 1);
        index.push(&batch(), None);
        let Some(SideFile::Index(read)) = side_file(&index.encode(&header)) else { panic!() };
        assert_eq!((read.file, read.base), (header.id, (LogIndex(4), Offset(5))));
        assert_eq!((read.end, read.max_timestamp), ((LogIndex(5), Offset(6)), Timestamp(9)));
        assert_eq!((read.epochs.len(), read.internal.len()), (1, 0));
    }

    #[test]
    fn damage_is_no_side_file() {
        let file = ProducerTable::default().encode(LogIndex(4), LeaderEpoch(2));
        for cut in 0..file.len() {
            assert_eq!(side_file(&file.slice(..cut)), None);
        }
    }
}
