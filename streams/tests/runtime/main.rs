//! Pipelines at work on the stream threads, over a log in memory that can refuse and lose.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use vltava_protocol::ErrorCode;
use vltava_streams::{
    OnFault, Pipeline, RunError, Runtime, RuntimeConfig, TaskBudget, Topology, raw, utf8,
};

mod memory_log;

use memory_log::MemoryLog;

/// Generous: a test fails by this, never passes by it.
const PATIENCE: Duration = Duration::from_secs(30);

fn runtime() -> Runtime {
    Runtime::start(RuntimeConfig { threads: 2, ..RuntimeConfig::default() }).unwrap()
}

fn shouting() -> Topology {
    let t = Topology::new("shouting");
    t.stream("in", (raw(), utf8()))
        .map_values(utf8(), |r, out| {
            out.text(&r.value.to_uppercase());
        })
        .to("out");
    t
}

fn start(topology: Topology, log: &Arc<MemoryLog>, runtime: &Runtime) -> Pipeline {
    Pipeline::start(topology.build().unwrap(), log.clone(), runtime).unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

#[test]
fn records_go_through_as_they_come() {
    let (log, runtime) = (MemoryLog::new(&[("in", 3)]), runtime());
    let pipeline = start(shouting(), &log, &runtime);
    for n in 0..100 {
        log.append("in", n % 3, &format!("v{n}"));
    }
    until("all records", || log.values("out").len() == 100);
    let mut values = log.values("out");
    values.sort();
    let mut expected: Vec<_> = (0..100).map(|n| format!("V{n}")).collect();
    expected.sort();
    assert_eq!(values, expected);
    until("an idle pipeline", || pipeline.status().tasks.iter().all(|task| task.lag == 0));
    let status = pipeline.status();
    assert_eq!((status.state.as_str(), status.nodes[0].records), ("running", 100));
    assert_eq!(status.latency_us.count, 100);
}

#[test]
fn the_turnaround_ends_with_the_commit() {
    let (log, runtime) = (MemoryLog::new(&[("in", 1), ("out", 1)]), runtime());
    let pipeline = start(shouting(), &log, &runtime);
    log.hold_commits("out");
    let begun = Instant::now();
    log.append("in", 0, "a");
    until("the output", || log.values("out") == ["A"]);
    let written = Instant::now();
    until("a while", || written.elapsed() > Duration::from_millis(3));
    assert_eq!(pipeline.status().turnaround_us.count, 0);
    let waited = written.elapsed();
    log.release_commits("out");
    until("the commit", || pipeline.status().turnaround_us.count == 1);
    let turnaround = Duration::from_micros(pipeline.status().turnaround_us.max);
    // Two digits are kept.
    assert!(turnaround.mul_f64(1.01) >= waited, "{turnaround:?} of at least {waited:?}");
    assert!(turnaround.div_f64(1.01) <= begun.elapsed(), "{turnaround:?} is longer than it was");
}

#[test]
fn a_pipeline_goes_on_where_it_ended() {
    let (log, runtime) = (MemoryLog::new(&[("in", 1)]), runtime());
    for round in 0..3 {
        let pipeline = start(shouting(), &log, &runtime);
        log.append("in", 0, &format!("round {round}"));
        until("the record", || log.values("out").len() == round + 1);
        drop(pipeline);
        assert_eq!(log.committed("shouting", "in", 0), Some(round as i64 + 1));
    }
    assert_eq!(log.values("out"), ["ROUND 0", "ROUND 1", "ROUND 2"]);
}

#[test]
fn a_paused_pipeline_rests() {
    let (log, runtime) = (MemoryLog::new(&[("in", 1)]), runtime());
    let pipeline = start(shouting(), &log, &runtime);
    pipeline.pause();
    log.append("in", 0, "a");
    assert_eq!(pipeline.status().state, "paused");
    assert_eq!(pipeline.status().tasks[0].lag, 1);
    pipeline.resume();
    until("the record", || log.values("out") == ["A"]);
}

#[test]
fn what_a_lost_leader_forgot_is_made_again() {
    let (log, runtime) = (MemoryLog::new(&[("in", 1), ("out", 1)]), runtime());
    log.fail_next_commits("out", 2, ErrorCode::NotLeaderOrFollower);
    let pipeline = start(shouting(), &log, &runtime);
    log.append("in", 0, "a");
    until("a safe position", || pipeline.status().tasks[0].safe == 1);
    assert_eq!(log.values("out").last().map(String::as_str), Some("A"));
}

#[test]
fn a_batch_that_no_log_takes_stops_its_task_alone() {
    let (log, runtime) = (MemoryLog::new(&[("in", 2), ("out", 1)]), runtime());
    let pipeline = start(shouting(), &log, &runtime);
    log.refuse("out", Some(ErrorCode::MessageTooLarge));
    log.append("in", 0, "a");
    until("a stopped task", || pipeline.status().tasks[0].stopped.is_some());
    log.refuse("out", None);
    log.append("in", 1, "b");
    until("the other task", || log.values("out") == ["B"]);
    let status = pipeline.status();
    assert_eq!(status.state, "stopped");
    assert!(status.tasks[0].stopped.as_ref().unwrap().contains("MessageTooLarge"), "{status:?}");
    assert_eq!((status.tasks[0].safe, status.tasks[1].stopped.is_none()), (0, true));
}

#[test]
fn a_panic_is_the_records_fault_and_nobody_elses() {
    let (log, runtime) = (MemoryLog::new(&[("in", 1)]), runtime());
    let t = Topology::new("t");
    t.stream("in", (raw(), utf8())).peek(|r| assert_ne!(r.value, "bad")).named("check").to("out");
    let t = t.on_fault(OnFault::DeadLetter("dead".to_owned()));
    let pipeline = start(t, &log, &runtime);
    for value in ["a", "bad", "b"] {
        log.append("in", 0, value);
    }
    until("all records", || log.values("out") == ["a", "b"] && log.values("dead") == ["bad"]);
    until("the counts", || pipeline.status().nodes.iter().any(|node| node.faults == 1));
}

#[test]
fn a_task_that_is_far_behind_keeps_to_its_budget() {
    let log = MemoryLog::new(&[("in", 1), ("out", 1)]);
    let budget = TaskBudget { pinned_bytes: 4 << 10, uncommitted_bytes: 16 << 10 };
    let config = RuntimeConfig { threads: 1, budget, ..RuntimeConfig::default() };
    let runtime = Runtime::start(config).unwrap();
    let value = "v".repeat(1_000);
    for _ in 0..200 {
        log.append("in", 0, &value);
    }
    log.hold_commits("out");
    let pipeline = start(shouting(), &log, &runtime);
    // It reads until what is not committed exceeds the budget, by one reading at most.
    let read = || pipeline.status().tasks[0].position;
    until("the budget's end", || read() * 1_000 > budget.uncommitted_bytes as i64);
    log.append("in", 0, &value); // wakes the task, which must not go on
    let bytes_max = budget.uncommitted_bytes + 2 * budget.pinned_bytes;
    assert!(read() * 1_000 < bytes_max as i64, "{} records were read", read());
    assert_eq!(pipeline.status().tasks[0].safe, 0);
    log.release_commits("out");
    until("all records", || pipeline.status().tasks[0].safe == 201);
    let read_at_once = log.read_bytes_max("in");
    assert!((2_000..=budget.pinned_bytes).contains(&read_at_once), "{read_at_once} bytes at once");
}

#[test]
fn new_partitions_get_tasks_while_the_others_run() {
    let (log, runtime) = (MemoryLog::new(&[("in", 1)]), runtime());
    let pipeline = start(shouting(), &log, &runtime);
    log.append("in", 0, "a");
    until("the record", || log.values("out") == ["A"]);
    log.grow("in", 3);
    log.append("in", 2, "b");
    pipeline.watch().refresh();
    until("the record of a new partition", || log.values("out") == ["A", "B"]);
    log.append("in", 1, "c");
    until("another one", || log.values("out") == ["A", "B", "C"]);
    let tasks = pipeline.status().tasks;
    assert_eq!(tasks.iter().map(|task| task.partition).collect::<Vec<_>>(), [0, 1, 2]);
    drop(pipeline);
    assert_eq!(log.committed("shouting", "in", 1), Some(1), "their positions are committed");
}

#[test]
fn topics_that_are_written_to_may_grow_and_come_anew() {
    let (log, runtime) = (MemoryLog::new(&[("in", 1), ("out", 1)]), runtime());
    let pipeline = start(shouting(), &log, &runtime);
    let safe = || pipeline.status().tasks[0].safe;
    log.append("in", 0, "a");
    until("the record", || safe() == 1);
    // Records without key go to one partition after the other.
    log.grow("out", 2);
    pipeline.watch().refresh();
    for (value, position) in [("b", 2), ("c", 3)] {
        log.append("in", 0, value);
        until("the record", || safe() == position);
    }
    let (first, second) = (log.values_in("out", 0), log.values_in("out", 1));
    assert_eq!((first.len(), second.len()), (2, 1), "{first:?}, {second:?}");
    // With fewer partitions than the task knows of: what has no place is made again.
    log.delete("out");
    log.grow("out", 1);
    pipeline.watch().refresh();
    log.append("in", 0, "d");
    until("the record", || safe() == 4);
    log.append("in", 0, "e");
    until("the record", || safe() == 5);
    assert_eq!(log.values("out"), ["D", "E"]);
    // And where it is not there at all, it is created.
    log.delete("out");
    pipeline.watch().refresh();
    log.append("in", 0, "f");
    until("the record", || safe() == 6);
    assert_eq!(log.values("out"), ["F"]);
    assert_eq!(pipeline.status().state, "running");
}

#[test]
fn tasks_end_with_their_topic_and_say_so() {
    let (log, runtime) = (MemoryLog::new(&[("in", 2)]), runtime());
    let t = shouting();
    t.stream("other", (raw(), raw())).to("rest");
    let pipeline = start(t, &log, &runtime);
    log.append("in", 0, "a");
    until("the record", || log.values("out") == ["A"]);
    log.delete("in");
    pipeline.watch().refresh();
    let of_in = |pipeline: &Pipeline| {
        let tasks = pipeline.status().tasks.into_iter().filter(|task| task.topic == "in");
        tasks.filter_map(|task| task.stopped).collect::<Vec<_>>()
    };
    until("the tasks' end", || of_in(&pipeline) == vec!["topic in was deleted"; 2]);

    // Another topic of the name is not taken for the first, nor does a position outlive it.
    log.grow("in", 1);
    log.append("in", 0, "b");
    pipeline.watch().refresh();
    log.append("other", 0, "c");
    until("the other source", || log.values("rest") == ["c"]);
    assert_eq!(pipeline.status().tasks.len(), 3);
    drop(pipeline);
    assert_eq!(log.committed("shouting", "in", 0), None);
    assert_eq!(log.committed("shouting", "other", 0), Some(1));
    let _pipeline = start(shouting(), &log, &runtime);
    until("the record of the new topic", || log.values("out") == ["A", "B"]);
}

#[test]
fn a_position_beyond_the_end_of_the_log_stops_its_task() {
    let (log, runtime) = (MemoryLog::new(&[("in", 1)]), runtime());
    let pipeline = start(shouting(), &log, &runtime);
    log.append("in", 0, "a");
    log.append("in", 0, "b");
    until("the records", || log.values("out") == ["A", "B"]);
    drop(pipeline);
    log.forget("in", 1);
    let pipeline = start(shouting(), &log, &runtime);
    until("the stop", || pipeline.status().state == "stopped");
    let stopped = pipeline.status().tasks[0].stopped.clone().unwrap();
    assert!(stopped.contains("position 2 lies beyond the end 1"), "{stopped}");
}

#[test]
fn a_source_that_is_missing_is_created_as_for_a_consumer() {
    let (log, runtime) = (MemoryLog::new(&[]), runtime());
    let _pipeline = start(shouting(), &log, &runtime);
    log.append("in", 0, "a");
    until("the record", || log.values("out") == ["A"]);
}

#[test]
fn a_source_that_is_missing_is_named() {
    let (log, runtime) = (MemoryLog::new(&[]), runtime());
    log.close();
    let program = shouting().build().unwrap();
    let error = Pipeline::start(program, log, &runtime).unwrap_err();
    assert!(matches!(&error, RunError::MissingSource { node, .. } if node == "stream-0"));
    assert!(error.to_string().contains("main.rs:"), "{error}");
}
