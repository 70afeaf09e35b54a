//! Variable-length integers: zig-zag of the record format, and the unsigned ones of flexible
//! messages (`ByteUtils`).
//!
//! Readers advance a slice and answer `None` when it ends early or the number runs on after its
//! greatest length; bits beyond the type's width are dropped, as Kafka does.

use bytes::BufMut;

/// Most bytes of a 32-bit number.
pub const VARINT_BYTES_MAX: usize = 5;
/// Most bytes of a 64-bit number.
pub const VARLONG_BYTES_MAX: usize = 10;

/// Reads an unsigned 32-bit number.
#[inline]
pub fn read_unsigned(bytes: &mut &[u8]) -> Option<u32> {
    match bytes.split_first() {
        Some((&first, rest)) if first < 0x80 => {
            *bytes = rest;
            Some(u32::from(first))
        }
        _ => read_long(bytes, VARINT_BYTES_MAX).map(|value| value as u32),
    }
}

/// Reads a zig-zag 32-bit number.
#[inline]
pub fn read_varint(bytes: &mut &[u8]) -> Option<i32> {
    read_unsigned(bytes).map(|raw| (raw >> 1) as i32 ^ -((raw & 1) as i32))
}

/// Reads a zig-zag 64-bit number.
#[inline]
pub fn read_varlong(bytes: &mut &[u8]) -> Option<i64> {
    let raw = read_long(bytes, VARLONG_BYTES_MAX)?;
    Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

fn read_long(bytes: &mut &[u8], bytes_max: usize) -> Option<u64> {
    let mut value = 0u64;
    for (place, &byte) in bytes.iter().take(bytes_max).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            *bytes = &bytes[place + 1..];
            return Some(value);
        }
    }
    None
}

/// Appends an unsigned 32-bit number.
pub fn put_unsigned(out: &mut impl BufMut, value: u32) {
    put_long(out, u64::from(value));
}

/// Appends a zig-zag 32-bit number.
pub fn put_varint(out: &mut impl BufMut, value: i32) {
    put_unsigned(out, zig_zag(value));
}

/// Appends a zig-zag 64-bit number.
pub fn put_varlong(out: &mut impl BufMut, value: i64) {
    put_long(out, zig_zag_long(value));
}

fn put_long(out: &mut impl BufMut, mut value: u64) {
    let mut encoded = [0; VARLONG_BYTES_MAX];
    let mut length = 0;
    while value >= 0x80 {
        encoded[length] = value as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    encoded[length] = value as u8;
    out.put_slice(&encoded[..=length]);
}

/// Bytes that [`put_unsigned`] appends.
pub fn unsigned_bytes(value: u32) -> usize {
    long_bytes(u64::from(value))
}

/// Bytes that [`put_varint`] appends.
pub fn varint_bytes(value: i32) -> usize {
    unsigned_bytes(zig_zag(value))
}

/// Bytes that [`put_varlong`] appends.
pub fn varlong_bytes(value: i64) -> usize {
    long_bytes(zig_zag_long(value))
}

fn long_bytes(value: u64) -> usize {
    let bits = (u64::BITS - value.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

fn zig_zag(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

fn zig_zag_long(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_it_reads() {
        let powers = (0..64).map(|shift| 1i64 << shift);
        for value in powers.flat_map(|v| [v, v.wrapping_sub(1), v.wrapping_neg()]) {
            let mut out = Vec::new();
            put_varlong(&mut out, value);
            assert_eq!(out.len(), varlong_bytes(value), "{value}");
            assert_eq!(read_varlong(&mut out.as_slice()), Some(value));

            let value = value as i32;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_bytes(value), "{value}");
            let mut rest = out.as_slice();
            assert_eq!(read_varint(&mut rest), Some(value));
            assert!(rest.is_empty());

            let value = value as u32;
            let mut out = Vec::new();
            put_unsigned(&mut out, value);
            assert_eq!(out.len(), unsigned_bytes(value), "{value}");
            assert_eq!(read_unsigned(&mut out.as_slice()), Some(value));
        }
    }

    #[test]
    fn known_encodings() {
        for (value, bytes) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            assert_eq!(read_varint(&mut &*bytes), Some(value));
        }
    }

    #[test]
    fn refuses_endless_and_cut_numbers() {
        assert_eq!(read_varint(&mut &[][..]), None);
        assert_eq!(read_varint(&mut &[0x80, 0x80][..]), None);
        assert_eq!(read_varint(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0][..]), None);
        assert_eq!(read_varlong(&mut &[0xff; 11][..]), None);
    }
}
