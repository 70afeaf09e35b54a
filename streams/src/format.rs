//! How bytes are looked at: a format turns the key or the value of a record into a *view* that
//! borrows from the log.
//!
//! A format is a small marker, not a decoder with state; its view is a type family (`View<'a>`), so
//! that a closure can be handed borrowed data whose type has a name. Nothing here allocates.

use std::fmt;

use crate::json::Json;

/// Why bytes are not what their format says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{expected} expected: {reason}")]
pub struct Malformed {
    /// The format.
    pub expected: &'static str,
    /// What is wrong.
    pub reason: &'static str,
}

/// No format has this name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no format is called {0:?}; there are bytes, int32, int64, json, raw and utf8")]
pub struct UnknownFormat(pub &'static str);

/// Looks at the bytes of a key or a value.
pub trait Format: Copy + Send + Sync + fmt::Debug + 'static {
    /// What an operator sees; borrowed from the log.
    type View<'a>: Copy;

    /// The format's name, for people.
    const NAME: &'static str;

    /// Whether it is a format at all: one that is named by a text may not be. Asked when a topology
    /// is built.
    fn check(self) -> Result<(), UnknownFormat> {
        Ok(())
    }

    /// The view of `bytes`, which are absent where the record has a null.
    fn view(self, bytes: Option<&[u8]>) -> Result<Self::View<'_>, Malformed>;

    /// The same view with a shorter life. Always the identity; written out because the compiler
    /// does not know that a view of a format may be shortened.
    fn shorten<'short, 'long: 'short>(view: Self::View<'long>) -> Self::View<'short>;
}

/// A format whose view knows its bytes: what an operator may project a record to.
pub trait Borrowed: Format {
    /// The bytes of a view.
    fn bytes(view: Self::View<'_>) -> Option<&[u8]>;
}

/// The bytes as they are; absent where the record has a null. Never malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Raw;

/// Bytes that must be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blob;

/// Text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Utf8;

/// A big-endian 32-bit number, as Kafka's `IntegerSerializer` writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Int32;

/// A big-endian 64-bit number, as Kafka's `LongSerializer` writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Int64;

/// A JSON text. `checked` looks through all of it first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JsonFormat {
    checked: bool,
}

/// What may be a null.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nullable<F>(F);

/// The bytes as they are, null included.
pub fn raw() -> Raw {
    Raw
}

/// Bytes that must be there.
pub fn bytes() -> Blob {
    Blob
}

/// Text.
pub fn utf8() -> Utf8 {
    Utf8
}

/// A big-endian 32-bit number.
pub fn int32() -> Int32 {
    Int32
}

/// A big-endian 64-bit number.
pub fn int64() -> Int64 {
    Int64
}

/// A JSON text, checked whole before an operator sees it.
pub fn json() -> JsonFormat {
    JsonFormat { checked: true }
}

/// A JSON text of which only what is asked for is looked at: what is wrong elsewhere in it is not
/// noticed.
pub fn lazy_json() -> JsonFormat {
    JsonFormat { checked: false }
}

/// What `format` says, or a null.
pub fn nullable<F: Format>(format: F) -> Nullable<F> {
    Nullable(format)
}

fn present<'a>(bytes: Option<&'a [u8]>, expected: &'static str) -> Result<&'a [u8], Malformed> {
    bytes.ok_or(Malformed { expected, reason: "there is none" })
}

fn array<const N: usize>(
    bytes: Option<&[u8]>,
    expected: &'static str,
) -> Result<[u8; N], Malformed> {
    let bytes = present(bytes, expected)?;
    bytes.try_into().map_err(|_| Malformed { expected, reason: "the length is another" })
}

impl Format for Raw {
    type View<'a> = Option<&'a [u8]>;

    const NAME: &'static str = "raw";

    fn view(self, bytes: Option<&[u8]>) -> Result<Option<&[u8]>, Malformed> {
        Ok(bytes)
    }

    fn shorten<'short, 'long: 'short>(view: Self::View<'long>) -> Self::View<'short> {
        view
    }
}

impl Borrowed for Raw {
    fn bytes(view: Self::View<'_>) -> Option<&[u8]> {
        view
    }
}

impl Format for Blob {
    type View<'a> = &'a [u8];

    const NAME: &'static str = "bytes";

    fn view(self, bytes: Option<&[u8]>) -> Result<&[u8], Malformed> {
        present(bytes, "bytes")
    }

    fn shorten<'short, 'long: 'short>(view: Self::View<'long>) -> Self::View<'short> {
        view
    }
}

impl Borrowed for Blob {
    fn bytes(view: Self::View<'_>) -> Option<&[u8]> {
        Some(view)
    }
}

impl Format for Utf8 {
    type View<'a> = &'a str;

    const NAME: &'static str = "utf8";

    fn view(self, bytes: Option<&[u8]>) -> Result<&str, Malformed> {
        let bytes = present(bytes, "utf8")?;
        std::str::from_utf8(bytes)
            .map_err(|_| Malformed { expected: "utf8", reason: "the bytes are not UTF-8" })
    }

    fn shorten<'short, 'long: 'short>(view: Self::View<'long>) -> Self::View<'short> {
        view
    }
}

impl Borrowed for Utf8 {
    fn bytes(view: Self::View<'_>) -> Option<&[u8]> {
        Some(view.as_bytes())
    }
}

impl Format for Int32 {
    type View<'a> = i32;

    const NAME: &'static str = "int32";

    fn view(self, bytes: Option<&[u8]>) -> Result<i32, Malformed> {
        array(bytes, "int32").map(i32::from_be_bytes)
    }

    fn shorten<'short, 'long: 'short>(view: Self::View<'long>) -> Self::View<'short> {
        view
    }
}

impl Format for Int64 {
    type View<'a> = i64;

    const NAME: &'static str = "int64";

    fn view(self, bytes: Option<&[u8]>) -> Result<i64, Malformed> {
        array(bytes, "int64").map(i64::from_be_bytes)
    }

    fn shorten<'short, 'long: 'short>(view: Self::View<'long>) -> Self::View<'short> {
        view
    }
}

impl Format for JsonFormat {
    type View<'a> = Json<'a>;

    const NAME: &'static str = "json";

    fn view(self, bytes: Option<&[u8]>) -> Result<Json<'_>, Malformed> {
        let bytes = present(bytes, "json")?;
        if self.checked { Json::checked(bytes) } else { Json::lazy(bytes) }
    }

    fn shorten<'short, 'long: 'short>(view: Self::View<'long>) -> Self::View<'short> {
        view
    }
}

impl Borrowed for JsonFormat {
    fn bytes(view: Self::View<'_>) -> Option<&[u8]> {
        Some(view.text().as_bytes())
    }
}

impl<F: Format> Format for Nullable<F> {
    type View<'a> = Option<F::View<'a>>;

    const NAME: &'static str = F::NAME;

    fn view(self, bytes: Option<&[u8]>) -> Result<Option<F::View<'_>>, Malformed> {
        bytes.map(|bytes| self.0.view(Some(bytes))).transpose()
    }

    fn shorten<'short, 'long: 'short>(view: Self::View<'long>) -> Self::View<'short> {
        view.map(F::shorten)
    }
}

impl<F: Borrowed> Borrowed for Nullable<F> {
    fn bytes(view: Self::View<'_>) -> Option<&[u8]> {
        view.and_then(F::bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_the_bytes_or_say_why_not() {
        assert_eq!(raw().view(None), Ok(None));
        assert_eq!(bytes().view(Some(b"ab")), Ok(&b"ab"[..]));
        assert_eq!(bytes().view(None).unwrap_err().to_string(), "bytes expected: there is none");
        assert_eq!(utf8().view(Some("žluť".as_bytes())), Ok("žluť"));
        assert!(utf8().view(Some(&[0xff])).is_err());
        assert_eq!(int32().view(Some(&[0, 0, 1, 0])), Ok(256));
        assert_eq!(int64().view(Some(&(-2i64).to_be_bytes())), Ok(-2));
        assert!(int64().view(Some(&[0; 4])).is_err());
        assert_eq!(nullable(int32()).view(None), Ok(None));
        assert!(nullable(int32()).view(Some(&[1])).is_err());
    }

    #[test]
    fn json_is_checked_where_it_shall_be() {
        let broken = br#"{"a":1,"b":tru}"#;
        assert!(json().view(Some(broken)).is_err());
        let lazy = lazy_json().view(Some(broken)).unwrap();
        assert_eq!(lazy.get("a").and_then(Json::as_i64), Some(1));
        assert!(json().view(Some(b"{} x")).is_err(), "bytes behind the value");
    }
}
