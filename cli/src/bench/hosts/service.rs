//! The service that is called between hosts.

use serde::{Deserialize, Serialize};

/// Asks for the same text.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Echo(pub(super) String);

/// Must not run twice. Each call has a number of its own; the answer is how often this number has run at this node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Once {
    pub(super) number: u64,
    pub(super) body: String,
}

/// Is counted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told(pub(super) String);

/// Asks for so many pieces of so many bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bulk {
    pub(super) pieces: u32,
    pub(super) bytes: u32,
}

/// A piece of the bulk. Text is copied at once; serde takes bytes one by one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Piece(pub(super) String);

gossipmonger::service! {
    /// What `bench drive` calls.
    pub(super) struct Measured = "bench.echo", 1.0;

    1: call Echo -> String, idempotent;
    2: call Once -> u32;
    3: cast Told;
    4: stream Bulk -> Piece;
}

/// The longest body and piece: the library's default for one message, without what is around the body.
pub(super) const BYTES_MAX: usize = (1 << 20) - 64;
