//! The client that a certificate proves, and its role.

use std::fmt;

use rustls::pki_types::CertificateDer;

use super::{
    certificate::only_uri,
    identity::Identity,
    name::shown,
    naming::Naming,
    refusal::{Refusal, Rejection},
    revoked,
    role::{ClientName, ClientRoles, Role},
};
use crate::protocol::{
    id::{ClientId, NodeId},
    revocation::Revocations,
};

/// A client with a proved name, and its role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Client {
    /// The one URI of its certificate, at most 200 characters of it, without control characters.
    pub name: String,
    /// The last part of that URI, if it is a client's URI of this cluster.
    pub id: Option<ClientId>,
    /// Its role.
    pub role: Role,
}

impl Client {
    /// The holder of this certificate, for a node with the identity `ours`. It proves nothing unless the
    /// chain was verified.
    pub(super) fn identify(
        leaf: &CertificateDer<'_>,
        ours: &Identity,
        roles: &ClientRoles,
        revoked: &Revocations,
    ) -> Result<Self, Refusal> {
        let refused = |reason, error: &dyn fmt::Display| Refusal::by_us(reason, error.to_string());
        let (cluster, uri) = (&ours.name().cluster, only_uri(leaf));
        let uri = uri.map_err(|e| refused(Rejection::NoName, &e))?;
        if let Some(label) = revoked_by(&uri, ours.naming()) {
            revoked::check(&label, leaf, revoked)?;
        }
        let (name, own) = (shown(&uri), ClientName::from_uri(&uri));
        if let Some(role) = roles.get(&uri) {
            let id = own.ok().filter(|own| own.cluster == *cluster).map(|own| own.client);
            return Ok(Self { name, id, role });
        }
        let client = own.map_err(|_| refused(Rejection::NoRole, &format!("it is {name}")))?;
        if client.cluster != *cluster {
            let detail = format!("it is {name}, our cluster is {cluster}");
            return Err(Refusal::by_us(Rejection::WrongCluster, detail));
        }
        Ok(Self { name, id: Some(client.client), role: client.role })
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

/// The name under which the certificates of a URI are revoked: a node's or a client's own. Nodes and
/// clients of one name are revoked together. A holder with neither name can only lose its role.
pub(crate) fn revoked_by(uri: &str, naming: &Naming) -> Option<NodeId> {
    match naming.read(uri) {
        Ok(name) => Some(name.node),
        Err(_) => NodeId::new(ClientName::from_uri(uri).ok()?.client.as_str()).ok(),
    }
}
