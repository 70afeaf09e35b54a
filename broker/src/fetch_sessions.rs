//! Incremental fetch sessions (KIP-227): what a consumer asked for, remembered between its fetches.
//!
//! A session holds the ordered list of a client's partitions and, of each, the high watermark and
//! log start offset last sent, so that a request names only what changed and a response only what
//! is new. Rules are those of Kafka's `FetchManager`, `FetchSession` and `FetchSessionCache`:
//!
//! ```text
//! (id, epoch)      (0, -1) sessionless · (0, 0) create · (id, 0) close it, create another
//!                  (id, -1) close it, sessionless · (id, n) incremental: n must be the next epoch
//! response         a partition is left out unless it has records, an error, a diverging epoch,
//!                  or its high watermark or log start offset moved; an error forgets the watermark
//! fairness         a partition that gave records moves to the end of the session's order
//! ```
//!
//! The cache is a bounded courtesy, in sessions and in partitions of all sessions together: when no
//! room can be had the answer carries session id 0 and the client goes on with full requests; a
//! session that outgrows the room ends. No lock of the cache is held while a session is walked.
//! Nothing here survives a restart; clients learn of it by `FETCH_SESSION_ID_NOT_FOUND` and begin
//! again. The state is passive: `now` is an argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{
    LeaderEpoch, Offset, PartitionIndex, TOPIC_NAME_BYTES_MAX, Timestamp, TopicId, TopicName,
};

/// A session idle for longer gives its slot to any newcomer, and one older than this to a larger
/// newcomer (Kafka's fixed eviction time).
pub const EVICTION_MS: i64 = 120_000;

/// Most partitions that all sessions of a broker hold together, about 300 bytes each. Kafka bounds
/// the sessions alone, which a client may fill with partitions that do not exist.
pub const PARTITIONS_MAX: usize = 200_000;

/// Session id of "no session".
pub const SESSION_NONE: i32 = 0;
/// Session epoch that asks for a new session.
pub const EPOCH_INITIAL: i32 = 0;
/// Session epoch that asks for none, and ends the one it names.
pub const EPOCH_FINAL: i32 = -1;

/// A partition as the request names it: by topic name before version 13, by topic id from then on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionKey {
    /// The topic.
    pub topic: TopicKey,
    /// The partition within it.
    pub partition: PartitionIndex,
}

/// A topic as the request names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// Fetch versions 4 to 12.
    Name(TopicName),
    /// Fetch versions from 13.
    Id(TopicId),
}

/// What a client wants from one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionFetch {
    /// Which partition.
    pub key: PartitionKey,
    /// First offset wanted.
    pub fetch_offset: Offset,
    /// The leader epoch the client believes in; `NONE` skips the check.
    pub current_leader_epoch: LeaderEpoch,
    /// The epoch of the last record the client has (version 12 on); `NONE` skips the check.
    pub last_fetched_epoch: LeaderEpoch,
    /// Most bytes wanted, though the first batch of a response may be larger.
    pub max_bytes: i32,
}

/// What became of one partition of a fetch; decides whether an incremental response names it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Record bytes in the response.
    pub record_bytes: usize,
    /// The high watermark in the response, `NONE` with an error.
    pub high_watermark: Offset,
    /// The log start offset in the response, `NONE` with an error.
    pub log_start_offset: Offset,
    /// An error or a diverging epoch: always told.
    pub must_tell: MustTell,
}

/// Why a partition is told whether or not it moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MustTell {
    /// It is not.
    No,
    /// It diverged from the client's epoch.
    Diverging,
    /// It failed; the cached high watermark is forgotten, so that recovery is told as well.
    Error,
}

/// The sessions of one broker.
#[derive(Debug)]
pub struct FetchSessions {
    slots: usize,
    partitions_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    slots: HashMap<i32, Slot>,
    /// The sum of the slots' sizes.
    partitions: usize,
    ids: u64,
}

/// Lives in the table, so that eviction looks at no session's lock.
#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<Session>>,
    created: Timestamp,
    last_used: Timestamp,
    size: usize,
}

#[derive(Debug)]
struct Session {
    /// The epoch the next incremental request must carry.
    epoch: i32,
    uses_topic_ids: bool,
    order: BTreeMap<u64, Cached>,
    places: HashMap<PartitionKey, u64>,
    next_place: u64,
}

#[derive(Debug)]
struct Cached {
    fetch: PartitionFetch,
    high_watermark: Offset,
    log_start_offset: Offset,
}

/// One request's view of its session: the partitions to serve, in order, and what to do after.
#[derive(Debug)]
pub struct FetchContext {
    kind: Kind,
    partitions: Vec<PartitionFetch>,
}

#[derive(Debug)]
enum Kind {
    Sessionless,
    /// A full request that would like a session.
    Full {
        uses_topic_ids: bool,
    },
    Incremental {
        id: i32,
        /// The session's epoch while this request is the newest one.
        epoch: i32,
        session: Arc<Mutex<Session>>,
    },
}

/// How a response names its session and which partitions it holds.
#[derive(Debug, PartialEq, Eq)]
pub struct FetchAnswer {
    /// Session id of the response; [`SESSION_NONE`] when there is none.
    pub session_id: i32,
    /// One flag per partition of the context, in order: whether the response names it.
    pub told: Vec<bool>,
}

impl FetchSessions {
    /// A cache of `slots` sessions (`max.incremental.fetch.session.cache.slots`); `seed` spreads
    /// session ids, so that a client of a former process does not meet another's session.
    pub fn new(slots: usize, seed: u64) -> Self {
        Self::bounded(slots, PARTITIONS_MAX, seed)
    }

    fn bounded(slots: usize, partitions_max: usize, seed: u64) -> Self {
        let table = Table { slots: HashMap::new(), partitions: 0, ids: seed };
        Self { slots, partitions_max, table: Mutex::new(table) }
    }

    /// Opens the context of a request: its session's partitions, updated by what the request names
    /// (`FetchManager.newContext`). Refused with the top-level code that the response then carries.
    pub fn open(
        &self,
        now: Timestamp,
        (session_id, session_epoch): (i32, i32),
        uses_topic_ids: bool,
        named: Vec<PartitionFetch>,
        forgotten: &[PartitionKey],
    ) -> Result<FetchContext, ErrorCode> {
        if session_epoch == EPOCH_INITIAL || session_epoch == EPOCH_FINAL {
            let ended = self.table.lock().remove(session_id);
            drop(ended);
            let kind = if session_epoch == EPOCH_FINAL {
                Kind::Sessionless
            } else {
                Kind::Full { uses_topic_ids }
            };
            return Ok(FetchContext { kind, partitions: distinct(named) });
        }
        let found = self.table.lock().slots.get(&session_id).map(|slot| Arc::clone(&slot.session));
        let shared = found.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let mut session = shared.lock();
        if session.epoch != session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != uses_topic_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let before = session.order.len();
        let can_be_kept = named.iter().all(is_keepable);
        if can_be_kept {
            for fetch in named {
                session.upsert(fetch);
            }
        }
        for key in forgotten {
            session.forget(key);
        }
        session.epoch = next_epoch(session.epoch);
        let (epoch, size) = (session.epoch, session.order.len());
        let partitions: Vec<_> =
            session.order.values().map(|cached| cached.fetch.clone()).collect();
        drop(session);
        // One that does not grow keeps what it has.
        let most = if size > before { self.partitions_max } else { usize::MAX };
        if !can_be_kept || !self.table.lock().used(session_id, &shared, now, (size, most)) {
            let ended = self.table.lock().remove(session_id);
            drop(ended);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        if partitions.is_empty() {
            // Emptied by the client: the session ends here, as in Kafka.
            self.table.lock().remove(session_id);
            return Ok(FetchContext { kind: Kind::Sessionless, partitions });
        }
        Ok(FetchContext {
            kind: Kind::Incremental { id: session_id, epoch, session: shared },
            partitions,
        })
    }

    /// Sessions alive, for metrics.
    pub fn len(&self) -> usize {
        self.table.lock().slots.len()
    }

    /// Partitions of all sessions alive, for metrics.
    pub fn partitions(&self) -> usize {
        self.table.lock().partitions
    }

    /// Whether no session is alive.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a slot for a session, perhaps another's; `None` when there is no room
    /// (`FetchSessionCacheShard.maybeCreateSession`).
    fn create(&self, now: Timestamp, session: Session) -> Option<i32> {
        let size = session.order.len();
        let mut table = self.table.lock();
        // Dropped behind the lock: they may be large.
        let evicted = table.make_room(now, size, (self.slots, self.partitions_max))?;
        let id = table.fresh_id();
        let slot =
            Slot { session: Arc::new(Mutex::new(session)), created: now, last_used: now, size };
        table.slots.insert(id, slot);
        table.partitions += size;
        assert!(table.slots.len() <= self.slots, "sessions stay within their slots");
        assert!(table.partitions <= self.partitions_max, "and their partitions within theirs");
        drop(table);
        drop(evicted);
        Some(id)
    }
}

impl Table {
    /// Ends a session; the caller drops it once the table is free again.
    fn remove(&mut self, id: i32) -> Option<Slot> {
        let slot = self.slots.remove(&id)?;
        self.partitions -= slot.size;
        Some(slot)
    }

    /// Notes a use; `false` when the session has grown beyond the room there is. A session that was
    /// evicted meanwhile serves this request and is not found by the next.
    fn used(
        &mut self,
        id: i32,
        session: &Arc<Mutex<Session>>,
        now: Timestamp,
        (size, partitions_max): (usize, usize),
    ) -> bool {
        let Some(slot) = self.slots.get_mut(&id) else { return true };
        if !Arc::ptr_eq(&slot.session, session) {
            return true;
        }
        let partitions = self.partitions - slot.size + size;
        if partitions > partitions_max {
            return false;
        }
        self.partitions = partitions;
        slot.size = size;
        slot.last_used = now;
        true
    }

    /// Makes room for a session of `size` partitions and gives what it took it from: the most stale
    /// sessions first, then the smallest ones that are old enough and smaller
    /// (`FetchSessionCacheShard.tryEvict`, which takes one). Takes nothing when that is not enough.
    /// Looks at every slot only when there is no room.
    fn make_room(
        &mut self,
        now: Timestamp,
        size: usize,
        (slots_max, partitions_max): (usize, usize),
    ) -> Option<Vec<Slot>> {
        let fits = |count, partitions| count < slots_max && partitions + size <= partitions_max;
        let (mut count, mut partitions) = (self.slots.len(), self.partitions);
        if fits(count, partitions) {
            return Some(Vec::new());
        }
        let mut victims: Vec<_> = self
            .slots
            .iter()
            .filter_map(|(&id, slot)| {
                let is_stale = now.0 - slot.last_used.0 > EVICTION_MS;
                let gives_way = now.0 - slot.created.0 > EVICTION_MS && slot.size < size;
                let rank = if is_stale { (0, slot.last_used.0) } else { (1, slot.size as i64) };
                (is_stale || gives_way).then_some((rank, id, slot.size))
            })
            .collect();
        victims.sort_unstable();
        let mut taken = 0;
        while !fits(count, partitions) {
            let (_, _, size) = victims.get(taken)?;
            (count, partitions, taken) = (count - 1, partitions - size, taken + 1);
        }
        Some(victims[..taken].iter().filter_map(|&(_, id, _)| self.remove(id)).collect())
    }

    /// An id in `1..=i32::MAX` that no live session has. The slots are far fewer than the ids.
    fn fresh_id(&mut self) -> i32 {
        loop {
            let id = (split_mix(&mut self.ids) >> 33) as i32;
            if id != SESSION_NONE && !self.slots.contains_key(&id) {
                return id;
            }
        }
    }
}

impl Session {
    fn new(uses_topic_ids: bool) -> Self {
        Self {
            epoch: next_epoch(EPOCH_INITIAL),
            uses_topic_ids,
            order: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
        }
    }

    fn upsert(&mut self, fetch: PartitionFetch) {
        if let Some(place) = self.places.get(&fetch.key) {
            let cached = self.order.get_mut(place).expect("places and order name the same entries");
            cached.fetch = fetch;
            return;
        }
        self.push(Cached { fetch, high_watermark: Offset::NONE, log_start_offset: Offset::NONE });
    }

    fn forget(&mut self, key: &PartitionKey) {
        if let Some(place) = self.places.remove(key) {
            self.order.remove(&place);
        }
    }

    fn push(&mut self, cached: Cached) {
        self.places.insert(cached.fetch.key.clone(), self.next_place);
        self.order.insert(self.next_place, cached);
        self.next_place += 1;
    }

    /// Notes what a response says of one partition; whether an incremental one must name it
    /// (`CachedPartition.maybeUpdateResponseData`).
    fn note(&mut self, key: &PartitionKey, outcome: &Outcome) -> bool {
        let Some(&place) = self.places.get(key) else {
            return true; // forgotten by a newer request: the epoch check keeps that from happening
        };
        let cached = self.order.get_mut(&place).expect("places and order name the same entries");
        let moved = cached.high_watermark != outcome.high_watermark
            || cached.log_start_offset != outcome.log_start_offset;
        cached.high_watermark = match outcome.must_tell {
            MustTell::Error => Offset::NONE,
            MustTell::No | MustTell::Diverging => outcome.high_watermark,
        };
        cached.log_start_offset = outcome.log_start_offset;
        if outcome.record_bytes > 0 {
            let cached = self.order.remove(&place).expect("found above");
            self.push(cached);
        }
        moved || outcome.record_bytes > 0 || outcome.must_tell != MustTell::No
    }
}

impl FetchContext {
    /// The partitions to serve, in the order to serve them.
    pub fn partitions(&self) -> &[PartitionFetch] {
        &self.partitions
    }

    /// Ends the request: `outcomes` are those of [`Self::partitions`], in order. Creates the
    /// session a full request asked for. Refused when a newer request of the same session came
    /// meanwhile (`updateAndGenerateResponseData`).
    pub fn answer(
        self,
        sessions: &FetchSessions,
        now: Timestamp,
        outcomes: &[Outcome],
    ) -> Result<FetchAnswer, ErrorCode> {
        assert_eq!(self.partitions.len(), outcomes.len(), "every partition has its outcome");
        let everything = vec![true; outcomes.len()];
        match self.kind {
            Kind::Sessionless => Ok(FetchAnswer { session_id: SESSION_NONE, told: everything }),
            Kind::Full { uses_topic_ids } => {
                if !self.partitions.iter().all(is_keepable) {
                    return Ok(FetchAnswer { session_id: SESSION_NONE, told: everything });
                }
                let mut session = Session::new(uses_topic_ids);
                for (fetch, outcome) in self.partitions.into_iter().zip(outcomes) {
                    let high_watermark = match outcome.must_tell {
                        MustTell::Error => Offset::NONE,
                        MustTell::No | MustTell::Diverging => outcome.high_watermark,
                    };
                    let log_start_offset = outcome.log_start_offset;
                    session.push(Cached { fetch, high_watermark, log_start_offset });
                }
                let id =
                    if session.order.is_empty() { None } else { sessions.create(now, session) };
                Ok(FetchAnswer { session_id: id.unwrap_or(SESSION_NONE), told: everything })
            }
            Kind::Incremental { id, epoch, session } => {
                let mut session = session.lock();
                if session.epoch != epoch {
                    return Err(ErrorCode::InvalidFetchSessionEpoch);
                }
                let told = self
                    .partitions
                    .iter()
                    .zip(outcomes)
                    .map(|(fetch, outcome)| session.note(&fetch.key, outcome))
                    .collect();
                Ok(FetchAnswer { session_id: id, told })
            }
        }
    }
}

/// Whether a session may remember it: no topic has a longer name, and each costs the same.
fn is_keepable(fetch: &PartitionFetch) -> bool {
    match &fetch.key.topic {
        TopicKey::Name(name) => name.len() <= TOPIC_NAME_BYTES_MAX,
        TopicKey::Id(_) => true,
    }
}

/// A partition named twice counts once, with the last word at the first place, as in Kafka's
/// linked map.
fn distinct(named: Vec<PartitionFetch>) -> Vec<PartitionFetch> {
    let mut places: HashMap<PartitionKey, usize> = HashMap::with_capacity(named.len());
    let mut partitions: Vec<PartitionFetch> = Vec::with_capacity(named.len());
    for fetch in named {
        if let Some(&place) = places.get(&fetch.key) {
            partitions[place] = fetch;
        } else {
            places.insert(fetch.key.clone(), partitions.len());
            partitions.push(fetch);
        }
    }
    partitions
}

/// The epoch after `epoch`: counts up and wraps to 1, never to 0 (`FetchMetadata.nextEpoch`).
fn next_epoch(epoch: i32) -> i32 {
    if epoch < 0 {
        EPOCH_FINAL
    } else if epoch == i32::MAX {
        1
    } else {
        epoch + 1
    }
}

/// `SplitMix64`: a full-period sequence, so ids repeat only after 2^64 draws of the state.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
