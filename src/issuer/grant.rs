//! The issuer: it decides on requests for certificates, and issues them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{
    cluster::Cluster,
    ledger::{Claim, Denied, Ledger, LedgerError, Terms, TokenView},
    request::{Exported, Granted, ISSUERS_MAX, Join, PublicKey, Refused, is_door},
    token::{Token, TokenId},
};
use crate::{
    clock::Clock,
    pki::{Authority, AuthorityError, LeafOptions, Usage, file, leaf::BACKDATE},
    protocol::{id::NodeId, revocation::Revocation},
    tls::{Identity, PeerName, Pin},
};

/// Minimum validity of certificates that an issuer accepts as a setting: for tests.
pub(super) const VALIDITY_MIN: Duration = Duration::from_secs(10);

/// Maximum: a machine renews them, so longer ones only help thieves.
pub(super) const VALIDITY_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Issues certificates.
#[derive(Debug)]
pub struct Issuer {
    pub(super) directory: PathBuf,
    name: PeerName,
    validity: Duration,
    ledger: Ledger,
    /// `None`: the listener is closed, since the directory cannot be read.
    shown: ArcSwapOption<Shown>,
}

/// The certificate that the listener shows, and until when.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) pin: Pin,
    pub(super) authority: (u64, Option<SystemTime>),
    pub(super) until: SystemTime,
}

/// An issuer cannot be opened, or cannot create a token. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerError {
    /// The authority cannot be loaded, or has expired.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The authority belongs to another cluster.
    #[error("the authority in {} is of cluster {theirs}, this node is of cluster {ours}", directory.display())]
    OtherCluster {
        /// The authority's directory.
        directory: PathBuf,
        /// Its cluster.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// The validity is out of range.
    #[error(
        "a validity of {}s is refused: {}s to {}s are allowed", _0.as_secs(), VALIDITY_MIN.as_secs(), VALIDITY_MAX.as_secs()
    )]
    Validity(Duration),
    /// The system provides no randomness.
    #[error("the system gives no randomness")]
    NoRandomness,
}

impl Issuer {
    /// Opens an authority's directory (`ca.pem`, `ca.key`) for the node of this name. Certificates
    /// will be valid for `validity`.
    ///
    /// # Errors
    /// [`IssuerError`], if the authority or the ledger cannot be used, or belongs to another cluster.
    pub fn open(directory: &Path, name: PeerName, validity: Duration) -> Result<Self, IssuerError> {
        let authority = Authority::load(directory)?;
        if *authority.cluster() != name.cluster {
            return Err(IssuerError::OtherCluster {
                directory: directory.to_owned(),
                theirs: authority.cluster().to_string(),
                ours: name.cluster.to_string(),
            });
        }
        if !(VALIDITY_MIN..=VALIDITY_MAX).contains(&validity) {
            return Err(IssuerError::Validity(validity));
        }
        let (directory, ledger) = (directory.to_owned(), Ledger::open(directory)?);
        let issuer = Self { directory, name, validity, ledger, shown: ArcSwapOption::empty() };
        issuer.look()?;
        Ok(issuer)
    }

    /// The validity of its certificates.
    #[must_use]
    #[doc(hidden)]
    pub const fn validity(&self) -> Duration {
        self.validity
    }

    /// Creates a token for the listener at `port`; when this returns, it is on the disk.
    ///
    /// # Errors
    /// [`IssuerError`], for example for terms out of range.
    pub fn create(&self, terms: &Terms, port: u16) -> Result<(Token, TokenView), IssuerError> {
        let pin = self.look()?.pin;
        let token = Token::generate(self.name.node.clone(), port, pin);
        let token = token.ok_or(IssuerError::NoRandomness)?;
        let view = self.ledger.add(&token, terms, Clock::wall())?;
        Ok((token, view))
    }

    /// The tokens in the ledger, the oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn tokens(&self) -> Result<Vec<TokenView>, LedgerError> {
        self.ledger.list(Clock::wall())
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// [`LedgerError::Unknown`] and others.
    pub fn revoke(&self, token: TokenId) -> Result<TokenView, LedgerError> {
        self.ledger.revoke(token, Clock::wall())
    }

    /// Revokes the present certificates of a node; when this returns, the authority has recorded it and
    /// issues none that this would cover. The other nodes do not know it yet.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub fn revoke_node(&self, node: NodeId) -> Result<Revocation, IssuerError> {
        let authority = Authority::load(&self.directory)?;
        let statement = authority.revoke(node.clone(), Clock::wall())?;
        authority.save_revocations(&self.directory)?;
        // The previous holder of the name has lost it.
        self.ledger.release(&node)?;
        Ok(statement)
    }

    /// Grants a claim by token, and returns the name.
    pub(super) fn grant(
        &self,
        join: &Join,
        exported: &Exported,
        cluster: &dyn Cluster,
    ) -> Result<(Granted, PeerName), Denied> {
        let now = Clock::wall();
        let claim = Claim { join, exported, datacenter: &self.name.datacenter, now };
        let lives = |node: &NodeId| cluster.lives(node);
        self.ledger.claim(&claim, lives, |node, datacenter, key| {
            let name = PeerName { cluster: self.name.cluster.clone(), datacenter, node };
            let mut granted = self.certify(&name, &join.csr, now, cluster)?;
            granted.prove(key, exported);
            Ok((granted, name))
        })
    }

    /// Issues a further certificate of the same name, for the one that is valid from `since` on.
    pub(super) fn regrant(
        &self,
        name: &PeerName,
        since: SystemTime,
        csr: &[u8],
        cluster: &dyn Cluster,
    ) -> Result<Granted, Denied> {
        // The directory may contain a revocation that the handshake did not know yet, and a
        // certificate issued now would begin after it.
        let authority = Authority::load(&self.directory).map_err(unable)?;
        if authority.has_revoked(&name.node, since) {
            return Err(Denied::new(Refused::NoCertificate, "this one is revoked"));
        }
        self.certify(name, csr, Clock::wall(), cluster)
    }

    fn certify(
        &self,
        name: &PeerName,
        csr: &[u8],
        now: SystemTime,
        cluster: &dyn Cluster,
    ) -> Result<Granted, Denied> {
        let key = PublicKey::from_csr(csr).map_err(|e| Denied::new(Refused::BadKey, e))?;
        let authority = Authority::load(&self.directory).map_err(unable)?;
        let options = LeafOptions {
            not_before: now - backdate(self.validity),
            not_after: now + self.validity,
            ..LeafOptions::new(name, self.validity)
        };
        let certificate = authority.certify(&options, key.spki()).map_err(unable)?;
        let mut roots = certificates(&cluster.roots_pem());
        let own = certificates(authority.roots_pem());
        roots.retain(|root| !own.contains(root));
        Ok(Granted {
            certificate: certificate.to_vec(),
            roots: own.into_iter().chain(roots).take(ROOTS_MAX).collect(),
            gossip_port: cluster.gossip_port(),
            issuers: cluster
                .issuers()
                .into_iter()
                .filter(|door| is_door(door))
                .take(ISSUERS_MAX)
                .collect(),
            proof: [0; 32],
        })
    }

    /// The certificate that the listener shows now: one of this node, only for this purpose, signed
    /// by the authority that was in the directory at the last check. The call does not block.
    pub(super) fn shown(&self) -> Option<Arc<Shown>> {
        self.shown.load_full()
    }

    /// Reads the directory, and renews the listener's certificate if the authority has changed or it is
    /// time. It blocks on files, for as long as they take.
    pub(super) fn look(&self) -> Result<Arc<Shown>, IssuerError> {
        let now = Clock::wall();
        let metadata = std::fs::metadata(self.directory.join(file::AUTHORITY)).ok();
        let authority =
            metadata.map_or((0, None), |metadata| (metadata.len(), metadata.modified().ok()));
        match self.shown() {
            Some(shown) if now < shown.until && shown.authority == authority => Ok(shown),
            _ => {
                let made = Arc::new(self.show(authority, now)?);
                self.shown.store(Some(Arc::clone(&made)));
                Ok(made)
            }
        }
    }

    /// Shows no certificate any more, until a check succeeds.
    pub(super) fn shut(&self) {
        self.shown.store(None);
    }

    fn show(
        &self,
        stamp: (u64, Option<SystemTime>),
        now: SystemTime,
    ) -> Result<Shown, IssuerError> {
        let authority = Authority::load(&self.directory)?;
        let mut options = LeafOptions::new(&self.name, 2 * SHOWN_FOR);
        options.usages = vec![Usage::Server];
        let issued = authority.issue_with(&options)?;
        let identity = Identity::behind(&issued, authority.certificate_pem(), now)
            .map_err(AuthorityError::from)?;
        let pin = identity.chain().get(1).and_then(Pin::of).ok_or_else(|| {
            AuthorityError::Make("the authority's own certificate cannot be read".to_owned())
        })?;
        let until = now + SHOWN_FOR;
        Ok(Shown { certified: identity.shown(), pin, authority: stamp, until })
    }
}

fn unable(error: AuthorityError) -> Denied {
    Denied::new(Refused::Unable, error)
}

/// Certificates in PEM, converted to DER; unreadable ones are left out.
fn certificates(pem: &str) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .filter_map(|certificate| Some(certificate.ok()?.to_vec()))
        .collect()
}

/// How far before its issue a certificate begins: [`BACKDATE`], or for a short one a twentieth, so
/// that two thirds of its lifetime are still ahead of it. The shorter certificates are, the better
/// clocks have to agree.
pub(super) fn backdate(validity: Duration) -> Duration {
    BACKDATE.min(validity / 20)
}

/// Maximum number of roots in an answer.
const ROOTS_MAX: usize = 16;
/// The listener's certificate is renewed after this; it is valid for twice as long.
const SHOWN_FOR: Duration = Duration::from_secs(12 * 3600);
