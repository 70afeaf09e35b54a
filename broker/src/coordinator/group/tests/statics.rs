//! Static members (KIP-345): a name of their own outlives the process.

use super::scene::play;

/// `a` is dynamic and leads, `s` is static; the group is stable.
const STABLE: &str = "
    join a v=3 session=1000000 =>
    join s static=i session=20000 =>
    +0                 => a joined 1 range leader=a members=a,s; s joined 1 range leader=a
    sync s static=i    =>
    sync a give=a:x,s:y => a sync [x]; s sync [y]
";

fn play_stable(script: &str) {
    play(&format!("{STABLE}{script}"));
}

#[test]
fn a_new_process_takes_over_without_a_rebalance() {
    play_stable(
        "
        join n static=i    => n joined 1 range leader=a
        log                => g:0[] g:1[a,s] g:1[a,n]
        sync n static=i    => n sync [y]
        group              => Stable 1 a,n
        beat s static=i gen=1 => s beat FENCED_INSTANCE_ID
        sync s static=i gen=1 => s sync FENCED_INSTANCE_ID
        offsets s static=i gen=1 t-0=1 => s offsets FENCED_INSTANCE_ID
        join s static=i    => s join FENCED_INSTANCE_ID
        leave s static=i   => leave FENCED_INSTANCE_ID
        beat n static=i    => n beat ok
        beat n static=j    => n beat UNKNOWN_MEMBER_ID
        ",
    );
}

#[test]
fn a_leader_that_is_replaced_keeps_the_assignment() {
    play(
        "
        join s static=i    =>
        +0                 => s joined 1 range leader=s members=s
        sync s give=s:x    => s sync [x]
        join n static=i    => n joined 1 range leader=n members=n skip
        sync n             => n sync [x]
        join m static=i v=8 => m joined 1 range leader=n
        sync m             => m sync [x]
        group              => Stable 1 m
        ",
    );
}

#[test]
fn another_choice_of_protocol_rebalances() {
    play(
        "
        join a v=3 protocols=range,sticky =>
        join s static=i protocols=range,sticky =>
        +0                 => a joined 1 range leader=a members=a,s; s joined 1 range leader=a
        sync a             => a sync []
        sync s             => s sync []
        join n static=i protocols=other => n join INCONSISTENT_GROUP_PROTOCOL
        join n static=i protocols=sticky =>
        group              => PreparingRebalance 1 a,n
        join a protocols=range,sticky => a joined 2 sticky leader=a members=a,n; \
                              n joined 2 sticky leader=a
        ",
    );
}

#[test]
fn a_replacement_while_the_leader_assigns_rebalances() {
    play_stable(
        "
        join a topics=u    =>
        join s static=i    => a joined 2 range leader=a members=a,s; s joined 2 range leader=a
        sync s static=i    =>
        join n static=i    => s sync FENCED_INSTANCE_ID
        sync a give=a:x,s:y gen=2 => a sync REBALANCE_IN_PROGRESS
        join a             => a joined 3 range leader=a members=a,n; n joined 3 range leader=a
        ",
    );
}

#[test]
fn a_replacement_while_members_gather_fences_the_one_that_waits() {
    play_stable(
        "
        join s static=i topics=u =>
        join n static=i    => s join FENCED_INSTANCE_ID
        join a             => a joined 2 range leader=a members=a,n; n joined 2 range leader=a
        ",
    );
}

#[test]
fn a_static_member_that_does_not_come_stays_until_its_session_ends() {
    play_stable(
        "
        join a topics=u rebalance=5000 session=1000000 =>
        +15000             =>
        beat s             => s beat REBALANCE_IN_PROGRESS
        +19999             =>
        +1                 => a joined 2 range leader=a members=a
        ",
    );
    play(
        "
        join a v=3 rebalance=5000 =>
        join s static=i session=60000 rebalance=5000 =>
        +0                 => a joined 1 range leader=a members=a,s; s joined 1 range leader=a
        sync a             => a sync []
        sync s             => s sync []
        join a topics=u rebalance=5000 session=60000 =>
        +5000              => a joined 2 range leader=a members=a,s
        sync a             => a sync []
        sync s gen=2       => s sync []
        ",
    );
}

#[test]
fn an_administrator_removes_by_name() {
    play_stable(
        "
        leave @nobody @i   => leave UNKNOWN_MEMBER_ID,NONE
        group              => PreparingRebalance 1 a
        ",
    );
}

#[test]
fn a_refused_replacement_leaves_the_old_member() {
    play_stable(
        "
        refuse NOT_ENOUGH_REPLICAS =>
        join n static=i    => n join COORDINATOR_NOT_AVAILABLE
        group              => Stable 1 a,s
        beat s static=i    => s beat ok
        log                => g:0[] g:1[a,s]
        +20000             =>
        group              => PreparingRebalance 1 a
        ",
    );
}

#[test]
fn a_replacement_that_a_rebalance_overtakes_waits_for_that() {
    play_stable(
        "
        hold               =>
        join n static=i    =>
        join a topics=u    => a joined 2 range leader=a members=a,n; n joined 2 range leader=a
        commit             =>
        group              => CompletingRebalance 2 a,n
        ",
    );
}
