//! The content of the ledger: tokens and reserved names, and who may use a token for what.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::{
    error::{Denied, LedgerError},
    terms::{NAME_HELD, TOKENS_MAX, Terms, TokenState, TokenView},
};
use crate::{
    issuer::{
        request::{Exported, Join, Refused},
        token::{ProofKey, Token, TokenId, from_hex, to_hex},
    },
    protocol::id::{Datacenter, NodeId},
};

/// The claimed name, and the claimant's proof.
pub(crate) struct Claim<'a> {
    pub(crate) join: &'a Join,
    pub(crate) exported: &'a Exported,
    /// The datacenter of a node if neither token nor request sets one.
    pub(crate) datacenter: &'a Datacenter,
    pub(crate) now: SystemTime,
}

/// All records.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Book {
    pub(super) token: Vec<Entry>,
    grant: Vec<Grant>,
}

/// Times are seconds since 1970.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    id: String,
    key: String,
    node: Option<NodeId>,
    datacenter: Option<Datacenter>,
    created: u64,
    expires: u64,
    uses: u32,
    #[serde(default)]
    used: u32,
    #[serde(default)]
    revoked: bool,
    #[serde(default)]
    by: Vec<NodeId>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    node: NodeId,
    at: u64,
}

impl Book {
    /// Removes tokens that ended long ago; if there is no room, all that have ended.
    pub(super) fn make_room(&mut self, now: SystemTime) -> Result<(), LedgerError> {
        // Cannot overflow: times are limited to the year 9999.
        self.token.retain(|entry| time(entry.expires) + KEPT_AFTER > now);
        while self.token.len() >= TOKENS_MAX {
            let over = |entry: &Entry| entry.state(now) != TokenState::Good;
            let place = self.token.iter().position(over).ok_or(LedgerError::Full)?;
            self.token.remove(place);
        }
        Ok(())
    }

    /// Drops reservations that are over.
    pub(super) fn forget_grants(&mut self, now: SystemTime) {
        // An entry in the future was written before a clock was set back.
        let fresh =
            |grant: &Grant| now.duration_since(time(grant.at)).is_ok_and(|since| since < NAME_HELD);
        self.grant.retain(fresh);
    }

    /// Marks a token as revoked; `None` if it is unknown.
    pub(super) fn revoke(&mut self, id: TokenId, now: SystemTime) -> Option<TokenView> {
        let entry = self.token.iter_mut().find(|entry| entry.id() == Some(id))?;
        entry.revoked = true;
        Some(entry.view(now))
    }

    /// Lets a name be granted again at once; returns whether it was reserved.
    pub(super) fn release(&mut self, node: &NodeId) -> bool {
        let held = self.grant.len();
        self.grant.retain(|grant| grant.node != *node);
        self.grant.len() < held
    }

    /// Judges a claim; the secret first, so that a client without it learns nothing else.
    pub(super) fn judge(
        &self,
        claim: &Claim<'_>,
        lives: impl Fn(&NodeId) -> bool,
    ) -> Result<(usize, NodeId, Datacenter, ProofKey), Denied> {
        let Claim { join, exported, now, .. } = claim;
        let place = self.token.iter().position(|entry| entry.id() == Some(join.token));
        let place = place.ok_or_else(|| Denied::new(Refused::UnknownToken, ""))?;
        let entry = &self.token[place];
        let key = entry.key().ok_or_else(|| Denied::new(Refused::Unable, ""))?;
        if !join.is_proved(&key, exported) {
            return Err(Denied::new(Refused::WrongSecret, ""));
        }
        entry.check_good(*now)?;
        let (node, datacenter) = entry.name(join, claim.datacenter)?;
        if lives(&node) {
            let detail = format!(
                "a node {node} is in the cluster and not dead; stop it, or choose another name"
            );
            return Err(Denied::new(Refused::NameTaken, detail));
        }
        if self.grant.iter().any(|grant| grant.node == node) {
            let detail = format!(
                "{node} was let in less than {} s ago and has not been seen yet; wait, or choose \
                 another name",
                NAME_HELD.as_secs()
            );
            return Err(Denied::new(Refused::NameTaken, detail));
        }
        Ok((place, node, datacenter, key))
    }

    /// Records a use of a token.
    pub(super) fn note(&mut self, place: usize, node: NodeId, now: SystemTime) {
        if let Some(entry) = self.token.get_mut(place) {
            entry.used += 1;
            entry.by.push(node.clone());
            let many = entry.by.len().saturating_sub(BY_KEPT);
            entry.by.drain(..many);
        }
        let many = (self.grant.len() + 1).saturating_sub(GRANTS_MAX);
        self.grant.drain(..many);
        self.grant.push(Grant { node, at: seconds(now) });
    }
}

impl Entry {
    pub(super) fn new(token: &Token, terms: &Terms, now: SystemTime) -> Self {
        Self {
            id: token.id().to_string(),
            key: to_hex(&token.key().0),
            node: terms.node.clone(),
            datacenter: terms.datacenter.clone(),
            created: seconds(now),
            expires: seconds(now + terms.ttl),
            uses: terms.uses,
            used: 0,
            revoked: false,
            by: Vec::new(),
        }
    }

    pub(super) fn id(&self) -> Option<TokenId> {
        self.id.parse().ok()
    }

    pub(super) fn key(&self) -> Option<ProofKey> {
        from_hex(&self.key).map(ProofKey)
    }

    fn state(&self, now: SystemTime) -> TokenState {
        if self.revoked {
            TokenState::Revoked
        } else if self.used >= self.uses {
            TokenState::Used
        } else if now >= time(self.expires) {
            TokenState::Expired
        } else {
            TokenState::Good
        }
    }

    fn check_good(&self, now: SystemTime) -> Result<(), Denied> {
        let (why, detail) = match self.state(now) {
            TokenState::Good => return Ok(()),
            TokenState::Revoked => (Refused::TokenRevoked, String::new()),
            TokenState::Expired => {
                (Refused::Expired, format!("on {}", crate::tls::date(time(self.expires))))
            }
            TokenState::Used => {
                let by: Vec<_> = self.by.iter().map(NodeId::as_str).collect();
                (Refused::Used, format!("by {}", by.join(", ")))
            }
        };
        Err(Denied { why, detail })
    }

    /// The name that a claim is for.
    fn name(&self, join: &Join, datacenter: &Datacenter) -> Result<(NodeId, Datacenter), Denied> {
        if let (Some(fixed), Some(asked)) = (&self.node, &join.node)
            && fixed != asked
        {
            let detail = format!("it is for node {fixed}, not {asked}");
            return Err(Denied::new(Refused::WrongName, detail));
        }
        if let (Some(fixed), Some(asked)) = (&self.datacenter, &join.datacenter)
            && fixed != asked
        {
            let detail = format!("it is for datacenter {fixed}, not {asked}");
            return Err(Denied::new(Refused::WrongName, detail));
        }
        let node = self
            .node
            .as_ref()
            .or(join.node.as_ref())
            .ok_or_else(|| Denied::new(Refused::NameNeeded, "say --node NAME"))?;
        let chosen = self.datacenter.as_ref().or(join.datacenter.as_ref()).unwrap_or(datacenter);
        for name in [node.as_str(), chosen.as_str()] {
            if name.starts_with('-') {
                let detail =
                    format!("{name} begins with '-', so commands would take it for an option");
                return Err(Denied::new(Refused::WrongName, detail));
            }
        }
        Ok((node.clone(), chosen.clone()))
    }

    pub(super) fn view(&self, now: SystemTime) -> TokenView {
        let (created, expires) = (time(self.created), time(self.expires));
        TokenView {
            id: self.id().unwrap_or(TokenId([0; 8])),
            terms: Terms {
                node: self.node.clone(),
                datacenter: self.datacenter.clone(),
                ttl: expires.duration_since(created).unwrap_or_default(),
                uses: self.uses,
            },
            created,
            expires,
            used: self.used,
            by: self.by.clone(),
            state: self.state(now),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time; one that a damaged file puts out of range counts as long ago.
fn time(seconds: u64) -> SystemTime {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    time.filter(|_| seconds <= SECONDS_MAX).unwrap_or(UNIX_EPOCH)
}

/// The end of the year 9999: later times would overflow.
pub(super) const SECONDS_MAX: u64 = 253_402_300_799;
/// Maximum number of names kept of those that joined with a token.
const BY_KEPT: usize = 16;
/// Maximum number of reserved names: far more than are granted within [`NAME_HELD`].
const GRANTS_MAX: usize = 2_000;
/// How long an expired token is kept, so that it is refused as expired, not as unknown.
pub(super) const KEPT_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
