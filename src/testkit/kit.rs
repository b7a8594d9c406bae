//! The nodes of one run: [`Kit`].

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{
    machine::{Machine, Running, midnight},
    process::Process,
    trace::Trace,
};
use crate::{
    ambient::{Given, losses::Losses},
    clock::Clock,
    net::{BoxFuture, limits::QuicLimits, memory::MemoryNetwork},
    node::{Backends, Gossipmonger, config::Config, subscription::SubscriptionError},
    protocol::{
        id::{ClusterId, Datacenter, NodeId},
        time::Time,
    },
    store::{Store, memory::MemoryStore},
    tls::PeerName,
};

/// The cluster of all nodes.
const CLUSTER: &str = "testkit";
/// The datacenter of [`Kit::config`].
const DATACENTER: &str = "dc";
/// The delays of messages, unless a test sets others.
const DELAYS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_millis(5);

type Setup = Arc<dyn Fn(Process) -> BoxFuture<'static, ()> + Send + Sync>;

/// Several nodes in one process, in virtual time. Cheap to clone.
///
/// Nodes are called by name. A method that gets the name of a node that was never started panics, like an assertion.
#[derive(Clone)]
pub struct Kit(Arc<Inner>);

struct Inner {
    seed: u64,
    clock: Clock,
    begun: Time,
    network: MemoryNetwork,
    losses: Arc<Losses>,
    rng: Mutex<SmallRng>,
    trace: Trace,
    setup: Mutex<Option<Setup>>,
    machines: Mutex<BTreeMap<NodeId, Machine>>,
}

impl Kit {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (network, clock) = (MemoryNetwork::new(), Clock::start());
        network.set_patience(QuicLimits::default().idle_timeout, rng.next_u64());
        network.set_delays(DELAYS);
        Self(Arc::new(Inner {
            seed,
            clock,
            begun: clock.now(),
            network,
            losses: Arc::default(),
            rng: Mutex::new(rng),
            trace: Trace::default(),
            setup: Mutex::default(),
            machines: Mutex::default(),
        }))
    }

    /// The seed of this run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// A generator for the test's own choices, which follows from the seed. Each call gives another one.
    #[must_use]
    pub fn rng(&self) -> impl Rng + Clone + Send + use<> {
        SmallRng::seed_from_u64(self.draw())
    }

    pub(super) fn draw(&self) -> u64 {
        self.0.rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    /// The virtual time since the start of the run.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.clock.now().since(self.0.begun)
    }

    /// What a process does once its node has started, at each start and restart: offer services, spawn actors, subscribe.
    /// [`Kit::start`] and [`Kit::restart`] return when that is done. It counts for nodes that start from now on.
    pub fn on_start<F>(&self, setup: impl Fn(Process) -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let setup: Setup = Arc::new(move |process| Box::pin(setup(process)));
        *self.0.setup.lock().unwrap_or_else(PoisonError::into_inner) = Some(setup);
    }

    /// The configuration with which [`Kit::start`] starts a node: the defaults, with all nodes so far as seeds.
    ///
    /// # Panics
    /// If this is no name of a node.
    #[must_use]
    pub fn config(&self, name: &str) -> Config {
        let constant = "a valid label";
        let name = PeerName {
            cluster: ClusterId::new(CLUSTER).expect(constant),
            datacenter: Datacenter::new(DATACENTER).expect(constant),
            node: id(name),
        };
        let mut config = Config::new(&name);
        config.seeds = self.machines().keys().map(MemoryNetwork::address).collect();
        config
    }

    /// Starts a node. It keeps its store, its clock and its certificate in later restarts.
    ///
    /// # Panics
    /// If a node of that name was started before, or it does not start.
    pub async fn start(&self, name: &str) -> Gossipmonger {
        self.start_with(self.config(name)).await
    }

    /// Starts these nodes one after the other, and waits until they have [converged](Kit::converged), for at most a
    /// minute.
    ///
    /// # Panics
    /// As [`Kit::start`] and [`Kit::converged`].
    pub async fn start_all<const N: usize>(&self, names: [&str; N]) -> [Gossipmonger; N] {
        for name in names {
            self.start(name).await;
        }
        self.converged(Duration::from_secs(60)).await;
        names.map(|name| self.node(name))
    }

    /// Starts a node with a configuration of your own: [`Kit::config`] with changes.
    ///
    /// # Panics
    /// As [`Kit::start`].
    pub async fn start_with(&self, config: Config) -> Gossipmonger {
        self.start_on(config, Arc::new(MemoryStore::new())).await
    }

    /// As [`Kit::start_with`], with a store of your own. One that blocks has a thread, whose speed is not virtual.
    ///
    /// # Panics
    /// As [`Kit::start`].
    pub async fn start_on(&self, config: Config, store: Arc<dyn Store>) -> Gossipmonger {
        let node = config.node.clone();
        let given = Given::new(self.0.clock, midnight(), self.draw(), &self.0.losses);
        let machine = Machine { config, given, store, running: None };
        let before = self.machines().insert(node.clone(), machine);
        assert!(before.is_none(), "{node} was started before: use restart");
        self.run(&node).await
    }

    /// Starts a node again that was killed or stopped: with the same configuration and store.
    ///
    /// # Panics
    /// If it runs, or does not start.
    pub async fn restart(&self, name: &str) -> Gossipmonger {
        let node = id(name);
        assert!(!self.is_running(name), "{node} runs: kill or stop it first");
        self.run(&node).await
    }

    async fn run(&self, id: &NodeId) -> Gossipmonger {
        let (config, backends) = self.with(id, |machine| {
            let backends = Backends::from(self.0.network.place())
                .with_store(Arc::clone(&machine.store))
                .with_ambient(machine.given.ambient());
            (machine.config.clone(), backends)
        });
        self.note(format!("{id} starts"));
        let started = Gossipmonger::spawn(config, backends).await;
        let (node, ended) = started.unwrap_or_else(|error| panic!("{id} does not start: {error}"));
        let process = Process::new(node.clone());
        let recorder = tokio::spawn(self.clone().record(node.clone()));
        let running = Running { process: process.clone(), ended, recorder };
        self.with(id, |machine| machine.running = Some(running));
        let setup = self.0.setup.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(setup) = setup {
            setup(process).await;
        }
        node
    }

    /// Writes the events of a node into the trace.
    async fn record(self, node: Gossipmonger) {
        let mut events = node.subscribe();
        loop {
            match events.next().await {
                Ok(event) => self.note(format!("{} {event:?}", node.node())),
                Err(SubscriptionError::Lagged(missed)) => {
                    self.note(format!("{} reports {missed} more events", node.node()));
                }
                Err(_) => return,
            }
        }
    }

    /// Kills a node and its [`Process`] at once, as `kill -9` does: its peers have to find out.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn kill(&self, name: &str) {
        let running = self.take(name);
        self.0.network.crash(&id(name));
        self.note(format!("{name} is killed"));
        running.kill().await;
    }

    /// Stops a node: it informs its peers, and waits for calls in progress
    /// ([`leave_for_now`](Gossipmonger::leave_for_now)). Then its [`Process`] ends.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn stop(&self, name: &str) {
        let running = self.take(name);
        self.note(format!("{name} stops"));
        running.stop().await;
    }

    fn take(&self, name: &str) -> Running {
        let running = self.with(&id(name), |machine| machine.running.take());
        running.unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// The present handle of a node.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn node(&self, name: &str) -> Gossipmonger {
        self.process(name).node().clone()
    }

    /// The present process of a node.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn process(&self, name: &str) -> Process {
        let running = self.with(&id(name), |machine| {
            machine.running.as_ref().map(|running| running.process.clone())
        });
        running.unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// Whether a node runs.
    ///
    /// # Panics
    /// If it was never started.
    #[must_use]
    pub fn is_running(&self, name: &str) -> bool {
        self.with(&id(name), |machine| machine.running.is_some())
    }

    /// Adds a line to the trace.
    pub fn note(&self, line: impl Into<String>) {
        self.0.trace.note(self.now(), line.into());
    }

    /// What happened so far: one line for each event of each node, for each action of the test, and for each
    /// [`Kit::note`], with its virtual time in seconds. It keeps the last 100,000 lines.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.0.trace.lines()
    }

    /// Kills all nodes.
    pub(super) async fn end(&self) {
        let running: Vec<_> =
            self.machines().values_mut().filter_map(|machine| machine.running.take()).collect();
        for running in running {
            self.0.network.crash(running.node().node());
            running.kill().await;
        }
    }

    pub(super) fn network(&self) -> &MemoryNetwork {
        &self.0.network
    }

    pub(super) fn losses(&self) -> &Losses {
        &self.0.losses
    }

    pub(super) fn machines(&self) -> MutexGuard<'_, BTreeMap<NodeId, Machine>> {
        self.0.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn with<T>(&self, id: &NodeId, act: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machines = self.machines();
        act(machines.get_mut(id).unwrap_or_else(|| panic!("{id} was never started")))
    }
}

/// The id of a name.
pub(super) fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap_or_else(|error| panic!("{name:?} is no name of a node: {error}"))
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").field("seed", &self.0.seed).finish_non_exhaustive()
    }
}
