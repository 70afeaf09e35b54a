//! Makes orders: some invalid, some sent twice, in bursts; the same ones for the same seed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vltava::client::{Outgoing, partition_of_key};
use vltava_protocol::ids::Timestamp;
use vltava_protocol::record::Codec;

/// What items are sorted by.
pub(crate) const CATEGORIES: [&str; 4] = ["books", "games", "music", "toys"];

/// Orders of one burst, at most.
const BURST_MAX: u64 = 1000;

/// What was sent so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// Orders, with those that were sent twice counted twice.
    pub(crate) orders: u64,
    /// Invalid ones among them.
    pub(crate) invalid: u64,
    /// Orders that were sent a second time.
    pub(crate) twice: u64,
    /// Items of the valid ones, by category.
    pub(crate) items: BTreeMap<String, i64>,
}

/// Orders that are sent at once.
pub(crate) struct Burst {
    /// The orders, by partition of their keys.
    pub(crate) orders: Vec<Outgoing>,
    /// How their batches are compressed.
    pub(crate) codec: Codec,
}

/// See the module.
pub(crate) struct Generator {
    rng: ChaCha8Rng,
    rate: u64,
    partitions: i32,
    next_id: u64,
    sent: Sent,
}

impl Generator {
    /// Orders of `seed`, so many a second on average.
    pub(crate) fn new(seed: u64, rate: u64, partitions: i32) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { rng, rate: rate.max(1), partitions, next_id: 0, sent: Sent::default() }
    }

    /// What was handed out so far.
    pub(crate) fn sent(&self) -> &Sent {
        &self.sent
    }

    /// When the next burst is due, from the start.
    pub(crate) fn due(&self) -> Duration {
        Duration::from_secs_f64(self.sent.orders as f64 / self.rate as f64)
    }

    /// The next orders.
    pub(crate) fn burst(&mut self) -> Burst {
        let most = (self.rate / 10).clamp(1, BURST_MAX);
        let count = self.rng.random_range(1..=most);
        let mut orders = Vec::new();
        for _ in 0..count {
            let (order, items) = self.order();
            let times = if self.rng.random_bool(0.01) { 2 } else { 1 };
            self.sent.twice += times - 1;
            for _ in 0..times {
                self.sent.orders += 1;
                self.sent.invalid += u64::from(items.is_none());
                for category in items.iter().flatten() {
                    *self.sent.items.entry((*category).to_owned()).or_default() += 1;
                }
                orders.push(order.clone());
            }
        }
        let codec = if self.rng.random_bool(0.5) { Codec::Lz4 } else { Codec::None };
        Burst { orders, codec }
    }

    /// An order, and the categories of its items if it is valid.
    fn order(&mut self) -> (Outgoing, Option<Vec<&'static str>>) {
        self.next_id += 1;
        let id = format!("order-{}", self.next_id);
        let mut categories = Vec::new();
        let mut items = String::new();
        for number in 0..self.rng.random_range(1..=4_u8) {
            let category = CATEGORIES[self.rng.random_range(0..CATEGORIES.len())];
            let (sku, quantity) = (self.rng.next_u32() % 10_000, self.rng.random_range(1..10_u8));
            let comma = if number == 0 { "" } else { "," };
            write!(
                items,
                r#"{comma}{{"sku":"sku-{sku}","quantity":{quantity},"category":"{category}"}}"#
            )
            .expect("a text takes all");
            categories.push(category);
        }
        let card: String =
            (0..16).map(|_| char::from(b'0' + (self.rng.next_u32() % 10) as u8)).collect();
        let mut value = format!(r#"{{"id":"{id}","card":"{card}","items":[{items}]}}"#);
        let is_invalid = self.rng.random_bool(0.02);
        if is_invalid {
            value = match self.rng.random_range(0..3_u8) {
                0 => value.replace("\"card\"", "\"cart\""),
                1 => format!(r#"{{"id":"{id}","card":"{card}","items":[]}}"#),
                _ => value[..value.len() - 1].to_owned(),
            };
        }
        let order = Outgoing {
            partition: partition_of_key(id.as_bytes(), self.partitions),
            key: Some(id.into()),
            value: Some(value.into()),
            headers: Vec::new(),
            timestamp: now(),
        };
        (order, (!is_invalid).then_some(categories))
    }
}

/// The clock decides nothing but the records' times.
#[allow(clippy::disallowed_methods)]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as i64)
}
