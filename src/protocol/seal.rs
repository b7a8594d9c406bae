//! Signed heads: a relay cannot forge, roll back or omit entries of another node's map.
//!
//! Each time its map has changed and is to be sent, the owner signs its [`Head`]: the generation, how far the
//! map reaches and is collected, the record, and the root of the [tree](super::tree) of all entries. The
//! signature travels with the update as a [`Seal`]. A copy keeps the last seal and passes it on, so that it
//! can send others only what the owner has signed. Heads are signed with an Ed25519 key (RFC 8032): the key
//! of the certificate or, if that key is of another kind, a key made for one generation. A [`Credential`]
//! proves the holder of the key: it has the node's certificate and, for a key made for a generation, a
//! signature over that key with the certificate's key. It travels with the record.
//!
//! When a certificate expires, connections end, but earlier statements stay: a head has no date. But a
//! certificate does not vouch for a generation that begins after its end, and a generation with a renewed
//! certificate does not go back to an older one: see [`claim`](super::claim).

use std::{fmt, sync::Arc};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::{
    id::{ClusterId, Datacenter, Generation, NodeId, Version},
    record::NodeRecord,
    tree::{Hash, Proof},
    wire::{self, fields},
};

/// Most certificates of a chain: a leaf, and intermediates.
pub const CHAIN_MAX: usize = 4;
/// Longest certificate that travels, in bytes of DER.
pub const CERTIFICATE_BYTES_MAX: usize = 4 << 10;
/// Longest signature with a certificate's key, in bytes: RSA of 8192 bits.
pub const CERTIFICATE_SIGNATURE_BYTES_MAX: usize = 1 << 10;

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 64]);

fields!(Signature { 0 });

/// An Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LifeKey(pub [u8; 32]);

fields!(LifeKey { 0 });

/// The signed part of a map, without the fields that are sent beside it anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The map reached up to this version. An update that was cut short does not reach it.
    pub upto: Version,
    /// The version of the record then.
    pub record: Version,
    /// The root of the tree of all entries.
    pub root: Hash,
    /// Over the [`Head`].
    pub signature: Signature,
}

fields!(Seal { upto, record, root, signature });

/// The signature that comes with an update of a node that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The signed head.
    pub seal: Seal,
    /// The credential of the key, if the receiver's record is older than it.
    pub credential: Option<Arc<Credential>>,
    /// If the update was cut short: the proof that it has all entries of these versions.
    pub proof: Proof,
}

fields!(Sealed { seal, credential, proof });

impl Sealed {
    /// An upper bound of its bytes on the wire, except for the proof, which is made last.
    #[must_use]
    pub fn header_len_max(credential: Option<&Credential>) -> usize {
        SEAL_BYTES_MAX + credential.map_or(0, Credential::encoded_len_max)
    }
}

/// Proves the holder of a generation's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The key that signs the heads of this generation.
    pub key: LifeKey,
    /// The node's certificate, then intermediates, in DER.
    pub chain: Vec<Vec<u8>>,
    /// The kind of the signature, by RFC 8446, section 4.2.3; 0 if the key is the certificate's own.
    pub scheme: u16,
    /// With the certificate's key, over [`Credential::statement`]; absent if that key itself signs the heads.
    pub signature: Vec<u8>,
}

fields!(Credential { key, chain, scheme, signature });

/// The statements of a credential's certificate about its node, as far as signatures depend on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Valid from, in seconds since 1970.
    pub not_before: u64,
    /// Valid until, in seconds since 1970.
    pub not_after: u64,
    /// The datacenter of the node; `None` if certificates of this cluster do not name it.
    pub datacenter: Option<Datacenter>,
}

/// All that a signature of an owner vouches for.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The owner.
    pub node: &'a NodeId,
    /// Its generation.
    pub generation: Generation,
    /// The earlier generations that this one continues.
    pub ancestry: &'a [(Generation, Version)],
    /// How far the map reaches.
    pub max_version: Version,
    /// Up to which version tombstones have been dropped.
    pub gc_floor: Version,
    /// The last write that replaced a part of a batch.
    pub torn: Version,
    /// The record and its version.
    pub record: Option<(Version, &'a NodeRecord)>,
    /// The root of the tree of all entries.
    pub root: Hash,
}

impl Head<'_> {
    /// The signed bytes: a hash that no other kind of statement can have.
    #[must_use]
    pub fn digest(&self, cluster: &ClusterId) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key(HEAD_CONTEXT);
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        text(cluster.as_str());
        text(self.node.as_str());
        let mut number = |number: u64| {
            hasher.update(&number.to_le_bytes());
        };
        number(self.generation.0);
        number(self.ancestry.len() as u64);
        for (generation, version) in self.ancestry {
            number(generation.0);
            number(version.0);
        }
        number(self.max_version.0);
        number(self.gc_floor.0);
        number(self.torn.0);
        number(self.record.map_or(0, |(version, _)| version.0));
        hasher.update(&self.root.0);
        if let Some((_, record)) = self.record {
            hasher.update(&wire::to_vec(record));
        }
        Hash(*hasher.finalize().as_bytes())
    }
}

impl Credential {
    /// The bytes that the certificate's key signs: that this key speaks for this generation of this node.
    #[must_use]
    pub fn statement(
        cluster: &ClusterId,
        node: &NodeId,
        generation: Generation,
        key: &LifeKey,
    ) -> Vec<u8> {
        let mut bytes = CREDENTIAL_CONTEXT.to_vec();
        for text in [cluster.as_str(), node.as_str()] {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes.extend(generation.0.to_le_bytes());
        bytes.extend(key.0);
        bytes
    }

    /// Whether it is within its limits; one from the network may not be.
    #[must_use]
    pub fn is_sized(&self) -> bool {
        (1..=CHAIN_MAX).contains(&self.chain.len())
            && self.chain.iter().all(|certificate| certificate.len() <= CERTIFICATE_BYTES_MAX)
            && self.signature.len() <= CERTIFICATE_SIGNATURE_BYTES_MAX
    }

    /// An upper bound of its bytes on the wire.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        let chain: usize = self.chain.iter().map(|certificate| certificate.len() + 3).sum();
        chain + self.signature.len() + 32 + 9
    }
}

/// Signs heads.
pub struct LifeSigner {
    key: LifeKey,
    sign: Box<Sign>,
}

/// Signs a head, if it can.
type Sign = dyn Fn(&Hash) -> Option<Signature> + Send + Sync;

impl LifeSigner {
    /// Makes a key from 32 random bytes, which must stay secret.
    ///
    /// # Errors
    /// [`Unusable`] if they are not a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, Unusable> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Unusable)?;
        let key = pair.public_key().as_ref().try_into().map_err(|_| Unusable)?;
        let sign = move |digest: &Hash| {
            let signature = pair.sign(&digest.0);
            signature.as_ref().try_into().map(Signature).ok()
        };
        Ok(Self::new(LifeKey(key), sign))
    }

    /// A key that is held elsewhere.
    pub fn new(
        key: LifeKey,
        sign: impl Fn(&Hash) -> Option<Signature> + Send + Sync + 'static,
    ) -> Self {
        Self { key, sign: Box::new(sign) }
    }

    /// The key that verifies the signatures.
    #[must_use]
    pub const fn key(&self) -> LifeKey {
        self.key
    }

    /// Signs a head; `None` if the key cannot be used at the moment.
    #[must_use]
    pub fn sign(&self, digest: &Hash) -> Option<Signature> {
        (self.sign)(digest)
    }
}

impl LifeKey {
    /// Whether this is a signature over this.
    #[must_use]
    pub fn verifies(&self, digest: &Hash, signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(&digest.0, &signature.0).is_ok()
    }
}

/// Bytes that do not decode to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no Ed25519 seed")]
pub struct Unusable;

/// The view of the certificates: makes and judges [`Credential`]s.
pub trait Notary: fmt::Debug + Send + Sync {
    /// The cluster.
    fn cluster(&self) -> &ClusterId;

    /// The key that signs a generation of this node, and the credential that proves it.
    ///
    /// # Errors
    /// The reason why there is none.
    fn begin(
        &self,
        node: &NodeId,
        generation: Generation,
    ) -> Result<(LifeSigner, Credential), String>;

    /// A number that changes each time that this node's certificate has changed. Then the key of the present
    /// generation needs a new credential, since the authority of the old certificate may go.
    fn revision(&self) -> u64;

    /// Whether a credential is for this generation of this node, with a certificate that chains to our roots
    /// and is not revoked. It may have expired since.
    ///
    /// # Errors
    /// The reason why it is not.
    fn vet(
        &self,
        node: &NodeId,
        generation: Generation,
        credential: &Credential,
    ) -> Result<(), String>;

    /// The statements of a credential's certificate about its node; `None` if it has none that count. The
    /// credential may be unchecked.
    fn certified(&self, credential: &Credential) -> Option<Certified>;

    /// Whether a node may be accepted by its introduction: a head that is signed with the key of a
    /// credential, and that credential. An implementation may cache the result. Returns the credential, or an
    /// equal one that is here already.
    ///
    /// # Errors
    /// [`Objection`].
    fn introduce(
        &self,
        node: &NodeId,
        generation: Generation,
        credential: &Arc<Credential>,
        head: (&Hash, &Signature),
    ) -> Result<Arc<Credential>, Objection> {
        if !credential.key.verifies(head.0, head.1) {
            return Err(Objection::Signature);
        }
        let vetted = credential.is_sized() && self.vet(node, generation, credential).is_ok();
        if vetted { Ok(Arc::clone(credential)) } else { Err(Objection::Credential) }
    }
}

/// The reason why an introduction is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objection {
    /// The head is not signed with that key.
    Signature,
    /// The credential is for another node.
    Credential,
}

/// How a node uses signatures: these let a cluster move from unsigned to signed, a node at a time.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Signing {
    /// Signs nothing; verifies the signatures of others.
    Off,
    /// Signs its own state; accepts unsigned state of others.
    Prefer,
    /// Signs its own state; refuses unsigned state of others.
    #[default]
    Require,
}

/// What a replica uses to sign and verify.
#[derive(Clone, Debug)]
pub struct Seals {
    /// The view of the certificates.
    pub notary: Arc<dyn Notary>,
    /// The requirement on others.
    pub signing: Signing,
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LifeSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LifeSigner").field("key", &self.key()).finish_non_exhaustive()
    }
}

/// Two versions (18), two options (2), root and signature.
const SEAL_BYTES_MAX: usize = 20 + 32 + 64;
/// The prefixes of the two kinds of statements.
const HEAD_CONTEXT: &str = "gossipmonger 1 signed head of a node's map";
const CREDENTIAL_CONTEXT: &[u8] = b"gossipmonger 1 key of a life\0";
