//! A node that is killed and comes back.

use std::time::{Duration, Instant};

use ractor::call_t;

use crate::process::{EchoMessage, Process, alone, authority, id, plan, remote, until};

const LIVES: u32 = 20;
const NODES: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stands_still_loses_its_session_with_the_dead_verdict_and_comes_back() {
    let (_alone, authority) = (alone().await, authority());
    let here = plan(&authority, "m", &[]);
    let node = here.node().await;
    let mesh = here.mesh(&node).await;
    let far = Process::start(&plan(&authority, "a", node.addresses()));
    until("it is attached", || remote().len() == 1).await;
    let before = remote();
    far.signal("-STOP");
    until("it is dead", || node.dead_peers().len() == 1).await;
    until("its actor has left the group", || remote().is_empty()).await;
    assert!(mesh.ready().is_empty());
    assert!(
        before[0].cast(EchoMessage::Cast(Vec::new())).is_err(),
        "the reference pretends to work"
    );
    far.signal("-CONT");
    until("it is attached again", || remote().len() == 1 && mesh.ready().len() == 1).await;
    let answered = call_t!(remote()[0], EchoMessage::Call, 10_000, vec![1]);
    assert_eq!(answered.unwrap(), [1]);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_sees_the_actors_of_a_mesh_of_twenty() {
    let (_alone, authority) = (alone().await, authority());
    let first = Process::start(&plan(&authority, "p00", &[]));
    let seeds = vec![first.address.clone()];
    let mut all = vec![first];
    for n in 1..NODES {
        all.push(Process::start(&plan(&authority, &format!("p{n:02}"), &seeds)));
    }
    // Between the others by name: it dials half of them, and half of them dial it.
    let here = plan(&authority, "p09x", &seeds);
    let node = here.node().await;
    until("it knows all others", || node.live_peers().len() == NODES).await;
    let started = now();
    let mesh = here.mesh(&node).await;
    until("it sees the actors of all", || remote().len() == NODES).await;
    println!(
        "the actors of {NODES} nodes were there {:?} after the mesh was started",
        started.elapsed()
    );
    assert_eq!(mesh.ready().len(), NODES);
    assert_eq!(mesh.figures().sessions(), NODES as u64, "one session with each");
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_twenty_times_is_attached_again_each_time() {
    let (_alone, authority) = (alone().await, authority());
    let here = plan(&authority, "m", &[]);
    let node = here.node().await;
    let mesh = here.mesh(&node).await;
    let seeds = node.addresses().to_vec();
    let (far, mut slowest) = (id("z"), Duration::ZERO);
    let mut plan = plan(&authority, "z", &seeds);
    let mut process = Process::start(&plan);
    // It comes back at its address.
    plan = plan.at(&process.address);
    until("it is attached", || remote().len() == 1).await;
    for life in 1..=LIVES {
        let before = remote();
        process.kill();
        let started = now();
        process = Process::start(&plan);
        until("it is attached again", || {
            let now = remote();
            mesh.ready().contains(&far) && now.len() == 1 && now[0].get_id() != before[0].get_id()
        })
        .await;
        slowest = slowest.max(started.elapsed());
        assert!(
            before[0].cast(EchoMessage::Cast(Vec::new())).is_err(),
            "life {life}: the earlier reference pretends to work"
        );
        let answered = call_t!(remote()[0], EchoMessage::Call, 10_000, vec![1]);
        assert_eq!(answered.unwrap(), [1], "life {life}");
    }
    println!(
        "attached at most {slowest:?} after its process was started; {} sessions",
        mesh.figures().sessions()
    );
    assert_eq!(mesh.figures().sessions(), u64::from(LIVES) + 1, "one session for each life");
    mesh.stop().await;
}

#[expect(clippy::disallowed_methods, reason = "it is printed, and decides nothing")]
fn now() -> Instant {
    Instant::now()
}
