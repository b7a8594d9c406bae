//! The rules of the machines that tests may switch off.
//!
//! A test that passes with its rule and without it tests nothing. So the tests of these rules run twice: with
//! the defaults they have to pass, and with one rule off they have to fail.

/// The rules that are in force; by default all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// New work asks the [gate](super::gate) first.
    pub gate: bool,
    /// A node keeps three edges while its member list moves ([`links`](super::links)).
    pub three_edges: bool,
    /// A node that joins has one seed under way at a time ([`scheduler`](super::scheduler)).
    pub one_seed: bool,
    /// The detector's patience grows with the own slowness once, and a node that is on time again is soon as
    /// quick as before ([`watch`](super::watch)).
    pub linear_patience: bool,
    /// A node that is late begins no quick probes and hardly asks about others ([`liveness`](super::liveness)).
    pub quiet_when_late: bool,
    /// Of several questions about one node that begin together, one goes on
    /// ([`questions`](super::questions)).
    pub one_question: bool,
    /// Of updates of one owner that arrive together only the last head is verified
    /// ([`NodeMap::apply_chain`](super::map::NodeMap::apply_chain)).
    pub verify_once: bool,
    /// An owner signs seldom enough that all owners together cost a quarter of a core to verify
    /// ([`replica`](super::replica)).
    pub cadence: bool,
    /// Updates are sent once for everything that waits for storage already ([`replica`](super::replica)).
    pub batches: bool,
    /// News of many writers travels along trees ([`mode`](super::mode)).
    pub trees: bool,
    /// News that floods goes over the edges of a tree first ([`push`](super::push)).
    pub tree_first: bool,
    /// News that a peer is known to have is not sent to it ([`known`](super::known)).
    pub filters: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            gate: true,
            three_edges: true,
            one_seed: true,
            linear_patience: true,
            quiet_when_late: true,
            one_question: true,
            verify_once: true,
            cadence: true,
            batches: true,
            trees: true,
            tree_first: true,
            filters: true,
        }
    }
}
