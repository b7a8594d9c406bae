//! The end of certificates: TLS looks at them in a handshake only, and a connection outlives them.
//!
//! So when either end has a new certificate, the one that dialed dials again, and the new connection
//! takes the place of the old one: nobody is missed and nothing is lost. A connection whose certificates
//! have ended, or are of an authority that is no longer trusted, is closed. Nothing here waits for long:
//! the wall clock may be set, and files may be replaced, at any time.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use quinn::{Connection, ConnectionError};
use rustls::pki_types::CertificateDer;

use super::{Shared, close::Close, dial, table::Link, tasks::Spawner};
use crate::{
    clock::Clock,
    protocol::id::{Datacenter, NodeId},
    tls::{self, Identity, Rejection, Tls, date},
    transport::{NodeLink, quic::peer},
};

/// By what the two ends of a connection have proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    ours: Shown,
    theirs: Shown,
    /// Where the peer is, if its certificate says it.
    datacenter: Option<Datacenter>,
}

/// One certificate, with its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    fingerprint: String,
    /// When the first of the chain ends.
    expires: SystemTime,
}

impl Proof {
    /// `ours`: what this node has shown. `None`: the peer has shown nothing, which no handshake allows.
    pub(super) fn new(tls: &Tls, ours: &Identity, connection: &Connection) -> Option<Self> {
        let theirs = Shown::new(tls, &peer::peer_chain(connection).ok()?)?;
        let datacenter = tls.peer_name(connection).ok()?.datacenter;
        let datacenter = Some(datacenter).filter(|_| ours.naming().tells_datacenter());
        Some(Self { ours: Shown::new(tls, ours.chain())?, theirs, datacenter })
    }

    /// Where the peer is; where certificates do not say it, what the peer says counts.
    pub(super) fn datacenter(&self, node: &NodeLink, peer: &NodeId) -> Datacenter {
        let proved = self.datacenter.clone();
        let told = || node.datacenter(peer).unwrap_or_else(|| node.config().datacenter.clone());
        proved.unwrap_or_else(told)
    }

    /// When the first of the two ends.
    fn ends(&self) -> SystemTime {
        self.ours.expires.min(self.theirs.expires)
    }
}

impl Shown {
    fn new(tls: &Tls, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let expires = tls.summary(chain).ok()?.expires;
        Some(Self { fingerprint: tls::chain_fingerprint(chain), expires })
    }
}

/// Renews the connection while it can be, and closes it when it has to be.
pub(super) async fn watch(
    shared: &Arc<Shared>,
    node: &NodeLink,
    spawner: &Spawner,
    link: &Arc<Link>,
) -> ConnectionError {
    let (mut doubts, mut reloads) = (0, shared.tls.reloads());
    while shared.table.is_current(link) {
        let now = Clock::wall();
        let Ok(left) = link.proof.ends().duration_since(now) else {
            expired(node, link, now);
            break;
        };
        let refusal = shared.tls.review(&link.connection, link.dialed).err();
        // A clock that was set back is no fault of the peer.
        let refusal = refusal.filter(|refusal| refusal.reason != Rejection::NotYetValid);
        if link.dialed && (refusal.is_some() || is_outdated(shared, node, link)) {
            spawner.spawn(dial::renew(
                Arc::clone(shared),
                node.clone(),
                spawner.clone(),
                Arc::clone(link),
            ));
        }
        // The other end may be the one that is to dial again: it has some looks of its own for that.
        doubts = if refusal.is_some() { doubts + 1 } else { 0 };
        if let Some(refusal) = refusal.filter(|_| doubts > DOUBTS_MAX) {
            let (label, detail) = (refusal.reason.as_str(), &refusal.detail);
            let words = format!("your certificate is not accepted any more: {label} {detail}");
            Close::Unwelcome.connection(&link.connection, &words);
            node.cut(link.node(), false, refusal.reason.as_str(), refusal);
            break;
        }
        let pause = (left / LOOKS).clamp(LOOK_MIN, LOOK_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause.min(left + LOOK_MIN)) => {}
            // All connections look then, but need not do so in the same moment.
            _ = reloads.changed() => {
                let spread = pause.min(RELOAD_SPREAD).mul_f64(rand::random());
                tokio::time::sleep(spread).await;
            }
        }
    }
    link.connection.closed().await
}

/// Closes a connection at the end of a certificate, be it ours: the peer does so as well.
fn expired(node: &NodeLink, link: &Link, now: SystemTime) {
    let theirs = now > link.proof.theirs.expires;
    let (whose, end) = if theirs {
        (link.node(), link.proof.theirs.expires)
    } else {
        (node.node(), link.proof.ours.expires)
    };
    let words = format!("the certificate of {whose} expired on {}: renew it", date(end));
    Close::Expired.connection(&link.connection, &words);
    node.cut(link.node(), false, Rejection::Expired.as_str(), words);
}

/// Whether an end has another certificate by now: ours is known, the peer says until when its own is
/// valid. One that lies about that costs a handshake each time we look.
fn is_outdated(shared: &Shared, node: &NodeLink, link: &Link) -> bool {
    let ours = shared.tls.identity();
    let theirs = link.proof.theirs.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
    tls::chain_fingerprint(ours.chain()) != link.proof.ours.fingerprint
        || node.not_after(link.node()) > theirs.as_secs()
}

/// A connection is looked at so often in the time that its certificates have left.
const LOOKS: u32 = 16;
/// A certificate that is not accepted any more is let pass in so many looks, and not in the next.
const DOUBTS_MAX: u32 = 3;
/// After a reload the connections are looked at within this time.
const RELOAD_SPREAD: Duration = Duration::from_secs(1);
/// It is looked at no more often than this,
const LOOK_MIN: Duration = Duration::from_millis(50);
/// and at least so often.
const LOOK_MAX: Duration = Duration::from_secs(20);
