//! What a test does to the network.

use std::{ops::RangeInclusive, time::Duration};

use super::kit::{Kit, id};
use crate::ambient::{losses::Loss, lost::Lost};

impl Kit {
    /// Cuts the paths between two nodes, in both directions. They see no error: what they send waits or is lost.
    pub fn cut(&self, one: &str, other: &str) {
        self.cut_from(one, other);
        self.cut_from(other, one);
    }

    /// Cuts one direction.
    pub fn cut_from(&self, from: &str, to: &str) {
        self.note(format!("cut from {from} to {to}"));
        self.network().cut(&id(from), &id(to));
    }

    /// Cuts a node off from all others that were started, in both directions.
    pub fn isolate(&self, name: &str) {
        let others: Vec<_> = self.machines().keys().map(ToString::to_string).collect();
        others.iter().filter(|other| *other != name).for_each(|other| self.cut(name, other));
    }

    /// Removes the cuts between two nodes, in both directions.
    pub fn heal_between(&self, one: &str, other: &str) {
        self.note(format!("healed between {one} and {other}"));
        self.network().heal_path(&id(one), &id(other));
        self.network().heal_path(&id(other), &id(one));
    }

    /// Removes all cuts.
    pub fn heal(&self) {
        self.note("healed");
        self.network().heal();
    }

    /// How long messages travel from now on, in one direction: each time is drawn from this range, in whole milliseconds.
    /// 1 to 5 ms at the start.
    pub fn delay(&self, delays: RangeInclusive<Duration>) {
        self.network().set_delays(delays);
    }

    /// The same for one direction between two nodes, in place of [`Kit::delay`].
    pub fn delay_from(&self, from: &str, to: &str, delays: RangeInclusive<Duration>) {
        self.network().set_delays_from(&id(from), &id(to), delays);
    }

    /// Loses requests of calls, and casts, that `from` sends to `to`, from now on: nothing runs, and the caller waits
    /// for its deadline.
    pub fn lose_requests(&self, from: &str, to: &str, loss: Loss) {
        self.losses().set((&id(from), &id(to)), Lost::Request, loss);
    }

    /// Loses the replies to calls that `from` sends to `to`, from now on: the call runs, and the caller waits for its
    /// deadline. The items of streams are not lost.
    pub fn lose_replies(&self, from: &str, to: &str, loss: Loss) {
        self.losses().set((&id(from), &id(to)), Lost::Reply, loss);
    }

    /// Nothing is lost any more.
    pub fn lose_nothing(&self) {
        self.losses().clear();
    }
}
