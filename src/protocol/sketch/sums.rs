//! The cells of a node's whole state, updated with every change.

use std::sync::Arc;

use super::{
    cell::{CELLS_CACHED, CELLS_MAX, Cell, Cells},
    indices::Indices,
    symbol::{SketchKey, Symbol},
};

/// The first cells of a node's whole state, and their root. A clone is cheap and does not change any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    key: SketchKey,
    cells: Arc<[Cell]>,
    symbols: u64,
    root: u64,
}

impl Sketch {
    /// Of an empty state, with the cells that are updated with every change.
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

    /// The sum of the checks of all symbols: equal on nodes with the same state.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SketchKey {
        SketchKey(*b"0123456789abcdef")
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
