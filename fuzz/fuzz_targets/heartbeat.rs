//! Any bytes as a datagram: refused, or a heartbeat that comes back when it is sent on.
#![no_main]

use gossipmonger::protocol::message::Heartbeat;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    if let Ok(heartbeat) = Heartbeat::decode(datagram) {
        assert_eq!(Heartbeat::decode(&heartbeat.encode()), Ok(heartbeat));
    }
});
