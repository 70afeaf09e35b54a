//! The tools that produce and consume: the console's, the performance tests, the verifiable ones.

use libtest_mimic::Completion;
use serde_json::Value;
use vltava_tests::harness::desk::{Desk, lines};
use vltava_tests::harness::{Broker, Tested};

/// kafka-console-producer and kafka-console-consumer: what goes in comes out, with assigned
/// partitions and in a group that reads on where it stopped.
pub(crate) fn console(broker: &Broker) -> Tested<Completion> {
    let mut desk = match Desk::open(broker, "console")? {
        Ok(desk) => desk,
        Err(missing) => return missing.into_completion(),
    };
    desk.check("topics --create --topic {topic} --partitions 1", &["Created topic {topic}."])?;
    let sent: Vec<String> = (0..100).map(|i| format!("key-{i}\tvalue-{i}")).collect();
    let produce = "console-producer --topic {topic} --reader-property parse.key=true \
                   --compression-codec";
    for (codec, part) in ["none", "gzip", "snappy", "lz4", "zstd"].iter().zip(sent.chunks(20)) {
        let said = desk.run_with(&format!("{produce} {codec}"), &(part.join("\n") + "\n"))?;
        assert_eq!(said.code, 0, "{said:#?}");
    }
    desk.check("get-offsets --topic {topic}", &["{topic}:0:100"])?;

    let consume = "console-consumer --topic {topic} --formatter-property print.key=true \
                   --timeout-ms 60000";
    let printed = |desk: &mut Desk, how: &str| -> Tested<Vec<String>> {
        let said = desk.run(&format!("{consume} {how}"))?;
        assert_eq!(said.code, 0, "{how}: {said:#?}");
        Ok(said.out.lines().map(str::to_owned).collect())
    };
    let all = "--partition 0 --offset earliest --max-messages 100";
    assert_eq!(printed(&mut desk, all)?, sent);
    assert_eq!(printed(&mut desk, "--partition 0 --offset 90 --max-messages 10")?, sent[90..]);
    // Printed were as many as were asked for, and so many are committed.
    assert_eq!(
        printed(&mut desk, "--group {group} --from-beginning --max-messages 70")?,
        sent[..70]
    );
    assert_eq!(printed(&mut desk, "--group {group} --max-messages 30")?, sent[70..]);
    Ok(Completion::Completed)
}

/// kafka-producer-perf-test and kafka-consumer-perf-test: every record that they count is there.
pub(crate) fn perf(broker: &Broker) -> Tested<Completion> {
    let mut desk = match Desk::open(broker, "perf")? {
        Ok(desk) => desk,
        Err(missing) => return missing.into_completion(),
    };
    desk.check("topics --create --topic {topic} --partitions 1", &["Created topic {topic}."])?;
    let produce = "producer-perf-test --topic {topic} --num-records 20000 --record-size 200 \
                   --throughput -1 --command-property acks=all";
    let said = desk.run(produce)?;
    let summary = said.out.lines().rev().find(|line| line.starts_with("20000 records sent"));
    assert!(summary.is_some_and(|line| line.contains("records/sec")), "{said:#?}");
    desk.check("get-offsets --topic {topic}", &["{topic}:0:20000"])?;

    let consume = "consumer-perf-test --topic {topic} --num-records 20000 --group {group}";
    let said = desk.run(consume)?;
    let columns = lines(&said.out);
    let names: Vec<&str> = columns[0].split(", ").collect();
    let at = names.iter().position(|name| *name == "data.consumed.in.nMsg");
    let counted = columns[1].split(", ").nth(at.ok_or("a column of counts")?);
    assert_eq!(counted, Some("20000"), "{said:#?}");
    Ok(Completion::Completed)
}

/// kafka-verifiable-producer and kafka-verifiable-consumer: what one says was acknowledged, the
/// other says it consumed.
pub(crate) fn verifiable(broker: &Broker) -> Tested<Completion> {
    let mut desk = match Desk::open(broker, "verifiable")? {
        Ok(desk) => desk,
        Err(missing) => return missing.into_completion(),
    };
    desk.check("topics --create --topic {topic} --partitions 3", &["Created topic {topic}."])?;
    // It tells what was acknowledged while its virtual machine ends, so it gets one of its own.
    let produce = "verifiable-producer --topic {topic} --max-messages 500 --acks -1";
    let said = desk.run_alone(produce)?;
    let events = events(&said.out)?;
    let named = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    assert_eq!((named("producer_send_success"), named("producer_send_error")), (500, 0));

    let consume = "verifiable-consumer --topic {topic} --group-id {group} --max-messages 500 \
                   --reset-policy earliest --session-timeout 6000 --enable-autocommit";
    let said = desk.run(consume)?;
    let events = self::events(&said.out)?;
    let consumed = events.iter().filter(|event| event["name"] == "records_consumed");
    let counts: i64 = consumed.map(|event| event["count"].as_i64().unwrap_or_default()).sum();
    assert_eq!(counts, 500, "{said:#?}");
    let assigned = events.iter().find(|event| event["name"] == "partitions_assigned");
    let partitions = assigned.and_then(|event| event["partitions"].as_array());
    assert_eq!(partitions.map(Vec::len), Some(3), "{said:#?}");
    Ok(Completion::Completed)
}

/// The events that a verifiable tool prints, a line each.
fn events(output: &str) -> Tested<Vec<Value>> {
    Ok(output.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}
