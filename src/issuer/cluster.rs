//! The interface between an issuer and its node.

use std::{fmt, net::SocketAddr};

use crate::{foreign::Foreign, protocol::id::NodeId, tls::PeerName};

/// What an issuer has to know of its cluster, and where it reports what it does.
pub trait Cluster: fmt::Debug + Send + Sync + 'static {
    /// Whether a node of this name is in the cluster, and neither dead nor gone.
    fn lives(&self, node: &NodeId) -> bool;
    /// The UDP port where this node gossips.
    fn gossip_port(&self) -> u16;
    /// The authorities trusted here now, PEM; the issuer's own may be missing among them.
    fn roots_pem(&self) -> String;
    /// The addresses (`host:port`) of other issuers that this node knows.
    fn issuers(&self) -> Vec<String>;
    /// A client was refused; the label is for a counter. The detail may quote the client.
    fn refused(&self, source: SocketAddr, label: &'static str, detail: &Foreign);
    /// A certificate was issued to this node, for a token or for its previous certificate.
    fn granted(&self, source: SocketAddr, name: &PeerName, renewal: bool);
}
