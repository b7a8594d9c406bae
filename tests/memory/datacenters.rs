//! A datacenter that is cut off, as a user of the crate sees it.

use std::time::Duration;

use gossipmonger::{
    Datacenter, Error, Event, Gossipmonger, PeerState,
    subscription::{Delivery, Events},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;

use crate::harness::{Lab, all_live, drain, id, next_event, until};

/// Three nodes in `eu`, three in `us`.
async fn six(lab: &Lab) -> [Gossipmonger; 6] {
    let spawn = |place: &'static str, name: &'static str| {
        lab.spawn_with(lab.config_in(place, name), &["a"])
    };
    let nodes = [
        spawn("eu", "a").await,
        spawn("eu", "b").await,
        spawn("eu", "c").await,
        spawn("us", "x").await,
        spawn("us", "y").await,
        spawn("us", "z").await,
    ];
    all_live(&nodes.each_ref()).await;
    nodes
}

fn cut(lab: &Lab, [a, b, c, x, y, z]: &[Gossipmonger; 6]) {
    for node in [x, y, z] {
        lab.isolate(node.node(), &[a, b, c]);
    }
}

fn us() -> Datacenter {
    Datacenter::new("us").unwrap()
}

async fn lost(events: &mut Events) -> Datacenter {
    next_event(events, |event| match event {
        Event::DatacenterUnreachable { datacenter } => Some(datacenter),
        _ => None,
    })
    .await
}

async fn found(events: &mut Events) -> Datacenter {
    next_event(events, |event| match event {
        Event::DatacenterReachable { datacenter } => Some(datacenter),
        _ => None,
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_datacenter_that_is_cut_off_is_neither_live_nor_dead() {
    let lab = Lab::default();
    let nodes = six(&lab).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let [a, .., z] = &nodes;
    let (mut here, mut there, mut all) = (a.subscribe(), z.subscribe(), a.subscribe());
    cut(&lab, &nodes);
    assert_eq!(lost(&mut here).await, us());
    // The snapshot shows already what the event tells.
    let seen = a.snapshot();
    assert!(seen.unreachable_datacenters().iter().eq([&us()]));
    for peer in seen.peers() {
        let unreachable = peer.datacenter == us();
        assert_eq!(peer.state == PeerState::Unreachable, unreachable, "{peer:?}");
        assert_eq!(peer.is_live(), !unreachable);
    }
    assert_eq!(seen.live().count(), 3);
    assert_eq!((a.live_peers().len(), a.dead_peers().len()), (2, 0));
    assert_eq!(lost(&mut there).await.as_str(), "eu");
    assert_eq!(z.snapshot().member(z.node()).unwrap().state, PeerState::Live);

    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(a.snapshot().member(z.node()).unwrap().state, PeerState::Unreachable);
    lab.network.heal();
    assert_eq!(found(&mut here).await, us());
    all_live(&nodes.each_ref()).await;
    assert!(a.snapshot().unreachable_datacenters().is_empty());
    let told = drain(&mut all).await;
    let dead = |event: &Event| matches!(event, Event::PeerDead { .. });
    assert!(!told.iter().any(dead), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn who_dies_in_it_is_dead_there_and_after_the_heal_everywhere() {
    let lab = Lab::default();
    let nodes = six(&lab).await;
    let (mut here, mut there) = (nodes[0].subscribe(), nodes[3].subscribe());
    cut(&lab, &nodes);
    lost(&mut here).await;
    lost(&mut there).await;
    let [a, b, c, x, y, z] = nodes;
    z.shutdown().await;
    let state = |of: &Gossipmonger| of.snapshot().member(&id("z")).unwrap().state;
    until("its own find it dead", || [&x, &y].iter().all(|of| state(of) == PeerState::Dead)).await;
    assert!([&a, &b, &c].iter().all(|of| state(of) == PeerState::Unreachable));
    lab.network.heal();
    until("all know", || [&a, &b, &c].iter().all(|of| state(of) == PeerState::Dead)).await;
    until("the others are live", || [&a, &b, &c].iter().all(|of| of.live_peers().len() == 4)).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_in_it_can_be_removed_and_comes_back_if_it_lives() {
    let lab = Lab::default();
    let nodes = six(&lab).await;
    let mut events = nodes[0].subscribe();
    cut(&lab, &nodes);
    lost(&mut events).await;
    let [a, b, c, .., z] = &nodes;
    let refused = a.remove(b.node()).unwrap_err();
    assert!(matches!(refused, Error::PeerIsLive(_)), "{refused}");
    until("all who cannot reach it forget it", || {
        let forgotten = |of: &Gossipmonger| of.snapshot().member(z.node()).is_none();
        // The others may not have found out yet that they cannot reach it.
        a.remove(z.node()).ok();
        [a, b, c].iter().all(|of| forgotten(of))
    })
    .await;
    assert_eq!(a.snapshot().members().count(), 5);
    lab.network.heal();
    all_live(&nodes.each_ref()).await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_comes_late_is_told_of_it_as_well() {
    let lab = Lab::default();
    let nodes = six(&lab).await;
    let mut events = nodes[0].subscribe();
    cut(&lab, &nodes);
    lost(&mut events).await;
    let (heard, mut told) = mpsc::unbounded_channel();
    let (actor, _) = Actor::spawn(None, Listener, heard).await.unwrap();
    nodes[0].subscribe_actor(actor);
    let mut live = 0;
    loop {
        match told.recv().await.unwrap() {
            Event::PeerLive { .. } => live += 1,
            Event::DatacenterUnreachable { datacenter } => break assert_eq!(datacenter, us()),
            _ => {}
        }
    }
    assert_eq!(live, 5, "they are live but for that");
    lab.network.heal();
    loop {
        match told.recv().await.unwrap() {
            Event::DatacenterReachable { datacenter } => break assert_eq!(datacenter, us()),
            Event::PeerDead { peer, .. } => panic!("{peer} is not"),
            _ => {}
        }
    }
}

struct Listener;

struct Told(Delivery);

#[cfg(feature = "cluster")]
impl ractor::Message for Told {}

impl From<Delivery> for Told {
    fn from(delivery: Delivery) -> Self {
        Self(delivery)
    }
}

type Heard = mpsc::UnboundedSender<Event>;

#[ractor::actor(message = Told, state = Heard, arguments = Heard)]
impl Listener {
    async fn pre_start(&self, _: ActorRef<Told>, to: Heard) -> Result<Heard, ActorProcessingErr> {
        Ok(to)
    }

    async fn handle(
        &self,
        _: ActorRef<Told>,
        Told(delivery): Told,
        to: &mut Heard,
    ) -> Result<(), ActorProcessingErr> {
        // The test may have seen enough.
        let _ = to.send(delivery.event);
        Ok(())
    }
}
