//! A node's state as a stream of cells, from which a peer with almost the same state computes the difference:
//! a rateless invertible Bloom lookup table (Yang, Gilad and Alizadeh, "Practical Rateless Set
//! Reconciliation", SIGCOMM 2024).
//!
//! Each line of a digest is a [`Symbol`] of two keyed hashes, one of the node of the line and one of its
//! contents. Cell `i` sums a symbol with probability `2 / (i + 2)`, the best density of the paper (its
//! section 4.2), so cell 0 sums all. Sums are linear: a changed line is taken out and put in again at the
//! same places, and the difference of two nodes' cells is a sketch of their difference alone, which a
//! [`Decoder`] takes apart. The number of cells needed depends on the difference, not on the cluster: 1.35 to
//! 1.7 a symbol.
//!
//! A sketch is not a proof. A holder of the key can make arbitrary cells; the result of decoding is a hint
//! which lines to compare, and never changes a copy.

pub use cell::{
    CELLS_CACHED, CELLS_FIRST, CELLS_MAX, CELLS_MORE, CELLS_PER_MESSAGE_MAX, Cell, Cells,
};
pub use decoder::{Decoder, Differences, GiveUp, Progress};
pub use sums::Sketch;
pub use symbol::{SketchKey, Symbol};

mod cell;
mod decoder;
mod indices;
mod sums;
mod symbol;
