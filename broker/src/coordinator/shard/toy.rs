//! The least shard there is: texts under keys. For the tests of what runs shards.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::Timestamp;

use super::{Effect, EffectOf, Shard, Token};
use crate::coordinator::overlay::Seq;

/// What the toy is asked.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// Set a key; answered with the text once that is committed.
    Put(&'static str, String),
    /// Set a key to each of two texts, by an append each; answered once the second is committed.
    PutTwice(&'static str, [String; 2]),
    /// The committed text of a key, at once.
    Get(&'static str),
    /// Waits until this time, or for ever.
    Wait(Option<Timestamp>),
}

/// Texts under keys.
#[derive(Default)]
pub(crate) struct Toy {
    pub(crate) committed: BTreeMap<String, String>,
    appended: VecDeque<(Seq, Token, String, String)>,
    pub(crate) waiting: BTreeMap<Token, Option<Timestamp>>,
    pub(crate) cancelled: HashSet<Token>,
    pub(crate) elections: u32,
    next: u64,
}

impl Toy {
    fn put(&mut self, token: Token, key: &str, value: String, out: &mut Vec<EffectOf<Self>>) {
        self.next += 1;
        let seq = Seq(self.next);
        out.push(Effect::Append { seq, records: vec![(key.into(), value.clone())] });
        self.appended.push_back((seq, token, key.into(), value));
    }
}

impl Shard for Toy {
    type Request = Ask;
    type Response = Result<Option<String>, ErrorCode>;
    type Record = (String, String);

    fn encode((key, value): &Self::Record) -> (Bytes, Option<Bytes>) {
        (Bytes::from(key.clone()), Some(Bytes::from(value.clone())))
    }

    fn replay(&mut self, key: &[u8], value: Option<&[u8]>) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        match value {
            Some(value) => self.committed.insert(text(key), text(value)),
            None => self.committed.remove(&text(key)),
        };
    }

    fn on_elected(&mut self, _: Timestamp, _: &mut Vec<EffectOf<Self>>) {
        self.elections += 1;
    }

    fn on_lost(&mut self, out: &mut Vec<EffectOf<Self>>) {
        let puts = self.appended.drain(..).map(|(_, token, ..)| token);
        let waits = std::mem::take(&mut self.waiting).into_keys();
        for token in puts.chain(waits) {
            out.push(Effect::Reply { token, response: Err(ErrorCode::NotCoordinator) });
        }
    }

    fn handle(&mut self, token: Token, request: Ask, _: Timestamp, out: &mut Vec<EffectOf<Self>>) {
        match request {
            Ask::Put(key, value) => self.put(token, key, value, out),
            Ask::PutTwice(key, values) => {
                for value in values {
                    self.put(token, key, value, out);
                }
            }
            Ask::Get(key) => {
                let response = Ok(self.committed.get(key).cloned());
                out.push(Effect::Reply { token, response });
            }
            Ask::Wait(until) => {
                self.waiting.insert(token, until);
            }
        }
    }

    fn on_committed(&mut self, seq: Seq, _: Timestamp, out: &mut Vec<EffectOf<Self>>) {
        while let Some((at, token, key, value)) = self.appended.pop_front() {
            if at > seq {
                self.appended.push_front((at, token, key, value));
                return;
            }
            out.push(Effect::Reply { token, response: Ok(Some(value.clone())) });
            self.committed.insert(key, value);
        }
    }

    fn on_refused(
        &mut self,
        seq: Seq,
        code: ErrorCode,
        _: Timestamp,
        out: &mut Vec<EffectOf<Self>>,
    ) {
        self.next = seq.0 - 1;
        while let Some((_, token, ..)) = self.appended.pop_back_if(|(at, ..)| *at >= seq) {
            out.push(Effect::Reply { token, response: Err(code) });
        }
    }

    fn on_time(&mut self, now: Timestamp, out: &mut Vec<EffectOf<Self>>) {
        let due = |until: &Option<Timestamp>| until.is_some_and(|until| until <= now);
        for (token, _) in self.waiting.extract_if(.., |_, until| due(until)) {
            out.push(Effect::Reply { token, response: Ok(None) });
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        self.waiting.values().flatten().min().copied()
    }

    fn cancel(&mut self, token: Token) {
        self.waiting.remove(&token);
        self.cancelled.insert(token);
    }
}
