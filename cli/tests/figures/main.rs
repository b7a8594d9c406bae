//! What the program measures and simulates, as a user runs it.

mod bench;
mod calls;
mod simulate;
