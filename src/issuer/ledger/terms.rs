//! What a token permits, and what its issuer shows of it.

use std::time::{Duration, SystemTime};

use crate::{
    issuer::token::TokenId,
    protocol::id::{Datacenter, NodeId},
};

/// Maximum number of tokens; beyond it expired or used ones are dropped, and if none is, no more are created.
pub(super) const TOKENS_MAX: usize = 500;

/// Maximum number of uses of a token.
pub(super) const USES_MAX: u32 = 10_000;

/// Maximum lifetime of a token.
pub(super) const TTL_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long a name that was granted to a joining node is reserved: it appears in the gossip only
/// when its agent has been started.
pub(super) const NAME_HELD: Duration = Duration::from_secs(120);

/// What a token permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The only node that may join with it; `None`: any.
    pub node: Option<NodeId>,
    /// The only datacenter; `None`: any.
    pub datacenter: Option<Datacenter>,
    /// How long it is valid, at most 90 days.
    pub ttl: Duration,
    /// The number of uses, 1 to 10,000.
    pub uses: u32,
}

/// A token as its issuer sees it, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenView {
    /// Its id.
    pub id: TokenId,
    /// What it permits.
    pub terms: Terms,
    /// When it was created.
    pub created: SystemTime,
    /// The end of its validity.
    pub expires: SystemTime,
    /// How often it was used.
    pub used: u32,
    /// The last few nodes that joined with it.
    pub by: Vec<NodeId>,
    /// Whether it is still valid, and if not, why not.
    pub state: TokenState,
}

/// The state of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenState {
    /// It is valid.
    Good,
    /// All of its uses are used up.
    Used,
    /// It has expired.
    Expired,
    /// It was revoked.
    Revoked,
}

impl TokenState {
    /// The stable word for lists and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}
