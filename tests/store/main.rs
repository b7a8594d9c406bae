//! What a [`Store`](gossipmonger::store::Store) promises, held against those that ship: the same as a
//! `Stored` in memory, after every commit, after kill -9, and after the disk tore or changed the file.

mod contract;
#[cfg(all(feature = "redb", unix))]
mod killed;
mod sample;
#[cfg(feature = "redb")]
mod torn;
