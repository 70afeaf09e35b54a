//! How a group's membership moves from what it is to what the cluster wants, one safe step at a
//! time. Pure: the leader asks [`next_step`] and proposes what it says.

use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::state::Membership;

/// What a replica is to become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberRole {
    /// Counts for the quorum.
    Voter,
    /// Copies the log.
    Learner,
    /// Takes no part.
    Removed,
}

/// One change of membership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MembershipStep {
    /// Several at once: raft passes through joint consensus where it must.
    Change(Vec<(ReplicaId, MemberRole)>),
    /// Leave the joint configuration that an earlier leader left behind.
    LeaveJoint,
    /// Hand the leadership to this voter: the leader is not to stay. It cannot remove itself, since
    /// then nobody who counts might know that the removal is committed.
    Transfer(ReplicaId),
}

/// The next step from `current` to the voters `target`, or `None` if there is nothing to do now.
/// `own` is the leader that asks.
///
/// New replicas come as learners first, so that the quorum is never enlarged by somebody who has
/// nothing; all are promoted, and all that have to go removed, in one joint step once every learner
/// has caught up to `caught_up`.
pub fn next_step(
    own: ReplicaId,
    current: &Membership,
    target: &[ReplicaId],
    matched: &[(ReplicaId, LogIndex)],
    caught_up: LogIndex,
) -> Option<MembershipStep> {
    assert!(!target.is_empty(), "a group keeps at least one replica");
    if !current.outgoing.is_empty() {
        return (!current.auto_leave).then_some(MembershipStep::LeaveJoint);
    }
    let is_member = |id| current.voters.contains(id) || current.learners.contains(id);
    let new: Vec<_> = target.iter().filter(|id| !is_member(id)).collect();
    if !new.is_empty() {
        let learners = new.into_iter().map(|id| (*id, MemberRole::Learner)).collect();
        return Some(MembershipStep::Change(learners));
    }
    let has_caught_up =
        |id: &ReplicaId| matched.iter().any(|(other, index)| other == id && *index >= caught_up);
    let learners = target.iter().filter(|id| current.learners.contains(id));
    let promoted: Vec<_> = learners.copied().collect();
    if !promoted.iter().all(has_caught_up) {
        return None;
    }
    let leaving = current.voters.iter().chain(&current.learners);
    let leaving = leaving.filter(|id| !target.contains(id) && **id != own);
    let promotions = promoted.iter().map(|id| (*id, MemberRole::Voter));
    let changes: Vec<_> = promotions.chain(leaving.map(|id| (*id, MemberRole::Removed))).collect();
    if changes.is_empty() && !target.contains(&own) {
        let heirs = current.voters.iter().filter(|id| target.contains(id));
        return heirs.copied().find(has_caught_up).map(MembershipStep::Transfer);
    }
    (!changes.is_empty()).then_some(MembershipStep::Change(changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(raw: &[u64]) -> Vec<ReplicaId> {
        raw.iter().copied().map(ReplicaId).collect()
    }

    fn check(voters: &[u64], learners: &[u64], target: &[u64], behind: &[u64]) -> String {
        let current =
            Membership { voters: ids(voters), learners: ids(learners), ..Membership::default() };
        let members = voters.iter().chain(learners);
        let matched: Vec<_> = members
            .map(|id| (ReplicaId(*id), LogIndex(if behind.contains(id) { 1 } else { 9 })))
            .collect();
        let own = ReplicaId(voters[0]);
        match next_step(own, &current, &ids(target), &matched, LogIndex(5)) {
            Some(MembershipStep::Transfer(heir)) => format!("to {heir}"),
            None => "wait".to_owned(),
            Some(MembershipStep::LeaveJoint) => "leave".to_owned(),
            Some(MembershipStep::Change(changes)) => {
                let words = changes.iter().map(|(id, role)| match role {
                    MemberRole::Voter => format!("+{id}"),
                    MemberRole::Learner => format!("~{id}"),
                    MemberRole::Removed => format!("-{id}"),
                });
                words.collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn steps() {
        assert_eq!(check(&[1], &[], &[1], &[]), "wait");
        assert_eq!(check(&[1], &[], &[1, 2, 3], &[]), "~2 ~3");
        assert_eq!(check(&[1], &[2, 3], &[1, 2, 3], &[3]), "wait");
        assert_eq!(check(&[1], &[2, 3], &[1, 2, 3], &[]), "+2 +3");
        assert_eq!(check(&[1, 2, 3], &[], &[1, 2, 4], &[]), "~4");
        assert_eq!(check(&[1, 2, 3], &[4], &[1, 2, 4], &[]), "+4 -3");
        assert_eq!(check(&[1, 2, 3], &[], &[1, 2], &[]), "-3");
        assert_eq!(check(&[1, 2, 3], &[4], &[1, 2, 3], &[4]), "-4");
        assert_eq!(check(&[1, 2, 3], &[4], &[4, 2], &[]), "+4 -3");
        assert_eq!(check(&[1, 2, 4], &[], &[4, 2], &[2]), "to 4");
        assert_eq!(check(&[1, 2], &[], &[2], &[2]), "wait");
    }

    #[test]
    fn a_joint_configuration_is_left_first() {
        let joint =
            Membership { voters: ids(&[1, 2]), outgoing: ids(&[1, 3]), ..Membership::default() };
        let step = next_step(ReplicaId(1), &joint, &ids(&[1, 2, 4]), &[], LogIndex(0));
        assert_eq!(step, Some(MembershipStep::LeaveJoint));
        let auto = Membership { auto_leave: true, ..joint };
        assert_eq!(next_step(ReplicaId(1), &auto, &ids(&[1, 2, 4]), &[], LogIndex(0)), None);
    }
}
