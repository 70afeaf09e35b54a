//! Going through the bytes of one segment: which batches are whole, and what lies behind them.

use std::io;
use std::sync::Arc;

use vltava_protocol::record::batch::{BatchHeader, verify_crc};
use vltava_protocol::record::control::InternalKind;

use super::TAIL_CHUNK_BYTES;
use crate::epochs::Epochs;
use crate::flush::SegmentFile;
use crate::ids::LogIndex;
use crate::index::{BatchStart, SegmentIndex};
use crate::log::internal_of;
use crate::scan::{Access, WalkError, Walker, read_at};

/// Takes the batches of a file into its index, up to `limit` or `length`: by their headers below the
/// position `durable`, with their checksums above it and at the limit, and everywhere with an epoch
/// of the list.
/// Returns what is wrong with the bytes at the index's end, if that is why it ends there.
pub(crate) fn scan_batches(
    index: &mut SegmentIndex,
    file: &Arc<SegmentFile>,
    length: u64,
    limit: Option<LogIndex>,
    durable: u64,
    epochs: &Epochs,
) -> io::Result<Option<String>> {
    let mut walker = Walker::new(file.clone(), length, Access::Pread);
    loop {
        let at = index.end();
        if limit.is_some_and(|limit| at.index >= limit) || at.position >= length {
            return Ok(None);
        }
        // Behind the last one no header tells whether its length is right; its checksum does.
        let is_last = limit == Some(at.index.next());
        match next_batch(&mut walker, at, at.position < durable && !is_last, epochs)? {
            Ok((header, kind)) => index.push(&header, kind),
            Err(reason) => return Ok(Some(reason)),
        }
    }
}

type NextBatch = Result<(BatchHeader, Option<InternalKind>), String>;

/// The batch at `at`, or what is wrong with the bytes there.
fn next_batch(
    walker: &mut Walker,
    at: BatchStart,
    durable: bool,
    epochs: &Epochs,
) -> io::Result<NextBatch> {
    let header = match walker.header(at.position) {
        Ok(header) => header,
        Err(WalkError::Io(error)) => return Err(error),
        Err(error @ WalkError::Bad { .. }) => return Ok(Err(error.to_string())),
    };
    let BatchHeader { base_offset, leader_epoch, .. } = header;
    if base_offset != at.offset
        || leader_epoch < at.epoch_before
        || !epochs.allows(at.index, leader_epoch)
    {
        let BatchStart { index, offset, epoch_before, .. } = at;
        let expected = epochs.at(index).unwrap_or(epoch_before);
        return Ok(Err(format!(
            "a batch of offset {base_offset} and epoch {leader_epoch} where offset {offset} and \
             epoch {expected} belong"
        )));
    }
    // Internal batches are small and read whole in any case: their kind is in the payload.
    if durable && !header.is_internal() {
        return Ok(Ok((header, None)));
    }
    let bytes = walker.whole(at.position, header.size())?;
    if !verify_crc(&bytes) {
        return Ok(Err("a batch does not fit its checksum".into()));
    }
    Ok(match internal_of(at.index, &header, &bytes) {
        Ok(internal) => Ok((header, internal.map(|internal| internal.kind))),
        Err(error) => Err(error.to_string()),
    })
}

/// Writes what was read once more: the process before may have seen a sync fail, and then the kernel
/// takes pages for clean that never reached the disk.
pub(super) fn write_again(file: &SegmentFile, range: std::ops::Range<u64>) -> io::Result<()> {
    let mut position = range.start;
    while position < range.end {
        let length = (range.end - position).min(TAIL_CHUNK_BYTES as u64) as usize;
        let bytes = read_at(file, position, length)?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.file.write_at(position, &[io::IoSlice::new(&bytes)])?;
        position += bytes.len() as u64;
    }
    Ok(())
}

/// Whether anything but zeros lies in the file from `position` on.
pub(super) fn has_content(file: &SegmentFile, mut position: u64, length: u64) -> io::Result<bool> {
    while position < length {
        let chunk = (length - position).min(TAIL_CHUNK_BYTES as u64) as usize;
        let bytes = read_at(file, position, chunk)?;
        if bytes.iter().any(|&byte| byte != 0) {
            return Ok(true);
        }
        if bytes.is_empty() {
            break;
        }
        position += bytes.len() as u64;
    }
    Ok(false)
}
