//! The nodes that may answer a caller, by what their certificates prove.

use std::time::Duration;

use gossipmonger::{
    Datacenter, Gossipmonger,
    pki::Existing,
    service::{Access, CallError, CallFailure, NotRun, Offer},
    tls::{Identity, Naming, Roots},
};
use serde::{Deserialize, Serialize};

use crate::{
    harness::{Cluster, all_live, id},
    start::{self, Start},
};

#[derive(Serialize, Deserialize)]
struct Who;

#[derive(Serialize, Deserialize)]
struct Told;

gossipmonger::service! {
    /// For tests.
    struct Names = "names", 1.0;

    1: call Who -> String, idempotent;
    2: cast Told;
    3: stream Each -> String;
}

#[derive(Serialize, Deserialize)]
struct Each;

const LONG: Duration = Duration::from_secs(600);

/// Two nodes of `dc1`, of which `n1` offers the service. `naming`: how certificates are read.
async fn two(naming: &Naming) -> (Vec<Gossipmonger>, Offer) {
    let cluster = Cluster::new("demo");
    let mut nodes = Vec::new();
    for name in ["n0", "n1"] {
        let issued = {
            let datacenter = Datacenter::new("dc1").unwrap();
            cluster.authority.issue(id(name), datacenter, LONG).unwrap()
        };
        let directory = tempfile::tempdir().unwrap();
        issued.save(directory.path(), Existing::Refuse).unwrap();
        let at = |name| directory.path().join(name);
        let identity = Identity::from_pem_files_named(at("node.pem"), at("node.key"), naming);
        let identity = identity.unwrap();
        let roots = Roots::from_pem(issued.roots_pem.as_bytes()).unwrap();
        let mut config = Start::new(identity, roots).unwrap().local();
        config.seeds = nodes.iter().flat_map(|n: &Gossipmonger| n.addresses().to_vec()).collect();
        nodes.push(start::spawn(config).await.unwrap().0);
    }
    all_live(&nodes).await;
    let offer = nodes[1]
        .offer::<Names>(Access::members())
        .call(|_: Who, _| std::future::ready("n1".to_owned()))
        .cast(|_: Told, _| std::future::ready(()))
        .stream(|_: Each, mut items, _| async move {
            items.send(&"n1".to_owned()).await?;
            Ok(())
        })
        .start()
        .await
        .unwrap();
    (nodes, offer)
}

fn dc1() -> Access {
    Access::datacenter(Datacenter::new("dc1").unwrap())
}

fn not_trusted<T: std::fmt::Debug>(result: Result<T, CallError>) {
    let failed = result.unwrap_err();
    assert_eq!(*failed.failure(), CallFailure::NotRun(NotRun::NotTrusted), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datacenter_that_no_certificate_names_is_not_trusted_to_answer() {
    let here = Datacenter::new("dc1").unwrap();
    // The nodes say where they are; their certificates are read as if they did not.
    let naming = Naming::new("spiffe://{cluster}/dc1/{node}", None, Some(here)).unwrap();
    let (nodes, _offer) = two(&naming).await;
    let all = nodes[0].service::<Names>();
    all.ready(1, LONG).await.unwrap();
    assert_eq!(all.call(Who).await.unwrap(), "n1");
    let names = all.only_from(dc1());
    names.ready(1, LONG).await.unwrap();
    not_trusted(names.call(Who).await);
    not_trusted(names.call(Who).alone().await);
    not_trusted(names.cast(Told).await);
    not_trusted(names.try_cast(&Told));
    not_trusted(names.stream(Each).await.map(|_| ()));
    not_trusted(names.at(&id("n1")).unwrap().call(Who).await);
    // Its name is proved.
    let named = all.only_from(dc1().and(Access::node(id("n1"))));
    assert_eq!(named.call(Who).await.unwrap(), "n1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datacenter_that_the_certificate_names_may_answer() {
    let (nodes, _offer) = two(&Naming::default()).await;
    let names = nodes[0].service::<Names>().only_from(dc1());
    names.ready(1, LONG).await.unwrap();
    // Nothing is sent before the certificate was seen.
    let early = names.try_cast(&Told).unwrap_err();
    assert!(matches!(early.failure(), CallFailure::NotRun(NotRun::NotConnected(_))), "{early}");
    assert_eq!(names.call(Who).await.unwrap(), "n1");
    names.try_cast(&Told).unwrap();
    names.cast(Told).await.unwrap();
    let mut each = names.stream(Each).await.unwrap();
    assert_eq!(each.next().await.unwrap(), Some("n1".to_owned()));
    assert_eq!(names.call(Who).alone().await.unwrap(), "n1");
}
