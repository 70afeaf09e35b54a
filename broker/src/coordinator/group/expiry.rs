//! What goes without being asked for: offsets that nobody needs any more, and with its last offset
//! the group; and the offsets of deleted topics.
//!
//! Offsets of an empty group expire so long after it became empty; those of a stable group of
//! consumers, after their commit, where no member reads the topic; those of clients outside of any
//! group, after their commit. An OffsetCommit of an old version may name its own time instead
//! (`ClassicGroup.offsetExpirationCondition`, `OffsetExpirationConditionImpl`, KIP-211).

use std::collections::BTreeSet;
use std::ops::Bound;

use vltava_protocol::ids::{Timestamp, TopicName};

use super::classic::ClassicGroup;
use super::ids::GroupId;
use super::records::{CommittedOffset, GroupRecord, OffsetKey};
use super::state::State;
use super::timers::Timer;
use super::{Effect, GroupShard};

/// How many offsets are looked at in one go, about: the shard's lock is held so long.
const LOOK_AT: usize = 10_000;

/// From when on the retention of a group's offsets counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Since {
    /// From the moment at which the group became empty.
    Emptied(Timestamp),
    /// From the offset's own commit.
    Committed,
    /// Not at all: members may still need them.
    Never,
}

impl Since {
    fn of(group: &ClassicGroup) -> Self {
        match group.state() {
            _ if group.protocol_type.is_none() => Self::Committed,
            State::Empty if group.state_since() == Timestamp::NONE => Self::Committed,
            State::Empty => Self::Emptied(group.state_since()),
            State::Stable if group.is_of_consumers() && group.knows_topics() => Self::Committed,
            _ => Self::Never,
        }
    }

    fn is_over(self, offset: &CommittedOffset, now: Timestamp, retention_ms: i64) -> bool {
        let since = match self {
            Self::Never => return false,
            _ if offset.expire_timestamp != Timestamp::NONE => {
                return now >= offset.expire_timestamp;
            }
            Self::Emptied(since) => since,
            Self::Committed => offset.commit_timestamp,
        };
        now.0.saturating_sub(since.0) >= retention_ms
    }
}

impl GroupShard {
    /// Looks for expired offsets after the usual interval.
    pub(super) fn schedule_expiry(&mut self, now: Timestamp) {
        let interval = self.config.offsets_retention_check_interval_ms.max(1);
        self.timers.set(Timer::Expiry, Timestamp(now.0.saturating_add(interval)));
    }

    /// Looks at the next groups.
    pub(super) fn expire_offsets(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let from = match self.expiry_cursor.take() {
            Some(last) => Bound::Excluded(last),
            None => Bound::Unbounded,
        };
        let mut records = Vec::new();
        let mut gone = Vec::new();
        let mut looked = 0;
        for (group_id, group) in self.groups.range::<GroupId, _>((from, Bound::Unbounded)) {
            let before = records.len();
            let offsets = self.expired(group, now, &mut records);
            looked += 1 + offsets;
            self.counters.offsets_expired += (records.len() - before) as u64;
            if group.is_idle() && offsets == records.len() - before {
                if self.ledger.metadata.get(group_id).is_some() {
                    records.push(GroupRecord::Group(group_id.clone(), None));
                }
                gone.push(group_id.clone());
            }
            if looked >= LOOK_AT {
                self.expiry_cursor = Some(group_id.clone());
                break;
            }
        }
        self.append_in_batches(records, out);
        for group_id in gone {
            self.forget_group(&group_id);
        }
        match self.expiry_cursor {
            Some(_) => self.timers.set(Timer::Expiry, now),
            None => self.schedule_expiry(now),
        }
    }

    /// Adds tombstones for the expired offsets of a group. Answers how many offsets it has.
    fn expired(
        &self,
        group: &ClassicGroup,
        now: Timestamp,
        records: &mut Vec<GroupRecord>,
    ) -> usize {
        let since = Since::of(group);
        let retention_ms = self.config.offsets_retention_ms;
        let mut count = 0;
        for (key, offset) in self.ledger.offsets.range(&OffsetKey::first_of(&group.id)) {
            if key.group_id != group.id {
                break;
            }
            count += 1;
            if since.is_over(offset, now, retention_ms) && !group.reads(&key.tp.topic) {
                records.push(GroupRecord::Offset(key.clone(), None));
            }
        }
        count
    }

    /// Removes the offsets of deleted topics (`OffsetMetadataManager.onPartitionsDeleted`). Groups
    /// stay, even without any offset.
    pub fn on_topics_deleted(&mut self, topics: &BTreeSet<TopicName>, out: &mut Vec<Effect>) {
        if !self.leading {
            return;
        }
        let first = OffsetKey::first_of(&GroupId::default());
        let offsets = self.ledger.offsets.range(&first);
        let keys = offsets.map(|(key, _)| key).filter(|key| topics.contains(&key.tp.topic));
        let records: Vec<_> = keys.map(|key| GroupRecord::Offset(key.clone(), None)).collect();
        self.counters.offset_deletions += records.len() as u64;
        self.append_in_batches(records, out);
    }
}
