//! Secure cluster membership and shared state.
pub mod protocol;
pub mod store;
pub mod tls;
