use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    super::{ServiceName, frame::Frames},
    *,
};

const LIMITS: LaneLimits = LaneLimits { calls: 4, queue_bytes: 100 + 5 * WAITING_BYTES };

fn at(ms: u64) -> Time {
    Time::from_origin(Duration::from_millis(ms))
}

fn stock() -> ServiceId {
    ServiceId { name: ServiceName::new("stock").unwrap(), major: 1 }
}

fn ask(calls: &mut Calls<u32>, deadline: Time, token: u32) -> Result<u64, (NoRoom, u32)> {
    calls.call(&stock(), (1, Bytes::from_static(b"0123456789")), deadline, token)
}

/// A lane whose other end has admitted it.
fn open(limits: LaneLimits) -> Calls<u32> {
    let mut calls = Calls::new(limits);
    calls.welcomed();
    calls
}

/// What is sent now, and what has ended.
fn sent(calls: &mut Calls<u32>, now: Time) -> (Vec<Frame>, Vec<(u32, Outcome)>) {
    let (mut to, mut done) = (BytesMut::new(), Vec::new());
    calls.write(now, 1_000, &mut to, &mut done);
    let (mut frames, mut found) = (Frames::default(), Vec::new());
    frames.push(to.freeze());
    while let Some(frame) = frames.take().unwrap() {
        found.push(frame);
    }
    (found, done)
}

fn reply() -> Outcome {
    Outcome::Reply { load: 0, body: Bytes::from_static(b"yes") }
}

#[test]
fn a_lane_takes_no_more_calls_and_bytes_than_its_limits() {
    let mut calls = open(LIMITS);
    for token in 0..4 {
        ask(&mut calls, at(1_000), token).unwrap();
    }
    assert_eq!(ask(&mut calls, at(1_000), 9), Err((NoRoom::Calls, 9)));
    assert_eq!(calls.cast(&stock(), (2, vec![0; 61].into())), Err(NoRoom::Bytes));
    assert_eq!(calls.cast(&stock(), (2, vec![0; 60].into())), Ok(()));
    assert_eq!(calls.waiting_bytes(), LIMITS.queue_bytes);
    sent(&mut calls, at(0));
    assert_eq!((calls.waiting_bytes(), calls.pending_calls()), (0, 4));
}

#[test]
fn empty_messages_and_calls_that_were_given_up_count_until_they_are_taken() {
    let mut calls = open(LIMITS);
    let given_up = calls.call(&stock(), (1, Bytes::new()), at(1_000), 1).unwrap();
    calls.cancel(given_up);
    let most = LIMITS.queue_bytes / WAITING_BYTES;
    for _ in 1..most {
        calls.cast(&stock(), (2, Bytes::new())).unwrap();
    }
    assert_eq!(calls.cast(&stock(), (2, Bytes::new())), Err(NoRoom::Bytes));
    assert_eq!(sent(&mut calls, at(0)).0.len(), most, "a bind, and all casts");
    assert_eq!(calls.waiting_bytes(), 0);
}

#[test]
fn an_answer_to_what_was_never_asked_breaks_the_protocol() {
    let mut calls = open(LIMITS);
    assert_eq!(calls.answered(0, reply()), Err(NeverAsked(0)));
    let id = ask(&mut calls, at(1_000), 1).unwrap();
    // It has not been sent yet.
    assert_eq!(calls.answered(id, reply()), Err(NeverAsked(id)));
    sent(&mut calls, at(0));
    assert_eq!(calls.answered(id + (1 << SLOT_BITS), reply()), Err(NeverAsked(id + (1 << 16))));
    assert_eq!(calls.answered(id, reply()), Ok(Some((1, reply()))));
}

#[test]
fn a_late_answer_is_ignored_and_does_not_answer_the_next_call() {
    let mut calls = open(LIMITS);
    let first = ask(&mut calls, at(10), 1).unwrap();
    sent(&mut calls, at(0));
    let mut done = Vec::new();
    calls.tick(at(10), &mut done);
    assert_eq!(done, [(1, Outcome::Deadline { sent: true })]);
    let second = ask(&mut calls, at(1_000), 2).unwrap();
    let (frames, _) = sent(&mut calls, at(11));
    assert!(matches!(&frames[..], [Frame::Cancel { id }, Frame::Request(_)] if *id == first));
    assert_eq!(calls.answered(first, reply()), Ok(None));
    assert_eq!(calls.answered(second, reply()), Ok(Some((2, reply()))));
}

#[test]
fn a_call_past_its_deadline_is_not_sent() {
    let mut calls = open(LIMITS);
    ask(&mut calls, at(10), 1).unwrap();
    let (frames, done) = sent(&mut calls, at(10));
    assert!(matches!(&frames[..], [Frame::Bind { .. }]), "{frames:?}");
    assert_eq!(done, [(1, Outcome::Deadline { sent: false })]);
}

#[test]
fn what_is_left_of_the_deadline_travels() {
    let mut calls = open(LIMITS);
    ask(&mut calls, at(1_000), 1).unwrap();
    let (frames, _) = sent(&mut calls, at(300));
    assert!(matches!(&frames[1], Frame::Request(request) if request.left_ms == 700));
}

#[test]
fn a_service_is_bound_once_and_before_its_first_request() {
    let mut calls = open(LIMITS);
    ask(&mut calls, at(1_000), 1).unwrap();
    calls.cast(&stock(), (2, Bytes::new())).unwrap();
    let (frames, _) = sent(&mut calls, at(0));
    assert!(matches!(
        &frames[..],
        [
            Frame::Bind { index: 0, .. },
            Frame::Request(Request { index: 0, .. }),
            Frame::Cast(Cast { index: 0, .. }),
        ]
    ));
}

#[test]
fn a_call_that_is_cancelled_before_it_is_sent_is_never_sent() {
    let mut calls = open(LIMITS);
    let id = ask(&mut calls, at(1_000), 1).unwrap();
    assert_eq!((calls.cancel(id), calls.cancel(id)), (Some(1), None));
    assert!(matches!(&sent(&mut calls, at(0)).0[..], [Frame::Bind { .. }]));
}

#[test]
fn the_end_of_a_link_says_of_each_call_whether_it_was_sent() {
    let mut calls = open(LIMITS);
    ask(&mut calls, at(1_000), 1).unwrap();
    sent(&mut calls, at(0));
    ask(&mut calls, at(1_000), 2).unwrap();
    let mut done = Vec::new();
    calls.end(&mut done);
    assert_eq!(done, [(1, Outcome::Ended { sent: true }), (2, Outcome::Ended { sent: false })]);
    assert_eq!(ask(&mut calls, at(1_000), 3), Err((NoRoom::Ended, 3)));
    assert_eq!(calls.cast(&stock(), (2, Bytes::new())), Err(NoRoom::Ended));
    assert!(!calls.has_waiting());
}

/// Random calls, answers, cancels and times: each call ends once, and in time.
#[test]
fn every_call_ends_exactly_once_by_its_deadline() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut calls = open(LaneLimits { calls: 50, queue_bytes: 40 * (10 + WAITING_BYTES) });
        let (mut open, mut ended) = (BTreeMap::new(), 0);
        let mut there = Vec::new();
        let mut next = 0_u32;
        for step in 0..500_u64 {
            let now = at(step);
            let mut done = Vec::new();
            match rng.random_range(0..6) {
                0 | 1 => {
                    let deadline = at(step + rng.random_range(1..40));
                    if let Ok(id) = ask(&mut calls, deadline, next) {
                        open.insert(next, (id, deadline));
                    }
                    next += 1;
                }
                2 => {
                    let mut to = BytesMut::new();
                    calls.write(now, rng.random_range(1..60), &mut to, &mut done);
                    let mut frames = Frames::default();
                    frames.push(to.freeze());
                    while let Some(frame) = frames.take().unwrap() {
                        if let Frame::Request(request) = frame {
                            there.push(request.id);
                        }
                    }
                }
                3 if !there.is_empty() => {
                    let id = there.swap_remove(rng.random_range(0..there.len()));
                    done.extend(calls.answered(id, reply()).unwrap());
                }
                4 if rng.random_bool(0.2) => {
                    let Some((token, (id, _))) = open.pop_first() else { continue };
                    assert_eq!(calls.cancel(id), Some(token), "seed {seed}");
                    ended += 1;
                }
                _ => calls.tick(now, &mut done),
            }
            if step == 499 {
                calls.end(&mut done);
            }
            for (token, outcome) in done {
                assert!(
                    open.remove(&token).is_some(),
                    "seed {seed}: {token} ended twice: {outcome:?}"
                );
                ended += 1;
            }
            if calls.wake().is_none_or(|wake| wake > now) {
                let late = open.values().find(|(_, deadline)| *deadline <= now);
                assert_eq!(late, None, "seed {seed}: it is not ticked in time");
            }
        }
        assert!(open.is_empty() && ended > 0, "seed {seed}: {open:?}");
        assert_eq!((calls.pending_calls(), calls.waiting_bytes()), (0, 0));
    }
}

#[test]
fn nothing_is_sent_before_the_other_end_has_admitted_this_one() {
    let mut calls = Calls::new(LIMITS);
    ask(&mut calls, at(1_000), 1).unwrap();
    ask(&mut calls, at(10), 2).unwrap();
    assert_eq!(sent(&mut calls, at(0)), (vec![], vec![]));
    let mut done = Vec::new();
    calls.tick(at(10), &mut done);
    assert_eq!(done, [(2, Outcome::Deadline { sent: false })]);
    calls.welcomed();
    assert_eq!(sent(&mut calls, at(20)).0.len(), 2);
    calls.end(&mut done);
    assert_eq!(done[1], (1, Outcome::Ended { sent: true }));
}

#[test]
fn a_draining_lane_refuses_what_was_not_sent_and_waits_for_the_rest() {
    let mut calls = open(LIMITS);
    let first = ask(&mut calls, at(1_000), 1).unwrap();
    sent(&mut calls, at(0));
    ask(&mut calls, at(1_000), 2).unwrap();
    calls.cast(&stock(), (2, Bytes::from_static(b"late"))).unwrap();
    let mut done = Vec::new();
    calls.drain(&mut done);
    assert!(matches!(done[..], [(2, Outcome::Refused { code: Code::Draining, .. })]));
    assert_eq!(ask(&mut calls, at(1_000), 3), Err((NoRoom::Draining, 3)));
    assert_eq!(calls.cast(&stock(), (2, Bytes::new())), Err(NoRoom::Draining));
    assert_eq!((sent(&mut calls, at(0)).0, calls.waiting_bytes()), (vec![], 0));
    assert!(!calls.is_drained());
    assert_eq!(calls.answered(first, reply()), Ok(Some((1, reply()))));
    assert!(calls.is_drained());
    calls.end(&mut done);
    assert_eq!(ask(&mut calls, at(1_000), 3), Err((NoRoom::Ended, 3)));
}
