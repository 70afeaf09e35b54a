//! The tools for topics, configurations, records, offsets, log directories and the cluster.

use libtest_mimic::Completion;
use serde_json::Value;
use vltava_tests::harness::desk::{Desk, NOTHING, lines};
use vltava_tests::harness::{Broker, RawClient, Tested, requests};

/// kafka-topics: create, describe, alter, list, delete, and what is refused.
pub(crate) fn topics(broker: &Broker) -> Tested<Completion> {
    let mut desk = match Desk::open(broker, "topics")? {
        Ok(desk) => desk,
        Err(missing) => return missing.into_completion(),
    };
    let create = "topics --create --topic {topic} --partitions 3 --replication-factor 1 \
                  --config retention.ms=7200000";
    desk.check(create, &["Created topic {topic}."])?;
    desk.refuse(create, "Topic '{topic}' already exists.")?;
    desk.check(&format!("{create} --if-not-exists"), &NOTHING)?;
    check_description(&mut desk, 3)?;
    desk.check("topics --alter --topic {topic} --partitions 5", &NOTHING)?;
    check_description(&mut desk, 5)?;
    desk.refuse("topics --alter --topic {topic} --partitions 2", "The topic {topic} currently")?;
    desk.check("topics --describe --topic {topic} --unavailable-partitions", &NOTHING)?;
    desk.check("topics --describe --topic {topic} --under-replicated-partitions", &NOTHING)?;
    desk.check("topics --list --topic {topic}", &["{topic}"])?;
    desk.check("topics --delete --topic {topic}", &NOTHING)?;
    desk.await_lines("topics --list --topic {topic}", &NOTHING)?;
    desk.refuse("topics --delete --topic {topic}", "Topic '{topic}' does not exist as expected")?;
    Ok(Completion::Completed)
}

fn check_description(desk: &mut Desk, partitions: usize) -> Tested {
    let said = desk.run("topics --describe --topic {topic}")?;
    let mut printed = lines(&said.out);
    let head = printed.remove(0);
    let words: Vec<&str> = head.split(' ').collect();
    let id = words.get(3).copied().unwrap_or_default();
    assert_eq!(id.len(), 22, "a topic id: {said:#?}");
    // Whether min.insync.replicas is listed hangs on the cluster's features.
    let expected = format!("Topic: {{topic}} TopicId: {id} PartitionCount: {partitions} Replic");
    assert!(head.starts_with(&expected) && head.contains("retention.ms=7200000"), "{said:#?}");
    assert_eq!(printed.len(), partitions);
    for (index, line) in printed.iter().enumerate() {
        let expected =
            format!("Topic: {{topic}} Partition: {index} Leader: 1 Replicas: 1 Isr: 1 Elr:");
        assert!(line.starts_with(&expected), "{line} is not {expected}");
    }
    Ok(())
}

/// kafka-configs: topics and brokers, set, shown with their synonyms, deleted, refused.
pub(crate) fn configs(broker: &Broker) -> Tested<Completion> {
    let mut desk = match Desk::open(broker, "configs")? {
        Ok(desk) => desk,
        Err(missing) => return missing.into_completion(),
    };
    desk.check("topics --create --topic {topic} --partitions 1", &["Created topic {topic}."])?;
    let topic = "configs --entity-type topics --entity-name {topic}";
    let completed = ["Completed updating config for topic {topic}."];
    let add = "--alter --add-config retention.ms=3600000,max.message.bytes=2000";
    desk.check(&format!("{topic} {add}"), &completed)?;
    let head = "Dynamic configs for topic {topic} are:";
    let message_bytes = "max.message.bytes=2000 sensitive=false \
                         synonyms={DYNAMIC_TOPIC_CONFIG:max.message.bytes=2000, \
                         DEFAULT_CONFIG:message.max.bytes=1048588}";
    let retention = "retention.ms=3600000 sensitive=false \
                     synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=3600000}";
    desk.await_lines(&format!("{topic} --describe"), &[head, message_bytes, retention])?;
    desk.check(&format!("{topic} --alter --delete-config retention.ms"), &completed)?;
    desk.await_lines(&format!("{topic} --describe"), &[head, message_bytes])?;
    let said = desk.run(&format!("{topic} --describe --all"))?;
    let all = lines(&said.out);
    let default = "cleanup.policy=delete sensitive=false \
                   synonyms={DEFAULT_CONFIG:log.cleanup.policy=delete}";
    for expected in [message_bytes, default, "retention.ms=604800000 sensitive=false synonyms={}"] {
        assert!(all.iter().any(|line| line == expected), "no {expected}: {said:#?}");
    }
    let unknown = "InvalidConfigurationException: Unknown topic config name: no.such";
    desk.refuse(&format!("{topic} --alter --add-config no.such=1"), unknown)?;

    let brokers = "configs --entity-type brokers --entity-default";
    let completed = ["Completed updating default config for brokers in the cluster."];
    desk.check(&format!("{brokers} --alter --add-config log.retention.ms=86400000"), &completed)?;
    let expected = "log.retention.ms=86400000 sensitive=false \
                    synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=86400000}";
    let said = desk.run(&format!("{brokers} --describe"))?;
    assert!(lines(&said.out).iter().any(|line| line == expected), "{said:#?}");
    desk.check(&format!("{brokers} --alter --delete-config log.retention.ms"), &completed)?;
    let refused = "Cannot update these configs dynamically: [process.roles]";
    let one = "configs --entity-type brokers --entity-name 1";
    desk.refuse(&format!("{one} --alter --add-config process.roles=broker"), refused)?;
    Ok(Completion::Completed)
}

/// kafka-get-offsets, kafka-delete-records and kafka-log-dirs agree on what is in a topic.
pub(crate) fn records_and_offsets(broker: &Broker) -> Tested<Completion> {
    let mut desk = match Desk::open(broker, "records")? {
        Ok(desk) => desk,
        Err(missing) => return missing.into_completion(),
    };
    desk.check("topics --create --topic {topic} --partitions 1", &["Created topic {topic}."])?;
    let input = (0..20).map(|i| format!("value-{i}\n")).collect::<Vec<_>>().concat();
    assert_eq!(desk.run_with("console-producer --topic {topic}", &input)?.code, 0);
    let offsets = "get-offsets --topic {topic}";
    desk.check(offsets, &["{topic}:0:20"])?;
    desk.check(&format!("{offsets} --time earliest"), &["{topic}:0:0"])?;
    desk.check(&format!("{offsets} --time 0"), &["{topic}:0:0"])?;
    let said = desk.run(&format!("{offsets} --time max-timestamp"))?;
    let found = said.out.trim().rsplit(':').next().unwrap_or_default().parse::<i64>()?;
    assert!((0..20).contains(&found), "{said:#?}");

    let before = "{\"partitions\":[{\"topic\":\"{topic}\",\"partition\":0,\"offset\":7}],\
                  \"version\":1}";
    let file = desk.file("delete.json", before)?;
    let done = [
        "Executing records delete operation",
        "Records delete operation completed:",
        "partition: {topic}-0 low_watermark: 7",
    ];
    desk.check(&format!("delete-records --offset-json-file {file}"), &done)?;
    desk.check(&format!("{offsets} --time earliest"), &["{topic}:0:7"])?;
    let all = before.replace('7', "-1");
    let file = desk.file("delete-all.json", &all)?;
    let said = desk.run(&format!("delete-records --offset-json-file {file}"))?;
    assert!(said.out.contains("low_watermark: 20"), "{said:#?}");
    desk.check(&format!("{offsets} --time earliest"), &["{topic}:0:20"])?;

    let said = desk.run("log-dirs --describe --topic-list {topic}")?;
    let json = said.out.lines().find(|line| line.starts_with('{')).ok_or("a line of JSON")?;
    let described: Value = serde_json::from_str(json)?;
    let directory = &described["brokers"][0]["logDirs"][0];
    let partition = &directory["partitions"][0];
    assert_eq!(described["brokers"][0]["broker"], 1, "{said:#?}");
    assert_eq!(directory["error"], Value::Null, "{said:#?}");
    assert_eq!(partition["partition"], "{topic}-0", "{said:#?}");
    assert!(partition["size"].as_u64().is_some(), "{said:#?}");
    assert_eq!(partition["offsetLag"], 0, "{said:#?}");
    assert_eq!(partition["isFuture"], false, "{said:#?}");
    Ok(Completion::Completed)
}

/// kafka-cluster, kafka-broker-api-versions, kafka-metadata-quorum: what the broker says it is.
pub(crate) fn cluster(broker: &Broker) -> Tested<Completion> {
    let mut desk = match Desk::open(broker, "cluster")? {
        Ok(desk) => desk,
        Err(missing) => return missing.into_completion(),
    };
    let said = desk.run("cluster cluster-id")?;
    let id = said.out.trim().strip_prefix("Cluster ID: ").map(str::to_owned);
    let id = id.ok_or_else(|| format!("no cluster id: {said:#?}"))?;
    assert!(!id.is_empty() && id != "null", "{said:#?}");
    let said = desk.run("cluster list-endpoints")?;
    let (_, port) = broker.bootstrap().rsplit_once(':').ok_or("a port after the host")?;
    let expected = [
        "ID HOST PORT RACK STATE ENDPOINT_TYPE",
        &format!("1 127.0.0.1 {port} null unfenced broker"),
    ];
    assert_eq!(lines(&said.out), expected, "{said:#?}");

    // Every API that the broker says it serves, in versions that this tool can use.
    let mut client = RawClient::connect(broker.bootstrap())?;
    let advertised = requests::advertised(&mut client)?;
    let said = desk.run("broker-api-versions")?;
    assert_eq!(said.code, 0, "{said:#?}");
    for (key, (_, last)) in advertised {
        let named = format!("({key}): ");
        let line = said.out.lines().find(|line| line.contains(&named));
        let line = line.ok_or_else(|| format!("no API {key}: {said:#?}"))?;
        assert!(line.contains("usable: "), "{line} of API {key}, up to {last}");
    }

    let said = desk.run("metadata-quorum describe --status")?;
    let status = lines(&said.out);
    for expected in [format!("ClusterId: {id}"), "LeaderId: 1".into(), "MaxFollowerLag: 0".into()] {
        assert!(status.contains(&expected), "no {expected}: {said:#?}");
    }
    let said = desk.run("metadata-quorum describe --replication")?;
    let replication = lines(&said.out);
    assert_eq!(replication.len(), 2, "{said:#?}");
    assert!(replication[1].starts_with("1 ") && replication[1].ends_with(" Leader"), "{said:#?}");
    Ok(Completion::Completed)
}
