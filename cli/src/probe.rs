//! What `bench live` asks an agent for: calls that both ends count, and the copies that all members have.

use std::collections::BTreeMap;

use gossipmonger::{
    Foreign,
    protocol::id::{Datacenter, NodeId},
};
use serde::{Deserialize, Serialize};

/// Calls to the agent of one node, one after the other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProbeView {
    pub(crate) node: NodeId,
    pub(crate) datacenter: Datacenter,
    /// How many calls began.
    pub(crate) calls: u32,
    /// The time until each right reply, in milliseconds.
    pub(crate) replies_ms: Vec<f64>,
    /// Replies that name another call, another number of bytes or another sum.
    pub(crate) wrong: u32,
    /// The bytes that the node has counted, in right replies.
    pub(crate) received: u64,
    /// Why the last call had no reply; no further one began.
    pub(crate) problem: Option<Foreign>,
}

/// The copies of the keys of the agent's own node at one member.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CopiesView {
    pub(crate) node: NodeId,
    pub(crate) datacenter: Datacenter,
    /// The [`sum`] of the value of each key, in hexadecimal.
    pub(crate) sums: BTreeMap<String, String>,
    /// How many keys its answer leaves out.
    pub(crate) omitted: u32,
    /// Why there is no answer.
    pub(crate) problem: Option<Foreign>,
}

/// FNV-1a of 64 bits: tells one value from another. It protects against mistakes, not against attacks.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A sum as it is sent: JSON numbers of this size lose digits in some readers.
pub(crate) fn shown_sum(bytes: &[u8]) -> String {
    format!("{:016x}", sum(bytes))
}

/// Calls of one request: each may take three seconds, and the program waits a minute for an answer.
pub(crate) const PROBE_CALLS_MAX: u32 = 16;
/// Bytes of one call.
pub(crate) const PROBE_BYTES_MAX: usize = 256 << 10;
/// Bytes of all calls of one request.
pub(crate) const PROBE_TOTAL_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_published_examples() {
        assert_eq!(sum(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(sum(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(shown_sum(b"foobar"), "85944171f73967e8");
    }
}
