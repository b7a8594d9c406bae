//! What a node publishes about itself beside its keys: its datacenter, addresses, tags and status.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    id::{Datacenter, Incarnation},
    list::{few, few_by, few_of},
    overlay::NEIGHBOURS,
    wire::{Decode, DecodeError, Decoder, encode_fields, variants},
};

/// Most addresses a node may advertise.
pub const ADDRESSES_MAX: usize = 8;
/// Longest advertised address (`host:port`), in bytes: a DNS name of 253, a colon, a port.
pub const ADDRESS_BYTES_MAX: usize = 259;
/// Most tags a node may carry.
pub const TAGS_MAX: usize = 64;
/// Longest tag name, in bytes.
pub const TAG_NAME_BYTES_MAX: usize = 64;
/// Longest tag value, in bytes.
pub const TAG_VALUE_BYTES_MAX: usize = 256;
/// Most datacenters with which a node may report lost contact: it has bridges to no more.
pub const SEVERED_MAX: usize = NEIGHBOURS;

/// A node's record: written by the node alone, replicated like a key of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// The datacenter its certificate names.
    pub datacenter: Datacenter,
    /// Where it can be dialed, best first: `host:port` each.
    pub addresses: Vec<String>,
    /// The operator's labels for it: role, zone, anything.
    pub tags: BTreeMap<String, String>,
    /// Oldest and newest major wire version it speaks.
    pub wire: (u16, u16),
    /// Whether it intends to stay.
    pub status: Status,
    /// How often it has refuted suspicions of it, in this generation.
    pub incarnation: Incarnation,
    /// The datacenters to which it has bridges and of which it has heard no node for a while. If all nodes of
    /// its datacenter with such bridges agree, that datacenter is unreachable from there.
    pub severed: BTreeSet<Datacenter>,
    /// The start of its certificate's validity, in seconds since 1970; `None` if it has no certificate.
    pub not_before: Option<u64>,
    /// The end of its certificate's validity, in seconds since 1970; `None` if it has no certificate.
    pub not_after: Option<u64>,
}

encode_fields!(NodeRecord {
    datacenter,
    addresses,
    tags,
    wire,
    status,
    incarnation,
    severed,
    not_before,
    not_after,
});

impl Decode<'_> for NodeRecord {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            datacenter: Decode::decode(from)?,
            addresses: few(from, ADDRESSES_MAX)?,
            tags: few_by(from, TAGS_MAX)?,
            wire: Decode::decode(from)?,
            status: Decode::decode(from)?,
            incarnation: Decode::decode(from)?,
            severed: few_of(from, SEVERED_MAX)?,
            not_before: Decode::decode(from)?,
            not_after: Decode::decode(from)?,
        })
    }
}

/// Whether a node intends to stay in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// It takes part.
    Up,
    /// It is about to stop, on purpose.
    Leaving,
    /// It has stopped, on purpose.
    Left,
}

variants!(Status { 0 => Up {}, 1 => Leaving {}, 2 => Left {} });

/// A record or tag outside its limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Too many addresses, or one too long or empty.
    #[error(
        "at most {ADDRESSES_MAX} addresses of 1 to {ADDRESS_BYTES_MAX} bytes may be advertised"
    )]
    Addresses,
    /// Too many tags, or one too long.
    #[error(
        "at most {TAGS_MAX} tags may be set, names of 1 to {TAG_NAME_BYTES_MAX} bytes, \
         values of at most {TAG_VALUE_BYTES_MAX} bytes"
    )]
    Tags,
    /// Lost contact with more datacenters than it can have bridges to.
    #[error("at most {SEVERED_MAX} datacenters may be cut off from a node")]
    Severed,
}

impl NodeRecord {
    /// Checks the limits above.
    ///
    /// # Errors
    /// [`RecordError`] names the exceeded limit.
    pub fn check(&self) -> Result<(), RecordError> {
        check_addresses(&self.addresses)?;
        check_tags(&self.tags)?;
        if self.severed.len() <= SEVERED_MAX { Ok(()) } else { Err(RecordError::Severed) }
    }

    /// Whether another record says the same of its node as a member. The datacenters that a node hears and
    /// the dates of its certificate do not count: they change without an action of the node.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let Self { severed, not_before, not_after, .. } = other.clone();
        Self { severed, not_before, not_after, ..self.clone() } == *other
    }

    /// An upper bound of its bytes on the wire.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        let addresses: usize = self.addresses.iter().map(|a| a.len() + 3).sum();
        let tags: usize = self.tags.iter().map(|(k, v)| k.len() + v.len() + 6).sum();
        let severed: usize = self.severed.iter().map(|name| name.as_str().len() + 1).sum();
        self.datacenter.as_str().len() + 1 + addresses + tags + severed + FIXED_BYTES_MAX
    }
}

/// Checks addresses before they are advertised.
///
/// # Errors
/// [`RecordError::Addresses`].
pub fn check_addresses(addresses: &[String]) -> Result<(), RecordError> {
    let each = |a: &String| (1..=ADDRESS_BYTES_MAX).contains(&a.len());
    if addresses.len() <= ADDRESSES_MAX && addresses.iter().all(each) {
        Ok(())
    } else {
        Err(RecordError::Addresses)
    }
}

/// Checks tags before they are set.
///
/// # Errors
/// [`RecordError::Tags`].
pub fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), RecordError> {
    let each = |(name, value): (&String, &String)| {
        (1..=TAG_NAME_BYTES_MAX).contains(&name.len()) && value.len() <= TAG_VALUE_BYTES_MAX
    };
    if tags.len() <= TAGS_MAX && tags.iter().all(each) { Ok(()) } else { Err(RecordError::Tags) }
}

/// Counts (2 x 3 bytes, and 1), wire versions (2 x 3), status (1), incarnation (9), two dates (10 each).
const FIXED_BYTES_MAX: usize = 43;
