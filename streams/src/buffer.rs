//! Where operators write: keys and values as bytes, into memory that is used again.

use std::fmt;
use std::io;

use serde::Serialize;

/// A key or a value being written. Absent (a null) until something is written to it.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    is_present: bool,
}

impl Buffer {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.is_present = false;
    }

    /// What was written; `None` where nothing was.
    pub fn get(&self) -> Option<&[u8]> {
        self.is_present.then_some(&self.bytes)
    }

    /// Adds bytes. An empty slice makes an empty key or value of a null.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.is_present = true;
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Adds a big-endian 32-bit number.
    pub fn int32(&mut self, number: i32) -> &mut Self {
        self.bytes(&number.to_be_bytes())
    }

    /// Adds a big-endian 64-bit number.
    pub fn int64(&mut self, number: i64) -> &mut Self {
        self.bytes(&number.to_be_bytes())
    }

    /// Adds `value` as JSON.
    ///
    /// # Panics
    /// When the value cannot be JSON, such as a map whose keys are no strings.
    pub fn json(&mut self, value: &impl Serialize) -> &mut Self {
        self.is_present = true;
        serde_json::to_writer(&mut self.bytes, value).expect("the type can be JSON");
        self
    }

    /// Back to a null.
    pub fn null(&mut self) -> &mut Self {
        self.clear();
        self
    }
}

impl fmt::Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The records that one record becomes, in order.
#[derive(Debug, Default)]
pub struct Emitter {
    key: Buffer,
    value: Buffer,
    bytes: Vec<u8>,
    /// Where each key and value ends in `bytes`, if it is there.
    records: Vec<(Option<usize>, Option<usize>)>,
}

impl Emitter {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }

    /// Adds a record.
    pub fn emit(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        let mut end = |part: Option<&[u8]>| {
            self.bytes.extend_from_slice(part?);
            Some(self.bytes.len())
        };
        let record = (end(key), end(value));
        self.records.push(record);
    }

    /// Adds a record whose key and value are written by `write`.
    pub fn emit_with(&mut self, write: impl FnOnce(&mut Buffer, &mut Buffer)) {
        let (mut key, mut value) = (std::mem::take(&mut self.key), std::mem::take(&mut self.value));
        key.clear();
        value.clear();
        write(&mut key, &mut value);
        self.emit(key.get(), value.get());
        (self.key, self.value) = (key, value);
    }

    /// The records added, in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = (Option<&[u8]>, Option<&[u8]>)> {
        let mut at = 0;
        self.records.iter().map(move |&(key, value)| {
            let mut part = |end: Option<usize>| {
                let start = std::mem::replace(&mut at, end?);
                Some(&self.bytes[start..at])
            };
            (part(key), part(value))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn nothing_written_is_a_null() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.get(), None);
        write!(buffer, "{}-{}", 1, 2).unwrap();
        assert_eq!(buffer.get(), Some(&b"1-2"[..]));
        assert_eq!(buffer.null().get(), None);
        assert_eq!(buffer.text("").get(), Some(&b""[..]));
        buffer.clear();
        buffer.int32(1).int64(-1).json(&[1, 2]);
        assert_eq!(buffer.get().unwrap().len(), 4 + 8 + 5);
    }

    #[test]
    fn records_come_out_as_they_went_in() {
        let mut emitter = Emitter::default();
        emitter.emit(None, Some(b"v"));
        emitter.emit_with(|key, _| {
            key.text("k");
        });
        emitter.emit(Some(b""), None);
        let records: Vec<_> = emitter.records().collect();
        assert_eq!(
            records,
            [(None, Some(&b"v"[..])), (Some(&b"k"[..]), None), (Some(&b""[..]), None)]
        );
        emitter.clear();
        assert_eq!(emitter.records().count(), 0);
    }
}
