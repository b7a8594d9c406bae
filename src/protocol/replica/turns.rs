//! The turns of storage in which new updates are sent.

use super::Replica;
use crate::protocol::{
    route::{Output, StorageInput},
    time::Time,
};

impl Replica {
    /// Whether new updates may be sent now; if not, a turn is asked for.
    pub(super) fn is_turn_to_tell(&mut self, now: Time, out: &mut Vec<Output>) -> bool {
        let at_once = !self.config.rules.batches || !self.push.has_news();
        if at_once || self.clock.batching.is_due(now) {
            return true;
        }
        if self.clock.batching.ask() {
            out.push(Output::Storage(StorageInput::Tell));
        }
        false
    }
}
