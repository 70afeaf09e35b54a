//! `consume --group` and `group`: members share, commit and leave; a group is looked at, set back,
//! explained and deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};

use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use vltava_tests::harness::{Broker, BrokerOptions, RawClient, Tested, paths, process, requests};

use crate::commands::{document, eventually, on};
use crate::{BINARY, Row, vltava};

/// Against any broker.
pub(crate) const OF_A_CLIENT: &[Row] = &[
    ("members_share_and_leave", members_share_and_leave),
    ("a_group_goes_on_where_it_stopped", a_group_goes_on_where_it_stopped),
    ("offsets_are_reset_in_every_way", offsets_are_reset_in_every_way),
    ("a_plan_is_exported_and_carried_out", a_plan_is_exported_and_carried_out),
    ("groups_and_offsets_are_deleted", groups_and_offsets_are_deleted),
    ("a_group_in_use_is_not_touched", a_group_in_use_is_not_touched),
    ("a_group_is_explained_by_the_protocol", a_group_is_explained_by_the_protocol),
];

/// Against our own broker, which can be killed and has an admin listener.
pub(crate) const OF_THE_BROKER: &[Row] = &[
    ("a_member_survives_its_broker", a_member_survives_its_broker),
    ("a_group_is_explained_with_its_history", a_group_is_explained_with_its_history),
];

fn options() -> BrokerOptions {
    // No test here needs the first members of a group to wait for more.
    BrokerOptions::new(BINARY).set("group.initial.rebalance.delay.ms", "0")
}

fn broker() -> Tested<Broker> {
    Broker::start(options())
}

/// A topic with so many partitions and keyed records `k0` …, and the records as they are printed.
fn topic(broker: &Broker, partitions: &str, records: usize) -> Tested<String> {
    let name = requests::unique("grouped");
    on(broker, &["topic", "create", &name, "--partitions", partitions], "")?;
    produce(broker, &name, 0..records)?;
    Ok(name)
}

fn produce(broker: &Broker, topic: &str, records: std::ops::Range<usize>) -> Tested {
    let lines: Vec<String> = records.map(|number| format!("k{number}:v{number}")).collect();
    on(broker, &["produce", topic, "--key-separator", ":"], &lines.join("\n"))?;
    Ok(())
}

/// What JSON says of a group.
fn describe(broker: &Broker, group: &str) -> Tested<Value> {
    Ok(document(broker, &["group", "describe", group])?[0].clone())
}

/// The committed offset and the lag of each partition.
fn offsets(group: &Value) -> BTreeMap<i64, (i64, i64)> {
    let offsets = group["offsets"].as_array().into_iter().flatten();
    let number = |value: &Value| value.as_i64().unwrap_or(-1);
    offsets
        .map(|one| (number(&one["partition"]), (number(&one["committed"]), number(&one["lag"]))))
        .collect()
}

/// How many partitions each member has; none while the group is being divided.
fn shares(group: &Value) -> Option<Vec<usize>> {
    let share = |member: &Value| {
        let topics = member["assignment"].as_array().into_iter().flatten();
        topics.map(|topic| topic["partitions"].as_array().map_or(0, Vec::len)).sum()
    };
    let members = group["members"].as_array()?;
    let mut shares: Vec<usize> = members.iter().map(share).collect();
    shares.sort_unstable();
    (group["state"] == "Stable").then_some(shares)
}

/// A command that runs until it is interrupted.
struct Running {
    child: Child,
    scratch: TempDir,
}

impl Running {
    fn consumer(broker: &Broker, topic: &str, group: &str) -> Tested<Self> {
        let scratch = paths::fresh("running")?;
        let file = |name: &str| {
            let mut options = std::fs::OpenOptions::new();
            options.create(true).append(true).open(scratch.path().join(name))
        };
        let mut command = Command::new(BINARY);
        let child = process::without_our_variables(&mut command)
            .args(["consume", topic, "--group", group, "--from-beginning", "--format", "%k"])
            .args(["--session-timeout", "6000", "--bootstrap", broker.bootstrap()])
            .stdin(Stdio::null())
            .stdout(file("stdout")?)
            .stderr(file("stderr")?)
            .spawn()?;
        Ok(Self { child, scratch })
    }

    /// The lines that it has printed.
    fn lines(&self) -> Tested<Vec<String>> {
        let text = std::fs::read_to_string(self.scratch.path().join("stdout"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Ctrl-C; it must then end well and say nothing.
    fn interrupt(mut self) -> Tested<Vec<String>> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        eventually("the end of an interrupted consumer", || Ok(self.child.try_wait()?.is_some()))?;
        let stderr = std::fs::read_to_string(self.scratch.path().join("stderr"))?;
        assert_eq!((self.child.wait()?.code(), stderr.as_str()), (Some(0), ""));
        self.lines()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn members_share_and_leave() -> Tested {
    let broker = broker()?;
    let topic = topic(&broker, "4", 40)?;
    let group = requests::unique("sharing");
    let first = Running::consumer(&broker, &topic, &group)?;
    eventually("one member", || Ok(first.lines()?.len() == 40))?;
    let second = Running::consumer(&broker, &topic, &group)?;
    let third = Running::consumer(&broker, &topic, &group)?;
    let divided = |expected: &[usize]| {
        let described = describe(&broker, &group)?;
        Ok(shares(&described).is_some_and(|shares| shares == expected))
    };
    eventually("three members", || divided(&[1, 1, 2]))?;
    produce(&broker, &topic, 40..80)?;
    let printed =
        || Ok::<_, Failed>(first.lines()?.len() + second.lines()?.len() + third.lines()?.len());
    eventually("all records", || Ok(printed()? == 80))?;

    let mut lines = third.interrupt()?;
    eventually("two members", || divided(&[2, 2]))?;
    lines.extend(first.interrupt()?);
    eventually("one member again", || divided(&[4]))?;
    lines.extend(second.interrupt()?);

    // Everybody has left in order, so every record has been printed once.
    assert_eq!(lines.len(), 80);
    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), 80);
    let described = describe(&broker, &group)?;
    assert_eq!(described["state"], "Empty");
    assert_eq!(offsets(&described).values().map(|(_, lag)| lag).collect::<Vec<_>>(), [&0; 4]);
    Ok(())
}

fn a_group_goes_on_where_it_stopped() -> Tested {
    let broker = broker()?;
    let topic = topic(&broker, "2", 30)?;
    let group = requests::unique("resuming");
    let consume = ["consume", &topic, "--group", &group, "--from-beginning", "--format", "%k"];
    let first = on(&broker, &[&consume[..], &["--max-messages", "7"]].concat(), "")?;
    assert_eq!(first.lines().count(), 7);
    let second = on(&broker, &[&consume[..], &["--max-messages", "23"]].concat(), "")?;
    let all: BTreeSet<&str> = first.lines().chain(second.lines()).collect();
    assert_eq!(all.len(), 30, "a record was printed twice");
    let nothing = on(&broker, &[&consume[..], &["--timeout", "500"]].concat(), "")?;
    assert_eq!(nothing, "");

    // Without anything committed, and not told to begin at the beginning, a group begins at the end.
    let late = requests::unique("late");
    on(&broker, &["consume", &topic, "--group", &late, "--timeout", "500"], "")?;
    assert!(offsets(&describe(&broker, &late)?).values().all(|(_, lag)| *lag == 0));

    let wrong = ["consume", &topic, "--group", &group, "--offset", "3"];
    let refused = vltava(&[&wrong[..], &["--bootstrap", broker.bootstrap()]].concat(), "")?;
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    Ok(())
}

fn offsets_are_reset_in_every_way() -> Tested {
    let broker = broker()?;
    let topic = topic(&broker, "1", 20)?;
    let group = requests::unique("reset");
    let reset = |arguments: &[&str]| {
        let command = ["group", "reset-offsets", &group, "--topic", &topic];
        let done = document(&broker, &[&command[..], arguments].concat())?;
        Ok::<_, Failed>(done["offsets"][0].clone())
    };
    // Nothing happens until it is said twice.
    assert_eq!(reset(&["--to-offset", "5"])?["after"], 5);
    assert_eq!(reset(&["--to-offset", "5", "--dry-run"])?["before"], Value::Null);
    for (arguments, after, is_noted) in [
        (&["--to-offset", "5"][..], 5, false),
        (&["--to-current"], 5, false),
        (&["--shift-by", "3"], 8, false),
        (&["--shift-by", "-2"], 6, false),
        (&["--to-latest"], 20, false),
        (&["--shift-by", "1"], 20, true),
        (&["--to-earliest"], 0, false),
        (&["--to-offset", "100"], 20, true),
        (&["--to-datetime", "2001-01-01T00:00:00.000"], 0, false),
        (&["--to-datetime", "2101-01-01T00:00:00+01:00"], 20, true),
        (&["--by-duration", "P1D"], 0, false),
    ] {
        let done = reset(&[arguments, &["--execute"]].concat())?;
        assert_eq!(done["after"], after, "{arguments:?}");
        assert_eq!(!done["note"].is_null(), is_noted, "{arguments:?}: {done}");
        let committed = offsets(&describe(&broker, &group)?)[&0].0;
        assert_eq!(committed, after, "{arguments:?}");
    }
    for (arguments, cause) in [
        (["--topic", &topic, "--to-datetime", "soon"], "soon"),
        (["--topic", "no-such-topic", "--to-latest", "--execute"], "no-such-topic"),
        (["--topic", &format!("{topic}:7"), "--to-latest", "--execute"], "7"),
        (["--from-file", "/no/such/plan", "--execute", "--json"], "/no/such/plan"),
    ] {
        let command = ["group", "reset-offsets", &group, "--bootstrap", broker.bootstrap()];
        let refused = vltava(&[&command[..], &arguments].concat(), "")?;
        assert!(!refused.status.success(), "{arguments:?}");
        assert!(refused.stderr.contains(cause), "{arguments:?}: {}", refused.stderr);
    }
    Ok(())
}

fn a_plan_is_exported_and_carried_out() -> Tested {
    let broker = broker()?;
    let topic = topic(&broker, "3", 30)?;
    let group = requests::unique("planned");
    let reset = ["group", "reset-offsets", &group];
    let earliest = ["--topic", &topic, "--to-earliest", "--execute"];
    on(&broker, &[&reset[..], &earliest].concat(), "")?;
    let export = [&reset[..], &["--all-topics", "--to-latest", "--export"]].concat();
    let plan = on(&broker, &export, "")?;
    assert_eq!(plan.lines().count(), 3, "{plan}");
    let scratch = paths::fresh("plan")?;
    let path = scratch.path().join("plan.csv");
    write(&path, &plan)?;
    let path = path.to_str().ok_or("paths are UTF-8 here")?;
    let shown = on(&broker, &[&reset[..], &["--from-file", path]].concat(), "")?;
    assert!(shown.contains("--execute"), "{shown}");
    assert!(offsets(&describe(&broker, &group)?).values().all(|(committed, _)| *committed == 0));
    on(&broker, &[&reset[..], &["--from-file", path, "--execute"]].concat(), "")?;
    let described = offsets(&describe(&broker, &group)?);
    assert_eq!(described.values().map(|(_, lag)| lag).collect::<Vec<_>>(), [&0; 3]);
    assert_eq!(described.values().map(|(committed, _)| committed).sum::<i64>(), 30);
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a file of the user's")]
fn write(path: &std::path::Path, text: &str) -> Tested {
    Ok(std::fs::write(path, text)?)
}

fn groups_and_offsets_are_deleted() -> Tested {
    let broker = broker()?;
    let topic = topic(&broker, "2", 10)?;
    let group = requests::unique("deleted");
    let reset = ["group", "reset-offsets", &group, "--topic", &topic, "--to-latest", "--execute"];
    on(&broker, &reset, "")?;
    let listed = document(&broker, &["group", "list", "--state", "empty"])?;
    let of_group = |listed: &Value| {
        listed.as_array().is_some_and(|all| all.iter().any(|one| one["group"] == group))
    };
    assert!(of_group(&listed), "{listed}");
    assert!(!of_group(&document(&broker, &["group", "list", "--type", "share"])?));

    let first = format!("{topic}:0");
    on(&broker, &["group", "delete-offsets", &group, "--topic", &first], "")?;
    assert_eq!(offsets(&describe(&broker, &group)?).into_keys().collect::<Vec<_>>(), [1]);

    // What can be deleted is, though another cannot.
    let both = ["group", "delete", "no-such-group", &group, "--bootstrap", broker.bootstrap()];
    let output = vltava(&both, "")?;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.contains(&group), "{}", output.stdout);
    assert!(output.stderr.contains("no-such-group"), "{}", output.stderr);
    assert!(output.stderr.contains("GROUP_ID_NOT_FOUND"), "{}", output.stderr);
    let gone = vltava(&["group", "describe", &group, "--bootstrap", broker.bootstrap()], "")?;
    assert_eq!(gone.status.code(), Some(1));
    assert!(gone.stderr.contains(&group) && gone.stderr.lines().count() == 1, "{}", gone.stderr);
    Ok(())
}

fn a_group_in_use_is_not_touched() -> Tested {
    let broker = broker()?;
    let topic = topic(&broker, "1", 5)?;
    let group = requests::unique("used");
    let reader = Running::consumer(&broker, &topic, &group)?;
    eventually("a reader", || Ok(reader.lines()?.len() == 5))?;
    let reset = ["group", "reset-offsets", &group, "--topic", &topic, "--to-earliest", "--execute"];
    let of_topic = ["group", "delete-offsets", &group, "--topic", &topic];
    for (command, cause) in [
        (&reset[..], "Stable"),
        (&["group", "delete", &group], "NON_EMPTY_GROUP"),
        (&of_topic, "GROUP_SUBSCRIBED_TO_TOPIC"),
    ] {
        let refused = vltava(&[command, &["--bootstrap", broker.bootstrap()]].concat(), "")?;
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
        assert!(refused.stderr.contains(cause), "{command:?}: {}", refused.stderr);
    }
    // It reads on as if nothing had been.
    produce(&broker, &topic, 5..8)?;
    eventually("the reader", || Ok(reader.lines()?.len() == 8))?;
    reader.interrupt()?;
    Ok(())
}

/// An admin listener that nobody runs: then only the protocol is left.
fn a_group_is_explained_by_the_protocol() -> Tested {
    let broker = broker()?;
    let topic = topic(&broker, "2", 10)?;
    let group = requests::unique("explained");
    let reader = Running::consumer(&broker, &topic, &group)?;
    eventually("a reader", || Ok(reader.lines()?.len() == 10))?;
    let running = on(&broker, &["group", "explain", &group], "")?;
    assert!(running.contains("members 1"), "{running}");
    reader.interrupt()?;
    produce(&broker, &topic, 10..14)?;
    let explained = document(&broker, &["group", "explain", &group])?;
    assert_eq!((&explained["lag_records"], &explained["state"]), (&4.into(), &"Empty".into()));
    assert!(explained["lag_ms"].as_i64().is_some_and(|lag| lag > 0), "{explained}");
    let text = on(&broker, &["group", "explain", &group], "")?;
    assert!(text.contains("4 records are left") && text.contains("nobody"), "{text}");
    let nowhere = ["group", "explain", &group, "--admin", "127.0.0.1:1"];
    let refused = vltava(&[&nowhere[..], &["--bootstrap", broker.bootstrap()]].concat(), "")?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("127.0.0.1:1"), "{}", refused.stderr);
    Ok(())
}

/// Members bear a broker that is away for a moment, and it knows them when it is back.
fn a_member_survives_its_broker() -> Tested {
    let mut broker = Broker::start(options().stable_port()?)?;
    let topic = topic(&broker, "2", 10)?;
    let group = requests::unique("surviving");
    let reader = Running::consumer(&broker, &topic, &group)?;
    eventually("a reader", || Ok(reader.lines()?.len() == 10))?;
    for round in 1..=2 {
        broker.kill9()?;
        broker.restart()?;
        requests::await_leaders(&mut RawClient::connect(broker.bootstrap())?, &topic, 2)?;
        produce(&broker, &topic, 10 * round..10 * (round + 1))?;
        eventually("the reader", || Ok(reader.lines()?.len() == 10 * (round + 1)))?;
    }
    let lines = reader.interrupt()?;
    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), 30, "nothing came twice");
    let described = describe(&broker, &group)?;
    assert_eq!(described["state"], "Empty");
    assert!(offsets(&described).values().all(|(_, lag)| *lag == 0), "{described}");
    Ok(())
}

fn a_group_is_explained_with_its_history() -> Tested {
    let broker = broker()?;
    let topic = topic(&broker, "2", 10)?;
    // A name that must be encoded in a path.
    let group = requests::unique("a group/");
    let first = Running::consumer(&broker, &topic, &group)?;
    eventually("a reader", || Ok(first.lines()?.len() == 10))?;
    let second = Running::consumer(&broker, &topic, &group)?;
    let explain = ["group", "explain", &group, "--admin", broker.admin()];
    let explained = |expected: usize| {
        let report = document(&broker, &explain)?;
        let members = report["members"].as_array().map_or(0, Vec::len);
        Ok::<_, Failed>((report["state"] == "Stable" && members == expected).then_some(report))
    };
    eventually("two members", || Ok(explained(2)?.is_some()))?;
    second.interrupt()?;
    eventually("one member", || Ok(explained(1)?.is_some()))?;
    let report = explained(1)?.ok_or("a settled group")?;
    assert_eq!(report["source"], "admin");
    let rebalances = report["rebalances"].as_array().ok_or("a history")?;
    assert!(rebalances.len() >= 3, "{report}");
    let last = &rebalances[rebalances.len() - 1];
    assert!(last["cause"].as_str().is_some_and(|cause| cause.contains("left")), "{last}");
    assert_eq!(last["reason"], "the consumer is closed");
    assert_eq!(last["generation"], report["generation"]);
    assert!(last["took_ms"].is_i64() && last["client_id"] == "vltava", "{last}");
    assert_eq!(report["lag_records"], 0);
    let text = on(&broker, &explain, "")?;
    assert!(text.contains("the consumer is closed"), "{text}");
    assert!(text.contains("everything has been read"), "{text}");
    first.interrupt()?;
    Ok(())
}
