//! Scuttlebutt and phi accrual as pure state machines.
pub mod entry;
pub mod id;
pub mod time;
