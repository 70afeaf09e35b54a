//! The process dies at random moments under load, and comes back on the same data.
//!
//! Several idempotent producers with acks=all run through all rounds; each round kills the broker
//! with SIGKILL, restarts it and audits: nothing acknowledged is lost, nothing is there twice,
//! offsets are dense. The kernel lives on, so this holds for both kinds of durability. A consumer
//! group reads all of it meanwhile: no acknowledged commit is lost, within a session timeout it
//! commits again, and in the end it has read every acknowledged record.
//!
//! `VLTAVA_TEST_SEED` repeats the moments, `VLTAVA_CRASH_ROUNDS` makes a run longer.

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vltava_tests::harness::load::{self, Load};
use vltava_tests::harness::members::{Members, SESSION_TIMEOUT};
use vltava_tests::harness::{self, Broker, BrokerOptions, Missing, RawClient, Tested, requests};

const ROUNDS: u32 = 6;
const PARTITIONS: i32 = 2;
const MAKERS: u32 = 3;
const MEMBERS: usize = 3;
/// How long a restarted broker may take until records flow again.
const RECOVERY_DEADLINE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let trial = Trial::ignorable_test("acknowledged_records_survive_sigkill", || {
        if std::env::var(harness::broker::EXTERNAL).is_ok() {
            return Missing("someone else's broker is not killed".into()).into_completion();
        }
        survive_sigkill()?;
        Ok(Completion::Completed)
    });
    harness::run(vec![trial], 1)
}

fn survive_sigkill() -> Tested {
    let seed = harness::seed("crash");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Small segments, so that crashes also meet the rolling of files.
    let options = BrokerOptions::new(env!("CARGO_BIN_EXE_vltava-under-test")).stable_port()?;
    let mut broker = Broker::start(options)?;
    let topics = {
        let mut client = RawClient::connect(broker.bootstrap())?;
        let segment = ("segment.bytes", "1048576");
        let synced = [segment, ("durability", "fsync")];
        let cached = [segment, ("durability", "page-cache")];
        vec![
            requests::create_topic(&mut client, "crash-fsync", PARTITIONS, &synced)?,
            requests::create_topic(&mut client, "crash-page-cache", PARTITIONS, &cached)?,
        ]
    };
    let load = Load::start(broker.bootstrap(), &topics, PARTITIONS, MAKERS)?;
    let members = Members::start(broker.bootstrap(), "crash-group", &topics, MEMBERS)?;
    members.await_more(1, RECOVERY_DEADLINE)?;
    for round in 0..harness::rounds("VLTAVA_CRASH_ROUNDS", ROUNDS) {
        let outcome = one_crash(&mut broker, &load, &members, &mut random);
        outcome.map_err(|failed| explain(&broker, seed, round, &failed))?;
    }
    finish(&broker, load, members, &topics)
        .map_err(|failed| explain(&broker, seed, ROUNDS, &failed))
}

fn finish(broker: &Broker, load: Load, members: Members, topics: &[String]) -> Tested {
    let acknowledged = load.finish()?;
    load::audit(broker.bootstrap(), topics, PARTITIONS, &acknowledged)?;
    let places = acknowledged.iter().map(|record| (record.topic, record.partition, record.offset));
    members.await_read(&places.collect(), RECOVERY_DEADLINE)?;
    members.audit(broker.bootstrap(), &members.promised())?;
    members.finish()
}

fn one_crash(
    broker: &mut Broker,
    load: &Load,
    members: &Members,
    random: &mut ChaCha8Rng,
) -> Tested {
    load.await_more(random.random_range(50..1_500), RECOVERY_DEADLINE)?;
    broker.kill9()?;
    let (acknowledged, promised) = (load.acknowledged(), members.promised());
    broker.restart()?;
    if random.random_range(0..3) == 0 {
        // A second crash, at once: recovery itself is interrupted.
        broker.kill9()?;
        broker.restart()?;
    }
    members.audit(broker.bootstrap(), &promised)?;
    members.await_more(1, SESSION_TIMEOUT)?;
    load::audit(broker.bootstrap(), load.topics(), PARTITIONS, &acknowledged)
}

fn explain(broker: &Broker, seed: u64, round: u32, failed: &Failed) -> Failed {
    let message = failed.message().unwrap_or("no message");
    let stderr = broker.stderr_tail();
    Failed::from(format!("seed {seed}, round {round}: {message}\n--- broker\n{stderr}"))
}
