//! The protocol of an issuer: one request and one answer, each a complete half of a stream.
//!
//! A proof covers a value that the connection's TLS has derived for it (RFC 9266's exporter), so a
//! recording of one connection is worthless on another. Only the public key of a PKCS #10 request is
//! used, after its signature has shown that the client holds the private one. Nothing here does IO.

use std::fmt;

use aws_lc_rs::signature;
use rustls_pki_types::CertificateDer;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::token::{PROOF_BYTES, ProofKey, TokenId};
use crate::protocol::{
    id::{Datacenter, NodeId},
    record::ADDRESS_BYTES_MAX,
    wire::{self, Decode, Encode, fields, variants},
};

/// The protocol of an issuer; the number is its major version.
pub(crate) const JOIN_ALPN: &[u8] = b"gossipmonger-join/1";

/// Maximum length of a request, in bytes. One with an Ed25519 key takes some 300.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 << 10;

/// Maximum length of an answer, in bytes: a certificate and up to some twenty roots.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Maximum number of further issuers in an answer.
pub(super) const ISSUERS_MAX: usize = 7;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A first certificate, for a token.
    Join(Join),
    /// A further certificate for the node that the TLS handshake has proved.
    Renew {
        /// PKCS #10.
        csr: Vec<u8>,
    },
}

variants!(Request { 0 => Join { 0: join }, 1 => Renew { csr: csr } });

/// A claim to a name by a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The id of the token.
    pub token: TokenId,
    /// The node's name; `None`: the token's.
    pub node: Option<NodeId>,
    /// Its datacenter; `None`: the token's, or the issuer's.
    pub datacenter: Option<Datacenter>,
    /// PKCS #10.
    pub csr: Vec<u8>,
    /// Proves that the client has the token's secret, on this connection, for this claim.
    pub proof: [u8; PROOF_BYTES],
}

fields!(Join { token, node, datacenter, csr, proof });

impl Join {
    /// Creates the proof for the connection from which the value was derived.
    pub(crate) fn prove(&mut self, key: &ProofKey, exported: &Exported) {
        self.proof = key.prove(&self.words(exported));
    }

    pub(crate) fn is_proved(&self, key: &ProofKey, exported: &Exported) -> bool {
        key.bears_out(&self.words(exported), &self.proof)
    }

    fn words(&self, exported: &Exported) -> Vec<u8> {
        let claim = (exported.0, &self.token, &self.node, &self.datacenter, &self.csr);
        labelled(b"gossipmonger 1 join\0", &claim)
    }
}

/// An answer of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Granted.
    Granted(Granted),
    /// Refused, with the reason and its details.
    Refused(Refused, String),
}

variants!(Answer { 0 => Granted { 0: granted }, 1 => Refused { 0: why, 1: detail } });

/// A certificate, and what its holder needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The authorities whose nodes the holder should accept, DER each.
    pub roots: Vec<Vec<u8>>,
    /// The issuer's gossip port (UDP), on the same host.
    pub gossip_port: u16,
    /// Addresses (`host:port`) of further issuers.
    pub issuers: Vec<String>,
    /// For a join: proves that the issuer knows the token's secret too, so that no other member of the
    /// cluster can answer in its place. For a renewal zeros.
    pub proof: [u8; PROOF_BYTES],
}

fields!(Granted { certificate, roots, gossip_port, issuers, proof });

impl Granted {
    pub(crate) fn prove(&mut self, key: &ProofKey, exported: &Exported) {
        self.proof = key.prove(&self.words(exported));
    }

    pub(crate) fn is_proved(&self, key: &ProofKey, exported: &Exported) -> bool {
        key.bears_out(&self.words(exported), &self.proof)
    }

    fn words(&self, exported: &Exported) -> Vec<u8> {
        let grant = (exported.0, &self.certificate, &self.roots, self.gossip_port, &self.issuers);
        labelled(b"gossipmonger 1 granted\0", &grant)
    }
}

/// Why an issuer refuses; [`Refused::as_str`] is the label of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// It does not know the token.
    UnknownToken,
    /// The proof was made with another secret, or for another connection.
    WrongSecret,
    /// The token has expired.
    Expired,
    /// All uses of the token are used up.
    Used,
    /// The token was revoked.
    TokenRevoked,
    /// The token is for another node or datacenter.
    WrongName,
    /// Neither the token nor the client names the node.
    NameNeeded,
    /// A node of this name is alive, or joined a moment ago.
    NameTaken,
    /// The request cannot be read, or is too long.
    BadRequest,
    /// The certificate request is not one, or not signed by its own key.
    BadKey,
    /// A renewal without a certificate of a member.
    NoCertificate,
    /// The issuer is unable: its files, its authority, its time.
    Unable,
}

variants!(Refused {
    0 => UnknownToken {},
    1 => WrongSecret {},
    2 => Expired {},
    3 => Used {},
    4 => TokenRevoked {},
    5 => WrongName {},
    6 => NameNeeded {},
    7 => NameTaken {},
    8 => BadRequest {},
    9 => BadKey {},
    10 => NoCertificate {},
    11 => Unable {},
});

impl Refused {
    /// All of them.
    #[doc(hidden)]
    pub const ALL: [Self; 12] = [
        Self::UnknownToken,
        Self::WrongSecret,
        Self::Expired,
        Self::Used,
        Self::TokenRevoked,
        Self::WrongName,
        Self::NameNeeded,
        Self::NameTaken,
        Self::BadRequest,
        Self::BadKey,
        Self::NoCertificate,
        Self::Unable,
    ];

    /// The stable label for counters and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownToken => "join_unknown_token",
            Self::WrongSecret => "join_wrong_secret",
            Self::Expired => "join_token_expired",
            Self::Used => "join_token_used",
            Self::TokenRevoked => "join_token_revoked",
            Self::WrongName => "join_wrong_name",
            Self::NameNeeded => "join_name_needed",
            Self::NameTaken => "join_name_taken",
            Self::BadRequest => "join_bad_request",
            Self::BadKey => "join_bad_key",
            Self::NoCertificate => "renew_no_certificate",
            Self::Unable => "issue_unable",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::UnknownToken => "the issuer knows no such token",
            Self::WrongSecret => {
                "the secret is not that of the token, or the proof was made for another connection"
            }
            Self::Expired => "the token has expired",
            Self::Used => "the token has been used as often as it may",
            Self::TokenRevoked => "the token was revoked",
            Self::WrongName => "the token is for another node or datacenter",
            Self::NameNeeded => "the token fixes no name, and none was given",
            Self::NameTaken => "the name is taken",
            Self::BadRequest => "the request cannot be read",
            Self::BadKey => "the request for a certificate cannot be used",
            Self::NoCertificate => "a renewal needs a certificate of a member",
            Self::Unable => "the issuer cannot issue at the moment",
        })
    }
}

/// A value that only the two ends of one connection derive from its TLS handshake.
#[derive(Clone, Copy)]
pub(crate) struct Exported(pub(crate) [u8; 32]);

impl Exported {
    pub(crate) fn of(connection: &quinn::Connection) -> Option<Self> {
        let mut bytes = [0; 32];
        connection.export_keying_material(&mut bytes, EXPORTER_LABEL, b"").ok()?;
        Some(Self(bytes))
    }
}

/// The bytes are not a request or an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

macro_rules! bytes {
    ($($message:ty),*) => {
        $(impl $message {
            /// The bytes of one half of a stream.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                wire::to_vec(self)
            }

            /// Decodes the bytes.
            ///
            /// # Errors
            /// `Unreadable` describes the fault. It never panics.
            pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
                decode(bytes)
            }
        })*
    };
}

bytes!(Request, Answer);

/// A public key whose holder has proved to have the private one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
}

impl PublicKey {
    /// Takes the key from a PKCS #10 request in DER, and nothing else.
    ///
    /// # Errors
    /// `CsrError` if it is not one, its key is neither Ed25519 nor P-256, or it is not signed by its key.
    pub fn from_csr(der: &[u8]) -> Result<Self, CsrError> {
        let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
            return Err(CsrError::Unreadable);
        };
        let info = &request.certification_request_info;
        let algorithm = info.subject_pki.algorithm.algorithm.to_id_string();
        let verification: &dyn signature::VerificationAlgorithm = match algorithm.as_str() {
            ED25519 => &signature::ED25519,
            EC => &signature::ECDSA_P256_SHA256_ASN1,
            _ => return Err(CsrError::Kind),
        };
        signature::UnparsedPublicKey::new(verification, &info.subject_pki.subject_public_key.data)
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| CsrError::Unsigned)?;
        Ok(Self { spki: info.subject_pki.raw.to_vec() })
    }

    /// Its SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Whether a certificate has this key.
    #[must_use]
    pub fn is_of(&self, certificate: &CertificateDer<'_>) -> bool {
        x509_parser::parse_x509_certificate(certificate)
            .is_ok_and(|(_, parsed)| parsed.public_key().raw == self.spki)
    }
}

/// A PKCS #10 request cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// It is not one, or bytes follow it.
    #[error("it is no PKCS #10 request")]
    Unreadable,
    /// Its key is of another kind.
    #[error("its key is neither Ed25519 nor P-256")]
    Kind,
    /// Its signature was not made with its key.
    #[error("it is not signed by its own key")]
    Unsigned,
}

/// Whether a text can be dialed as `host:port`.
pub(super) fn is_door(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:%[]".contains(c);
    text.len() <= ADDRESS_BYTES_MAX
        && text.chars().all(plain)
        && text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
}

fn decode<'a, M: Decode<'a>>(bytes: &'a [u8]) -> Result<M, Unreadable> {
    wire::from_slice(bytes, ANSWER_BYTES_MAX).map_err(|error| Unreadable(error.to_string()))
}

fn labelled(label: &[u8], words: &impl Encode) -> Vec<u8> {
    [label, &wire::to_vec(words)].concat()
}

const EXPORTER_LABEL: &[u8] = b"EXPORTER-gossipmonger-join-1";
/// RFC 8410 section 3.
const ED25519: &str = "1.3.101.112";
/// RFC 5480 section 2.1.1.
const EC: &str = "1.2.840.10045.2.1";

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};

    use super::*;
    use crate::{
        issuer::token::Token,
        pki::{KeyKind, Requested},
        tls::Pin,
    };

    #[test]
    fn refuses_a_request_that_its_key_has_not_signed() {
        for kind in [KeyKind::Ed25519, KeyKind::P256] {
            let csr = Requested::new(kind).unwrap().csr;
            PublicKey::from_csr(&csr).unwrap();
            let other = Requested::new(kind).unwrap().csr;
            let mut forged = csr.clone();
            let at = csr.len() - 40;
            forged[at..].copy_from_slice(&other[other.len() - 40..]);
            assert!(PublicKey::from_csr(&forged).is_err());
        }
    }

    #[test]
    fn refuses_other_kinds_of_keys_and_what_follows_a_request() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        assert_eq!(PublicKey::from_csr(csr.der()), Err(CsrError::Unsigned));
        let mut csr = Requested::new(KeyKind::Ed25519).unwrap().csr;
        csr.push(0);
        assert_eq!(PublicKey::from_csr(&csr), Err(CsrError::Unreadable));
        assert_eq!(PublicKey::from_csr(b""), Err(CsrError::Unreadable));
    }

    #[test]
    fn a_proof_covers_the_connection_the_names_and_the_key() {
        let key = key();
        let mut join = join();
        join.prove(&key, &Exported([1; 32]));
        assert!(join.is_proved(&key, &Exported([1; 32])));
        assert!(!join.is_proved(&key, &Exported([2; 32])), "another connection");
        assert!(!join.is_proved(&self::key(), &Exported([1; 32])), "another token");
        for changed in [
            Join { node: Some(NodeId::new("c").unwrap()), ..join.clone() },
            Join { node: None, ..join.clone() },
            Join { datacenter: Some(Datacenter::new("us").unwrap()), ..join.clone() },
            Join { csr: vec![1], ..join.clone() },
            Join { token: TokenId([9; 8]), ..join.clone() },
        ] {
            assert!(!changed.is_proved(&key, &Exported([1; 32])), "{changed:?}");
        }
    }

    #[test]
    fn an_answer_is_proved_as_well() {
        let key = key();
        let mut granted = Granted {
            certificate: vec![1],
            roots: vec![vec![2]],
            gossip_port: 7101,
            issuers: vec!["d:7102".to_owned()],
            proof: [0; PROOF_BYTES],
        };
        granted.prove(&key, &Exported([1; 32]));
        assert!(granted.is_proved(&key, &Exported([1; 32])));
        let forged = Granted { roots: vec![vec![2], vec![3]], ..granted.clone() };
        assert!(!forged.is_proved(&key, &Exported([1; 32])));
        let forged = Granted { issuers: Vec::new(), ..granted.clone() };
        assert!(!forged.is_proved(&key, &Exported([1; 32])));
        assert!(!granted.is_proved(&key, &Exported([2; 32])));
    }

    #[test]
    fn refuses_a_length_that_lies_and_bytes_left_over() {
        let good = Request::Renew { csr: vec![7; 40] }.encode();
        assert!(Request::decode(&good).is_ok());
        assert!(Request::decode(&[&good[..], &[0]].concat()).is_err());
        assert!(Request::decode(&good[..good.len() - 1]).is_err());
        // A request to renew with 2^60 bytes.
        let bomb = [&[1, 253][..], &(1_u64 << 60).to_le_bytes()].concat();
        assert!(Request::decode(&bomb).is_err());
    }

    #[test]
    fn an_ordinary_request_fits() {
        let node = NodeId::new("n".repeat(63).as_str()).unwrap();
        let datacenter = Datacenter::new("d".repeat(63).as_str()).unwrap();
        for kind in [KeyKind::Ed25519, KeyKind::P256] {
            let csr = Requested::new(kind).unwrap().csr;
            let (node, datacenter) = (Some(node.clone()), Some(datacenter.clone()));
            let join = Request::Join(Join { node, datacenter, csr, ..join() });
            assert!(join.encode().len() <= REQUEST_BYTES_MAX / 4);
            assert_eq!(Request::decode(&join.encode()), Ok(join));
        }
    }

    proptest! {
        // C90
        #[test]
        fn never_panics_on_arbitrary_bytes(bytes: Vec<u8>) {
            let _ = Request::decode(&bytes);
            let _ = Answer::decode(&bytes);
            prop_assert!(PublicKey::from_csr(&bytes).is_err());
        }

        // C90
        #[test]
        fn a_damaged_request_gives_no_other_key(place: Index, mask in 1u8..) {
            let csr = Requested::new(KeyKind::Ed25519).unwrap().csr;
            let key = PublicKey::from_csr(&csr).unwrap();
            let mut damaged = csr;
            let place = place.index(damaged.len());
            damaged[place] ^= mask;
            if let Ok(read) = PublicKey::from_csr(&damaged) {
                prop_assert_eq!(read, key);
            }
        }
    }

    fn key() -> ProofKey {
        Token::generate(NodeId::new("a").unwrap(), 1, Pin([0; 32])).unwrap().key()
    }

    fn join() -> Join {
        Join {
            token: TokenId([1; 8]),
            node: Some(NodeId::new("b").unwrap()),
            datacenter: None,
            csr: vec![5; 100],
            proof: [0; PROOF_BYTES],
        }
    }
}
