//! How members come, and how they go.

use super::scene::{play, play_with};
use crate::coordinator::group::GroupConfig;

#[test]
fn a_group_comes_together() {
    play(
        "
        join a             => a join MEMBER_ID_REQUIRED
        log                => g:0[]
        join a             =>
        group              => PreparingRebalance 0 a
        +0                 => a joined 1 range leader=a members=a
        sync a give=a:x    => a sync [x]
        log                => g:0[] g:1[a]
        group              => Stable 1 a
        beat a             => a beat ok

        join b             => b join MEMBER_ID_REQUIRED
        beat a             => a beat ok
        join b             =>
        beat a             => a beat REBALANCE_IN_PROGRESS
        join a             => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
        sync b             =>
        beat b             => b beat ok
        sync a give=a:x,b:y => a sync [x]; b sync [y]
        describe           => describe Stable:consumer:range a+[x] b+[y]
        ",
    );
}

#[test]
fn versions_before_4_are_members_at_once() {
    play(
        "
        join a v=3         =>
        +0                 => a joined 1 range leader=a members=a
        sync a             => a sync []
        group              => Stable 1 a
        ",
    );
}

#[test]
fn the_first_rebalance_waits_for_more_members() {
    let config = GroupConfig::default();
    play_with(
        config,
        "
        join a v=3 rebalance=8000 =>
        +2000              =>
        join b v=3 rebalance=8000 =>
        +2999              =>
        join c v=3 rebalance=8000 =>
        +2000              =>
        join d v=3 rebalance=8000 =>
        +998               =>
        +3                 => a joined 1 range leader=a members=a,b,c,d; \
                              b joined 1 range leader=a; c joined 1 range leader=a; \
                              d joined 1 range leader=a
        ",
    );
}

#[test]
fn the_delay_ends_when_nobody_comes() {
    play_with(
        GroupConfig::default(),
        "
        join a v=3         =>
        +2999              =>
        +1                 => a joined 1 range leader=a members=a
        ",
    );
}

#[test]
fn silence_ends_a_session() {
    play(
        "
        join a v=3         =>
        join b v=3 session=20000 =>
        +0                 => a joined 1 range leader=a members=a,b; b joined 1 range leader=a
        sync b             =>
        sync a give=a:x,b:y => a sync [x]; b sync [y]
        +9999              =>
        beat b             => b beat ok
        group              => Stable 1 a,b
        +1                 =>
        group              => PreparingRebalance 1 b
        beat a             => a beat UNKNOWN_MEMBER_ID
        beat b             => b beat REBALANCE_IN_PROGRESS
        join b             => b joined 2 range leader=b members=b
        sync b give=b:all  => b sync [all]
        +20000             =>
        group              => Empty 3
        log                => g:0[] g:1[a,b] g:2[b] g:3[]
        ",
    );
}

#[test]
fn heartbeats_and_commits_keep_a_session() {
    play(
        "
        join a v=3         =>
        +0                 => a joined 1 range leader=a members=a
        sync a             => a sync []
        +9000              =>
        beat a             => a beat ok
        +9000              =>
        offsets a t-0=5    => a offsets t-0=NONE
        +9000              =>
        beat a             => a beat ok
        fetch t-0          => fetch t-0=5
        +10000             =>
        group              => Empty 2
        ",
    );
}

#[test]
fn a_given_id_expires() {
    play(
        "
        join a             => a join MEMBER_ID_REQUIRED
        +10000             =>
        join a             => a join UNKNOWN_MEMBER_ID
        group              => Empty 0
        ",
    );
}

#[test]
fn members_on_their_way_are_waited_for() {
    play(
        "
        join a v=3         =>
        +0                 => a joined 1 range leader=a members=a
        sync a             => a sync []
        join b             => b join MEMBER_ID_REQUIRED
        join a             =>
        +5000              =>
        join b             => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
        sync a             => a sync []
        sync b             => b sync []
        join c             => c join MEMBER_ID_REQUIRED
        join a             =>
        join b             =>
        leave c            => a joined 3 range leader=a members=a,b; \
                              b joined 3 range leader=a; leave NONE
        ",
    );
}

#[test]
fn a_new_member_whose_connection_is_gone_is_given_up() {
    play(
        "
        join a v=3 session=1800000 rebalance=900000 =>
        +0                 => a joined 1 range leader=a members=a
        sync a             => a sync []
        join b v=3         =>
        cancel b join      =>
        +299999            =>
        group              => PreparingRebalance 1 a,b
        +1                 =>
        group              => PreparingRebalance 1 a
        join a             => a joined 2 range leader=a members=a
        ",
    );
}

#[test]
fn leaving() {
    play(
        "
        join a v=3         =>
        join b v=3         =>
        +0                 => a joined 1 range leader=a members=a,b; b joined 1 range leader=a
        sync b             =>
        leave b            => b sync UNKNOWN_MEMBER_ID; leave NONE
        group              => PreparingRebalance 1 a
        join a             => a joined 2 range leader=a members=a
        sync a             => a sync []
        leave a z b reason=enough => leave NONE,UNKNOWN_MEMBER_ID,UNKNOWN_MEMBER_ID
        group              => Empty 3
        leave a            => leave UNKNOWN_MEMBER_ID
        leave a group=none => leave UNKNOWN_MEMBER_ID
        ",
    );
}

#[test]
fn a_group_has_a_size() {
    let config = GroupConfig { max_size: 2, initial_rebalance_delay_ms: 0, ..Default::default() };
    play_with(
        config,
        "
        join a v=3         =>
        join b v=3         =>
        join c v=3         => c join GROUP_MAX_SIZE_REACHED
        +0                 => a joined 1 range leader=a members=a,b; b joined 1 range leader=a
        join c v=3         => c join GROUP_MAX_SIZE_REACHED
        sync a             => a sync []
        sync b             => b sync []
        join c             => c join GROUP_MAX_SIZE_REACHED
        leave b            => leave NONE
        join c v=3         =>
        join a             => a joined 2 range leader=a members=a,c; c joined 2 range leader=a
        ",
    );
}

#[test]
fn session_timeouts_have_limits() {
    play(
        "
        join a session=5999 => a join INVALID_SESSION_TIMEOUT
        join a session=1800001 => a join INVALID_SESSION_TIMEOUT
        join a session=-1  => a join INVALID_SESSION_TIMEOUT
        join a session=6000 => a join MEMBER_ID_REQUIRED
        ",
    );
}
