//! The shell: one actor around each machine of `protocol`, and who may message whom.
//!
//! ```text
//!                      supervisor (the one child in the user's tree)
//!        .------------------+-------------+-----------------.
//!     storage            detector      scheduler         transport ---- tasks ---- network
//!        |
//!     writer thread ---- Store
//! ```
//!
//! Casts go anywhere, through [`shared::Shared::route`]; calls go only into storage, and storage
//! calls nobody, so mailboxes cannot wait for each other in a circle. What has to outlive an actor (the store, the transport's endpoint, what readers
//! see, the routes) belongs to the supervisor and is shared.

pub(crate) mod channel;
pub(crate) mod detector;
mod features;
pub(crate) mod repeats;
pub(crate) mod scheduler;
pub(crate) mod shared;
pub(crate) mod slot;
pub(crate) mod storage;
pub(crate) mod supervisor;
pub(crate) mod timer;
pub(crate) mod writer;
