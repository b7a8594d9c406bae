//! Why the ledger does not do what it is asked.

use std::{io, path::PathBuf};

use super::terms::{TOKENS_MAX, TTL_MAX, USES_MAX};
use crate::{
    issuer::{request::Refused, token::TokenId},
    tls::LoadError,
};

/// The ledger could not be read or written, or the request is impossible. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The file cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The file is not a ledger of ours.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// The file cannot be written or locked.
    #[error("{}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// There are too many tokens.
    #[error("there are {TOKENS_MAX} tokens that are still good: revoke some first")]
    Full,
    /// The terms are out of range.
    #[error("a token is good for up to {} days and 1 to {USES_MAX} uses; for a node it is good once", TTL_MAX.as_secs() / 86_400)]
    Terms,
    /// The token does not exist.
    #[error("no token {0} is known; see `gossipmonger token list`")]
    Unknown(TokenId),
}

/// A claim was denied.
#[derive(Debug)]
pub(crate) struct Denied {
    pub(crate) why: Refused,
    pub(crate) detail: String,
}

impl Denied {
    pub(crate) fn new(why: Refused, detail: impl ToString) -> Self {
        Self { why, detail: detail.to_string() }
    }
}

impl From<LedgerError> for Denied {
    fn from(error: LedgerError) -> Self {
        Self::new(Refused::Unable, error)
    }
}
