//! Appending and proposing: everything that raft could refuse is checked before a byte is written,
//! because raft has no un-append. A failed write leaves a burnt position, which is sealed off.

use bytes::Bytes;
use vltava_protocol::ids::{LeaderEpoch, Offset, Timestamp};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::control::{InternalBatch, InternalKind};
use vltava_storage::bugs::{Bug, planted};
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::{AppendError, PartitionLog};
use vltava_storage::producers::{Admission, ProducerError};

use super::{Output, Replica, State, epoch};
use crate::replica::group::ProposeRefused;
use crate::replica::membership::MembershipStep;

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendRefused {
    /// The group takes no proposals here.
    #[error(transparent)]
    Propose(#[from] ProposeRefused),
    /// The batch does not follow what its producer wrote before.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// The log could not be written. Raft is untouched.
    #[error(transparent)]
    Log(#[from] AppendError),
    /// An earlier write failed, and its position is not sealed off yet.
    #[error("the log waits for a new segment after a failed write")]
    Burnt,
    /// The replica is fenced, or begins again.
    #[error("the replica is not in service")]
    NotServing,
}

/// A batch in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Its index: committed when the group's commit index reaches it.
    pub index: LogIndex,
    /// The epoch that proposed it.
    pub epoch: LeaderEpoch,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The broker's time in it, if the topic stamps one.
    pub timestamp: Timestamp,
    /// It was there already: a retry.
    pub is_duplicate: bool,
}

impl Replica {
    /// Appends a client's batch: checks every cause of a refusal, writes at the unpublished tail,
    /// then steps raft. On an error nothing is in the log and raft is untouched.
    pub fn append(
        &mut self,
        batch: &Bytes,
        header: &BatchHeader,
        now: Timestamp,
        output: &mut Output,
    ) -> Result<Placed, AppendRefused> {
        let epoch = self.check_append()?;
        let log = self.log_mut();
        match log.check_producer(header, now)? {
            Admission::Append => {}
            Admission::Duplicate { base_offset, timestamp, .. } => {
                let index = log.index_at(base_offset).unwrap_or(LogIndex(0));
                let original = log.epoch_at(index).unwrap_or(epoch);
                return Ok(Placed {
                    index: if planted(Bug::DuplicateAckedBeforeOriginal) {
                        LogIndex(0)
                    } else {
                        index
                    },
                    epoch: original,
                    base_offset,
                    timestamp,
                    is_duplicate: true,
                });
            }
        }
        let placed = Placed {
            index: log.last_index().next(),
            epoch,
            base_offset: log.end_offset(),
            timestamp: Timestamp::NONE,
            is_duplicate: false,
        };
        let written = log.write_ahead(epoch, batch, header, now);
        self.propose(written, output)?;
        Ok(placed)
    }

    /// Moves the log start to `offset`: a committed entry, so that deleted data stays deleted
    /// whoever leads next.
    pub fn propose_log_start(
        &mut self,
        offset: Offset,
        output: &mut Output,
    ) -> Result<Placed, AppendRefused> {
        let epoch = self.check_append()?;
        let log = self.log_mut();
        let placed = Placed {
            index: log.last_index().next(),
            epoch,
            base_offset: log.end_offset(),
            timestamp: Timestamp::NONE,
            is_duplicate: false,
        };
        let body = InternalBatch::log_start_body(offset);
        let written = log.write_ahead_internal(epoch, InternalKind::LogStart, &body);
        self.propose(written, output)?;
        Ok(placed)
    }

    /// Proposes a change of membership.
    pub fn propose_membership(
        &mut self,
        step: &MembershipStep,
        output: &mut Output,
    ) -> Result<(), AppendRefused> {
        self.check_append()?;
        if let MembershipStep::Transfer(heir) = step {
            self.transfer_to(*heir, output);
            return Ok(());
        }
        let mut result = Ok(());
        self.guarded(output, |replica, _| result = replica.active().propose_membership(step));
        Ok(result?)
    }

    /// Hands leadership over.
    pub fn transfer_to(&mut self, target: ReplicaId, output: &mut Output) {
        self.guarded(output, |replica, _| replica.active().transfer_to(target));
    }

    pub(super) fn check_append(&self) -> Result<LeaderEpoch, AppendRefused> {
        let group = self.group().ok_or(AppendRefused::NotServing)?;
        group.check_propose()?;
        if self.queue.is_poisoned() {
            return Err(AppendRefused::NotServing);
        }
        if group.log().is_burnt() && !planted(Bug::AttemptedPositionReused) {
            return Err(AppendRefused::Burnt);
        }
        Ok(epoch(group.term()))
    }

    pub(super) fn propose(
        &mut self,
        written: Result<Bytes, AppendError>,
        output: &mut Output,
    ) -> Result<(), AppendRefused> {
        match written {
            Ok(batch) => {
                self.guarded(output, |replica, _| replica.active().propose_written(vec![batch]));
                match self.state {
                    State::Active(_) => Ok(()),
                    _ => Err(AppendRefused::NotServing),
                }
            }
            Err(error) => {
                self.seal_burnt_position();
                Err(error.into())
            }
        }
    }

    /// After a failed write: begins the segment that makes the attempt invalid for ever.
    pub(super) fn seal_burnt_position(&mut self) {
        if self.unburn_ticket.is_some() || !self.log().is_some_and(PartitionLog::is_burnt) {
            return;
        }
        match self.log_mut().unburn() {
            Ok(()) => {
                let items = self.log_mut().take_flush_items();
                self.unburn_ticket = Some(self.push(items));
            }
            Err(error) => {
                tracing::warn!(replica = %self.id, %error, "cannot begin a segment yet");
            }
        }
    }
}
