//! Frames: lengths that lie, bodies that do not decode, requests that nobody knows, floods.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, ProduceRequest, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use vltava_tests::harness::{
    Broker, RawBatch, RawClient, Tested, good_client, now_ms, raw, requests,
};

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("negative_length_closes", |broker| length_closes(broker, -1)),
    ("most_negative_length_closes", |broker| length_closes(broker, i32::MIN)),
    ("zero_length_closes", |broker| length_closes(broker, 0)),
    ("length_over_100_mib_closes", |broker| length_closes(broker, (100 << 20) + 1)),
    ("largest_length_closes", |broker| length_closes(broker, i32::MAX)),
    ("http_request_closes", http_request_closes),
    ("frame_never_completed", frame_never_completed),
    ("large_frame_never_completed", large_frame_never_completed),
    ("header_cut_short_closes", header_cut_short_closes),
    ("one_byte_at_a_time_is_served", one_byte_at_a_time_is_served),
    ("body_cut_short_closes", body_cut_short_closes),
    ("trailing_bytes_never_hang", trailing_bytes_never_hang),
    ("negative_topic_count_closes", |broker| topic_count_closes(broker, -2)),
    ("giant_topic_count_closes", |broker| topic_count_closes(broker, i32::MAX)),
    ("large_topic_count_closes", |broker| topic_count_closes(broker, 200_000_000)),
    ("giant_compact_count_never_hangs", giant_compact_count_never_hangs),
    ("endless_varint_closes", endless_varint_closes),
    ("unknown_api_key_closes", |broker| unknown_request_closes(broker, 9_999, 0)),
    ("negative_api_key_closes", |broker| unknown_request_closes(broker, -1, 0)),
    ("removed_api_key_closes", |broker| unknown_request_closes(broker, 4, 0)),
    ("unknown_version_closes", |broker| unknown_request_closes(broker, 3, 99)),
    ("negative_version_closes", |broker| unknown_request_closes(broker, 3, -1)),
    ("api_versions_of_unknown_version", api_versions_of_unknown_version),
    ("api_versions_of_every_version", api_versions_of_every_version),
    ("api_versions_checks_the_client_name", api_versions_checks_the_client_name),
    ("null_client_id_is_served", null_client_id_is_served),
    ("flood_is_answered_in_order", flood_is_answered_in_order),
    ("client_that_never_reads", client_that_never_reads),
];

fn length_closes(broker: &Broker, length: i32) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    client.send_bytes(&length.to_be_bytes())?;
    // A broker may have closed already: what it says counts, not whether these bytes went out.
    let _ = client.send_bytes(b"whatever follows");
    client.expect_closed()
}

fn http_request_closes(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    client.send_bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    client.expect_closed()
}

fn frame_never_completed(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    client.send_bytes(&1_000_i32.to_be_bytes())?;
    client.send_bytes(&[0; 10])?;
    good_client::check(broker.bootstrap())?;
    client.finish()?;
    client.expect_closed()
}

/// A promise of 99 MiB is no reason to hold them: memory follows the bytes that came.
/// Apache Kafka does hold them, and can be made to run out of memory so.
fn large_frame_never_completed(broker: &Broker) -> Tested {
    if broker.is_external() {
        return Ok(());
    }
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = RawClient::connect(broker.bootstrap())?;
        client.send_bytes(&(99_i32 << 20).to_be_bytes())?;
        client.send_bytes(&[0; 4_096])?;
        clients.push(client);
    }
    good_client::check(broker.bootstrap())?;
    if let Some(resident) = broker.resident_bytes()? {
        assert!(resident <= crate::RESIDENT_BYTES_MAX, "promises alone cost {resident} bytes");
    }
    for client in &mut clients {
        client.finish()?;
        client.expect_closed()?;
    }
    Ok(())
}

fn header_cut_short_closes(broker: &Broker) -> Tested {
    let whole = raw::encode(1, 7, &MetadataRequest::default())?;
    for length in 1..10 {
        let mut client = RawClient::connect(broker.bootstrap())?;
        client.send_frame(&whole[4..4 + length])?;
        client.expect_closed()?;
    }
    Ok(())
}

fn one_byte_at_a_time_is_served(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let request = requests::metadata_request(&[]);
    for byte in raw::encode(9, 7, &request)? {
        client.send_bytes(&[byte])?;
    }
    client.receive::<MetadataRequest>(9, 7)?;
    Ok(())
}

fn body_cut_short_closes(broker: &Broker) -> Tested {
    let records = RawBatch::of(1, now_ms()).encode();
    let whole = raw::encode(9, 7, &requests::produce_request("cut-short", 0, -1, records))?;
    let header = raw::header(0, 9, 7, 2)?.len();
    for cut in [1, 2, 10, 50, whole.len() - 4 - header - 1] {
        let mut client = RawClient::connect(broker.bootstrap())?;
        client.send_frame(&whole[4..whole.len() - cut])?;
        client.expect_closed()?;
    }
    Ok(())
}

/// Bytes after a whole body: a broker may answer the body or close, but never wait.
fn trailing_bytes_never_hang(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let mut frame = raw::encode(9, 7, &requests::metadata_request(&[]))?;
    frame.extend_from_slice(&[0xff; 100]);
    client.send_frame(&frame[4..])?;
    client.read_frame()?;
    Ok(())
}

/// Produce v3 names its topics in a plain array: null transactional id, acks, timeout, count.
fn topic_count_closes(broker: &Broker, count: i32) -> Tested {
    let mut body = BytesMut::new();
    body.put_i16(-1);
    body.put_i16(-1);
    body.put_i32(1_000);
    body.put_i32(count);
    let mut client = RawClient::connect(broker.bootstrap())?;
    client.send_frame(&raw::with_header::<ProduceRequest>(3, 7, &body)?)?;
    client.expect_closed()
}

/// Metadata v9 with a compact count of 2³² − 2. Apache Kafka reads it as null and answers.
fn giant_compact_count_never_hangs(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let body = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0];
    client.send_frame(&raw::with_header::<MetadataRequest>(9, 7, &body)?)?;
    client.read_frame()?;
    Ok(())
}

fn endless_varint_closes(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    client.send_frame(&raw::with_header::<MetadataRequest>(9, 7, &[0xff; 64])?)?;
    client.expect_closed()
}

fn unknown_request_closes(broker: &Broker, key: i16, version: i16) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let header = raw::header(key, version, 7, 1)?;
    client.send_frame(&header)?;
    client.expect_closed()
}

/// The one request whose unknown version is answered: in version 0, which every client reads.
fn api_versions_of_unknown_version(broker: &Broker) -> Tested {
    for version in [99, i16::MAX] {
        let mut client = RawClient::connect(broker.bootstrap())?;
        let mut frame = raw::header(18, version, 7, 2)?;
        frame.put_slice(b"a body of a version that is not known yet");
        client.send_frame(&frame)?;
        let mut rest = client.read_frame()?.ok_or("closed instead of error 35")?;
        assert_eq!(ResponseHeader::decode(&mut rest, 0)?.correlation_id, 7);
        let response = ApiVersionsResponse::decode(&mut rest, 0)?;
        assert_eq!((response.error_code, rest.remaining()), (35, 0));
        let own = response.api_keys.iter().find(|api| api.api_key == 18);
        assert!(own.ok_or("its own range is named")?.max_version >= 3);
        // The connection lives on: this is how a newer client negotiates down.
        client.call(0, &ApiVersionsRequest::default())?;
    }
    Ok(())
}

fn api_versions_of_every_version(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    for version in 0..=4 {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("vltava-tests"))
            .with_client_software_version(StrBytes::from_static_str("1.0-beta.2"));
        let response = client.call(version, &request)?;
        assert_eq!(response.error_code, 0);
        let produce = response.api_keys.iter().find(|api| api.api_key == 0);
        let produce = produce.ok_or("Produce is advertised")?;
        assert_eq!(produce.min_version, 0, "librdkafka looks for Produce 0 in the range");
    }
    Ok(())
}

fn api_versions_checks_the_client_name(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    for (name, code) in [("good-name.1", 0), ("", 42), ("-bad", 42), ("bad name", 42)] {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str(name))
            .with_client_software_version(StrBytes::from_static_str("1"));
        assert_eq!(client.call(3, &request)?.error_code, code, "{name:?}");
    }
    Ok(())
}

fn null_client_id_is_served(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let mut frame = BytesMut::new();
    frame.put_i16(18);
    frame.put_i16(0);
    frame.put_i32(7);
    frame.put_i16(-1);
    client.send_frame(&frame)?;
    let response = client.receive::<ApiVersionsRequest>(0, 7)?;
    assert_eq!(response.error_code, 0);
    Ok(())
}

/// 5,000 requests without waiting for one response: all answered, in the order of asking.
fn flood_is_answered_in_order(broker: &Broker) -> Tested {
    const FLOOD: i32 = 5_000;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let mut writer = client.stream().try_clone()?;
    let mut bytes = Vec::new();
    for correlation_id in 0..FLOOD {
        let request = match correlation_id % 3 {
            0 => raw::encode(0, correlation_id, &ApiVersionsRequest::default())?,
            1 => raw::encode(12, correlation_id, &requests::metadata_request(&["nobody"]))?,
            _ => raw::encode(12, correlation_id, &requests::fetch_request("nobody", 0))?,
        };
        bytes.extend_from_slice(&request);
    }
    let sender = std::thread::spawn(move || writer.write_all(&bytes));
    for expected in 0..FLOOD {
        let mut frame = client.read_frame()?.ok_or("closed within the flood")?;
        assert_eq!(frame.get_i32(), expected);
    }
    sender.join().map_err(|_| "the sender panicked")??;
    Ok(())
}

/// Asks for 4 GiB and reads nothing: the broker must stop reading instead of buffering.
fn client_that_never_reads(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "never-reads", 1, &[])?;
    let batch = RawBatch::of_size(1_000_000, now_ms());
    assert_eq!(requests::produce(&mut client, &topic, batch.encode())?.error_code, 0);
    let fetch = raw::encode(12, 7, &requests::fetch_request(&topic, 0))?;
    client.stream().set_write_timeout(Some(Duration::from_secs(2)))?;
    for _ in 0..4_000 {
        match client.stream().write(&fetch) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error.into()),
        }
    }
    good_client::check(broker.bootstrap())?;
    if let Some(resident) = broker.resident_bytes()? {
        assert!(resident <= crate::RESIDENT_BYTES_MAX, "unread answers cost {resident} bytes");
    }
    Ok(())
}
