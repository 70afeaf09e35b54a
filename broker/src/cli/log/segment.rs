//! A segment file: its header, its batches one behind the other, and the rules between them.

use bytes::Bytes;
use serde_json::{Value, json};
use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, BatchHeader, verify_crc};
use vltava_protocol::record::compression::{Codec, decompress};
use vltava_protocol::record::control::{InternalBatch, InternalKind};
use vltava_protocol::record::record::{Record, Records};
use vltava_storage::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};

use super::{Line, Printer};
use crate::cli::{CommandError, output};

/// The most bytes that one batch may inflate to.
const INFLATED_BYTES_MAX: usize = 512 << 20;

/// Where the walk is, and what the next batch must fit to.
struct Place {
    position: usize,
    index: u64,
    offset: Offset,
    epoch: LeaderEpoch,
}

pub(super) fn dump(
    printer: &mut Printer<'_>,
    header: &SegmentHeader,
    content: &Bytes,
    with_records: bool,
) -> Result<(), CommandError> {
    printer.print(header_line(header))?;
    let mut place = Place {
        position: SEGMENT_HEADER_BYTES as usize,
        index: header.base_index.0,
        offset: header.base_offset,
        epoch: header.epoch_before,
    };
    while place.position < content.len() {
        let rest = content.slice(place.position..);
        let batch = BatchHeader::parse(&rest)
            .ok()
            .filter(|batch| batch.size() <= rest.len())
            .map(|batch| (batch, rest.slice(..batch.size())));
        let Some((batch, bytes)) = batch.filter(|(_, bytes)| verify_crc(bytes)) else {
            return tail(printer, place.position, &rest);
        };
        if let Some(wrong) = misplaced(&batch, &place) {
            printer.damage(place.position as u64, &wrong)?;
        }
        printer.print(batch_line(&batch, &bytes, &place))?;
        if with_records && !batch.is_internal() {
            records(printer, &batch, &bytes, place.position)?;
        }
        place = Place {
            position: place.position + batch.size(),
            index: place.index + 1,
            offset: batch.end_offset(),
            epoch: batch.leader_epoch,
        };
        printer.at(place.position);
    }
    let end =
        format!("  {:>10}  end: index {} offset {}", place.position, place.index, place.offset);
    let json = json!({
        "kind": "end", "position": place.position, "index": place.index, "offset": place.offset.0,
    });
    printer.print(Line { text: end, json })
}

fn header_line(header: &SegmentHeader) -> Line {
    let (id, generation) = (header.id, header.generation.0);
    let text = format!(
        "  segment {} of replica {}, generation {generation}: base index {} base offset {} after \
         epoch {}",
        id.segment.0, id.replica, header.base_index.0, header.base_offset, header.epoch_before
    );
    let json = json!({
        "kind": "segment",
        "segment": id.segment.0,
        "replica": id.replica.0,
        "generation": generation,
        "base_index": header.base_index.0,
        "base_offset": header.base_offset.0,
        "epoch_before": header.epoch_before.0,
    });
    Line { text, json }
}

/// What of a batch contradicts the ones before it.
fn misplaced(batch: &BatchHeader, place: &Place) -> Option<String> {
    if batch.base_offset != place.offset {
        return Some(format!("gap: offset {} follows, not {}", batch.base_offset, place.offset));
    }
    (batch.leader_epoch < place.epoch)
        .then(|| format!("epoch {} after epoch {}", batch.leader_epoch, place.epoch))
}

fn batch_line(batch: &BatchHeader, bytes: &Bytes, place: &Place) -> Line {
    let mut json = json!({
        "kind": "batch",
        "position": place.position,
        "index": place.index,
        "bytes": batch.size(),
        "base_offset": batch.base_offset.0,
        "end_offset": batch.end_offset().0,
        "leader_epoch": batch.leader_epoch.0,
        "records": batch.record_count,
    });
    let start = format!(
        "  {:>10}  index {} epoch {} offset {}",
        place.position, place.index, batch.leader_epoch, batch.base_offset
    );
    if batch.is_internal() {
        let what = internal(bytes);
        json["internal"] = Value::from(what.clone());
        return Line { text: format!("{start} {what} ({} bytes)", batch.size()), json };
    }
    let codec = batch.attributes.codec().map_or("unknown codec", Codec::name);
    json["codec"] = Value::from(codec);
    json["base_timestamp"] = Value::from(batch.base_timestamp.0);
    json["max_timestamp"] = Value::from(batch.max_timestamp.0);
    let text = format!(
        "{start}..{} {} record(s) {codec} {} bytes time {}",
        batch.last_offset(),
        batch.record_count,
        batch.size(),
        batch.max_timestamp
    );
    let mut line = Line { text, json };
    if batch.has_producer() {
        line.json["producer_id"] = Value::from(batch.producer_id.0);
        line.json["producer_epoch"] = Value::from(batch.producer_epoch.0);
        line.json["base_sequence"] = Value::from(batch.base_sequence.0);
        line.add(&format!(
            " producer {} epoch {} sequence {}",
            batch.producer_id, batch.producer_epoch, batch.base_sequence
        ));
    }
    for (flag, name) in [
        (batch.attributes.is_transactional(), "transactional"),
        (batch.attributes.is_control(), "control"),
    ] {
        if flag {
            line.json[name] = Value::from(true);
            line.add(&format!(" {name}"));
        }
    }
    line
}

/// What an internal batch is for.
fn internal(bytes: &Bytes) -> String {
    let (kind, body) = match InternalBatch::parse(bytes) {
        Ok(parsed) => parsed,
        Err(error) => return format!("internal: {error}"),
    };
    match kind {
        InternalKind::LogStart => match InternalBatch::parse_log_start(&body) {
            Some(offset) => format!("LogStart {offset}"),
            None => "LogStart without offset".to_owned(),
        },
        InternalKind::Fence => match InternalBatch::parse_fence(&body) {
            Some((producer, epoch)) => format!("Fence producer {producer} epoch {epoch}"),
            None => "Fence without producer".to_owned(),
        },
        other => format!("{other:?}"),
    }
}

fn records(
    printer: &mut Printer<'_>,
    batch: &BatchHeader,
    bytes: &Bytes,
    position: usize,
) -> Result<(), CommandError> {
    let payload = &bytes[BATCH_HEADER_BYTES..];
    let mut inflated = Vec::new();
    let payload = match batch.attributes.codec() {
        Some(Codec::None) => payload,
        Some(codec) => match decompress(codec, payload, INFLATED_BYTES_MAX, &mut inflated) {
            Ok(()) => &inflated,
            Err(error) => return printer.damage(position as u64, &error.to_string()),
        },
        None => return printer.damage(position as u64, "unknown codec"),
    };
    for record in Records::new(payload, batch.record_count) {
        match record {
            Ok(record) => printer.print(record_line(batch, &record))?,
            Err(error) => return printer.damage(position as u64, &error.to_string()),
        }
    }
    Ok(())
}

fn record_line(batch: &BatchHeader, record: &Record<'_>) -> Line {
    let offset = batch.base_offset + i64::from(record.offset_delta);
    let timestamp = batch.timestamp_of(record.timestamp_delta);
    let [key, value] = [record.key, record.value].map(output::bytes);
    let headers: Vec<Value> = record
        .headers
        .iter()
        .map(|header| json!([output::bytes(Some(header.key)), output::bytes(header.value)]))
        .collect();
    let headers = Value::from(headers);
    let text = format!(
        "              offset {offset} time {timestamp} key {key} value {value} headers {headers}"
    );
    let json = json!({
        "kind": "record",
        "offset": offset.0,
        "timestamp": timestamp.0,
        "key": key,
        "value": value,
        "headers": headers,
    });
    Line { text, json }
}

/// What lies behind the last good batch. If good batches follow, the bad place is damage; else it
/// is a tail that was never written whole.
fn tail(printer: &mut Printer<'_>, position: usize, rest: &Bytes) -> Result<(), CommandError> {
    let is_batch = |start: &usize| {
        let bytes = rest.slice(*start..);
        let header = BatchHeader::parse(&bytes).ok().filter(|batch| batch.size() <= bytes.len());
        header.is_some_and(|batch| verify_crc(&bytes[..batch.size()]))
    };
    if let Some(good) = (1..rest.len()).find(is_batch) {
        let next = position + good;
        return printer.damage(position as u64, &format!("no batch up to {next}, then good ones"));
    }
    let written = rest.iter().filter(|&&byte| byte != 0).count();
    let text = format!(
        "  {position:>10}  torn tail: {} bytes without a whole batch, {written} of them not zero",
        rest.len()
    );
    let json =
        json!({ "kind": "tail", "position": position, "bytes": rest.len(), "nonzero": written });
    printer.print(Line { text, json })
}
