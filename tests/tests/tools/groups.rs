//! kafka-consumer-groups and kafka-groups: what they show, reset and delete, of a group that has
//! stopped and of one that lives.

use std::time::{Duration, Instant};

use libtest_mimic::Completion;
use vltava_tests::harness::desk::{Desk, lines};
use vltava_tests::harness::{Broker, Tested};

/// How long a member may take to join.
const JOIN_DEADLINE: Duration = Duration::from_mins(1);
/// What the columns of a deletion of offsets are called.
const COLUMNS: &str = "TOPIC PARTITION STATUS";
/// What the columns of a reset are called.
const RESET: &str = "GROUP TOPIC PARTITION NEW-OFFSET";
/// What the columns of a description are called.
const OFFSETS: &str = "GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST \
                       CLIENT-ID";
const MEMBERS: &str = "GROUP CONSUMER-ID HOST CLIENT-ID #PARTITIONS";
const VERBOSE: &str = "GROUP CONSUMER-ID HOST CLIENT-ID #PARTITIONS CURRENT-EPOCH \
                       CURRENT-ASSIGNMENT TARGET-EPOCH TARGET-ASSIGNMENT";
const STATE: &str = "GROUP COORDINATOR (ID) ASSIGNMENT-STRATEGY STATE #MEMBERS";

/// Fills a topic of two partitions, ten records each, through a group that then leaves.
fn prepare(desk: &mut Desk) -> Tested {
    desk.check("topics --create --topic {topic} --partitions 2", &["Created topic {topic}."])?;
    let input: Vec<String> = (0..20).map(|i| format!("key-{}\tvalue-{i}\n", i % 10)).collect();
    let produce = "console-producer --topic {topic} --reader-property parse.key=true";
    assert_eq!(desk.run_with(produce, &input.concat())?.code, 0);
    let consume = "console-consumer --topic {topic} --group {group} --from-beginning \
                   --max-messages 20 --timeout-ms 60000";
    let said = desk.run(consume)?;
    assert_eq!((said.code, lines(&said.out).len()), (0, 20), "{said:#?}");
    Ok(())
}

/// Where the two partitions end: ten keys, twice each, are spread by their hashes.
fn ends(desk: &mut Desk) -> Tested<(i64, i64)> {
    let said = desk.run("get-offsets --topic {topic}")?;
    let lines = lines(&said.out);
    let end = |index: usize| -> Tested<i64> {
        let line = lines.get(index).ok_or("a line for each partition")?;
        Ok(line.rsplit(':').next().ok_or("an offset after the last colon")?.parse()?)
    };
    let (first, second) = (end(0)?, end(1)?);
    assert_eq!(first + second, 20);
    assert!(first >= 2 && second >= 2, "{lines:?}");
    Ok((first, second))
}

/// A group without members: described, listed, reset in every way, offsets deleted, deleted.
pub(crate) fn empty(broker: &Broker) -> Tested<Completion> {
    let mut desk = match Desk::open(broker, "empty-group")? {
        Ok(desk) => desk,
        Err(missing) => return missing.into_completion(),
    };
    prepare(&mut desk)?;
    let (first, second) = ends(&mut desk)?;
    let desk = &mut desk;
    let at = |partition: i32, offset: i64, end: i64| {
        format!("{{group}} {{topic}} {partition} {offset} {end} {} - - -", end - offset)
    };
    let both = [at(0, first, first), at(1, second, second)];
    let describe = "consumer-groups --describe --group {group}";
    desk.check(describe, &[OFFSETS, &both[0], &both[1]])?;
    desk.check(&format!("{describe} --members"), &[MEMBERS])?;
    desk.check(&format!("{describe} --members --verbose"), &[VERBOSE])?;
    desk.check(&format!("{describe} --state"), &[STATE, "{group} {bootstrap} (1) - Empty 0"])?;
    for (list, line) in [
        ("consumer-groups --list", "{group}"),
        ("consumer-groups --list --state", "{group} Empty"),
        ("consumer-groups --list --state empty", "{group} Empty"),
        ("consumer-groups --list --type", "{group} Classic"),
        ("groups --list", "{group} Classic consumer"),
        ("groups --list --group-type classic", "{group} Classic consumer"),
        ("groups --list --consumer", "{group} Classic consumer"),
    ] {
        let said = desk.run(list)?;
        assert!(lines(&said.out).iter().any(|listed| listed == line), "{list}: {said:#?}");
    }
    let said = desk.run("consumer-groups --list --state stable")?;
    assert!(!said.out.contains("{group}"), "{said:#?}");

    reset(desk, first, second)?;

    let all = "consumer-groups --delete-offsets --group {group} --topic {topic}";
    desk.check(&format!("{all}:0"), &deleted(&[0]))?;
    desk.check(describe, &[OFFSETS, &at(1, 1, second)])?;
    desk.check(all, &deleted(&[0, 1]))?;
    let gone = "Deletion of requested consumer groups ('{group}') was successful.";
    // A group that lost its last offset is gone when the broker next looks for such groups, or is
    // deleted here: the resets above made it anew.
    desk.check_below_heading(
        &format!("{RESET_TOPIC} --to-earliest --execute"),
        &moved(&[(0, 0), (1, 0)]),
    )?;
    desk.check("consumer-groups --delete --group {group}", &[gone])?;
    let said = desk.run(describe)?;
    assert!(said.out.contains("Group {group} not found."), "{said:#?}");
    let said = desk.run("consumer-groups --delete --group {group}")?;
    let missing = "* Group '{group}' could not be deleted due to: \
                   org.apache.kafka.common.errors.GroupIdNotFoundException: The group id does \
                   not exist.";
    assert!(lines(&said.out).iter().any(|line| line == missing), "{said:#?}");
    Ok(Completion::Completed)
}

/// The head of every reset of the whole topic.
const RESET_TOPIC: &str = "consumer-groups --reset-offsets --group {group} --topic {topic}";

/// What the tool prints of a deletion that succeeded.
fn deleted(partitions: &[i32]) -> Vec<String> {
    let head = ["Request succeeded for deleting offsets from group {group}.", COLUMNS];
    let line = |partition: &i32| format!("{{topic}} {partition} Successful");
    head.map(str::to_owned).into_iter().chain(partitions.iter().map(line)).collect()
}

/// What the tool prints of a reset to these offsets.
fn moved(offsets: &[(i32, i64)]) -> Vec<String> {
    let line =
        |(partition, offset): &(i32, i64)| format!("{{group}} {{topic}} {partition} {offset}");
    std::iter::once(RESET.to_owned()).chain(offsets.iter().map(line)).collect()
}

/// Every kind of reset; the group ends at offset 1 in partition 1.
fn reset(desk: &mut Desk, first: i64, second: i64) -> Tested {
    let whole = |desk: &mut Desk, how: &str, to: [i64; 2]| {
        desk.check_below_heading(&format!("{RESET_TOPIC} {how}"), &moved(&[(0, to[0]), (1, to[1])]))
    };
    whole(desk, "--to-earliest --dry-run", [0, 0])?;
    whole(desk, "--to-current --execute", [first, second])?;
    whole(desk, "--to-earliest --execute", [0, 0])?;
    whole(desk, "--shift-by 2 --execute", [2, 2])?;
    whole(desk, "--shift-by -1 --execute", [1, 1])?;
    whole(desk, "--to-offset 2 --execute", [2, 2])?;
    whole(desk, "--to-offset 1000 --execute", [first, second])?;
    whole(desk, "--to-datetime 2020-01-01T00:00:00.000 --execute", [0, 0])?;
    whole(desk, "--to-latest --execute", [first, second])?;
    whole(desk, "--by-duration PT1H --execute", [0, 0])?;
    whole(desk, "--shift-by 1000 --execute", [first, second])?;
    desk.check_below_heading(
        &format!("{RESET_TOPIC}:1 --to-offset 2 --execute"),
        &moved(&[(1, 2)]),
    )?;
    let everything = "consumer-groups --reset-offsets --group {group} --all-topics";
    desk.check_below_heading(
        &format!("{everything} --to-current --dry-run"),
        &moved(&[(0, first), (1, 2)]),
    )?;
    let exported = format!("\"{{topic}}\",0,{first}\n\"{{topic}}\",1,1\n");
    let file = desk.file("reset.csv", &exported)?;
    desk.check_below_heading(
        &format!("consumer-groups --reset-offsets --group {{group}} --from-file {file} --execute"),
        &moved(&[(0, first), (1, 1)]),
    )?;
    let csv = [format!("\"{{topic}}\",0,{first}"), "\"{topic}\",1,1".to_owned()];
    let export = format!("{RESET_TOPIC} --to-current --dry-run --export");
    desk.check_in_any_order(&export, &csv)
}

/// A group with a member: who it is, and what is refused while it is there.
pub(crate) fn live(broker: &Broker) -> Tested<Completion> {
    let opened = (Desk::open(broker, "live-group")?, Desk::open(broker, "member")?);
    let (mut desk, mut member) = match opened {
        (Ok(desk), Ok(member)) => (desk, member),
        (Err(missing), _) | (_, Err(missing)) => return missing.into_completion(),
    };
    prepare(&mut desk)?;
    let (first, second) = ends(&mut desk)?;
    let (topic, group) = (&desk.topic, &desk.group);
    let session = "--command-property session.timeout.ms=6000";
    member.start(&format!("console-consumer --topic {topic} --group {group} {session}"), "")?;
    let desk = &mut desk;
    let stable = [STATE, "{group} {bootstrap} (1) range Stable 1"];
    let describe = "consumer-groups --describe --group {group}";
    let end = Instant::now() + JOIN_DEADLINE;
    while lines(&desk.run(&format!("{describe} --state"))?.out) != stable {
        assert!(Instant::now() < end, "the member does not join");
    }
    let said = desk.run(&format!("{describe} --members --verbose"))?;
    let printed = lines(&said.out);
    let member_id = printed.get(1).and_then(|line| line.split(' ').nth(1));
    let member_id = member_id.ok_or_else(|| format!("no member: {said:#?}"))?.to_owned();
    assert!(member_id.starts_with("console-consumer-"), "{said:#?}");
    let who = format!("{member_id} /127.0.0.1 console-consumer");
    assert_eq!(printed, [VERBOSE, &format!("{{group}} {who} 2 - {{topic}}:0,1 - -")]);
    desk.check(&format!("{describe} --members"), &[MEMBERS, &format!("{{group}} {who} 2")])?;
    let at =
        |partition: i32, end: i64| format!("{{group}} {{topic}} {partition} {end} {end} 0 {who}");
    desk.check(describe, &[OFFSETS, &at(0, first), &at(1, second)])?;

    let said = desk.run(&format!("{RESET_TOPIC} --to-earliest --execute"))?;
    let refused = "Error: Assignments can only be reset if the group '{group}' is inactive, but \
                   the current state is Stable.";
    assert!(lines(&said.out).iter().any(|line| line == refused), "{said:#?}");
    let said = desk.run("consumer-groups --delete --group {group}")?;
    assert!(said.out.contains("GroupNotEmptyException: The group is not empty."), "{said:#?}");
    let said = desk.run("consumer-groups --delete-offsets --group {group} --topic {topic}")?;
    let forbidden = "GroupSubscribedToTopicException: Deleting offsets of a topic is forbidden \
                     while the consumer group is actively subscribed to it.";
    assert_eq!(said.out.matches(forbidden).count(), 2, "{said:#?}");

    // The member's process ends with its desk: its session must run out.
    drop(member);
    let gone = [STATE, "{group} {bootstrap} (1) - Empty 0"];
    desk.await_lines(&format!("{describe} --state"), &gone)?;
    Ok(Completion::Completed)
}
