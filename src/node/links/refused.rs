//! Peers that are not connected: why, for the counters and the operator.

use super::{
    super::host::Host,
    closing::{close_with, closed, is_ordinary, rejection},
    frames::FrameError,
    introduce::Introduction,
};
use crate::{
    net::{Connection, Ended},
    protocol::{close::Close, id::NodeId, route::Counter, session::Unwelcome},
    tls::{RefusedBy, Rejection},
};

/// The label of a handshake that took too long.
pub(super) const TIMEOUT: &str = "timeout";

/// Ends a connection whose peer has proved its name, and then sent nothing.
pub(super) fn too_late(host: &Host, remote: &str, connection: &dyn Connection) {
    close_with(connection, Close::Timeout, "no introduction in time");
    let name = &connection.peer().name;
    let name = name.as_ref().map_or_else(|| "it".to_owned(), ToString::to_string);
    let reason = format!("{name} did not introduce itself in time; it hangs or is overloaded");
    host.refused(remote, TIMEOUT, reason);
}

/// The remote end of a failed connection.
#[derive(Clone, Copy)]
pub(super) struct Remote<'a> {
    /// The part that stays the same when it retries: for a peer that has dialed, the address without its port.
    pub(super) peer: &'a str,
    /// For log lines.
    pub(super) shown: &'a str,
}

/// Counts why a peer is not connected, and reports to the operator the causes that he can remove.
pub(super) fn tell(host: &Host, remote: Remote<'_>, error: &Introduction) {
    let refused = |label, reason: &dyn std::fmt::Display| {
        host.refused_of(remote.peer, remote.shown.to_owned(), label, reason);
    };
    match error {
        Introduction::Unwelcome(Unwelcome::Ourselves) => {}
        Introduction::Unwelcome(unwelcome) => refused(unwelcome.as_str(), unwelcome),
        Introduction::Connection(ended) => tell_unproved(host, remote, ended),
        Introduction::Ended { by, reason } => tell_reason(host, remote, by, reason),
        Introduction::Frame(FrameError::Stalled) => refused(TIMEOUT, error),
        Introduction::Barred { .. } => refused("barred", error),
        Introduction::Client(_) => refused(Rejection::ClientCertificate.as_str(), error),
        Introduction::NoHello => {
            host.count(Counter::FramesRefused);
            refused("misbehaviour", error);
        }
        Introduction::Frame(_) | Introduction::Nameless => refused("misbehaviour", error),
    }
}

/// For a peer without a proved name only our own verifier's reason is reported; the peer's own words are only counted.
fn tell_unproved(host: &Host, remote: Remote<'_>, ended: &Ended) {
    match ended.refusal() {
        Some(refusal) if refusal.by == RefusedBy::Us => {
            host.refused_of(remote.peer, remote.shown.to_owned(), refusal.reason.as_str(), refusal);
        }
        None if ended.is_our_end() => {
            tracing::debug!(node = %host.node(), remote = remote.shown, reason = %ended, "no connection");
        }
        _ => {
            host.unproved();
            tracing::debug!(node = %host.node(), remote = remote.shown, "ended by somebody who has proved no name");
        }
    }
}

/// Reports the reason of a node that has proved its name.
fn tell_reason(host: &Host, remote: Remote<'_>, by: &NodeId, ended: &Ended) {
    let Remote { peer, shown } = remote;
    if let Some(generation) = closed(ended).and_then(|closed| closed.later_generation()) {
        host.told_of_self(by, generation);
    } else if let Some(refusal) = ended.refusal() {
        host.refused_of(peer, shown.to_owned(), refusal.reason.as_str(), refusal);
    } else if let Some((label, words)) = rejection(ended) {
        host.refused_of(peer, shown.to_owned(), label, words);
    } else if !is_ordinary(ended) {
        tracing::debug!(node = %host.node(), remote = shown, reason = %ended, "no connection");
    }
}
