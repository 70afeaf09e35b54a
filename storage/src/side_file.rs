//! Files beside a log that can be rebuilt from it: sparse indexes and producer snapshots.
//!
//! ```text
//! 0  magic    4 bytes, which kind of file
//! 4  version  u16 = 1
//! 6  spare    u16 = 0
//! 8  length   u32, bytes of the body
//! 12 crc32    u32, IEEE, of bytes 0..12 and the body
//! 16 body
//! ```
//!
//! **Invariant:** nothing depends on a side file being there: one that is missing, torn, of another
//! version or of a bad checksum reads as `None` and is built again from the batches.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::disk::{Disk, DiskFile};

const HEADER_BYTES: usize = 16;
const VERSION: u16 = 1;

/// Which kind of side file: its first four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Magic(pub(crate) [u8; 4]);

/// Frames a body.
pub(crate) fn encode(magic: Magic, body: &[u8]) -> Bytes {
    let mut file = BytesMut::with_capacity(HEADER_BYTES + body.len());
    file.put_slice(&magic.0);
    file.put_u16(VERSION);
    file.put_u16(0);
    file.put_u32(u32::try_from(body.len()).expect("side files are bounded by a segment's size"));
    let mut crc = crc32fast::Hasher::new();
    crc.update(&file);
    crc.update(body);
    file.put_u32(crc.finalize());
    file.put_slice(body);
    file.freeze()
}

/// The body of a framed file, or `None` for anything that [`encode`] did not write.
pub(crate) fn decode(magic: Magic, file: &Bytes) -> Option<Bytes> {
    let header = file.first_chunk::<HEADER_BYTES>()?;
    let [m0, m1, m2, m3, v0, v1, 0, 0, l0, l1, l2, l3, c0, c1, c2, c3] = *header else {
        return None;
    };
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if [m0, m1, m2, m3] != magic.0 || u16::from_be_bytes([v0, v1]) != VERSION {
        return None;
    }
    let body = file.len().checked_sub(HEADER_BYTES).filter(|&body| body >= length)?;
    debug_assert!(body >= length);
    let body = file.slice(HEADER_BYTES..HEADER_BYTES + length);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..12]);
    crc.update(&body);
    (crc.finalize() == u32::from_be_bytes([c0, c1, c2, c3])).then_some(body)
}

/// Writes a side file anew. What was there is removed first, so that a crash leaves the old file,
/// none, or one that does not check.
pub(crate) fn write(disk: &dyn Disk, path: &Path, file: &Bytes) -> io::Result<Arc<dyn DiskFile>> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let created = disk.create(path, file.len() as u64)?;
    created.write_at(0, &[IoSlice::new(file)])?;
    Ok(created)
}

/// Reads a side file's body, without the map.
pub(crate) fn read(disk: &dyn Disk, path: &Path, magic: Magic) -> io::Result<Option<Bytes>> {
    let file = match disk.open(path, 0) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(decode(magic, &content(&*file)?))
}

/// A whole file, copied.
pub(crate) fn content(file: &dyn DiskFile) -> io::Result<Bytes> {
    let mut content = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
    let length = file.read_at(0, &mut content)?;
    content.truncate(length);
    Ok(Bytes::from(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_what_it_wrote() {
        let magic = Magic(*b"TEST");
        let file = encode(magic, b"the body");
        assert_eq!(decode(magic, &file).as_deref(), Some(&b"the body"[..]));
        assert_eq!(decode(Magic(*b"ELSE"), &file), None);
        for length in 0..file.len() {
            assert_eq!(decode(magic, &file.slice(..length)), None, "cut to {length}");
        }
        for position in 0..file.len() {
            let mut bad = file.to_vec();
            bad[position] ^= 0x10;
            assert_eq!(decode(magic, &Bytes::from(bad)), None, "bit flipped at {position}");
        }
    }
}
