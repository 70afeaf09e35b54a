//! What the next leader knows.

use super::scene::{play, play_with};
use crate::coordinator::group::GroupConfig;

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
fn members_go_on_as_if_nothing_had_happened() {
    play_pair(
        "
        offsets b t-0=5    => b offsets t-0=NONE
        +9000              =>
        lose               =>
        beat a             => a beat NOT_COORDINATOR
        elect              =>
        +9000              =>
        beat a             => a beat ok
        sync b             => b sync [y]
        offsets b t-0=6    => b offsets t-0=NONE
        describe           => describe Stable:consumer:range a+[x] b+[y]
        +10000             =>
        group              => Empty 2
        ",
    );
}

#[test]
fn a_rebalance_under_way_is_forgotten() {
    play_pair(
        "
        join c v=3         =>
        join a             =>
        lose               => c join NOT_COORDINATOR; a join NOT_COORDINATOR
        elect              =>
        group              => Stable 1 a,b
        beat a             => a beat ok
        join a             =>
        join b             => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
        ",
    );
}

#[test]
fn what_was_not_committed_is_lost_and_nobody_was_told() {
    play_pair(
        "
        offsets a t-0=1    => a offsets t-0=NONE
        join a             =>
        join b             => a joined 2 range leader=a members=a,b; b joined 2 range leader=a
        hold               =>
        sync a give=a:1,b:2 =>
        sync b             =>
        lose               => a sync NOT_COORDINATOR; b sync NOT_COORDINATOR
        elect              =>
        group              => Stable 1 a,b
        sync a gen=2       => a sync ILLEGAL_GENERATION
        fetch t-0          => fetch t-0=1
        ",
    );
}

#[test]
fn a_static_member_is_known_by_its_name() {
    play(
        "
        join s static=i    =>
        +0                 => s joined 1 range leader=s members=s
        sync s give=s:x    => s sync [x]
        lose               =>
        elect              =>
        join n static=i    => n joined 1 range leader=n members=n skip
        beat s static=i gen=1 => s beat FENCED_INSTANCE_ID
        ",
    );
}

#[test]
fn a_group_that_has_become_too_large_rebalances() {
    let config = GroupConfig { max_size: 1, initial_rebalance_delay_ms: 0, ..Default::default() };
    let mut scene = play_with(
        config,
        "
        join a v=3         =>
        +0                 => a joined 1 range leader=a members=a
        sync a             => a sync []
        lose               =>
        elect              =>
        group              => Stable 1 a
        ",
    );
    scene.shard.on_lost(&mut Vec::new());
    let smaller = GroupConfig { max_size: 0, ..GroupConfig::default() };
    scene.shard.set_config(smaller);
    scene.shard.on_elected(scene.now, &mut Vec::new());
    let group = scene.shard.group("g").unwrap();
    assert_eq!(group.state().name(), "PreparingRebalance");
}

#[test]
fn an_empty_group_keeps_its_generation() {
    play_pair(
        "
        leave a b          => leave NONE,NONE
        group              => Empty 2
        lose               =>
        elect              =>
        group              => Empty 2
        join a v=3 id=     =>
        +0                 => a joined 3 range leader=a members=a
        ",
    );
}
