//! Any bytes as a nested message in the default codec: refused, or a message that comes back when it is encoded, and
//! takes no more memory than a body can justify.
#![no_main]

use std::collections::BTreeMap;

use gossipmonger::{
    protocol::service::frame::LANE_BODY_MAX,
    service::codec::{Bincode, Codec},
};
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    number: u64,
    buyer: Option<Buyer>,
    lines: Vec<Line>,
    notes: BTreeMap<String, Vec<Option<Vec<u8>>>>,
    outcome: Result<(u8, char), Trouble>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Buyer {
    name: String,
    born: (i16, u8, u8),
    friends: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Line {
    Item { name: String, count: u32 },
    Discount(i64),
    Gift,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Trouble {
    Sold,
    Blocked(Box<str>),
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.len() > LANE_BODY_MAX {
        return;
    }
    let Ok(order) = <Bincode as Codec<Order>>::decode(bytes.to_vec().into()) else { return };
    // The shortest line, note and friend are one byte each.
    let (lines, notes) = (order.lines.len(), order.notes.values().map(Vec::len).sum::<usize>());
    let friends = order.buyer.as_ref().map_or(0, |buyer| buyer.friends.len());
    assert!(lines + notes + friends <= bytes.len());
    let mut again = Default::default();
    Bincode::encode(&order, &mut again).expect("it was a message");
    assert_eq!(<Bincode as Codec<Order>>::decode(again.freeze()), Ok(order));
});
