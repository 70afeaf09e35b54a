//! Consumer groups of real clients: alone, resumed, three of them, one killed.
//!
//! The topic has six partitions, filled through a raw socket, so that every record's content
//! follows from its partition and offset. Every record must be read exactly once by someone, in
//! order: members commit after every batch, and nothing changes while something is uncommitted.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{GroupId, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;
use libtest_mimic::{Completion, Failed};
use vltava_tests::harness::{Broker, RawBatch, RawClient, Tested, now_ms, requests};

use super::library::{self, Library};
use super::member::{self, Read, Stage};

const PARTITIONS: i32 = 6;
/// How long committed offsets may take to show.
const COMMIT_DEADLINE: Duration = Duration::from_secs(30);
/// How often committed offsets are asked for.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// The version of Produce in which the topic is filled.
const PRODUCE_VERSION: i16 = 9;
/// The last version of `OffsetFetch` for one group.
const OFFSET_FETCH_VERSION: i16 = 7;

/// Which members a group is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cast {
    /// `default` (the library's own choice) or `range` (which all libraries know).
    pub(crate) strategy: &'static str,
    /// `old` or `new` protocol versions.
    pub(crate) versions: &'static str,
}

/// The whole life of a group of one library.
pub(crate) fn life(broker: &Broker, library: Library, cast: Cast) -> Tested<Completion> {
    let program = match (library.command)()? {
        Ok(program) => program,
        Err(missing) => return missing.into_completion(),
    };
    let mut scene = Scene::new(broker, library.name, cast)?;
    scene.write(20)?;
    let alone = scene.join(&program)?;
    scene.await_all_read()?;
    scene.stage.leave(alone)?;

    // Whoever comes next reads on where the first one stopped.
    scene.write(3)?;
    let first = scene.join(&program)?;
    scene.await_all_read()?;
    let (second, third) = (scene.join(&program)?, scene.join(&program)?);
    scene.await_shared(&[first, second, third])?;
    scene.write(3)?;
    scene.await_all_read()?;

    scene.stage.kill(second)?;
    scene.await_shared(&[first, third])?;
    scene.write(3)?;
    scene.await_all_read()?;

    let arguments = [broker.bootstrap(), &scene.group, &scene.topic];
    let (described, deleted) = library.calls;
    library::play(&program, &[&["describe"], &arguments[..]].concat(), described)?;
    scene.stage.leave(first)?;
    scene.stage.leave(third)?;
    scene.check_reads()?;
    library::play(&program, &[&["delete"], &arguments[..]].concat(), deleted)?;
    Ok(Completion::Completed)
}

/// A group whose members are different libraries.
pub(crate) fn mixed(broker: &Broker, names: &[&str]) -> Tested<Completion> {
    let cast = Cast { strategy: "range", versions: "new" };
    let mut scene = Scene::new(broker, "mixed", cast)?;
    let mut members = Vec::new();
    for name in names {
        match (Library::named(name)?.command)()? {
            Ok(program) => members.push(scene.join(&program)?),
            Err(missing) => return missing.into_completion(),
        }
    }
    scene.await_shared(&members)?;
    scene.write(10)?;
    scene.await_all_read()?;
    while let Some(dying) = members.pop() {
        scene.stage.kill(dying)?;
        if members.is_empty() {
            break;
        }
        scene.await_shared(&members)?;
        scene.write(2)?;
        scene.await_all_read()?;
    }
    scene.check_reads()?;
    Ok(Completion::Completed)
}

/// A group, its topic and what was written to it.
struct Scene<'a> {
    broker: &'a Broker,
    client: RawClient,
    cast: Cast,
    topic: String,
    group: String,
    start_ms: i64,
    /// How many records each partition holds.
    written: i64,
    stage: Stage,
}

impl<'a> Scene<'a> {
    fn new(broker: &'a Broker, name: &str, cast: Cast) -> Tested<Scene<'a>> {
        let mut client = RawClient::connect(broker.bootstrap())?;
        let topic = requests::create_topic(&mut client, name, PARTITIONS, &[])?;
        let group = format!("{topic}-group");
        let (start_ms, stage) = (now_ms(), Stage::new()?);
        Ok(Scene { broker, client, cast, topic, group, start_ms, written: 0, stage })
    }

    /// Starts a member and gives its number.
    fn join(&mut self, program: &Command) -> Tested<usize> {
        let arguments = ["member", self.broker.bootstrap(), &self.group, &self.topic];
        let cast = [self.cast.strategy, self.cast.versions];
        self.stage.start(member::command(program, &[&arguments[..], &cast].concat()))
    }

    /// Appends `count` records to every partition.
    fn write(&mut self, count: i32) -> Tested {
        for partition in 0..PARTITIONS {
            let mut batch = RawBatch::of(count, self.start_ms + self.written);
            for record in &mut batch.records {
                let offset = self.written + i64::from(record.offset_delta);
                record.timestamp_delta = record.offset_delta.into();
                record.key = Some(format!("key-{partition}-{offset}").into_bytes());
                record.value = Some(format!("value-{partition}-{offset}").into_bytes());
                record.headers = vec![("number".into(), Some(offset.to_string().into_bytes()))];
            }
            let records = batch.encode();
            let request = requests::produce_request(&self.topic, partition, -1, records);
            let response = self.client.call(PRODUCE_VERSION, &request)?;
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!((answer.error_code, answer.base_offset), (0, self.written));
        }
        self.written += i64::from(count);
        Ok(())
    }

    /// What a member must have printed of one record.
    fn expected(&self, partition: i32, offset: i64) -> Read {
        let at = self.start_ms + offset;
        let content =
            format!("{at}\tkey-{partition}-{offset}\tvalue-{partition}-{offset}\tnumber={offset}");
        Read { partition, offset, content }
    }

    /// Waits until all that was written has been read and committed.
    fn await_all_read(&mut self) -> Tested {
        let wanted = i64::from(PARTITIONS) * self.written;
        self.stage.wait(&format!("{wanted} records are read"), |accounts| {
            let reads: usize = accounts.iter().map(|account| account.reads.len()).sum();
            reads as i64 >= wanted
        })?;
        self.check_reads()?;
        let end = Instant::now() + COMMIT_DEADLINE;
        loop {
            let committed = self.committed()?;
            if committed.iter().all(|offset| *offset == self.written) {
                return Ok(());
            }
            if Instant::now() >= end {
                let what = format!("committed {committed:?}, not {} each", self.written);
                return Err(self.stage.failed(&what));
            }
            std::thread::sleep(ASK_INTERVAL);
        }
    }

    /// Every record once, by one member, with its content; in order within a partition.
    fn check_reads(&self) -> Tested {
        let mut next = vec![0; PARTITIONS as usize];
        // A partition moves only from a member that stopped to a younger one or to a survivor, so
        // the reads of all members together are sorted by offset, not by member.
        let mut all: Vec<Read> = self.stage.look(|accounts| {
            let ordered = |reads: &[Read]| {
                let mut last = vec![-1; PARTITIONS as usize];
                reads.iter().all(|read| {
                    let before = &mut last[read.partition as usize];
                    std::mem::replace(before, read.offset) < read.offset
                })
            };
            assert!(accounts.iter().all(|account| ordered(&account.reads)), "out of order");
            accounts.iter().flat_map(|account| account.reads.clone()).collect()
        });
        all.sort_by_key(|read| (read.partition, read.offset));
        for read in all {
            let expected = self.expected(read.partition, next[read.partition as usize]);
            if read != expected {
                return Err(self.stage.failed(&format!("{read:?} is not {expected:?}")));
            }
            next[read.partition as usize] += 1;
        }
        assert_eq!(next, vec![self.written; PARTITIONS as usize]);
        Ok(())
    }

    /// Waits until `members` own all partitions, each as many as the others.
    fn await_shared(&self, members: &[usize]) -> Tested {
        let share = PARTITIONS as usize / members.len();
        self.stage.wait(&format!("{members:?} own {share} partitions each"), |accounts| {
            let mut owned = BTreeSet::new();
            members.iter().all(|member| {
                let own = accounts[*member].owned.iter().flatten();
                let before = owned.len();
                owned.extend(own.copied());
                owned.len() == before + share
            })
        })
    }

    /// The group's committed offset of every partition, −1 for none.
    fn committed(&mut self) -> Tested<Vec<i64>> {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(requests::topic_name(&self.topic))
            .with_partition_indexes((0..PARTITIONS).collect());
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(self.group.clone())))
            .with_topics(Some(vec![topic]));
        let response = self.client.call(OFFSET_FETCH_VERSION, &request)?;
        if response.error_code != 0 {
            return Err(Failed::from(format!("OffsetFetch: error {}", response.error_code)));
        }
        let mut offsets = vec![-1; PARTITIONS as usize];
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            assert_eq!(partition.error_code, 0);
            offsets[partition.partition_index as usize] = partition.committed_offset;
        }
        Ok(offsets)
    }
}
