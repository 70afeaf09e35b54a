//! Offsets: who may commit, what is kept and for how long.

use super::scene::{play, play_with};
use crate::coordinator::group::GroupConfig;

#[test]
fn a_commit_alone_makes_a_simple_group() {
    play(
        "
        fetch t-0          => fetch t-0=-1
        fetch              => fetch
        offsets - t-0=5:note t-1=6 u-0=7 => - offsets t-0=NONE t-1=NONE u-0=NONE
        fetch t-1 t-0 t-2 z-0 => fetch t-1=6 t-0=5:note t-2=-1 z-0=-1
        fetch              => fetch t-0=5:note t-1=6 u-0=7
        fetch group=h      => fetch
        list               => list g:Empty:
        describe           => describe Empty::
        log                => t-0=5 t-1=6 u-0=7
        ",
    );
}

#[test]
fn who_may_commit() {
    play(
        "
        offsets a gen=1 id=x t-0=1 => a offsets GROUP_ID_NOT_FOUND
        offsets a gen=1 id=x t-0=1 v=8 => a offsets ILLEGAL_GENERATION
        join a v=3         =>
        +0                 => a joined 1 range leader=a members=a
        sync a             => a sync []
        offsets a t-0=1    => a offsets t-0=NONE
        offsets a t-0=2 gen=2 => a offsets ILLEGAL_GENERATION
        offsets a t-0=2 gen=-1 => a offsets ILLEGAL_GENERATION
        offsets z t-0=2    => z offsets UNKNOWN_MEMBER_ID
        offsets z t-0=2 gen=1 => z offsets UNKNOWN_MEMBER_ID
        offsets a t-0=2 static=i => a offsets UNKNOWN_MEMBER_ID
        fetch t-0          => fetch t-0=1
        leave a            => leave NONE
        offsets z t-0=9    => z offsets t-0=NONE
        offsets a t-0=2 gen=2 => a offsets UNKNOWN_MEMBER_ID
        fetch t-0          => fetch t-0=9
        ",
    );
}

#[test]
fn metadata_has_a_size() {
    let config = GroupConfig { offset_metadata_bytes_max: 4, ..GroupConfig::default() };
    play_with(
        config,
        "
        offsets - t-0=1:1234 t-1=1:12345 t-2=1:řřřř => \
            - offsets t-0=NONE t-1=OFFSET_METADATA_TOO_LARGE t-2=NONE
        offsets - t-1=1:12345 => - offsets t-1=OFFSET_METADATA_TOO_LARGE
        fetch              => fetch t-0=1:1234 t-2=1:řřřř
        ",
    );
}

#[test]
fn what_is_not_committed_is_not_shown() {
    play(
        "
        offsets - t-0=1    => - offsets t-0=NONE
        hold               =>
        offsets - t-0=2    =>
        fetch t-0          => fetch t-0=1
        fetch t-0 stable=1 =>
        offsets - t-0=3    =>
        fetch stable=1     =>
        commit             => - offsets t-0=NONE; fetch t-0=2; - offsets t-0=NONE; fetch t-0=3
        fetch stable=1 t-0 => fetch t-0=3
        offsets - t-0=4 group=h =>
        list               => list g:Empty:
        delete             =>
        list               => list g:Empty:
        fetch              => fetch t-0=3
        commit             => - offsets t-0=NONE; delete ok
        list               => list h:Empty:
        ",
    );
}

#[test]
fn a_refused_commit_is_as_if_it_had_not_been() {
    play(
        "
        refuse MESSAGE_TOO_LARGE =>
        offsets - t-0=1    => - offsets UNKNOWN_SERVER_ERROR
        list               => list
        describe           => describe GROUP_ID_NOT_FOUND Group g not found.
        offsets - t-0=1    => - offsets t-0=NONE
        refuse NOT_LEADER_OR_FOLLOWER =>
        delete             => delete NOT_COORDINATOR
        fetch              => fetch t-0=1
        delete             => delete ok
        group              => none
        ",
    );
}

#[test]
fn who_waits_for_what_is_appended_does_not_wait_for_what_was_refused() {
    play(
        "
        hold               =>
        offsets - t-0=1    =>
        refuse MESSAGE_TOO_LARGE =>
        offsets - t-0=2    => - offsets UNKNOWN_SERVER_ERROR
        fetch t-0 stable=1 =>
        commit             => - offsets t-0=NONE; fetch t-0=1
        ",
    );
}

#[test]
fn a_canceled_commit_counts_all_the_same() {
    play(
        "
        hold               =>
        offsets - t-0=1    =>
        cancel - offsets   =>
        commit             =>
        fetch t-0          => fetch t-0=1
        ",
    );
}

#[test]
fn groups_are_deleted_when_they_are_empty() {
    play(
        "
        delete             => delete GROUP_ID_NOT_FOUND
        join a v=3         =>
        delete             => delete NON_EMPTY_GROUP
        +0                 => a joined 1 range leader=a members=a
        sync a             => a sync []
        offsets a t-0=1 t-1=2 => a offsets t-0=NONE t-1=NONE
        delete             => delete NON_EMPTY_GROUP
        leave a            => leave NONE
        delete             => delete ok
        fetch              => fetch
        log                => g:0[] g:1[a] t-0=1 t-1=2 g:2[] -t-0 -t-1 -g
        delete             => delete GROUP_ID_NOT_FOUND
        describe           => describe GROUP_ID_NOT_FOUND Group g not found.
        describe v=5       => describe Dead::
        ",
    );
}

#[test]
fn offsets_are_deleted_where_nobody_reads() {
    play(
        "
        forget t-0         => forget GROUP_ID_NOT_FOUND
        offsets - t-0=1 u-0=2 => - offsets t-0=NONE u-0=NONE
        join a v=3 topics=t =>
        +0                 => a joined 1 range leader=a members=a
        sync a             => a sync []
        forget t-0 u-0 u-7 => forget t-0=GROUP_SUBSCRIBED_TO_TOPIC u-0=NONE u-7=NONE
        fetch              => fetch t-0=1
        leave a            => leave NONE
        forget t-0         => forget t-0=NONE
        fetch              => fetch
        join c v=3 type=connect =>
        +0                 => c joined 3 range leader=c members=c
        forget t-0         => forget NON_EMPTY_GROUP
        ",
    );
}

#[test]
fn deleted_topics_take_their_offsets_along() {
    play(
        "
        offsets - t-0=1 u-0=2 => - offsets t-0=NONE u-0=NONE
        offsets - t-0=1 group=h => - offsets t-0=NONE
        drop t             =>
        fetch              => fetch u-0=2
        fetch group=h      => fetch
        log                => t-0=1 u-0=2 t-0=1 -t-0 -t-0
        ",
    );
}

/// Ten minutes of retention, looked at every minute.
fn short() -> GroupConfig {
    GroupConfig {
        initial_rebalance_delay_ms: 0,
        offsets_retention_ms: 600_000,
        offsets_retention_check_interval_ms: 60_000,
        ..GroupConfig::default()
    }
}

#[test]
fn offsets_of_an_empty_group_expire_after_it_became_empty() {
    play_with(
        short(),
        "
        join a v=3 session=1800000 =>
        +0                 => a joined 1 range leader=a members=a
        sync a             => a sync []
        offsets a t-0=1    => a offsets t-0=NONE
        +1200000           =>
        fetch              => fetch t-0=1
        leave a            => leave NONE
        +599999            =>
        fetch              => fetch t-0=1
        list               => list g:Empty:consumer
        +1                 =>
        log                => g:0[] g:1[a] t-0=1 g:2[] -t-0 -g
        list               => list
        ",
    );
}

#[test]
fn offsets_of_a_simple_group_expire_each_by_itself() {
    play_with(
        short(),
        "
        offsets - t-0=1    => - offsets t-0=NONE
        +300000            =>
        offsets - t-1=2    => - offsets t-1=NONE
        offsets - t-2=2 keep=60000 => - offsets t-2=NONE
        +60000             =>
        fetch              => fetch t-0=1 t-1=2
        +240000            =>
        fetch              => fetch t-1=2
        list               => list g:Empty:
        +300000            =>
        list               => list
        log                => t-0=1 t-1=2 t-2=2 -t-2 -t-0 -t-1
        ",
    );
}

#[test]
fn offsets_that_a_stable_group_reads_do_not_expire() {
    play_with(
        short(),
        "
        join a v=3 topics=t session=1800000 =>
        +0                 => a joined 1 range leader=a members=a
        sync a             => a sync []
        offsets a t-0=1 u-0=2 => a offsets t-0=NONE u-0=NONE
        +600000            =>
        fetch              => fetch t-0=1
        join a topics=u session=1800000 rebalance=300000 => \
            a joined 2 range leader=a members=a
        +60000             =>
        fetch              => fetch t-0=1
        sync a             => a sync []
        +60000             =>
        fetch              => fetch
        group              => Stable 2 a
        ",
    );
}

#[test]
fn where_the_topics_are_unknown_nothing_expires() {
    play_with(
        short(),
        "
        join a v=3 topics=rubbish session=1800000 =>
        +0                 => a joined 1 range leader=a members=a
        sync a             => a sync []
        offsets a t-0=1    => a offsets t-0=NONE
        forget t-0         => forget t-0=GROUP_SUBSCRIBED_TO_TOPIC
        +1700000           =>
        fetch              => fetch t-0=1
        ",
    );
}

#[test]
fn an_empty_group_without_offsets_goes() {
    play_with(
        short(),
        "
        join a             => a join MEMBER_ID_REQUIRED
        list               => list g:Empty:
        +9999              =>
        list               => list g:Empty:
        +60000             =>
        list               => list
        log                => g:0[] -g
        ",
    );
}
