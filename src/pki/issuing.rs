//! Keys created where they are used, and the certificate requests for them.

use rcgen::{CertificateParams, DistinguishedName};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{
    error::{AuthorityError, made},
    issued::Issued,
    leaf::{KeyKind, generate},
};
use crate::tls::{files::LoadError, identity::Identity};

/// A new private key, and a request (PKCS #10) for a certificate. The request contains no name: an
/// issuer takes only the key from it.
pub(crate) struct Requested {
    /// PKCS#8 in PEM.
    pub(crate) key_pem: Zeroizing<String>,
    /// The request in DER.
    pub(crate) csr: Vec<u8>,
}

impl Requested {
    pub(crate) fn new(kind: KeyKind) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let key = generate(kind)?;
        let csr = params.serialize_request(&key).map_err(made)?;
        Ok(Self { key_pem: Zeroizing::new(key.serialize_pem()), csr: csr.der().to_vec() })
    }

    /// Combines the key with the certificate that was issued for it.
    pub(crate) fn issued(
        self,
        certificate: &CertificateDer<'static>,
        roots_pem: String,
    ) -> Result<Issued, LoadError> {
        let certificate_pem = pem_of(certificate);
        let identity = Identity::from_pem(certificate_pem.as_bytes(), self.key_pem.as_bytes())?;
        let certificate = identity.certificate().clone();
        Ok(Issued { certificate_pem, key_pem: self.key_pem, roots_pem, certificate })
    }
}

impl Identity {
    /// A certificate issued locally by an authority, with the authority's certificate appended.
    pub(crate) fn behind(
        issued: &Issued,
        authority_pem: &str,
        now: std::time::SystemTime,
    ) -> Result<Self, LoadError> {
        let chain = format!("{}{authority_pem}", issued.certificate_pem);
        Self::from_pem_at(chain.as_bytes(), issued.key_pem.as_bytes(), now)
    }

    /// The kind of the key, among the kinds created here.
    #[must_use]
    #[doc(hidden)]
    pub fn key_kind(&self) -> KeyKind {
        match self.shown().key.algorithm() {
            rustls::SignatureAlgorithm::ECDSA => KeyKind::P256,
            _ => KeyKind::Ed25519,
        }
    }
}

/// A certificate in PEM.
pub(crate) fn pem_of(certificate: &CertificateDer<'_>) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(PEM_LINE) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// RFC 7468 section 2.
const PEM_LINE: usize = 64;
