//! `vltava log dump`: what the files of a data directory hold, and what is wrong with them.
//!
//! Reads files as they lie on disk; the broker need not run, and may. Each file is told by its
//! first bytes, not by its name: segments (`logs/*/*.log`), their indexes (`*.index`), snapshots of
//! producers (`*.producers`) and the write-ahead files (`wal/*`).
//!
//! A torn tail is what an append under way looks like, and is named without being an error. Damage
//! is an error: the command then ends with status 1.

mod segment;
mod side;
mod wal;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::Value;
use vltava_storage::paths::parse_wal_file_name;
use vltava_storage::segment::SegmentHeader;
use vltava_storage::segment_header::HeaderError;

use super::CommandError;
use super::progress::Progress;

/// The commands on files of logs.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Show what files of a data directory hold.
    #[command(after_help = "Examples:
  vltava log dump vltava-data/logs/*/*.log
  vltava log dump --records --json vltava-data/logs/*/*.log
  vltava log dump vltava-data/wal/*")]
    Dump(DumpArgs),
}

/// `vltava log dump`.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// The files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Show the records of each batch too.
    #[arg(long)]
    records: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// One thing that a file holds: a line for people and an object for programs.
struct Line {
    text: String,
    json: Value,
}

impl Line {
    /// Adds to the text what the object has too.
    fn add(&mut self, text: &str) {
        self.text.push_str(text);
    }
}

/// Where the lines of one file go.
struct Printer<'a> {
    out: &'a mut dyn Write,
    file: &'a Path,
    json: bool,
    damages: usize,
    progress: &'a mut Progress,
    /// Bytes of the files before this one.
    before: u64,
}

impl Printer<'_> {
    fn print(&mut self, line: Line) -> Result<(), CommandError> {
        let Line { text, json: mut object } = line;
        let written = if self.json {
            object["file"] = Value::from(self.file.display().to_string());
            writeln!(self.out, "{object}")
        } else {
            writeln!(self.out, "{text}")
        };
        written.map_err(CommandError::output)
    }

    /// The walk has come to this place of the file.
    fn at(&mut self, position: usize) {
        self.progress.at(self.before + position as u64);
    }

    /// Something that is there although no crash of ours leaves it.
    fn damage(&mut self, position: u64, what: &str) -> Result<(), CommandError> {
        self.damages += 1;
        self.print(Line {
            text: format!("  {position:>10}  DAMAGED {what}"),
            json: serde_json::json!({ "kind": "damage", "position": position, "error": what }),
        })
    }
}

/// Runs one of them.
pub fn run(command: &LogCommand) -> Result<(), CommandError> {
    let LogCommand::Dump(args) = command;
    let stdout = std::io::stdout();
    let size = |file: &PathBuf| std::fs::metadata(file).map_or(0, |file| file.len());
    // Where the lines themselves scroll by, a bar would only be in their way.
    let mut progress = if stdout.is_terminal() {
        Progress::none()
    } else {
        Progress::bytes(args.files.iter().map(size).sum())
    };
    let (mut damages, mut before) = (0, 0);
    let mut out = std::io::BufWriter::new(stdout.lock());
    for file in &args.files {
        let content = std::fs::read(file)
            .map_err(|error| CommandError::Io { what: file.display().to_string(), error })?;
        let (json, bytes) = (args.json, content.len() as u64);
        let progress = &mut progress;
        let mut printer = Printer { out: &mut out, file, json, damages: 0, progress, before };
        dump(&mut printer, &content.into(), args.records)?;
        damages += printer.damages;
        before += bytes;
    }
    drop(progress);
    out.flush().map_err(CommandError::output)?;
    if damages > 0 {
        return Err(CommandError::Argument(format!("{damages} damaged place(s) found")));
    }
    Ok(())
}

fn dump(
    printer: &mut Printer<'_>,
    content: &Bytes,
    with_records: bool,
) -> Result<(), CommandError> {
    if !printer.json {
        let title = format!("{} ({} bytes)", printer.file.display(), content.len());
        printer.print(Line { text: title, json: Value::Null })?;
    }
    if is_write_ahead(printer.file, content) {
        return wal::dump(printer, content);
    }
    match SegmentHeader::decode(content) {
        Ok(header) => segment::dump(printer, &header, content, with_records),
        Err(HeaderError::NotASegment) if side::dump(printer, content)? => Ok(()),
        Err(HeaderError::NotASegment) => printer.damage(0, "not a file of a log, or a damaged one"),
        Err(error) => printer.damage(0, &error.to_string()),
    }
}

/// A file of the write-ahead set may begin with anything after a crash: then its name tells.
fn is_write_ahead(file: &Path, content: &Bytes) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    content.starts_with(b"VWAL") || name.and_then(parse_wal_file_name).is_some()
}

#[cfg(test)]
mod tests;
