//! A part of a response: bytes, and where the same bytes lie in a file, if they do.
//!
//! Most parts are bytes in memory. A run of batches is a view of a mapped file, and whoever writes it
//! to a socket may have the kernel take it from the file instead.
//!
//! **Invariant:** both are the same bytes for as long as the part lives; whoever makes one promises
//! it. Nothing in this crate reads the file.

use std::fs::File;
use std::sync::Arc;

use bytes::{Buf, Bytes};

/// See the module. Equal parts have equal bytes, wherever these lie.
#[derive(Clone, Debug)]
pub struct Part {
    bytes: Bytes,
    file: Option<FileRange>,
}

/// Where the bytes of a part lie in a file; it keeps the file open.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// The file, open for reading.
    pub file: Arc<File>,
    /// Where the first of the bytes lies.
    pub position: u64,
}

impl Part {
    /// Bytes that lie in this file as well, where they never change.
    pub fn in_file(bytes: Bytes, file: Option<FileRange>) -> Self {
        Self { bytes, file }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes. Touching them may read the file through its map.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where they lie in a file, if they do and nobody has decided otherwise.
    pub fn file(&self) -> Option<&FileRange> {
        self.file.as_ref()
    }

    /// From now on they are to be taken from memory.
    pub fn forget_file(&mut self) {
        self.file = None;
    }

    /// Drops `count` bytes from the front.
    pub fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(file) = &mut self.file {
            file.position += count as u64;
        }
    }
}

impl From<Bytes> for Part {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, file: None }
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Part {}
