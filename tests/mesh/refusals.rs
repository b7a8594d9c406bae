//! Whom a mesh does not take, and what it does not.

use std::fs;

use gossipmonger::service::mesh::{FRAME_BYTES_MAX, GROUP_BYTES_MAX, Mesh, MeshError, MeshOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    liar::{join, name, send},
    process::{GROUP, Process, alone, authority, id, is_there, plan, remote, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_in_one_mesh_with_a_name_that_fits() {
    let (_alone, authority) = (alone().await, authority());
    let here = plan(&authority, "m", &[]);
    let node = here.node().await;
    for group in [String::new(), "g".repeat(GROUP_BYTES_MAX + 1)] {
        let started = Mesh::start(&node, MeshOptions::new(group)).await;
        assert!(matches!(started, Err(MeshError::Group { .. })), "{started:?}");
    }
    let mesh = here.mesh(&node).await;
    let second = Mesh::start(&node, MeshOptions::new("other")).await;
    assert!(matches!(second, Err(MeshError::Taken)), "{second:?}");
    mesh.stop().await;
    here.mesh(&node).await.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_another_group_are_not_meshed() {
    let (_alone, authority) = (alone().await, authority());
    let here = plan(&authority, "m", &[]);
    let node = here.node().await;
    let mesh = here.mesh(&node).await;
    let seeds = node.addresses().to_vec();
    let _other = Process::start(&plan(&authority, "a", &seeds).in_group("others"));
    let _same = Process::start(&plan(&authority, "b", &seeds));
    until("the one of the same group is attached", || remote().len() == 1).await;
    until("the other one has refused", || mesh.figures().refused() == 1).await;
    assert_eq!(mesh.ready(), [id("b")].into());
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_takes_the_name_of_another_gets_no_session() {
    let (_alone, authority) = (alone().await, authority());
    let here = plan(&authority, "m", &[]);
    let node = here.node().await;
    let mesh = here.mesh(&node).await;
    let seeds = node.addresses().to_vec();
    let _honest = Process::start(&plan(&authority, "y", &seeds));
    until("y is attached", || remote().len() == 1).await;
    let liar = plan(&authority, "z", &seeds).node().await;
    let (answer, mut tx, mut rx) = join(&liar, &id("m"), GROUP).await;
    assert_eq!(answer, 0, "it is a member of the group");
    send(&mut tx, &name("y@1")).await;
    rx.read_to_end(&mut Vec::new()).await.expect_err("the stream breaks off");
    until("it is counted", || mesh.figures().misnamed() == 1).await;
    assert_eq!(mesh.ready(), [id("y")].into(), "the honest one is still there");
    assert_eq!(remote().len(), 1);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_too_long_or_comes_before_the_name_ends_the_session() {
    let (_alone, authority) = (alone().await, authority());
    let here = plan(&authority, "m", &[]);
    let node = here.node().await;
    let mesh = here.mesh(&node).await;
    let liar = plan(&authority, "z", node.addresses()).node().await;
    let (_, mut tx, mut rx) = join(&liar, &id("m"), GROUP).await;
    tx.write_u64(FRAME_BYTES_MAX + 1).await.unwrap();
    rx.read_to_end(&mut Vec::new()).await.expect_err("the stream breaks off");
    until("it is counted", || mesh.figures().oversized() == 1).await;
    let (_, mut tx, mut rx) = join(&liar, &id("m"), GROUP).await;
    send(&mut tx, &[2 << 3 | 2, 0]).await;
    rx.read_to_end(&mut Vec::new()).await.expect_err("the stream breaks off");
    until("it is counted", || mesh.figures().disordered() == 1).await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_that_has_to_be_dialed_does_not_dial() {
    let (_alone, authority) = (alone().await, authority());
    let here = plan(&authority, "m", &[]);
    let node = here.node().await;
    let mesh = here.mesh(&node).await;
    let liar = plan(&authority, "a", node.addresses()).node().await;
    let (answer, _tx, mut rx) = join(&liar, &id("m"), GROUP).await;
    assert_eq!(answer, 2);
    assert_eq!(rx.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    assert_eq!(mesh.figures().sessions(), 0);
    mesh.stop().await;
}

/// The ports of 127.0.0.1 on which this process listens.
fn listening() -> Vec<u16> {
    let own = fs::read_dir("/proc/self/fd").expect("open files");
    let own: Vec<_> = own
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    let table = fs::read_to_string("/proc/self/net/tcp").expect("the table of sockets");
    let listens = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (local, state, inode) = (*fields.get(1)?, *fields.get(3)?, *fields.get(9)?);
        let mine = own.contains(&format!("socket:[{inode}]"));
        let (host, port) = local.split_once(':')?;
        (mine && state == "0A" && host == "0100007F").then(|| u16::from_str_radix(port, 16).ok())?
    });
    listens.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_of_ractor_cluster_lets_nobody_in() {
    if !is_there("/proc/self/net/tcp") {
        println!("skipped: there is no /proc");
        return;
    }
    let (_alone, authority) = (alone().await, authority());
    let here = plan(&authority, "m", &[]);
    let node = here.node().await;
    let before = listening();
    let mesh = here.mesh(&node).await;
    let doors: Vec<_> = listening().into_iter().filter(|port| !before.contains(port)).collect();
    assert_eq!(doors.len(), 1, "ractor_cluster listens on loopback: {doors:?}");
    // In plain text, as its clients do, and with the beginning of a TLS handshake.
    let mut plain = name("z@1");
    plain.splice(0..0, (plain.len() as u64).to_be_bytes());
    for hello in [plain, b"\x16\x03\x01\x00\x05hello".to_vec()] {
        let mut stream = TcpStream::connect(("127.0.0.1", doors[0])).await.unwrap();
        stream.write_all(&hello).await.unwrap();
        let mut answer = Vec::new();
        // It is closed, at most after an alert of TLS.
        drop(stream.read_to_end(&mut answer).await);
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    assert_eq!((mesh.ready().len(), mesh.figures().sessions()), (0, 0));
    mesh.stop().await;
}
