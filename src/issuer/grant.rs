//! The issuer: it decides who gets which certificate, and issues it.

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
    pki::{Authority, AuthorityError, BACKDATE, LeafOptions, Usage, file},
    protocol::{id::NodeId, revocation::Revocation},
    tls::{Identity, PeerName, Pin},
};

/// Shortest lifetime of a certificate that an issuer may be told to give: for tests.
pub const VALIDITY_MIN: Duration = Duration::from_secs(10);

/// Longest: a machine renews, so longer ones only help thieves.
pub const VALIDITY_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// One that gives out certificates.
#[derive(Debug)]
pub struct Issuer {
    pub(super) directory: PathBuf,
    name: PeerName,
    validity: Duration,
    ledger: Ledger,
    /// `None`: the door is shut, since the directory cannot be read.
    shown: ArcSwapOption<Shown>,
}

/// What the door shows, and until when.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) pin: Pin,
    pub(super) authority: (u64, Option<SystemTime>),
    pub(super) until: SystemTime,
}

/// An issuer cannot be opened, or cannot make a token. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerError {
    /// The authority cannot be loaded, or has expired.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The authority is another cluster's.
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
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    NoRandomness,
}

impl Issuer {
    /// Opens an authority's directory (`ca.pem`, `ca.key`) for the node of this name. Certificates
    /// will be valid for `validity`.
    ///
    /// # Errors
    /// [`IssuerError`], if the authority or the ledger cannot be used, or is of another cluster.
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

    /// How long its certificates are valid.
    #[must_use]
    pub const fn validity(&self) -> Duration {
        self.validity
    }

    /// Makes a token for the door at `port`; when this returns, it is on the disk.
    ///
    /// # Errors
    /// [`IssuerError`], among others for terms out of range.
    pub fn create(&self, terms: &Terms, port: u16) -> Result<(Token, TokenView), IssuerError> {
        let pin = self.look()?.pin;
        let token = Token::generate(self.name.node.clone(), port, pin);
        let token = token.ok_or(IssuerError::NoRandomness)?;
        let view = self.ledger.add(&token, terms, Clock::wall())?;
        Ok((token, view))
    }

    /// The tokens that are remembered, the oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn tokens(&self) -> Result<Vec<TokenView>, LedgerError> {
        self.ledger.list(Clock::wall())
    }

    /// Makes a token good for nothing.
    ///
    /// # Errors
    /// [`LedgerError::Unknown`] and others.
    pub fn revoke(&self, token: TokenId) -> Result<TokenView, LedgerError> {
        self.ledger.revoke(token, Clock::wall())
    }

    /// Revokes the certificates that a node has; when this returns, the authority remembers it and issues
    /// it none that this would be about. Others have yet to be told.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub fn revoke_node(&self, node: NodeId) -> Result<Revocation, IssuerError> {
        let authority = Authority::load(&self.directory)?;
        let statement = authority.revoke(node.clone(), Clock::wall())?;
        authority.save_revocations(&self.directory)?;
        // Whoever had the name has it no more.
        self.ledger.release(&node)?;
        Ok(statement)
    }

    /// Grants a claim by token, and says to which name.
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

    /// A further certificate of the same name, for the one that is valid `since` then.
    pub(super) fn regrant(
        &self,
        name: &PeerName,
        since: SystemTime,
        csr: &[u8],
        cluster: &dyn Cluster,
    ) -> Result<Granted, Denied> {
        // The directory may know of a revocation that the handshake has not heard of yet, and what is
        // issued now would begin after it.
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

    /// What the door shows at this moment: a certificate of this node for nothing but this, of the
    /// authority that was in the directory at the last look. It waits for nothing.
    pub(super) fn shown(&self) -> Option<Arc<Shown>> {
        self.shown.load_full()
    }

    /// Looks into the directory, and makes what the door shows anew if the authority is another one or it
    /// is time. It waits for files, for as long as they take.
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

    /// Shows nothing any more, until a look succeeds.
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

/// Certificates in PEM, in DER; what cannot be read is left out.
fn certificates(pem: &str) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .filter_map(|certificate| Some(certificate.ok()?.to_vec()))
        .collect()
}

/// How far before its issue a certificate begins: [`BACKDATE`], and of a short one a twentieth, so
/// that two thirds of its lifetime are still ahead of it. Clocks have to agree the better the shorter
/// certificates are.
pub(super) fn backdate(validity: Duration) -> Duration {
    BACKDATE.min(validity / 20)
}

/// Most roots that an answer carries.
const ROOTS_MAX: usize = 16;
/// A certificate for the door is made anew after this; it is valid for twice as long.
const SHOWN_FOR: Duration = Duration::from_secs(12 * 3600);
