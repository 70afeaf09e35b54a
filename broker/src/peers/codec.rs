//! Peer messages as bytes: small heads in one buffer, batches spliced in between, never copied.
//!
//! ```text
//! frame    length u32 | version u8 | boot u64 | crc32 u32 | heads_len u32 | heads | bulk
//! heads    one or more: kind u8 | from u64 | to u64 | term u64 | fields of the kind
//! bulk     the batches, chunks and manifests that the heads name by their length, in that order
//! ```
//!
//! All integers are big-endian; `length` counts what follows it. The CRC-32 covers version, boot,
//! heads, and of every batch the 17 bytes that the batch's own CRC-32C leaves out; the rest of a
//! batch is covered by that, and other bulk by a CRC-32 in its head. So nothing of a frame that was
//! damaged on its way reaches a log.
//!
//! **Invariants:** decoding allocates in proportion to the bytes of the frame that are there, never
//! to a count that they claim; an error ends the link, since where the next frame begins is unknown.
//!
//! The links call [`encode`] and [`decode`]; nothing here outlives a connection but [`BootFilter`].

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use vltava_protocol::record::batch::{BATCH_PREFIX_BYTES, verify_crc};
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::Durability;

use crate::replica::message::{Electorate, Known, Payload, PeerBody, PeerEntry, PeerMessage};

/// Bytes of a batch that its own checksum does not cover and that do not hold it: the prefix and
/// the magic.
const BATCH_UNCHECKED_BYTES: usize = BATCH_PREFIX_BYTES + 1;
/// The version of this format. A peer of another version is refused.
pub const FRAME_VERSION: u8 = 1;
/// Most bytes of a frame, its length field included: the largest request that a client may send
/// (Kafka's `socket.request.max.bytes`) and room for heads.
pub const FRAME_BYTES_MAX: usize = (100 << 20) + HEADS_BYTES_MAX;
/// Most bytes of a frame's heads.
pub const HEADS_BYTES_MAX: usize = 4 << 20;
/// Most bytes of one change of membership in raft's encoding.
pub const CONF_CHANGE_BYTES_MAX: usize = 64 << 10;

const LENGTH_BYTES: usize = 4;
const CRC_AT: usize = LENGTH_BYTES + 1 + 8;
const HEADS_AT: usize = CRC_AT + 4 + 4;
/// The least that one entry takes in the heads.
const ENTRY_HEAD_BYTES_MIN: usize = 8 + 8 + 1;
const _: () = assert!(CONF_CHANGE_BYTES_MAX < HEADS_BYTES_MAX && HEADS_BYTES_MAX < FRAME_BYTES_MAX);

/// What travels at once from one node to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerFrame {
    /// The number of the sender's start: rises each time its process begins. See [`BootFilter`].
    pub boot: u64,
    /// What its replicas say.
    pub messages: Vec<PeerMessage>,
}

/// Why bytes are no frame. The link must be closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// Longer than [`FRAME_BYTES_MAX`], or shorter than a frame's fixed part.
    #[error("frame of {0} bytes is out of bounds")]
    Length(u32),
    /// A format that this program does not know.
    #[error("peer frame of version {0}, only {FRAME_VERSION} is supported")]
    Version(u8),
    /// The heads are longer than the frame or than [`HEADS_BYTES_MAX`].
    #[error("heads of {0} bytes are out of bounds")]
    HeadsLength(u32),
    /// Version, boot number, heads or the prefix of a batch were damaged.
    #[error("peer frame fails its checksum")]
    Crc,
    /// A batch was damaged.
    #[error("batch of entry {index} fails its checksum")]
    BatchCrc {
        /// Which entry holds it.
        index: LogIndex,
    },
    /// A chunk or a manifest was damaged.
    #[error("bulk data of {0} bytes fails its checksum")]
    BulkCrc(usize),
    /// A head ends in the middle, or bulk data is missing.
    #[error("peer frame ends in the middle of a {0}")]
    Truncated(&'static str),
    /// A number that names nothing.
    #[error("unknown {what} {number}")]
    Unknown {
        /// What it should name.
        what: &'static str,
        /// The number.
        number: u8,
    },
    /// A change of membership beyond [`CONF_CHANGE_BYTES_MAX`].
    #[error("membership change of {0} bytes is too long")]
    ConfChangeLength(u32),
    /// Bytes that belong to no head.
    #[error("{0} bytes of the frame belong to nothing")]
    Excess(usize),
}

/// The frame as pieces for one vectored write: the heads, then the bulk data as it lies in memory.
///
/// # Panics
/// If the frame exceeds [`FRAME_BYTES_MAX`] or its heads [`HEADS_BYTES_MAX`]: whoever gathers
/// messages bounds them by [`message_bytes`].
pub fn encode(frame: &PeerFrame) -> Vec<Bytes> {
    let mut heads = BytesMut::with_capacity(HEADS_AT + 64 * frame.messages.len());
    heads.put_bytes(0, LENGTH_BYTES);
    heads.put_u8(FRAME_VERSION);
    heads.put_u64(frame.boot);
    heads.put_bytes(0, HEADS_AT - CRC_AT);
    let mut bulk = Vec::new();
    let mut prefixes = crc32fast::Hasher::new();
    for message in &frame.messages {
        put_message(message, &mut heads, &mut bulk, &mut prefixes);
    }
    let heads_len = heads.len() - HEADS_AT;
    assert!(heads_len <= HEADS_BYTES_MAX, "heads of {heads_len} bytes");
    let total = heads.len() + bulk.iter().map(Bytes::len).sum::<usize>();
    assert!(total <= FRAME_BYTES_MAX, "frame of {total} bytes");
    let mut crc = crc32fast::Hasher::new();
    crc.update(&heads[LENGTH_BYTES..CRC_AT]);
    crc.update(&heads[HEADS_AT..]);
    crc.combine(&prefixes);
    heads[..LENGTH_BYTES].copy_from_slice(&((total - LENGTH_BYTES) as u32).to_be_bytes());
    heads[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.finalize().to_be_bytes());
    heads[CRC_AT + 4..HEADS_AT].copy_from_slice(&(heads_len as u32).to_be_bytes());
    let mut pieces = Vec::with_capacity(1 + bulk.len());
    pieces.push(heads.freeze());
    pieces.append(&mut bulk);
    pieces
}

/// At least as many bytes as `message` takes in a frame.
pub fn message_bytes(message: &PeerMessage) -> usize {
    const MESSAGE_BYTES_MAX: usize = 96;
    const ENTRY_BYTES_MAX: usize = ENTRY_HEAD_BYTES_MIN + 4;
    let entry = |entry: &PeerEntry| match &entry.payload {
        Payload::Noop => ENTRY_BYTES_MAX,
        Payload::Batch(data) | Payload::ConfChange(data) | Payload::ConfChangeV2(data) => {
            ENTRY_BYTES_MAX + data.len()
        }
    };
    MESSAGE_BYTES_MAX
        + match &message.body {
            PeerBody::Append { entries, .. } => entries.iter().map(entry).sum(),
            PeerBody::Snapshot { manifest: data, .. } | PeerBody::Chunk { data, .. } => data.len(),
            PeerBody::Testimony { electorate: Electorate { voters, outgoing, .. }, .. } => {
                size_of::<u64>() * (voters.len() + outgoing.len())
            }
            _ => 0,
        }
}

/// Takes the next whole frame off `buffer`, or nothing while it is incomplete.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<PeerFrame>, CodecError> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length);
    let total = LENGTH_BYTES + length as usize;
    if !(HEADS_AT..=FRAME_BYTES_MAX).contains(&total) {
        return Err(CodecError::Length(length));
    }
    if buffer.len() < total {
        return Ok(None);
    }
    let frame = buffer.split_to(total).freeze();
    let mut fixed = &frame[LENGTH_BYTES..];
    let version = fixed.get_u8();
    if version != FRAME_VERSION {
        return Err(CodecError::Version(version));
    }
    let (boot, crc, heads_len) = (fixed.get_u64(), fixed.get_u32(), fixed.get_u32());
    if heads_len as usize > HEADS_BYTES_MAX.min(total - HEADS_AT) {
        return Err(CodecError::HeadsLength(heads_len));
    }
    let bulk_at = HEADS_AT + heads_len as usize;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[LENGTH_BYTES..CRC_AT]);
    hasher.update(&frame[HEADS_AT..bulk_at]);
    let mut reader =
        Reader { heads: frame.slice(HEADS_AT..bulk_at), bulk: frame.slice(bulk_at..), hasher };
    let mut messages = Vec::new();
    while reader.heads.has_remaining() {
        messages.push(reader.message()?);
    }
    if reader.bulk.has_remaining() {
        return Err(CodecError::Excess(reader.bulk.len()));
    }
    if reader.hasher.finalize() != crc {
        return Err(CodecError::Crc);
    }
    Ok(Some(PeerFrame { boot, messages }))
}

/// Drops what a node said before it last started: an acknowledgement of an earlier life may be one
/// that it has lost since (Architecture, "Three kinds of loss").
#[derive(Clone, Debug)]
pub struct BootFilter<N> {
    newest: BTreeMap<N, u64>,
}

impl<N> Default for BootFilter<N> {
    fn default() -> Self {
        Self { newest: BTreeMap::new() }
    }
}

impl<N: Ord> BootFilter<N> {
    /// Whether a frame of `node` with the boot number `boot` may be heard.
    pub fn admits(&mut self, node: N, boot: u64) -> bool {
        let newest = self.newest.entry(node).or_insert(boot);
        *newest = boot.max(*newest);
        *newest == boot
    }
}

/// The numbers on the wire; they never change their meaning.
mod kind {
    pub(super) const REQUEST_VOTE: u8 = 1;
    pub(super) const VOTE_RESPONSE: u8 = 2;
    pub(super) const APPEND: u8 = 3;
    pub(super) const APPEND_RESPONSE: u8 = 4;
    pub(super) const HEARTBEAT: u8 = 5;
    pub(super) const HEARTBEAT_RESPONSE: u8 = 6;
    pub(super) const TIMEOUT_NOW: u8 = 7;
    pub(super) const SNAPSHOT: u8 = 8;
    pub(super) const CHUNK_REQUEST: u8 = 9;
    pub(super) const CHUNK: u8 = 10;
    pub(super) const TAIL_LOST: u8 = 11;
    pub(super) const SURVEY: u8 = 12;
    pub(super) const TESTIMONY: u8 = 13;
    pub(super) const TAIL_REFILL: u8 = 14;

    pub(super) const BATCH: u8 = 0;
    pub(super) const NOOP: u8 = 1;
    pub(super) const CONF_CHANGE: u8 = 2;
    pub(super) const CONF_CHANGE_V2: u8 = 3;
}

fn kind_of(body: &PeerBody) -> u8 {
    match body {
        PeerBody::RequestVote { .. } => kind::REQUEST_VOTE,
        PeerBody::VoteResponse { .. } => kind::VOTE_RESPONSE,
        PeerBody::Append { .. } => kind::APPEND,
        PeerBody::AppendResponse { .. } => kind::APPEND_RESPONSE,
        PeerBody::Heartbeat { .. } => kind::HEARTBEAT,
        PeerBody::HeartbeatResponse { .. } => kind::HEARTBEAT_RESPONSE,
        PeerBody::TimeoutNow => kind::TIMEOUT_NOW,
        PeerBody::Snapshot { .. } => kind::SNAPSHOT,
        PeerBody::ChunkRequest { .. } => kind::CHUNK_REQUEST,
        PeerBody::Chunk { .. } => kind::CHUNK,
        PeerBody::TailLost { .. } => kind::TAIL_LOST,
        PeerBody::Survey { .. } => kind::SURVEY,
        PeerBody::Testimony { .. } => kind::TESTIMONY,
        PeerBody::TailRefill { .. } => kind::TAIL_REFILL,
    }
}

fn put_message(
    message: &PeerMessage,
    heads: &mut BytesMut,
    bulk: &mut Vec<Bytes>,
    prefixes: &mut crc32fast::Hasher,
) {
    heads.put_u8(kind_of(&message.body));
    heads.put_u64(message.from.0);
    heads.put_u64(message.to.0);
    heads.put_u64(message.term);
    match &message.body {
        PeerBody::RequestVote { pre, transfer, last_index, last_term, commit, commit_term } => {
            heads.put_u8(u8::from(*pre) | u8::from(*transfer) << 1);
            put_u64s(heads, &[last_index.0, *last_term, commit.0, *commit_term]);
        }
        PeerBody::VoteResponse { pre, reject, commit, commit_term } => {
            heads.put_u8(u8::from(*pre) | u8::from(*reject) << 1);
            put_u64s(heads, &[commit.0, *commit_term]);
        }
        PeerBody::Append { prev_index, prev_term, commit, durability, entries } => {
            put_u64s(heads, &[prev_index.0, *prev_term, commit.0]);
            heads.put_u8(u8::from(*durability == Durability::PageCache));
            heads.put_u32(entries.len() as u32);
            for entry in entries {
                put_entry(entry, heads, bulk, prefixes);
            }
        }
        PeerBody::AppendResponse { index, reject, hint_index, hint_term, commit } => {
            heads.put_u8(u8::from(*reject));
            put_u64s(heads, &[index.0, hint_index.0, *hint_term, commit.0]);
        }
        PeerBody::Heartbeat { commit } | PeerBody::HeartbeatResponse { commit } => {
            heads.put_u64(commit.0);
        }
        PeerBody::TimeoutNow => {}
        PeerBody::Survey { nonce, known } => {
            put_u64s(heads, &[*nonce, known.index.0, known.term]);
        }
        PeerBody::Snapshot { index, last_term, manifest } => {
            put_u64s(heads, &[index.0, *last_term]);
            put_bulk(manifest, heads, bulk);
        }
        PeerBody::ChunkRequest { index, base_index, position } => {
            put_u64s(heads, &[index.0, base_index.0, *position]);
        }
        PeerBody::Chunk { index, base_index, position, data } => {
            put_u64s(heads, &[index.0, base_index.0, *position]);
            put_bulk(data, heads, bulk);
        }
        PeerBody::TailLost { last_index, last_term } => {
            put_u64s(heads, &[last_index.0, *last_term]);
        }
        PeerBody::Testimony { nonce, abstains, last_index, last_term, electorate, known } => {
            heads.put_u64(*nonce);
            heads.put_u8(u8::from(*abstains));
            put_u64s(heads, &[last_index.0, *last_term, known.index.0, known.term]);
            heads.put_u64(electorate.since.0);
            for replicas in [&electorate.voters, &electorate.outgoing] {
                heads.put_u32(replicas.len() as u32);
                for replica in replicas {
                    heads.put_u64(replica.0);
                }
            }
        }
        PeerBody::TailRefill { until } => heads.put_u64(until.0),
    }
}

fn put_u64s(heads: &mut BytesMut, numbers: &[u64]) {
    for number in numbers {
        heads.put_u64(*number);
    }
}

fn put_bulk(data: &Bytes, heads: &mut BytesMut, bulk: &mut Vec<Bytes>) {
    heads.put_u32(data.len() as u32);
    heads.put_u32(crc32fast::hash(data));
    if !data.is_empty() {
        bulk.push(data.clone());
    }
}

fn put_entry(
    entry: &PeerEntry,
    heads: &mut BytesMut,
    bulk: &mut Vec<Bytes>,
    prefixes: &mut crc32fast::Hasher,
) {
    heads.put_u64(entry.index.0);
    heads.put_u64(entry.term);
    match &entry.payload {
        Payload::Batch(batch) => {
            heads.put_u8(kind::BATCH);
            heads.put_u32(batch.len() as u32);
            prefixes.update(&batch[..BATCH_UNCHECKED_BYTES]);
            bulk.push(batch.clone());
        }
        Payload::Noop => heads.put_u8(kind::NOOP),
        Payload::ConfChange(change) => put_change(kind::CONF_CHANGE, change, heads),
        Payload::ConfChangeV2(change) => put_change(kind::CONF_CHANGE_V2, change, heads),
    }
}

fn put_change(kind: u8, change: &Bytes, heads: &mut BytesMut) {
    heads.put_u8(kind);
    heads.put_u32(change.len() as u32);
    heads.put_slice(change);
}

/// A frame being read: both parts only shrink.
struct Reader {
    heads: Bytes,
    bulk: Bytes,
    hasher: crc32fast::Hasher,
}

impl Reader {
    fn message(&mut self) -> Result<PeerMessage, CodecError> {
        let kind = self.u8()?;
        let (from, to, term) = (ReplicaId(self.u64()?), ReplicaId(self.u64()?), self.u64()?);
        let body = self.body(kind)?;
        Ok(PeerMessage { from, to, term, body })
    }

    fn body(&mut self, kind: u8) -> Result<PeerBody, CodecError> {
        Ok(match kind {
            kind::REQUEST_VOTE => {
                let [pre, transfer] = self.flags()?;
                let (last_index, last_term) = (self.index()?, self.u64()?);
                let (commit, commit_term) = (self.index()?, self.u64()?);
                PeerBody::RequestVote { pre, transfer, last_index, last_term, commit, commit_term }
            }
            kind::VOTE_RESPONSE => {
                let [pre, reject] = self.flags()?;
                let (commit, commit_term) = (self.index()?, self.u64()?);
                PeerBody::VoteResponse { pre, reject, commit, commit_term }
            }
            kind::APPEND => {
                let (prev_index, prev_term) = (self.index()?, self.u64()?);
                let commit = self.index()?;
                let [is_page_cache, _] = self.flags()?;
                let durability =
                    if is_page_cache { Durability::PageCache } else { Durability::Fsync };
                let entries = self.entries()?;
                PeerBody::Append { prev_index, prev_term, commit, durability, entries }
            }
            kind::APPEND_RESPONSE => {
                let [reject, _] = self.flags()?;
                let (index, hint_index) = (self.index()?, self.index()?);
                let (hint_term, commit) = (self.u64()?, self.index()?);
                PeerBody::AppendResponse { index, reject, hint_index, hint_term, commit }
            }
            kind::HEARTBEAT => PeerBody::Heartbeat { commit: self.index()? },
            kind::HEARTBEAT_RESPONSE => PeerBody::HeartbeatResponse { commit: self.index()? },
            kind::TIMEOUT_NOW => PeerBody::TimeoutNow,
            kind::SNAPSHOT => {
                let (index, last_term) = (self.index()?, self.u64()?);
                PeerBody::Snapshot { index, last_term, manifest: self.bulk()? }
            }
            kind::CHUNK_REQUEST => {
                let (index, base_index) = (self.index()?, self.index()?);
                PeerBody::ChunkRequest { index, base_index, position: self.u64()? }
            }
            kind::CHUNK => {
                let (index, base_index) = (self.index()?, self.index()?);
                let position = self.u64()?;
                PeerBody::Chunk { index, base_index, position, data: self.bulk()? }
            }
            kind::TAIL_LOST => {
                PeerBody::TailLost { last_index: self.index()?, last_term: self.u64()? }
            }
            kind::SURVEY => PeerBody::Survey { nonce: self.u64()?, known: self.known()? },
            kind::TESTIMONY => {
                let nonce = self.u64()?;
                let [abstains, _] = self.flags()?;
                let (last_index, last_term) = (self.index()?, self.u64()?);
                let (known, since) = (self.known()?, self.index()?);
                let (voters, outgoing) = (self.replicas()?, self.replicas()?);
                let electorate = Electorate { since, voters, outgoing };
                PeerBody::Testimony { nonce, abstains, last_index, last_term, electorate, known }
            }
            kind::TAIL_REFILL => PeerBody::TailRefill { until: self.index()? },
            number => return Err(CodecError::Unknown { what: "kind of message", number }),
        })
    }

    fn known(&mut self) -> Result<Known, CodecError> {
        Ok(Known { index: self.index()?, term: self.u64()? })
    }

    fn entries(&mut self) -> Result<Vec<PeerEntry>, CodecError> {
        let count = self.u32()? as usize;
        if count > self.heads.len() / ENTRY_HEAD_BYTES_MIN {
            return Err(CodecError::Truncated("list of entries"));
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let (index, term) = (self.index()?, self.u64()?);
            let payload = match self.u8()? {
                kind::BATCH => {
                    let length = self.u32()? as usize;
                    let batch = self.take_bulk(length)?;
                    if !verify_crc(&batch) {
                        return Err(CodecError::BatchCrc { index });
                    }
                    self.hasher.update(&batch[..BATCH_UNCHECKED_BYTES]);
                    Payload::Batch(batch)
                }
                kind::NOOP => Payload::Noop,
                kind::CONF_CHANGE => Payload::ConfChange(self.change()?),
                kind::CONF_CHANGE_V2 => Payload::ConfChangeV2(self.change()?),
                number => return Err(CodecError::Unknown { what: "kind of entry", number }),
            };
            entries.push(PeerEntry { index, term, payload });
        }
        Ok(entries)
    }

    fn change(&mut self) -> Result<Bytes, CodecError> {
        let length = self.u32()?;
        if length as usize > CONF_CHANGE_BYTES_MAX {
            return Err(CodecError::ConfChangeLength(length));
        }
        if self.heads.len() < length as usize {
            return Err(CodecError::Truncated("membership change"));
        }
        // A copy of a few bytes, so that raft's log does not keep the whole frame alive.
        Ok(Bytes::copy_from_slice(&self.heads.split_to(length as usize)))
    }

    fn bulk(&mut self) -> Result<Bytes, CodecError> {
        let (length, crc) = (self.u32()? as usize, self.u32()?);
        let data = self.take_bulk(length)?;
        if crc32fast::hash(&data) != crc {
            return Err(CodecError::BulkCrc(length));
        }
        Ok(data)
    }

    fn take_bulk(&mut self, length: usize) -> Result<Bytes, CodecError> {
        if self.bulk.len() < length {
            return Err(CodecError::Truncated("bulk"));
        }
        Ok(self.bulk.split_to(length))
    }

    fn replicas(&mut self) -> Result<Vec<ReplicaId>, CodecError> {
        let count = self.u32()? as usize;
        if count > self.heads.len() / size_of::<u64>() {
            return Err(CodecError::Truncated("list of replicas"));
        }
        (0..count).map(|_| self.u64().map(ReplicaId)).collect()
    }

    fn flags(&mut self) -> Result<[bool; 2], CodecError> {
        match self.u8()? {
            flags @ 0..=3 => Ok([flags & 1 != 0, flags & 2 != 0]),
            number => Err(CodecError::Unknown { what: "flags", number }),
        }
    }

    fn u8(&mut self) -> Result<u8, CodecError> {
        self.heads.try_get_u8().map_err(|_| CodecError::Truncated("head"))
    }

    fn u32(&mut self) -> Result<u32, CodecError> {
        self.heads.try_get_u32().map_err(|_| CodecError::Truncated("head"))
    }

    fn u64(&mut self) -> Result<u64, CodecError> {
        self.heads.try_get_u64().map_err(|_| CodecError::Truncated("head"))
    }

    fn index(&mut self) -> Result<LogIndex, CodecError> {
        self.u64().map(LogIndex)
    }
}

#[cfg(test)]
mod tests;
