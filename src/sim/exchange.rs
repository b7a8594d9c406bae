//! An exchange under way: both of its halves.

use std::time::Duration;

use super::event::{Payload, Side};
use crate::protocol::{
    exchange::{Half, Initiator, Responder, Summary},
    route::Target,
};

/// An exchange under way.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) target: Target,
    pub(super) wire: u64,
    /// Which ends of the connection the halves are at.
    pub(super) ends: [usize; 2],
    /// What it was opened with.
    pub(super) summary: Summary,
    /// It was begun on another connection, which broke off.
    pub(super) retried: bool,
    pub(super) initiator: Initiator,
    pub(super) responder: Responder,
    /// The first frame has come, and was within the rates of the peer.
    pub(super) admitted: bool,
    /// What each half is to send next, and may not yet.
    pub(super) pending: [Option<Payload>; 2],
    /// When the last frame to each half arrives: streams keep their order.
    pub(super) arrivals: [u64; 2],
    /// When anything last moved at each half.
    pub(super) moved: [u64; 2],
    /// How late the process of each half had been by then.
    pub(super) late: [Duration; 2],
    /// The initiator is through, and waits for its last frame to arrive.
    pub(super) lingers: bool,
    /// Each half is through, or has given up.
    pub(super) over: [bool; 2],
    /// A frame was lost for good, so nothing that is sent later arrives.
    pub(super) broken: bool,
}

impl Exchange {
    pub(super) fn half(&mut self, side: Side) -> &mut dyn Half {
        match side {
            Side::Initiator => &mut self.initiator,
            Side::Responder => &mut self.responder,
        }
    }

    pub(super) const fn place(&self, side: Side) -> (u64, usize) {
        (self.wire, self.ends[side as usize])
    }
}
