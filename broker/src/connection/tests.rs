use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{PartitionIndex, TopicId, TopicName};
use vltava_protocol::messages::fetch::{FetchPartitionResponse, FetchTopicResponse};
use vltava_protocol::messages::{ApiKey, FetchResponse, HeartbeatResponse, encode_response};

use super::*;

/// A service whose requests are one letter and a number, answered by a Heartbeat response with the
/// number as correlation id:
/// `n` at once · `p` ordered at once, the rest when released · `o` fixes its order when released,
/// then done · `x` exclusive, done when released · `s` silent · `c` close · `!` panic at once ·
/// `?` panic in the rest · `b` a large response · `w` keeps the worker for a while.
#[derive(Clone, Default)]
struct Script {
    begun: Arc<Mutex<Vec<u8>>>,
    gates: Arc<Mutex<std::collections::HashMap<u8, oneshot::Receiver<()>>>>,
    changed: Arc<Notify>,
    answered: Arc<AtomicUsize>,
}

impl Script {
    /// A gate for request `id`, to be made before the request is sent.
    fn gate(&self, id: u8) -> oneshot::Sender<()> {
        let (open, gate) = oneshot::channel();
        self.gates.lock().insert(id, gate);
        open
    }

    /// Waits until exactly these requests have begun, in this order.
    async fn begun(&self, ids: &[u8]) {
        loop {
            let changed = self.changed.notified();
            let begun = self.begun.lock().clone();
            assert!(begun.len() <= ids.len(), "{begun:?} begun");
            if begun == ids {
                return;
            }
            changed.await;
        }
    }
}

fn reply(id: u8, bytes: usize) -> Reply {
    let correlation_id = i32::from(id);
    if bytes == 0 {
        let response = HeartbeatResponse::default();
        let frame = encode_response(correlation_id, ApiKey::Heartbeat, 0, &response).unwrap();
        return Reply::Frame(frame.into_frame_of());
    }
    // Many parts, as a large Fetch has; its records are the last bytes of version 4.
    let body = Bytes::from(vec![id; bytes]);
    let mut partition = FetchPartitionResponse::empty(PartitionIndex(0), ErrorCode::None);
    let runs = (0..bytes).step_by(8192).map(|at| body.slice(at..bytes.min(at + 8192)));
    partition.records = runs.map(Part::Memory).collect();
    let topic = FetchTopicResponse {
        topic: TopicName::new("t"),
        topic_id: TopicId::ZERO,
        partitions: vec![partition],
    };
    let response = FetchResponse { topics: vec![topic], ..FetchResponse::default() };
    Reply::Frame(response.encode(correlation_id, 4).unwrap())
}

/// It sends through memory.
impl Socket for DuplexStream {}

impl Service for Script {
    fn begin(&mut self, frame: &Bytes, idle: bool) -> Option<Boxed<Stage>> {
        let (kind, id) = (frame[0], frame[1]);
        if kind == b'x' && !idle {
            return None;
        }
        self.begun.lock().push(id);
        self.changed.notify_one();
        let gate = self.gates.lock().remove(&id);
        let answered = Arc::clone(&self.answered);
        let opened = async move {
            if let Some(gate) = gate {
                gate.await.unwrap();
            }
        };
        let done = move |bytes| {
            answered.fetch_add(1, Ordering::Relaxed);
            reply(id, bytes)
        };
        Some(match kind {
            b'n' => Box::pin(async move { Stage::Done(done(0)) }),
            b'b' => Box::pin(async move { Stage::Done(done(1 << 20)) }),
            b'w' => Box::pin(async move {
                let end = std::time::Instant::now() + SLICE;
                while std::time::Instant::now() < end {
                    std::hint::spin_loop();
                }
                Stage::Done(done(0))
            }),
            b'o' | b'x' => Box::pin(async move {
                opened.await;
                Stage::Done(done(0))
            }),
            b'p' => Box::pin(async move {
                Stage::Ordered(Box::pin(async move {
                    opened.await;
                    done(0)
                }))
            }),
            b's' => Box::pin(async move { Stage::Done(Reply::Silent) }),
            b'c' => Box::pin(async move {
                Stage::Done(Reply::Close(CloseCause::Unacknowledged("test".to_owned())))
            }),
            b'?' => Box::pin(async move {
                Stage::Ordered(Box::pin(async move { panic!("planned, in the rest") }))
            }),
            _ => panic!("planned"),
        })
    }
}

struct Fixture {
    script: Script,
    client: DuplexStream,
    server: JoinHandle<Ended>,
    shutdown: Option<oneshot::Sender<()>>,
}

fn fixture(pipe_bytes: usize) -> Fixture {
    fixture_with(pipe_bytes, &config(None, None))
}

fn config(idle_max: Option<Duration>, receive_max: Option<Duration>) -> ConnectionConfig {
    let memory = RequestMemory::new(None);
    let metrics = ConnectionMetrics::default();
    ConnectionConfig { request_bytes_max: 1000, idle_max, receive_max, memory, metrics }
}

fn fixture_with(pipe_bytes: usize, config: &ConnectionConfig) -> Fixture {
    let script = Script::default();
    let (client, socket) = tokio::io::duplex(pipe_bytes);
    let (shutdown, told) = oneshot::channel::<()>();
    let told = async move {
        let _ = told.await;
    };
    let connection = Connection::new(socket, script.clone(), config, told);
    Fixture { script, client, server: tokio::spawn(connection.serve()), shutdown: Some(shutdown) }
}

fn frames(requests: &[(u8, u8)]) -> Vec<u8> {
    requests.iter().flat_map(|(kind, id)| [0, 0, 0, 2, *kind, *id]).collect()
}

impl Fixture {
    async fn send(&mut self, requests: &[(u8, u8)]) {
        self.client.write_all(&frames(requests)).await.unwrap();
    }

    /// The correlation id of the next response.
    async fn receive(&mut self) -> u8 {
        let length = self.client.read_i32().await.unwrap();
        let id = self.client.read_i32().await.unwrap();
        let mut rest = vec![0; length as usize - 4];
        self.client.read_exact(&mut rest).await.unwrap();
        id as u8
    }

    async fn receive_all(&mut self, ids: &[u8]) {
        for id in ids {
            assert_eq!(self.receive().await, *id);
        }
    }

    /// The server has closed, and has sent nothing more.
    async fn ended(mut self) -> Ended {
        let mut rest = Vec::new();
        self.client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{rest:?} after the end");
        self.server.await.unwrap()
    }
}

#[tokio::test]
async fn requests_of_one_read_are_answered_in_order() {
    let mut fixture = fixture(1 << 16);
    fixture.send(&[(b'n', 1), (b'n', 2), (b's', 3), (b'x', 4), (b'n', 5)]).await;
    fixture.receive_all(&[1, 2, 4, 5]).await;
    fixture.client.shutdown().await.unwrap();
    assert!(matches!(fixture.ended().await, Ended::ByClient));
}

#[tokio::test]
async fn frames_may_come_a_byte_at_a_time() {
    let mut fixture = fixture(1);
    for byte in frames(&[(b'n', 1), (b'n', 2)]) {
        fixture.client.write_all(&[byte]).await.unwrap();
    }
    fixture.receive_all(&[1, 2]).await;
}

#[tokio::test]
async fn an_ordered_request_lets_the_next_begin_and_answers_first() {
    let mut fixture = fixture(1 << 16);
    let (first, second) = (fixture.script.gate(1), fixture.script.gate(2));
    fixture.send(&[(b'p', 1), (b'p', 2), (b'n', 3)]).await;
    fixture.script.begun(&[1, 2, 3]).await;
    second.send(()).unwrap();
    first.send(()).unwrap();
    fixture.receive_all(&[1, 2, 3]).await;
}

#[tokio::test]
async fn a_request_that_has_not_fixed_its_order_holds_the_next() {
    let mut fixture = fixture(1 << 16);
    let first = fixture.script.gate(1);
    fixture.send(&[(b'o', 1), (b'n', 2)]).await;
    fixture.script.begun(&[1]).await;
    first.send(()).unwrap();
    fixture.receive_all(&[1, 2]).await;
}

#[tokio::test]
async fn an_exclusive_request_waits_for_all_before_it_and_holds_all_behind_it() {
    let mut fixture = fixture(1 << 16);
    let (first, second) = (fixture.script.gate(1), fixture.script.gate(2));
    fixture.send(&[(b'p', 1), (b'x', 2), (b'p', 3)]).await;
    fixture.script.begun(&[1]).await;
    first.send(()).unwrap();
    assert_eq!(fixture.receive().await, 1);
    fixture.script.begun(&[1, 2]).await;
    second.send(()).unwrap();
    fixture.receive_all(&[2, 3]).await;
}

#[tokio::test]
async fn the_pipeline_is_bounded() {
    let mut fixture = fixture(1 << 16);
    let gate = fixture.script.gate(1);
    let mut requests = vec![(b'p', 1)];
    requests.extend((2..=100).map(|id| (b'p', id)));
    fixture.send(&requests).await;
    let bound: Vec<u8> = (1..=PIPELINE_MAX as u8).collect();
    fixture.script.begun(&bound).await;
    gate.send(()).unwrap();
    let all: Vec<u8> = (1..=100).collect();
    fixture.receive_all(&all).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_either() {
    let fixture = fixture(64);
    let most = OUTGOING_BYTES_MAX / (1 << 20) + 1;
    let requests: Vec<(u8, u8)> = (0..20).map(|id| (b'b', id)).collect();
    let bytes = frames(&requests);
    // The pipe is small: writing all of it would hang, unless the server read without bound.
    let (mut reader, mut writer) = tokio::io::split(fixture.client);
    let sending = tokio::spawn(async move { writer.write_all(&bytes).await });
    let begun: Vec<u8> = (0..most as u8 - 1).collect();
    fixture.script.begun(&begun).await;
    assert!(fixture.script.answered.load(Ordering::Relaxed) < most);
    // Once it reads, everything comes, in order.
    for id in 0..20_u8 {
        let length = reader.read_i32().await.unwrap();
        assert_eq!(reader.read_i32().await.unwrap(), i32::from(id));
        let mut body = vec![0; length as usize - 4];
        reader.read_exact(&mut body).await.unwrap();
        let records = &body[body.len() - (1 << 20)..];
        assert!(records.iter().all(|byte| *byte == id));
    }
    sending.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_ends_the_connection_after_the_responses_before_it() {
    for kind in [b'!', b'?'] {
        let mut fixture = fixture(1 << 16);
        let gate = fixture.script.gate(1);
        fixture.send(&[(b'p', 1), (kind, 2), (b'n', 3)]).await;
        fixture.script.begun(if kind == b'!' { &[1, 2] } else { &[1, 2, 3] }).await;
        gate.send(()).unwrap();
        assert_eq!(fixture.receive().await, 1);
        let ended = fixture.ended().await;
        assert!(
            matches!(&ended, Ended::Closed(CloseCause::Panicked(text)) if text.contains("planned")),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_close_waits_for_the_responses_before_it_and_nothing_begins_behind_it() {
    let mut fixture = fixture(1 << 16);
    let gate = fixture.script.gate(1);
    fixture.send(&[(b'p', 1), (b'c', 2), (b'n', 3)]).await;
    fixture.script.begun(&[1, 2]).await;
    gate.send(()).unwrap();
    assert_eq!(fixture.receive().await, 1);
    assert!(matches!(fixture.ended().await, Ended::Closed(CloseCause::Unacknowledged(_))));
}

#[tokio::test]
async fn a_request_at_work_is_finished_though_its_client_has_gone() {
    let mut fixture = fixture(64);
    let gate = fixture.script.gate(2);
    // The response of the first fills the pipe; its failing write is how the end is noticed.
    fixture.send(&[(b'b', 1), (b'x', 2)]).await;
    fixture.script.begun(&[1, 2]).await;
    let Fixture { script, client, server, .. } = fixture;
    drop(client);
    gate.send(()).unwrap();
    let ended = server.await.unwrap();
    assert!(matches!(ended, Ended::Failed(_)), "{ended:?}");
    assert_eq!(script.answered.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_bad_length_closes_after_the_responses_before_it() {
    for length in [-1_i32, 0, 1001] {
        let mut fixture = fixture(1 << 16);
        fixture.send(&[(b'n', 1)]).await;
        fixture.client.write_all(&length.to_be_bytes()).await.unwrap();
        assert_eq!(fixture.receive().await, 1);
        let ended = fixture.ended().await;
        assert!(matches!(ended, Ended::Closed(CloseCause::Frame(_))), "{ended:?}");
    }
}

#[tokio::test]
async fn what_arrived_before_the_end_of_the_stream_is_served() {
    let mut fixture = fixture(1 << 16);
    let gate = fixture.script.gate(1);
    fixture.send(&[(b'p', 1), (b'x', 2), (b's', 3)]).await;
    fixture.client.shutdown().await.unwrap();
    fixture.script.begun(&[1]).await;
    gate.send(()).unwrap();
    fixture.receive_all(&[1, 2]).await;
    let script = fixture.script.clone();
    assert!(matches!(fixture.ended().await, Ended::ByClient));
    script.begun(&[1, 2, 3]).await;
}

#[tokio::test]
async fn shutdown_answers_what_has_begun_and_nothing_more() {
    let mut fixture = fixture(1 << 16);
    let gate = fixture.script.gate(1);
    fixture.send(&[(b'p', 1), (b'x', 2)]).await;
    fixture.script.begun(&[1]).await;
    fixture.shutdown.take().unwrap().send(()).unwrap();
    // The connection has seen it once it stops reading; a gate opened after that is still served.
    tokio::task::yield_now().await;
    gate.send(()).unwrap();
    assert_eq!(fixture.receive().await, 1);
    assert!(matches!(fixture.ended().await, Ended::Shutdown));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_and_a_waiting_one_does_not() {
    let mut fixture = fixture_with(1 << 16, &config(Some(Duration::from_secs(10)), None));
    let gate = fixture.script.gate(1);
    let began = Instant::now();
    fixture.send(&[(b'p', 1)]).await;
    fixture.script.begun(&[1]).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    gate.send(()).unwrap();
    assert_eq!(fixture.receive().await, 1);
    let answered = Instant::now();
    assert!(answered - began >= Duration::from_mins(1));
    assert!(matches!(fixture.ended().await, Ended::Idle));
    assert!(Instant::now() - answered >= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_does_not_keep_a_connection_whose_client_has_ended() {
    let mut fixture = fixture_with(1 << 16, &config(Some(Duration::from_secs(10)), None));
    let _never_opened = fixture.script.gate(1);
    let began = Instant::now();
    fixture.send(&[(b'p', 1)]).await;
    fixture.script.begun(&[1]).await;
    fixture.client.shutdown().await.unwrap();
    assert!(matches!(fixture.ended().await, Ended::Idle));
    let lasted = Instant::now() - began;
    assert!(lasted >= Duration::from_secs(10) && lasted <= Duration::from_secs(21), "{lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_trickles_in_closes_the_connection() {
    let receive_max = Duration::from_secs(10);
    let mut fixture = fixture_with(1 << 16, &config(None, Some(receive_max)));
    // Each request has a time of its own, also one that shares its first bytes with another's last.
    for id in 1..5 {
        let halves = frames(&[(b'n', id), (b'n', id + 100)]);
        fixture.client.write_all(&halves[..7]).await.unwrap();
        tokio::time::sleep(receive_max / 10 * 9).await;
        fixture.client.write_all(&halves[7..]).await.unwrap();
        fixture.receive_all(&[id, id + 100]).await;
        tokio::time::sleep(receive_max * 2).await;
    }
    let began = Instant::now();
    let mut closed = false;
    for byte in frames(&[(b'n', 9)]).into_iter().cycle().take(5) {
        closed |= fixture.client.write_all(&[byte]).await.is_err();
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert!(closed);
    let ended = fixture.ended().await;
    assert!(matches!(ended, Ended::Closed(CloseCause::Slow)), "{ended:?}");
    assert!(Instant::now() - began >= receive_max);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_read_has_time() {
    let mut fixture = fixture_with(1 << 16, &config(None, Some(Duration::from_secs(10))));
    let gate = fixture.script.gate(1);
    let requests = frames(&[(b'o', 1), (b'n', 2)]);
    fixture.client.write_all(&requests[..7]).await.unwrap();
    fixture.script.begun(&[1]).await;
    // The first is at work, so nobody reads the second, of which a byte is here.
    tokio::time::sleep(Duration::from_mins(1)).await;
    gate.send(()).unwrap();
    assert_eq!(fixture.receive().await, 1);
    fixture.client.write_all(&requests[7..]).await.unwrap();
    assert_eq!(fixture.receive().await, 2);
}

#[tokio::test]
async fn unread_bytes_are_counted_until_they_are_read_or_nobody_is_left_to() {
    let config = config(None, None);
    let unread = config.metrics.unread_bytes.clone();
    let mut fixture = fixture_with(64, &config);
    fixture.send(&[(b'b', 1)]).await;
    fixture.script.begun(&[1]).await;
    while unread.get() < 1 << 19 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.receive().await, 1);
    fixture.send(&[(b'b', 2)]).await;
    fixture.script.begun(&[1, 2]).await;
    drop(fixture.client);
    fixture.server.await.unwrap();
    assert_eq!(unread.get(), 0);
}

#[tokio::test]
async fn answers_behind_one_that_waits_are_bounded() {
    let mut fixture = fixture(1 << 16);
    let gate = fixture.script.gate(1);
    let mut requests = vec![(b'p', 1)];
    requests.extend((2..40).map(|id| (b'b', id)));
    fixture.send(&requests).await;
    let most = (OUTGOING_BYTES_MAX / (1 << 20)) as u8 + 1;
    fixture.script.begun(&(1..=most).collect::<Vec<_>>()).await;
    gate.send(()).unwrap();
    fixture.receive_all(&(1..40).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_busy_connection_gives_its_worker_up() {
    // One worker, and a client whose requests are always ready; each takes a whole slice. The
    // runtime lets a busy task run some 60 times before it looks at what has yielded.
    let mut fixture = fixture(1 << 20);
    let requests: Vec<(u8, u8)> = (0..200).map(|id| (b'w', id)).collect();
    fixture.send(&requests).await;
    let begun = Arc::clone(&fixture.script.begun);
    while begun.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(begun.lock().len() < 200, "others have their turn before all is done");
    fixture.receive_all(&(0..200).collect::<Vec<_>>()).await;
}

#[tokio::test(start_paused = true)]
async fn a_large_request_that_stalls_gives_way_to_others() {
    let memory = RequestMemory::new(Some(1));
    let config = ConnectionConfig {
        request_bytes_max: 1 << 30,
        idle_max: None,
        receive_max: None,
        memory: memory.clone(),
        metrics: ConnectionMetrics::default(),
    };
    let mut request = (1_i32 << 20).to_be_bytes().to_vec();
    request.extend([b'n', 1]);
    request.resize(4 + (1 << 20), 0);
    // The first takes all the room there is, the second goes on without, and both stall.
    let mut stalled: Vec<Fixture> = (0..2).map(|_| fixture_with(1 << 20, &config)).collect();
    for fixture in &mut stalled {
        fixture.client.write_all(&request[..1 << 19]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(memory.is_crowded(&Held::default()));
    let mut good = fixture_with(1 << 20, &config);
    good.client.write_all(&request).await.unwrap();
    assert_eq!(good.receive().await, 1);
    assert!(stalled.iter().any(|fixture| fixture.server.is_finished()));
}
