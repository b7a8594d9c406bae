//! Joining, leaving, dying, coming back, and who never comes together.

use std::net::UdpSocket;

use gossipmonger::{Event, Gossipmonger, PeerState, Problem};

use crate::harness::{Cluster, all_live, id, until};
use crate::start::Start;

// C55 C92
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_of_different_names_or_authorities_never_merge() {
    // The third has the name of the first, and another authority.
    let clusters = ["one", "two", "one"].map(Cluster::new);
    let mut pairs = Vec::new();
    for (cluster, names) in clusters.iter().zip([["a", "b"], ["c", "d"], ["e", "f"]]) {
        let first = cluster.spawn(names[0], &[]).await;
        let earlier: Vec<&Gossipmonger> = pairs.iter().flatten().chain([&first]).collect();
        let second = cluster.spawn(names[1], &earlier).await;
        pairs.push(vec![first, second]);
    }
    for pair in &pairs {
        pair[0].set("mine", "1").await.unwrap();
        all_live(pair).await;
        let (owner, other) = (pair[0].node(), &pair[1]);
        until("the pair shares its keys", || other.get(owner, "mine").is_some()).await;
    }
    // Who dials a stranger is refused, and so is who is dialed.
    for node in [&pairs[1][1], &pairs[2][1], &pairs[0][0]] {
        until("the refusal is counted", || !node.counters().refusals().is_empty()).await;
        println!("{}: {:?}", node.node(), node.counters().refusals());
    }
    for node in pairs.iter().flatten() {
        assert_eq!(node.peers().len(), 1, "{} has taken a stranger in", node.node());
        node.shutdown().await;
    }
}

// C37 C42
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_join_through_one_seed() {
    let cluster = Cluster::new("demo");
    let mut nodes = vec![cluster.spawn("seed", &[]).await];
    for n in 0..9 {
        // One after another.
        nodes.push(cluster.spawn(&format!("a{n}"), &[&nodes[0]]).await);
    }
    all_live(&nodes).await;
    let mut joining = tokio::task::JoinSet::new();
    for n in 0..10 {
        let mut config = cluster.config(&format!("b{n}"));
        config.seeds = nodes[0].addresses().to_vec();
        joining.spawn(async move { crate::start::spawn(config).await.unwrap().0 });
    }
    nodes.extend(joining.join_all().await);
    all_live(&nodes).await;
    let leaver = nodes.pop().unwrap();
    assert_eq!(leaver.decommission().await.unwrap(), 3, "peers that acknowledged");
    until("everybody knows that it has left", || {
        nodes.iter().all(|node| {
            node.snapshot().member(leaver.node()).is_some_and(|m| m.state == PeerState::Left)
        })
    })
    .await;
    assert!(nodes.iter().all(|node| node.dead_peers().is_empty()));
    end(&nodes).await;
}

// C38 C39 C40
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeds_of_each_other_start_in_any_order() {
    let cluster = Cluster::new("demo");
    // Bound, and never answers.
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ports = free_ports(4);
    let mut seeds = vec![mute.local_addr().unwrap().to_string()];
    seeds.extend(ports.iter().map(|port| format!("localhost:{port}")));
    let config = |n: usize| {
        let mut config = cluster.config(&format!("n{n}"));
        config.listen = vec![format!("127.0.0.1:{}", ports[n]).parse().unwrap()];
        config.quic.handshake_timeout = std::time::Duration::from_millis(500);
        config.seeds = seeds.clone();
        config
    };
    let mut starting = tokio::task::JoinSet::new();
    for n in [2, 0, 3, 1] {
        let config = config(n);
        starting.spawn(async move { crate::start::spawn(config).await.unwrap().0 });
    }
    let nodes = starting.join_all().await;
    all_live(&nodes).await;
    for node in &nodes {
        assert!(!node.counters().refusals().contains_key("ourselves"));
        assert!(node.peers().iter().all(|peer| peer.node != *node.node()));
    }
    end(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_both_families_is_reached_over_either() {
    if UdpSocket::bind("[::1]:0").is_err() {
        println!("no IPv6 on this machine");
        return;
    }
    let cluster = Cluster::new("demo");
    let listening = |name: &str, on: &[&str]| {
        let mut config = cluster.config(name);
        config.listen = on.iter().map(|address| address.parse().unwrap()).collect();
        config
    };
    let spawn = |config: Start| async { crate::start::spawn(config).await.unwrap().0 };
    let both = spawn(listening("both", &["127.0.0.1:0", "[::1]:0"])).await;
    assert_eq!(both.addresses().len(), 2);
    let mut six = listening("six", &["[::1]:0"]);
    six.seeds = vec![both.addresses()[1].clone()];
    let six = spawn(six).await;
    let mut four = listening("four", &["127.0.0.1:0"]);
    four.seeds = vec![both.addresses()[0].clone()];
    let four = spawn(four).await;
    six.set("k", "6").await.unwrap();
    until("it sees both", || both.live_peers().len() == 2).await;
    // And carries the one's keys to the other.
    until("four has it", || four.get(six.node(), "k").is_some()).await;
    end(&[both, six, four]).await;
}

// C50
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_with_one_name_one_is_displaced() {
    let cluster = Cluster::new("demo");
    let seed = cluster.spawn("seed", &[]).await;
    let first = cluster.spawn("twin", &[&seed]).await;
    all_live(&[seed.clone(), first.clone()]).await;
    let mut told_first = first.subscribe();
    let second = cluster.spawn("twin", &[&seed]).await;
    let mut told_second = second.subscribe();
    let (ended, stays, problem) = tokio::select! {
        problem = first.ended() => (&first, &second, problem),
        problem = second.ended() => (&second, &first, problem),
    };
    assert!(matches!(problem, Some(Problem::Displaced { .. })), "{problem:?}");
    for told in [&mut told_first, &mut told_second] {
        loop {
            let event = told.next().await.expect("an operator is not told");
            if matches!(event, Event::Error(Problem::NameConflict { .. })) {
                break;
            }
        }
    }
    stays.set("who", "stays").await.unwrap();
    until("the seed hears the one that stays", || seed.get(&id("twin"), "who").is_some()).await;
    assert!(stays.cell().get_status() != ractor::ActorStatus::Stopped);
    let refused = ended.set("k", "v").await.unwrap_err().to_string();
    assert!(refused.contains("displaced"), "{refused}");
    end(&[seed, stays.clone()]).await;
}

pub(crate) async fn end(nodes: &[Gossipmonger]) {
    for node in nodes {
        node.shutdown().await;
    }
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let bound: Vec<_> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    bound.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
}
