//! Where the tree drifts from its style: a test, not a reviewer, says so.
//!
//! Crude on purpose: it reads lines, not syntax. What it cannot see (a name that lies, a comment
//! that repeats the code) stays a reader's work.

use std::path::{Path, PathBuf};

/// Aim for 600; this is where drift becomes a fault.
const FILE_LINES_MAX: usize = 700;
/// Aim for 100, to which rustfmt holds code; comments are left to their writers, and to this.
const LINE_CHARS_MAX: usize = 110;
/// Aim for 70.
const FUNCTION_LINES_MAX: usize = 100;
/// The crates.
const CRATES: [&str; 6] = ["benches", "broker", "protocol", "storage", "streams", "tests"];
/// The only file with unsafe code.
const UNSAFE_FILES: [&str; 1] = ["storage/src/disk/mapped.rs"];
/// The only files that name the raft crate, so that it can be replaced.
const RAFT_FILES: [&str; 3] = [
    "broker/src/replica/group.rs",
    "broker/src/replica/group/convert.rs",
    "broker/src/replica/log_store.rs",
];

/// A source file: its path from the root of the repository, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines with their numbers, without those that are comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent");
    let mut sources = Vec::new();
    for name in CRATES {
        collect(root, &root.join(name), &mut sources);
    }
    assert!(sources.len() > 50, "only {} sources found", sources.len());
    sources
}

fn collect(root: &Path, directory: &Path, sources: &mut Vec<Source>) {
    let entries = std::fs::read_dir(directory).expect("the tree can be read");
    for entry in entries {
        let path: PathBuf = entry.expect("the tree can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(root, &path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
            let relative = path.strip_prefix(root).expect("it lies below the root");
            let path = relative.to_str().expect("paths are UTF-8").to_owned();
            sources.push(Source { path, text });
        }
    }
}

/// Fails with every finding of `look`, so that one run shows all of them.
fn check(look: impl Fn(&Source) -> Vec<String>) {
    let findings: Vec<String> = sources().iter().flat_map(look).collect();
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn files_are_short() {
    check(|source| {
        let lines = source.text.lines().count();
        let long = lines > FILE_LINES_MAX;
        long.then(|| format!("{}: {lines} lines", source.path)).into_iter().collect()
    });
}

#[test]
fn lines_are_short() {
    check(|source| {
        // A literal cannot always be broken, an attribute's arguments are not by rustfmt.
        let lines = source.text.lines().enumerate();
        let lines = lines.filter(|(_, line)| !line.contains('"') && !line.contains("#["));
        let long = lines.filter(|(_, line)| line.chars().count() > LINE_CHARS_MAX);
        long.map(|(index, _)| format!("{}:{}: long line", source.path, index + 1)).collect()
    });
}

/// From a line that starts a function to the brace that closes at its indentation.
#[test]
fn functions_are_short() {
    check(|source| {
        let lines: Vec<&str> = source.text.lines().collect();
        let mut findings = Vec::new();
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if !starts_function(line.trim_start()) {
                continue;
            }
            let closing = format!("{}}}", " ".repeat(indent));
            let length = lines[start..].iter().position(|line| *line == closing);
            if let Some(length) = length
                && length >= FUNCTION_LINES_MAX
            {
                let (path, line) = (&source.path, start + 1);
                findings.push(format!("{path}:{line}: function of {} lines", length + 1));
            }
        }
        findings
    });
}

fn starts_function(line: &str) -> bool {
    let words = ["pub", "pub(crate)", "pub(super)", "const", "async", "fn"];
    let head: Vec<&str> = line.split(' ').take_while(|word| words.contains(word)).collect();
    head.last() == Some(&"fn") && line.ends_with('{')
}

/// Fails where code holds one of `words`, in files that `allowed` does not name.
fn check_words(words: &[&str], allowed: impl Fn(&str) -> bool) {
    check(|source| {
        if allowed(&source.path) {
            return Vec::new();
        }
        let mut findings = Vec::new();
        for (number, line) in source.code() {
            for word in words {
                if line.contains(word) {
                    findings.push(format!("{}:{number}: {word}", source.path));
                }
            }
        }
        findings
    });
}

/// This file spells the words that it looks for.
fn is_this_file(path: &str) -> bool {
    path == "tests/tests/tidy.rs"
}

#[test]
fn nothing_is_left_to_do() {
    check_words(&["todo!(", "unimplemented!(", "dbg!("], is_this_file);
    check_words(&["#[ignore", "#[should_panic"], is_this_file);
    check(|source| {
        let words = ["TODO", "FIXME", "XXX"];
        let lines = source.text.lines().enumerate().filter(|(_, line)| {
            line.trim_start().starts_with("//") && words.iter().any(|word| line.contains(word))
        });
        lines.map(|(index, _)| format!("{}:{}: left to do", source.path, index + 1)).collect()
    });
}

#[test]
fn unsafe_code_has_two_rooms() {
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "allow(unsafe_code"];
    check_words(&words, |path| {
        // A crate root opens the door of a room; the room itself is named there.
        is_this_file(path) || UNSAFE_FILES.contains(&path) || path == "storage/src/disk.rs"
    });
}

#[test]
fn raft_has_one_room() {
    // The tests that pin facts of the dependency, and their generated messages, are the exception.
    check_words(&["use raft::", " raft::", "(raft::"], |path| {
        is_this_file(path) || RAFT_FILES.contains(&path) || path.starts_with("broker/tests/raft")
    });
}

#[test]
fn only_the_broker_knows_tokio() {
    let broker = |path: &str| {
        path.starts_with("broker/") || path.starts_with("tests/") || path.starts_with("benches/")
    };
    check_words(&["tokio::"], broker);
}
