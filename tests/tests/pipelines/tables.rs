//! The operator tables: a topology for each operator and for what they do together, and its input.
//! What comes out is not written here: the test driver says it.

use vltava_streams::testing::TestRecord;
use vltava_streams::{
    Json, OnFault, Reject, Topology, bytes, int32, int64, json, nullable, raw, utf8,
};

/// One topology and what it is fed with.
pub(crate) struct Table {
    /// The topology's name. It reads the topic `NAME.in`, which has one partition, so that the
    /// order of everything that it writes is known.
    pub(crate) name: &'static str,
    /// Makes it.
    pub(crate) topology: fn(&Topology),
    /// What becomes of records that fail.
    pub(crate) on_fault: fn() -> OnFault,
    /// The topics that it writes, by what follows `NAME.`, and their partitions. Records without key
    /// go to one partition after the other as batches happen to end, so those have one.
    pub(crate) topics: &'static [(&'static str, i32)],
    /// The records of its input, made from [`ROWS`].
    pub(crate) input: fn() -> Vec<TestRecord>,
}

impl Table {
    /// The topology, ready to be built or run.
    pub(crate) fn build(&self) -> Topology {
        let t = Topology::new(self.name);
        (self.topology)(&t);
        t.on_fault((self.on_fault)())
    }

    /// The full name of one of its topics.
    pub(crate) fn topic(&self, of: &str) -> String {
        format!("{}.{of}", self.name)
    }
}

/// Records of a table that does not need special ones.
const ROWS: usize = 60;

/// Keys that recur, among them none and an empty one; values that grow, among them none and an
/// empty one; headers here and there.
fn any_records() -> Vec<TestRecord> {
    let record = |n: usize| {
        let key = (n % 7 != 3).then(|| format!("key {}", n % 5).into_bytes());
        let value = (n % 11 != 5).then(|| format!("value {n} {}", "x".repeat(n * n)).into_bytes());
        let record = TestRecord { key, value, ..TestRecord::default() };
        match n % 4 {
            0 => record.header("number", n.to_string()).header("number", ""),
            _ => record,
        }
    };
    let empty = TestRecord::new("", "");
    (0..ROWS).map(record).chain([empty]).collect()
}

/// Keys and values that are text.
fn texts() -> Vec<TestRecord> {
    let record = |n: usize| TestRecord::new(format!("key {}", n % 5), format!("řeka {n}"));
    (0..ROWS).map(record).collect()
}

/// JSON objects.
fn objects() -> Vec<TestRecord> {
    let record = |n: usize| {
        let order = serde_json::json!({ "items": ["ř", n], "paid": n < 20 });
        let user = format!("user {}", n % 6);
        let value = serde_json::json!({ "user": user, "n": n, "order": order });
        TestRecord::new(format!("key {n}"), value.to_string())
    };
    (0..ROWS).map(record).collect()
}

/// Numbers of 32 bits, among them one that is too short.
fn numbers() -> Vec<TestRecord> {
    let record = |n: i32| TestRecord::new(format!("key {}", n % 3), (n * 77_777).to_be_bytes());
    (0..30)
        .map(record)
        .chain([TestRecord::new("short", [1, 2])])
        .chain((30..40).map(record))
        .collect()
}

/// All of them.
pub(crate) const TABLES: &[Table] = &[
    Table {
        name: "pass",
        topology: |t| drop(t.stream("pass.in", (raw(), raw())).to("pass.out")),
        on_fault: || OnFault::Stop,
        topics: &[("out", 1)],
        input: any_records,
    },
    Table {
        name: "filter",
        topology: |t| {
            let long = |value: Option<&[u8]>| value.is_none_or(|value| value.len() % 3 != 1);
            t.stream("filter.in", (raw(), nullable(bytes())))
                .filter(move |r| long(r.value))
                .to("filter.out");
        },
        on_fault: || OnFault::Stop,
        topics: &[("out", 1)],
        input: any_records,
    },
    Table {
        name: "map_values",
        topology: |t| {
            t.stream("map_values.in", (utf8(), utf8()))
                .map_values(nullable(utf8()), |r, out| {
                    if !r.value.ends_with('3') {
                        out.text(&r.value.to_uppercase()).text("/").text(r.key);
                    }
                })
                .to("map_values.out");
        },
        on_fault: || OnFault::Stop,
        topics: &[("out", 4)],
        input: texts,
    },
    Table {
        name: "map",
        topology: |t| {
            t.stream("map.in", (utf8(), utf8()))
                .map((utf8(), utf8()), |r, key, value| {
                    key.text(r.value);
                    value.text(r.key);
                })
                .to("map.out");
        },
        on_fault: || OnFault::Stop,
        topics: &[("out", 4)],
        input: texts,
    },
    Table {
        name: "flat_map",
        topology: |t| {
            t.stream("flat_map.in", (utf8(), utf8()))
                .flat_map((utf8(), nullable(utf8())), |r, out| {
                    for (at, word) in r.value.split(' ').enumerate().skip(r.value.len() % 2) {
                        out.emit_with(|key, value| {
                            key.text(r.key).text(&at.to_string());
                            value.text(word);
                        });
                        out.emit(Some(r.key.as_bytes()), None);
                    }
                })
                .to("flat_map.out");
        },
        on_fault: || OnFault::Stop,
        topics: &[("out", 3)],
        input: texts,
    },
    Table {
        name: "project",
        topology: |t| {
            t.stream("project.in", (raw(), json()))
                .select_key(utf8(), |r| r.value.get("user").and_then(Json::str).unwrap_or(""))
                .project(json(), |r| r.value.get("order").unwrap_or(r.value))
                .to("project.out");
        },
        on_fault: || OnFault::Stop,
        topics: &[("out", 4)],
        input: objects,
    },
    Table {
        name: "branch",
        topology: |t| {
            let all = t.stream("branch.in", (utf8(), utf8())).peek(|r| assert!(!r.key.is_empty()));
            let (even, odd) = all.branch(|r| r.value.len() % 2 == 0);
            even.to("branch.even");
            let (first, rest) = odd.branch(|r| r.key == "key 1");
            first.to("branch.first");
            rest.to("branch.rest");
        },
        on_fault: || OnFault::Stop,
        topics: &[("even", 2), ("first", 1), ("rest", 3)],
        input: texts,
    },
    Table {
        name: "try_map",
        topology: |t| {
            let (good, bad) =
                t.stream("try_map.in", (utf8(), json())).try_map(int64(), |r, out| {
                    let n = r.value.get("n").and_then(Json::as_i64).unwrap_or(0);
                    if n % 4 == 1 {
                        return Err(Reject::new(format!("{n} is no good")));
                    }
                    out.int64(n * 1_000_000_007);
                    Ok(())
                });
            good.to("try_map.out");
            bad.to("try_map.bad");
        },
        on_fault: || OnFault::Stop,
        topics: &[("out", 4), ("bad", 2)],
        input: objects,
    },
    Table {
        name: "to_each",
        topology: |t| {
            t.stream("to_each.in", (utf8(), raw())).to_each(|r, topic| {
                topic.push_str("to_each.");
                topic.push_str(&r.key.replace(' ', "-"));
            });
        },
        on_fault: || OnFault::Stop,
        topics: &[("key-0", 1), ("key-1", 2), ("key-2", 3), ("key-3", 1), ("key-4", 1)],
        input: texts,
    },
    Table {
        name: "dead_letter",
        topology: |t| {
            t.stream("dead_letter.in", (raw(), int32()))
                .peek(|r| assert_ne!(r.value, 4 * 77_777, "four"))
                .map_values(utf8(), |r, out| {
                    out.text(&r.value.to_string());
                })
                .to("dead_letter.out");
        },
        on_fault: || OnFault::DeadLetter("dead_letter.dead".to_owned()),
        topics: &[("out", 2), ("dead", 2)],
        input: numbers,
    },
    Table {
        name: "skip",
        topology: |t| drop(t.stream("skip.in", (raw(), int32())).to("skip.out")),
        on_fault: || OnFault::Skip,
        topics: &[("out", 2)],
        input: numbers,
    },
    Table {
        name: "stop",
        topology: |t| drop(t.stream("stop.in", (raw(), int32())).to("stop.out")),
        on_fault: || OnFault::Stop,
        topics: &[("out", 2)],
        input: numbers,
    },
    Table {
        name: "chain",
        topology: |t| {
            t.stream("chain.in", (utf8(), utf8())).to("chain.middle");
            t.stream("chain.middle", (utf8(), utf8()))
                .map_values(utf8(), |r, out| {
                    out.text(r.value).text("!");
                })
                .to("chain.out");
        },
        on_fault: || OnFault::Stop,
        // As many partitions, so that each is written by one task.
        topics: &[("middle", 3), ("out", 3)],
        input: texts,
    },
];
