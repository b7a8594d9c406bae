//! Any bytes as a frame: refused, or a message that comes back when it is sent on.
#![no_main]

use gossipmonger::protocol::message::{LENGTH_BYTES, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    if let Ok(message) = Message::decode(frame) {
        let again = message.encode().expect("it was no longer than a frame may be");
        assert_eq!(Message::decode(&again[LENGTH_BYTES..]), Ok(message));
    }
});
