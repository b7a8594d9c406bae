//! The shell: one actor around each machine of `protocol`, and the rules of messages between actors.
//!
//! ```text
//!                      supervisor (the one child in the user's tree)
//!        .------------------+-------------+-----------------+----------------.
//!     storage            detector      scheduler         transport        services
//!                                                           '----- tasks -----'---- network
//!        |
//!     writer thread ---- Store
//! ```
//!
//! Casts go anywhere, through [`Shared::route`](super::shared::Shared::route); calls go only into storage, and storage calls no actor, so
//! mailboxes cannot wait for each other in a circle. Everything that must outlive an actor (the store, the
//! transport's endpoint, the published state, the routes) belongs to the supervisor and is shared.

pub(crate) mod detector;
pub(crate) mod scheduler;
pub(crate) mod services;
pub(crate) mod storage;
pub(crate) mod supervisor;
pub(crate) mod transport;
