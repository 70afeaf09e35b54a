//! Apache Kafka's command line tools from their published artifacts.

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::Completion;
use vltava_tests::harness::toolchain::{self, Java};
use vltava_tests::harness::{Broker, BrokerOptions, RawClient, Rows, Tested, process, requests};

/// How long one tool may run.
const TOOL_DEADLINE: Duration = Duration::from_mins(2);

fn main() -> ExitCode {
    let mut rows = Rows::default();
    rows.add("topics", topics);
    rows.add("console", console);
    rows.add("producer_perf", producer_perf);
    rows.run(BrokerOptions::new(env!("CARGO_BIN_EXE_vltava-under-test")), 2)
}

/// Runs a tool that must succeed; gives its standard output.
fn tool(java: &Java, main: &str, arguments: &[&str], input: &str) -> Tested<String> {
    let mut command = java.command(main);
    command.args(arguments);
    Ok(process::succeed(&mut command, input.as_bytes(), TOOL_DEADLINE)?.stdout)
}

/// kafka-topics: create, list, describe, delete.
fn topics(broker: &Broker) -> Tested<Completion> {
    const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
    let java = match toolchain::java()? {
        Ok(java) => java,
        Err(missing) => return missing.into_completion(),
    };
    let topic = requests::unique("tools");
    let run = |arguments: &[&str]| {
        let fixed = ["--bootstrap-server", broker.bootstrap()];
        tool(&java, TOPICS, &[&fixed, arguments].concat(), "")
    };
    let created = run(&[
        "--create",
        "--topic",
        &topic,
        "--partitions",
        "3",
        "--replication-factor",
        "1",
        "--config",
        "retention.ms=7200000",
    ])?;
    assert!(created.contains(&format!("Created topic {topic}")), "{created}");
    assert!(run(&["--list"])?.lines().any(|line| line == topic));
    let described = run(&["--describe", "--topic", &topic])?;
    assert!(described.contains("PartitionCount: 3"), "{described}");
    assert!(described.contains("retention.ms=7200000"), "{described}");
    assert_eq!(described.lines().filter(|line| line.contains("Leader: ")).count(), 3);
    run(&["--delete", "--topic", &topic])?;
    assert!(!run(&["--list"])?.lines().any(|line| line == topic));
    Ok(Completion::Completed)
}

/// kafka-console-producer and kafka-console-consumer: what goes in comes out.
fn console(broker: &Broker) -> Tested<Completion> {
    let java = match toolchain::java()? {
        Ok(java) => java,
        Err(missing) => return missing.into_completion(),
    };
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "console", 1, &[])?;
    let lines: Vec<String> = (0..100).map(|i| format!("key-{i}\tvalue of line {i}")).collect();
    let input = lines.join("\n") + "\n";
    let fixed = ["--bootstrap-server", broker.bootstrap(), "--topic", &topic];
    let produce = ["--reader-property", "parse.key=true", "--compression-codec", "lz4"];
    let main = "org.apache.kafka.tools.ConsoleProducer";
    tool(&java, main, &[&fixed[..], &produce].concat(), &input)?;
    assert_eq!(requests::list_offsets(&mut client, 7, &topic, -1)?.offset, 100);

    let main = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    for (offset, skipped) in [("earliest", 0), ("90", 90)] {
        let count = (100 - skipped).to_string();
        let consume = [
            "--partition",
            "0",
            "--offset",
            offset,
            "--max-messages",
            &count,
            "--formatter-property",
            "print.key=true",
            "--timeout-ms",
            "60000",
        ];
        let output = tool(&java, main, &[&fixed[..], &consume].concat(), "")?;
        let printed: Vec<&str> = output.lines().filter(|line| line.starts_with("key-")).collect();
        assert_eq!(printed, lines[skipped..], "from {offset}");
    }
    Ok(Completion::Completed)
}

/// kafka-producer-perf-test: every record it counts is in the log.
fn producer_perf(broker: &Broker) -> Tested<Completion> {
    let java = match toolchain::java()? {
        Ok(java) => java,
        Err(missing) => return missing.into_completion(),
    };
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "perf", 1, &[])?;
    let server = format!("bootstrap.servers={}", broker.bootstrap());
    let arguments = [
        "--topic",
        &topic,
        "--num-records",
        "20000",
        "--record-size",
        "200",
        "--throughput",
        "-1",
        "--producer-props",
        &server,
        "acks=all",
    ];
    let output = tool(&java, "org.apache.kafka.tools.ProducerPerformance", &arguments, "")?;
    let summary = output.lines().rev().find(|line| line.starts_with("20000 records sent"));
    assert!(summary.ok_or(format!("no summary: {output}"))?.contains("records/sec"));
    assert_eq!(requests::list_offsets(&mut client, 7, &topic, -1)?.offset, 20_000);
    Ok(Completion::Completed)
}
