//! `topic`, `produce`, `consume`, `log dump`: for people by default, for programs with `--json`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use serde_json::Value;
use vltava_tests::harness::{Broker, BrokerOptions, Tested, requests};

use crate::{BINARY, COMMAND_DEADLINE, Row, vltava};

/// Commands that need any broker at all, or none.
pub(crate) const OF_A_CLIENT: &[Row] = &[
    ("topics_come_and_go", topics_come_and_go),
    ("lines_come_back_as_records", lines_come_back_as_records),
    ("records_come_back_as_json", records_come_back_as_json),
    ("no_broker_is_an_error", no_broker_is_an_error),
];

/// Commands that need the broker's own files.
pub(crate) const OF_THE_BROKER: &[Row] =
    &[("log_dump_shows_the_records", log_dump_shows_the_records)];

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs a command that must succeed against `broker`; gives its standard output.
pub(crate) fn on(broker: &Broker, arguments: &[&str], input: &str) -> Tested<String> {
    let output = vltava(&[arguments, &["--bootstrap", broker.bootstrap()]].concat(), input)?;
    assert!(output.status.success(), "{arguments:?}: {}", output.stderr);
    Ok(output.stdout)
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> Tested<bool>) -> Tested {
    let end = Instant::now() + COMMAND_DEADLINE;
    while !holds()? {
        if Instant::now() >= end {
            return Err(Failed::from(format!("{what}: not within {COMMAND_DEADLINE:?}")));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Every JSON document of a command's output: one, or one a line.
fn documents(text: &str) -> Tested<Vec<Value>> {
    let documents: Result<_, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    Ok(documents?)
}

/// The one JSON document of a command that must succeed against `broker`.
pub(crate) fn document(broker: &Broker, arguments: &[&str]) -> Tested<Value> {
    let output = on(broker, &[arguments, &["--json"]].concat(), "")?;
    Ok(serde_json::from_str(&output)?)
}

/// Whether `word` stands anywhere in a document.
fn says(document: &Value, word: &str) -> bool {
    match document {
        Value::String(text) => text == word,
        Value::Array(items) => items.iter().any(|item| says(item, word)),
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name == word || says(value, word))
        }
        _ => false,
    }
}

fn topics_come_and_go() -> Tested {
    let broker = Broker::start(BrokerOptions::new(BINARY))?;
    let name = requests::unique("cli");
    let create =
        ["topic", "create", &name, "--partitions", "3", "--config", "retention.ms=9000000"];
    on(&broker, &create, "")?;
    assert!(on(&broker, &["topic", "list"], "")?.contains(&name));
    let listed = documents(&on(&broker, &["topic", "list", "--json"], "")?)?;
    assert!(listed.iter().any(|document| says(document, &name)));
    assert!(on(&broker, &["topic", "describe", &name], "")?.contains(&name));
    let described = documents(&on(&broker, &["topic", "describe", &name, "--json"], "")?)?;
    assert!(described.iter().any(|document| says(document, &name)));
    let text = serde_json::to_string(&described)?;
    assert!(text.contains("retention.ms") && text.contains("9000000"), "{text}");

    let again = vltava(&["topic", "create", &name, "--bootstrap", broker.bootstrap()], "")?;
    assert!(!again.status.success());
    assert!(again.stderr.contains(&name), "{}", again.stderr);
    on(&broker, &["topic", "delete", &name], "")?;
    let listed = documents(&on(&broker, &["topic", "list", "--json"], "")?)?;
    assert!(!listed.iter().any(|document| says(document, &name)));
    Ok(())
}

fn lines_come_back_as_records() -> Tested {
    let broker = Broker::start(BrokerOptions::new(BINARY))?;
    let name = requests::unique("lines");
    on(&broker, &["topic", "create", &name, "--partitions", "1"], "")?;
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let input = format!("one {compression}\ntwo {compression}\n");
        on(&broker, &["produce", &name, "--compression", compression], &input)?;
    }
    let consume = ["consume", &name, "--from-beginning", "--max-messages", "10"];
    let output = on(&broker, &[&consume[..], &["--format", "%o %v"]].concat(), "")?;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"].into_iter();
    let expected: Vec<String> = codecs
        .flat_map(|codec| [format!("one {codec}"), format!("two {codec}")])
        .enumerate()
        .map(|(offset, value)| format!("{offset} {value}"))
        .collect();
    assert_eq!(output.lines().collect::<Vec<_>>(), expected);
    let tail = ["consume", &name, "--partition", "0", "--offset", "8", "--max-messages", "2"];
    let output = on(&broker, &[&tail[..], &["--format", "%v"]].concat(), "")?;
    assert_eq!(output, "one zstd\ntwo zstd\n");
    Ok(())
}

fn records_come_back_as_json() -> Tested {
    let broker = Broker::start(BrokerOptions::new(BINARY))?;
    let name = requests::unique("json");
    on(&broker, &["topic", "create", &name, "--partitions", "1"], "")?;
    let produce = ["produce", &name, "--key-separator", ":", "--header", "origin=test", "--json"];
    on(&broker, &produce, "k1:v1\nk2:v2\n")?;
    let consume = ["consume", &name, "--from-beginning", "--max-messages", "2", "--json"];
    let records = documents(&on(&broker, &consume, "")?)?;
    assert_eq!(records.len(), 2, "{records:?}");
    for (number, record) in (0_i64..).zip(&records) {
        assert_eq!(record["partition"], 0);
        assert_eq!(record["offset"], number);
        assert_eq!(record["key"], format!("k{}", number + 1));
        assert_eq!(record["value"], format!("v{}", number + 1));
        assert!(says(&record["headers"], "origin") && says(&record["headers"], "test"));
        assert!(record["timestamp"].is_i64() || record["timestamp"].is_string(), "{record}");
    }
    Ok(())
}

/// Looks at the files of a stopped broker.
fn log_dump_shows_the_records() -> Tested {
    let mut broker = Broker::start(BrokerOptions::new(BINARY))?;
    let name = requests::unique("dump");
    on(&broker, &["topic", "create", &name, "--partitions", "1"], "")?;
    on(&broker, &["produce", &name, "--compression", "none"], "a value to be found\n")?;
    broker.terminate()?;
    let mut found = false;
    for file in logs(broker.data_dir())? {
        let path = file.to_str().ok_or("paths are UTF-8 here")?;
        let text = vltava(&["log", "dump", path, "--records"], "")?;
        assert!(text.status.success(), "{path}: {}", text.stderr);
        found |= text.stdout.contains("a value to be found");
        let json = vltava(&["log", "dump", path, "--records", "--json"], "")?;
        assert!(!documents(&json.stdout)?.is_empty(), "{path}");
    }
    assert!(found, "no segment shows the record");
    let nothing = vltava(&["log", "dump", "/no/such/file"], "")?;
    assert!(!nothing.status.success());
    assert!(nothing.stderr.contains("/no/such/file"));
    Ok(())
}

/// All segment files under a directory.
fn logs(directory: &Path) -> Tested<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(logs(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
        }
    }
    Ok(found)
}

fn no_broker_is_an_error() -> Tested {
    // Port 1 is nobody's on a machine for tests.
    let address = "127.0.0.1:1";
    let output = vltava(&["topic", "list", "--bootstrap", address], "")?;
    assert!(!output.status.success());
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains(address), "{}", output.stderr);
    Ok(())
}
