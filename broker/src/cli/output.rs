//! What commands print: tables for people, JSON for programs.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::CommandError;

/// Prints a table without lines, as wide as its content.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> Result<(), CommandError> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table.add_rows(rows);
    // Each cell is padded on both sides; the outer ones would only shift the table.
    let trim = |line: String| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned();
    let text: Vec<String> = table.lines().map(trim).collect();
    line(&text.join("\n"))
}

/// Prints one line.
pub fn line(text: &str) -> Result<(), CommandError> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(CommandError::output)
}

/// Prints a JSON value.
pub fn json(value: &Value) -> Result<(), CommandError> {
    line(&format!("{value:#}"))
}

/// Joins ids with commas; `-` if there are none.
pub fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "-".to_owned() } else { items.join(",") }
}

/// Bytes as a JSON value: a string if they are UTF-8, else `{"base16": "..."}`; null if there are
/// none.
pub fn bytes(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => Value::from(text),
        Some((bytes, Err(_))) => {
            let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "base16": digits.concat() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_when_they_can_be() {
        assert_eq!(bytes(Some("řeka".as_bytes())), Value::from("řeka"));
        assert_eq!(bytes(Some(&[0xff, 0x01])), serde_json::json!({ "base16": "ff01" }));
        assert_eq!(bytes(None), Value::Null);
    }

    #[test]
    fn lists_are_never_empty() {
        assert_eq!(list([1, 2]), "1,2");
        assert_eq!(list::<i32>([]), "-");
    }
}
