//! What an issuer asks and tells the node that it runs in.

use std::{fmt, net::SocketAddr};

use crate::{foreign::Foreign, protocol::id::NodeId, tls::PeerName};

/// What an issuer has to know of the cluster it issues for, and whom it tells what it does.
pub trait Cluster: fmt::Debug + Send + Sync + 'static {
    /// Whether a node of this name is in the cluster, and neither dead nor gone.
    fn lives(&self, node: &NodeId) -> bool;
    /// The UDP port where this node gossips.
    fn gossip_port(&self) -> u16;
    /// The authorities that are trusted here now, PEM; the issuer's own need not be among them.
    fn roots_pem(&self) -> String;
    /// The doors (`host:port`) of other issuers that this node knows.
    fn issuers(&self) -> Vec<String>;
    /// A visitor was refused; the label is for a counter. The detail may quote the visitor.
    fn refused(&self, source: SocketAddr, label: &'static str, detail: &Foreign);
    /// A certificate was given to this node, for a token or for its certificate before.
    fn granted(&self, source: SocketAddr, name: &PeerName, renewal: bool);
}
