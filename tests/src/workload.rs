//! Simulated clients: idempotent producers that retry as real ones do, and what they were told.
//!
//! A producer has at most [`WINDOW`] batches that are not acknowledged, sends them in order, and
//! after an error, a time-out or a change of leader sends all of them again, in order. So whatever
//! happens to the cluster, an `acks=all` producer is never entitled to see its sequence refused.

use std::collections::VecDeque;

use bytes::Bytes;
use vltava_protocol::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use vltava_protocol::record::batch::{Attributes, BatchHeader};
use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::compression::Codec;
use vltava_storage::ids::ReplicaId;

use crate::cluster::GroupId;
use crate::network::Time;

/// Batches of one producer on their way: what a broker can recognize as duplicates.
pub const WINDOW: usize = 5;
/// After this long without an answer a batch is sent again.
pub const RETRY_AFTER: Time = 30_000;

/// When a producer is content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    /// The leader wrote it.
    Leader,
    /// It is committed.
    All,
}

/// A batch and what became of it.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The first sequence.
    pub sequence: i32,
    /// As the producer sends it.
    pub batch: Bytes,
    /// Its header.
    pub header: BatchHeader,
    /// Which leader took it, and when.
    pub sent: Option<(ReplicaId, LeaderEpoch, Time)>,
}

/// Who waits for a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// Which producer.
    pub producer: usize,
    /// Its id then: a token of an earlier incarnation is void.
    pub id: ProducerId,
    /// Which batch.
    pub sequence: i32,
    /// The offset that it was promised.
    pub base_offset: Offset,
}

/// One producer of one partition.
#[derive(Debug)]
pub struct Producer {
    /// Where it writes.
    pub group: GroupId,
    /// When it is content.
    pub acks: Acks,
    /// Its present id.
    pub id: ProducerId,
    next_sequence: i32,
    /// Not acknowledged, oldest first.
    pub waiting: VecDeque<Outgoing>,
    /// Acknowledged ones that a broker must still recognize, with their offsets.
    pub recent: VecDeque<(Outgoing, Offset)>,
}

impl Producer {
    /// A producer that has written nothing.
    pub fn new(group: GroupId, acks: Acks, id: ProducerId) -> Self {
        let (waiting, recent) = (VecDeque::new(), VecDeque::new());
        Self { group, acks, id, next_sequence: 0, waiting, recent }
    }

    /// Makes a batch of `records` records of `value_bytes` each, if the window has room.
    pub fn produce(&mut self, records: i32, value_bytes: usize, now: Time) -> bool {
        if self.waiting.len() >= WINDOW {
            return false;
        }
        let sequence = self.next_sequence;
        self.next_sequence += records;
        self.waiting.push_back(outgoing(self.id, sequence, records, value_bytes, now));
        true
    }

    /// Begins again under another id: its sequence was refused, as it may be where data was lost.
    /// Every batch that waits is numbered anew.
    pub fn begin_again(&mut self, id: ProducerId, now: Time) {
        self.id = id;
        self.next_sequence = 0;
        self.recent.clear();
        let sizes: Vec<_> = self
            .waiting
            .drain(..)
            .map(|old| {
                (old.header.record_count, old.batch.len() / old.header.record_count as usize)
            })
            .collect();
        for (records, bytes) in sizes {
            let sequence = self.next_sequence;
            self.next_sequence += records;
            self.waiting.push_back(outgoing(id, sequence, records, bytes.min(256), now));
        }
    }

    /// Whether a batch may be sent to this leader now, without sending all earlier ones first.
    pub fn follows(&self, at: usize, leader: (ReplicaId, LeaderEpoch)) -> bool {
        self.waiting.iter().take(at).all(|earlier| {
            earlier.sent.is_some_and(|(replica, epoch, _)| (replica, epoch) == leader)
        })
    }

    /// The oldest batch waits for too long.
    pub fn is_overdue(&self, now: Time) -> bool {
        let oldest = self.waiting.front().and_then(|oldest| oldest.sent);
        oldest.is_some_and(|(_, _, at)| now >= at + RETRY_AFTER)
    }

    /// All that wait are to be sent again.
    pub fn resend_all(&mut self) {
        for outgoing in &mut self.waiting {
            outgoing.sent = None;
        }
    }

    /// The batch of `token` is acknowledged, and with it, since batches of a producer commit in
    /// order, nothing else: each has an answer of its own. Gives the batch back once.
    pub fn acknowledged(&mut self, token: Token) -> Option<Outgoing> {
        if token.id != self.id {
            return None;
        }
        let at = self.waiting.iter().position(|waits| waits.sequence == token.sequence)?;
        let outgoing = self.waiting.remove(at)?;
        self.recent.push_back((outgoing.clone(), token.base_offset));
        if self.recent.len() > WINDOW {
            self.recent.pop_front();
        }
        Some(outgoing)
    }
}

fn outgoing(
    id: ProducerId,
    sequence: i32,
    records: i32,
    value_bytes: usize,
    now: Time,
) -> Outgoing {
    let mut builder = BatchBuilder::new(Codec::None, None);
    let value: Vec<u8> =
        (0..value_bytes).map(|at| (at as u64 ^ id.0 as u64 ^ sequence as u64) as u8).collect();
    for record in 0..records {
        let key = format!("{id}/{}", sequence + record);
        let timestamp = Timestamp((now / 1000) as i64);
        builder.append(timestamp, Some(key.as_bytes()), Some(&value), &[]);
    }
    let fields = BatchFields {
        attributes: Attributes::default(),
        producer_id: id,
        producer_epoch: ProducerEpoch(0),
        base_sequence: Sequence(sequence),
        ..BatchFields::default()
    };
    let batch = builder.build(&fields).expect("nothing is compressed");
    let header = BatchHeader::parse(&batch).expect("the builder makes whole batches");
    Outgoing { sequence, batch, header, sent: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_sent_in_order_to_one_leader_at_a_time() {
        let mut producer = Producer::new(0, Acks::All, ProducerId(1));
        for _ in 0..WINDOW {
            assert!(producer.produce(2, 10, 0));
        }
        assert!(!producer.produce(1, 10, 0));
        let sequences: Vec<_> = producer.waiting.iter().map(|waits| waits.sequence).collect();
        assert_eq!(sequences, [0, 2, 4, 6, 8]);
        let leader = (ReplicaId(1), LeaderEpoch(2));
        assert!(producer.follows(0, leader) && !producer.follows(1, leader));
        producer.waiting[0].sent = Some((leader.0, leader.1, 7));
        assert!(producer.follows(1, leader));
        assert!(!producer.follows(1, (ReplicaId(1), LeaderEpoch(3))));
        assert!(!producer.is_overdue(RETRY_AFTER) && producer.is_overdue(RETRY_AFTER + 7));
        let token = Token { producer: 0, id: ProducerId(1), sequence: 0, base_offset: Offset(4) };
        assert!(producer.acknowledged(token).is_some());
        assert!(producer.acknowledged(token).is_none());
        producer.begin_again(ProducerId(2), 0);
        let sequences: Vec<_> = producer.waiting.iter().map(|waits| waits.sequence).collect();
        assert_eq!(sequences, [0, 2, 4, 6]);
    }
}
