//! Calls go on while a node dies without a word.
//!
//! Three nodes in plain async Rust: `shop1` and `shop2` offer the service `stock`, and `till` calls it, 20 calls at a
//! time. In the middle the runtime of `shop2` is dropped: it answers nothing more and closes no connection, as if its
//! power had failed. Each call is counted by how it ended. The example fails if an idempotent call failed, or if a
//! call that is not idempotent ran twice.
//!
//! The nodes use QUIC on the loopback interface, with certificates of a temporary CA.
//!
//!     cargo run --example stock

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gossipmonger::{
    ClusterId, Config, Datacenter, Event, Gossipmonger, NodeId,
    net::quic::QuicNetwork,
    pki::{Authority, AuthorityOptions},
    service::{Access, CallError, CallFailure, Offer, Stub},
    tls::{Identity, Roots},
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

type Any = Box<dyn Error + Send + Sync>;

#[derive(Serialize, Deserialize)]
struct Level {
    item: String,
}

#[derive(Serialize, Deserialize)]
struct Reserve {
    /// Identifies the reservation, so that the example can see which one ran twice.
    order: u32,
}

gossipmonger::service! {
    /// What a shop has in store.
    struct Stock = "stock", 1.0;

    1: call Level -> u32, idempotent;
    2: call Reserve -> u32;
}

/// How often each reservation ran, at whatever node.
type Ran = Arc<Mutex<BTreeMap<u32, u32>>>;

/// How the calls of one method ended.
#[derive(Debug, Default)]
struct Ended {
    answered: u32,
    not_run: u32,
    unknown: u32,
    failed: u32,
}

const CALLERS: u32 = 20;
/// How long a handler takes.
const WORK: Duration = Duration::from_millis(5);
/// The deadline of a call: longer than a node stays undetected after its death.
const DEADLINE: Duration = Duration::from_secs(20);

fn main() -> Result<(), Any> {
    // Its own runtime, so that this node alone can die.
    let dies = Runtime::new()?;
    Runtime::new()?.block_on(async {
        let everything = tokio::time::timeout(Duration::from_secs(60), run(dies));
        everything.await.map_err(|_| "the three nodes did not find each other in time")?
    })
}

async fn run(dies: Runtime) -> Result<(), Any> {
    let authority = Authority::create(ClusterId::new("demo")?, &AuthorityOptions::default())?;
    let till = start(identity(&authority, "till")?, Vec::new()).await?;
    let seeds = till.addresses().to_vec();
    let shop1 = start(identity(&authority, "shop1")?, seeds.clone()).await?;
    let ran = Ran::default();
    let _offer1 = offer(shop1.clone(), Arc::clone(&ran)).await?;
    let (of_shop2, ran2) = (identity(&authority, "shop2")?, Arc::clone(&ran));
    let offer2 = dies.spawn(async { offer(start(of_shop2, seeds).await?, ran2).await }).await??;

    let stock = till.service::<Stock>();
    stock.ready(2, Duration::from_secs(30)).await?;
    let mut events = till.subscribe();
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| tokio::spawn(calls(stock.clone(), caller, Arc::clone(&stop))))
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;

    println!("shop2 dies");
    dies.shutdown_background();
    loop {
        match events.next().await? {
            Event::PeerSuspect { peer, .. } => println!("{peer} is suspect"),
            Event::PeerDead { peer, reason, .. } => {
                break println!("{peer} is dead: {}", reason.cause);
            }
            _ => {}
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);

    let (mut levels, mut reservations) = (Ended::default(), Ended::default());
    for caller in callers {
        let (of_levels, of_reservations) = caller.await?;
        levels.add(&of_levels);
        reservations.add(&of_reservations);
    }
    let ran = ran.lock().expect("no handler panics").clone();
    let twice = ran.values().filter(|times| **times > 1).count();
    println!("levels, idempotent:           {levels}");
    println!("reservations, not idempotent: {reservations}; {twice} ran twice");
    assert_eq!(levels.not_run + levels.unknown + levels.failed, 0, "an idempotent call failed");
    assert_eq!(twice, 0, "a call that is not idempotent ran twice");
    assert!(levels.answered > 0 && reservations.answered > 0);
    drop(offer2);
    till.leave_for_now().await?;
    shop1.leave_for_now().await?;
    Ok(())
}

/// One caller: it calls both methods in turn, until it is stopped.
async fn calls(stock: Stub<Stock>, caller: u32, stop: Arc<AtomicBool>) -> (Ended, Ended) {
    let (mut levels, mut reservations) = (Ended::default(), Ended::default());
    let mut order = caller;
    while !stop.load(Ordering::Relaxed) {
        // Tried again at the other shop, also if it may have run.
        levels.count(&stock.call(Level { item: "tea".to_owned() }).within(DEADLINE).await);
        // Tried again only if it has certainly not run. Otherwise the application has to find out what happened.
        reservations.count(&stock.call(Reserve { order }).within(DEADLINE).await);
        order += CALLERS;
    }
    (levels, reservations)
}

async fn offer(node: Gossipmonger, ran: Ran) -> Result<Offer, Any> {
    let offer = node
        .offer::<Stock>(Access::members())
        .call(|_: Level, _| async {
            tokio::time::sleep(WORK).await;
            3
        })
        .call(move |ask: Reserve, _| {
            let ran = Arc::clone(&ran);
            async move {
                *ran.lock().expect("no handler panics").entry(ask.order).or_default() += 1;
                tokio::time::sleep(WORK).await;
                ask.order
            }
        })
        .start()
        .await?;
    Ok(offer)
}

fn identity(authority: &Authority, name: &str) -> Result<(Identity, Roots), Any> {
    let (node, datacenter) = (NodeId::new(name)?, Datacenter::new("eu")?);
    let issued = authority.issue(node, datacenter, Duration::from_secs(3_600))?;
    let key = issued.key_pem.as_bytes();
    let identity = Identity::from_pem(issued.certificate_pem.as_bytes(), key)?;
    Ok((identity, Roots::from_pem(issued.roots_pem.as_bytes())?))
}

async fn start(
    (identity, roots): (Identity, Roots),
    seeds: Vec<String>,
) -> Result<Gossipmonger, Any> {
    let mut config = Config::new(identity.name()).local();
    config.seeds = seeds;
    let (node, _) = Gossipmonger::spawn(config, QuicNetwork::new(identity, roots)?).await?;
    Ok(node)
}

impl Ended {
    fn count<T>(&mut self, result: &Result<T, CallError>) {
        let Err(error) = result else {
            self.answered += 1;
            return;
        };
        println!("  {error}");
        match error.failure() {
            CallFailure::NotRun(_) => self.not_run += 1,
            CallFailure::Unknown(_) => self.unknown += 1,
            _ => self.failed += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.not_run += other.not_run;
        self.unknown += other.unknown;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { answered, not_run, unknown, failed } = self;
        write!(f, "{answered} answered, {not_run} not run, {unknown} unknown, {failed} failed")
    }
}
