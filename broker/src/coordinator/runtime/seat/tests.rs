//! The seat over a log that is a list.

use super::*;
use crate::coordinator::shard::toy::{Ask, Toy};

#[derive(Default)]
struct ListLog {
    batches: Vec<Validated>,
    refuses: Option<ErrorCode>,
}

impl Log for ListLog {
    fn append(
        &mut self,
        _: LeaderEpoch,
        batch: &Validated,
        _: Timestamp,
    ) -> Result<Offset, ErrorCode> {
        if let Some(code) = self.refuses {
            return Err(code);
        }
        self.batches.push(batch.clone());
        Ok(Offset(self.batches.len() as i64))
    }
}

const NOW: Timestamp = Timestamp(1000);

fn leading(log: &mut ListLog) -> Seat<Toy> {
    let mut seat = Seat::new(Toy::default());
    seat.on_elected(LeaderEpoch(3), NOW, log, &mut Vec::new());
    seat
}

fn put(seat: &mut Seat<Toy>, token: u64, text: &str, log: &mut ListLog) -> Replies<Toy> {
    let mut replies = Vec::new();
    seat.handle(Token(token), Ask::Put("k", text.into()), NOW, log, &mut replies);
    replies
}

#[test]
fn an_answer_leaves_when_its_append_is_committed() {
    let mut log = ListLog::default();
    let mut seat = leading(&mut log);
    assert!(put(&mut seat, 1, "a", &mut log).is_empty());
    assert!(put(&mut seat, 2, "b", &mut log).is_empty());
    assert_eq!((seat.applied(), log.batches.len()), (Offset(0), 2));
    let mut replies = Vec::new();
    seat.on_committed(NOW, &mut log, &mut replies);
    assert_eq!(replies, [(Token(1), Ok(Some("a".into())))]);
    assert_eq!((seat.applied(), &*seat.shard().committed["k"]), (Offset(1), "a"));
}

#[test]
fn a_refused_append_is_answered_at_once() {
    let mut log = ListLog::default();
    let mut seat = leading(&mut log);
    put(&mut seat, 1, "a", &mut log);
    log.refuses = Some(ErrorCode::MessageTooLarge);
    let replies = put(&mut seat, 2, "b", &mut log);
    assert_eq!(replies, [(Token(2), Err(ErrorCode::MessageTooLarge))]);
    let mut replies = Vec::new();
    seat.on_committed(NOW, &mut log, &mut replies);
    assert_eq!(replies.len(), 1, "the one before it is not touched");
}

#[test]
fn nothing_is_appended_behind_a_refused_append() {
    let mut log = ListLog { refuses: Some(ErrorCode::KafkaStorageError), ..ListLog::default() };
    let mut seat = leading(&mut log);
    let mut replies = Vec::new();
    let twice = Ask::PutTwice("k", ["a".into(), "b".into()]);
    seat.handle(Token(1), twice, NOW, &mut log, &mut replies);
    assert_eq!(replies.len(), 2, "both were taken back");
    assert!(log.batches.is_empty());
    log.refuses = None;
    put(&mut seat, 2, "c", &mut log);
    replies.clear();
    seat.on_committed(NOW, &mut log, &mut replies);
    assert_eq!(replies, [(Token(2), Ok(Some("c".into())))]);
}

#[test]
fn a_lost_leadership_leaves_a_follower_at_what_was_committed() {
    let mut log = ListLog::default();
    let mut seat = leading(&mut log);
    for (token, text) in [(1, "a"), (2, "b"), (3, "c")] {
        put(&mut seat, token, text, &mut log);
    }
    seat.on_committed(NOW, &mut log, &mut Vec::new());
    let mut replies = Vec::new();
    seat.on_lost(&mut replies);
    let lost: Vec<_> = replies.iter().map(|(token, answer)| (token.0, answer.clone())).collect();
    let elsewhere = Err(ErrorCode::NotCoordinator);
    assert_eq!(lost, [(2, elsewhere.clone()), (3, elsewhere)]);
    assert_eq!((seat.epoch(), seat.applied()), (None, Offset(1)));
    seat.on_lost(&mut replies);
    assert_eq!(replies.len(), 2, "it is lost once");

    // What another leader wrote in their place.
    seat.replay(b"k", Some(b"other"));
    seat.advance(Offset(2));
    seat.on_elected(LeaderEpoch(5), NOW, &mut log, &mut replies);
    assert_eq!(&*seat.shard().committed["k"], "other");
    assert_eq!((seat.shard().elections, seat.epoch()), (2, Some(LeaderEpoch(5))));
}

#[test]
fn only_a_leader_has_deadlines() {
    let mut log = ListLog::default();
    let mut seat = leading(&mut log);
    let mut replies = Vec::new();
    let wait = Ask::Wait(Some(Timestamp(2000)));
    seat.handle(Token(1), wait, NOW, &mut log, &mut replies);
    assert_eq!(seat.next_deadline(), Some(Timestamp(2000)));
    seat.on_time(Timestamp(1999), &mut log, &mut replies);
    assert!(replies.is_empty());
    seat.on_time(Timestamp(2000), &mut log, &mut replies);
    assert_eq!(replies, [(Token(1), Ok(None))]);
    seat.handle(Token(2), Ask::Wait(Some(Timestamp(3000))), NOW, &mut log, &mut replies);
    seat.on_lost(&mut replies);
    assert_eq!(seat.next_deadline(), None);
}
