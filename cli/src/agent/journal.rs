//! What the agent logs: members that come and go. The node logs its problems itself.

use std::{path::Path, time::Duration};

use gossipmonger::{
    Gossipmonger,
    protocol::{event::Event, revocation::date, route::Counter},
    subscription::{Events, SubscriptionError},
    unstable::date as certificate_date,
};

use super::settings::Credentials;
use crate::{clock::Clock, expiry, why::names};

/// Logs that the node runs, and its addresses.
pub(super) fn started(node: &Gossipmonger, dir: &Path) {
    let addresses = node.addresses().join(", ");
    tracing::info!(
        node = %node.node(), cluster = %node.cluster(), datacenter = %node.datacenter(), %addresses,
        "started; ask it with: gossipmonger --dir {} members", dir.display()
    );
    let stored = node.snapshot().member(node.node()).map(|member| member.tags);
    if stored.is_some_and(|tags| tags != node.config().tags) {
        tracing::info!("tags set while the node ran are in force, not those of the configuration");
    }
}

/// Logs members that come and go, until the node ends.
pub(super) async fn keep(node: Gossipmonger, mut events: Events) {
    let (clock, mut changes) = (Clock::start(), Changes::default());
    loop {
        match events.next().await {
            Ok(Event::PeerChanged { peer, generation }) => {
                if let Some(left_out) = changes.tells(clock.now().since_origin().as_secs()) {
                    tracing::info!(
                        %peer, %generation, left_out, "tags, addresses or generation changed"
                    );
                }
            }
            Ok(event) => note(&node, event),
            Err(SubscriptionError::Lagged(missed)) => {
                tracing::warn!(missed, "events came faster than they could be logged");
            }
            Err(_) => return,
        }
    }
}

/// How many changes of members were logged in this second: a member may change its record any number of times.
#[derive(Debug, Default)]
struct Changes {
    second: u64,
    told: u32,
    left_out: u64,
}

impl Changes {
    /// How many were left out before this one; `None` if this one is left out.
    fn tells(&mut self, second: u64) -> Option<u64> {
        if self.second != second {
            (self.second, self.told) = (second, 0);
        }
        if self.told >= CHANGES_PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Warns while the node has heard no peer since its start: a wrong seed would otherwise go unnoticed.
pub(super) async fn miss_company(node: Gossipmonger) {
    let ours = node.addresses();
    let mut seeds = node.config().seeds.clone();
    seeds.retain(|seed| !ours.contains(seed));
    let seeds = seeds.join(", ");
    let mut patience = node.config().gossip_interval * LONELY_ROUNDS;
    while !seeds.is_empty() {
        tokio::time::sleep(patience).await;
        if node.snapshot().peers().any(|peer| peer.is_live()) {
            return;
        }
        let dials_failed = node.counters().get(Counter::DialsFailed);
        let failures = node.config().seeds.iter().flat_map(|seed| node.dial_failures(seed));
        let mut failures: Vec<_> = failures.map(|failure| failure.to_string()).collect();
        let more = failures.len().saturating_sub(FAILURES_TOLD_MAX);
        failures.truncate(FAILURES_TOLD_MAX);
        if more > 0 {
            failures.push(format!("{more} more"));
        }
        tracing::warn!(
            seeds,
            dials_failed,
            "no other node has been heard yet: does one run there, and does UDP reach it? {}",
            failures.join("; ")
        );
        patience = (patience * 4).min(PATIENCE_MAX);
    }
}

/// Warns of certificates that should have been renewed, here and on other nodes: when their number changes, and once a
/// day. A certificate that is renewed at the last moment is not worth a warning.
pub(super) async fn watch_expiry(node: Gossipmonger) {
    let (mut before, mut warned, mut looks) = (0, 0, 0);
    loop {
        let now = Clock::wall();
        let certificates = node.snapshot().certificates(now);
        let lasting = certificates.expiring.min(before);
        if lasting != warned || looks >= DAY.as_secs() / EXPIRY_LOOK.as_secs() {
            (warned, looks) = (lasting, 0);
            if let Some(warning) = expiry::warning(&certificates, now).filter(|_| lasting > 0) {
                tracing::warn!("{warning}");
            }
        }
        (before, looks) = (certificates.expiring, looks + 1);
        tokio::time::sleep(EXPIRY_LOOK).await;
    }
}

fn note(node: &Gossipmonger, event: Event) {
    match event {
        Event::NewPeer { peer } => {
            let member = node.snapshot().member(&peer);
            let (datacenter, address) = member.map_or_else(Default::default, |member| {
                (member.datacenter.to_string(), member.addresses.join(", "))
            });
            tracing::info!(%peer, datacenter, address, "a new node");
        }
        Event::PeerLive { peer, .. } => tracing::info!(%peer, "live"),
        Event::PeerSuspect { peer, reason } => {
            let (phi, by) = (hundredths(reason.phi), names(&reason.observers));
            tracing::info!(%peer, phi, by, "suspect: it {}", reason.cause.as_sentence());
        }
        Event::PeerDead { peer, reason } => {
            let (phi, by) = (hundredths(reason.phi), names(&reason.observers));
            tracing::warn!(%peer, phi, by, "dead: it {}", reason.cause.as_sentence());
        }
        Event::PeerLeft { peer, .. } => tracing::info!(%peer, "left on purpose"),
        Event::PeerReturned { peer, generation, how } => {
            tracing::warn!(%peer, %generation, "{how}");
        }
        Event::PeerRemoved { peer, by: Some(by) } => {
            tracing::info!(%peer, told_by = %by, "removed: another node says that it was removed");
        }
        Event::PeerRemoved { peer, by: None } => {
            tracing::info!(%peer, "removed, as was asked at this node");
        }
        Event::PeerRevoked { peer, cutoff } => {
            let valid_until = date(cutoff);
            tracing::warn!(%peer, valid_until, "revoked: its certificates of until then are refused");
        }
        Event::PeerForgotten { peer } => tracing::info!(%peer, "forgotten"),
        Event::DatacenterUnreachable { datacenter } => {
            let nodes = node.snapshot().members().filter(|m| m.datacenter == datacenter).count();
            tracing::warn!(%datacenter, nodes, "nobody there is heard any more: unreachable");
        }
        Event::DatacenterReachable { datacenter } => tracing::info!(%datacenter, "reachable again"),
        // `keep` logs changes of members. Keys are too many, and the library logs its own errors.
        _ => {}
    }
}

/// More digits of a level of suspicion mean nothing.
fn hundredths(phi: f64) -> f64 {
    (phi * 100.0).round() / 100.0
}

/// Warns of flaws of a certificate that becomes active, if they do no harm yet.
pub(super) fn warn_of(credentials: &Credentials) {
    let Credentials { identity, standing, .. } = credentials;
    let certificate = identity.certificate();
    if standing.early {
        tracing::warn!(
            not_before = certificate_date(certificate.not_before),
            "the certificate is not valid yet, and peers refuse it until then: look at the clock of this \
             host, and of the authority's"
        );
    }
    if let Some(intermediate) = &standing.outlived {
        tracing::warn!(
            expires = certificate_date(standing.expires),
            not_after = certificate_date(certificate.not_after),
            "the certificate outlives the intermediate certificate of {intermediate}, and ends with it: \
             renew the intermediate first, then this one"
        );
    }
}

/// Changes of members that are logged in one second.
const CHANGES_PER_SECOND: u32 = 10;
/// How often the agent looks for certificates that expire.
const EXPIRY_LOOK: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(86_400);
/// The log explains at most this many failed ways to seeds; `info` has them all.
const FAILURES_TOLD_MAX: usize = 8;
/// Fewer rounds of silence are no reason for a warning.
const LONELY_ROUNDS: u32 = 10;
/// The warning is repeated at least this often.
const PATIENCE_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_so_many_changes_in_a_second_and_says_how_many_it_left_out() {
        let mut changes = Changes::default();
        let told = (0..1_000).filter(|_| changes.tells(7).is_some()).count();
        assert_eq!(told, CHANGES_PER_SECOND as usize);
        assert_eq!(changes.tells(8), Some(1_000 - u64::from(CHANGES_PER_SECOND)));
        assert_eq!(changes.tells(8), Some(0));
    }
}
