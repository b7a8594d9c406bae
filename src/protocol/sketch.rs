//! What a node knows as a stream of cells, from which a peer that knows almost the same works out
//! the difference: a rateless invertible Bloom lookup table (Yang, Gilad and Alizadeh, "Practical
//! Rateless Set Reconciliation", SIGCOMM 2024).
//!
//! Each line of a digest is a [`Symbol`] of two keyed hashes, of whose line it is and of what it
//! says. Cell `i` sums a symbol with probability `2 / (i + 2)`, the best density of the paper
//! (its section 4.2), so cell 0 sums all. Sums are linear: a changed line is taken out and put in
//! again at the same places, and the difference of two nodes' cells is a sketch of their difference
//! alone, which a [`Decoder`] takes apart. How many cells that takes depends on the difference, not
//! on the cluster: 1.35 to 1.7 a symbol.
//!
//! A sketch is no proof. Whoever has the key can make cells that say anything; what is decoded from
//! them is a hint whose lines to compare, and never changes a copy.

use std::{fmt, hash::Hasher, sync::Arc};

use siphasher::sip::SipHasher13;

use super::{digest::DigestEntry, id::NodeId};

pub use cell::{CELLS_PER_MESSAGE_MAX, Cell, Cells};
pub use decoder::{Decoder, Differences, GiveUp, Progress};

mod cell;
mod decoder;
mod indices;

use indices::Indices;

/// How many cells are kept up to date with every change: 128 are enough to find about 85
/// differences, and a change touches nine of them.
pub const CELLS_CACHED: usize = 128;
/// How many cells open a reconciliation: enough for 20 differences in every second case.
pub const CELLS_FIRST: usize = 32;
/// How many more are asked for at least.
pub const CELLS_MORE: usize = 8;
/// Most cells of one sketch: enough for about 3,000 differences in 62 KB, a fourth of the digest of
/// 10,000 lines that is sent instead if they are not.
pub const CELLS_MAX: usize = 4_096;

/// What the hashes of one cluster are keyed with, so that no outsider can make lines that collide.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SketchKey(pub [u8; 16]);

/// One line of a digest, as a sketch sums it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol {
    /// Whose line it is. Two nodes may have the same: one cluster of 10,000 in a hundred has such two.
    pub id: u32,
    /// What the line says, and of whom: 48 bits, in one of 2^48 cases the same for two states.
    pub state: u64,
}

/// The first cells of all that a node knows, and their root. A clone is cheap and does not change
/// any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    key: SketchKey,
    cells: Arc<[Cell]>,
    symbols: u64,
    root: u64,
}

impl SketchKey {
    /// What stands for a node's name.
    #[must_use]
    pub fn id(&self, node: &NodeId) -> u32 {
        (self.name(node) >> 32) as u32
    }

    /// What stands for a line: all of it but the horizon, which tells how a copy came about and not
    /// what is in it. The caller MUST NOT put the line of a [part](DigestEntry::is_part) into a sketch:
    /// equal sums mean equal copies, and such a line does not tell what the copy holds.
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

    /// Where a symbol goes, and what proves that a cell holds it alone.
    fn check(&self, symbol: Symbol) -> u64 {
        let mut hasher = self.hasher(OF_SYMBOL);
        hasher.write(&symbol.id.to_le_bytes());
        hasher.write(&symbol.state.to_le_bytes());
        hasher.finish()
    }

    /// SipHash-1-3, as hash tables use it: who learns no hash cannot aim for collisions.
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

impl Sketch {
    /// Of nothing, with the cells that are kept up to date.
    #[must_use]
    pub fn new(key: SketchKey) -> Self {
        Self::collect(key, CELLS_CACHED, [])
    }

    /// The first `cells` cells, [`CELLS_MAX`] at most, of all these symbols, each at most once.
    #[must_use]
    pub fn collect(
        key: SketchKey,
        cells: usize,
        symbols: impl IntoIterator<Item = Symbol>,
    ) -> Self {
        let cells = vec![Cell::default(); cells.min(CELLS_MAX)].into();
        let mut this = Self { key, cells, symbols: 0, root: 0 };
        symbols.into_iter().for_each(|symbol| this.insert(symbol));
        this
    }

    /// Puts a symbol in. The caller MUST NOT put one in twice: then no peer could decode it.
    pub fn insert(&mut self, symbol: Symbol) {
        self.symbols = self.symbols.wrapping_add(1);
        self.add(symbol, 1);
    }

    /// Takes out a symbol that was put in.
    pub fn remove(&mut self, symbol: Symbol) {
        self.symbols = self.symbols.wrapping_sub(1);
        self.add(symbol, -1);
    }

    /// The key of its hashes.
    #[must_use]
    pub const fn key(&self) -> SketchKey {
        self.key
    }

    /// The sum of the checks of all symbols: equal on nodes that know the same.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// How many symbols it sums.
    #[must_use]
    pub const fn symbols(&self) -> u64 {
        self.symbols
    }

    /// Its cells, from the first one on.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Whether the two sum the same symbols, however many cells each has.
    #[must_use]
    pub fn is_of_the_same(&self, other: &Self) -> bool {
        (self.key, self.symbols, self.root) == (other.key, other.symbols, other.root)
    }

    /// At most `count` cells from number `first` on; as many as there are.
    #[must_use]
    pub fn batch(&self, first: usize, count: usize) -> Cells {
        let first = first.min(self.cells.len());
        let end = first.saturating_add(count).min(self.cells.len());
        // Below CELLS_MAX.
        let at = u32::try_from(first).unwrap_or(u32::MAX);
        Cells { first: at, symbols: self.symbols, cells: self.cells[first..end].to_vec() }
    }

    fn add(&mut self, symbol: Symbol, count: i64) {
        let check = self.key.check(symbol);
        // Modulo 2^64, so that taking out undoes putting in.
        self.root = self.root.wrapping_add(check.wrapping_mul(count as u64));
        let cells = Arc::make_mut(&mut self.cells);
        let len = cells.len();
        for index in Indices::new(check).take_while(|index| *index < len) {
            cells[index].add(symbol, check, count);
        }
    }
}

/// How much of a state's hash is sent.
const STATE_BITS: u32 = 48;
// Of what a hash is: no two kinds may collide.
const OF_NAME: u8 = 1;
const OF_STATE: u8 = 2;
const OF_SYMBOL: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        id::{Generation, Incarnation, Version},
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

    /// Two machines must put a symbol into the same cells, whatever they are.
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

    #[test]
    fn is_empty_again_once_all_is_taken_out() {
        let mut sketch = Sketch::new(key());
        let symbols: Vec<_> =
            (0..100).map(|i| Symbol { id: i, state: u64::from(i) << 20 }).collect();
        symbols.iter().for_each(|symbol| sketch.insert(*symbol));
        assert_ne!(sketch.root(), 0);
        let kept = sketch.clone();
        symbols.iter().rev().for_each(|symbol| sketch.remove(*symbol));
        assert!(sketch.is_of_the_same(&Sketch::new(key())));
        assert!(sketch.cells().iter().all(Cell::is_zero));
        assert_eq!(kept.symbols(), 100, "a clone stays as it was");
        assert_eq!(kept.cells()[0].count, 100);
    }

    #[test]
    fn shows_no_key() {
        assert!(!format!("{:?}", Sketch::new(key())).contains("48"));
    }
}
