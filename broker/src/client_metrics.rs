//! Requests and bytes by client id, bounded: a client chooses its id, so nothing here may grow with
//! what clients choose.
//!
//! At most [`CLIENTS_MAX`] ids have figures of their own. A newcomer takes the place of the id with
//! the least traffic that has no connection any more, whose figures go into `other`; where all are
//! connected it counts as `other` itself. So every figure only grows, as a counter must, and their
//! sum is that of all clients. A connection looks its figures up once; counting is an addition.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Client ids that have figures of their own.
pub const CLIENTS_MAX: usize = 100;
/// Most characters of an id in a label.
const ID_CHARS_MAX: usize = 100;
/// The label of all others; no id is like it, since brackets are replaced in ids.
const OTHER: &str = "[other]";

/// Figures of one client id, of all its connections.
#[derive(Debug, Default)]
pub struct ClientTraffic {
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// The figures of all clients.
#[derive(Debug, Default)]
pub struct ClientMetrics {
    known: Mutex<HashMap<Box<str>, Arc<ClientTraffic>>>,
    other: Arc<ClientTraffic>,
}

impl ClientTraffic {
    /// Counts a request frame.
    pub fn received(&self, bytes: usize) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a response frame.
    pub fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed) + self.bytes_out.load(Ordering::Relaxed)
    }

    fn add(&self, gone: &Self) {
        for (sum, part) in [
            (&self.requests, &gone.requests),
            (&self.bytes_in, &gone.bytes_in),
            (&self.bytes_out, &gone.bytes_out),
        ] {
            sum.fetch_add(part.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl ClientMetrics {
    /// The figures that a connection of this client counts into.
    pub fn of(&self, client_id: &str) -> Arc<ClientTraffic> {
        let id = label(client_id);
        let mut known = self.known.lock();
        if let Some(traffic) = known.get(&id) {
            return Arc::clone(traffic);
        }
        if known.len() >= CLIENTS_MAX {
            // Whoever has no connection has nobody to hold its figures but this table.
            let idle = known.iter().filter(|(_, traffic)| Arc::strong_count(traffic) == 1);
            let least = idle.min_by_key(|(_, traffic)| traffic.bytes()).map(|(id, _)| id.clone());
            let Some(gone) = least.and_then(|id| known.remove(&id)) else {
                return Arc::clone(&self.other);
            };
            self.other.add(&gone);
        }
        let traffic = Arc::new(ClientTraffic::default());
        known.insert(id, Arc::clone(&traffic));
        assert!(known.len() <= CLIENTS_MAX, "a newcomer took another's place");
        traffic
    }
}

/// An id as a label shows it: short, and of characters that cannot break the page.
fn label(client_id: &str) -> Box<str> {
    let shown = |c: char| if c.is_ascii_alphanumeric() || "-_.:/@ ".contains(c) { c } else { '_' };
    client_id.chars().take(ID_CHARS_MAX).map(shown).collect::<String>().into()
}

/// Name, help and value of a figure.
type Figure = (&'static str, &'static str, fn(&ClientTraffic) -> &AtomicU64);

const FIGURES: &[Figure] = &[
    ("client_requests", "Requests of a client id", |client| &client.requests),
    ("client_bytes_in", "Bytes of the requests of a client id", |client| &client.bytes_in),
    ("client_bytes_out", "Bytes of the responses to a client id", |client| &client.bytes_out),
];

/// Lets the figures be gathered.
#[derive(Debug)]
pub struct ClientFigures(pub Arc<ClientMetrics>);

impl Collector for ClientFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let known = self.0.known.lock();
        let mut clients: Vec<(&str, &ClientTraffic)> =
            known.iter().map(|(id, traffic)| (&**id, &**traffic)).collect();
        clients.sort_unstable_by_key(|(id, _)| *id);
        clients.push((OTHER, &self.0.other));
        for (name, help, value) in FIGURES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (client_id, traffic) in &clients {
                let value = value(traffic).load(Ordering::Relaxed);
                let labels = [("client_id", *client_id)];
                let mut metric = family.encode_family(&labels)?;
                metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    fn page(clients: &Arc<ClientMetrics>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ClientFigures(Arc::clone(clients))));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        page
    }

    #[test]
    fn connections_of_one_id_share_its_figures() {
        let clients = Arc::new(ClientMetrics::default());
        clients.of("a").received(10);
        clients.of("a").received(20);
        clients.of("a").sent(5);
        let page = page(&clients);
        assert!(page.contains("client_requests_total{client_id=\"a\"} 2\n"), "{page}");
        assert!(page.contains("client_bytes_in_total{client_id=\"a\"} 30\n"), "{page}");
        assert!(page.contains("client_bytes_out_total{client_id=\"a\"} 5\n"), "{page}");
    }

    #[test]
    fn any_number_of_ids_has_a_bounded_number_of_figures_and_none_is_lost() {
        let clients = Arc::new(ClientMetrics::default());
        let held = clients.of("held");
        for at in 0..10 * CLIENTS_MAX {
            clients.of(&format!("client-{at}")).received(1);
        }
        held.received(1);
        let page = page(&clients);
        let rows = |name: &str| page.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(rows("client_requests_total"), CLIENTS_MAX + 1);
        assert!(page.contains("client_requests_total{client_id=\"held\"} 1\n"), "{page}");
        let others = 9 * CLIENTS_MAX + 1;
        let other = format!("client_requests_total{{client_id=\"[other]\"}} {others}\n");
        assert!(page.contains(&other), "{page}");
    }

    #[test]
    fn while_all_are_connected_a_newcomer_is_one_of_the_others() {
        let clients = ClientMetrics::default();
        let held: Vec<_> = (0..CLIENTS_MAX).map(|at| clients.of(&at.to_string())).collect();
        clients.of("new").received(1);
        assert_eq!(clients.other.requests.load(Ordering::Relaxed), 1);
        drop(held);
        clients.of("new").received(1);
        assert_eq!(clients.other.requests.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_id_cannot_break_the_page() {
        assert_eq!(&*label("a\"} 1\n# [other]\\"), "a__ 1__ _other__");
        assert_eq!(label(&"ä".repeat(1000)).len(), ID_CHARS_MAX);
    }
}
