//! `topic alter`, many topics at once, and `config`.
//!
//! Apache Kafka's brokers hear of a change a moment after it was acknowledged, so what follows from
//! one is waited for.

use serde_json::Value;
use vltava_tests::harness::{Broker, BrokerOptions, RawClient, Tested, requests};

use crate::commands::{document, eventually, on};
use crate::{BINARY, Row, vltava};

/// Against any broker.
pub(crate) const OF_A_CLIENT: &[Row] = &[
    ("topics_are_altered", topics_are_altered),
    ("many_topics_at_once", many_topics_at_once),
    ("configuration_of_a_topic", configuration_of_a_topic),
    ("configuration_of_brokers", configuration_of_brokers),
];

/// What JSON says of one key.
fn key(broker: &Broker, arguments: &[&str], key: &str) -> Tested<Value> {
    let command = [&["config", "describe"], arguments, &["--key", key]].concat();
    Ok(document(broker, &command)?["configs"][0].clone())
}

/// A command that must fail with one line that names the cause.
fn refused(broker: &Broker, arguments: &[&str], cause: &str) -> Tested {
    let output = vltava(&[arguments, &["--bootstrap", broker.bootstrap()]].concat(), "")?;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    assert!(output.stderr.contains(cause), "{arguments:?}: {}", output.stderr);
    Ok(())
}

fn topics_are_altered() -> Tested {
    let broker = Broker::start(BrokerOptions::new(BINARY))?;
    let name = requests::unique("altered");
    on(&broker, &["topic", "create", &name, "--partitions", "2", "--config", "segment.ms=7"], "")?;
    let alter = ["topic", "alter", &name, "--partitions", "4", "--config", "retention.ms=60000"];
    let alter = [&alter[..], &["--delete-config", "segment.ms"]].concat();
    on(&broker, &[&alter[..], &["--validate-only"]].concat(), "")?;
    // How many partitions it has, and what is set.
    let shows = |partitions: usize, key: &str, value: &str| {
        let described = document(&broker, &["topic", "describe", &name])?;
        let count = described[0]["partitions"].as_array().map(Vec::len);
        let set = described[0]["config"].as_object().ok_or("an object")?;
        let is_only = set.len() == 1 && set.get(key).is_some_and(|set| set == value);
        Ok(count == Some(partitions) && is_only)
    };
    eventually("what was created", || shows(2, "segment.ms", "7"))?;
    on(&broker, &alter, "")?;
    eventually("what was altered", || shows(4, "retention.ms", "60000"))?;
    refused(&broker, &["topic", "alter", &name, "--partitions", "3"], "INVALID_PARTITIONS")?;
    refused(&broker, &["topic", "alter", &name, "--config", "no.such=1"], "no.such")?;
    refused(&broker, &["topic", "alter", "nobody", "--partitions", "3"], "nobody")
}

fn many_topics_at_once() -> Tested {
    let broker = Broker::start(BrokerOptions::new(BINARY))?;
    let prefix = requests::unique("many");
    let names: Vec<String> = (0..250).map(|number| format!("{prefix}-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let create = [&["topic", "create", "--partitions", "1"], &names[..]].concat();
    let created = document(&broker, &create)?;
    assert_eq!(created.as_array().map(Vec::len), Some(250));
    // One of them is there, the other is not: what can be done is done.
    let [last, new] = [names[249], &format!("{prefix}-new")];
    let again = ["topic", "create", last, new, "--bootstrap", broker.bootstrap()];
    let again = vltava(&again, "")?;
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stderr.contains(last) && again.stderr.contains("ALREADY_EXISTS"));
    assert!(again.stdout.contains(new), "{}", again.stdout);
    let delete = [&["topic", "delete", new], &names[..]].concat();
    assert_eq!(on(&broker, &delete, "")?.lines().count(), 251);
    eventually("no topics", || Ok(!on(&broker, &["topic", "list"], "")?.contains(&prefix)))?;
    let twice = vltava(&[&delete[..], &["--bootstrap", broker.bootstrap()]].concat(), "")?;
    assert!(twice.stderr.contains("and 250 more"), "{}", twice.stderr);
    Ok(())
}

fn configuration_of_a_topic() -> Tested {
    let broker = Broker::start(BrokerOptions::new(BINARY))?;
    let name = requests::unique("configured");
    on(&broker, &["topic", "create", &name, "--config", "retention.ms=60000"], "")?;
    requests::await_leaders(&mut RawClient::connect(broker.bootstrap())?, &name, 1)?;
    let topic = ["topic", name.as_str()];
    let describe = [&["config", "describe"], &topic[..]].concat();
    let alter = |change: &[&str]| {
        let command = [&["config", "alter"], &topic[..], change].concat();
        on(&broker, &command, "")
    };
    let set = key(&broker, &topic, "retention.ms")?;
    assert_eq!((&set["value"], &set["source"]), (&"60000".into(), &"topic".into()));
    assert_eq!(set["type"], "long");
    assert!(set["documentation"].as_str().is_some_and(|text| text.len() > 20), "{set}");
    let unset = key(&broker, &topic, "segment.bytes")?;
    let synonyms = unset["synonyms"].as_array().ok_or("synonyms")?;
    let default = synonyms.iter().find(|synonym| synonym["source"] == "default");
    assert_eq!(default.ok_or("a default")?["key"], "log.segment.bytes", "{unset}");

    let is = |policy: &str, source: &str| {
        eventually(policy, || {
            let now = key(&broker, &topic, "cleanup.policy")?;
            Ok(now["value"] == policy && now["source"] == source)
        })
    };
    let extend = ["--append", "cleanup.policy=compact", "--set", "segment.ms=9"];
    alter(&[&extend[..], &["--validate-only"]].concat())?;
    is("delete", "default")?;
    alter(&extend)?;
    is("delete,compact", "topic")?;
    alter(&["--subtract", "cleanup.policy=delete"])?;
    is("compact", "topic")?;
    alter(&["--delete", "cleanup.policy", "--delete", "segment.ms"])?;
    is("delete", "default")?;

    let set = on(&broker, &describe, "")?;
    assert!(set.contains("retention.ms") && !set.contains("segment.bytes"), "{set}");
    let all = on(&broker, &[&describe[..], &["--all"]].concat(), "")?;
    assert!(all.contains("segment.bytes") && all.contains("default"), "{all}");
    for (change, cause) in [("no.such.key=1", "no.such.key"), ("retention.ms=soon", "retention.ms")]
    {
        refused(&broker, &["config", "alter", "topic", &name, "--set", change], cause)?;
    }
    refused(&broker, &["config", "describe", "topic", "nobody"], "nobody")?;
    refused(&broker, &[&describe[..], &["--key", "no.such.key"]].concat(), "no.such.key")
}

fn configuration_of_brokers() -> Tested {
    let broker = Broker::start(BrokerOptions::new(BINARY))?;
    let all = on(&broker, &["config", "describe", "broker", "1", "--all"], "")?;
    for key in ["message.max.bytes = ", "default: num.partitions", "only at start", "at any time"] {
        assert!(all.contains(key), "{key}: {all}");
    }
    let of_cluster = |change: &[&str]| {
        let alter = [&["config", "alter", "cluster"], change].concat();
        on(&broker, &alter, "")
    };
    of_cluster(&["--set", "message.max.bytes=1500000"])?;
    let source = || key(&broker, &["cluster"], "message.max.bytes");
    eventually("the cluster's value", || Ok(source()?["value"] == "1500000"))?;
    assert_eq!(source()?["source"], "cluster");
    of_cluster(&["--delete", "message.max.bytes"])?;
    eventually("the default", || Ok(source()?.is_null()))?;
    let fixed = ["config", "alter", "broker", "1", "--set", "node.id=7"];
    refused(&broker, &fixed, "node.id")?;
    refused(&broker, &["config", "describe", "broker", "77"], "77")?;
    refused(&broker, &["config", "describe", "broker", "one"], "one")?;
    refused(&broker, &["config", "describe", "cluster", "x"], "no name")
}
