//! Any bytes on a stream of one call, in any chunks: the same frames however they are cut, each of which comes back
//! when it is sent on, and no body above the limit.
#![no_main]

use gossipmonger::protocol::service::{
    frame::HEAD_MAX,
    stream::{StreamFrame, StreamFrames},
};
use libfuzzer_sys::fuzz_target;

/// The longest body that the reader takes.
const BODY_MAX: usize = 2_000;

fuzz_target!(|bytes: &[u8]| {
    let whole = frames(&[bytes]);
    for length in [1, 7, 1_200] {
        assert_eq!(frames(&bytes.chunks(length).collect::<Vec<_>>()), whole);
    }
    for frame in &whole {
        let [head, body] = frame.clone().pieces();
        assert!(head.len() <= HEAD_MAX && body.len() <= BODY_MAX + HEAD_MAX);
        let mut again = Default::default();
        frame.encode(&mut again);
        assert_eq!(again, [head, body].concat());
        if let StreamFrame::Item(body) = frame
            && body.len() <= BODY_MAX
        {
            assert_eq!(frames(&[&again]), [frame.clone()]);
        }
    }
});

/// The frames in the chunks of a stream, until it ends or cannot be read on.
fn frames(chunks: &[&[u8]]) -> Vec<StreamFrame> {
    let (mut reader, mut read) = (StreamFrames::new(BODY_MAX), Vec::new());
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
