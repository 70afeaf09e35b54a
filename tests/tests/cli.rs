//! The command line as a contract: the ready line, refusals that name their cause, clean stops, and
//! the commands that a first hour with the broker needs.

#[path = "cli/commands.rs"]
mod commands;
#[path = "cli/configs.rs"]
mod configs;
#[path = "cli/groups.rs"]
mod groups;
#[path = "cli/pipelines.rs"]
mod pipelines;
#[path = "cli/terminal.rs"]
mod terminal;

use std::net::TcpListener;
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::Failed;
use vltava_tests::harness::{
    self, Broker, BrokerOptions, RawBatch, RawClient, Tested, good_client, now_ms, paths, process,
    requests,
};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_vltava-under-test");
/// How long one command may run.
pub(crate) const COMMAND_DEADLINE: Duration = Duration::from_mins(1);

/// One test: its name and what it does.
pub(crate) type Row = (&'static str, fn() -> Tested);

fn main() -> ExitCode {
    let rows: [Row; 13] = [
        ("ready_line_names_what_it_serves", ready_line_names_what_it_serves),
        ("unknown_key_is_named", || refused(&["--set", "no.such.key=1"], "no.such.key")),
        ("bad_value_is_named", || refused(&["--set", "num.partitions=many"], "num.partitions")),
        ("value_out_of_range_is_named", || {
            refused(&["--set", "message.max.bytes=-1"], "message.max.bytes")
        }),
        ("setting_without_value_is_named", || refused(&["--set", "num.partitions"], "num.part")),
        ("unknown_key_in_a_file_is_named", unknown_key_in_a_file_is_named),
        ("missing_file_is_named", || refused(&["--config", "/no/such/file"], "/no/such/file")),
        ("port_in_use_is_named", port_in_use_is_named),
        ("bad_address_is_named", || refused(&["--listen", "nowhere"], "nowhere")),
        ("second_broker_is_refused", second_broker_is_refused),
        ("sigterm_stops_with_exit_code_0", sigterm_stops_with_exit_code_0),
        ("data_is_there_after_a_restart", data_is_there_after_a_restart),
        ("settings_are_obeyed", settings_are_obeyed),
    ];
    // Against someone else's broker only the commands of a client can be tried.
    let own = std::env::var(harness::broker::EXTERNAL).is_err();
    let of_the_broker = [
        commands::OF_THE_BROKER,
        groups::OF_THE_BROKER,
        pipelines::OF_THE_BROKER,
        terminal::OF_THE_BROKER,
    ];
    let of_a_client = [commands::OF_A_CLIENT, configs::OF_A_CLIENT, groups::OF_A_CLIENT];
    let rows = rows.into_iter().chain(of_the_broker.into_iter().flatten().copied());
    let rows = rows.filter(|_| own).chain(of_a_client.into_iter().flatten().copied());
    let trials = rows.map(|(name, row)| harness::trial(name, row)).collect();
    harness::run(trials, 2)
}

/// Runs the binary to its end.
pub(crate) fn vltava(arguments: &[&str], input: &str) -> Tested<process::Output> {
    let mut command = Command::new(BINARY);
    process::without_our_variables(&mut command).args(arguments);
    process::run(&mut command, input.as_bytes(), COMMAND_DEADLINE)
}

/// `serve` must refuse these arguments: exit code not 0, one line that names the cause, no ready
/// line, and nothing written.
fn refused(arguments: &[&str], cause: &str) -> Tested {
    let scratch = paths::fresh("refused")?;
    let data_dir = scratch.path().join("data");
    let data = data_dir.to_str().ok_or("paths are UTF-8 here")?;
    let mut all = vec!["serve", "--data-dir", data, "--admin", "off"];
    if !arguments.contains(&"--listen") {
        all.extend(["--listen", "127.0.0.1:0"]);
    }
    all.extend(arguments);
    let output = vltava(&all, "")?;
    assert!(!output.status.success());
    assert_eq!(output.stdout, "");
    let lines: Vec<&str> = output.stderr.lines().collect();
    // A usage error (2) goes on to point at --help.
    assert!(lines.len() == 1 || output.status.code() == Some(2), "one line: {}", output.stderr);
    assert!(lines[0].contains(cause), "{cause} is not named: {}", lines[0]);
    assert!(!data_dir.exists(), "something was written");
    Ok(())
}

fn ready_line_names_what_it_serves() -> Tested {
    let broker = Broker::start(BrokerOptions::new(BINARY))?;
    good_client::check(broker.bootstrap())?;
    assert!(broker.bootstrap().starts_with("127.0.0.1:"));
    assert!(!broker.bootstrap().ends_with(":0"), "port 0 became a real one");
    assert!(broker.admin().starts_with("127.0.0.1:"));
    assert!(std::net::TcpStream::connect(broker.admin()).is_ok());
    assert!(broker.data_dir().is_dir());
    Ok(())
}

fn unknown_key_in_a_file_is_named() -> Tested {
    let scratch = paths::fresh("config")?;
    for (name, text) in [
        ("server.properties", "num.partitions=3\nno.such.key=1\n"),
        ("vltava.toml", "\"num.partitions\" = 3\n\"no.such.key\" = 1\n"),
    ] {
        let path = scratch.path().join(name);
        write(&path, text)?;
        refused(&["--config", path.to_str().ok_or("paths are UTF-8 here")?], "no.such.key")?;
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a user's configuration file")]
fn write(path: &std::path::Path, text: &str) -> Tested {
    Ok(std::fs::write(path, text)?)
}

fn port_in_use_is_named() -> Tested {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    refused(&["--listen", &address], &address)
}

/// Two brokers on one directory would write over each other.
fn second_broker_is_refused() -> Tested {
    let broker = Broker::start(BrokerOptions::new(BINARY))?;
    let data = broker.data_dir().to_str().ok_or("paths are UTF-8 here")?;
    let arguments = ["serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--admin", "off"];
    let output = vltava(&arguments, "")?;
    assert!(!output.status.success());
    assert_eq!(output.stdout, "");
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    assert!(output.stderr.contains(data), "the directory is not named: {}", output.stderr);
    good_client::check(broker.bootstrap())
}

fn sigterm_stops_with_exit_code_0() -> Tested {
    let mut broker = Broker::start(BrokerOptions::new(BINARY))?;
    good_client::check(broker.bootstrap())?;
    // A client that waits in a long Fetch, and one that says nothing, must not hold it up.
    let mut waiting = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut waiting, "stop", 1, &[])?;
    let fetch = requests::fetch_request(&topic, 0).with_min_bytes(1).with_max_wait_ms(60_000);
    waiting.send(requests::FETCH_VERSION, &fetch)?;
    let _silent = RawClient::connect(broker.bootstrap())?;
    let status = broker.terminate()?;
    assert_eq!(status.code(), Some(0), "{}", broker.stderr_tail());
    Ok(())
}

fn data_is_there_after_a_restart() -> Tested {
    let mut broker = Broker::start(BrokerOptions::new(BINARY))?;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "restart", 1, &[("retention.ms", "7200000")])?;
    let id = requests::topic_id(&mut client, &topic)?;
    let (producer, epoch) = requests::init_producer(&mut client)?;
    let batch = |sequence| RawBatch::of(2, now_ms()).producer(producer, epoch, sequence).encode();
    let first = batch(0);
    for expected in [0, 0] {
        let answer = requests::produce(&mut client, &topic, first.clone())?;
        assert_eq!((answer.error_code, answer.base_offset), (0, expected));
    }
    for clean in [true, false] {
        if clean {
            broker.terminate()?;
        } else {
            broker.kill9()?;
        }
        broker.restart()?;
        let mut client = RawClient::connect(broker.bootstrap())?;
        requests::await_leaders(&mut client, &topic, 1)?;
        assert_eq!(requests::topic_id(&mut client, &topic)?, id);
        let end = if clean { 2 } else { 4 };
        assert_eq!(requests::list_offsets(&mut client, 7, &topic, -1)?.offset, end);
        // Producer state is part of the data: the first batch is still known, the next one fits.
        let again = requests::produce(&mut client, &topic, first.clone())?;
        assert_eq!((again.error_code, again.base_offset), (0, 0));
        let next = batch(i32::try_from(end)?);
        let answer = requests::produce(&mut client, &topic, next)?;
        assert_eq!((answer.error_code, answer.base_offset), (0, end));
        let (fresh, _) = requests::init_producer(&mut client)?;
        assert!(fresh > producer, "a producer id was given twice");
    }
    Ok(())
}

fn settings_are_obeyed() -> Tested {
    let options = BrokerOptions::new(BINARY)
        .set("num.partitions", "4")
        .set("message.max.bytes", "2000")
        .set("auto.create.topics.enable", "false");
    let broker = Broker::start(options)?;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let name = requests::unique("defaults");
    let response = client.call(7, &requests::create_topic_request(&name, -1, &[]))?;
    assert_eq!((response.topics[0].error_code, response.topics[0].num_partitions), (0, 4));
    requests::await_leaders(&mut client, &name, 4)?;
    let large = RawBatch::of_size(2_000, now_ms()).encode();
    assert_eq!(requests::produce(&mut client, &name, large)?.error_code, 10);
    let nobody = requests::unique("nobody");
    let asking =
        requests::metadata_request(&[nobody.as_str()]).with_allow_auto_topic_creation(true);
    assert_eq!(client.call(9, &asking)?.topics[0].error_code, 3);

    let broker = Broker::start(BrokerOptions::new(BINARY))?;
    let mut client = RawClient::connect(broker.bootstrap())?;
    client.call(9, &asking)?;
    requests::await_leaders(&mut client, &nobody, 1)
        .map_err(|_| Failed::from("a topic is not created by asking for it"))
}
