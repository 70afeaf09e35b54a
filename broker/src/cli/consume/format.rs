//! How `vltava consume` prints a record: by a format of the user's, or as JSON.

use std::io::Write;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::cli::output;
use crate::client::ConsumedRecord;

/// How records are printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Json,
    Parts(Vec<Part>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Text(String),
    Key,
    Value,
    Offset,
    Partition,
    Timestamp,
    Headers,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(format: &str) -> Result<Self, String> {
        if format == "json" {
            return Ok(Self::Json);
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            let part = match (c, c == '%' || c == '\\') {
                (c, false) => {
                    plain.push(c);
                    continue;
                }
                (escape, true) => match (escape, chars.next()) {
                    ('%', Some('k')) => Part::Key,
                    ('%', Some('v')) => Part::Value,
                    ('%', Some('o')) => Part::Offset,
                    ('%', Some('p')) => Part::Partition,
                    ('%', Some('t')) => Part::Timestamp,
                    ('%', Some('h')) => Part::Headers,
                    (escape, Some(c)) => {
                        plain.push(literal(escape, c)?);
                        continue;
                    }
                    (escape, None) => return Err(format!("{escape} at the end")),
                },
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        if !plain.ends_with('\n') {
            plain.push('\n');
        }
        parts.push(Part::Text(plain));
        Ok(Self::Parts(parts))
    }
}

fn literal(escape: char, c: char) -> Result<char, String> {
    match (escape, c) {
        ('%', '%') => Ok('%'),
        ('\\', 'n') => Ok('\n'),
        ('\\', 't') => Ok('\t'),
        ('\\', '\\') => Ok('\\'),
        _ => Err(format!("unknown {escape}{c}")),
    }
}

/// Prints records, and flushes: whoever waits for a line gets it.
pub(super) fn print(records: &[ConsumedRecord], format: &Format) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for record in records {
        match format {
            Format::Json => writeln!(out, "{}", as_json(record))?,
            Format::Parts(parts) => {
                for part in parts {
                    write_part(&mut out, part, record)?;
                }
            }
        }
    }
    out.flush()
}

fn write_part(out: &mut impl Write, part: &Part, record: &ConsumedRecord) -> std::io::Result<()> {
    match part {
        Part::Text(text) => out.write_all(text.as_bytes()),
        Part::Key => out.write_all(record.key.as_deref().unwrap_or_default()),
        Part::Value => out.write_all(record.value.as_deref().unwrap_or_default()),
        Part::Offset => write!(out, "{}", record.offset),
        Part::Partition => write!(out, "{}", record.partition),
        Part::Timestamp => write!(out, "{}", record.timestamp),
        Part::Headers => {
            for (place, (key, value)) in record.headers.iter().enumerate() {
                if place > 0 {
                    out.write_all(b",")?;
                }
                out.write_all(key)?;
                out.write_all(b"=")?;
                out.write_all(value.as_deref().unwrap_or_default())?;
            }
            Ok(())
        }
    }
}

fn as_json(record: &ConsumedRecord) -> Value {
    let header = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
        json!([output::bytes(Some(key)), output::bytes(value.as_deref())])
    };
    json!({
        "partition": record.partition.0,
        "offset": record.offset.0,
        "timestamp": record.timestamp.0,
        "key": output::bytes(record.key.as_deref()),
        "value": output::bytes(record.value.as_deref()),
        "headers": record.headers.iter().map(header).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use vltava_protocol::ids::{Offset, PartitionIndex, Timestamp};

    use super::*;

    fn record() -> ConsumedRecord {
        ConsumedRecord {
            partition: PartitionIndex(2),
            offset: Offset(17),
            timestamp: Timestamp(99),
            key: Some(b"k".to_vec()),
            value: None,
            headers: vec![(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), None)],
        }
    }

    #[test]
    fn formats_print_what_they_name() {
        let check = |format: &str, expected: Result<&str, &str>| {
            let printed = format.parse::<Format>().map(|format| {
                let Format::Parts(parts) = format else { panic!("{format:?}") };
                let mut out = Vec::new();
                for part in &parts {
                    write_part(&mut out, part, &record()).unwrap();
                }
                String::from_utf8(out).unwrap()
            });
            assert_eq!(printed.as_deref().map_err(String::as_str), expected, "{format}");
        };
        check("%p:%o %t %k=%v [%h]", Ok("2:17 99 k= [a=1,b=]\n"));
        check("100%% %k\\t\\n", Ok("100% k\t\n"));
        check("", Ok("\n"));
        check("%x", Err("unknown %x"));
        check("%", Err("% at the end"));
        check("\\q", Err("unknown \\q"));
        assert_eq!("json".parse(), Ok(Format::Json));
    }

    #[test]
    fn json_keeps_absent_values_apart_from_empty_ones() {
        let json = as_json(&record());
        assert_eq!(json["value"], Value::Null);
        assert_eq!(json["headers"], json!([["a", "1"], ["b", null]]));
    }
}
