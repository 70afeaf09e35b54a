//! The partition's log as the `raft` crate's storage: six questions, all answered from memory.
//!
//! **Invariant:** a question asked under the partition's lock never touches a cold page. Raft needs
//! payloads only to send them, so everywhere else entries are returned without; and a follower that
//! is far behind is served only after its range was fetched outside the lock
//! ([`LogStore::take_fetches`]).

use std::cell::{Cell, RefCell};
use std::ops::{Range, RangeInclusive};

use bytes::Bytes;
use raft::prelude::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::control::{InternalBatch, InternalKind};
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::{PartitionLog, ReadError};
use vltava_storage::state::Membership;

/// Entries without payload handed to raft at once; it asks again for the rest.
const COMMITTED_ENTRIES_MAX: u64 = 4096;

/// A [`PartitionLog`] behind raft's [`Storage`] trait.
pub(super) struct LogStore {
    pub(super) log: PartitionLog,
    /// Requests for entries that are not in the page cache for sure.
    fetches: RefCell<Vec<(Range<LogIndex>, GetEntriesContext)>>,
    /// Entries from here on may be read: somebody has just fetched them.
    fetched_from: Cell<Option<LogIndex>>,
    /// The first thing that was read and is not what was written.
    damage: RefCell<Option<String>>,
}

impl LogStore {
    pub(super) fn new(log: PartitionLog) -> Self {
        let (fetches, damage) = (RefCell::default(), RefCell::default());
        Self { log, fetches, fetched_from: Cell::new(None), damage }
    }

    /// What was read and is not what was written: a replica that has it can no longer be trusted.
    pub(super) fn take_damage(&self) -> Option<String> {
        self.damage.take()
    }

    /// Raft reports a failed read as "ask again": the follower is served once the disk answers.
    fn unavailable(&self, error: &ReadError) -> Error {
        tracing::warn!(%error, "cannot read entries to replicate");
        if matches!(error, ReadError::Damaged { .. }) {
            self.damage.borrow_mut().get_or_insert_with(|| error.to_string());
        }
        Error::Store(StorageError::LogTemporarilyUnavailable)
    }

    /// The ranges that raft wants to send and that must be read outside the lock first.
    pub(super) fn take_fetches(&self) -> Vec<(Range<LogIndex>, GetEntriesContext)> {
        self.fetches.take()
    }

    /// Allows reading from `from` on, during the next call of `on_entries_fetched`.
    pub(super) fn set_fetched(&self, from: Option<LogIndex>) {
        self.fetched_from.set(from);
    }

    /// Entries without payload, but for those that raft or we act on when they commit.
    fn stubs(&self, low: u64, high: u64) -> raft::Result<Vec<Entry>> {
        (low..high)
            .map(|index| {
                let mut entry = Entry { index, term: self.term(index)?, ..Entry::default() };
                match self.log.internal_at(LogIndex(index)) {
                    None | Some(InternalKind::Noop) => {}
                    Some(_) => self.fill_internal(&mut entry)?,
                }
                Ok(entry)
            })
            .collect()
    }

    /// Where changes of membership lie among `indexes`, the last one first.
    pub(super) fn last_changes(
        &self,
        indexes: RangeInclusive<u64>,
    ) -> impl Iterator<Item = LogIndex> {
        let indexes = indexes.rev().map(LogIndex);
        indexes.filter(|index| {
            let kind = self.log.internal_at(*index);
            matches!(kind, Some(InternalKind::ConfChange | InternalKind::ConfChangeV2))
        })
    }

    /// What the log itself proves to be committed. A leader proposes a change of membership only when
    /// it has applied the one before, so of several that were not applied here all but the last are
    /// committed; and what a lone voter holds is, up to the first that gives it company. A restart may
    /// have forgotten both, and must not ask for votes under a membership of the past.
    fn proven_commit(&self) -> LogIndex {
        let state = self.log.state();
        let applied = state.vote.commit;
        let mut changes = self.last_changes(applied.0 + 1..=self.log.last_index().0);
        let is_alone = state.memberships.last().is_some_and(|(_, members)| {
            members.voters == [self.log.replica()] && members.outgoing.is_empty()
        });
        let last = changes.next();
        let proven = changes.next().or(last.filter(|_| is_alone));
        proven.unwrap_or(applied).max(applied)
    }

    fn fill_internal(&self, entry: &mut Entry) -> raft::Result<()> {
        let index = LogIndex(entry.index);
        let batches = self.log.batches(index..index.next(), u64::MAX);
        let batches = batches.map_err(|error| self.unavailable(&error))?;
        let (_, _, batch) = batches.into_iter().next().ok_or_else(not_here)?;
        set_payload(entry, &batch);
        Ok(())
    }

    fn with_payload(&self, low: u64, high: u64, max_bytes: u64) -> raft::Result<Vec<Entry>> {
        let batches = self
            .log
            .batches(LogIndex(low)..LogIndex(high), max_bytes)
            .map_err(|error| self.unavailable(&error))?;
        Ok(batches
            .into_iter()
            .map(|(index, epoch, batch)| {
                let mut entry = Entry { index: index.0, term: term_of(epoch), ..Entry::default() };
                set_payload(&mut entry, &batch);
                entry
            })
            .collect())
    }
}

fn not_here() -> Error {
    Error::Store(StorageError::Unavailable)
}

/// A leader epoch is a Raft term; Kafka's type for it is signed and half as wide.
pub(super) fn term_of(epoch: vltava_protocol::ids::LeaderEpoch) -> u64 {
    u64::try_from(epoch.0).expect("epochs of a log are never negative")
}

/// Kind and body of a batch that spans no offset; `None` for one that holds records.
pub(super) fn internal(batch: &Bytes) -> Option<(InternalKind, Bytes)> {
    let header = BatchHeader::parse(batch).ok().filter(BatchHeader::is_internal)?;
    assert!(header.size() == batch.len(), "an entry is exactly one batch");
    InternalBatch::parse(batch).ok()
}

/// Fills in type and data of an entry from the batch that lies in the log. The inverse is
/// [`super::group`]'s conversion of an entry into a payload.
fn set_payload(entry: &mut Entry, batch: &Bytes) {
    let Some((kind, body)) = internal(batch) else {
        entry.data = batch.clone();
        return;
    };
    match kind {
        InternalKind::Noop => {}
        InternalKind::ConfChange => {
            entry.set_entry_type(EntryType::EntryConfChange);
            entry.data = body;
        }
        InternalKind::ConfChangeV2 => {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry.data = body;
        }
        InternalKind::LogStart | InternalKind::Fence => entry.data = batch.clone(),
    }
}

impl Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let state = self.log.state();
        let hard_state = HardState {
            term: state.vote.term,
            vote: state.vote.vote,
            commit: self.proven_commit().0,
            ..HardState::default()
        };
        let conf_state = state.memberships.last().map(|(_, m)| conf_state(m)).unwrap_or_default();
        Ok(RaftState { hard_state, conf_state })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let max_size = max_size.into();
        if low < self.log.first_index().0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.log.last_index().0 + 1, "raft asks for entries past the log's end");
        if !context.can_async() {
            // A limit means that raft will ask again; without one it must see every entry.
            let high = match max_size {
                Some(limit) if limit != raft::NO_LIMIT => high.min(low + COMMITTED_ENTRIES_MAX),
                _ => high,
            };
            return self.stubs(low, high);
        }
        let resident = self.log.is_resident(LogIndex(low))
            || self.fetched_from.get().is_some_and(|from| from.0 <= low);
        if !resident {
            self.fetches.borrow_mut().push((LogIndex(low)..LogIndex(high), context));
            return Err(Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        self.with_payload(low, high, max_size.unwrap_or(u64::MAX))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.log.epoch_at(LogIndex(index)) {
            Some(epoch) => Ok(term_of(epoch)),
            None if index < self.log.first_index().0 => Err(Error::Store(StorageError::Compacted)),
            None => Err(not_here()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.first_index().0)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log.last_index().0)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // Raft may know of a newer commit than was applied: what it changes is not in the row yet.
        let applied = self.log.state().vote.commit;
        if applied.0 < request_index || applied.0 == 0 {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let manifest = self.log.manifest(applied).map_err(|error| {
            tracing::warn!(%error, "cannot describe the log for a snapshot");
            Error::Store(StorageError::SnapshotTemporarilyUnavailable)
        })?;
        let membership = self.log.membership_at(manifest.index).cloned().unwrap_or_default();
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = manifest.index.0;
        metadata.term = term_of(manifest.epoch);
        metadata.set_conf_state(conf_state(&membership));
        snapshot.data = manifest.encode();
        Ok(snapshot)
    }
}

/// Our membership as raft's.
pub(super) fn conf_state(membership: &Membership) -> ConfState {
    let ids = |replicas: &[ReplicaId]| replicas.iter().map(|id| id.0).collect();
    ConfState {
        voters: ids(&membership.voters),
        voters_outgoing: ids(&membership.outgoing),
        learners: ids(&membership.learners),
        learners_next: ids(&membership.learners_next),
        auto_leave: membership.auto_leave,
        ..ConfState::default()
    }
}

/// Raft's membership as ours, in a fixed order, so that equal memberships are equal bytes.
pub(super) fn membership(state: &ConfState) -> Membership {
    let ids = |replicas: &[u64]| {
        let mut ids: Vec<_> = replicas.iter().copied().map(ReplicaId).collect();
        ids.sort_unstable();
        ids
    };
    Membership {
        voters: ids(&state.voters),
        outgoing: ids(&state.voters_outgoing),
        learners: ids(&state.learners),
        learners_next: ids(&state.learners_next),
        auto_leave: state.auto_leave,
    }
}
