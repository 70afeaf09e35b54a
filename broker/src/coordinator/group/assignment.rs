//! What a `ConsumerProtocolAssignment` assigns.
//!
//! It is the clients' own affair; this is read for people alone (`ConsumerProtocol.java`).

use super::wire::{DecodeError, Reader};

/// The topics of an assignment, each with its partitions, in its order.
pub fn read(assignment: &[u8]) -> Result<Vec<(&str, Vec<i32>)>, DecodeError> {
    let mut reader = Reader::new(assignment);
    if reader.i16()? < 0 {
        return Err(DecodeError);
    }
    let mut topics = Vec::new();
    for _ in 0..reader.array_length()? {
        let topic = reader.text()?;
        let mut partitions = Vec::new();
        for _ in 0..reader.array_length()? {
            partitions.push(reader.i32()?);
        }
        topics.push((topic, partitions));
    }
    Ok(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_version_is_read_and_rubbish_is_none() {
        let assignment =
            b"\0\x01\0\0\0\x02\0\x01b\0\0\0\x02\0\0\0\x01\0\0\0\x03\0\x01a\0\0\0\0rest";
        assert_eq!(read(assignment), Ok(vec![("b", vec![1, 3]), ("a", vec![])]));
        assert_eq!(read(b"\0\0\0\0\0\0\xff\xff\xff\xff"), Ok(vec![]));
        for bad in [&b""[..], b"\xff\xff\0\0\0\0", b"\0\0\0\0\0\x01\0\x01a\x7f\0\0\0"] {
            assert_eq!(read(bad), Err(DecodeError), "{bad:?}");
        }
    }
}
