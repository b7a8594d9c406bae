//! Actors that refer to remote services, over QUIC.

use std::time::Duration;

use gossipmonger::{
    Gossipmonger,
    service::{Access, Address, CallFailure, Forward, Gone, NotRun, RemoteGone},
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::harness::{Cluster, all_live};

#[derive(Debug, Serialize, Deserialize)]
struct Double(u32);

#[derive(Debug, Serialize, Deserialize)]
struct Note(u32);

gossipmonger::service! {
    /// For tests.
    struct Doubler = "doubler", 1.0;

    1: call Double -> u32, idempotent;
    2: cast Note;
}

const LONG: Duration = Duration::from_secs(60);

/// Doubles numbers, and passes on notes and the failures of its children.
struct Worker;

enum WorkerMessage {
    Double(u32, RpcReplyPort<u32>),
    Note(u32),
}

#[cfg(feature = "cluster")]
impl ractor::Message for WorkerMessage {}

#[derive(Debug, PartialEq)]
enum Seen {
    Note(u32),
    Failed(Option<RemoteGone>),
}

#[ractor::actor(message = WorkerMessage, state = mpsc::UnboundedSender<Seen>, arguments = mpsc::UnboundedSender<Seen>)]
impl Worker {
    async fn pre_start(
        &self,
        _: ActorRef<WorkerMessage>,
        seen: mpsc::UnboundedSender<Seen>,
    ) -> Result<mpsc::UnboundedSender<Seen>, ActorProcessingErr> {
        Ok(seen)
    }

    async fn handle(
        &self,
        _: ActorRef<WorkerMessage>,
        message: WorkerMessage,
        seen: &mut mpsc::UnboundedSender<Seen>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WorkerMessage::Double(number, reply) => drop(reply.send(2 * number)),
            WorkerMessage::Note(number) => drop(seen.send(Seen::Note(number))),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<WorkerMessage>,
        event: SupervisionEvent,
        seen: &mut mpsc::UnboundedSender<Seen>,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(_, why) = event {
            let _ = seen.send(Seen::Failed(why.downcast_ref::<RemoteGone>().cloned()));
        }
        Ok(())
    }
}

async fn worker() -> (ActorRef<WorkerMessage>, mpsc::UnboundedReceiver<Seen>) {
    let (tell, seen) = mpsc::unbounded_channel();
    let (worker, _) = Actor::spawn(None, Worker, tell).await.unwrap();
    (worker, seen)
}

fn exposes(node: &Gossipmonger, worker: &ActorRef<WorkerMessage>) -> Address<Doubler> {
    node.expose(worker, Access::members())
        .asks(|ask: Double, reply| WorkerMessage::Double(ask.0, reply))
        .tells(|note: Note| WorkerMessage::Note(note.0))
        .start()
        .unwrap()
}

fn forward(message: WorkerMessage, to: &mut Forward<Doubler>) {
    match message {
        WorkerMessage::Double(number, reply) => to.call(Double(number), reply),
        WorkerMessage::Note(number) => to.cast(Note(number)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exposed_actor_is_called_through_a_proxy_until_its_node_leaves() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(2).await;
    all_live(&nodes).await;
    let (near, far) = (&nodes[0], &nodes[1]);
    let (worker_there, mut seen_there) = worker().await;
    let (ended, _) = worker().await;
    let old = exposes(far, &ended);
    ended.stop_and_wait(None, None).await.unwrap();
    // No node offers anything, and yet its address is called.
    let address = exposes(far, &worker_there);
    let text = serde_json::to_string(&address).unwrap();
    let remote = near.bind::<Doubler>(serde_json::from_str(&text).unwrap()).unwrap();
    let (supervisor, mut seen) = worker().await;
    let proxy = remote.proxy(supervisor.get_cell(), forward).await.unwrap();
    for number in 0..200 {
        proxy.cast(WorkerMessage::Note(number)).unwrap();
    }
    let doubled = proxy.call(|reply| WorkerMessage::Double(21, reply), Some(LONG)).await.unwrap();
    assert_eq!(doubled.unwrap(), 42);
    for number in 0..200 {
        assert_eq!(seen_there.recv().await, Some(Seen::Note(number)));
    }
    let refused = near.bind(old).unwrap().call(Double(1)).await.unwrap_err();
    assert_eq!(*refused.failure(), CallFailure::NotRun(NotRun::NoSuchService));
    far.leave_for_now().await.unwrap();
    let failed = tokio::time::timeout(LONG, seen.recv()).await.unwrap();
    let Some(Seen::Failed(Some(gone))) = failed else { panic!("{failed:?}") };
    assert_eq!((&gone.node, gone.why), (far.node(), Gone::NodeLeft));
    assert_eq!(gone.service.to_string(), "doubler/1");
}
