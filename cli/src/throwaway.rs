//! A cluster that exists only in this process: its CA is never written to a disk.

use std::sync::Arc;

use gossipmonger::{
    Config,
    net::quic::QuicNetwork,
    pki::{Authority, AuthorityOptions, Issued},
    protocol::id::{ClusterId, Datacenter, NodeId},
    tls::{Identity, Roots},
    unstable::LEAF_VALIDITY_AUTOMATED,
};

use super::error::CliError;

/// The CA of such a cluster.
#[derive(Debug)]
pub(crate) struct Throwaway {
    authority: Authority,
    roots: Roots,
}

/// A node's name, certificate and key.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    issued: Issued,
    roots: Roots,
}

impl Throwaway {
    /// Makes a new CA.
    pub(crate) fn new(cluster: &str) -> Result<Self, CliError> {
        let cluster = ClusterId::new(cluster).map_err(CliError::failed)?;
        let authority =
            Authority::create(cluster, &AuthorityOptions::default()).map_err(CliError::failed)?;
        let roots = Roots::from_pem(authority.certificate_pem().as_bytes());
        Ok(Self { authority, roots: roots.map_err(CliError::failed)? })
    }

    /// Issues a node's certificate.
    pub(crate) fn issue(&self, node: &str, datacenter: &str) -> Result<Credentials, CliError> {
        let node = NodeId::new(node).map_err(CliError::failed)?;
        let datacenter = Datacenter::new(datacenter).map_err(CliError::failed)?;
        let issued = self.authority.issue(node, datacenter, LEAF_VALIDITY_AUTOMATED);
        Ok(Credentials { issued: issued.map_err(CliError::failed)?, roots: self.roots.clone() })
    }
}

impl Credentials {
    /// The default configuration of this node, on loopback, and its network, which can silence the node.
    pub(crate) fn config(&self) -> Result<(Config, Arc<QuicNetwork>), CliError> {
        let identity = self.identity()?;
        let config = Config::new(identity.name());
        let transport = QuicNetwork::new(identity, self.roots.clone());
        let transport = Arc::new(transport.map_err(CliError::failed)?);
        Ok((config, transport))
    }

    /// The node's own identity, and the CAs that it trusts.
    pub(crate) fn parts(&self) -> Result<(Identity, Roots), CliError> {
        Ok((self.identity()?, self.roots.clone()))
    }

    fn identity(&self) -> Result<Identity, CliError> {
        let (certificate, key) = (&self.issued.certificate_pem, &self.issued.key_pem);
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).map_err(CliError::failed)
    }
}
