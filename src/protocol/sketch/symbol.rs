//! The symbol of a line of a digest in a sketch.

use std::{fmt, hash::Hasher};

use siphasher::sip::SipHasher13;

use crate::protocol::{digest::DigestEntry, id::NodeId};

/// The hash key of one cluster, so that an outsider cannot make lines that collide.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SketchKey(pub [u8; 16]);

/// One line of a digest, as a sketch sums it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol {
    /// The node of the line. Two nodes may have the same: one cluster of 10,000 in a hundred has such two.
    pub id: u32,
    /// The contents of the line and its node: 48 bits, equal for two states in one of 2^48 cases.
    pub state: u64,
}

impl SketchKey {
    /// The id of a node's name.
    #[must_use]
    pub fn id(&self, node: &NodeId) -> u32 {
        (self.name(node) >> 32) as u32
    }

    /// The symbol of a line: all of it except the horizon, which shows how a copy came about and not what it
    /// contains. The caller MUST NOT put the line of a [part](DigestEntry::is_part) into a sketch: equal sums
    /// mean equal copies, and such a line does not determine the contents of the copy.
    #[must_use]
    pub fn symbol(&self, line: &DigestEntry) -> Symbol {
        let name = self.name(&line.node);
        let fields = [
            name,
            line.generation.0,
            line.max_version.0,
            line.record.0,
            line.gc_floor.0,
            line.verdict.incarnation.0,
            line.verdict.level as u64,
        ];
        let mut hasher = self.hasher(OF_STATE);
        fields.iter().for_each(|field| hasher.write(&field.to_le_bytes()));
        Symbol { id: (name >> 32) as u32, state: hasher.finish() >> (64 - STATE_BITS) }
    }

    fn name(&self, node: &NodeId) -> u64 {
        let mut hasher = self.hasher(OF_NAME);
        hasher.write(node.as_str().as_bytes());
        hasher.finish()
    }

    /// The cells of a symbol, and the proof that a cell holds it alone.
    pub(super) fn check(&self, symbol: Symbol) -> u64 {
        let mut hasher = self.hasher(OF_SYMBOL);
        hasher.write(&symbol.id.to_le_bytes());
        hasher.write(&symbol.state.to_le_bytes());
        hasher.finish()
    }

    /// SipHash-1-3, as hash tables use it: an attacker that learns no hash cannot produce collisions.
    fn hasher(&self, domain: u8) -> SipHasher13 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(&[domain]);
        hasher
    }
}

impl fmt::Debug for SketchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SketchKey(..)")
    }
}

/// How much of a state's hash is sent.
const STATE_BITS: u32 = 48;
// The kind of a hash: no two kinds may collide.
const OF_NAME: u8 = 1;
const OF_STATE: u8 = 2;
const OF_SYMBOL: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        id::{Generation, Incarnation, Version},
        sketch::indices::Indices,
        verdict::{Level, Verdict},
    };

    fn key() -> SketchKey {
        SketchKey(*b"0123456789abcdef")
    }

    fn line(name: &str) -> DigestEntry {
        DigestEntry {
            generation: Generation(1),
            max_version: Version(2),
            record: Version(3),
            gc_floor: Version(4),
            verdict: Verdict::alive(Incarnation(5)),
            ..DigestEntry::unknown(NodeId::new(name).unwrap())
        }
    }

    #[test]
    fn tells_apart_whatever_differs_in_a_line() {
        let line = line("a");
        let changed = [
            DigestEntry { node: NodeId::new("b").unwrap(), ..line.clone() },
            DigestEntry { generation: Generation(2), ..line.clone() },
            DigestEntry { max_version: Version(3), ..line.clone() },
            DigestEntry { record: Version(4), ..line.clone() },
            DigestEntry { gc_floor: Version(5), ..line.clone() },
            DigestEntry { verdict: Verdict::alive(Incarnation(6)), ..line.clone() },
            DigestEntry { verdict: line.verdict.at(Level::Dead), ..line.clone() },
        ];
        let symbol = key().symbol(&line);
        assert_ne!(symbol, SketchKey([7; 16]).symbol(&line));
        for line in changed {
            assert_ne!(symbol.state, key().symbol(&line).state, "{line:?}");
        }
    }

    #[test]
    fn minds_no_horizon() {
        let line = line("a");
        let other = DigestEntry { horizon: Version(9), ..line.clone() };
        assert_eq!(key().symbol(&line), key().symbol(&other));
    }

    #[test]
    fn a_line_is_of_a_part_if_it_was_told_by_somebody_further() {
        let line = line("a");
        assert!(!DigestEntry { horizon: line.max_version, ..line.clone() }.is_part());
        assert!(DigestEntry { horizon: Version(3), ..line }.is_part());
    }

    /// Two machines of any kind must put a symbol into the same cells.
    #[test]
    fn hashes_alike_on_every_machine() {
        let symbol = key().symbol(&line("node-1"));
        let cells: Vec<_> = Indices::new(key().check(symbol)).collect();
        assert_eq!((symbol.id, symbol.state), (585_980_874, 165_876_436_694_710));
        assert_eq!(
            cells,
            [
                0, 1, 2, 4, 38, 44, 66, 161, 165, 166, 183, 254, 258, 269, 455, 566, 678, 1118,
                1559, 1581, 1632, 2090, 2370, 3977
            ]
        );
    }
}
