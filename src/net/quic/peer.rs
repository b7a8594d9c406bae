//! The certificates that the peer of a connection has shown, and the agreed protocol.

use rustls_pki_types::CertificateDer;

use crate::tls::{CertificateSummary, NameError, PeerName, Refusal, Tls};

#[doc(hidden)]
impl Tls {
    /// The name that the certificate of a connected peer proves, in the form of our cluster's names.
    ///
    /// # Errors
    /// [`NameError::NoCertificate`] before the handshake is complete.
    pub fn peer_name(&self, connection: &quinn::Connection) -> Result<PeerName, NameError> {
        self.name_of(&peer_chain(connection)?)
    }

    /// Verifies again the certificates that a connected peer has shown: see [`Tls::verify_again`].
    ///
    /// # Errors
    /// The [`Refusal`] that it would receive if it connected now.
    pub fn review(&self, connection: &quinn::Connection, dialed: bool) -> Result<(), Refusal> {
        self.verify_again(&peer_chain(connection).unwrap_or_default(), dialed)
    }
}

/// The name that the certificate of a connected peer proves, in our own form; for any other form see
/// [`Tls::peer_name`].
///
/// # Errors
/// [`NameError::NoCertificate`] before the handshake is complete.
pub fn peer_name(connection: &quinn::Connection) -> Result<PeerName, NameError> {
    peer_certificate(connection)?.name
}

/// The content of a connected peer's certificate. Its end is that of the leaf alone: see [`Tls::summary`].
///
/// # Errors
/// [`NameError::NoCertificate`] before the handshake is complete.
pub fn peer_certificate(connection: &quinn::Connection) -> Result<CertificateSummary, NameError> {
    let chain = peer_chain(connection)?;
    CertificateSummary::from_certificate(chain.first().ok_or(NameError::NoCertificate)?)
}

/// The certificates that a connected peer has shown, the leaf first.
///
/// # Errors
/// [`NameError::NoCertificate`] before the handshake is complete.
pub(crate) fn peer_chain(
    connection: &quinn::Connection,
) -> Result<Vec<CertificateDer<'static>>, NameError> {
    let identity = connection.peer_identity().ok_or(NameError::NoCertificate)?;
    identity.downcast().map(|chain| *chain).map_err(|_| NameError::NoCertificate)
}

/// The protocol that the two ends of a connection have agreed on; empty before the handshake is complete.
#[must_use]
pub(crate) fn protocol(connection: &quinn::Connection) -> Vec<u8> {
    let data = connection.handshake_data();
    let data = data.and_then(|any| any.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    data.and_then(|data| data.protocol).unwrap_or_default()
}
