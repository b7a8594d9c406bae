//! Inside somebody else's tree: failures, restarts, limits, ends.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gossipmonger::{
    Error, Event, Gossipmonger, Problem, SpawnError,
    protocol::route::Counter,
    store::{Store, memory::MemoryStore},
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};
use tokio::task::JoinHandle;

use crate::start::spawn;
use crate::{
    harness::{Lab, Moody, all_live, drain, names, next_event, until},
    start::Start,
};

#[tokio::test(start_paused = true)]
async fn refuses_a_bad_configuration_and_leaves_nothing_behind() {
    let lab = Lab::default();
    let (service, _, seen) = Service::start(Vec::new()).await;
    let mut config = lab.config("a");
    config.gossip_fanout = 0;
    let refused = spawn_linked(config, service.get_cell()).await.unwrap_err();
    assert_eq!(refused.to_string(), "gossip_fanout = 0 is refused: 1 to 32 is allowed");
    assert!(service.get_cell().get_children().is_empty());
    assert!(seen.lock().unwrap().is_empty());
}

// C101
#[tokio::test(start_paused = true)]
async fn the_end_may_be_asked_for_twice_and_dropped_handles_end_nothing() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let (b, b_runs) = {
        let mut config = lab.config("b");
        config.seeds = vec!["a:1".to_owned()];
        spawn(config).await.unwrap()
    };
    let b_id = b.node().clone();
    drop(b);
    until("b has joined without a handle", || a.live_peers().len() == 1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!b_runs.is_finished() && a.snapshot().member(&b_id).unwrap().is_live());
    tokio::join!(a.shutdown(), a.shutdown());
    a.shutdown().await;
    assert_eq!(a.ended().await, None);
    assert_eq!(a.cell().get_status(), ActorStatus::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_one_child_and_nodes_share_nothing() {
    let lab = Lab::default();
    let configs = ["a", "b", "c"].map(|name| {
        let mut config = lab.config(name);
        config.seeds = vec!["a:1".to_owned(), "b:1".to_owned()];
        config
    });
    let (service, _, seen) = Service::start(Vec::from(configs)).await;
    assert_eq!(service.get_cell().get_children().len(), 3);
    let nodes = ractor::call!(service, ToService::Nodes).unwrap();
    all_live(&nodes.iter().collect::<Vec<_>>()).await;
    assert!(nodes.iter().all(|node| node.cell().get_name().is_none()));
    // The end that was asked for is no failure.
    nodes[0].shutdown().await;
    until("it is told", || seen.lock().unwrap().len() == 1).await;
    assert_eq!(*seen.lock().unwrap(), ["terminated"]);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_waits_ends_its_node_in_order() {
    let lab = Lab::default();
    let mut config = lab.config("a");
    config.seeds = vec!["b:1".to_owned()];
    let b = lab.spawn("b", &[]).await;
    let (service, running, _) = Service::start(vec![config]).await;
    let node = ractor::call!(service, ToService::Nodes).unwrap().remove(0);
    all_live(&[&node, &b]).await;
    let mut events = node.subscribe();
    service.stop(None);
    running.await.unwrap();
    assert_eq!(node.ended().await, None);
    assert!(matches!(node.set("k", "v").await, Err(Error::Stopped { reason: None })));
    while events.next().await.is_ok() {}
    // Its place is free again.
    let again = lab.spawn("a", &["b"]).await;
    all_live(&[&again, &b]).await;
}

#[tokio::test(start_paused = true)]
async fn too_many_failures_are_one_failure_outside() {
    let lab = Lab::default();
    let mut config = lab.config("a");
    config.restarts.most = 3;
    let (service, _, seen) = Service::start(vec![config]).await;
    let node = ractor::call!(service, ToService::Nodes).unwrap().remove(0);
    while node.counters().get(Counter::ActorRestarts) < 3 {
        let restarts = node.counters().get(Counter::ActorRestarts);
        kill_one(&node, 0).await;
        until("restarted", || node.counters().get(Counter::ActorRestarts) > restarts).await;
        until("all five again", || node.cell().get_children().len() == 5).await;
    }
    kill_one(&node, 0).await;
    until("the service is told", || !seen.lock().unwrap().is_empty()).await;
    let problem = node.ended().await;
    assert!(matches!(problem, Some(Problem::Failed { .. })), "{problem:?}");
    let refused = node.set("k", "v").await.unwrap_err().to_string();
    assert!(refused.contains("failed too often"), "{refused}");
    let seen = seen.lock().unwrap();
    assert!(matches!(&**seen, [one] if one.contains("failed too often")), "{seen:?}");
}

/// What a supervisor that does not wait for its children does to them.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_killed_still_gives_everything_back() {
    let lab = Lab::default();
    let storage = Arc::new(MemoryStore::new());
    let config = || {
        let mut config = lab.config("a");
        config.storage = storage.clone();
        config
    };
    let b = lab.spawn("b", &[]).await;
    let a = lab.spawn_with(config(), &["b"]).await;
    all_live(&[&a, &b]).await;
    a.set("k", "v").await.unwrap();
    a.cell().kill();
    a.ended().await;
    assert!(matches!(a.set("k", "w").await, Err(Error::Stopped { .. })));
    assert_eq!(Arc::strong_count(&storage), 1);
    let a = lab.spawn_with(config(), &["b"]).await;
    assert_eq!(a.get_str(a.node(), "k").as_deref(), Some("v"));
    all_live(&[&a, &b]).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_makes_nobody_vanish_and_tells_nothing_twice() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let dead = lab.spawn("dead", &["a"]).await;
    all_live(&[&a, &b, &dead]).await;
    dead.shutdown().await;
    until("it is dead", || a.dead_peers().len() == 1).await;
    let mut events = a.subscribe();
    for n in 0..7_u64 {
        kill_one(&a, 0).await;
        until("restarted", || {
            assert_eq!((a.live_peers().len(), a.dead_peers().len()), (1, 1), "restart {n}");
            a.counters().get(Counter::ActorRestarts) == n + 1 && a.cell().get_children().len() == 5
        })
        .await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((a.live_peers().len(), a.dead_peers().len()), (1, 1));
    let told = drain(&mut events).await;
    let restarts = |event: &&Event| matches!(event, Event::Error(Problem::ActorRestarted { .. }));
    assert_eq!(told.iter().filter(restarts).count(), 7);
    assert_eq!(told.len(), 7, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_storage_tells_no_newcomer_of_the_dead() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    b.shutdown().await;
    until("it is dead", || a.dead_peers().len() == 1).await;
    kill_one(&a, 0).await;
    until("restarted", || a.counters().get(Counter::ActorRestarts) == 1).await;
    until("all five again", || a.cell().get_children().len() == 5).await;
    let newcomer = lab.spawn("c", &["a"]).await;
    until("it has joined", || newcomer.live_peers().len() == 1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(names(&newcomer.peers()), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_told() {
    let node = Lab::default().spawn("a", &[]).await;
    let mut events = node.subscribe();
    kill_one(&node, 0).await;
    next_event(&mut events, |event| {
        matches!(event, Event::Error(Problem::ActorRestarted { .. })).then_some(())
    })
    .await;
    assert_eq!(node.counters().get(Counter::ActorRestarts), 1);
}

/// Whoever starts anew is told of the connections there are.
#[tokio::test(start_paused = true)]
async fn a_restarted_storage_still_tells_its_neighbours_at_once() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    for part in 0..5 {
        kill_one(&a, part).await;
        until("it is restarted", || {
            a.counters().get(Counter::ActorRestarts) == part as u64 + 1
                && a.cell().get_children().len() == 5
        })
        .await;
        let before = a.counters().get(Counter::GossipSent);
        for n in 0..20 {
            a.set("key", format!("{part}.{n}")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let sent = a.counters().get(Counter::GossipSent) - before;
        assert!(sent >= 20, "{sent} after part {part}");
        assert_eq!(b.get_str(a.node(), "key"), Some(format!("{part}.19")));
    }
}

/// Each inner actor is killed in turn while writes come from many sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_by_restarts() {
    lose_nothing(Arc::new(MemoryStore::new())).await;
    // And with a thread between the actor and its store.
    lose_nothing(Arc::new(Moody::default())).await;
}

async fn lose_nothing(storage: Arc<dyn Store>) {
    const WRITERS: usize = 4;
    let lab = Lab::default();
    let mut config = lab.config("a");
    config.storage = storage;
    let a = lab.spawn_with(config, &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    all_live(&[&a, &b]).await;
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (a, over) = (a.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut written = 0;
                while !over.load(std::sync::atomic::Ordering::SeqCst) {
                    a.set(format!("w{writer}/{written}"), written.to_string()).await.unwrap();
                    written += 1;
                }
                written
            })
        })
        .collect();
    let mut killed = 0;
    for round in 0..8 {
        let versions = a.snapshot().version(a.node()).unwrap().1;
        kill_one(&a, round % 4).await;
        killed += 1;
        until("restarted", || {
            a.counters().get(Counter::ActorRestarts) == killed && a.cell().get_children().len() == 5
        })
        .await;
        until("writes go on", || a.snapshot().version(a.node()).unwrap().1.0 > versions.0 + 20)
            .await;
    }
    over.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut all = 0;
    for (writer, written) in writers.into_iter().enumerate() {
        let written = written.await.unwrap();
        all += written;
        for node in [&a, &b] {
            until("every acknowledged write is there", || {
                (0..written).all(|n| {
                    node.get_str(a.node(), &format!("w{writer}/{n}")) == Some(n.to_string())
                })
            })
            .await;
        }
    }
    println!("{all} writes acknowledged over {killed} restarts");
    assert_eq!(b.snapshot().len(a.node()), all);
    all_live(&[&a, &b]).await;
}

/// Kills the `n`th of the inner actors by age.
async fn kill_one(node: &Gossipmonger, n: usize) {
    let mut children = node.cell().get_children();
    children.sort_by_key(ActorCell::get_id);
    children[n % children.len()].kill_and_wait(None).await.unwrap();
}

/// Somebody's service, with nodes as children.
struct Service;

enum ToService {
    Nodes(ractor::RpcReplyPort<Vec<Gossipmonger>>),
}

#[cfg(feature = "cluster")]
impl ractor::Message for ToService {}

type Seen = Arc<Mutex<Vec<String>>>;

struct ServiceState {
    nodes: Vec<Gossipmonger>,
    seen: Seen,
}

impl Service {
    async fn start(
        configs: Vec<Start>,
    ) -> (ActorRef<ToService>, ractor::concurrency::JoinHandle<()>, Seen) {
        let seen = Seen::default();
        let arguments = (configs, Arc::clone(&seen));
        let (service, running) = Actor::spawn(None, Self, arguments).await.unwrap();
        (service, running, seen)
    }
}

#[ractor::actor(message = ToService, state = ServiceState, arguments = (Vec<Start>, Seen))]
impl Service {
    async fn pre_start(
        &self,
        myself: ActorRef<ToService>,
        (configs, seen): (Vec<Start>, Seen),
    ) -> Result<ServiceState, ActorProcessingErr> {
        let mut nodes = Vec::new();
        for config in configs {
            nodes.push(spawn_linked(config, myself.get_cell()).await?.0);
        }
        Ok(ServiceState { nodes, seen })
    }

    async fn post_stop(
        &self,
        myself: ActorRef<ToService>,
        _: &mut ServiceState,
    ) -> Result<(), ActorProcessingErr> {
        myself.stop_children_and_wait(None, None).await;
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<ToService>,
        ToService::Nodes(reply): ToService,
        state: &mut ServiceState,
    ) -> Result<(), ActorProcessingErr> {
        let _ = reply.send(state.nodes.clone());
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<ToService>,
        event: SupervisionEvent,
        state: &mut ServiceState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, error) => {
                state.seen.lock().unwrap().push(error.to_string());
            }
            SupervisionEvent::ActorTerminated(..) => {
                state.seen.lock().unwrap().push("terminated".to_owned());
            }
            _ => {}
        }
        Ok(())
    }
}

async fn spawn_linked(
    start: Start,
    supervisor: ActorCell,
) -> Result<(Gossipmonger, JoinHandle<()>), SpawnError> {
    let (config, backends) = start.parts();
    Gossipmonger::spawn_linked(config, backends, supervisor).await
}
