//! Requests whose newest version the wire crate does not read yet: `OffsetCommit` 10 and
//! `OffsetFetch` 10, which name topics by id and are otherwise as version 9 (KAFKA-14690).

use bytes::{Buf, Bytes};
use uuid::Uuid;

use super::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use super::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use super::{DecodeError, OffsetCommitRequest, OffsetFetchRequest, RequestBody, StrBytes};

/// The first version of both that names topics by id.
pub const TOPIC_IDS_FROM: i16 = 10;

/// An `OffsetCommit` of any version. From [`TOPIC_IDS_FROM`] on the names of topics are empty.
#[derive(Clone, Debug, PartialEq)]
pub struct AnyOffsetCommit(pub OffsetCommitRequest);

/// An `OffsetFetch` of any version. From [`TOPIC_IDS_FROM`] on the names of topics are empty.
#[derive(Clone, Debug, PartialEq)]
pub struct AnyOffsetFetch(pub OffsetFetchRequest);

impl RequestBody for AnyOffsetCommit {
    fn read(mut frame: Bytes, version: i16) -> Result<Self, DecodeError> {
        if version != TOPIC_IDS_FROM {
            return OffsetCommitRequest::read(frame, version).map(Self);
        }
        offset_commit(&mut frame).map(Self).map_err(|error| error.at(version))
    }
}

impl RequestBody for AnyOffsetFetch {
    fn read(mut frame: Bytes, version: i16) -> Result<Self, DecodeError> {
        if version != TOPIC_IDS_FROM {
            return OffsetFetchRequest::read(frame, version).map(Self);
        }
        offset_fetch(&mut frame).map(Self).map_err(|error| error.at(version))
    }
}

/// What is wrong with a body.
struct Malformed(&'static str);

type Read<T> = Result<T, Malformed>;

impl Malformed {
    fn at(&self, version: i16) -> DecodeError {
        DecodeError { version, reason: self.0.to_owned() }
    }
}

fn offset_commit(body: &mut Bytes) -> Read<OffsetCommitRequest> {
    let request = OffsetCommitRequest::default()
        .with_group_id(text(body)?.into())
        .with_generation_id_or_member_epoch(int(body)?)
        .with_member_id(text(body)?)
        .with_group_instance_id(nullable_text(body)?)
        .with_topics(array(body, |body| {
            let topic = OffsetCommitRequestTopic::default()
                .with_topic_id(uuid(body)?)
                .with_partitions(array(body, |body| {
                    let partition = OffsetCommitRequestPartition::default()
                        .with_partition_index(int(body)?)
                        .with_committed_offset(long(body)?)
                        .with_committed_leader_epoch(int(body)?)
                        .with_committed_metadata(nullable_text(body)?);
                    tags(body)?;
                    Ok(partition)
                })?);
            tags(body)?;
            Ok(topic)
        })?);
    tags(body)?;
    Ok(request)
}

fn offset_fetch(body: &mut Bytes) -> Read<OffsetFetchRequest> {
    let groups = array(body, |body| {
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(text(body)?.into())
            .with_member_id(nullable_text(body)?)
            .with_member_epoch(int(body)?)
            .with_topics(nullable_array(body, |body| {
                let topic = OffsetFetchRequestTopics::default()
                    .with_topic_id(uuid(body)?)
                    .with_partition_indexes(array(body, int)?);
                tags(body)?;
                Ok(topic)
            })?);
        tags(body)?;
        Ok(group)
    })?;
    let require_stable = body.try_get_u8().map_err(|_| SHORT)? != 0;
    tags(body)?;
    Ok(OffsetFetchRequest::default().with_groups(groups).with_require_stable(require_stable))
}

const SHORT: Malformed = Malformed("the body ends too early");

fn int(body: &mut Bytes) -> Read<i32> {
    body.try_get_i32().map_err(|_| SHORT)
}

fn long(body: &mut Bytes) -> Read<i64> {
    body.try_get_i64().map_err(|_| SHORT)
}

fn uuid(body: &mut Bytes) -> Read<Uuid> {
    body.try_get_u128().map(Uuid::from_u128).map_err(|_| SHORT)
}

/// An unsigned varint of 32 bits.
fn varint(body: &mut Bytes) -> Read<u32> {
    let mut value = 0;
    for shift in (0..32).step_by(7) {
        let byte = body.try_get_u8().map_err(|_| SHORT)?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("a length has more than five bytes"))
}

/// A length that is written one greater; `None` is null.
fn length(body: &mut Bytes) -> Read<Option<usize>> {
    Ok(varint(body)?.checked_sub(1).map(|length| length as usize))
}

fn nullable_text(body: &mut Bytes) -> Read<Option<StrBytes>> {
    let Some(length) = length(body)? else { return Ok(None) };
    if length > i16::MAX as usize {
        return Err(Malformed("a text is too long"));
    }
    if length > body.len() {
        return Err(SHORT);
    }
    let text = StrBytes::try_from(body.split_to(length));
    text.map(Some).map_err(|_| Malformed("a text is not UTF-8"))
}

fn text(body: &mut Bytes) -> Read<StrBytes> {
    nullable_text(body)?.ok_or(Malformed("a text is null that must not be"))
}

/// Grows with what is there: a count alone reserves nothing.
fn nullable_array<T>(
    body: &mut Bytes,
    mut element: impl FnMut(&mut Bytes) -> Read<T>,
) -> Read<Option<Vec<T>>> {
    let Some(count) = length(body)? else { return Ok(None) };
    let mut elements = Vec::new();
    for _ in 0..count {
        elements.push(element(body)?);
    }
    Ok(Some(elements))
}

fn array<T>(body: &mut Bytes, element: impl FnMut(&mut Bytes) -> Read<T>) -> Read<Vec<T>> {
    nullable_array(body, element)?.ok_or(Malformed("an array is null that must not be"))
}

/// Passes over tagged fields: neither request has any.
fn tags(body: &mut Bytes) -> Read<()> {
    for _ in 0..varint(body)? {
        varint(body)?;
        let length = varint(body)? as usize;
        if length > body.len() {
            return Err(SHORT);
        }
        body.advance(length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;

    /// Reads the body, and no body that ends before.
    fn check<R: RequestBody + PartialEq + std::fmt::Debug>(body: &[u8], expected: &R) {
        let body = Bytes::copy_from_slice(body);
        assert_eq!(&R::read(body.clone(), 10).unwrap(), expected);
        for length in 0..body.len() {
            let error = R::read(body.slice(..length), 10).unwrap_err();
            assert!(error.to_string().contains("version 10"), "{error}");
        }
    }

    #[test]
    fn offset_commits_name_topics_by_id() {
        let mut body = b"\x02g\0\0\0\x05\x02m\0\x02".to_vec();
        body.extend_from_slice(&ID.to_be_bytes());
        // One partition, with a tagged field that nobody knows.
        body.extend_from_slice(b"\x02\0\0\0\x03\0\0\0\0\0\0\0\x09\0\0\0\x01\x03ab\x01\x07\x02xy");
        body.extend_from_slice(b"\0\0");
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(3)
            .with_committed_offset(9)
            .with_committed_leader_epoch(1)
            .with_committed_metadata(Some(StrBytes::from_static_str("ab")));
        let topic = OffsetCommitRequestTopic::default()
            .with_topic_id(Uuid::from_u128(ID))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(StrBytes::from_static_str("g").into())
            .with_generation_id_or_member_epoch(5)
            .with_member_id(StrBytes::from_static_str("m"))
            .with_topics(vec![topic]);
        check(&body, &AnyOffsetCommit(request));
    }

    #[test]
    fn offset_fetches_name_topics_by_id() {
        let mut body = b"\x03\x02g\0\xff\xff\xff\xff\x02".to_vec();
        body.extend_from_slice(&ID.to_be_bytes());
        body.extend_from_slice(b"\x03\0\0\0\0\0\0\0\x01\0\0");
        body.extend_from_slice(b"\x02h\x01\0\0\0\x02\0\0\x01\0");
        let topic = OffsetFetchRequestTopics::default()
            .with_topic_id(Uuid::from_u128(ID))
            .with_partition_indexes(vec![0, 1]);
        let group = |name| {
            OffsetFetchRequestGroup::default()
                .with_group_id(StrBytes::from_static_str(name).into())
                .with_member_epoch(-1)
        };
        let all = group("h").with_member_id(Some(StrBytes::default())).with_member_epoch(2);
        let request = OffsetFetchRequest::default()
            .with_groups(vec![group("g").with_topics(Some(vec![topic])), all.with_topics(None)])
            .with_require_stable(true);
        check(&body, &AnyOffsetFetch(request));
    }

    #[test]
    fn lies_are_errors_and_reserve_nothing() {
        for body in [
            &b"\x02g\0\0\0\x05\x02m\0\xff\xff\xff\xff\x0f"[..],
            b"\xff\xff\xff\xff\x0fg",
            b"\xff\xff\xff\xff\xff\xff",
            b"\0",
            b"\x02\xff\0\0\0\x05\x02m\0\x01\0",
        ] {
            assert!(AnyOffsetCommit::read(Bytes::copy_from_slice(body), 10).is_err(), "{body:?}");
        }
    }
}
