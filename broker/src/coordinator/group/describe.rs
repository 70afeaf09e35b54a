//! DescribeGroups, ListGroups, DeleteGroups.

use std::borrow::Cow;

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::Timestamp;

use super::classic::ClassicGroup;
use super::ids::{GroupId, MemberId, Text};
use super::member::Member;
use super::offsets::Answer;
use super::records::{GroupRecord, OffsetKey};
use super::request::{DeleteRequest, DescribeRequest, ListRequest};
use super::response::{DescribedGroup, DescribedMember, GroupResponse, ListedGroup};
use super::state::State;
use super::{Effect, GroupShard, Token};

/// The type of the groups of this shard (`GroupType`).
const CLASSIC: &str = "classic";

impl GroupShard {
    /// DescribeGroups. What members say and which protocol they use is told of a stable group only.
    pub(super) fn describe(&self, request: &DescribeRequest) -> GroupResponse {
        let group_id = request.group_id.clone();
        let described = match self.committed_group(&group_id) {
            Some(group) => describe(&group),
            None if request.knows_group_id_not_found => DescribedGroup {
                error: ErrorCode::GroupIdNotFound,
                error_message: Some(format!("Group {group_id} not found.")),
                ..missing(group_id)
            },
            None => missing(group_id),
        };
        GroupResponse::Describe(described)
    }

    /// ListGroups.
    pub(super) fn list(&self, request: &ListRequest) -> GroupResponse {
        let wanted = |filter: &[String], name: &str| {
            filter.is_empty() || filter.iter().any(|entry| entry.trim().eq_ignore_ascii_case(name))
        };
        if !wanted(&request.types, CLASSIC) {
            return GroupResponse::List(Vec::new());
        }
        // A group whose deletion is not committed is in the committed part alone.
        let mut ids: Vec<&GroupId> = self.groups.keys().collect();
        ids.extend(self.ledger.metadata.pending_keys());
        ids.extend(self.ledger.offsets.pending_keys().map(|key| &key.group_id));
        ids.sort_unstable();
        ids.dedup();
        let groups = ids.into_iter().filter_map(|group_id| self.committed_group(group_id));
        let groups = groups.filter(|group| wanted(&request.states, group.state().name()));
        let list = |group: Cow<'_, ClassicGroup>| ListedGroup {
            group_id: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state(),
            group_type: CLASSIC,
        };
        GroupResponse::List(groups.map(list).collect())
    }

    /// A group as far as it is committed that it exists; its members are as they are now.
    fn committed_group(&self, group_id: &GroupId) -> Option<Cow<'_, ClassicGroup>> {
        let metadata = self.ledger.metadata.get_committed(group_id);
        match self.groups.get(group_id) {
            Some(group) => {
                let exists = metadata.is_some()
                    || group.state() != State::Empty
                    || self.committed_offsets_of(group_id).next().is_some();
                exists.then_some(Cow::Borrowed(group))
            }
            None if metadata.is_some() || self.committed_offsets_of(group_id).next().is_some() => {
                let group = match metadata {
                    Some(metadata) => {
                        ClassicGroup::load(group_id.clone(), metadata, Timestamp::NONE)
                    }
                    None => ClassicGroup::new(group_id.clone(), Timestamp::NONE),
                };
                Some(Cow::Owned(group))
            }
            None => None,
        }
    }

    /// DeleteGroups: the group and its offsets, if it has no members.
    pub(super) fn delete(
        &mut self,
        token: Token,
        request: &DeleteRequest,
        out: &mut Vec<Effect>,
    ) -> Answer {
        let group_id = &request.group_id;
        let group = self.groups.get(group_id).ok_or(ErrorCode::GroupIdNotFound)?;
        if group.state() != State::Empty {
            return Err(ErrorCode::NonEmptyGroup);
        }
        let offsets = self.ledger.offsets.range(&OffsetKey::first_of(group_id));
        let offsets = offsets.map(|(key, _)| key).take_while(|key| key.group_id == *group_id);
        let mut records: Vec<_> =
            offsets.map(|key| GroupRecord::Offset(key.clone(), None)).collect();
        self.counters.offset_deletions += records.len() as u64;
        if self.ledger.metadata.get(group_id).is_some() {
            records.push(GroupRecord::Group(group_id.clone(), None));
        }
        self.append_in_batches(records, out);
        self.forget_group(group_id);
        self.ledger.reply_after_last(token, GroupResponse::Delete, out);
        Ok(None)
    }
}

fn missing(group_id: GroupId) -> DescribedGroup {
    DescribedGroup {
        error: ErrorCode::None,
        error_message: None,
        group_id,
        state: State::Dead,
        protocol_type: Text::default(),
        protocol: Text::default(),
        members: Vec::new(),
    }
}

fn describe(group: &ClassicGroup) -> DescribedGroup {
    let protocol = match group.state() {
        State::Stable => group.protocol.clone(),
        _ => None,
    };
    let member = |(member_id, member): (&MemberId, &Member)| DescribedMember {
        member_id: member_id.clone(),
        instance_id: member.instance_id.clone(),
        client: member.client.clone(),
        metadata: member.metadata(protocol.as_deref()),
        assignment: member.assignment.clone(),
    };
    DescribedGroup {
        state: group.state(),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        members: group.members().iter().map(member).collect(),
        protocol: protocol.clone().unwrap_or_default(),
        ..missing(group.id.clone())
    }
}
