//! The group coordinator of this node: shards of groups on the partitions of `__consumer_offsets`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{Timestamp, TopicName};

use super::group::{GroupConfig, GroupRecord, GroupRequest, GroupResponse, GroupShard, Seq, Token};
use super::runtime::{Asked, Figures, Post, Runtime, SteadyClock};
use super::shard::{EffectOf, Shard};
use crate::clock::Clock;
use crate::config::BrokerConfig;
use crate::controller::MetadataImage;
use crate::controller::service::Controller;
use crate::controller::state::OFFSETS_TOPIC;
use crate::partitions::Partitions;

/// A shard of groups on this node.
pub type GroupPost = Arc<Post<GroupShard>>;

/// See the module.
#[derive(Debug)]
pub struct Groups {
    runtime: Runtime<GroupShard>,
    figures: Figures,
}

impl Groups {
    /// The coordinator on a node with these partitions. To be called on a tokio runtime.
    pub fn new(partitions: Arc<Partitions>, clock: &Clock, config: &BrokerConfig) -> Arc<Self> {
        let (config, figures) = (GroupConfig::from(config), Figures::default());
        let make = move |_| {
            // Ids of members must differ from those that another leader gives.
            let (seed, _) = uuid::Uuid::new_v4().as_u64_pair();
            GroupShard::new(config.clone(), seed)
        };
        let clock = SteadyClock::new(clock);
        let runtime = Runtime::new(OFFSETS_TOPIC, partitions, clock, figures.clone(), make);
        Arc::new(Self { runtime, figures })
    }

    /// Keeps in step with the cluster's metadata from now on.
    pub fn observe(self: &Arc<Self>, controller: &Controller) {
        let groups = Arc::downgrade(self);
        controller.observe(move |before, image| {
            if let Some(groups) = groups.upgrade() {
                groups.follow(before, image);
            }
        });
    }

    fn follow(&self, before: &MetadataImage, image: &MetadataImage) {
        self.runtime.follow(image);
        // A topic that was created again in the same step is another one, too.
        let gone = before.topics().filter(|topic| image.topic_by_id(topic.id).is_none());
        let gone: BTreeSet<TopicName> = gone.map(|topic| topic.name.clone()).collect();
        if !gone.is_empty() {
            self.on_topics_deleted(&gone);
        }
    }

    /// Deletes the offsets of deleted topics (`GroupCoordinatorService.onPartitionsDeleted`): a
    /// topic of the same name that comes later begins without.
    fn on_topics_deleted(&self, topics: &BTreeSet<TopicName>) {
        for post in self.runtime.posts() {
            // A shard that is not led here is another node's affair. One that is loading keeps the
            // offsets, as in Kafka, until they expire.
            let _ = post.act(|shard, _, out| shard.on_topics_deleted(topics, out));
        }
    }

    /// What runs the shards.
    pub fn runtime(&self) -> &Runtime<GroupShard> {
        &self.runtime
    }

    /// What the runtime counts.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Puts a request to the group's coordinator, as [`Post::ask`] does.
    pub fn ask(&self, request: GroupRequest) -> Result<Asked<GroupShard>, ErrorCode> {
        let group_id = request.group_id().map_or("", |group_id| group_id);
        self.runtime.post_of(group_id)?.ask(request)
    }

    /// Asks and waits for the answer; what keeps the coordinator from answering is an answer.
    pub async fn answer(&self, request: GroupRequest) -> GroupResponse {
        match self.ask(request) {
            Ok(asked) => asked.answer().await.unwrap_or_else(GroupResponse::Failed),
            Err(code) => GroupResponse::Failed(code),
        }
    }
}

impl Shard for GroupShard {
    type Request = GroupRequest;
    type Response = GroupResponse;
    type Record = GroupRecord;

    fn encode(record: &GroupRecord) -> (Bytes, Option<Bytes>) {
        record.encode()
    }

    fn replay(&mut self, key: &[u8], value: Option<&[u8]>) {
        match GroupRecord::decode(key, value) {
            Ok(Some(record)) => self.apply_committed(record),
            // Of another protocol's groups.
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a record of a group is passed over"),
        }
    }

    fn on_elected(&mut self, now: Timestamp, out: &mut Vec<EffectOf<Self>>) {
        self.on_elected(now, out);
    }

    fn on_lost(&mut self, out: &mut Vec<EffectOf<Self>>) {
        self.on_lost(out);
    }

    fn handle(
        &mut self,
        token: Token,
        request: GroupRequest,
        now: Timestamp,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        self.handle(token, request, now, out);
    }

    fn on_committed(&mut self, seq: Seq, now: Timestamp, out: &mut Vec<EffectOf<Self>>) {
        self.on_committed(seq, now, out);
    }

    fn on_refused(
        &mut self,
        seq: Seq,
        code: ErrorCode,
        now: Timestamp,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        self.on_refused(seq, code, now, out);
    }

    fn on_time(&mut self, now: Timestamp, out: &mut Vec<EffectOf<Self>>) {
        self.on_time(now, out);
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        self.next_deadline()
    }

    fn cancel(&mut self, token: Token) {
        self.cancel(token);
    }
}
