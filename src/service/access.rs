//! Who may call a service.

use std::collections::BTreeSet;

use super::Caller;
use crate::{
    protocol::{
        id::{Datacenter, NodeId},
        service::{
            balance::NodeSet,
            clients::{Clients, Rank, Viewer, name_hash},
        },
    },
    tls::{Client, Role},
};

/// Who may call a service, or one of its methods. It rests on what a certificate proves, never on what a node says of
/// itself. There is no default: each offer states it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    members: bool,
    datacenters: BTreeSet<Datacenter>,
    nodes: BTreeSet<NodeId>,
    clients: BTreeSet<String>,
    role: Option<Role>,
}

impl Access {
    /// No caller.
    #[must_use]
    pub fn nobody() -> Self {
        Self::default()
    }

    /// All members of the cluster.
    #[must_use]
    pub fn members() -> Self {
        Self { members: true, ..Self::default() }
    }

    /// The members of a datacenter, if the certificates of this cluster name it.
    #[must_use]
    pub fn datacenter(datacenter: Datacenter) -> Self {
        Self { datacenters: BTreeSet::from([datacenter]), ..Self::default() }
    }

    /// One member.
    #[must_use]
    pub fn node(node: NodeId) -> Self {
        Self { nodes: BTreeSet::from([node]), ..Self::default() }
    }

    /// These members.
    #[must_use]
    pub fn nodes(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Self { nodes: nodes.into_iter().collect(), ..Self::default() }
    }

    /// The client of this name: the whole URI of its certificate, or `till` for `spiffe://<cluster>/client/<role>/till`
    /// with any role.
    #[must_use]
    pub fn client(name: impl Into<String>) -> Self {
        Self { clients: BTreeSet::from([name.into()]), ..Self::default() }
    }

    /// All clients whose role permits this one.
    #[must_use]
    pub fn clients(role: Role) -> Self {
        Self { role: Some(role), ..Self::default() }
    }

    /// These callers and those.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.members |= other.members;
        self.datacenters.extend(other.datacenters);
        self.nodes.extend(other.nodes);
        self.clients.extend(other.clients);
        self.role = match (self.role, other.role) {
            (Some(one), Some(another)) if another.permits(one) => Some(one),
            (one, another) => another.or(one),
        };
        self
    }

    /// Whether a caller is one of them.
    #[must_use]
    pub fn permits(&self, caller: &Caller) -> bool {
        match caller {
            Caller::Node { node, datacenter, .. } => {
                self.members
                    || self.nodes.contains(node)
                    || datacenter.as_ref().is_some_and(|proved| self.datacenters.contains(proved))
            }
            Caller::Client(client) => {
                names(client).any(|name| self.clients.contains(name))
                    || self.role.is_some_and(|role| client.role.permits(role))
            }
        }
    }

    /// The nodes among them.
    pub(super) fn nodes_among(self) -> NodeSet {
        NodeSet::new(self.members, self.nodes, self.datacenters)
    }

    /// The clients among them, as the node publishes them.
    pub(super) fn admitted(&self) -> Clients {
        Clients::new(self.role.map(rank), self.clients.iter().map(|name| name_hash(name)))
    }
}

/// A client, as the offers of other nodes judge it.
pub(super) fn viewer(client: &Client) -> Viewer {
    Viewer::new(rank(client.role), names(client).map(name_hash))
}

/// The names by which an offer may name a client.
fn names(client: &Client) -> impl Iterator<Item = &str> {
    std::iter::once(client.name.as_str()).chain(client.id.as_ref().map(|id| id.as_str()))
}

const fn rank(role: Role) -> Rank {
    match role {
        Role::Read => Rank::Read,
        Role::Watch => Rank::Watch,
        Role::Admin => Rank::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::{ClientId, Generation};

    fn member(name: &str, datacenter: Option<&str>) -> Caller {
        Caller::Node {
            node: NodeId::new(name).unwrap(),
            datacenter: datacenter.map(|name| Datacenter::new(name).unwrap()),
            generation: Generation(1),
        }
    }

    /// The holder of a certificate of this cluster, as a node of cluster `demo` knows it.
    fn client(cluster: &str, name: &str, role: Role) -> Client {
        let id = (cluster == "demo").then(|| ClientId::new(name).unwrap());
        Client { name: format!("spiffe://{cluster}/client/{role}/{name}"), id, role }
    }

    #[test]
    fn what_others_show_a_client_is_what_it_may_call() {
        let uri = "spiffe://other/client/read/till";
        let accesses = [
            Access::members(),
            Access::client("till"),
            Access::client(uri),
            Access::clients(Role::Read),
            Access::clients(Role::Watch).and(Access::client("till")),
            Access::clients(Role::Admin),
        ];
        for client in [
            client("demo", "till", Role::Read),
            client("demo", "shop", Role::Watch),
            client("demo", "shop", Role::Admin),
            client("other", "till", Role::Read),
        ] {
            for access in &accesses {
                let permits = access.permits(&Caller::Client(client.clone()));
                assert_eq!(
                    access.admitted().admits(&viewer(&client)),
                    permits,
                    "{client} {access:?}"
                );
            }
        }
    }

    #[test]
    fn a_client_of_another_cluster_has_no_short_name_here() {
        let foreign = Caller::Client(client("other", "till", Role::Admin));
        assert!(!Access::client("till").permits(&foreign));
        assert!(Access::client("spiffe://other/client/admin/till").permits(&foreign));
    }

    #[test]
    fn nobody_is_permitted_unless_stated() {
        let eu = Datacenter::new("eu").unwrap();
        for access in [Access::nobody(), Access::client("till"), Access::datacenter(eu.clone())] {
            assert!(!access.permits(&member("a", None)), "{access:?}");
        }
        assert!(!Access::datacenter(eu.clone()).permits(&member("a", Some("us"))));
        assert!(Access::datacenter(eu).permits(&member("a", Some("eu"))));
        let only = Access::nodes([NodeId::new("a").unwrap()]);
        assert_eq!(
            [only.permits(&member("a", None)), only.permits(&member("b", None))],
            [true, false]
        );
    }

    #[test]
    fn members_are_no_clients_and_clients_no_members() {
        let client = |role| Caller::Client(client("demo", "till", role));
        assert!(!Access::members().permits(&client(Role::Admin)));
        assert!(!Access::clients(Role::Read).permits(&member("a", None)));
        assert!(Access::client("till").permits(&client(Role::Read)));
        let watchers = Access::clients(Role::Watch);
        assert_eq!(watchers.permits(&client(Role::Read)), Role::Read.permits(Role::Watch));
        assert!(watchers.permits(&client(Role::Admin)));
    }

    #[test]
    fn joining_two_permits_the_callers_of_both() {
        let both = Access::members().and(Access::client("till"));
        assert!(both.permits(&member("a", None)) && !both.admitted().is_none());
        let roles = Access::clients(Role::Admin).and(Access::clients(Role::Read));
        assert_eq!(roles.role, Some(Role::Read));
    }
}
