//! Any bytes on a lane, in any chunks: the same frames however they are cut, each of which comes back when it is
//! sent on; and both ends keep their limits, whatever the frames say.
#![no_main]

use std::time::Duration;

use gossipmonger::protocol::{
    service::{
        ServiceId, ServiceName,
        calls::{Calls, LaneLimits, Outcome},
        frame::{Frame, Frames, LANE_BODY_MAX, LANE_FRAME_MAX, WORDS_MAX},
        intake::{Arrived, Intake, RUNNING_MAX},
    },
    time::Time,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = frames(&[bytes]);
    for length in [1, 7, 1_200] {
        assert_eq!(frames(&bytes.chunks(length).collect::<Vec<_>>()), whole);
    }
    for frame in &whole {
        // The reader bounds the frame; the head takes a part of it.
        assert!(frame.body_len() <= LANE_FRAME_MAX);
        if let Frame::Refuse { words, .. } = frame {
            assert!(words.len() <= WORDS_MAX);
        }
        if frame.body_len() <= LANE_BODY_MAX {
            let mut again = Default::default();
            frame.encode(&mut again);
            assert_eq!(frames(&[&again]), [frame.clone()]);
        }
    }
    callee(&whole);
    caller(&whole);
});

/// The frames in the chunks of a stream, until it ends or cannot be read on.
fn frames(chunks: &[&[u8]]) -> Vec<Frame> {
    let (mut reader, mut read) = (Frames::default(), Vec::new());
    for chunk in chunks {
        reader.push(chunk.to_vec().into());
        loop {
            match reader.take() {
                Ok(Some(frame)) => read.push(frame),
                Ok(None) => break,
                Err(_) => return read,
            }
        }
    }
    read
}

/// The end that is called takes them until one breaks the protocol.
fn callee(frames: &[Frame]) {
    let mut intake = Intake::default();
    for frame in frames.iter().cloned() {
        match intake.frame(frame) {
            Ok(Arrived::Bind(service)) => intake.bind(service),
            Ok(Arrived::Request(_, request)) => {
                let deadline = Time::ZERO + Duration::from_millis(request.left_ms.into());
                intake.began(request.id, (), deadline);
            }
            Ok(_) => {}
            Err(_) => break,
        }
        assert!(intake.running() <= RUNNING_MAX);
    }
    let running = intake.running();
    assert_eq!(intake.end().len(), running);
}

/// The end that calls has four calls under way, each of which ends once at most.
fn caller(frames: &[Frame]) {
    let service = ServiceId { name: ServiceName::new("stock").expect("a label"), major: 1 };
    let mut calls = Calls::new(LaneLimits { calls: 4, queue_bytes: 64 });
    let mut open: Vec<_> = (0..4_u32)
        .map(|token| {
            let question = (1, vec![7].into());
            calls.call(&service, question, Time::ZERO + SECOND, token).expect("there is room");
            token
        })
        .collect();
    let mut done = Vec::new();
    calls.write(Time::ZERO, usize::MAX, &mut Default::default(), &mut done);
    for frame in frames {
        let answered = match frame.clone() {
            Frame::Reply { id, load, body } => calls.answered(id, Outcome::Reply { load, body }),
            Frame::Refuse { id, code, retry_after_ms, words } => {
                let retry_after = Duration::from_millis(retry_after_ms.into());
                calls.answered(id, Outcome::Refused { code, retry_after, words })
            }
            _ => continue,
        };
        match answered {
            Ok(Some((token, _))) => {
                assert!(open.contains(&token), "call {token} has two answers");
                open.retain(|waits| *waits != token);
            }
            Ok(None) => {}
            Err(_) => break,
        }
    }
    calls.end(&mut done);
    assert_eq!(done.len(), open.len());
}

const SECOND: Duration = Duration::from_secs(1);
