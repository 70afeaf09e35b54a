//! A client that asks for nothing strange: what a broker must still serve after every attack.

use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::protocol::StrBytes;

use super::{RawBatch, RawClient, Tested, batch, now_ms, requests};

/// Connects, negotiates, creates a topic, produces, fetches and lists its end. Panics or errors
/// when any answer is not the right one.
pub fn check(bootstrap: &str) -> Tested {
    let mut client = RawClient::connect(bootstrap)?;
    let hello = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("vltava-tests"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    let versions = client.call(3, &hello)?;
    assert_eq!(versions.error_code, 0);
    assert!(versions.api_keys.iter().any(|api| api.api_key == 0), "Produce is served");

    let topic = requests::create_topic(&mut client, "good", 1, &[])?;
    let sent = RawBatch::of(2, now_ms());
    let appended = requests::produce(&mut client, &topic, sent.encode())?;
    assert_eq!((appended.error_code, appended.base_offset), (0, 0));
    let fetched = requests::fetch(&mut client, &topic, 0)?;
    assert_eq!((fetched.error_code, fetched.high_watermark), (0, 2));
    let batches = batch::split(&fetched.records.ok_or("no records came back")?)?;
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].records()?, sent.records);
    let end = requests::list_offsets(&mut client, 7, &topic, -1)?;
    assert_eq!((end.error_code, end.offset), (0, 2));
    Ok(())
}
