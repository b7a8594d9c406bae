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
}

impl Default for Rules {
    fn default() -> Self {
        Self { gate: true, three_edges: true, one_seed: true }
    }
}
