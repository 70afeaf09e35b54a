//! A JSON text that is looked at where it lies.
//!
//! Fields are found by walking the text, nothing is built and nothing allocated, except for a
//! string with escapes. For a few fields of a record this beats a decoded tree by far; for most
//! of them, [`Json::parse`] into a struct with borrowed fields does.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::format::Malformed;

const NOT_JSON: Malformed = Malformed { expected: "json", reason: "the text is not JSON" };
const NOT_TEXT: Malformed = Malformed { expected: "json", reason: "the bytes are not UTF-8" };
const NO_SUCH: Malformed = Malformed { expected: "json", reason: "the fields are not as expected" };

/// One JSON value, and all that is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    /// Looks at `bytes` without asking whether they are JSON.
    pub fn lazy(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| NOT_TEXT)?;
        Ok(Self(text.trim_ascii()))
    }

    /// Looks at `bytes` if they are exactly one JSON value.
    pub fn checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let json = Self::lazy(bytes)?;
        sonic_rs::from_str::<IgnoredAny>(json.0).map_err(|_| NOT_JSON)?;
        Ok(json)
    }

    /// The text.
    pub fn text(self) -> &'a str {
        self.0
    }

    /// A field of an object.
    pub fn get(self, field: &str) -> Option<Self> {
        let found = sonic_rs::get(self.0, [field]).ok()?;
        self.within(found.as_raw_str())
    }

    /// The items of an array, in order; none of what is no array.
    pub fn items(self) -> impl Iterator<Item = Json<'a>> {
        let items = self.0.starts_with('[').then(|| sonic_rs::to_array_iter(self.0));
        items.into_iter().flatten().map_while(move |item| self.within(item.ok()?.as_raw_str()))
    }

    /// A string. Borrowed, unless it holds escapes.
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if inner.contains('\\') {
            return sonic_rs::from_str::<String>(self.0).ok().map(Cow::Owned);
        }
        Some(Cow::Borrowed(inner))
    }

    /// A string without escapes, borrowed; none of what is something else.
    pub fn str(self) -> Option<&'a str> {
        match self.as_str()? {
            Cow::Borrowed(text) => Some(text),
            Cow::Owned(_) => None,
        }
    }

    /// A whole number.
    pub fn as_i64(self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// A number.
    pub fn as_f64(self) -> Option<f64> {
        let first = *self.0.as_bytes().first()?;
        (first == b'-' || first.is_ascii_digit()).then(|| self.0.parse().ok()).flatten()
    }

    /// A truth.
    pub fn as_bool(self) -> Option<bool> {
        match self.0 {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Whether it is the null.
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// The value as a type of the caller's, whose strings may borrow from the record.
    pub fn parse<T: Deserialize<'a>>(self) -> Result<T, Malformed> {
        sonic_rs::from_str(self.0).map_err(|_| NO_SUCH)
    }

    /// A part of the text, which the walker hands out with a shorter life.
    fn within(self, part: &str) -> Option<Self> {
        let at = part.as_ptr().addr().checked_sub(self.0.as_ptr().addr())?;
        self.0.get(at..at + part.len()).map(Json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &[u8] = br#" {"id":"o-1","note":"a\"b","total":12.5,"n":-3,"paid":true,
        "gone":null,"items":[{"sku":"x","qty":2},{"sku":"y","qty":1}]} "#;

    #[test]
    fn fields_are_found_and_borrowed() {
        let order = Json::checked(ORDER).unwrap();
        assert!(matches!(order.get("id").unwrap().as_str(), Some(Cow::Borrowed("o-1"))));
        assert!(matches!(order.get("note").unwrap().as_str(), Some(Cow::Owned(s)) if s == "a\"b"));
        assert_eq!(order.get("total").unwrap().as_f64(), Some(12.5));
        assert_eq!(order.get("n").unwrap().as_i64(), Some(-3));
        assert_eq!(order.get("paid").unwrap().as_bool(), Some(true));
        assert!(order.get("gone").unwrap().is_null());
        assert_eq!(order.get("absent"), None);
        assert_eq!(order.get("id").unwrap().as_f64(), None);
    }

    #[test]
    fn arrays_are_walked() {
        let order = Json::checked(ORDER).unwrap();
        let items = order.get("items").unwrap().items();
        let skus: Vec<_> = items.map(|item| item.get("sku").unwrap().0).collect();
        assert_eq!(skus, ["\"x\"", "\"y\""]);
        assert_eq!(order.items().count(), 0);
    }

    #[test]
    fn a_struct_borrows_from_the_record() {
        #[derive(Deserialize)]
        struct Order<'a> {
            id: &'a str,
            total: f64,
        }
        let order: Order<'_> = Json::checked(ORDER).unwrap().parse().unwrap();
        assert_eq!((order.id, order.total), ("o-1", 12.5));
        assert!(Json::lazy(b"{}").unwrap().parse::<Order<'_>>().is_err());
    }
}
