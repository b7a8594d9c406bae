//! Connections with peers whose certificates were revoked.

use super::{super::host::Host, closing::close, link::Link, table::Links};
use crate::{
    protocol::{
        close::Close,
        revocation::{Revocations, date},
    },
    tls::{CertificateSummary, Rejection, Tls},
};

/// Closes all connections with members that have shown a revoked certificate.
pub(crate) fn close_revoked(links: &Links, tls: &Tls, revoked: &Revocations) {
    for link in links.all() {
        close_if_revoked(links.host(), tls, &link, revoked);
    }
}

/// Closes the connection if the certificate that the peer has shown was revoked since; returns whether it did. The
/// statement travels in the close, since the close drops everything else in flight.
pub(super) fn close_if_revoked(host: &Host, tls: &Tls, link: &Link, revoked: &Revocations) -> bool {
    let Some(cutoff) = revoked.cutoff(&link.peer) else { return false };
    let leaf = link.connection.peer().chain.first();
    let certificate = leaf.and_then(|leaf| CertificateSummary::from_certificate(leaf).ok());
    if !certificate.is_some_and(|certificate| tls.is_revoked(&link.peer, &certificate)) {
        return false;
    }
    if link.connection.is_open() {
        let statement = revoked.of(&link.peer).max_by_key(|statement| statement.cutoff);
        close(link.connection.as_ref(), &Close::revoked(cutoff, statement));
        let reason = format!("cut off: its certificates of until {} are revoked", date(cutoff));
        host.cut(&link.peer, false, Rejection::Revoked.as_str(), reason);
    }
    true
}
