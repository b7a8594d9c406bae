//! A certificate authority, nodes with its certificates, and waiting for a state to come.

use std::time::Duration;

use gossipmonger::{
    ClusterId, Config, Datacenter, Gossipmonger, NodeId,
    protocol::seal::Signing,
    tls::{Authority, AuthorityOptions, Identity, Roots},
};

/// How long a state may take to come; it usually takes a fraction.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    pub(crate) authority: Authority,
    /// What its nodes ask of each other.
    pub(crate) signing: Signing,
}

impl Cluster {
    pub(crate) fn new(name: &str) -> Self {
        let cluster = ClusterId::new(name).unwrap();
        let authority = Authority::create(cluster, &AuthorityOptions::default()).unwrap();
        Self { authority, signing: Signing::default() }
    }

    pub(crate) fn identity(&self, node: &str) -> (Identity, Roots) {
        self.identity_in("dc1", node)
    }

    pub(crate) fn identity_in(&self, datacenter: &str, node: &str) -> (Identity, Roots) {
        let (node, datacenter) = (id(node), Datacenter::new(datacenter).unwrap());
        let issued = self.authority.issue(node, datacenter, Duration::from_secs(3_600)).unwrap();
        let key = issued.key_pem.as_bytes();
        let identity = Identity::from_pem(issued.certificate_pem.as_bytes(), key).unwrap();
        (identity, Roots::from_pem(issued.roots_pem.as_bytes()).unwrap())
    }

    /// A configuration of 100 ms rounds.
    pub(crate) fn config(&self, node: &str) -> Config {
        let (identity, roots) = self.identity(node);
        let mut config = Config::new(identity, roots).unwrap().local();
        config.gossip_interval = Duration::from_millis(100);
        config.signing = self.signing;
        config
    }

    pub(crate) async fn spawn(&self, node: &str, seeds: &[&Gossipmonger]) -> Gossipmonger {
        let mut config = self.config(node);
        config.seeds = seeds.iter().flat_map(|seed| seed.addresses().to_vec()).collect();
        Gossipmonger::spawn(config).await.unwrap().0
    }

    /// Nodes `n0`, `n1`, ...: the first is the seed of the others.
    pub(crate) async fn spawn_many(&self, count: usize) -> Vec<Gossipmonger> {
        let mut nodes = vec![self.spawn("n0", &[]).await];
        for n in 1..count {
            nodes.push(self.spawn(&format!("n{n}"), &[&nodes[0]]).await);
        }
        nodes
    }
}

pub(crate) fn id(node: &str) -> NodeId {
    NodeId::new(node).unwrap()
}

/// Waits until `holds` holds; looks again whenever something may have changed.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {PATIENCE:?}: {what}");
}

/// Waits until everybody lists everybody as live.
pub(crate) async fn all_live(nodes: &[Gossipmonger]) {
    until("everybody sees everybody live", || {
        nodes.iter().all(|node| node.live_peers().len() + 1 == nodes.len())
    })
    .await;
}
