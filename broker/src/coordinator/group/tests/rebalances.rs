//! Rebalances: who starts them, whom they wait for, what they choose.

use super::scene::{play, play_with};
use crate::coordinator::group::GroupConfig;

/// Two members, `a` leading, in a stable group of generation 1.
const PAIR: &str = "
    join a v=3         =>
    join b v=3         =>
    +0                 => a joined 1 range leader=a members=a,b; b joined 1 range leader=a
    sync b             =>
    sync a give=a:x,b:y => a sync [x]; b sync [y]
";

fn play_pair(script: &str) {
    play(&format!("{PAIR}{script}"));
}

#[test]
fn the_leader_rebalances_by_joining_again() {
    play_pair(
        "
        join b             => b joined 1 range leader=a
        sync b             => b sync [y]
        join a             =>
        group              => PreparingRebalance 1 a,b
        join b             => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
        join b             => b joined 2 range leader=a
        join a             => a joined 2 range leader=a members=a,b
        sync a give=a:1,b:2 => a sync [1]
        sync b             => b sync [2]
        ",
    );
}

#[test]
fn other_metadata_rebalances() {
    play_pair(
        "
        join b topics=u    =>
        join a             => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
        sync a             => a sync []
        ",
    );
}

#[test]
fn who_waits_for_an_assignment_joins_again() {
    play_pair(
        "
        join a             =>
        join b             => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
        sync b             =>
        join c v=3         => b sync REBALANCE_IN_PROGRESS
        sync a gen=2       => a sync REBALANCE_IN_PROGRESS
        offsets a t-0=1    => a offsets t-0=NONE
        join a             =>
        join b             => a joined 3 range leader=a members=a,b,c; \
                              b joined 3 range leader=a; c joined 3 range leader=a
        offsets a t-0=1    => a offsets REBALANCE_IN_PROGRESS
        ",
    );
}

#[test]
fn who_does_not_come_is_removed() {
    play(
        "
        join a v=3 session=1000000 rebalance=5000 =>
        join b v=3 session=1000000 rebalance=9000 =>
        +0                 => a joined 1 range leader=a members=a,b; b joined 1 range leader=a
        sync a             => a sync []
        sync b             => b sync []
        join a             =>
        beat b             => b beat REBALANCE_IN_PROGRESS
        +59999             =>
        +1                 => a joined 2 range leader=a members=a
        beat b             => b beat UNKNOWN_MEMBER_ID
        ",
    );
}

#[test]
fn the_next_leader_is_one_who_came() {
    play(
        "
        join a v=3 session=1000000 =>
        join b v=3 session=1000000 =>
        +0                 => a joined 1 range leader=a members=a,b; b joined 1 range leader=a
        sync a             => a sync []
        sync b             => b sync []
        join b topics=u session=1000000 =>
        +60000             => b joined 2 range leader=b members=b
        beat a             => a beat UNKNOWN_MEMBER_ID
        ",
    );
}

#[test]
fn who_does_not_sync_is_removed() {
    play(
        "
        join a v=3 session=1000000 =>
        join b v=3 session=1000000 =>
        +0                 => a joined 1 range leader=a members=a,b; b joined 1 range leader=a
        sync a give=a:x,b:y => a sync [x]
        group              => Stable 1 a,b
        +60000             =>
        group              => PreparingRebalance 1 a
        beat b             => b beat UNKNOWN_MEMBER_ID
        join a             => a joined 2 range leader=a members=a
        ",
    );
}

#[test]
fn a_leader_that_does_not_assign_is_removed() {
    play(
        "
        join a v=3 session=1000000 =>
        join b v=3 session=1000000 =>
        +0                 => a joined 1 range leader=a members=a,b; b joined 1 range leader=a
        sync b             =>
        +60000             => b sync REBALANCE_IN_PROGRESS
        group              => PreparingRebalance 1 b
        join b             => b joined 2 range leader=b members=b
        ",
    );
}

#[test]
fn who_waits_is_not_silent() {
    play(
        "
        join a v=3 rebalance=300000 =>
        join b v=3 rebalance=300000 session=1000000 =>
        +0                 => a joined 1 range leader=a members=a,b; b joined 1 range leader=a
        sync a             => a sync []
        sync b             => b sync []
        join a rebalance=300000 =>
        +200000            =>
        group              => PreparingRebalance 1 a,b
        join b session=1000000 => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
        +9999              =>
        group              => CompletingRebalance 2 a,b
        +1                 =>
        group              => PreparingRebalance 2 b
        ",
    );
}

#[test]
fn most_members_choose_the_protocol() {
    play(
        "
        join a v=3 protocols=range,sticky =>
        join b v=3 protocols=sticky,range =>
        join c v=3 protocols=sticky,range,other =>
        join d v=3 protocols=other => d join INCONSISTENT_GROUP_PROTOCOL
        join d v=3 protocols= => d join INCONSISTENT_GROUP_PROTOCOL
        join d v=3 type=connect => d join INCONSISTENT_GROUP_PROTOCOL
        +0                 => a joined 1 sticky leader=a members=a,b,c; \
                              b joined 1 sticky leader=a; c joined 1 sticky leader=a
        sync b protocol=range => b sync INCONSISTENT_GROUP_PROTOCOL
        sync b type=connect => b sync INCONSISTENT_GROUP_PROTOCOL
        sync b protocol=sticky type=consumer =>
        ",
    );
}

#[test]
fn a_protocol_named_twice_counts_once() {
    play(
        "
        join a v=3 protocols=range,range =>
        join b v=3 protocols=range =>
        +0                 => a joined 1 range leader=a members=a,b; b joined 1 range leader=a
        ",
    );
}

#[test]
fn generations_and_members_are_checked() {
    play_pair(
        "
        sync b gen=0       => b sync ILLEGAL_GENERATION
        sync z             => z sync UNKNOWN_MEMBER_ID
        beat b gen=2       => b beat ILLEGAL_GENERATION
        beat z             => z beat UNKNOWN_MEMBER_ID
        sync b static=i    => b sync UNKNOWN_MEMBER_ID
        join z id=zzz      => z join UNKNOWN_MEMBER_ID
        beat a group=none  => a beat UNKNOWN_MEMBER_ID
        sync a group=none  => a sync UNKNOWN_MEMBER_ID
        join a group=none  => a join UNKNOWN_MEMBER_ID
        ",
    );
}

#[test]
fn a_request_that_is_sent_again_takes_the_place_of_the_first() {
    play_pair(
        "
        join a             =>
        join a             => a join REBALANCE_IN_PROGRESS
        join b             => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
        sync b             =>
        sync b             => b sync REBALANCE_IN_PROGRESS
        cancel b sync      =>
        sync a give=b:y    => a sync []
        sync b             => b sync [y]
        ",
    );
}

#[test]
fn nothing_is_told_before_it_is_committed() {
    play_pair(
        "
        join a             =>
        join b             => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
        hold               =>
        sync b             =>
        sync a give=a:1,b:2 =>
        group              => CompletingRebalance 2 a,b
        beat a             => a beat ok
        commit             => a sync [1]; b sync [2]
        group              => Stable 2 a,b
        ",
    );
}

#[test]
fn an_assignment_that_comes_too_late_is_dropped() {
    play_pair(
        "
        join a             =>
        join b             => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
        hold               =>
        sync a give=a:1,b:2 =>
        join b topics=u    => a sync REBALANCE_IN_PROGRESS
        commit             =>
        group              => PreparingRebalance 2 a,b
        ",
    );
}

#[test]
fn an_assignment_that_the_log_refuses_is_tried_again() {
    play_pair(
        "
        join a             =>
        join b             => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
        sync b             =>
        refuse MESSAGE_TOO_LARGE =>
        sync a give=a:1,b:2 => a sync UNKNOWN_SERVER_ERROR; b sync UNKNOWN_SERVER_ERROR
        group              => PreparingRebalance 2 a,b
        join a             =>
        join b             => a joined 3 range leader=a members=a,b; b joined 3 range leader=a
        log                => g:0[] g:1[a,b]
        ",
    );
}

#[test]
fn a_group_that_the_log_refuses_never_was() {
    play(
        "
        refuse NOT_ENOUGH_REPLICAS =>
        join a v=3         => a join COORDINATOR_NOT_AVAILABLE
        group              => none
        +100000            =>
        log                =>
        ",
    );
}

#[test]
fn the_history_says_why() {
    let mut scene = play_with(
        GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() },
        &format!(
            "{PAIR}
            join a             =>
            +700               =>
            join b             => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
            +50                =>
            sync b             =>
            sync a             => a sync []; b sync []
            leave b reason=closed => leave NONE
            join a             => a joined 3 range leader=a members=a
            sync a             => a sync []
            +10000             =>
            history            => member joined (a) 1 0 b@0; leader rejoined (a) 2 750 b@700; \
                                  member left: closed (b) 3 0 a@0; session expired (a) 4 0
            "
        ),
    );
    assert_eq!(scene.shard.counters().rebalances, 4);
    assert_eq!(scene.shard.counters().rebalances_completed, 3);
    scene.shard.on_lost(&mut Vec::new());
    assert_eq!(scene.shard.groups().count(), 0);
}
