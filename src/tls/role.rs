//! Clients, which may send requests to a node without being one, and the role of each.
//!
//! A client's certificate has one URI, `spiffe://<cluster>/client/<role>/<name>`: four parts where a
//! node's has three, so neither is ever read as the other. For a PKI that cannot make such URIs a
//! map gives roles to URIs of any form. The rights of a role are decided by the handler of requests,
//! not here.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::name::{NameError, SCHEME, shown};
use crate::protocol::id::{ClientId, ClusterId};

/// The maximum rights of a client. Each role includes those before it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Read what a node knows now.
    Read,
    /// Receive changes as well, as long as it is connected.
    Watch,
    /// Change keys, tags, members, or the node itself.
    Admin,
}

impl Role {
    /// All of them, the least first.
    #[doc(hidden)]
    pub const ALL: [Self; 3] = [Self::Read, Self::Watch, Self::Admin];

    /// Its name in URIs, files and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Watch => "watch",
            Self::Admin => "admin",
        }
    }

    /// Whether this role suffices where that one is required.
    #[must_use]
    pub fn permits(self, needed: Self) -> bool {
        self >= needed
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| UnknownRole(shown(text)))
    }
}

/// No such role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role: there are read, watch and admin")]
pub struct UnknownRole(String);

/// The name of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientName {
    /// The cluster; the trust domain in SPIFFE's words.
    pub cluster: ClusterId,
    /// Its role.
    pub role: Role,
    /// The person or program.
    pub client: ClientId,
}

impl ClientName {
    /// Reads a URI of the form `spiffe://<cluster>/client/<role>/<name>`.
    ///
    /// # Errors
    /// [`NameError::BadUri`], which names the URI and what is wrong with it.
    pub fn from_uri(uri: &str) -> Result<Self, NameError> {
        let bad = |why: &dyn fmt::Display| NameError::BadUri {
            uri: shown(uri),
            of: "client",
            why: why.to_string(),
            wanted: format!("{SCHEME}<cluster>/{CLIENT}/<role>/<name>"),
        };
        let path =
            uri.strip_prefix(SCHEME).ok_or_else(|| bad(&"it does not begin with spiffe://"))?;
        let parts: Vec<&str> = path.splitn(5, '/').collect();
        let [cluster, CLIENT, role, client] = parts[..] else {
            return Err(bad(&"it does not have the parts cluster, \"client\", role and name"));
        };
        Ok(Self {
            cluster: ClusterId::new(cluster).map_err(|e| bad(&e))?,
            role: role.parse().map_err(|e: UnknownRole| bad(&e))?,
            client: ClientId::new(client).map_err(|e| bad(&e))?,
        })
    }

    /// The name as the URI that a certificate carries.
    #[must_use]
    pub fn to_uri(&self) -> String {
        format!("{SCHEME}{}/{CLIENT}/{}/{}", self.cluster, self.role, self.client)
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_uri())
    }
}

/// The roles of certificates that contain none: by their one URI, compared exactly. An entry here
/// takes precedence over the role in the URI itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientRoles(BTreeMap<String, Role>);

impl ClientRoles {
    /// The role of this URI.
    #[must_use]
    #[doc(hidden)]
    pub fn get(&self, uri: &str) -> Option<Role> {
        self.0.get(uri).copied()
    }
}

impl FromIterator<(String, Role)> for ClientRoles {
    fn from_iter<I: IntoIterator<Item = (String, Role)>>(roles: I) -> Self {
        Self(roles.into_iter().collect())
    }
}

/// The part of a client's URI in the place of a node's datacenter.
const CLIENT: &str = "client";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::PeerName;

    #[test]
    fn refuses_uris_that_are_not_a_clients_name() {
        for bad in [
            "",
            "spiffe://demo/eu/a",
            "spiffe://demo/client/admin",
            "spiffe://demo/client/admin/",
            "spiffe://demo/client//alice",
            "spiffe://demo/client/root/alice",
            "spiffe://demo/client/Admin/alice",
            "spiffe://demo/client/admin/alice/b",
            "spiffe://demo/clients/admin/alice",
            "spiffe://demo/Client/admin/alice",
            "spiffe:///client/admin/alice",
            "spiffe://demo/client/admin/Alice",
            "spiffe://demo/client/admin/%61",
            "https://demo/client/admin/alice",
        ] {
            let error = ClientName::from_uri(bad).unwrap_err();
            assert!(matches!(error, NameError::BadUri { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn no_uri_is_both_a_nodes_and_a_clients() {
        let client = "spiffe://demo/client/admin/alice";
        assert_eq!(ClientName::from_uri(client).unwrap().to_uri(), client);
        assert!(PeerName::from_uri(client).is_err());
        // The name of a node in a datacenter called so.
        let node = "spiffe://demo/client/admin";
        assert!(PeerName::from_uri(node).is_ok() && ClientName::from_uri(node).is_err());
    }

    #[test]
    fn each_role_includes_those_before_it() {
        for (have, permitted) in [(Role::Read, 1), (Role::Watch, 2), (Role::Admin, 3)] {
            let permits = Role::ALL.map(|needed| have.permits(needed));
            assert_eq!(permits.iter().filter(|permits| **permits).count(), permitted);
            assert!(permits[0]);
            assert_eq!(have.as_str().parse(), Ok(have));
        }
        let error = "root".parse::<Role>().unwrap_err().to_string();
        assert_eq!(error, "\"root\" is no role: there are read, watch and admin");
    }
}
