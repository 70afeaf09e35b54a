//! The process of a pipeline dies at random moments under load, and comes back on the same data.
//!
//! Producers (librdkafka, idempotent, acks=all) run through all rounds. In the end the input, as it
//! lies in the log, says what the outputs must be: all there, in the order of their keys once
//! duplicates are removed, and nothing else. Duplicates are allowed, counted and printed. Kafka's
//! own tool shows the positions. A clean stop and a start repeat nothing.
//!
//! `VLTAVA_TEST_SEED` repeats the moments, `VLTAVA_CRASH_ROUNDS` makes a run longer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use vltava_streams::{ORIGIN_HEADER, REASON_HEADER};
use vltava_tests::harness::desk::Desk;
use vltava_tests::harness::load::{self, Load};
use vltava_tests::harness::{
    self, Broker, BrokerOptions, Missing, RawClient, RawRecord, Tested, process,
};
use vltava_tests::numbers::{self, NUMBERS, PARTS, Part, REASON, REFUSED};

const ROUNDS: u32 = 6;
const PARTITIONS: i32 = 3;
const MAKERS: u32 = 4;
/// How long a restarted broker may take until records flow again, and a pipeline until it is idle.
const DEADLINE: Duration = Duration::from_mins(1);
/// How long one command may run.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);
/// How often a pipeline is asked whether it is idle.
const ASK_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) fn nothing_is_lost() -> Tested<Completion> {
    if std::env::var(harness::broker::EXTERNAL).is_ok() {
        return Missing("someone else's broker is not killed".into()).into_completion();
    }
    let seed = harness::seed("pipelines");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Small segments, so that crashes also meet the rolling of files.
    let options = BrokerOptions::new(env!("CARGO_BIN_EXE_vltava-pipelines"))
        .set("num.partitions", &PARTITIONS.to_string())
        .set("log.segment.bytes", "1048576")
        .stable_port()?;
    let mut broker = Broker::start(options)?;
    let load = Load::start(broker.bootstrap(), &[NUMBERS.to_owned()], PARTITIONS, MAKERS)?;
    for round in 0..harness::rounds("VLTAVA_CRASH_ROUNDS", ROUNDS) {
        one_crash(&mut broker, &load, &mut random)
            .map_err(|failed| explain(&broker, &format!("seed {seed}, round {round}"), &failed))?;
    }
    let acknowledged = load.finish()?;
    load::audit(broker.bootstrap(), &[NUMBERS.to_owned()], PARTITIONS, &acknowledged)?;
    finish(&mut broker)
        .map_err(|failed| explain(&broker, &format!("seed {seed}, the end"), &failed))
}

fn one_crash(broker: &mut Broker, load: &Load, random: &mut ChaCha8Rng) -> Tested {
    load.await_more(random.random_range(50..2_500), DEADLINE)?;
    broker.kill9()?;
    broker.restart()?;
    if random.random_range(0..3) == 0 {
        // A second crash, at once: recovery itself is interrupted, and the pipeline's catching up.
        broker.kill9()?;
        broker.restart()?;
    }
    Ok(())
}

fn finish(broker: &mut Broker) -> Tested<Completion> {
    let ends = await_idle(broker)?;
    let found = audit(broker.bootstrap())?;
    println!(
        "{} input records in {} partitions; {} parts, {} of them duplicates; {} refused, {} of them \
         duplicates",
        found.inputs,
        ends.len(),
        found.parts,
        found.parts_doubled,
        found.refused,
        found.refused_doubled
    );
    let shown = show_positions(broker, &ends)?;
    // A clean stop leaves nothing to do again.
    let status = broker.terminate()?;
    assert!(status.success(), "{status}");
    broker.restart()?;
    assert_eq!(await_idle(broker)?, ends);
    assert_eq!(audit(broker.bootstrap())?, found, "a clean stop was followed by repetitions");
    Ok(shown)
}

/// Waits until the pipeline has read everything and all of it is safe; the ends of its sources.
fn await_idle(broker: &Broker) -> Tested<Vec<i64>> {
    let give_up = Instant::now() + DEADLINE;
    loop {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vltava-under-test"));
        process::without_our_variables(&mut command).args([
            "pipeline",
            "describe",
            NUMBERS,
            "--json",
            "--admin",
            broker.admin(),
        ]);
        let output = process::succeed(&mut command, b"", COMMAND_DEADLINE)?;
        let status: Value = serde_json::from_str(&output.stdout)?;
        let tasks = status["tasks"].as_array().ok_or("a list of tasks")?;
        let is_idle = |task: &Value| task["lag"] == 0 && task["position"] == task["safe"];
        if status["state"] == "running" && tasks.iter().all(is_idle) {
            return tasks.iter().map(|task| Ok(task["safe"].as_i64().ok_or("a number")?)).collect();
        }
        if Instant::now() >= give_up {
            return Err(Failed::from(format!("not idle within {DEADLINE:?}: {status}")));
        }
        std::thread::sleep(ASK_INTERVAL);
    }
}

/// Kafka's own tool shows the positions under the topology's name, and no lag.
fn show_positions(broker: &Broker, ends: &[i64]) -> Tested<Completion> {
    let mut desk = match Desk::open(broker, NUMBERS)? {
        Ok(desk) => desk,
        Err(missing) => return missing.into_completion(),
    };
    NUMBERS.clone_into(&mut desk.group);
    let row = |(partition, end): (usize, &i64)| {
        format!("{{group}} {{group}} {partition} {end} {end} 0 - - -")
    };
    let rows: Vec<String> = ends.iter().enumerate().map(row).collect();
    let columns =
        "GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID";
    let expected: Vec<&str> =
        std::iter::once(columns).chain(rows.iter().map(String::as_str)).collect();
    desk.await_lines("consumer-groups --describe --group {group}", &expected)?;
    Ok(Completion::Completed)
}

/// What the audit has counted.
#[derive(PartialEq, Eq, Debug)]
struct Found {
    inputs: usize,
    parts: usize,
    parts_doubled: usize,
    refused: usize,
    refused_doubled: usize,
}

/// Reads the input and all outputs, and compares.
fn audit(bootstrap: &str) -> Tested<Found> {
    let mut client = RawClient::connect(bootstrap)?;
    let mut expected: HashSet<Part> = HashSet::new();
    let mut letters: HashMap<String, RawRecord> = HashMap::new();
    let mut inputs = 0;
    for partition in 0..PARTITIONS {
        for (offset, record) in load::read(&mut client, NUMBERS, partition)? {
            let made = record.value.as_deref().and_then(load::parse);
            let (maker, number) = made.ok_or("a record that nobody made")?;
            expected.extend(Part::of(maker, partition, number));
            if numbers::is_refused(number) {
                letters.insert(format!("{NUMBERS}/{partition}/{offset}"), record);
            }
            inputs += 1;
        }
    }
    let mut found: HashMap<Part, usize> = HashMap::new();
    for (at, topic) in PARTS.iter().enumerate() {
        audit_order(&mut client, topic, at, &mut found)?;
    }
    let lost = expected.iter().filter(|part| !found.contains_key(part)).count();
    let invented = found.keys().filter(|part| !expected.contains(part)).count();
    assert_eq!((lost, invented), (0, 0), "of {} parts: lost, invented", expected.len());
    let refused = audit_letters(&mut client, &letters)?;
    let parts: usize = found.values().sum();
    let (parts_doubled, refused_doubled) = (parts - expected.len(), refused - letters.len());
    Ok(Found { inputs, parts, parts_doubled, refused, refused_doubled })
}

/// Counts the parts in a topic: each must belong there, and each key's, without duplicates, stand
/// in order.
fn audit_order(
    client: &mut RawClient,
    topic: &str,
    at: usize,
    found: &mut HashMap<Part, usize>,
) -> Tested {
    let mut last: BTreeMap<String, (i32, Part)> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for (offset, record) in load::read(client, topic, partition)? {
            let place = format!("{topic} [{partition}] {offset}");
            let part = record.value.as_deref().and_then(Part::parse);
            let part = part.ok_or(format!("{place}: {record:?}"))?;
            assert_eq!(record.key.as_deref(), Some(part.key().as_bytes()), "{place}: {part}");
            assert_eq!(part.topic(), at, "{place}: {part} is of another topic");
            let count = found.entry(part).or_default();
            *count += 1;
            if *count > 1 {
                continue;
            }
            if let Some((of, before)) = last.insert(part.key(), (partition, part)) {
                assert_eq!(of, partition, "{place}: the key was elsewhere");
                assert!(before < part, "{place}: {part} after {before}");
            }
        }
    }
    Ok(())
}

/// Each refused record is there with its bytes, and the reason; how many there are in all.
fn audit_letters(client: &mut RawClient, letters: &HashMap<String, RawRecord>) -> Tested<usize> {
    let mut found: HashMap<String, usize> = HashMap::new();
    for partition in 0..PARTITIONS {
        for (offset, record) in load::read(client, REFUSED, partition)? {
            let place = format!("{REFUSED} [{partition}] {offset}");
            let header = |name: &str| {
                let header = record.headers.iter().find(|(of, _)| of == name);
                header.and_then(|(_, value)| String::from_utf8(value.clone()?).ok())
            };
            assert_eq!(header(REASON_HEADER).as_deref(), Some(REASON), "{place}");
            let origin = header(ORIGIN_HEADER).ok_or(format!("{place}: no origin"))?;
            let letter = letters.get(&origin).ok_or(format!("{place}: {origin} was good"))?;
            assert_eq!((&record.key, &record.value), (&letter.key, &letter.value), "{place}");
            *found.entry(origin).or_default() += 1;
        }
    }
    assert_eq!(found.len(), letters.len(), "refused records are lost");
    Ok(found.values().sum())
}

fn explain(broker: &Broker, when: &str, failed: &Failed) -> Failed {
    let message = failed.message().unwrap_or("no message");
    Failed::from(format!("{when}: {message}\n--- broker\n{}", broker.stderr_tail()))
}
