//! Idempotent producers: what is appended once, what is refused, and with which code.

use vltava_tests::harness::{Broker, RawBatch, RawClient, Tested, now_ms, requests};

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("producer_ids_are_unique", producer_ids_are_unique),
    ("sequence_gap_is_45", sequence_gap_is_45),
    ("duplicate_gets_the_original_offset", duplicate_gets_the_original_offset),
    ("five_batches_are_remembered", five_batches_are_remembered),
    ("overlapping_batch_is_45", overlapping_batch_is_45),
    ("old_epoch_is_47", old_epoch_is_47),
    ("new_epoch_starts_at_zero", new_epoch_starts_at_zero),
    ("sequence_wraps", sequence_wraps),
    ("negative_sequence_is_87", negative_sequence_is_87),
    ("any_first_sequence_is_taken", any_first_sequence_is_taken),
];

/// An idempotent producer with its connection and its topic.
struct Producer {
    client: RawClient,
    topic: String,
    id: i64,
    epoch: i16,
}

impl Producer {
    fn new(broker: &Broker, prefix: &str) -> Tested<Producer> {
        let mut client = RawClient::connect(broker.bootstrap())?;
        let topic = requests::create_topic(&mut client, prefix, 1, &[])?;
        let (id, epoch) = requests::init_producer(&mut client)?;
        Ok(Producer { client, topic, id, epoch })
    }

    /// Sends `count` records from `sequence` on; gives (error code, base offset).
    fn send(&mut self, sequence: i32, count: i32) -> Tested<(i16, i64)> {
        let batch = RawBatch::of(count, now_ms()).producer(self.id, self.epoch, sequence);
        let answer = requests::produce(&mut self.client, &self.topic, batch.encode())?;
        Ok((answer.error_code, answer.base_offset))
    }

    fn end_offset(&mut self) -> Tested<i64> {
        Ok(requests::list_offsets(&mut self.client, 7, &self.topic, -1)?.offset)
    }
}

fn producer_ids_are_unique(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let (id, epoch) = requests::init_producer(&mut client)?;
        assert!(id >= 0);
        assert_eq!(epoch, 0);
        ids.push(id);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
    Ok(())
}

fn sequence_gap_is_45(broker: &Broker) -> Tested {
    let mut producer = Producer::new(broker, "gap")?;
    assert_eq!(producer.send(0, 3)?, (0, 0));
    assert_eq!(producer.send(5, 1)?, (45, -1));
    assert_eq!(producer.send(3, 2)?, (0, 3));
    assert_eq!(producer.end_offset()?, 5);
    Ok(())
}

fn duplicate_gets_the_original_offset(broker: &Broker) -> Tested {
    let mut producer = Producer::new(broker, "duplicate")?;
    assert_eq!(producer.send(0, 3)?, (0, 0));
    assert_eq!(producer.send(3, 3)?, (0, 3));
    assert_eq!(producer.send(0, 3)?, (0, 0));
    assert_eq!(producer.send(3, 3)?, (0, 3));
    assert_eq!(producer.end_offset()?, 6);
    Ok(())
}

fn five_batches_are_remembered(broker: &Broker) -> Tested {
    let mut producer = Producer::new(broker, "five")?;
    for sequence in 0..6 {
        assert_eq!(producer.send(sequence, 1)?, (0, i64::from(sequence)));
    }
    for sequence in 1..6 {
        assert_eq!(producer.send(sequence, 1)?, (0, i64::from(sequence)), "still remembered");
    }
    assert_eq!(producer.send(0, 1)?, (45, -1), "the sixth last is forgotten");
    assert_eq!(producer.end_offset()?, 6);
    Ok(())
}

fn overlapping_batch_is_45(broker: &Broker) -> Tested {
    let mut producer = Producer::new(broker, "overlap")?;
    assert_eq!(producer.send(0, 3)?, (0, 0));
    assert_eq!(producer.send(0, 4)?, (45, -1), "not the same batch");
    assert_eq!(producer.send(2, 2)?, (45, -1));
    assert_eq!(producer.end_offset()?, 3);
    Ok(())
}

fn old_epoch_is_47(broker: &Broker) -> Tested {
    let mut producer = Producer::new(broker, "epoch")?;
    assert_eq!(producer.send(0, 1)?, (0, 0));
    producer.epoch = 1;
    assert_eq!(producer.send(0, 1)?, (0, 1));
    producer.epoch = 0;
    assert_eq!(producer.send(1, 1)?, (47, -1));
    assert_eq!(producer.send(0, 1)?.0, 47, "no duplicate across epochs");
    assert_eq!(producer.end_offset()?, 2);
    Ok(())
}

fn new_epoch_starts_at_zero(broker: &Broker) -> Tested {
    let mut producer = Producer::new(broker, "new-epoch")?;
    assert_eq!(producer.send(0, 1)?, (0, 0));
    producer.epoch = 1;
    assert_eq!(producer.send(1, 1)?, (45, -1));
    assert_eq!(producer.send(0, 1)?, (0, 1));
    Ok(())
}

fn sequence_wraps(broker: &Broker) -> Tested {
    let mut producer = Producer::new(broker, "wrap")?;
    assert_eq!(producer.send(i32::MAX - 1, 4)?, (0, 0), "MAX − 1, MAX, 0, 1");
    assert_eq!(producer.send(3, 1)?, (45, -1));
    assert_eq!(producer.send(2, 1)?, (0, 4));
    assert_eq!(producer.send(i32::MAX - 1, 4)?, (0, 0), "the wrapped batch is a duplicate");
    Ok(())
}

fn negative_sequence_is_87(broker: &Broker) -> Tested {
    let mut producer = Producer::new(broker, "negative")?;
    assert_eq!(producer.send(-1, 1)?, (87, -1));
    assert_eq!(producer.send(-7, 1)?, (87, -1));
    assert_eq!(producer.end_offset()?, 0);
    Ok(())
}

fn any_first_sequence_is_taken(broker: &Broker) -> Tested {
    let mut producer = Producer::new(broker, "first")?;
    assert_eq!(producer.send(1_000, 2)?, (0, 0));
    assert_eq!(producer.send(1_002, 2)?, (0, 2));
    Ok(())
}
