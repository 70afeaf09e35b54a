//! A format that is chosen by its name when the program runs, such as from a configuration.

use crate::format::{Format, Malformed, UnknownFormat, bytes, int32, int64, json, raw, utf8};
use crate::json::Json;

/// See [`format()`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnyFormat(&'static str);

/// What [`AnyFormat`] shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnyView<'a> {
    /// Of `raw`, where the record has a null.
    Null,
    /// Of `raw` and `bytes`.
    Bytes(&'a [u8]),
    /// Of `utf8`.
    Text(&'a str),
    /// Of `int32` and `int64`.
    Number(i64),
    /// Of `json`.
    Json(Json<'a>),
}

/// The format of this name: `bytes`, `int32`, `int64`, `json`, `raw` or `utf8`. Another name is an
/// error of the topology, found when it is built.
pub fn format(name: &'static str) -> AnyFormat {
    AnyFormat(name)
}

impl Format for AnyFormat {
    type View<'a> = AnyView<'a>;

    const NAME: &'static str = "any";

    fn check(self) -> Result<(), UnknownFormat> {
        match self.0 {
            "bytes" | "int32" | "int64" | "json" | "raw" | "utf8" => Ok(()),
            other => Err(UnknownFormat(other)),
        }
    }

    fn view(self, data: Option<&[u8]>) -> Result<AnyView<'_>, Malformed> {
        match self.0 {
            "bytes" => bytes().view(data).map(AnyView::Bytes),
            "int32" => int32().view(data).map(|number| AnyView::Number(number.into())),
            "int64" => int64().view(data).map(AnyView::Number),
            "json" => json().view(data).map(AnyView::Json),
            "raw" => raw().view(data).map(|data| data.map_or(AnyView::Null, AnyView::Bytes)),
            "utf8" => utf8().view(data).map(AnyView::Text),
            _ => Err(Malformed { expected: "a known format", reason: "it has another name" }),
        }
    }

    fn shorten<'short, 'long: 'short>(view: AnyView<'long>) -> AnyView<'short> {
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_a_format() {
        let number = 7i64.to_be_bytes();
        for (name, data, expected) in [
            ("raw", None, AnyView::Null),
            ("bytes", Some(&b"x"[..]), AnyView::Bytes(b"x")),
            ("utf8", Some(b"x"), AnyView::Text("x")),
            ("int64", Some(&number[..]), AnyView::Number(7)),
            ("int32", Some(&number[4..]), AnyView::Number(7)),
        ] {
            assert_eq!(format(name).check(), Ok(()));
            assert_eq!(format(name).view(data), Ok(expected), "{name}");
        }
        assert!(matches!(format("json").view(Some(b"{}")), Ok(AnyView::Json(_))));
        assert_eq!(format("avro").check(), Err(UnknownFormat("avro")));
    }
}
