//! A file of the write-ahead set: its rounds and their records.
//!
//! A recycled file is full of old rounds with right checksums: those are named stale. What is no
//! round is damage only if a later round of the same file follows, else it is where writing ended.

use bytes::Bytes;
use serde_json::{Value, json};
use vltava_storage::wal::{self, Dumped, DumpedHeader, Record};

use super::{Line, Printer};
use crate::cli::CommandError;

pub(super) fn dump(printer: &mut Printer<'_>, content: &Bytes) -> Result<(), CommandError> {
    let places: Vec<Dumped> = wal::dump(content).collect();
    let headers = || places.iter().filter_map(header);
    let sequence = headers().map(|header| header.sequence).max();
    let last = headers().filter(|header| Some(header.sequence) == sequence).map(|h| h.number).max();
    let mut number = None;
    for place in places {
        match place {
            Dumped::Round { position, header, records } => {
                let stale = Some(header.sequence) != sequence || number > Some(header.number);
                if !stale {
                    number = Some(header.number);
                }
                printer.print(round_line(position, &header, stale))?;
                match records {
                    Err(error) => printer.damage(position, &error.to_string())?,
                    Ok(_) if stale => {}
                    Ok(records) => {
                        for record in &records {
                            printer.print(record_line(record))?;
                        }
                    }
                }
            }
            Dumped::Gap { position, end, error } if number < last => {
                printer.damage(position, &format!("{error}, up to {end}"))?;
            }
            Dumped::Gap { position, end, error } => {
                let text = format!("  {position:>10}  {error}, up to {end}");
                let error = error.to_string();
                let json = json!({ "kind": "end", "position": position, "error": error });
                printer.print(Line { text, json })?;
            }
        }
    }
    Ok(())
}

fn header(place: &Dumped) -> Option<&DumpedHeader> {
    match place {
        Dumped::Round { header, .. } => Some(header),
        Dumped::Gap { .. } => None,
    }
}

fn round_line(position: u64, header: &DumpedHeader, stale: bool) -> Line {
    let text = format!(
        "  {position:>10}  {}round {} of file {}, oldest needed file {}",
        if stale { "stale " } else { "" },
        header.number,
        header.sequence,
        header.oldest
    );
    let json = json!({
        "kind": "round",
        "position": position,
        "number": header.number,
        "sequence": header.sequence,
        "oldest": header.oldest,
        "stale": stale,
    });
    Line { text, json }
}

fn record_line(record: &Record) -> Line {
    let file = |file: &vltava_storage::ids::FileId| {
        format!("replica {} segment {}", file.replica, file.segment)
    };
    let (what, text) = match record {
        Record::Write { file: id, position, bytes } => {
            ("write", format!("{} position {position}: {} bytes", file(id), bytes.len()))
        }
        Record::Create { header } => (
            "create",
            format!(
                "{} generation {} base index {} base offset {}",
                file(&header.id),
                header.generation.0,
                header.base_index.0,
                header.base_offset
            ),
        ),
        Record::Synced { file: id, position } => {
            ("synced", format!("{} up to {position}", file(id)))
        }
        Record::Delete { file: id } => ("delete", file(id)),
        Record::State { replica, state } => ("state", format!("replica {replica} {state:?}")),
        Record::Forget { replica } => ("forget", format!("replica {replica}")),
        Record::Node(node) => ("node", format!("{node:?}")),
    };
    let json = json!({ "kind": "record", "record": what, "text": Value::from(text.clone()) });
    Line { text: format!("              {what} {text}"), json }
}
