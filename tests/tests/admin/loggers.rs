//! Log levels, changed while the broker runs (KIP-412).

use vltava_tests::harness::{Broker, RawClient, Tested};

use crate::Row;
use crate::ask::{self, APPEND, DELETE, LOGGERS, SET, SUBTRACT, alter, fine, key, refused, told};

pub(crate) const ROWS: &[Row] = &[
    ("levels_are_described_and_changed", levels_are_described_and_changed),
    ("level_refusals", level_refusals),
    ("a_changed_level_shows_in_the_lines", a_changed_level_shows_in_the_lines),
];

fn levels_are_described_and_changed(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let node = ask::broker_name(&mut client)?;
    let root = key(&mut client, LOGGERS, &node, "root")?;
    assert_eq!((root.config_source, root.config_type, root.synonyms.len()), (6, 0, 0));
    assert!(!root.read_only && !root.is_sensitive);
    let before = told(root.value.as_ref()).ok_or("the root has a level")?;
    ask::set(&mut client, LOGGERS, &node, "root", "ERROR")?;
    let now = ask::value(&mut client, LOGGERS, &node, "root")?;
    assert_eq!(now.as_deref(), Some("ERROR"));
    ask::set(&mut client, LOGGERS, &node, "root", &before)?;
    assert_eq!(ask::value(&mut client, LOGGERS, &node, "root")?, Some(before));
    assert_eq!(ask::describe(&mut client, LOGGERS, &node, &["no.such"])?.configs, []);
    Ok(())
}

fn level_refusals(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let node = ask::broker_name(&mut client)?;
    let level = |level: &str| {
        format!(
            "Cannot set the log level of root to {level} as it is not a supported log level. \
             Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN"
        )
    };
    for (logger, operation, value, code, text) in [
        ("no.such", SET, Some("DEBUG"), 40, "Logger no.such does not exist!".to_owned()),
        ("no.such", DELETE, None, 40, "Logger no.such does not exist!".to_owned()),
        ("root", SET, Some("LOUD"), 40, level("LOUD")),
        ("root", SET, Some("warn"), 40, level("warn")),
        ("root", SET, None, 42, "Null value not supported for : root".to_owned()),
        (
            "root",
            DELETE,
            None,
            42,
            "Removing the log level of the root logger is not allowed".to_owned(),
        ),
        (
            "root",
            APPEND,
            Some("INFO"),
            42,
            "APPEND operation is not allowed for the BROKER_LOGGER resource".to_owned(),
        ),
        (
            "root",
            SUBTRACT,
            Some("INFO"),
            42,
            "SUBTRACT operation is not allowed for the BROKER_LOGGER resource".to_owned(),
        ),
    ] {
        let got = alter(&mut client, LOGGERS, &node, &[(logger, operation, value)])?;
        assert_eq!(got, refused(code, &text));
    }
    let set = [("root", SET, Some("INFO"))];
    for (name, text) in [
        ("77", format!("Unexpected node id. Expected {node}, but received 77")),
        ("x", "Node id must be an integer, but it is: x".to_owned()),
        ("", "Node id must be an integer, but it is: ".to_owned()),
    ] {
        assert_eq!(alter(&mut client, LOGGERS, name, &set)?, refused(42, &text));
    }
    for (name, text) in [
        ("", "Broker id must not be empty".to_owned()),
        ("x", "Broker id must be an integer, but it is: x".to_owned()),
        ("77", format!("Unexpected broker id, expected {node} but received 77")),
    ] {
        let result = ask::describe(&mut client, LOGGERS, name, &[])?;
        let got = (result.error_code, told(result.error_message.as_ref()));
        assert_eq!(got, refused(42, &text));
    }
    Ok(())
}

fn a_changed_level_shows_in_the_lines(broker: &Broker) -> Tested {
    if broker.is_external() {
        return Ok(()); // Its lines are not ours to read.
    }
    let mut client = RawClient::connect(broker.bootstrap())?;
    let node = ask::broker_name(&mut client)?;
    let line = "leadership=Leadership";
    let create = |client: &mut RawClient| {
        vltava_tests::harness::requests::create_topic(client, "lines", 1, &[])
    };
    create(&mut client)?;
    assert!(!broker.stderr_tail().contains(line), "lines of this level are not written yet");
    ask::set(&mut client, LOGGERS, &node, "vltava::partition", "DEBUG")?;
    create(&mut client)?;
    ask::until("a line of partitions", || Ok(broker.stderr_tail().contains(line)))?;
    let gone = [("vltava::partition", DELETE, None)];
    assert_eq!(alter(&mut client, LOGGERS, &node, &gone)?, fine());
    let level = ask::value(&mut client, LOGGERS, &node, "vltava::partition")?;
    assert_eq!(level, ask::value(&mut client, LOGGERS, &node, "root")?);
    Ok(())
}
