//! An outage between two nodes that a third one hears all the time.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::net::UdpSocket;

use crate::harness::{Cluster, PATIENCE, all_live, until};
use crate::start::spawn;

// C68
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_waited_through_an_outage_is_replaced() {
    let cluster = Cluster::new("demo");
    let c = cluster.spawn("c", &[]).await;
    let (mut nodes, mut ways) = (Vec::new(), Vec::new());
    for name in ["a", "b"] {
        let mut config = cluster.config(name);
        config.listen = vec![free_address()];
        let way = Way::new(config.listen[0]).await;
        config.advertise = vec![way.address.clone()];
        config.seeds = c.addresses().to_vec();
        let node = spawn(config).await.unwrap().0;
        nodes.push(node);
        ways.push(way);
    }
    let (a, b) = (nodes[0].clone(), nodes[1].clone());
    nodes.push(c.clone());
    all_live(&nodes).await;
    let count = |counter: &str| [&a, &b].map(|node| node.counters().all()[counter]);
    let met = || {
        let (dialed, accepted) = (count("connections_dialed"), count("connections_accepted"));
        dialed.iter().chain(&accepted).sum::<u64>()
    };
    // One connection of each with c, and one between them that both count.
    until("a and b are neighbours", || met() >= 4).await;
    for outage in 1.. {
        let renewed = count("connections_renewed");
        // One of the two ways leads to the other, whichever node has dialed.
        ways[0].cut(ways[1].there);
        ways[1].cut(ways[0].there);
        let renews = || count("connections_renewed") != renewed;
        until("its silence is told from its death", renews).await;
        let before = met();
        ways.iter().for_each(Way::heal);
        // On a busy machine the silence may have been that of `c`.
        let replaced = tokio::time::timeout(PATIENCE / 3, async {
            until("there is another connection", || met() >= before + 2).await;
        });
        if replaced.await.is_ok() {
            break;
        }
        assert!(outage < 5, "no connection is replaced");
    }
    all_live(&nodes).await;
    for node in nodes {
        node.shutdown().await;
    }
}

/// Whoever else may take it meanwhile, the system does not offer it to.
fn free_address() -> SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Whom nothing comes from or goes to, if anybody.
type Cut = Arc<Mutex<Option<SocketAddr>>>;

/// The way to one node, which can be cut for one of those that take it.
struct Way {
    address: String,
    there: SocketAddr,
    cut: Cut,
}

impl Way {
    async fn new(there: SocketAddr) -> Self {
        let outer = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = outer.local_addr().unwrap().to_string();
        let cut = Cut::default();
        tokio::spawn(pass_on(outer, there, Arc::clone(&cut)));
        Self { address, there, cut }
    }

    fn cut(&self, from: SocketAddr) {
        *self.cut.lock().unwrap() = Some(from);
    }

    fn heal(&self) {
        *self.cut.lock().unwrap() = None;
    }
}

async fn pass_on(outer: Arc<UdpSocket>, there: SocketAddr, cut: Cut) {
    let mut inner = BTreeMap::<SocketAddr, Arc<UdpSocket>>::new();
    let mut datagram = vec![0; 65_536];
    loop {
        let Ok((len, from)) = outer.recv_from(&mut datagram).await else { continue };
        if let Entry::Vacant(new) = inner.entry(from) {
            let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            socket.connect(there).await.unwrap();
            let (outer, back) = (Arc::clone(&outer), Arc::clone(&socket));
            tokio::spawn(pass_back(outer, back, from, Arc::clone(&cut)));
            new.insert(socket);
        }
        let lost = *cut.lock().unwrap() == Some(from);
        if !lost {
            // What cannot be delivered is lost as well, as datagrams are.
            let _ = inner[&from].send(&datagram[..len]).await;
        }
    }
}

async fn pass_back(outer: Arc<UdpSocket>, inner: Arc<UdpSocket>, to: SocketAddr, cut: Cut) {
    let mut datagram = vec![0; 65_536];
    loop {
        let Ok(len) = inner.recv(&mut datagram).await else { continue };
        let lost = *cut.lock().unwrap() == Some(to);
        if !lost {
            let _ = outer.send_to(&datagram[..len], to).await;
        }
    }
}
