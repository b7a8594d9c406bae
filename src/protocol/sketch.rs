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
