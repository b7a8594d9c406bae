//! Why a caller is disconnected.

use crate::protocol::close::Close;

/// Why a caller is disconnected.
#[derive(Debug)]
pub(super) struct Refusal {
    /// For the counter; empty if it is ordinary.
    pub(super) label: &'static str,
    pub(super) close: Close,
    pub(super) words: String,
}
