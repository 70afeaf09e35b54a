//! A real power cut: the data directory lies on an ext4 of its own, which is shut down under load.
//!
//! SIGKILL proves nothing about fsync, because the page cache survives it. Here the file system is
//! told to stop without flushing (`EXT4_IOC_SHUTDOWN` with `NOLOGFLUSH`): what was synced stays,
//! the rest is gone. Then the broker is killed, the image mounted again, the broker started as
//! after a boot of the machine (another boot id), and the audit finds all that was acknowledged.
//!
//! The broker is frozen at the moment of the cut. Otherwise the test would meet a fault of this
//! ioctl, which no loss of power has: an fdatasync that is under way while the file system shuts
//! down may return success for bytes that are gone (seen with a program of ten lines, one cut in
//! sixty). Between two system calls, what was synced is on the disk.
//!
//! Needs root, for the loop mount. `VLTAVA_POWER_CUT_ROUNDS` makes a run longer.
#![allow(clippy::disallowed_methods, reason = "the test makes a disk image")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use vltava_tests::harness::load::{self, Load};
use vltava_tests::harness::{
    self, Broker, BrokerOptions, Missing, RawClient, Tested, paths, process, requests,
};

const ROUNDS: u32 = 4;
const PARTITIONS: i32 = 2;
const MAKERS: u32 = 3;
/// Sparse: it takes what is written.
const IMAGE_BYTES: u64 = 2 << 30;
const RECOVERY_DEADLINE: Duration = Duration::from_mins(1);
const COMMAND_DEADLINE: Duration = Duration::from_mins(1);
/// `ioctl(fd, EXT4_IOC_SHUTDOWN, &EXT4_GOING_FLAGS_NOLOGFLUSH)`, without unsafe code of ours.
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

fn main() -> ExitCode {
    let trial = Trial::ignorable_test("acknowledged_records_survive_a_power_cut", || {
        if std::env::var(harness::broker::EXTERNAL).is_ok() {
            return Missing("someone else's broker has a disk of its own".into()).into_completion();
        }
        // Without root there is no loop mount on any machine: skipped in CI, too.
        if !rustix::process::geteuid().is_root() {
            return Ok(Completion::ignored_with("needs root for a loop mount"));
        }
        for program in ["mkfs.ext4", "mount", "umount", "python3"] {
            if !process::exists(program) {
                return Missing(format!("{program} is not installed")).into_completion();
            }
        }
        let disk = match Disk::new() {
            Ok(disk) => disk,
            Err(failed) => {
                let message = failed.message().unwrap_or("no message");
                return Missing(format!("no loop mount: {message}")).into_completion();
            }
        };
        survive_power_cuts(disk)?;
        Ok(Completion::Completed)
    });
    harness::run(vec![trial], 1)
}

/// An ext4 in a file, mounted; unmounted when dropped.
struct Disk {
    directory: TempDir,
}

impl Disk {
    fn new() -> Tested<Disk> {
        let disk = Disk { directory: paths::fresh("power-cut")? };
        std::fs::File::create(disk.image())?.set_len(IMAGE_BYTES)?;
        std::fs::create_dir(disk.mount_point())?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), &disk.image()])?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    fn mount_point(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    fn mount(&self) -> Tested {
        run("mount", &["-o".as_ref(), "loop".as_ref(), &self.image(), &self.mount_point()])
    }

    /// From here on nothing reaches the image any more.
    fn cut_power(&self) -> Tested {
        run("python3", &["-c".as_ref(), SHUTDOWN.as_ref(), &self.mount_point()])
    }

    /// Unmounts and mounts again: the journal is replayed, the page cache is gone.
    fn reboot(&self) -> Tested {
        run("umount", &[&self.mount_point()])?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a broker that a failed test left behind may still have files open.
        let _ = run("umount", &["-l".as_ref(), &self.mount_point()]);
    }
}

fn run(program: &str, arguments: &[&Path]) -> Tested {
    let mut command = Command::new(program);
    command.args(arguments);
    process::succeed(&mut command, b"", COMMAND_DEADLINE)?;
    Ok(())
}

fn survive_power_cuts(disk: Disk) -> Tested {
    let seed = harness::seed("power_cut");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let options = BrokerOptions::new(env!("CARGO_BIN_EXE_vltava-under-test"))
        .data_dir(&disk.mount_point().join("data"))
        .environment("VLTAVA_BOOT_ID", "boot-0")
        .stable_port()?;
    let mut broker = Broker::start(options)?;
    let topics = {
        let mut client = RawClient::connect(broker.bootstrap())?;
        let configs = [("segment.bytes", "1048576"), ("durability", "fsync")];
        vec![requests::create_topic(&mut client, "power-cut", PARTITIONS, &configs)?]
    };
    let load = Load::start(broker.bootstrap(), &topics, PARTITIONS, MAKERS)?;
    let rounds = harness::rounds("VLTAVA_POWER_CUT_ROUNDS", ROUNDS);
    for round in 0..rounds {
        let outcome = one_cut(&disk, &mut broker, &load, round, &mut random);
        outcome.map_err(|failed| explain(&broker, seed, round, &failed))?;
    }
    let acknowledged = load.finish().map_err(|failed| explain(&broker, seed, rounds, &failed))?;
    load::audit(broker.bootstrap(), &topics, PARTITIONS, &acknowledged)
        .map_err(|failed| explain(&broker, seed, rounds, &failed))?;
    broker.terminate()?;
    drop(disk);
    Ok(())
}

fn one_cut(
    disk: &Disk,
    broker: &mut Broker,
    load: &Load,
    round: u32,
    random: &mut ChaCha8Rng,
) -> Tested {
    load.await_more(random.random_range(50..1_500), RECOVERY_DEADLINE)?;
    broker.freeze()?;
    disk.cut_power()?;
    broker.kill9()?;
    // All of it counts, to the last answer on its way from the frozen broker's socket.
    let acknowledged = load.acknowledged();
    disk.reboot()?;
    broker.next_environment("VLTAVA_BOOT_ID", &format!("boot-{}", round + 1));
    broker.restart()?;
    load::audit(broker.bootstrap(), load.topics(), PARTITIONS, &acknowledged)
}

fn explain(broker: &Broker, seed: u64, round: u32, failed: &Failed) -> Failed {
    let message = failed.message().unwrap_or("no message");
    let stderr = broker.stderr_tail();
    Failed::from(format!("seed {seed}, round {round}: {message}\n--- broker\n{stderr}"))
}
