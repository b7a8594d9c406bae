//! Datagrams of all kinds at a node's UDP port, from people without a certificate.
//!
//! What they can make a node hold: `quic.handshakes` handshakes of about 42 KiB for
//! `quic.handshake_timeout` (and three probe timeouts of quinn to drain), 1 MiB of datagrams that
//! wait for them, 4,096 buckets of their addresses. With the defaults that is below 20 MiB.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use gossipmonger::Config;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::start::spawn;
use crate::{
    attacker::{Scene, first_flights, resident},
    harness::{all_live, until},
};

// C90
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_random_bytes() {
    let mut scene = Scene::new(|_| {}).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut rng = SmallRng::seed_from_u64(7);
    for n in 0..2_000_usize {
        let mut datagram = vec![0; n * 13 % 1_473];
        rng.fill_bytes(&mut datagram);
        let _ = socket.send_to(&datagram, scene.address());
        if n % 100 == 0 {
            // So that not all of them find the socket's buffer full.
            tokio::task::yield_now().await;
        }
    }
    scene.counts("datagrams_unknown", 1).await;
    scene.still_gossips().await;
    scene.end().await;
}

// C90
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_truncated_and_flipped_initials() {
    let mut scene = Scene::new(short).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let stranger = scene.member("x");
    let flights = first_flights(stranger.clone(), 1).await;
    let initial = &flights[0][0];
    for len in (0..initial.len()).step_by(7) {
        socket.send_to(&initial[..len], scene.address()).unwrap();
    }
    scene.counts("datagrams_unknown", 1).await;
    // Each bit of the header and some of the rest, each of a handshake of its own, since what comes
    // second for one connection is only a packet lost.
    let flipped = (0..64 * 8).step_by(5).chain((64 * 8..initial.len() * 8).step_by(611));
    let flipped: Vec<_> = flipped.collect();
    for (flight, bit) in first_flights(stranger, flipped.len()).await.into_iter().zip(flipped) {
        let mut initial = flight.into_iter().next().unwrap();
        initial[bit / 8] ^= 1 << (bit % 8);
        socket.send_to(&initial, scene.address()).unwrap();
    }
    scene.counts("handshakes_failed", 1).await;
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_an_address_that_has_not_proved_itself_with_at_most_three_times_its_bytes() {
    for retry in [false, true] {
        let scene = Scene::new(|config| {
            short(config);
            config.quic.retry_above = if retry { 0 } else { 64 };
        })
        .await;
        let flight = first_flights(scene.member("x"), 1).await.remove(0);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
        let mut sent = 0;
        for datagram in &flight {
            sent += socket.send_to(datagram, scene.address()).await.unwrap();
        }
        let (mut received, mut buffer) = (0, [0; 2_000]);
        // Through the first repetitions, until the node has given the handshake up.
        let listening = tokio::time::timeout(Duration::from_millis(2_500), async {
            loop {
                received += socket.recv(&mut buffer).await.unwrap();
            }
        });
        assert!(listening.await.is_err());
        assert!(received > 0);
        assert!(received <= 3 * sent, "{received} bytes for {sent}");
        if retry {
            assert!(scene.count("handshakes_retried") > 0);
            assert!(received < sent, "{received} bytes for {sent}");
        }
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossips_through_a_flood_from_many_addresses_and_lets_members_in() {
    let mut scene = Scene::new(|config| {
        short(config);
        (config.quic.handshakes, config.quic.retry_above) = (32, 8);
    })
    .await;
    let before = resident();
    let flights = first_flights(scene.member("x"), 400).await;
    let flood = || {
        for (n, flight) in flights.iter().enumerate() {
            let [high, low] = u16::try_from(n + 1).unwrap().to_be_bytes();
            // Systems other than Linux have one address of loopback only.
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 7, high, low), 0))
                .or_else(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))
                .unwrap();
            for datagram in flight {
                let _ = socket.send_to(datagram, scene.address());
            }
        }
    };
    scene.floods_until("handshakes_retried", flood).await;
    // Under pressure a newcomer proves its address, and gets in.
    let newcomer = scene.cluster.spawn("o", &[&scene.node]).await;
    scene.still_gossips().await;
    all_live(&[scene.node.clone(), scene.friend.clone(), newcomer.clone()]).await;
    until("the forged are given up", || scene.refused("timeout") > 0).await;
    scene.still_gossips().await;
    assert_grown_less_than(before, 512 << 20);
    newcomer.shutdown().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sheds_handshakes_that_are_never_finished() {
    let mut scene = Scene::new(|config| {
        // Long enough for a slow machine to begin more of them than may be under way.
        config.quic.handshake_timeout = Duration::from_secs(5);
        (config.quic.handshakes, config.quic.retry_above) = (16, 1_000);
    })
    .await;
    let before = resident();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let flights = first_flights(scene.member("x"), 200).await;
    let flood = || {
        for datagram in flights.iter().flatten() {
            let _ = socket.send_to(datagram, scene.address());
        }
    };
    scene.floods_until("handshakes_shed", flood).await;
    scene.still_gossips().await;
    until("they are given up", || scene.refused("timeout") > 0).await;
    let newcomer = scene.cluster.spawn("o", &[&scene.node]).await;
    until("a member gets in", || newcomer.live_peers().len() == 2).await;
    assert_grown_less_than(before, 512 << 20);
    newcomer.shutdown().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_one_address_to_its_rate() {
    let cluster = crate::harness::Cluster::new("demo");
    let mut config = cluster.config("m");
    config.quic.handshakes_per_source = 1;
    let node = spawn(config).await.unwrap().0;
    let to: std::net::SocketAddr = node.addresses()[0].parse().unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let stranger = crate::attacker::client(cluster.identity("x"));
    for flight in first_flights(stranger, 8).await {
        socket.send_to(&flight[0], to).unwrap();
    }
    until("what is above it is shed", || node.counters().all()["handshakes_shed"] > 0).await;
    node.shutdown().await;
}

fn short(config: &mut Config) {
    config.quic.handshake_timeout = Duration::from_secs(2);
}

/// A sanity check only: other tests run in the same process.
fn assert_grown_less_than(before: Option<usize>, most: usize) {
    if let (Some(before), Some(now)) = (before, resident()) {
        let grown = now.saturating_sub(before);
        println!("grown by {} KiB", grown >> 10);
        assert!(grown < most, "grown by {grown} bytes");
    }
}
