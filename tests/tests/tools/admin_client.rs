//! The Java admin client, method by method: what Apache Kafka 4.3.1 answers, this broker answers.
//!
//! `AdminTranscript` writes down every answer. `tests/clients/java/admin.transcript` is what it
//! wrote against Apache Kafka; with a fresh one at hand, record it anew with
//!
//! ```text
//! VLTAVA_TEST_BOOTSTRAP=host:port VLTAVA_TEST_RECORD=1 cargo test -p vltava-tests --test tools admin_client
//! ```
//!
//! A section whose calls are all advertised must be the same, line by line, but for
//! [`DIFFERENCES`]; in any other, every call must fail at once because it is not supported.
#![allow(clippy::disallowed_methods, reason = "the transcript is a file of the source tree")]

use std::collections::BTreeMap;
use std::time::Duration;

use libtest_mimic::{Completion, Failed};
use vltava_tests::harness::{Broker, RawClient, Tested, paths, process, requests, toolchain};

/// How long the whole program may run.
const DEADLINE: Duration = Duration::from_mins(3);
/// Writes the transcript instead of comparing with it.
const RECORD: &str = "VLTAVA_TEST_RECORD";

/// Where this broker means to differ: how Kafka's line begins, and all of ours; none for a line
/// that one of the two does not have.
const DIFFERENCES: [(Option<&str>, Option<&str>); 5] = [
    // A topic chooses between synced and cached.
    (
        None,
        Some(
            "  durability=fsync DEFAULT_CONFIG STRING [ConfigSynonym(name=log.durability, \
             value=fsync, source=DEFAULT_CONFIG)]",
        ),
    ),
    // Kafka's feature of eligible leader replicas makes it a dynamic default of the cluster.
    (
        Some("  min.insync.replicas=1 DYNAMIC_DEFAULT_BROKER_CONFIG INT "),
        Some(
            "  min.insync.replicas=1 DEFAULT_CONFIG INT [ConfigSynonym(name=min.insync.replicas, \
             value=1, source=DEFAULT_CONFIG)]",
        ),
    ),
    // The limit of connections is taken when the broker starts.
    (
        Some("  max.connections=2147483647 DEFAULT_CONFIG INT "),
        Some(
            "  max.connections=2147483647 DEFAULT_CONFIG INT read-only \
             [ConfigSynonym(name=max.connections, value=2147483647, source=DEFAULT_CONFIG)]",
        ),
    ),
    // Kinds of groups that are not served have no settings.
    (Some("  share."), None),
    (Some("  streams."), None),
];

/// One method: the calls it needs, and a line for each answer.
struct Section<'a> {
    method: &'a str,
    keys: Vec<i16>,
    lines: Vec<&'a str>,
}

/// Compares, or records.
pub(crate) fn transcript(broker: &Broker) -> Tested<Completion> {
    let java = match toolchain::java()? {
        Ok(java) => java,
        Err(missing) => return missing.into_completion(),
    };
    let mut command = java.command("AdminTranscript");
    let output = process::succeed(command.arg(broker.bootstrap()), b"", DEADLINE)?;
    let recorded = paths::tests_crate().join("clients/java/admin.transcript");
    if std::env::var_os(RECORD).is_some() {
        std::fs::write(recorded, output.stdout)?;
        return Ok(Completion::Completed);
    }
    let recorded = std::fs::read_to_string(recorded)?;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let advertised = requests::advertised(&mut client)?;
    let found = compare(&sections(&recorded)?, &sections(&output.stdout)?, &advertised);
    if found.is_empty() {
        return Ok(Completion::Completed);
    }
    Err(Failed::from(found.join("\n")))
}

/// Everything in which ours is not what it should be.
fn compare(
    kafka: &[Section<'_>],
    ours: &[Section<'_>],
    advertised: &BTreeMap<i16, (i16, i16)>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (kafka, ours) in kafka.iter().zip(ours) {
        let served = kafka.keys.iter().all(|key| advertised.contains_key(key));
        if kafka.method != ours.method {
            found.push(format!("{} instead of {}", ours.method, kafka.method));
        } else if served {
            let different = differences(&kafka.lines, &ours.lines);
            found.extend(different.into_iter().map(|line| format!("{}: {line}", kafka.method)));
        } else {
            let wrong = ours.lines.iter().filter(|line| !is_unsupported(line));
            let wrong = wrong.filter(|line| !kafka.lines.contains(line));
            found.extend(wrong.map(|line| format!("{} is not served: {line}", kafka.method)));
        }
    }
    if kafka.len() != ours.len() {
        found.push(format!("{} sections instead of {}", ours.len(), kafka.len()));
    }
    found
}

/// Lines that only one of the two has and that are not meant to differ.
fn differences(kafka: &[&str], ours: &[&str]) -> Vec<String> {
    let meant = |line: &str, is_ours: bool| {
        DIFFERENCES.iter().any(|(kafkas, own)| match if is_ours { own } else { kafkas } {
            Some(text) if is_ours => line == *text,
            Some(text) => line.starts_with(text),
            None => false,
        })
    };
    let missing = kafka.iter().filter(|line| !ours.contains(line) && !meant(line, false));
    let added = ours.iter().filter(|line| !kafka.contains(line) && !meant(line, true));
    let missing = missing.map(|line| format!("- {line}"));
    missing.chain(added.map(|line| format!("+ {line}"))).collect()
}

fn is_unsupported(line: &str) -> bool {
    line.contains(": UnsupportedVersionException: ") && !line.ends_with("(slow)")
}

/// Splits a transcript at its headings, `== METHOD [KEY,KEY...]`.
fn sections(text: &str) -> Tested<Vec<Section<'_>>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for line in text.lines() {
        let Some(heading) = line.strip_prefix("== ") else {
            sections.last_mut().ok_or("a heading comes first")?.lines.push(line);
            continue;
        };
        let (method, keys) = heading.split_once(" [").ok_or("keys follow the method")?;
        let keys = keys.trim_end_matches(']').split(',').map(str::parse);
        let keys = keys.collect::<Result<_, _>>()?;
        sections.push(Section { method, keys, lines: Vec::new() });
    }
    Ok(sections)
}
