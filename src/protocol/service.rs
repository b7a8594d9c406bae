//! Services: what nodes offer to each other, and the rules of calls between them.
//!
//! The path of one call:
//!
//! 1. A node announces its offers in its own map, under one reserved key ([`manifest`]). Every node keeps an index of all
//!    offers ([`directory`]).
//! 2. The caller picks a provider ([`balance`]) and finds or dials a connection to it, unless the last dials have failed
//!    ([`back_off`]). Both ends check that each is the process that the other one means ([`introduction`]).
//! 3. [`calls`] is the caller's half of the connection, [`intake`] the callee's half, [`frame`] what they send.
//! 4. [`rate`] and [`shared_rate`] limit what a caller sends in a second.
//!    The request runs, waits or is refused in the [`room`] of the service; [`once`] knows the calls that ran before, by
//!    their [`identity`]. [`windows`] limits what its connection may
//!    bring before it is read, [`shares`] what its caller may use of the room for long bodies.
//!    An actor that is not a named service is called by a number ([`exposed`]).
//! 5. [`attempt`] says what the end of an attempt means ([`failure`], [`link_end`]), and whether there is another one.
//!
//! A client that is not a member calls by the same rules: [`clients`] says which ones an offer admits, [`client_directory`] what
//! the directory lists to them.

use std::fmt;

pub mod attempt;
pub mod back_off;
pub mod balance;
pub mod calls;
pub mod clients;
pub mod directory;
pub mod explain;
pub mod exposed;
pub mod failure;
pub mod figures;
pub mod frame;
pub mod identity;
pub mod intake;
pub mod introduction;
pub mod limits;
pub mod link_end;
pub mod manifest;
pub mod once;
pub mod rate;
pub mod room;
pub mod shared_rate;
pub mod client_directory;
pub mod shares;
pub mod stream;
pub mod windows;

pub use super::id::ServiceName;

/// The version of a service.
///
/// A caller of major version 2 calls only providers of major version 2. A higher minor version has more methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceVersion {
    /// Changes when existing callers would break.
    pub major: u16,
    /// Changes when methods are added.
    pub minor: u16,
}

impl ServiceVersion {
    /// A version.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for ServiceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// How many messages of a method go in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// One question, one answer.
    Call,
    /// One message, no answer.
    Cast,
    /// One question, any number of items as the answer.
    ServerStream,
    /// One question and any number of items, one answer.
    ClientStream,
    /// One question, then bytes in both directions.
    Duplex,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Call => "call",
            Self::Cast => "cast",
            Self::ServerStream => "server stream",
            Self::ClientStream => "client stream",
            Self::Duplex => "duplex",
        })
    }
}

/// A service in one major version: what a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// The name.
    pub name: ServiceName,
    /// The major version.
    pub major: u16,
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.major)
    }
}
