//! Why a handshake was refused, by whom, and what the operator can do about it.
//!
//! The side that refuses knows exactly, from its own verifier ([`Verdict`]). The other side sees one
//! alert code in the frame that closes the connection ([`Refusal::of`]). The dialer's
//! `connect().await` returns `Ok` even if the acceptor then refuses its certificate, so the dialer
//! must also look at `Connection::close_reason()`.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, UNIX_EPOCH},
};

use quinn::ConnectionError;
use rustls::{AlertDescription, CertificateError};

use super::identity::date;
use crate::foreign::Foreign;

/// Why a peer was refused; [`Rejection::as_str`] is the label of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rejection {
    /// The dialer showed no certificate.
    NoCertificate,
    /// The certificate is of no authority among the roots.
    UnknownAuthority,
    /// The certificate names an authority among the roots, but that one did not sign it: another
    /// authority of the same name did, or the certificate was tampered with.
    BadSignature,
    /// The certificate's last day has passed.
    Expired,
    /// The certificate's first day has not come.
    NotYetValid,
    /// The certificate was revoked.
    Revoked,
    /// The certificate's extended key usage forbids this side of a connection.
    WrongPurpose,
    /// The certificate has not exactly one URI that names a node.
    NoName,
    /// The certificate is another node's than the one that was dialed.
    WrongName,
    /// The certificate is of another cluster.
    WrongCluster,
    /// The certificate is a client's, which is never a node.
    ClientCertificate,
    /// The certificate gives its holder no role as a client.
    NoRole,
    /// The two have no version of the gossip protocol in common.
    NoCommonVersion,
    /// A frame claimed to be of another node than the certificate says. The transport finds this
    /// after the handshake; no TLS error maps to it.
    Impostor,
    /// Anything else that failed in TLS.
    Other,
}

impl Rejection {
    /// Every one, so that counters can be made before the first refusal.
    pub const ALL: [Self; 15] = [
        Self::NoCertificate,
        Self::UnknownAuthority,
        Self::BadSignature,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::WrongPurpose,
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

    /// What an error of our own verification means.
    #[must_use]
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
            _ => Self::Other,
        }
    }

    /// What a TLS alert says. Several reasons share a code: the text that the refuser sent along
    /// tells expired from not yet valid; a missing name is seen as a wrong one.
    fn of_alert(alert: AlertDescription, text: &str) -> Self {
        match alert {
            AlertDescription::CertificateRequired => Self::NoCertificate,
            AlertDescription::UnknownCA => Self::UnknownAuthority,
            AlertDescription::DecryptError => Self::BadSignature,
            AlertDescription::CertificateExpired if text.contains(NOT_YET_VALID_TEXT) => {
                Self::NotYetValid
            }
            AlertDescription::CertificateExpired => Self::Expired,
            AlertDescription::CertificateRevoked => Self::Revoked,
            AlertDescription::UnsupportedCertificate => Self::WrongPurpose,
            AlertDescription::BadCertificate => Self::WrongName,
            AlertDescription::AccessDenied => Self::WrongCluster,
            AlertDescription::NoApplicationProtocol => Self::NoCommonVersion,
            _ => Self::Other,
        }
    }

    /// What happened, whose fault it is and what to do, for the operator of the side that refused.
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
            Self::Other => "the TLS handshake failed",
        }
    }

    /// The same for the operator of the side that was refused.
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
            Self::Other => "the TLS handshake failed",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who refused whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusedBy {
    /// We refused the peer; the reason is exact.
    Us,
    /// The peer refused us; the reason is what it chose to say.
    Peer,
}

/// One refused handshake; its `Display` is a line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Who refused.
    pub by: RefusedBy,
    /// Why.
    pub reason: Rejection,
    /// More about it, possibly empty: names, dates, or the words of the other side (at most
    /// [`DETAIL_MAX`] characters, and to be believed no more than the peer).
    pub detail: Foreign,
}

impl Refusal {
    /// Reads why a connection ended; `None` if no handshake was refused.
    ///
    /// Good for both sides and for [`quinn::Connection::close_reason`].
    #[must_use]
    pub fn of(ended: &ConnectionError) -> Option<Self> {
        let (by, code, text) = match ended {
            ConnectionError::TransportError(e) => {
                (RefusedBy::Us, e.code, Foreign::from(&*e.reason))
            }
            ConnectionError::ConnectionClosed(close) => {
                (RefusedBy::Peer, close.error_code, Foreign::lossy(&close.reason))
            }
            _ => return None,
        };
        let alert = alert(u64::from(code))?;
        let reason = Rejection::of_alert(alert, text.unescaped());
        Some(Self { by, reason, detail: text.cut(DETAIL_MAX) })
    }

    pub(super) fn by_us(reason: Rejection, detail: String) -> Self {
        Self { by: RefusedBy::Us, reason, detail: Foreign::from(detail).cut(DETAIL_MAX) }
    }

    /// What our verification found wrong with a peer's certificate chain.
    pub(super) fn of_tls(error: &rustls::Error) -> Self {
        Self::by_us(Rejection::of_tls(error), described(error))
    }

    /// The error that makes rustls send the alert for this.
    pub(super) fn to_tls(&self) -> rustls::Error {
        rustls::Error::InvalidCertificate(match self.reason {
            // Sent as access_denied, 0x31.
            Rejection::WrongCluster => CertificateError::ApplicationVerificationFailure,
            // Sent as certificate_revoked, 0x2c.
            Rejection::Revoked => CertificateError::Revoked,
            // Sent as bad_certificate, 0x2a, so that the peer can tell it from a wrong cluster.
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
        match self.by {
            _ if self.detail.is_empty() => Ok(()),
            RefusedBy::Us => write!(f, " ({})", self.detail),
            RefusedBy::Peer => write!(f, " (it says: {})", self.detail),
        }
    }
}

/// What our verifier decided in one handshake.
///
/// Exacter than the alert code: it tells a missing name from a wrong one, and has the names.
#[derive(Debug, Clone, Default)]
pub struct Verdict(Arc<OnceLock<Refusal>>);

impl Verdict {
    /// Reads why the connection of this handshake ended; `None` if no handshake was refused.
    #[must_use]
    pub fn refusal(&self, ended: &ConnectionError) -> Option<Refusal> {
        self.0.get().cloned().or_else(|| Refusal::of(ended))
    }

    /// The first refusal stays: it is the one that ended the handshake.
    pub(super) fn refuse(&self, refusal: Refusal) {
        let _ = self.0.set(refusal);
    }
}

/// The detail of an error, with dates as people read them.
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
        other => other.to_string(),
    }
}

/// The TLS alert in a QUIC error code, RFC 9001 section 4.8.
fn alert(code: u64) -> Option<AlertDescription> {
    let alert = u8::try_from(code.checked_sub(CRYPTO_ERROR_FIRST)?).ok()?;
    Some(AlertDescription::from(alert))
}

/// Longest detail of a refusal, in characters.
pub const DETAIL_MAX: usize = 200;

const CRYPTO_ERROR_FIRST: u64 = 0x100;
/// From the text of rustls' error, which quinn sends along.
const NOT_YET_VALID_TEXT: &str = "not valid yet";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use quinn::{ApplicationClose, ConnectionClose, TransportErrorCode};

    use super::*;

    #[test]
    fn says_nothing_of_ends_that_are_no_refusal() {
        let closed = ApplicationClose { error_code: 0x131_u32.into(), reason: "".into() };
        for ended in [
            ConnectionError::TimedOut,
            ConnectionError::Reset,
            ConnectionError::ApplicationClosed(closed),
            told(TransportErrorCode::FLOW_CONTROL_ERROR, ""),
        ] {
            assert_eq!(Refusal::of(&ended), None, "{ended}");
        }
    }

    #[test]
    fn repeats_only_the_start_of_what_a_peer_says_and_escapes_it() {
        let hostile = format!("\u{1b}[2J\r\n{}", "\u{e4}".repeat(100_000));
        let refusal = Refusal::of(&told(TransportErrorCode::crypto(0x30), &hostile)).unwrap();
        assert_eq!(refusal.detail.unescaped().chars().count(), DETAIL_MAX);
        let shown = refusal.to_string();
        assert!(shown.contains("(it says: \\u{1b}[2J\\r\\n\u{e4}"), "{shown}");
    }

    #[test]
    fn reads_every_code_that_a_peer_can_send() {
        for (alert, reason) in [
            (0x74, Rejection::NoCertificate),
            (0x30, Rejection::UnknownAuthority),
            (0x33, Rejection::BadSignature),
            (0x2d, Rejection::Expired),
            (0x2c, Rejection::Revoked),
            (0x31, Rejection::WrongCluster),
            (0x2b, Rejection::WrongPurpose),
            (0x2a, Rejection::WrongName),
            (0x78, Rejection::NoCommonVersion),
            (0x2e, Rejection::Other),
            (0x00, Rejection::Other),
            (0xff, Rejection::Other),
        ] {
            let refusal = Refusal::of(&told(TransportErrorCode::crypto(alert), "")).unwrap();
            assert_eq!((refusal.by, refusal.reason), (RefusedBy::Peer, reason), "{alert:#x}");
        }
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
            assert!(by_peer.to_string().ends_with(" (it says: why)"), "{by_peer}");
        }
    }

    #[test]
    fn keeps_the_first_verdict_of_a_handshake() {
        let verdict = Verdict::default();
        let ended = told(TransportErrorCode::crypto(0x30), "");
        assert_eq!(verdict.refusal(&ended).unwrap().by, RefusedBy::Peer);
        verdict.refuse(Refusal::by_us(Rejection::NoName, String::new()));
        verdict.refuse(Refusal::by_us(Rejection::Other, String::new()));
        assert_eq!(verdict.refusal(&ended).unwrap().reason, Rejection::NoName);
    }

    fn told(error_code: TransportErrorCode, reason: &str) -> ConnectionError {
        ConnectionError::ConnectionClosed(ConnectionClose {
            error_code,
            frame_type: None,
            reason: reason.to_owned().into(),
        })
    }
}
