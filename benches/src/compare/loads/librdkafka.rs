//! librdkafka, the client behind most languages, in this process. Every record begins with its
//! number; the sum of all numbers is what proves that none is missing or doubled.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use super::exchange::Run;
use crate::error::{BenchError, foreign};

/// Longest wait for anything to move.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long a full queue is waited for before it is tried again.
const ROOM_AFTER: Duration = Duration::from_millis(5);
/// Records between two looks at what was delivered.
const SERVE_EVERY: u64 = 1000;

/// Keeps the first failure of a delivery.
#[derive(Default)]
struct Deliveries(Mutex<Option<String>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut first = self.0.lock().expect("nobody panics while holding this");
            first.get_or_insert_with(|| error.to_string());
        }
    }
}

/// Produces records with keys; the sum of their numbers.
pub(super) fn produce(run: &Run<'_>) -> Result<u64, BenchError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", run.target.bootstrap());
    for (key, value) in run.exchange.settings() {
        config.set(key, value);
    }
    let failed = foreign::<KafkaError>;
    let producer: BaseProducer<Deliveries> =
        config.create_with_context(Deliveries::default()).map_err(failed("creating a producer"))?;
    let mut value: Vec<u8> =
        (0..run.exchange.record_bytes).map(|i| b'a' + (i % 26) as u8).collect();
    let mut sum = 0;
    for number in 0..run.records {
        let key = number.to_be_bytes();
        value[..key.len()].copy_from_slice(&key);
        let mut record = BaseRecord::to(run.topic).key(&key[..]).payload(&value[..]);
        while let Err((error, refused)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(failed("producing")(error));
            }
            // It returns at the first delivery, but may have slept through it.
            producer.poll(ROOM_AFTER);
            record = refused;
        }
        if number % SERVE_EVERY == 0 {
            producer.poll(Duration::ZERO);
        }
        sum += number;
    }
    producer.flush(PATIENCE).map_err(failed("flushing"))?;
    let first = producer.context().0.lock().expect("nobody panics while holding this").take();
    match first {
        Some(said) => Err(BenchError::Foreign { what: "a delivery".to_owned(), said }),
        None => Ok(sum),
    }
}

/// Consumes as many records from the beginning; the sum of their numbers.
pub(super) fn consume(run: &Run<'_>) -> Result<u64, BenchError> {
    let failed = foreign::<KafkaError>;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", run.target.bootstrap())
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .create()
        .map_err(failed("creating a consumer"))?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..run.exchange.partitions {
        assignment
            .add_partition_offset(run.topic, partition, Offset::Beginning)
            .map_err(failed("assigning"))?;
    }
    consumer.assign(&assignment).map_err(failed("assigning"))?;
    let (mut sum, mut end) = (0_u64, Instant::now() + PATIENCE);
    for _ in 0..run.records {
        let message = loop {
            match consumer.poll(Duration::from_secs(1)) {
                Some(Ok(message)) => break message,
                Some(Err(error)) => return Err(failed("consuming")(error)),
                None if Instant::now() > end => return Err(BenchError::TooLong("consuming")),
                None => {}
            }
        };
        if message.offset() % 1000 == 0 {
            end = Instant::now() + PATIENCE;
        }
        let number = message.payload().and_then(|value| value.first_chunk().copied());
        sum = sum.wrapping_add(u64::from_be_bytes(number.unwrap_or_default()));
    }
    Ok(sum)
}
