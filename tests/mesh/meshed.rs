//! What a mesh gives: remote actors, groups, monitors.

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent, call_t, cast, pg};
use tokio::sync::mpsc;

use crate::process::{ECHO, Echo, EchoMessage, Process, alone, authority, id, plan, remote, until};

/// Tells what happens in a process group.
struct Watcher;

enum Nothing {}

impl ractor::Message for Nothing {}

#[ractor::actor(message = Nothing, state = mpsc::UnboundedSender<usize>, arguments = mpsc::UnboundedSender<usize>)]
impl Watcher {
    async fn pre_start(
        &self,
        myself: ActorRef<Nothing>,
        left: mpsc::UnboundedSender<usize>,
    ) -> Result<mpsc::UnboundedSender<usize>, ActorProcessingErr> {
        pg::monitor(ECHO.to_owned(), myself.get_cell());
        Ok(left)
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Nothing>,
        event: SupervisionEvent,
        left: &mut mpsc::UnboundedSender<usize>,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ProcessGroupChanged(pg::GroupChangeMessage::Leave(_, _, who)) =
            event
        {
            let _ = left.send(who.len());
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remote_actors_are_called_and_monitored_and_leave_their_group_with_their_process() {
    let (_alone, authority) = (alone().await, authority());
    let here = plan(&authority, "m", &[]);
    let node = here.node().await;
    let mesh = here.mesh(&node).await;
    let seeds = node.addresses().to_vec();
    // One that dials this node, and one that this node dials.
    let mut far = [
        Process::start(&plan(&authority, "a", &seeds)),
        Process::start(&plan(&authority, "z", &seeds)),
    ];
    until("both are ready", || mesh.ready().len() == 2).await;
    assert_eq!(mesh.ready(), [id("a"), id("z")].into());
    until("their actors are in the group", || remote().len() == 2).await;
    let (left, mut leaves) = mpsc::unbounded_channel();
    let (watcher, _) = Actor::spawn(None, Watcher, left).await.unwrap();

    for echo in remote() {
        let body = vec![7; 100_000];
        assert_eq!(call_t!(echo, EchoMessage::Call, 10_000, body.clone()).unwrap(), body);
        for _ in 0..100 {
            cast!(echo, EchoMessage::Cast(vec![1])).unwrap();
        }
        assert_eq!(call_t!(echo, EchoMessage::Received, 10_000).unwrap(), 100);
    }

    let held = remote();
    far[0].kill();
    until("its session has ended", || mesh.ready() == [id("z")].into()).await;
    until("its actor has left the group", || remote().len() == 1).await;
    assert_eq!(leaves.recv().await, Some(1), "the monitor is told");
    let void = held.iter().filter(|echo| echo.cast(EchoMessage::Cast(Vec::new())).is_err()).count();
    assert_eq!(void, 1, "the reference to it does not pretend to work");

    watcher.stop(None);
    mesh.stop().await;
    until("who leaves the mesh has no remote actors", || remote().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_actors_are_seen_and_called_from_the_other_process() {
    let (_alone, authority) = (alone().await, authority());
    let here = plan(&authority, "m", &[]);
    let node = here.node().await;
    let (echo, _) = Actor::spawn(None, Echo, ()).await.unwrap();
    let mesh = here.mesh(&node).await;
    let far = Process::start(&plan(&authority, "a", node.addresses()));
    until("its actor is in the group", || remote().len() == 1).await;
    // An actor that joins later is told as well, and one that ends leaves.
    let (later, _) = Actor::spawn(None, Echo, ()).await.unwrap();
    assert_eq!(pg::get_members(&ECHO.to_owned()).len(), 3);
    later.stop(None);
    echo.stop(None);
    until("only the remote one is left", || pg::get_members(&ECHO.to_owned()).len() == 1).await;
    drop(far);
    until("the group is empty", || pg::get_members(&ECHO.to_owned()).is_empty()).await;
    mesh.stop().await;
}
