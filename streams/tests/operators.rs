//! What each operator makes of its input, in the test driver.

#![allow(clippy::unwrap_used)]

use vltava_protocol::ids::{PartitionIndex, Timestamp};
use vltava_streams::testing::{TestDriver, TestRecord};
use vltava_streams::{
    BuildError, Json, NODE_HEADER, ORIGIN_HEADER, OnFault, REASON_HEADER, Reject, Topology, bytes,
    format, int64, json, nullable, raw, utf8,
};

/// Sends `input` to `in`, and compares what comes to `out` with `expected`: key=value, `-` a null.
#[track_caller]
fn check(topology: Topology, input: &[&str], expected: &[&str]) {
    let mut driver = TestDriver::new(topology.build().unwrap());
    for record in input {
        driver.send("in", parse(record));
    }
    assert_eq!(shown(&driver.read("out")), expected);
}

fn parse(text: &str) -> TestRecord {
    let part = |text: &str| (text != "-").then(|| text.as_bytes().to_vec());
    let (key, value) = text.split_once('=').unwrap();
    TestRecord { key: part(key), value: part(value), ..TestRecord::default() }
}

fn shown(records: &[TestRecord]) -> Vec<String> {
    let part = |part: Option<&str>| part.unwrap_or("-").to_owned();
    records.iter().map(|r| part(r.key_text()) + "=" + &part(r.value_text())).collect()
}

#[test]
fn filter_keeps_what_the_predicate_likes() {
    let t = Topology::new("t");
    t.stream("in", (raw(), nullable(utf8()))).filter(|r| r.value != Some("b")).to("out");
    check(t, &["k=a", "k=b", "-=c", "k=-"], &["k=a", "-=c", "k=-"]);
}

#[test]
fn map_values_keeps_the_key() {
    let t = Topology::new("t");
    t.stream("in", (utf8(), utf8()))
        .map_values(utf8(), |r, out| {
            out.text(r.key).text("/").text(r.value);
        })
        .map_values(nullable(utf8()), |r, out| {
            if r.value != "b/2" {
                out.text(&r.value.to_uppercase());
            }
        })
        .to("out");
    check(t, &["a=1", "b=2"], &["a=A/1", "b=-"]);
}

#[test]
fn map_writes_both() {
    let t = Topology::new("t");
    t.stream("in", (utf8(), utf8()))
        .map((nullable(utf8()), utf8()), |r, key, value| {
            if !r.value.is_empty() {
                key.text(r.value);
            }
            value.text(r.key);
        })
        .to("out");
    check(t, &["k=v", "k="], &["v=k", "-=k"]);
}

#[test]
fn flat_map_makes_any_number_in_order() {
    let t = Topology::new("t");
    t.stream("in", (utf8(), utf8()))
        .flat_map((utf8(), utf8()), |r, out| {
            for word in r.value.split(' ').filter(|word| !word.is_empty()) {
                out.emit_with(|key, value| {
                    key.text(word);
                    value.text(r.key);
                });
            }
        })
        .filter(|r| r.key != "x")
        .to("out");
    check(t, &["1=a b x", "2=", "3=c"], &["a=1", "b=1", "c=3"]);
}

#[test]
fn projections_borrow_from_the_record() {
    let t = Topology::new("t");
    t.stream("in", (raw(), json()))
        .select_key(utf8(), |r| r.value.get("user").and_then(Json::str).unwrap_or(""))
        .project(json(), |r| r.value.get("order").unwrap_or(r.value))
        .to("out");
    check(
        t,
        &[r#"k={"user":"ada","order":{"n":1}}"#, r#"k={"x":2}"#],
        &[r#"ada={"n":1}"#, r#"={"x":2}"#],
    );
}

#[test]
fn branches_take_each_record_once() {
    let t = Topology::new("t");
    let (small, rest) = t
        .stream("in", (raw(), utf8()))
        .map_values(utf8(), |r, out| {
            out.text(r.value);
        })
        .branch(|r| r.value.len() < 2);
    let (medium, large) = rest.branch(|r| r.value.len() < 4);
    small.to("out");
    medium.to("medium");
    large.to("large");
    let mut driver = TestDriver::new(t.build().unwrap());
    for value in ["a", "bbb", "ccccc", ""] {
        driver.send("in", TestRecord::keyless(value));
    }
    assert_eq!(shown(&driver.read("out")), ["-=a", "-="]);
    assert_eq!(shown(&driver.read("medium")), ["-=bbb"]);
    assert_eq!(shown(&driver.read("large")), ["-=ccccc"]);
}

#[test]
fn peek_sees_and_passes_on() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let t = Topology::new("t");
    t.stream("in", (raw(), utf8()))
        .peek(|r| {
            SEEN.fetch_add(r.value.len() as u64, Ordering::Relaxed);
        })
        .to("out");
    check(t, &["k=aa", "k=bbb"], &["k=aa", "k=bbb"]);
    assert_eq!(SEEN.load(Ordering::Relaxed), 5);
}

#[test]
fn rejects_keep_their_bytes_and_say_why() {
    let t = Topology::new("t");
    let (good, bad) = t
        .stream("in", (raw(), utf8()))
        .map_values(utf8(), |r, out| {
            out.text(r.value.trim());
        })
        .try_map(int64(), |r, out| {
            let number = r.value.parse().map_err(|_| Reject::new("not a number"))?;
            out.int64(number);
            Ok(())
        });
    let good = good.named("parse");
    good.map_values(utf8(), |r, out| {
        out.text(&(r.value * 2).to_string());
    })
    .to("out");
    bad.to("bad");
    let mut driver = TestDriver::new(t.build().unwrap());
    driver.send("in", TestRecord::new("k", "21"));
    driver.send("in", TestRecord::new("k", " x ").header("trace", "7").at(Timestamp(99)));
    assert_eq!(shown(&driver.read("out")), ["k=42"]);
    let [bad] = &driver.read("bad")[..] else { panic!("one is bad") };
    assert_eq!((bad.value_text(), bad.timestamp), (Some(" x "), Some(Timestamp(99))));
    assert_eq!(bad.header_text("trace"), Some("7"));
    assert_eq!(bad.header_text(REASON_HEADER), Some("not a number"));
    assert_eq!(bad.header_text(NODE_HEADER), Some("parse"));
    assert_eq!(bad.header_text(ORIGIN_HEADER), Some("in/0/1"));
}

#[test]
fn records_choose_their_topic() {
    let t = Topology::new("t");
    t.stream("in", (utf8(), raw())).to_each(|r, topic| {
        topic.push_str("items.");
        topic.push_str(r.key);
    });
    let t = t.on_fault(OnFault::DeadLetter("dead".to_owned()));
    let mut driver = TestDriver::new(t.build().unwrap()).partitions("items.b", 4);
    for record in ["a=1", "b=2", "a=3", "no/topic=4"] {
        driver.send("in", parse(record));
    }
    assert_eq!(shown(&driver.read("items.a")), ["a=1", "a=3"]);
    assert_eq!(shown(&driver.read("items.b")), ["b=2"]);
    let [dead] = &driver.read("dead")[..] else { panic!("one name is impossible") };
    assert_eq!(dead.value_text(), Some("4"));
}

#[test]
fn a_topology_may_read_what_it_writes() {
    let t = Topology::new("t");
    t.stream("in", (utf8(), utf8())).to("middle");
    t.stream("middle", (utf8(), utf8()))
        .map_values(utf8(), |r, out| {
            out.text(r.value).text("!");
        })
        .to("out");
    let mut driver = TestDriver::new(t.build().unwrap()).partitions("middle", 3);
    for record in ["a=1", "b=2", "c=3"] {
        driver.send("in", parse(record));
    }
    let mut out = shown(&driver.read("out"));
    out.sort();
    assert_eq!(out, ["a=1!", "b=2!", "c=3!"]);
    let partitions: std::collections::BTreeSet<PartitionIndex> =
        driver.read("middle").iter().filter_map(|r| r.partition).collect();
    assert!(partitions.len() > 1, "keys are spread: {partitions:?}");
}

#[test]
fn a_record_comes_out_whole_or_not_at_all() {
    // The key that is missing from what is emitted is malformed for a node that wants text.
    let t = Topology::new("t");
    t.stream("in", (utf8(), utf8()))
        .flat_map((utf8(), utf8()), |r, out| {
            out.emit(Some(b"whole"), Some(r.value.as_bytes()));
            out.emit(None, Some(b"half"));
        })
        .to("out");
    check(t.on_fault(OnFault::Skip), &["k=abc"], &[]);

    let t = Topology::new("t");
    t.stream("in", (raw(), utf8()))
        .flat_map((raw(), utf8()), |r, out| {
            r.value.chars().for_each(|c| out.emit(None, Some(c.to_string().as_bytes())));
        })
        .peek(|r| assert_ne!(r.value, "!", "an exclamation"))
        .to("out");
    let mut driver =
        TestDriver::new(t.on_fault(OnFault::DeadLetter("dead".to_owned())).build().unwrap());
    for value in ["ab", "c!d", "e"] {
        driver.send("in", TestRecord::keyless(value));
    }
    assert_eq!(shown(&driver.read("out")), ["-=a", "-=b", "-=e"]);
    let [dead] = &driver.read("dead")[..] else { panic!("one panics") };
    assert_eq!(dead.value_text(), Some("c!d"));
    assert!(dead.header_text(REASON_HEADER).unwrap().contains("an exclamation"), "{dead:?}");
    assert_eq!(driver.stopped("in", 0), None);
}

#[test]
fn a_task_stops_before_the_record_that_fails() {
    let t = Topology::new("t");
    t.stream("in", (raw(), json())).to("out");
    let mut driver = TestDriver::new(t.build().unwrap());
    for value in ["{}", "{", "{}"] {
        driver.send("in", TestRecord::keyless(value));
    }
    assert_eq!(shown(&driver.read("out")), ["-={}"]);
    let stop = driver.stopped("in", 0).unwrap().to_string();
    assert_eq!(stop, "record at offset 1 failed: json expected: the text is not JSON");
}

#[test]
fn nodes_count_what_goes_through() {
    let t = Topology::new("t");
    t.stream("in", (raw(), bytes())).filter(|r| r.value.len() > 1).to("out");
    let mut driver = TestDriver::new(t.build().unwrap());
    for value in ["a", "bb", "ccc"] {
        driver.send("in", TestRecord::keyless(value));
    }
    let counts: Vec<_> = driver.meters().iter().map(|m| (m.records, m.bytes)).collect();
    assert_eq!(counts, [(3, 6), (3, 6), (2, 5)]);
}

#[test]
fn mistakes_are_found_when_a_topology_is_built() {
    let duplicate = Topology::new("t");
    duplicate.stream("in", (raw(), raw())).filter(|_| true).named("x").to("out").named("x");
    let error = duplicate.build().unwrap_err();
    assert!(matches!(&error, BuildError::Duplicate { name, .. } if name == "x"), "{error}");
    assert!(error.to_string().contains("operators.rs:"), "{error}");

    let error = Topology::new("empty").build().unwrap_err();
    assert!(error.to_string().contains("has no source"), "{error}");

    let open = Topology::new("t");
    let _ = open.stream("in", (raw(), raw())).filter(|_| true).named("lost");
    let error = open.build().unwrap_err();
    assert!(matches!(&error, BuildError::LeadsNowhere { node, .. } if node == "lost"), "{error}");

    let topic = Topology::new("t");
    topic.stream("in", (raw(), raw())).to("no/topic").named("sink");
    assert!(matches!(topic.build(), Err(BuildError::Topic { node, .. }) if node == "sink"));

    let unknown = Topology::new("t");
    unknown.stream("in", (raw(), format("avro"))).to("out");
    let error = unknown.build().unwrap_err().to_string();
    assert!(error.contains("stream-0") && error.contains("avro"), "{error}");
}

#[test]
fn a_topology_explains_itself() {
    let t = Topology::new("orders");
    let (good, bad) = t.stream("in", (utf8(), json())).named("orders").try_map(json(), |r, out| {
        out.text(r.value.text());
        Ok(())
    });
    good.named("validate").to("out");
    bad.to("bad");
    let explanation = t.explain();
    let text = explanation.to_string();
    let shape: Vec<_> =
        text.lines().map(|line| line.split("  [").next().unwrap().to_owned()).collect();
    assert_eq!(
        shape,
        [
            "topology orders",
            "  orders (stream in) -> utf8, json",
            "    validate (try_map) -> utf8, json",
            "      to-2 (to out)",
            "      rejects-3 (rejects bad)",
        ]
    );
    let json: serde_json::Value = serde_json::from_str(&explanation.to_json()).unwrap();
    assert_eq!(json["nodes"][1]["input"], "orders");
    assert!(json["nodes"][0]["file"].as_str().unwrap().ends_with("operators.rs"));
}
