//! Certificates that end and are replaced while nodes run, over real QUIC.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use gossipmonger::{
    ClusterId, Datacenter, Event, Gossipmonger,
    net::quic::QuicNetwork,
    pki::{Authority, AuthorityOptions, LeafOptions},
    protocol::route::Counter,
    subscription::SubscriptionError,
    tls::{Identity, PeerName, Roots},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
};
use tokio::task::JoinHandle;

use crate::start::Start;
use crate::{
    harness::{all_live, id, until},
    membership::end,
};

/// A node whose certificate can be replaced.
struct Renewable {
    name: &'static str,
    node: Gossipmonger,
    transport: Arc<QuicNetwork>,
}

impl Renewable {
    async fn spawn(
        authority: &Authority,
        name: &'static str,
        validity: Duration,
        seeds: &[&Self],
    ) -> Self {
        Self::spawn_as(name, identity(authority, name, validity), roots(&[authority]), seeds).await
    }

    async fn spawn_as(
        name: &'static str,
        identity: Identity,
        roots: Roots,
        seeds: &[&Self],
    ) -> Self {
        let transport = Arc::new(QuicNetwork::new(identity, roots).unwrap());
        let mut config = Start::quic(Arc::clone(&transport)).local();
        config.gossip_interval = Duration::from_millis(100);
        config.event_queue = 1 << 16;
        config.seeds = seeds.iter().flat_map(|seed| seed.node.addresses().to_vec()).collect();
        let (node, _) = crate::start::spawn(config).await.unwrap();
        Self { name, node, transport }
    }

    fn take(&self, issuer: &Authority, validity: Duration, trusts: &[&Authority]) {
        self.transport.reload(identity(issuer, self.name, validity), roots(trusts)).unwrap();
    }

    /// Shows what it has shown before, and trusts these.
    fn trust(&self, trusts: &[&Authority]) {
        self.transport.reload(self.transport.identity(), roots(trusts)).unwrap();
    }

    fn count(&self, counter: Counter) -> u64 {
        self.node.counters().get(counter)
    }
}

// C89
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_the_certificate_and_both_ends_say_why() {
    let authority = authority();
    let a = Renewable::spawn(&authority, "a", HOUR, &[]).await;
    let b = Renewable::spawn(&authority, "b", HOUR, &[&a]).await;
    all_live(&[a.node.clone(), b.node.clone()]).await;
    b.take(&authority, Duration::from_secs(3), &[&authority]);
    // Told of in advance,
    until("a knows when b's certificate ends", || {
        let now = now();
        let left = a.node.snapshot().member(&id("b")).and_then(|b| b.not_after);
        left.is_some_and(|until| until < now + Duration::from_secs(4))
    })
    .await;
    // the more so when it is near,
    until("a warns of it", || a.node.snapshot().certificates(now()).expiring == 1).await;
    assert!(a.node.snapshot().member(&id("b")).unwrap().expires_soon(now()));
    // and when it comes the connection goes.
    for (one, other) in [(&a, &b), (&b, &a)] {
        until("the connection is cut", || one.node.cut(other.node.node()).is_some()).await;
        let cut = one.node.cut(other.node.node()).unwrap();
        assert_eq!(cut.label, "expired", "{cut:?}");
        assert!(cut.reason.contains("the certificate of b expired on 20"), "{cut:?}");
        assert!(one.node.counters().refusals()["expired"] > 0);
    }
    until("nobody lets it in", || a.node.dead_peers().len() == 1).await;
    assert_eq!(a.node.snapshot().certificates(now()).expiring, 0, "the dead renew nothing");
    // With a new one it is back, in the same life.
    let before = b.node.snapshot().version(&id("b")).unwrap().0;
    b.take(&authority, HOUR, &[&authority]);
    all_live(&[a.node.clone(), b.node.clone()]).await;
    assert_eq!(a.node.snapshot().version(&id("b")).unwrap().0, before);
    end(&[a.node, b.node]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_the_first_certificate_of_a_chain() {
    let pki = Chain::new();
    let a = Renewable::spawn_as("a", pki.identity("a", HOUR), pki.roots(), &[]).await;
    let b = Renewable::spawn_as("b", pki.identity("b", HOUR), pki.roots(), &[&a]).await;
    all_live(&[a.node.clone(), b.node.clone()]).await;
    let short = pki.identity("b", Duration::from_secs(6));
    let leaf_ends = short.certificate().not_after;
    b.transport.reload(short, pki.roots()).unwrap();
    until("a knows when b's chain ends", || {
        let told = a.node.snapshot().member(&id("b")).and_then(|b| b.not_after);
        told.is_some_and(|told| told < leaf_ends)
    })
    .await;
    for (one, other) in [(&a, &b), (&b, &a)] {
        until("the connection is cut", || one.node.cut(other.node.node()).is_some()).await;
        let cut = one.node.cut(other.node.node()).unwrap();
        assert_eq!(cut.label, "expired", "{cut:?}");
        assert!(cut.reason.contains("the certificate of b expired on 20"), "{cut:?}");
    }
    until("nobody lets it in", || a.node.dead_peers().len() == 1).await;
    b.transport.reload(pki.identity("b", HOUR), pki.roots()).unwrap();
    all_live(&[a.node.clone(), b.node.clone()]).await;
    end(&[a.node, b.node]).await;
}

// C87
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_lived_certificates_are_replaced_again_and_again_and_nobody_notices() {
    let (authority, lifetime) = (authority(), Duration::from_secs(15));
    let mut cluster = vec![Renewable::spawn(&authority, "n0", lifetime, &[]).await];
    for name in ["n1", "n2"] {
        cluster.push(Renewable::spawn(&authority, name, lifetime, &[&cluster[0]]).await);
    }
    let nodes: Vec<_> = cluster.iter().map(|one| one.node.clone()).collect();
    all_live(&nodes).await;
    let witness = Witness::of(&nodes);
    let load = load(&nodes);
    for _ in 0..4 {
        // Each at its own time, as agents do.
        for one in &cluster {
            one.take(&authority, lifetime, &[&authority]);
            let replaced = unix(one.transport.identity().certificate().not_after);
            until("the others know of it", || {
                let told = |node: &Gossipmonger| node.snapshot().member(&id(one.name))?.not_after;
                nodes.iter().all(|node| told(node).is_some_and(|until| unix(until) == replaced))
            })
            .await;
        }
        tokio::time::sleep(lifetime / 3).await;
    }
    settle(load, &nodes).await;
    witness.saw_nothing(&cluster);
    end(&nodes).await;
}

// C87
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_leaf_and_the_authority_are_replaced_under_load_and_nobody_notices() {
    let (old, new) = (authority(), authority());
    let mut cluster = vec![Renewable::spawn(&old, "n0", HOUR, &[]).await];
    for name in ["n1", "n2", "n3", "n4"] {
        cluster.push(Renewable::spawn(&old, name, HOUR, &[&cluster[0]]).await);
    }
    let nodes: Vec<_> = cluster.iter().map(|one| one.node.clone()).collect();
    all_live(&nodes).await;
    let witness = Witness::of(&nodes);
    let load = load(&nodes);
    // Prepare, switch, finish; in each phase the nodes disagree for a while.
    for phase in 0..3 {
        for one in &cluster {
            match phase {
                0 => one.trust(&[&old, &new]),
                1 => one.take(&new, HOUR, &[&old, &new]),
                _ => one.trust(&[&new]),
            }
            let before: Vec<_> = nodes.iter().map(writes).collect();
            until("writes go on in between", || {
                nodes.iter().zip(&before).all(|(node, before)| writes(node) > before + 20)
            })
            .await;
        }
    }
    let connections = || nodes.iter().map(|node| node.counters().get(Counter::ConnectionsDialed));
    println!("connections dialed in all: {}", connections().sum::<u64>());
    settle(load, &nodes).await;
    witness.saw_nothing(&cluster);
    // The old authority is gone for good.
    let (late, trusts) = (identity(&old, "late", HOUR), roots(&[&old, &new]));
    let mut config = Start::new(late, trusts).unwrap().local();
    config.seeds = nodes[0].addresses().to_vec();
    let late = crate::start::spawn(config).await.unwrap().0;
    until("it is refused", || nodes[0].counters().refusals().contains_key("bad_signature")).await;
    assert_eq!(nodes[0].peers().len(), 4);
    late.shutdown().await;
    end(&nodes).await;
}

// C87
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_died_under_the_authority_before_is_no_trouble_to_those_who_come_after() {
    let (old, new) = (authority(), authority());
    let mut cluster = vec![Renewable::spawn(&old, "n0", HOUR, &[]).await];
    for name in ["n1", "n2"] {
        cluster.push(Renewable::spawn(&old, name, HOUR, &[&cluster[0]]).await);
    }
    let nodes: Vec<_> = cluster.iter().map(|one| one.node.clone()).collect();
    all_live(&nodes).await;
    nodes[2].set("k", "v").await.unwrap();
    until("all have it", || nodes.iter().all(|node| node.get(&id("n2"), "k").is_some())).await;
    cluster[2].transport.silence();
    let (living, dead) = nodes.split_at(2);
    until("it is dead", || living.iter().all(|node| node.dead_peers().len() == 1)).await;
    cluster[..2].iter().for_each(|one| one.trust(&[&old, &new]));
    cluster[..2].iter().for_each(|one| one.take(&new, HOUR * 2, &[&old, &new]));
    until("each knows the new certificate of the other", || {
        let told = |node: &Gossipmonger, of: &str| node.snapshot().member(&id(of))?.not_after;
        let later = now() + HOUR + HOUR / 2;
        let knows = |node, of| told(node, of).is_some_and(|until| until > later);
        living.iter().all(|node| knows(node, "n0") && knows(node, "n1"))
    })
    .await;
    cluster[..2].iter().for_each(|one| one.trust(&[&new]));
    let late = Renewable::spawn(&new, "n3", HOUR, &[&cluster[0]]).await;
    let mut told = late.node.subscribe();
    let three = [living[0].clone(), living[1].clone(), late.node.clone()];
    until("the late one is in", || three.iter().all(|node| node.live_peers().len() == 2)).await;
    let beats = || late.count(Counter::HeartbeatsSent);
    let before = beats();
    for number in 1.. {
        three[0].set("last", number.to_string()).await.unwrap();
        until("it follows", || late.node.get_str(&id("n0"), "last") == Some(number.to_string()))
            .await;
        // Some rounds, in which the others might tell of the dead one.
        if number >= 40 && beats() >= before + 40 {
            break;
        }
    }
    while let Ok(event) = tokio::time::timeout(Duration::ZERO, told.next()).await {
        let event = event.expect("none is missed");
        assert!(!matches!(event, Event::Error(_)), "{event:?}");
    }
    for node in &three {
        assert_eq!(node.counters().get(Counter::NewsRefused), 0);
        assert!(node.counters().refusals().is_empty(), "{:?}", node.counters().refusals());
    }
    // Those who had it keep it, and vouched for by nobody it comes to nobody else.
    assert!(living.iter().all(|node| node.get(&id("n2"), "k").is_some()));
    assert_eq!(late.node.snapshot().member(&id("n2")), None);
    end(&three).await;
    end(dead).await;
}

/// Whoever would notice.
struct Witness {
    /// What each node has told that is not about keys.
    told: Vec<Arc<Mutex<Vec<String>>>>,
    counted: Vec<BTreeMap<&'static str, u64>>,
}

impl Witness {
    fn of(nodes: &[Gossipmonger]) -> Self {
        let told = nodes.iter().map(|node| {
            let (mut events, told) = (node.subscribe(), Arc::<Mutex<Vec<String>>>::default());
            let noted = Arc::clone(&told);
            // As they come: no queue holds those of a slow machine.
            tokio::spawn(async move {
                loop {
                    match events.next().await {
                        Ok(Event::Updated { .. } | Event::Deleted { .. }) => {}
                        Ok(event) => noted.lock().unwrap().push(format!("{event:?}")),
                        Err(SubscriptionError::Ended) => return,
                        Err(missed) => noted.lock().unwrap().push(missed.to_string()),
                    }
                }
            });
            told
        });
        let told = told.collect();
        Self { told, counted: nodes.iter().map(|node| node.counters().all()).collect() }
    }

    /// No event but of keys, nobody refused, no connection lost.
    fn saw_nothing(&self, cluster: &[Renewable]) {
        for ((told, counted), one) in self.told.iter().zip(&self.counted).zip(cluster) {
            let told = told.lock().unwrap();
            assert!(told.is_empty(), "{} tells {told:?}", one.name);
            assert!(one.node.counters().refusals().is_empty(), "{:?}", one.node.counters());
            for counter in [Counter::PeersSuspected, Counter::HandshakesFailed, Counter::PushGaps] {
                let before = counted[counter.as_str()];
                println!("{}: {} {before} -> {}", one.name, counter.as_str(), one.count(counter));
            }
            for counter in [Counter::PeersSuspected, Counter::HandshakesFailed] {
                assert_eq!(one.count(counter), counted[counter.as_str()], "{counter:?}");
            }
        }
    }
}

/// 200 writes a second over all nodes, each with the next number, until it is asked to stop.
fn load(nodes: &[Gossipmonger]) -> (Arc<tokio::sync::Notify>, Vec<JoinHandle<u64>>) {
    let stop = Arc::new(tokio::sync::Notify::new());
    let pause = Duration::from_secs(1) / 200 * u32::try_from(nodes.len()).unwrap();
    let write = |node: &Gossipmonger| {
        let (node, stop) = (node.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(pause);
            for number in 1.. {
                tokio::select! {
                    _ = stop.notified() => return number - 1,
                    _ = ticks.tick() => {}
                }
                node.set(format!("k{}", number % 50), number.to_string()).await.unwrap();
                node.set("last", number.to_string()).await.unwrap();
            }
            unreachable!()
        })
    };
    (Arc::clone(&stop), nodes.iter().map(write).collect())
}

/// The last number that a node has written.
fn writes(node: &Gossipmonger) -> u64 {
    node.get_str(node.node(), "last").and_then(|last| last.parse().ok()).unwrap_or(0)
}

/// Ends the load, and waits until everybody has all of it.
async fn settle(
    (stop, writers): (Arc<tokio::sync::Notify>, Vec<JoinHandle<u64>>),
    nodes: &[Gossipmonger],
) {
    let mut written = Vec::new();
    for writer in writers {
        while !writer.is_finished() {
            stop.notify_waiters();
            tokio::task::yield_now().await;
        }
        written.push(writer.await.unwrap());
    }
    println!("written: {written:?}");
    for (owner, number) in nodes.iter().zip(written) {
        let expected = owner.prefix(owner.node(), "");
        assert_eq!(writes(owner), number);
        until("every copy is whole", || {
            nodes.iter().all(|node| node.prefix(owner.node(), "") == expected)
        })
        .await;
    }
}

fn authority() -> Authority {
    Authority::create(ClusterId::new("demo").unwrap(), &AuthorityOptions::default()).unwrap()
}

fn roots(authorities: &[&Authority]) -> Roots {
    let pem: String = authorities.iter().map(|one| one.certificate_pem()).collect();
    Roots::from_pem(pem.as_bytes()).unwrap()
}

/// A root whose intermediates end before the leaves below them.
struct Chain {
    root: Issuer<'static, KeyPair>,
    pem: String,
}

impl Chain {
    fn new() -> Self {
        let (key, params) = (KeyPair::generate().unwrap(), Self::params("root", 24 * HOUR));
        let pem = params.self_signed(&key).unwrap().pem();
        Self { root: Issuer::new(params, key), pem }
    }

    /// A node whose leaf is valid for a day, and whose intermediate for so long.
    fn identity(&self, node: &str, intermediate: Duration) -> Identity {
        let (above, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let params = Self::params("intermediate", intermediate);
        let intermediate = params.signed_by(&above, &self.root).unwrap().pem();
        let issuer = Issuer::new(params, above);
        let mut leaf = Self::params(node, 24 * HOUR);
        leaf.is_ca = IsCa::ExplicitNoCa;
        let uri = format!("spiffe://demo/dc1/{node}");
        leaf.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let leaf = leaf.signed_by(&key, &issuer).unwrap().pem();
        Identity::from_pem((leaf + &intermediate).as_bytes(), key.serialize_pem().as_bytes())
            .unwrap()
    }

    fn roots(&self) -> Roots {
        Roots::from_pem(self.pem.as_bytes()).unwrap()
    }

    fn params(name: &str, validity: Duration) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) =
            ((now() - Duration::from_secs(1)).into(), (now() + validity).into());
        params
    }
}

fn identity(authority: &Authority, node: &str, validity: Duration) -> Identity {
    let name = PeerName {
        cluster: authority.cluster().clone(),
        datacenter: Datacenter::new("dc1").unwrap(),
        node: id(node),
    };
    // From now on, so that two thirds of it are over soon.
    let options = LeafOptions { not_before: now(), ..LeafOptions::new(&name, validity) };
    let issued = authority.issue_with(&options).unwrap();
    Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[expect(clippy::disallowed_methods, reason = "certificates' dates are wall time")]
fn now() -> SystemTime {
    SystemTime::now()
}

const HOUR: Duration = Duration::from_secs(3_600);
