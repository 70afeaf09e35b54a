//! `vltava pipeline` against a program with a pipeline in it: what runs, what it has done, a pause;
//! and who is told why when there is nothing to ask.

use std::net::TcpListener;

use serde_json::Value;
use vltava_tests::harness::{Broker, BrokerOptions, Tested};
use vltava_tests::numbers::NUMBERS;

use crate::commands::{eventually, on};
use crate::{BINARY, Row, vltava};

/// They need a process of ours.
pub(crate) const OF_THE_BROKER: &[Row] = &[
    ("pipelines_are_listed_described_and_paused", listed_described_and_paused),
    ("pipelines_are_told_to_programs", told_to_programs),
    ("what_is_no_pipeline_is_named", what_is_no_pipeline_is_named),
];

fn program() -> Tested<Broker> {
    let binary = env!("CARGO_BIN_EXE_vltava-pipelines");
    Broker::start(BrokerOptions::new(binary).set("num.partitions", "2"))
}

/// Runs `vltava pipeline …`, which must succeed; the lines that it prints, one space between words.
fn lines(broker: &Broker, arguments: &[&str]) -> Tested<Vec<String>> {
    let output = vltava(&[&["pipeline"], arguments, &["--admin", broker.admin()]].concat(), "")?;
    assert!(output.status.success(), "{arguments:?}: {}", output.stderr);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(output.stdout.lines().map(words).collect())
}

/// The one JSON document of a command that must succeed.
fn document(broker: &Broker, arguments: &[&str]) -> Tested<Value> {
    let told = lines(broker, &[arguments, &["--json"]].concat())?;
    Ok(serde_json::from_str(&told.join("\n"))?)
}

/// Sends records of one maker: the pipeline refuses the number 7, and makes one part of number 0,
/// two of number 1.
fn send(broker: &Broker, records: &str) -> Tested {
    on(broker, &["produce", NUMBERS, "--key-separator", ":"], records).map(drop)
}

fn await_list(broker: &Broker, row: &str) -> Tested {
    eventually(row, || Ok(lines(broker, &["list"])? == ["PIPELINE STATE TASKS LAG", row]))
}

/// A pipeline that has three records behind it: read, and what was made of them committed.
fn program_with_records() -> Tested<Broker> {
    let broker = program()?;
    send(&broker, "k:1 0\nk:1 1\nk:1 7\n")?;
    eventually("three records are safe", || {
        let status = document(&broker, &["describe", NUMBERS])?;
        let tasks = status["tasks"].as_array().ok_or("a list of tasks")?;
        Ok(tasks.iter().filter_map(|task| task["safe"].as_i64()).sum::<i64>() == 3)
    })?;
    Ok(broker)
}

fn listed_described_and_paused() -> Tested {
    let broker = program_with_records()?;
    assert_eq!(lines(&broker, &["list"])?, ["PIPELINE STATE TASKS LAG", "numbers running 2 0"]);

    let described = lines(&broker, &["describe", NUMBERS])?;
    assert_eq!(described[0], "numbers is running");
    assert!(described[1].starts_with("latency of 4 records: p50 "), "{described:#?}");
    assert!(described[2].starts_with("turnaround of 4 records: p50 "), "{described:#?}");
    let starts = [
        "NODE OPERATOR RECORDS BYTES REJECTS FAULTS",
        "stream-0 stream 3 ",
        "try_map-1 try_map 3 ",
        "rejects-2 rejects ",
        "flat_map-3 flat_map 2 ",
        "to_each-4 to_each 3 ",
        "SOURCE POSITION SAFE LAG LAG MS STOPPED",
    ];
    for (line, start) in described[3..].iter().zip(starts) {
        assert!(line.starts_with(start), "{start} is not where it should be: {described:#?}");
    }
    assert!(described[5].ends_with(" 1 0"), "one record is refused: {}", described[5]);
    // One key, so one partition has them all.
    let mut tasks = described[3 + starts.len()..].to_vec();
    tasks.sort_by_key(|task| task.split(' ').nth(1).map(str::to_owned));
    assert!(tasks.len() == 2 && tasks[0].ends_with(" 0 0 0 0 -"), "{tasks:?}");
    assert!(tasks[1].ends_with(" 3 3 0 0 -"), "{tasks:?}");

    for _ in 0..2 {
        assert_eq!(lines(&broker, &["pause", NUMBERS])?, ["numbers is paused"]);
    }
    send(&broker, "k:1 10\nk:1 11\n")?;
    await_list(&broker, "numbers paused 2 2")?;
    for _ in 0..2 {
        assert_eq!(lines(&broker, &["resume", NUMBERS])?, ["numbers is running"]);
    }
    await_list(&broker, "numbers running 2 0")
}

fn told_to_programs() -> Tested {
    let broker = program_with_records()?;
    let listed = document(&broker, &["list"])?;
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed:#}");
    let described = document(&broker, &["describe", NUMBERS])?;
    for status in [&listed[0], &described] {
        assert_eq!(status["name"], NUMBERS);
        assert_eq!(status["state"], "running");
        let records: Vec<_> = status["nodes"]
            .as_array()
            .ok_or("a list of nodes")?
            .iter()
            .map(|node| (node["name"].as_str(), node["records"].as_u64()))
            .collect();
        assert_eq!(records[0], (Some("stream-0"), Some(3)), "{status:#}");
        assert_eq!(status["nodes"][1]["rejects"], 1);
        let position = |task: &Value| task["position"].as_i64().unwrap_or_default();
        let tasks = status["tasks"].as_array().ok_or("a list of tasks")?;
        assert_eq!(tasks.iter().map(position).sum::<i64>(), 3);
        assert_eq!(status["latency_us"]["count"], 4);
        assert_eq!(status["turnaround_us"]["count"], 4);
    }
    assert_eq!(document(&broker, &["pause", NUMBERS])?["state"], "paused");
    assert_eq!(document(&broker, &["describe", NUMBERS])?["state"], "paused");
    assert_eq!(document(&broker, &["resume", NUMBERS])?["state"], "running");
    Ok(())
}

/// A failure is exit code 1, and one line that says who was asked and what is wrong.
fn fails(arguments: &[&str], admin: &str, cause: &str) -> Tested {
    let output = vltava(&[&["pipeline"], arguments, &["--admin", admin]].concat(), "")?;
    assert_eq!((output.status.code(), output.stdout.as_str()), (Some(1), ""), "{arguments:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{arguments:?}: {}", output.stderr);
    for named in [admin, cause] {
        assert!(output.stderr.contains(named), "{named} is not named: {}", output.stderr);
    }
    Ok(())
}

fn what_is_no_pipeline_is_named() -> Tested {
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["describe", NUMBERS],
        &["pause", NUMBERS],
        &["resume", NUMBERS, "--json"],
    ] {
        fails(arguments, &nobody, "refused")?;
    }
    // A broker without pipelines has nothing to list.
    let broker = Broker::start(BrokerOptions::new(BINARY))?;
    assert_eq!(lines(&broker, &["list"])?, ["PIPELINE STATE TASKS LAG"]);
    assert_eq!(document(&broker, &["list"])?, Value::Array(Vec::new()));
    for name in ["nobody", "a/b c", "ü"] {
        for command in ["describe", "pause", "resume"] {
            let cause = format!("there is no pipeline {name}");
            fails(&[command, name], broker.admin(), &cause)?;
            fails(&[command, name, "--json"], broker.admin(), &cause)?;
        }
    }
    // The port of the Kafka listener is not the admin's.
    fails(&["list"], broker.bootstrap(), "")
}
