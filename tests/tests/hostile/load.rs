//! Many clients, slow clients, clients that vanish. Each row has a broker of its own, so that its
//! limits can be small and its memory is its own; against another broker only what it promises, too,
//! is looked at.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiVersionsRequest, FetchRequest, ProduceRequest};
use vltava_tests::harness::{
    Broker, BrokerOptions, RawBatch, RawClient, Tested, good_client, now_ms, raw, requests,
};

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("thousands_of_idle_connections", thousands_of_idle_connections),
    ("requests_that_trickle_in_are_cut_off", requests_that_trickle_in_are_cut_off),
    ("stalled_giants_leave_room_for_others", stalled_giants_leave_room_for_others),
    ("giants_pass_one_after_another", giants_pass_one_after_another),
    ("silent_connections_are_closed", silent_connections_are_closed),
    ("connections_of_an_address_are_bounded", connections_of_an_address_are_bounded),
    ("connections_of_all_are_bounded", connections_of_all_are_bounded),
    ("resets_leave_nothing_behind", resets_leave_nothing_behind),
    ("a_greedy_client_does_not_starve_others", a_greedy_client_does_not_starve_others),
    ("a_hundred_thousand_partitions_in_one_fetch", a_hundred_thousand_partitions_in_one_fetch),
    ("a_partition_twice_in_one_fetch", a_partition_twice_in_one_fetch),
    ("a_partition_twice_in_one_produce", a_partition_twice_in_one_produce),
];

/// How long anything here may take on a machine at work.
const PATIENCE: Duration = Duration::from_mins(1);
/// What an idle connection that has asked for something may cost, in bytes.
const CONNECTION_BYTES_MAX: u64 = 16 << 10;

fn start(sets: &[(&str, &str)]) -> Tested<Broker> {
    let options = BrokerOptions::new(env!("CARGO_BIN_EXE_vltava-under-test"));
    Broker::start(sets.iter().fold(options, |options, (key, value)| options.set(key, value)))
}

/// Runs a row's own broker, unless the rows run against one that somebody else has set up.
fn own(broker: &Broker, sets: &[(&str, &str)], row: impl FnOnce(&Broker) -> Tested) -> Tested {
    if broker.is_external() { Ok(()) } else { row(&start(sets)?) }
}

fn resident(broker: &Broker) -> Tested<u64> {
    Ok(broker.resident_bytes()?.ok_or("no process to look at")?)
}

fn hello(client: &mut RawClient) -> Tested {
    assert_eq!(client.call(0, &ApiVersionsRequest::default())?.error_code, 0);
    Ok(())
}

/// Connections that have asked for something once and then say nothing.
fn thousands_of_idle_connections(broker: &Broker) -> Tested {
    const CONNECTIONS: u64 = 3_000;
    own(broker, &[], |broker| {
        good_client::check(broker.bootstrap())?;
        let before = resident(broker)?;
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = RawClient::connect(broker.bootstrap())?;
            hello(&mut client)?;
            clients.push(client);
        }
        let grown = resident(broker)?.saturating_sub(before);
        assert!(grown <= CONNECTIONS * CONNECTION_BYTES_MAX, "{CONNECTIONS} cost {grown} bytes");
        good_client::check(broker.bootstrap())?;
        // None was dropped for the others' sake.
        for client in clients.iter_mut().step_by(97) {
            hello(client)?;
        }
        Ok(())
    })
}

/// One byte at a time, never whole: cut off after the time that a request may take, and meanwhile
/// in nobody's way.
fn requests_that_trickle_in_are_cut_off(broker: &Broker) -> Tested {
    own(broker, &[("socket.request.receive.timeout.ms", "2000")], |broker| {
        let began = Instant::now();
        let mut clients = Vec::new();
        for _ in 0..100 {
            let mut client = RawClient::connect(broker.bootstrap())?;
            client.send_bytes(&(50_i32 << 20).to_be_bytes())?;
            clients.push(client);
        }
        while !clients.is_empty() {
            assert!(began.elapsed() < PATIENCE, "{} still hold on", clients.len());
            good_client::check(broker.bootstrap())?;
            clients.retain_mut(|client| client.send_bytes(&[0]).is_ok());
        }
        assert!(began.elapsed() >= Duration::from_secs(2), "cut off too early");
        Ok(())
    })
}

/// All the room is held by halves of large requests whose clients send nothing more: they give way.
fn stalled_giants_leave_room_for_others(broker: &Broker) -> Tested {
    own(broker, &[("queued.max.request.bytes", "4000000")], |broker| {
        let before = resident(broker)?;
        let half = vec![0; 1 << 20];
        let mut stalled = Vec::new();
        for _ in 0..20 {
            let mut client = RawClient::connect(broker.bootstrap())?;
            client.send_bytes(&(90_i32 << 20).to_be_bytes())?;
            // What the broker does not read stays in the socket's buffers, or here.
            client.stream().set_write_timeout(Some(Duration::from_millis(100)))?;
            let _ = client.send_bytes(&half);
            stalled.push(client);
        }
        // The smallest need no room, small ones have their own; the third waits for the stalled.
        good_client::check(broker.bootstrap())?;
        let mut client = RawClient::connect(broker.bootstrap())?;
        let topic = requests::create_topic(&mut client, "room", 1, &[])?;
        let began = Instant::now();
        let batch = RawBatch::of_size(200_000, now_ms()).encode();
        assert_eq!(requests::produce(&mut client, &topic, batch)?.error_code, 0);
        assert!(began.elapsed() < PATIENCE / 4);
        let batch = RawBatch::of_size(900_000, now_ms()).encode();
        assert_eq!(requests::produce(&mut client, &topic, batch)?.error_code, 0);
        assert!(began.elapsed() < PATIENCE);
        let grown = resident(broker)?.saturating_sub(before);
        assert!(grown <= 64 << 20, "20 halves cost {grown} bytes");
        Ok(())
    })
}

/// Requests of 20 MiB each, at once, and room for one: all are answered.
fn giants_pass_one_after_another(broker: &Broker) -> Tested {
    own(broker, &[("queued.max.request.bytes", "10000000")], |broker| {
        let bootstrap = broker.bootstrap();
        let giant = |_| -> Tested {
            let mut client = RawClient::connect(bootstrap)?;
            // Refused, since no topic takes it; but read, whole.
            let records = Bytes::from(vec![0; 20 << 20]);
            let answer = requests::produce(&mut client, "nobody", records)?;
            assert_eq!(answer.error_code, 3);
            Ok(())
        };
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..8).map(|at| scope.spawn(move || giant(at))).collect();
            senders.into_iter().try_for_each(|sender| sender.join().map_err(|_| "panicked")?)
        })?;
        let held = resident(broker)?;
        assert!(held <= 200 << 20, "{held} bytes after them");
        Ok(())
    })
}

/// Connections that say nothing, or half of something, as those whose client has lost its power do.
fn silent_connections_are_closed(broker: &Broker) -> Tested {
    own(broker, &[("connections.max.idle.ms", "1000")], |broker| {
        let mut clients = Vec::new();
        for at in 0..60 {
            let mut client = RawClient::connect(broker.bootstrap())?;
            match at % 3 {
                0 => {}
                1 => client.send_bytes(&[0, 0, 0, 50, 0, 18])?,
                _ => hello(&mut client)?,
            }
            clients.push(client);
        }
        let began = Instant::now();
        for client in &mut clients {
            client.expect_closed()?;
        }
        assert!(began.elapsed() < PATIENCE / 2);
        good_client::check(broker.bootstrap())
    })
}

fn connections_of_an_address_are_bounded(broker: &Broker) -> Tested {
    let limits =
        [("max.connections.per.ip", "1"), ("max.connections.per.ip.overrides", "127.0.0.1:5")];
    own(broker, &limits, |broker| {
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(RawClient::connect(broker.bootstrap())?);
            hello(clients.last_mut().ok_or("it was just pushed")?)?;
        }
        // The kernel completes it, the broker closes it.
        RawClient::connect(broker.bootstrap())?.expect_closed()?;
        for client in &mut clients {
            hello(client)?;
        }
        drop(clients);
        await_served(broker);
        Ok(())
    })
}

/// Room comes back once the broker has seen that others have gone.
fn await_served(broker: &Broker) {
    let began = Instant::now();
    while RawClient::connect(broker.bootstrap()).and_then(|mut client| hello(&mut client)).is_err()
    {
        assert!(began.elapsed() < PATIENCE, "no room came back");
    }
}

/// As in Kafka: who is one too many is not refused, but waits until somebody goes.
fn connections_of_all_are_bounded(broker: &Broker) -> Tested {
    own(broker, &[("max.connections", "3")], |broker| {
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(RawClient::connect(broker.bootstrap())?);
            hello(clients.last_mut().ok_or("it was just pushed")?)?;
        }
        let mut waiting = RawClient::connect(broker.bootstrap())?;
        let correlation_id = waiting.send(0, &ApiVersionsRequest::default())?;
        waiting.stream().set_read_timeout(Some(Duration::from_millis(200)))?;
        assert!(waiting.read_frame().is_err(), "one too many is served");
        waiting.stream().set_read_timeout(Some(PATIENCE))?;
        drop(clients.pop());
        waiting.receive::<ApiVersionsRequest>(0, correlation_id)?;
        Ok(())
    })
}

/// A reset, not an end, in the middle of requests: connections, descriptors and memory come back.
fn resets_leave_nothing_behind(broker: &Broker) -> Tested {
    const RESETS: usize = 500;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "resets", 1, &[])?;
    let records = RawBatch::of_size(50_000, now_ms()).encode();
    let produce = raw::encode(
        requests::PRODUCE_VERSION,
        7,
        &requests::produce_request(&topic, 0, -1, records),
    )?;
    let mut wait = requests::fetch_request(&topic, i64::from(i32::MAX));
    wait.max_wait_ms = 10_000;
    let fetch = raw::encode(requests::FETCH_VERSION, 8, &wait)?;
    let before = descriptors(broker)?;
    for at in 0..RESETS {
        let mut client = RawClient::connect(broker.bootstrap())?;
        client.send(0, &ApiVersionsRequest::default())?;
        // The answer is here and unread: closing the socket now is a reset.
        client.stream().peek(&mut [0])?;
        match at % 3 {
            0 => client.send_bytes(&produce[..produce.len() / 2])?,
            1 => client.send_bytes(&produce)?,
            _ => client.send_bytes(&fetch)?,
        }
    }
    good_client::check(broker.bootstrap())?;
    let began = Instant::now();
    while let Some(before) = before
        && descriptors(broker)?.is_some_and(|now| now > before + RESETS / 10)
    {
        assert!(began.elapsed() < PATIENCE, "connections that were reset are still open");
        std::thread::yield_now();
    }
    Ok(())
}

/// Open descriptors of the broker; none for one of somebody else's.
fn descriptors(broker: &Broker) -> Tested<Option<usize>> {
    let Some(pid) = broker.pid() else { return Ok(None) };
    Ok(Some(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count()))
}

/// One client keeps the broker busy without a pause; others get their answers all the while.
fn a_greedy_client_does_not_starve_others(broker: &Broker) -> Tested {
    let mut greedy = RawClient::connect(broker.bootstrap())?;
    let one = raw::encode(12, 7, &requests::metadata_request(&["nobody"]))?;
    let many: Vec<u8> = one.iter().copied().cycle().take(one.len() * 2_000).collect();
    let mut writer = greedy.stream().try_clone()?;
    std::thread::scope(|scope| {
        // Both end when the sockets do.
        scope.spawn(move || while std::io::Write::write_all(&mut writer, &many).is_ok() {});
        let mut reader = greedy.stream().try_clone()?;
        scope.spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        let mut polite = RawClient::connect(broker.bootstrap())?;
        let mut slowest = Duration::ZERO;
        for _ in 0..200 {
            let began = Instant::now();
            hello(&mut polite)?;
            slowest = slowest.max(began.elapsed());
        }
        let served = good_client::check(broker.bootstrap());
        greedy.stream().shutdown(std::net::Shutdown::Both)?;
        assert!(slowest < Duration::from_secs(2), "{slowest:?} for a small request");
        served
    })?;
    greedy.finish().or(Ok(()))
}

/// A Fetch for partitions that do not exist, of a topic that does.
fn fetch_of(topic: &str, partitions: std::ops::Range<i32>) -> FetchRequest {
    let asked = partitions.map(|index| {
        FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(0)
            .with_partition_max_bytes(1 << 20)
    });
    let topic = FetchTopic::default()
        .with_topic(requests::topic_name(topic))
        .with_partitions(asked.collect());
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(0)
        .with_max_bytes(50 << 20)
        .with_topics(vec![topic])
}

/// Each asks for a session, too: what is remembered of them is bounded.
fn a_hundred_thousand_partitions_in_one_fetch(broker: &Broker) -> Tested {
    const PARTITIONS: i32 = 100_000;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "hundred-thousand", 1, &[])?;
    let request = fetch_of(&topic, 0..PARTITIONS).with_session_epoch(0);
    for _ in 0..10 {
        let response = client.call(requests::FETCH_VERSION, &request)?;
        let answers = &response.responses[0].partitions;
        assert_eq!((response.error_code, answers.len()), (0, PARTITIONS as usize));
        assert_eq!(answers.iter().filter(|answer| answer.error_code == 3).count(), 99_999);
    }
    if let Some(resident) = broker.resident_bytes()? {
        assert!(resident <= crate::RESIDENT_BYTES_MAX, "they cost {resident} bytes");
    }
    Ok(())
}

/// The last word counts, and it is answered once.
fn a_partition_twice_in_one_fetch(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "twice", 1, &[])?;
    let mut request = fetch_of(&topic, 0..1);
    let mut again = request.topics[0].partitions[0].clone();
    again.fetch_offset = 7;
    request.topics[0].partitions.push(again);
    let response = client.call(requests::FETCH_VERSION, &request)?;
    let codes: Vec<i16> =
        response.responses.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).collect();
    assert_eq!(codes, [1], "offset 7 is out of range");
    Ok(())
}

/// Two batches for one partition in one request. Apache Kafka keeps the last and answers once; that
/// loses the first without a word. What counts for a client: each answer is true.
fn a_partition_twice_in_one_produce(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "twice", 1, &[])?;
    let records = RawBatch::of(2, now_ms()).encode();
    let mut request: ProduceRequest = requests::produce_request(&topic, 0, -1, records);
    let again = request.topic_data[0].partition_data[0].clone();
    request.topic_data[0].partition_data.push(again);
    let response = client.call(requests::PRODUCE_VERSION, &request)?;
    let answers: Vec<_> = response.responses.iter().flat_map(|t| &t.partition_responses).collect();
    let offsets: Vec<_> = answers.iter().map(|a| (a.error_code, a.base_offset)).collect();
    let end = requests::list_offsets(&mut client, 7, &topic, -1)?.offset;
    let expected: Vec<(i16, i64)> = (0..end / 2).map(|at| (0, 2 * at)).collect();
    assert_eq!(offsets, expected, "the log ends at {end}");
    Ok(())
}
