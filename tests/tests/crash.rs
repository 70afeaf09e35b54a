//! The process dies at random moments under load, and comes back on the same data.
//!
//! Several idempotent producers with acks=all run through all rounds; each round kills the broker
//! with SIGKILL, restarts it and audits: nothing acknowledged is lost, nothing is there twice,
//! offsets are dense. The kernel lives on, so this holds for both kinds of durability.
//!
//! `VLTAVA_TEST_SEED` repeats the moments, `VLTAVA_CRASH_ROUNDS` makes a run longer.

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vltava_tests::harness::load::{self, Load};
use vltava_tests::harness::{self, Broker, BrokerOptions, Missing, RawClient, Tested, requests};

const ROUNDS: u32 = 6;
const PARTITIONS: i32 = 2;
const MAKERS: u32 = 3;
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
    for round in 0..harness::rounds("VLTAVA_CRASH_ROUNDS", ROUNDS) {
        let outcome = one_crash(&mut broker, &load, &mut random);
        outcome.map_err(|failed| explain(&broker, seed, round, &failed))?;
    }
    let acknowledged = load.finish().map_err(|failed| explain(&broker, seed, ROUNDS, &failed))?;
    load::audit(broker.bootstrap(), &topics, PARTITIONS, &acknowledged)
        .map_err(|failed| explain(&broker, seed, ROUNDS, &failed))
}

fn one_crash(broker: &mut Broker, load: &Load, random: &mut ChaCha8Rng) -> Tested {
    load.await_more(random.random_range(50..1_500), RECOVERY_DEADLINE)?;
    broker.kill9()?;
    let acknowledged = load.acknowledged();
    broker.restart()?;
    if random.random_range(0..3) == 0 {
        // A second crash, at once: recovery itself is interrupted.
        broker.kill9()?;
        broker.restart()?;
    }
    load::audit(broker.bootstrap(), load.topics(), PARTITIONS, &acknowledged)
}

fn explain(broker: &Broker, seed: u64, round: u32, failed: &Failed) -> Failed {
    let message = failed.message().unwrap_or("no message");
    let stderr = broker.stderr_tail();
    Failed::from(format!("seed {seed}, round {round}: {message}\n--- broker\n{stderr}"))
}
