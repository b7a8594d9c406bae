//! The start of a node: its store, its network, its actors.

use std::sync::{Arc, atomic::AtomicBool};

use ractor::{Actor, ActorCell};
use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    Backends, Gossipmonger,
    actors::supervisor::{Arguments, Root},
    channel::Channel,
    config::Config,
    diagnostics::{Diagnostics, Outboxes},
    ending::{End, shut},
    error::SpawnError,
    host::Host,
    lag::LagMeter,
    links::table::Links,
    own_store::{prepare_store, start_writer},
    published::Published,
    releasing::release_at_end,
    routes::Routes,
    services::table::Services,
    share::Shares,
    shared::Shared,
    write_room::WriteRoom,
    writer::Writer,
};
use crate::{
    ambient::Ambient,
    clock::Clock,
    counters::Counters,
    lateness::Lateness,
    net::{Endpoint, Network, Opening},
    protocol::{event::Event, peering::PeeringConfig, session::Session},
    store::Stored,
    tls::PeerName,
};

/// What a node has before its network and its actors start.
struct Opened {
    counters: Arc<Counters>,
    events: Arc<Channel<Event>>,
    writer: Arc<Writer>,
    lateness: Arc<Lateness>,
    ambient: Ambient,
    #[cfg(feature = "sim")]
    tape: Option<super::tape::Tape>,
}

impl Gossipmonger {
    pub(super) async fn start(
        config: Config,
        backends: Backends,
        supervisor: Option<ActorCell>,
    ) -> Result<(Self, JoinHandle<()>), SpawnError> {
        config.check()?;
        let counters = Arc::new(Counters::default());
        let events = Arc::new(Channel::new(config.event_queue));
        // Only the writer holds the store. So the store is released when the node has ended, however
        // long handles of the node are kept.
        let writer = Arc::new(start_writer(backends.store, &config, &counters, &events)?);
        let opened = Opened {
            counters,
            events,
            writer: Arc::clone(&writer),
            lateness: Arc::default(),
            ambient: backends.ambient,
            #[cfg(feature = "sim")]
            tape: backends.tape,
        };
        let started = Self::open(config, backends.network.as_ref(), opened, supervisor).await;
        if started.is_err() {
            // The store belongs to the caller again.
            writer.close().await;
        }
        started
    }

    async fn open(
        config: Config,
        network: &dyn Network,
        opened: Opened,
        supervisor: Option<ActorCell>,
    ) -> Result<(Self, JoinHandle<()>), SpawnError> {
        let (stored, keys) = prepare_store(&config, &opened.writer).await?;
        let name = PeerName {
            cluster: config.cluster.clone(),
            datacenter: config.datacenter.clone(),
            node: config.node.clone(),
        };
        let shared = (&opened.counters, &opened.lateness);
        let opening = Opening::new(name, (&config.listen, config.quic), &keys, shared);
        let endpoint = network.open(opening).await?;
        let open = Arc::clone(&endpoint);
        let started = Self::start_actors(config, opened, stored, open, supervisor).await;
        if started.is_err() {
            shut(&*endpoint).await;
        }
        started
    }

    async fn start_actors(
        mut config: Config,
        opened: Opened,
        stored: Stored,
        endpoint: Arc<dyn Endpoint>,
        supervisor: Option<ActorCell>,
    ) -> Result<(Self, JoinHandle<()>), SpawnError> {
        if config.advertise.is_empty() {
            config.advertise = endpoint.addresses();
        }
        let candidates = stored.peers.values().flat_map(|peer| peer.addresses.clone()).collect();
        let clock = Clock::start();
        let shared = Arc::new(Shared {
            clock,
            ambient: opened.ambient.clone(),
            published: Published::new(opened.events),
            routes: Routes::default(),
            end: End::default(),
            diagnostics: Diagnostics::new(opened.counters),
            lag: LagMeter::new(opened.lateness),
            endpoint: Arc::downgrade(&endpoint),
            writer: opened.writer,
            write_room: WriteRoom::new(config.write_queue_bytes),
            session: Session::new(config.cluster.clone(), config.node.clone()),
            clients: Arc::default(),
            services: Arc::new(Services::new(
                config.services,
                (clock, opened.ambient),
                config.datacenter.clone(),
            )),
            #[cfg(feature = "sim")]
            switch: super::switch::Switch::default(),
            #[cfg(feature = "sim")]
            tape: opened.tape,
            shares: Shares::default(),
            renewed: AtomicBool::new(false),
            config,
        });
        let host = Host::new(Arc::clone(&shared));
        let links = Links::new(host, peering(&shared.config), shared.config.quic.exchanges);
        let links = Arc::new(links);
        let outboxes: Arc<dyn Outboxes> = Arc::clone(&links) as _;
        // It is set only here.
        let _ = shared.diagnostics.outboxes.set(Arc::downgrade(&outboxes));
        let arguments = Arguments {
            shared: Arc::clone(&shared),
            endpoint: Arc::clone(&endpoint),
            links,
            candidates,
        };
        let spawned = match supervisor {
            Some(supervisor) => Actor::spawn_linked(None, Root, arguments, supervisor).await,
            None => Actor::spawn(None, Root, arguments).await,
        };
        let (root, running) = spawned.map_err(|error| SpawnError::Actor(error.to_string()))?;
        release_at_end(Arc::clone(&shared), endpoint, running);
        let waiting = Arc::clone(&shared);
        let ended = tokio::spawn(async move { waiting.end.completed().await });
        Ok((Self { shared, root: root.get_cell(), runtime: Handle::current() }, ended))
    }
}

/// The settings that the peering machine takes from the configuration.
fn peering(config: &Config) -> PeeringConfig {
    PeeringConfig {
        node: config.node.clone(),
        datacenter: config.datacenter.clone(),
        gossip_interval: config.gossip_interval,
        bar: config.quic.bar,
        push_bytes_per_second: config.push_bytes_per_second,
        wan_bytes_per_second: config.wan_bytes_per_second,
    }
}
