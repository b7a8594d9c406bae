//! What a [`Store`](gossipmonger::store::Store) promises, held against those that ship: the same as a
//! `Stored` in memory, after every commit, after kill -9, and after the disk tore or changed the file.

mod contract;
#[cfg(unix)]
mod killed;
mod sample;
mod torn;
