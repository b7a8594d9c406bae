//! The name that a certificate proves.
//!
//! A name is exactly one URI, `spiffe://<cluster>/<datacenter>/<node>`: neither the subject nor a
//! DNS name is ever read as an identity.

use std::fmt;

use crate::{
    foreign::is_unsafe,
    protocol::id::{ClusterId, Datacenter, NodeId},
};

/// The name of a certificate's holder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerName {
    /// The cluster; the trust domain in SPIFFE's words.
    pub cluster: ClusterId,
    /// The datacenter the node runs in.
    pub datacenter: Datacenter,
    /// The node, unique in the cluster.
    pub node: NodeId,
}

impl PeerName {
    /// The name as the URI that a certificate carries.
    #[must_use]
    pub fn to_uri(&self) -> String {
        format!("{SCHEME}{}/{}/{}", self.cluster, self.datacenter, self.node)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_uri())
    }
}

/// A certificate does not contain exactly one usable name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not an X.509 certificate, or one that contradicts itself.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// No URI among the subject alternative names.
    #[error("the certificate has no URI name; {WANTED}")]
    NoUri,
    /// More than one URI among the subject alternative names.
    #[error("the certificate has {0} URI names; {WANTED}")]
    SeveralUris(usize),
    /// The one URI is not a name of the kind that is needed.
    #[error(
        "the certificate's URI name {uri:?} is not a {of}'s name: {why}; it needs one as {wanted}"
    )]
    BadUri {
        /// The start of the URI.
        uri: String,
        /// The kind of name that is needed: `node` or `client`.
        of: &'static str,
        /// What is wrong with it.
        why: String,
        /// The form that is needed.
        wanted: String,
    },
    /// The connection has no certificate of the peer: its handshake is not complete.
    #[error("the peer has shown no certificate (yet)")]
    NoCertificate,
}

/// The start of a foreign text, so that an error message stays one line.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !is_unsafe(*c)).take(URI_SHOWN_MAX).collect()
}

pub(super) const SCHEME: &str = "spiffe://";
const WANTED: &str = "it needs exactly one, spiffe://<cluster>/<datacenter>/<node>";
/// Three labels of the longest length, the scheme and two slashes are 200 characters.
const URI_SHOWN_MAX: usize = 200;
