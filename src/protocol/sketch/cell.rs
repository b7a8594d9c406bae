//! One sum of symbols, and a run of them on the wire.

use super::symbol::Symbol;
use crate::protocol::wire::{Decode, DecodeError, Decoder, Encode, Sink};

/// How many cells are updated with every change: 128 are enough to find about 85 differences, and a change
/// touches nine of them.
pub const CELLS_CACHED: usize = 128;
/// How many cells open a reconciliation: enough for 20 differences in every second case.
pub const CELLS_FIRST: usize = 32;
/// How many more are asked for at least.
pub const CELLS_MORE: usize = 8;
/// Most cells of one sketch: enough for about 3,000 differences in 62 KB, a fourth of the digest of 10,000
/// lines that is sent instead if they are not.
pub const CELLS_MAX: usize = 4_096;
/// Most cells of one message.
pub const CELLS_PER_MESSAGE_MAX: usize = 512;

/// The sum of some symbols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// The exclusive or of their ids.
    pub ids: u32,
    /// The exclusive or of their contents; the upper 16 bits are zero.
    pub states: u64,
    /// The exclusive or of their checks.
    pub checks: u32,
    /// Their number; in a difference those of the peer less ours.
    pub count: i64,
}

/// Cells of one sketch in a row.
///
/// On the wire a cell takes 14 bytes, and a count as the difference from what is expected at its
/// place among so many symbols: one byte of nearly all in a cluster of 10,000, and at most three.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cells {
    /// The number of the first one.
    pub first: u32,
    /// How many symbols the sketch sums.
    pub symbols: u64,
    /// The cells, [`CELLS_PER_MESSAGE_MAX`] at most.
    pub cells: Vec<Cell>,
}

impl Cell {
    /// Whether it sums nothing.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.ids == 0 && self.states == 0 && self.checks == 0 && self.count == 0
    }

    /// Adds a symbol `count` times: once, or takes it out once with -1.
    pub(super) const fn add(&mut self, symbol: Symbol, check: u64, count: i64) {
        self.ids ^= symbol.id;
        self.states ^= symbol.state;
        self.checks ^= short(check);
        self.count = self.count.wrapping_add(count);
    }

    /// The symbols that are in exactly one of the two. A count from the wire may be any number, so it wraps.
    pub(super) const fn difference(&self, other: &Self) -> Self {
        Self {
            ids: self.ids ^ other.ids,
            states: self.states ^ other.states,
            checks: self.checks ^ other.checks,
            count: self.count.wrapping_sub(other.count),
        }
    }

    /// The only symbol in it, if it seems to hold one alone; `check` computes a symbol's check.
    pub(super) fn only(&self, check: impl FnOnce(Symbol) -> u64) -> Option<(Symbol, u64)> {
        if self.count != 1 && self.count != -1 {
            return None;
        }
        let symbol = Symbol { id: self.ids, state: self.states };
        let check = check(symbol);
        (short(check) == self.checks).then_some((symbol, check))
    }
}

/// The half of a check that is sent.
const fn short(check: u64) -> u32 {
    (check >> 32) as u32
}

/// How many of this many symbols cell `index` is expected to sum.
fn expected(symbols: u64, index: u64) -> i64 {
    let expected = u128::from(symbols) * 2 / (u128::from(index) + 2);
    i64::try_from(expected).unwrap_or(i64::MAX)
}

impl Encode for Cells {
    fn encode(&self, to: &mut impl Sink) {
        self.first.encode(to);
        self.symbols.encode(to);
        (self.cells.len() as u64).encode(to);
        for (index, cell) in (u64::from(self.first)..).zip(&self.cells) {
            cell.ids.to_le_bytes().encode(to);
            let [states @ .., _, _] = cell.states.to_le_bytes();
            states.encode(to);
            cell.checks.to_le_bytes().encode(to);
            cell.count.wrapping_sub(expected(self.symbols, index)).encode(to);
        }
    }
}

impl Decode<'_> for Cells {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let first = u32::decode(from)?;
        let symbols = u64::decode(from)?;
        let len = usize::try_from(u64::decode(from)?).unwrap_or(usize::MAX);
        if len > CELLS_PER_MESSAGE_MAX {
            return Err(DecodeError::OtherString(format!(
                "{len} cells in a message, at most {CELLS_PER_MESSAGE_MAX} are allowed"
            )));
        }
        let mut cells = Vec::with_capacity(len);
        for index in (u64::from(first)..).take(len) {
            let ids = u32::from_le_bytes(Decode::decode(from)?);
            let [a, b, c, d, e, f] = Decode::decode(from)?;
            let states = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
            let checks = u32::from_le_bytes(Decode::decode(from)?);
            let count = i64::decode(from)?.wrapping_add(expected(symbols, index));
            cells.push(Cell { ids, states, checks, count });
        }
        Ok(Self { first, symbols, cells })
    }
}
