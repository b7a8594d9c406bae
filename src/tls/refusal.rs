//! Why a handshake was refused, by which side, and what the operator can do about it.
//!
//! The refusing side knows the exact reason, from its own verifier ([`Verdict`]). The other side
//! receives one alert code and a text ([`Refusal::of_alert`]).

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, UNIX_EPOCH},
};

use rustls::{AlertDescription, CertificateError};

use super::certificate::date;
use crate::foreign::Foreign;

/// Why a peer was refused; [`Rejection::as_str`] is the label of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rejection {
    /// The dialer showed no certificate.
    NoCertificate,
    /// The certificate is not from an authority among the roots.
    UnknownAuthority,
    /// The certificate names an authority among the roots, but was not signed by it: either another
    /// authority of the same name signed it, or the certificate was tampered with.
    BadSignature,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate was revoked.
    Revoked,
    /// The certificate's extended key usage forbids this side of a connection.
    WrongPurpose,
    /// The certificate is an authority's (CA:true).
    IsAuthority,
    /// The certificate was signed by a certificate that is not an authority's.
    NotByAuthority,
    /// A certificate has a key or signature of a kind that is not accepted.
    BadKind,
    /// A certificate is damaged, or has unknown critical extensions.
    Malformed,
    /// The certificate does not have exactly one URI that names a node.
    NoName,
    /// The certificate belongs to another node than the one that was dialed.
    WrongName,
    /// The certificate belongs to another cluster.
    WrongCluster,
    /// The certificate is a client's, not a node's.
    ClientCertificate,
    /// The certificate gives its holder no role as a client.
    NoRole,
    /// The two sides have no version of the gossip protocol in common.
    NoCommonVersion,
    /// A frame named another node than its sender's certificate does. The transport detects this
    /// after the handshake; no TLS error maps to it.
    Impostor,
    /// Any other TLS failure.
    Other,
}

impl Rejection {
    /// All of them, so that counters can be created before the first refusal.
    #[doc(hidden)]
    pub const ALL: [Self; 19] = [
        Self::NoCertificate,
        Self::UnknownAuthority,
        Self::BadSignature,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::WrongPurpose,
        Self::IsAuthority,
        Self::NotByAuthority,
        Self::BadKind,
        Self::Malformed,
        Self::NoName,
        Self::WrongName,
        Self::WrongCluster,
        Self::ClientCertificate,
        Self::NoRole,
        Self::NoCommonVersion,
        Self::Impostor,
        Self::Other,
    ];

    /// The stable label for counters and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownAuthority => "unknown_authority",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::WrongPurpose => "wrong_purpose",
            Self::IsAuthority => "is_authority",
            Self::NotByAuthority => "not_by_authority",
            Self::BadKind => "bad_kind",
            Self::Malformed => "malformed",
            Self::NoName => "no_name",
            Self::WrongName => "wrong_name",
            Self::WrongCluster => "wrong_cluster",
            Self::ClientCertificate => "client_certificate",
            Self::NoRole => "no_role",
            Self::NoCommonVersion => "no_common_version",
            Self::Impostor => "impostor",
            Self::Other => "other",
        }
    }

    /// The meaning of an error of our own verification.
    #[must_use]
    #[doc(hidden)]
    pub fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::NoApplicationProtocol => Self::NoCommonVersion,
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error),
            _ => Self::Other,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::BadSignature => Self::BadSignature,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::Revoked => Self::Revoked,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::WrongPurpose
            }
            CertificateError::ApplicationVerificationFailure => Self::WrongCluster,
            CertificateError::NotValidForName => Self::WrongName,
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                Self::BadKind
            }
            CertificateError::BadEncoding | CertificateError::UnhandledCriticalExtension => {
                Self::Malformed
            }
            CertificateError::Other(other) => match other.0.downcast_ref() {
                Some(webpki::Error::CaUsedAsEndEntity) => Self::IsAuthority,
                Some(
                    webpki::Error::EndEntityUsedAsCa | webpki::Error::PathLenConstraintViolated,
                ) => Self::NotByAuthority,
                Some(_) => Self::Malformed,
                None => Self::Other,
            },
            _ => Self::Other,
        }
    }

    /// The meaning of a TLS alert. Several reasons share a code: the text that the refusing side
    /// sent along distinguishes expired from not yet valid; a missing name appears as a wrong one.
    fn of_alert(alert: AlertDescription, text: &[u8]) -> Self {
        match alert {
            AlertDescription::CertificateRequired => Self::NoCertificate,
            AlertDescription::UnknownCA => Self::UnknownAuthority,
            AlertDescription::DecryptError => Self::BadSignature,
            AlertDescription::CertificateExpired if text == not_yet_valid() => Self::NotYetValid,
            AlertDescription::CertificateExpired => Self::Expired,
            AlertDescription::CertificateRevoked => Self::Revoked,
            AlertDescription::UnsupportedCertificate => Self::WrongPurpose,
            AlertDescription::BadCertificate => Self::WrongName,
            AlertDescription::AccessDenied => Self::WrongCluster,
            AlertDescription::NoApplicationProtocol => Self::NoCommonVersion,
            _ => Self::Other,
        }
    }

    /// What happened, whose fault it is and what to do, for the operator of the refusing side.
    fn seen_by_refuser(self) -> &'static str {
        match self {
            Self::NoCertificate => {
                "it showed no certificate; give it one issued by this cluster's authority"
            }
            Self::UnknownAuthority => {
                "its certificate is of an authority that is not among our roots; issue it one by this cluster's authority, or add that authority to our roots"
            }
            Self::BadSignature => {
                "its certificate claims our authority but was not signed by it: it is of another authority of the same name, or forged; issue it one by this cluster's authority"
            }
            Self::Expired => "its certificate has expired; renew it there (or correct our clock)",
            Self::NotYetValid => {
                "its certificate is not valid yet; compare its clock, its authority's and ours"
            }
            Self::Revoked => "its certificate was revoked; issue it a new one if that was an error",
            Self::WrongPurpose => {
                "its certificate's extended key usage forbids it; issue one for both client and server authentication"
            }
            Self::NoName => {
                "its certificate does not name one node; issue one with exactly one URI, spiffe://<cluster>/<datacenter>/<node>"
            }
            Self::WrongName => {
                "its certificate is another node's; the address we dialed now belongs to that node, or it was given the wrong files"
            }
            Self::WrongCluster => {
                "its certificate is of another cluster; correct our seeds or its certificate"
            }
            Self::ClientCertificate => {
                "its certificate is a client's, which may ask nodes but is never one; issue it a node's"
            }
            Self::NoRole => {
                "its certificate gives it no role as a client; issue one by: cert issue --client NAME --role ROLE, or name its URI in the table [clients]"
            }
            Self::NoCommonVersion => {
                "we have no version of the protocol in common; bring both to neighbouring releases"
            }
            Self::Impostor => {
                "it spoke as another node than its certificate says; correct its configured name, or treat it as compromised"
            }
            Self::IsAuthority => {
                "its certificate is an authority's (CA:true); issue it one with CA:false"
            }
            Self::NotByAuthority => {
                "its certificate was signed by one that is no authority's, or that may sign authorities no further; issue it one by this cluster's authority"
            }
            Self::BadKind => {
                "its certificate, or one above it, has a key or a signature of a kind that is not accepted (such as SHA-1); issue it one with Ed25519, ECDSA P-256 or P-384, or RSA from 2048 bits"
            }
            Self::Malformed => {
                "its certificate, or one above it, is damaged or asks for what is not known here; issue it one by this cluster's authority"
            }
            Self::Other => {
                "the TLS handshake failed, but not for its certificate; look whether another program or version dials from there"
            }
        }
    }

    /// The same for the operator of the refused side.
    fn seen_by_refused(self) -> &'static str {
        match self {
            Self::NoCertificate => {
                "we showed no certificate; configure the one issued for this node"
            }
            Self::UnknownAuthority => {
                "our certificate is of an authority it does not trust; get one from its cluster's authority, or add our authority to its roots"
            }
            Self::BadSignature => {
                "our certificate claims its authority but was not signed by it: an authority of the same name was made twice; get a certificate from the one it trusts"
            }
            Self::Expired => "our certificate has expired; renew it (or correct its clock)",
            Self::NotYetValid => {
                "our certificate is not valid yet; compare our clock, our authority's and its"
            }
            Self::Revoked => {
                "our certificate was revoked; ask the cluster's operator for a new one"
            }
            Self::WrongPurpose => {
                "our certificate's extended key usage forbids it; get one for both client and server authentication"
            }
            Self::NoName | Self::WrongName => {
                "our certificate is not of the node it expected at this address, or names no node; look with: cert show"
            }
            Self::WrongCluster => {
                "our certificate is of another cluster than its; correct the seeds or our certificate"
            }
            Self::ClientCertificate => {
                "our certificate is a client's, which is never a node; get a node's"
            }
            Self::NoRole => {
                "our certificate gives us no role there; get one by: cert issue --client NAME --role ROLE, or let the agent's table [clients] name our URI"
            }
            Self::NoCommonVersion => {
                "we have no version of the protocol in common; bring both to neighbouring releases"
            }
            Self::Impostor => {
                "we spoke as another node than our certificate says; correct the configured name"
            }
            Self::IsAuthority => {
                "our certificate is an authority's (CA:true); get one with CA:false"
            }
            Self::NotByAuthority => {
                "our certificate was signed by one that is no authority's; get one from the authority it trusts"
            }
            Self::BadKind => {
                "our certificate, or one above it, has a key or a signature of a kind it does not accept; get one with Ed25519, ECDSA P-256 or P-384, or RSA from 2048 bits"
            }
            Self::Malformed => {
                "our certificate is damaged or asks for what it does not know; look with: cert show"
            }
            Self::Other => {
                "the TLS handshake failed for a reason that its log and counters tell; look at our certificate with: cert show"
            }
        }
    }

    /// The same for a certificate that the node's own roots refuse, for its operator.
    pub(super) const fn seen_by_itself(self) -> &'static str {
        match self {
            Self::UnknownAuthority => {
                "no root has signed it, nor an intermediate in its file: put the root that did into the roots, or the missing intermediate behind the leaf"
            }
            Self::BadSignature => {
                "a root has the name of its authority, but not the key that signed it: an authority of that name was made twice; put the right root there, or get a certificate from this one"
            }
            Self::WrongPurpose => {
                "its extended key usage has not both serverAuth and clientAuth; issue one with both, or without the extension"
            }
            Self::IsAuthority => "it is an authority's (CA:true); issue one with CA:false",
            Self::NotByAuthority => {
                "it, or one above it, was signed by a certificate that is no authority's, or that may sign authorities no further; get one from an authority"
            }
            Self::BadKind => {
                "it, or one above it, has a key or a signature of a kind that is not accepted; issue it with Ed25519, ECDSA P-256 or P-384, or RSA from 2048 bits, and SHA-256 or better"
            }
            _ => {
                "a certificate of its chain is damaged, or asks for what is not known here; issue it anew"
            }
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The side that refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusedBy {
    /// We refused the peer; the reason is exact.
    Us,
    /// The peer refused us; the reason is as it reported it.
    Peer,
}

/// One refused handshake; its `Display` is a line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The side that refused.
    pub by: RefusedBy,
    /// The reason.
    pub reason: Rejection,
    /// Details, possibly empty: names and dates that our verifier has seen, or the number of an alert
    /// without other information.
    pub detail: Foreign,
}

impl Refusal {
    /// The refusal by the code and the text of an alert. `alert`: the TLS alert, RFC 8446 section 6.
    #[must_use]
    #[doc(hidden)]
    pub fn of_alert(by: RefusedBy, alert: u8, text: &[u8]) -> Self {
        let reason = Rejection::of_alert(AlertDescription::from(alert), text);
        // The received text is from a library, ours or the peer's, and meant for its programmers.
        let detail = match reason {
            Rejection::Other => format!("TLS alert {alert}"),
            _ => String::new(),
        };
        Self { by, reason, detail: detail.into() }
    }

    pub(crate) fn by_us(reason: Rejection, detail: String) -> Self {
        Self { by: RefusedBy::Us, reason, detail: Foreign::from(detail).cut(DETAIL_MAX) }
    }

    /// The fault that our verification found in a peer's certificate chain.
    pub(crate) fn of_tls(error: &rustls::Error) -> Self {
        Self::by_us(Rejection::of_tls(error), described(error))
    }

    /// The error that makes rustls send the alert for this.
    pub(super) fn to_tls(&self) -> rustls::Error {
        rustls::Error::InvalidCertificate(match self.reason {
            // Sent as access_denied, 0x31.
            Rejection::WrongCluster => CertificateError::ApplicationVerificationFailure,
            // Sent as certificate_revoked, 0x2c.
            Rejection::Revoked => CertificateError::Revoked,
            // Sent as bad_certificate, 0x2a, so that the peer can distinguish it from a wrong cluster.
            _ => CertificateError::NotValidForName,
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            RefusedBy::Us => write!(f, "we refused the peer: {}", self.reason.seen_by_refuser())?,
            RefusedBy::Peer => write!(f, "the peer refused us: {}", self.reason.seen_by_refused())?,
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

/// The decision of our verifier in one handshake.
///
/// It is more exact than the alert code: it distinguishes a missing name from a wrong one, and contains the names.
#[derive(Debug, Clone, Default)]
pub struct Verdict(Arc<OnceLock<Refusal>>);

impl Verdict {
    /// The refusal by our own verifier; `None` if it has not refused.
    #[must_use]
    pub fn ours(&self) -> Option<&Refusal> {
        self.0.get()
    }

    /// The first refusal stays: it is the one that ended the handshake.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        let _ = self.0.set(refusal);
    }
}

/// The dates of an error, in readable form; empty if it has none.
fn described(error: &rustls::Error) -> String {
    let day = |time: &rustls::pki_types::UnixTime| {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(time.as_secs()))
            .map_or_else(|| "a date out of range".to_owned(), date)
    };
    match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after, ..
        }) => {
            format!("it expired on {}", day(not_after))
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before,
            ..
        }) => format!("it is valid from {}", day(not_before)),
        _ => String::new(),
    }
}

/// The fault of the node's own certificate, for its operator.
pub(super) fn words(error: &rustls::Error) -> &'static str {
    Rejection::of_tls(error).seen_by_itself()
}

/// The error to end a handshake with: the peer reads only its alert, and its text crosses the wire
/// unchanged. So it contains no dates, which differ each time, and no alert with another meaning at the
/// peer.
pub(super) fn on_wire(error: rustls::Error) -> rustls::Error {
    let certificate = match error {
        rustls::Error::InvalidCertificate(certificate) => certificate,
        other => return other,
    };
    rustls::Error::InvalidCertificate(match Rejection::of_certificate(&certificate) {
        Rejection::Expired => CertificateError::Expired,
        Rejection::NotYetValid => CertificateError::NotValidYet,
        // Sent as certificate_unknown, 0x2e: the alert of rustls means a wrong signature elsewhere.
        Rejection::BadKind => CertificateError::Other(rustls::OtherError(Arc::new(BadKind))),
        _ => certificate,
    })
}

/// See [`on_wire`].
#[derive(Debug, thiserror::Error)]
#[error("a key or a signature of a kind that is not accepted")]
struct BadKind;

/// The text beside the alert that refuses a certificate which is not valid yet; the alert alone means
/// `certificate_expired`.
fn not_yet_valid() -> Vec<u8> {
    rustls::Error::InvalidCertificate(CertificateError::NotValidYet).to_string().into_bytes()
}

/// Maximum length of a refusal's detail, in characters: it may contain names of a peer's certificate.
pub(crate) const DETAIL_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn says_no_word_of_a_library_and_no_time_that_differs_each_time() {
        use rustls::pki_types::UnixTime;
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = |time| CertificateError::ExpiredContext { time, not_after: at(1_000_000) };
        let early = |time| CertificateError::NotValidYetContext { time, not_before: at(3_000_000) };
        let webpki =
            |error: webpki::Error| CertificateError::Other(rustls::OtherError(Arc::new(error)));
        for (one, later, reason) in [
            (expired(at(2_000_000)), expired(at(2_000_009)), Rejection::Expired),
            (early(at(2_000_000)), early(at(2_000_009)), Rejection::NotYetValid),
            (
                CertificateError::UnknownIssuer,
                CertificateError::UnknownIssuer,
                Rejection::UnknownAuthority,
            ),
            (CertificateError::BadEncoding, CertificateError::BadEncoding, Rejection::Malformed),
            (
                webpki(webpki::Error::CaUsedAsEndEntity),
                webpki(webpki::Error::CaUsedAsEndEntity),
                Rejection::IsAuthority,
            ),
            (
                webpki(webpki::Error::EndEntityUsedAsCa),
                webpki(webpki::Error::EndEntityUsedAsCa),
                Rejection::NotByAuthority,
            ),
            (
                CertificateError::UnsupportedSignatureAlgorithmContext {
                    signature_algorithm_id: vec![6, 9],
                    supported_algorithms: Vec::new(),
                },
                CertificateError::UnsupportedSignatureAlgorithmContext {
                    signature_algorithm_id: vec![6, 9],
                    supported_algorithms: Vec::new(),
                },
                Rejection::BadKind,
            ),
        ] {
            let [one, later] = [one, later].map(rustls::Error::InvalidCertificate);
            let refusal = Refusal::of_tls(&one);
            assert_eq!((refusal.reason, &refusal), (reason, &Refusal::of_tls(&later)));
            let text = refusal.to_string();
            for word in [
                "peer certificate",
                "UnixTime",
                "OtherError",
                "Context",
                "seconds",
                "[6, 9]",
                "Unknown",
            ] {
                assert!(!text.contains(word), "{word} is in: {text}");
            }
            let sent = on_wire(one).to_string();
            assert_eq!(sent, on_wire(later).to_string());
        }
    }

    #[test]
    fn tells_not_yet_valid_from_expired_at_both_ends() {
        let early = CertificateError::NotValidYetContext {
            time: rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(1)),
            not_before: rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(2)),
        };
        let sent = on_wire(rustls::Error::InvalidCertificate(early)).to_string();
        let refusal = Refusal::of_alert(RefusedBy::Peer, 0x2d, sent.as_bytes());
        assert_eq!(refusal.reason, Rejection::NotYetValid);
    }

    #[test]
    fn gives_each_reason_a_label_and_two_sides_of_advice() {
        let labels: HashSet<_> = Rejection::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(labels.len(), Rejection::ALL.len());
        for reason in Rejection::ALL {
            let by_us = Refusal::by_us(reason, "why".to_owned());
            let by_peer = Refusal { by: RefusedBy::Peer, ..by_us.clone() };
            assert!(by_us.to_string().starts_with("we refused the peer: "), "{by_us}");
            assert!(by_us.to_string().ends_with(" (why)"), "{by_us}");
            assert!(by_peer.to_string().starts_with("the peer refused us: "), "{by_peer}");
            assert!(by_peer.to_string().ends_with(" (why)"), "{by_peer}");
            assert!(!reason.seen_by_itself().is_empty());
        }
    }
}
