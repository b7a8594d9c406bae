//! Expiry of certificates: TLS checks them only in a handshake, and a connection outlives them.
//!
//! So when either end has a new certificate, the dialing end dials again, and the new connection replaces the old one
//! without a missed heartbeat or a lost frame. A connection is closed if a certificate of it has expired, or its
//! authority is no longer trusted. No wait here is long: the wall clock may be set, and files may be replaced, at any
//! time.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::RngExt;

use super::{super::host::Host, closing::close_with, context::Context, link::Link};
use crate::{
    net::Ended,
    protocol::close::Close,
    tls::{self, Rejection, Tls, date},
};

/// Renews the connection in time, and closes it when a certificate is no longer valid.
pub(super) async fn watch(context: &Context, link: &Arc<Link>) -> Ended {
    match context.endpoint.tls() {
        Some(tls) => look(context, tls, link).await,
        None => look_without_tls(context, link).await,
    }
    link.connection.closed().await
}

async fn look(context: &Context, tls: &Tls, link: &Arc<Link>) {
    let host = context.host();
    let proof = &link.connection.peer().proof;
    let (mut doubts, mut reloads) = (0, tls.reloads());
    while context.links.is_current(link) {
        let now = host.wall();
        let ends = [proof.ours.expires, proof.theirs.expires].into_iter().flatten().min();
        let Ok(left) = ends.map_or(Ok(Duration::MAX), |end| end.duration_since(now)) else {
            return expired(host, link, now);
        };
        let refusal = tls.verify_again(&link.connection.peer().chain, link.dialed).err();
        // If the clock was set back, the peer is not at fault.
        let refusal = refusal.filter(|refusal| refusal.reason != Rejection::NotYetValid);
        if link.dialed && (refusal.is_some() || is_outdated(host, tls, link)) {
            context.spawner.spawn((context.renew)(context.clone(), Arc::clone(link)));
        }
        // The other end may be the one that has to dial again: it gets a few checks of time for that.
        doubts = if refusal.is_some() { doubts + 1 } else { 0 };
        if let Some(refusal) = refusal.filter(|_| doubts > DOUBTS_MAX) {
            let (label, detail) = (refusal.reason.as_str(), &refusal.detail);
            let words = format!("your certificate is not accepted any more: {label} {detail}");
            close_with(link.connection.as_ref(), Close::Unwelcome, &words);
            return host.cut(&link.peer, false, refusal.reason.as_str(), refusal);
        }
        let pause = (left / LOOKS).clamp(LOOK_MIN, LOOK_MAX);
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause.min(left.saturating_add(LOOK_MIN))) => {}
            // All connections then check, but spread over time.
            _ = reloads.changed() => {
                let spread = pause.min(RELOAD_SPREAD).mul_f64(host.ambient().rng().random());
                tokio::time::sleep(spread).await;
            }
        }
    }
}

/// The same over a network whose certificates are only dates. A connection without any lasts.
async fn look_without_tls(context: &Context, link: &Arc<Link>) {
    let (host, proof) = (context.host(), &link.connection.peer().proof);
    while context.links.is_current(link) {
        let Some(shown) = context.endpoint.shown() else { return };
        let now = host.wall();
        let ends = [proof.ours.expires, proof.theirs.expires].into_iter().flatten().min();
        let Ok(left) = ends.map_or(Ok(Duration::MAX), |end| end.duration_since(now)) else {
            return expired(host, link, now);
        };
        if link.dialed && (shown.fingerprint != proof.ours.fingerprint || is_older(host, link)) {
            context.spawner.spawn((context.renew)(context.clone(), Arc::clone(link)));
        }
        let pause = (left / LOOKS).clamp(LOOK_MIN, LOOK_MAX);
        let pause = pause.min(left.saturating_add(LOOK_MIN));
        let _ = tokio::time::timeout(pause, link.connection.closed()).await;
    }
}

/// Closes a connection at the end of a certificate, also of our own: the peer does so as well.
fn expired(host: &Host, link: &Link, now: SystemTime) {
    let proof = &link.connection.peer().proof;
    let theirs = proof.theirs.expires.is_some_and(|end| now > end);
    let (whose, end) =
        if theirs { (&link.peer, proof.theirs.expires) } else { (host.node(), proof.ours.expires) };
    let end = end.map_or_else(String::new, date);
    let words = format!("the certificate of {whose} expired on {end}: renew it");
    close_with(link.connection.as_ref(), Close::Expired, &words);
    host.cut(&link.peer, false, Rejection::Expired.as_str(), words);
}

/// Whether an end has a newer certificate: ours is known, the peer reports its expiry. A peer that lies about it
/// costs one handshake per check.
fn is_outdated(host: &Host, tls: &Tls, link: &Link) -> bool {
    let (proof, ours) = (&link.connection.peer().proof, tls.identity());
    tls::chain_fingerprint(ours.chain()) != proof.ours.fingerprint || is_older(host, link)
}

/// Whether the peer reports a later expiry than that of the certificate that it has shown.
fn is_older(host: &Host, link: &Link) -> bool {
    let theirs = link.connection.peer().proof.theirs.expires;
    let theirs = theirs.and_then(|end| end.duration_since(UNIX_EPOCH).ok());
    host.not_after(&link.peer) > theirs.unwrap_or_default().as_secs()
}

/// The number of checks of a connection in the remaining validity of its certificates.
const LOOKS: u32 = 16;
/// A certificate that is not accepted any more is tolerated in this many checks, and not in the next.
const DOUBTS_MAX: u32 = 3;
/// After a reload all connections are checked within this time.
const RELOAD_SPREAD: Duration = Duration::from_secs(1);
/// The minimum interval between checks,
const LOOK_MIN: Duration = Duration::from_millis(50);
/// and the maximum.
const LOOK_MAX: Duration = Duration::from_secs(20);
