//! Files beside segments: indexes and snapshots of producers.

use bytes::Bytes;
use serde_json::{Value, json};
use vltava_storage::dump::{IndexFile, SideFile, side_file};

use super::{Line, Printer};
use crate::cli::CommandError;

/// Shows a side file; false if it is none, or does not check.
pub(super) fn dump(printer: &mut Printer<'_>, content: &Bytes) -> Result<bool, CommandError> {
    match side_file(content) {
        None => return Ok(false),
        Some(SideFile::Index(index)) => printer.print(index_line(&index))?,
        Some(SideFile::Producers { index, epoch, producers }) => {
            let objects: Vec<Value> = producers
                .iter()
                .map(|(id, epoch, sequence)| {
                    json!({ "id": id.0, "epoch": epoch.0, "last_sequence": sequence.0 })
                })
                .collect();
            let text =
                format!("  producers as of index {} epoch {epoch}: {}", index.0, producers.len());
            let json = json!({
                "kind": "producers", "index": index.0, "epoch": epoch.0, "producers": objects,
            });
            let mut line = Line { text, json };
            for (id, epoch, sequence) in &producers {
                line.add(&format!("\n    producer {id} epoch {epoch} last sequence {sequence}"));
            }
            printer.print(line)?;
        }
    }
    Ok(true)
}

fn index_line(index: &IndexFile) -> Line {
    let ((base_index, base_offset), (end_index, end_offset)) = (index.base, index.end);
    let text = format!(
        "  index of segment {} of replica {}: {} entries, index {}..{} offset {}..{} up to byte {}",
        index.file.segment.0,
        index.file.replica,
        index.entries,
        base_index.0,
        end_index.0,
        base_offset,
        end_offset,
        index.end_position,
    );
    let epochs: Vec<Value> = index
        .epochs
        .iter()
        .map(|start| {
            json!({
                "epoch": start.epoch.0,
                "first_index": start.first_index.0,
                "first_offset": start.first_offset.0,
            })
        })
        .collect();
    let internal: Vec<Value> = index
        .internal
        .iter()
        .map(|(at, position, kind)| {
            json!({ "index": at.0, "position": position, "kind": format!("{kind:?}") })
        })
        .collect();
    let json = json!({
        "kind": "index",
        "segment": index.file.segment.0,
        "replica": index.file.replica.0,
        "generation": index.generation.0,
        "base_index": base_index.0,
        "base_offset": base_offset.0,
        "end_index": end_index.0,
        "end_offset": end_offset.0,
        "end_position": index.end_position,
        "max_timestamp": index.max_timestamp.0,
        "entries": index.entries,
        "epochs": epochs,
        "internal": internal,
    });
    let mut line = Line { text, json };
    for start in &index.epochs {
        line.add(&format!(
            "\n    epoch {} from index {} offset {}",
            start.epoch, start.first_index.0, start.first_offset
        ));
    }
    for (at, position, kind) in &index.internal {
        line.add(&format!("\n    internal {kind:?} at index {} byte {position}", at.0));
    }
    line
}
