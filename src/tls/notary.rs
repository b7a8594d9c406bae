//! Certificates that vouch for the keys which sign heads: see [`seal`](crate::protocol::seal).

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
    time::SystemTime,
};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rustls::{SignatureScheme, pki_types::CertificateDer};
use zeroize::Zeroizing;

use super::{
    certificate::{parse, period},
    config::Tls,
    name::PeerName,
    provider::provider,
    refusal::Refusal,
    state::Expect,
    verifier::check_name,
};
use crate::{
    clock::Clock,
    protocol::{
        id::{ClusterId, Generation, NodeId},
        seal::{Certified, Credential, LifeKey, LifeSigner, Notary, Objection, Signature},
        tree::Hash,
    },
};

#[doc(hidden)]
impl Notary for Tls {
    fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    fn begin(
        &self,
        node: &NodeId,
        generation: Generation,
    ) -> Result<(LifeSigner, Credential), String> {
        let state = self.shared.load();
        let certified = state.identity.certified();
        let chain: Vec<_> = state.identity.chain().iter().map(|der| der.to_vec()).collect();
        let signer = certified.key.choose_scheme(SCHEMES).ok_or(
            "the certificate's key cannot sign: use Ed25519, ECDSA P-256 or P-384, or RSA",
        )?;
        let own = chain.first().and_then(|leaf| ed25519_key(&CertificateDer::from(&leaf[..])));
        let (life, scheme, signature) = if let Some(key) = own {
            let sign = move |digest: &Hash| {
                let signature = signer.sign(&digest.0).ok()?;
                signature.as_slice().try_into().map(Signature).ok()
            };
            (LifeSigner::new(key, sign), 0, Vec::new())
        } else {
            let mut seed = Zeroizing::new([0; 32]);
            SystemRandom::new().fill(&mut *seed).map_err(|_| "the system gives no random bytes")?;
            let life = LifeSigner::from_seed(&seed).map_err(|error| error.to_string())?;
            let statement = Credential::statement(&self.cluster, node, generation, &life.key());
            let signature = signer
                .sign(&statement)
                .map_err(|_| "the certificate's key does not sign".to_owned())?;
            (life, u16::from(signer.scheme()), signature)
        };
        let credential = Credential { key: life.key(), chain, scheme, signature };
        if credential.is_sized() {
            Ok((life, credential))
        } else {
            Err("the certificate chain is too long to be told to others".to_owned())
        }
    }

    fn revision(&self) -> u64 {
        self.shared.load().revision
    }

    fn vet(
        &self,
        node: &NodeId,
        generation: Generation,
        credential: &Credential,
    ) -> Result<(), String> {
        let state = self.shared.load();
        let chain: Vec<_> =
            credential.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let (leaf, rest) = chain.split_first().ok_or("no certificate")?;
        self.check_certificate(node, credential)?;
        state
            .chains
            .verify_acceptor_once(leaf, rest, Clock::wall())
            .map_err(|error| Refusal::of_tls(&error).to_string())?;
        if credential.scheme == 0 {
            let own = credential.signature.is_empty() && ed25519_key(leaf) == Some(credential.key);
            return if own { Ok(()) } else { Err("the key is not the certificate's".to_owned()) };
        }
        let statement = Credential::statement(&self.cluster, node, generation, &credential.key);
        let scheme = SignatureScheme::from(credential.scheme);
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms.mapping.iter();
        let (_, algorithms) = algorithms
            .into_iter()
            .find(|(known, _)| *known == scheme && SCHEMES.contains(known))
            .ok_or("a signature of a kind that is not known")?;
        let end = webpki::EndEntityCert::try_from(leaf)
            .map_err(|_| "the certificate cannot be read".to_owned())?;
        let verifies = |algorithm: &&dyn rustls::pki_types::SignatureVerificationAlgorithm| {
            end.verify_signature(*algorithm, &statement, &credential.signature).is_ok()
        };
        if algorithms.iter().any(verifies) {
            Ok(())
        } else {
            Err("the key was not signed with the certificate's".to_owned())
        }
    }

    fn certified(&self, credential: &Credential) -> Option<Certified> {
        let chain: Vec<_> =
            credential.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let leaf = chain.first()?;
        let parsed = parse(leaf).ok()?;
        let (not_before, not_after) = period(&parsed)?;
        let seconds = |at: SystemTime| {
            at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
        };
        let state = self.shared.load();
        let naming = state.identity.naming();
        let name =
            PeerName::from_parsed(&parsed, naming).ok().filter(|_| naming.tells_datacenter());
        // A key whose chain has ended does not vouch for a generation that begins later.
        let end = state.chains.last_end(&chain, Clock::wall()).unwrap_or(not_after);
        Some(Certified {
            not_before: seconds(not_before),
            not_after: seconds(end),
            datacenter: name.map(|name| name.datacenter),
        })
    }

    fn introduce(
        &self,
        node: &NodeId,
        generation: Generation,
        credential: &Arc<Credential>,
        head: (&Hash, &Signature),
    ) -> Result<Arc<Credential>, Objection> {
        if !credential.is_sized() {
            return Err(Objection::Credential);
        }
        let roots = *self.shared.load().chains.roots_id();
        let known = Known::of(&roots, node, generation, credential, head);
        if let Some(same) = known.find() {
            // Not cached: it may be revoked at any time.
            let fits = self.check_certificate(node, credential).is_ok();
            let same = same.upgrade().unwrap_or_else(|| Arc::clone(credential));
            return if fits { Ok(same) } else { Err(Objection::Credential) };
        }
        if !credential.key.verifies(head.0, head.1) {
            return Err(Objection::Signature);
        }
        self.vet(node, generation, credential).map_err(|_| Objection::Credential)?;
        known.remember(credential);
        Ok(Arc::clone(credential))
    }
}

#[doc(hidden)]
impl Tls {
    /// Whether a certificate names this node of our cluster, and is not revoked.
    fn check_certificate(&self, node: &NodeId, credential: &Credential) -> Result<(), String> {
        let state = self.shared.load();
        let leaf = credential.chain.first().ok_or("no certificate")?;
        let (expect, revoked) = (Expect::Node(node.clone()), state.revoked.load());
        let leaf = CertificateDer::from(leaf.as_slice());
        check_name(&leaf, &state.identity, &expect, &revoked).map_err(|r| r.to_string())
    }
}

/// The certificates that introduce a generation of a node, and the roots that verified them. The result
/// does not change, so it is computed once: not again if another peer sends it after it was forgotten,
/// nor by each node of a process, which also share one copy of it.
#[derive(PartialEq, Eq, Hash)]
struct Known([u8; 32]);

impl Known {
    fn of(
        roots: &[u8; 32],
        node: &NodeId,
        generation: Generation,
        credential: &Credential,
        (head, signature): (&Hash, &Signature),
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(roots).update(&head.0).update(&signature.0);
        hasher.update(&generation.0.to_le_bytes()).update(&credential.key.0);
        hasher.update(&credential.scheme.to_le_bytes());
        let chain = credential.chain.iter().map(Vec::as_slice);
        for part in chain.chain([&credential.signature[..], node.as_str().as_bytes()]) {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    fn find(&self) -> Option<Weak<Credential>> {
        verified().get(self).cloned()
    }

    fn remember(self, credential: &Arc<Credential>) {
        let mut verified = verified();
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(self, Arc::downgrade(credential));
    }
}

/// Chains may be long, and a member can have any number of generations: only those in use are kept.
fn verified() -> MutexGuard<'static, HashMap<Known, Weak<Credential>>> {
    static VERIFIED: LazyLock<Mutex<HashMap<Known, Weak<Credential>>>> =
        LazyLock::new(Mutex::default);
    // Code under the lock does not panic half way.
    VERIFIED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Maximum number of cached introductions.
const VERIFIED_MAX: usize = 16_384;

/// The key of a certificate, if it is Ed25519 (RFC 8410).
fn ed25519_key(leaf: &CertificateDer<'_>) -> Option<LifeKey> {
    let end = webpki::EndEntityCert::try_from(leaf).ok()?;
    let info = end.subject_public_key_info();
    let key = info.as_ref().strip_prefix(&ED25519_INFO[..])?;
    key.try_into().map(LifeKey).ok()
}

/// The first bytes of an Ed25519 key's public key information; the 32 bytes of the key follow.
const ED25519_INFO: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The signature schemes of certificates' keys: those TLS 1.3 allows in a handshake (RFC 8446, section 4.2.3).
const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];
