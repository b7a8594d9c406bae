//! The trusted certificate authorities, and the chains that lead to them.
//!
//! Chains are verified by rustls and webpki.

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::hmac;
use rustls::{
    RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, UnixTime},
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    certificate::{CertificateSummary, date, parse, validity},
    files::{Audience, LoadError, read},
    identity::Identity,
    kind::{self, Holder},
    name::shown,
    pem::chain_from_pem,
    provider::provider,
    refusal::{Refusal, Rejection},
    revoked::AuthorityKey,
};
use crate::protocol::{id::ClusterId, sketch::SketchKey};

/// The certificate authorities that a node trusts: one, or several during a rotation.
///
/// The dates of a root are not checked (webpki uses a trust anchor as it is): to stop trusting one,
/// remove it from the file.
#[derive(Clone)]
pub struct Roots {
    store: Arc<RootCertStore>,
    summaries: Vec<CertificateSummary>,
    keys: Arc<[AuthorityKey]>,
}

impl Roots {
    /// Loads all certificates of a PEM file.
    ///
    /// # Errors
    /// [`LoadError`], naming the file, if it contains none, or one that may not sign others.
    pub fn from_pem_file(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        read(path, Audience::Anyone)
            .and_then(|pem| Self::from_pem(&pem))
            .map_err(|e| e.in_file(path))
    }

    /// Reads all certificates of a PEM text.
    ///
    /// # Errors
    /// [`LoadError`] if it contains none, or one that may not sign others.
    pub fn from_pem(pem: &[u8]) -> Result<Self, LoadError> {
        let mut store = RootCertStore::empty();
        let (mut summaries, mut keys) = (Vec::new(), Vec::new());
        for certificate in chain_from_pem(pem)? {
            let summary = CertificateSummary::from_certificate(&certificate)?;
            if !summary.is_authority {
                return Err(LoadError::NotAnAuthority { subject: summary.subject });
            }
            kind::check_key(&parse(&certificate)?, Holder::Other)?;
            keys.extend(AuthorityKey::of(&certificate));
            store.add(certificate).map_err(LoadError::Unsupported)?;
            summaries.push(summary);
        }
        Ok(Self { store: Arc::new(store), summaries, keys: keys.into() })
    }

    /// The content of the roots' certificates.
    #[must_use]
    #[doc(hidden)]
    pub fn certificates(&self) -> &[CertificateSummary] {
        &self.summaries
    }

    /// The keys that may sign revocations.
    pub(super) fn keys(&self) -> &[AuthorityKey] {
        &self.keys
    }

    /// The hash key of sketches in the cluster of this name: equal on all its nodes, and hard to obtain
    /// for others, since handshakes are encrypted and show no root.
    ///
    /// During a rotation the older authority counts, so that nodes that trust both agree with those
    /// that do not know the new one yet. They disagree with nodes that trust only the new one, until
    /// the old one is removed everywhere. Renewing a certificate with the same key changes nothing.
    pub(super) fn sketch_key(&self, cluster: &ClusterId) -> SketchKey {
        let keys = self.store.roots.iter().map(|root| root.subject_public_key_info.as_ref());
        let oldest = self.summaries.iter().map(|root| root.not_before).zip(keys).min();
        let secret = oldest.map_or(&[][..], |(_, key)| key);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let mut context = hmac::Context::with_key(&key);
        context.update(SKETCH_LABEL);
        context.update(cluster.as_str().as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&context.sign().as_ref()[..16]);
        SketchKey(bytes)
    }

    /// Whether peers with these roots would accept this identity at `now`.
    ///
    /// # Errors
    /// The [`Refusal`] that such a peer would report.
    #[doc(hidden)]
    pub fn check(&self, identity: &Identity, now: SystemTime) -> Result<(), Refusal> {
        let chains = Chains::new(self.clone()).map_err(|e| Refusal::of_tls(&e))?;
        chains.check(identity.chain(), now).map_err(|e| Refusal::of_tls(&e))
    }

    /// Judges the chain of a node with these roots: whether its peers, which have the same roots, accept
    /// it, and until when. If they refuse a node, it was usually given the wrong files.
    ///
    /// Accepts a certificate that is not valid yet: on a host that starts before its clock is set,
    /// time repairs that. The [`Standing`] reports it.
    ///
    /// # Errors
    /// [`LoadError`], which describes the fault and what to do.
    #[doc(hidden)]
    pub fn judge(&self, identity: &Identity, now: SystemTime) -> Result<Standing, LoadError> {
        let chains = Chains::new(self.clone()).map_err(LoadError::Unsupported)?;
        let chain = identity.chain();
        let early = match chains.check(chain, now) {
            Ok(()) => false,
            Err(error) => match Rejection::of_tls(&error) {
                Rejection::NotYetValid => true,
                Rejection::Expired => return Err(ended(chain, now)),
                other => return Err(LoadError::Refused(other)),
            },
        };
        let end = chains.end(chain, now);
        let subject =
            |place: usize| Some(shown(&parse(chain.get(place)?).ok()?.subject().to_string()));
        Ok(Standing {
            early,
            expires: end.map_or_else(|| identity.certificate().not_after, |end| end.at),
            outlived: end.filter(|end| end.of > 0).and_then(|end| subject(end.of)),
        })
    }
}

/// The result of [`Roots::judge`] for a usable chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It is not valid yet, by this host's clock.
    pub early: bool,
    /// When the chain ends: with the leaf, or with an intermediate that ends before it.
    pub expires: SystemTime,
    /// The subject of that intermediate, if there is one.
    pub outlived: Option<String>,
}

/// The certificate of a chain that has expired at `now`.
fn ended(chain: &[CertificateDer<'_>], now: SystemTime) -> LoadError {
    let ends = chain.iter().enumerate().filter_map(|(place, one)| Some((place, validity(one)?.1)));
    let over = ends.filter(|(_, end)| *end < now).max_by_key(|(_, end)| *end);
    match over {
        Some((0, end)) => LoadError::Expired { not_after: date(end) },
        Some((place, end)) => LoadError::IssuerExpired {
            subject: parse(&chain[place]).map_or_else(
                |_| "an unreadable certificate".to_owned(),
                |parsed| shown(&parsed.subject().to_string()),
            ),
            not_after: date(end),
        },
        None => LoadError::Refused(Rejection::Other),
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.summaries.iter().map(|root| &root.subject)).finish()
    }
}

/// The purpose of the key, so that no other key can be the same.
const SKETCH_LABEL: &[u8] = b"gossipmonger 1 sketch key of cluster ";

/// Verifies chains to our roots, with rustls' own two verifiers.
#[derive(Debug)]
pub(super) struct Chains {
    roots: Roots,
    roots_id: [u8; 32],
    dialers: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Chains {
    pub(super) fn new(roots: Roots) -> Result<Self, rustls::Error> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let dialers = WebPkiClientVerifier::builder_with_provider(roots.store.clone(), provider)
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let mut hasher = blake3::Hasher::new();
        for root in &roots.store.roots {
            for part in [&root.subject, &root.subject_public_key_info] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
            }
            let constraints = root.name_constraints.as_ref().map_or(&[][..], |der| der.as_ref());
            hasher.update(&(constraints.len() as u64).to_le_bytes()).update(constraints);
        }
        let roots_id = *hasher.finalize().as_bytes();
        Ok(Self { roots, roots_id, dialers, algorithms })
    }

    /// A different one for other roots.
    pub(super) const fn roots_id(&self) -> &[u8; 32] {
        &self.roots_id
    }

    pub(super) const fn roots(&self) -> &Roots {
        &self.roots
    }

    pub(super) fn verify_acceptor(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots.store,
            rest,
            now,
            self.algorithms.all,
        )
    }

    /// Whether a chain is accepted on both sides of a connection.
    fn check(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), rustls::Error> {
        let (leaf, rest) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.verify_acceptor(leaf, rest, unix(now))
            .and_then(|()| self.verify_dialer(leaf, rest, unix(now)))
    }

    /// The end of a chain that is accepted at `now`: the end of the leaf, or of an intermediate without
    /// which no path leads to a root. `None` if the leaf cannot be read.
    pub(super) fn end(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Option<End> {
        let (leaf, rest) = chain.split_first()?;
        let (_, leaf_end) = validity(leaf)?;
        // Verifiers count whole seconds: in the second after an end the chain is still accepted, and its
        // end is still that second.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(unix(now).as_secs());
        let above = rest
            .iter()
            .enumerate()
            .filter_map(|(place, one)| Some(End { at: validity(one)?.1, of: place + 1 }));
        let mut ends: Vec<_> = above.filter(|end| end.at >= now && end.at < leaf_end).collect();
        ends.sort_unstable_by_key(|end| end.at);
        ends.dedup_by_key(|end| end.at);
        ends.truncate(ENDS_MAX);
        let is_last = |end: &End| {
            let after = unix(end.at + Duration::from_secs(1));
            self.verify_acceptor(leaf, rest, after).is_err()
        };
        ends.into_iter().find(is_last).or(Some(End { at: leaf_end, of: 0 }))
    }

    /// Verifies a chain now, or at the nearest moment at which it was valid: its signatures stay valid
    /// after its end. Returns that moment.
    pub(super) fn verify_acceptor_once(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<SystemTime, rustls::Error> {
        let malformed = rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding);
        let (begin, end) = validity(leaf).ok_or(malformed)?;
        // The last second is still valid; both ends are whole seconds.
        let at = now.min(end).max(begin);
        let Err(error) = self.verify_acceptor(leaf, rest, unix(at)) else { return Ok(at) };
        if Rejection::of_tls(&error) != Rejection::Expired {
            return Err(error);
        }
        let mut ends: Vec<_> = rest.iter().filter_map(|one| Some(validity(one)?.1)).collect();
        ends.retain(|end| (begin..at).contains(end));
        ends.sort_unstable();
        ends.dedup();
        let was = |end: &SystemTime| self.verify_acceptor(leaf, rest, unix(*end)).is_ok();
        ends.into_iter().rev().take(ENDS_MAX).find(was).ok_or(error)
    }

    /// The end of a chain that is or was accepted. `None` if it never was, or cannot be read.
    pub(super) fn last_end(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Option<SystemTime> {
        let (leaf, rest) = chain.split_first()?;
        let (_, leaf_end) = validity(leaf)?;
        if rest.iter().all(|one| validity(one).is_none_or(|(_, end)| end >= leaf_end)) {
            return Some(leaf_end);
        }
        let at = self.verify_acceptor_once(leaf, rest, now).ok()?;
        Some(self.end(chain, at)?.at)
    }

    pub(super) fn verify_dialer(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        self.dialers.verify_client_cert(leaf, rest, now).map(drop)
    }
}

/// The end of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// When: the last second in which it is valid.
    pub(super) at: SystemTime,
    /// The place of the certificate that ends it; 0 is the leaf.
    pub(super) of: usize,
}

/// Maximum number of intermediates' ends that are tried, so that a long chain costs no more than a
/// few signatures per peer.
const ENDS_MAX: usize = 4;

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
