//! Any bytes as pushed news that are only looked through: refused, or read as they are decoded.
#![no_main]

use gossipmonger::protocol::{
    message::{FRAME_BYTES_MAX, Message, frame_len},
    skim::skim,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(length) = bytes.first_chunk() {
        let len = frame_len(*length, FRAME_BYTES_MAX);
        assert!(len.is_err() || len.is_ok_and(|len| len <= FRAME_BYTES_MAX));
    }
    agree(bytes);
    // Few inputs find the header and the kind by themselves.
    agree(&[&[6, 1, 1], bytes].concat());
    agree(&[&[6, 1, 14], bytes].concat());
});

fn agree(frame: &[u8]) {
    let (Some(headings), Ok(Message::Gossip(gossip))) = (skim(frame), Message::decode(frame))
    else {
        return;
    };
    let (_, delta) = gossip.news().expect("only updates are skimmed");
    assert_eq!(headings.len(), delta.nodes.len());
    for (heading, node) in headings.iter().zip(&delta.nodes) {
        assert_eq!(heading.node, node.node.as_str());
        assert_eq!((heading.generation, heading.to), (node.generation, node.to));
        assert_eq!((heading.horizon, heading.gc_floor), (node.horizon, node.gc_floor));
    }
}
