//! Why a caller is sent away.

use crate::protocol::close::Close;

/// Why a caller is sent away.
#[derive(Debug)]
pub(super) struct Refusal {
    /// For the counter; empty if it is ordinary.
    pub(super) label: &'static str,
    pub(super) close: Close,
    pub(super) words: String,
}
