//! What a world looks like at a moment, in words.

use std::fmt::Write;

use super::{Slot, World};
use vltava_storage::ids::LogIndex;

use crate::cluster::GroupId;

impl World {
    /// One line a replica: for traces, for scripts and for the reader of a violation.
    pub fn describe(&self, group: GroupId) -> String {
        let this = &self.cluster.groups[group];
        let mut text = format!("target {:?}, dead {:?}", this.target, this.dead);
        for (id, node) in &this.homes {
            let _ = write!(text, " | {id} on node {node}: ");
            let Some(broker) = &self.machines[*node].broker else {
                text.push_str("down");
                continue;
            };
            match broker.slots.get(id) {
                None => text.push_str("not created"),
                Some(Slot::Opening { .. }) => text.push_str("opening"),
                Some(Slot::Refused) => text.push_str("refused"),
                Some(Slot::Open(live)) => {
                    let replica = &live.replica;
                    let (Some(state), Some(log)) = (replica.group(), replica.log()) else {
                        text.push_str("out of service");
                        continue;
                    };
                    let _ = write!(
                        text,
                        "{:?} term {} knows {:?}, indexes {}..{} committed {} offsets {}..{} {}{:?} \
                         learners {:?} since {}",
                        state.role(),
                        state.term(),
                        state.leader(),
                        log.first_index(),
                        log.last_index(),
                        log.committed(),
                        log.state().log_start.offset,
                        log.end_offset(),
                        if replica.abstains() { "abstains " } else { "" },
                        replica.membership().voters,
                        replica.membership().learners,
                        log.state().memberships.last().map_or(LogIndex(0), |(index, _)| *index),
                    );
                }
            }
        }
        text
    }
}
