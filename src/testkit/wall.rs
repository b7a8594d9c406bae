//! Wall clocks and certificates.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::kit::{Kit, id};

impl Kit {
    /// What the wall clock of a node shows. It goes on with the virtual time.
    ///
    /// # Panics
    /// If the node was never started.
    #[must_use]
    pub fn wall(&self, name: &str) -> SystemTime {
        self.with(&id(name), |machine| machine.given.wall())
    }

    /// Sets the wall clock of a node, forward or back. Only dates depend on it: the generation that a node takes at its
    /// start, and the expiry of certificates. Timers do not.
    ///
    /// # Panics
    /// If the node was never started.
    pub fn set_wall(&self, name: &str, to: SystemTime) {
        self.note(format!("the wall clock of {name} is set"));
        self.with(&id(name), |machine| machine.given.set_wall(to));
    }

    /// Gives a node a new certificate, in place of the one that it has, which is valid for this long on its own wall
    /// clock. Connections change to it by themselves. A node that never got one does not need any. Once it has expired,
    /// peers that have certificates refuse the node, by their own wall clocks.
    ///
    /// # Panics
    /// If the node was never started.
    pub fn renew(&self, name: &str, valid_for: Duration) {
        let node = id(name);
        let given = self.with(&node, |machine| Arc::clone(&machine.given));
        self.note(format!("{name} gets a certificate for {valid_for:?}"));
        let expires = given.wall() + valid_for;
        self.network().certify(&node, expires, move || given.wall());
    }
}
