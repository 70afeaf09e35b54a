//! Record batches, magic v2: the one format of a partition's log, of Produce and of Fetch.
//!
//! ```text
//!  0  base_offset      i64 ┐ [`batch::BatchHeader::encode_prefix`]: the leader's to write,
//!  8  batch_length     i32 │ outside the checksum; batch_length counts from 12
//! 12  leader_epoch     i32 ┘
//! 16  magic            i8   = 2
//! 17  crc              u32  CRC-32C of 21..end
//! 21  attributes       i16  codec 0-2, timestamp type 3, transactional 4, control 5, horizon 6
//! 23  last_offset_delta i32
//! 27  base_timestamp   i64
//! 35  max_timestamp    i64
//! 43  producer_id      i64
//! 51  producer_epoch   i16
//! 53  base_sequence    i32
//! 57  record_count     i32
//! 61  records, compressed as a whole by the codec of the attributes
//! ```

pub mod batch;
pub mod builder;
pub mod compression;
pub mod control;
pub mod partitioner;
#[allow(clippy::module_inception)] // `record::record` is one record of `record`s.
pub mod record;
pub mod validate;
pub mod varint;

pub use batch::{Attributes, BatchError, BatchHeader, TimestampType};
pub use builder::{BatchBuilder, BatchFields};
pub use compression::Codec;
pub use control::{EndTxnMarker, InternalBatch, InternalKind, TransactionResult};
pub use record::{Header, Headers, Record, RecordError, Records};
pub use validate::{Rejected, Scratch, Validated, ValidationRules, validate};
