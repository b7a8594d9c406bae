//! ractor's clusters over the connections of nodes, in several processes.
//!
//! Process groups and actor ids are those of a process, so every other node is a process of its own: this program,
//! started with [`process::PLAN`] in its environment. For the same reason one test runs at a time.
mod liar;
mod meshed;
mod process;
mod refusals;
mod restarts;
