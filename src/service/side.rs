//! The calling process: a node, which can call itself as well, or a client.

use std::{fmt, pin::Pin, sync::Arc};

use bytes::Bytes;
use tokio::runtime::Handle;

use tokio::task::AbortHandle;

use super::{Caller, Gone};
use crate::{
    net::pipe,
    node::{
        Gossipmonger,
        host::Host,
        messages::ServicesMessage,
        services::{
            converse,
            exposed::Exposed,
            link::Link,
            offered::Offered,
            outbound::Outbound,
            pace::Waited,
            stream::{self, OpenStream},
            table::Called,
        },
    },
    protocol::{
        id::{Generation, NodeId},
        route::Counter,
        service::{ServiceId, balance::Balance},
        state::PeerState,
        time::Time,
    },
};

/// Ready once a process calls no more.
pub(super) type End<'a> = Pin<Box<dyn Future<Output = ()> + Send + Sync + 'a>>;

/// The process that calls.
pub(super) trait Side: fmt::Debug + Send + Sync {
    /// Who offers what, its connections, its limits and its clock.
    fn outbound(&self) -> &Arc<Outbound>;

    /// Whether it calls no more.
    fn has_ended(&self) -> bool;

    /// Waits until it calls no more.
    fn ended(&self) -> End<'_>;

    /// Its runtime.
    fn runtime(&self) -> &Handle;

    /// Increments a counter.
    fn count(&self, counter: Counter);

    /// Begins to dial a node.
    fn dial(&self, link: Arc<Link>);

    /// The figures of a caller that has called nothing yet.
    fn balance(&self) -> Balance;

    /// The phi of a node, divided by the phi at which it is dead; 0 if it is not known.
    fn suspicion(&self, node: &NodeId, now: Time) -> f64;

    /// Why a node does not offer what it offered in this generation, and is not listed with now; `None` if it may offer
    /// it again.
    fn unlisted(&self, node: &NodeId, generation: Generation) -> Option<Gone>;

    /// The node in this process, if there is one.
    fn here(&self) -> Option<&Here> {
        None
    }
}

/// The node of this process, which calls itself without a connection.
#[derive(Debug)]
pub(super) struct Here {
    node: Gossipmonger,
    caller: Arc<Caller>,
}

impl Here {
    /// A call of this node to itself is a call of a member: its own certificate proves the rest.
    pub(super) fn new(node: Gossipmonger) -> Self {
        let config = &node.shared.config;
        let caller = Caller::Node {
            node: config.node.clone(),
            datacenter: Some(config.datacenter.clone()),
            generation: node.generation(),
        };
        Self { node, caller: Arc::new(caller) }
    }

    /// Its name.
    pub(super) fn node(&self) -> &NodeId {
        self.node.node()
    }

    /// Its present generation.
    pub(super) fn generation(&self) -> Generation {
        self.node.generation()
    }

    /// This node as the caller of its own services.
    pub(super) const fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// The caller's end of a stream to this node itself. The other end is served until the guard is dropped.
    pub(super) fn open(&self) -> (OpenStream, AbortOnDrop) {
        let services = &self.node.shared.services;
        let (near, far) = pipe::two_way();
        let shared = Arc::clone(&self.node.shared);
        let host = Host::new(Arc::clone(&shared));
        let questions = services.questions(self.caller.name());
        let served = converse::run(
            host,
            Arc::clone(&self.caller),
            None,
            questions,
            (far, Waited::default()),
        );
        let served = self.node.runtime.spawn(async move {
            // The streams of other nodes end with their connections.
            tokio::select! {
                biased;
                served = served => drop(served),
                () = shared.end.begun() => {}
            }
        });
        let outbound = &services.outbound;
        let opened =
            stream::here(near, outbound.limits().reply_bytes, outbound.answers(self.node()));
        (opened, AbortOnDrop(Some(served.abort_handle())))
    }

    /// The offer, or the exposed actor, that a body is for.
    pub(super) fn called(&self, service: &ServiceId, body: &mut Bytes) -> Option<Arc<dyn Offered>> {
        match self.node.shared.services.called(service, body) {
            Called::Found(offered) => Some(offered),
            _ => None,
        }
    }

    /// The exposed actors of this node.
    pub(super) fn exposed(&self) -> &Exposed {
        &self.node.shared.services.exposed
    }
}

/// Ends a task when it is dropped.
#[derive(Debug)]
pub(super) struct AbortOnDrop(Option<AbortHandle>);

impl AbortOnDrop {
    /// The task goes on.
    pub(super) fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Side for Here {
    fn outbound(&self) -> &Arc<Outbound> {
        &self.node.shared.services.outbound
    }

    fn has_ended(&self) -> bool {
        self.node.shared.end.has_begun()
    }

    fn ended(&self) -> End<'_> {
        Box::pin(self.node.shared.end.begun())
    }

    fn runtime(&self) -> &Handle {
        &self.node.runtime
    }

    fn count(&self, counter: Counter) {
        self.node.shared.count(counter);
    }

    fn dial(&self, link: Arc<Link>) {
        self.node.shared.routes.services.cast(ServicesMessage::Dial(link));
    }

    fn balance(&self) -> Balance {
        let config = &self.node.shared.config;
        Balance::new(config.node.clone(), config.datacenter.clone())
    }

    fn suspicion(&self, node: &NodeId, now: Time) -> f64 {
        let shared = &self.node.shared;
        let estimates = shared.published.estimates.load();
        let dead = shared.config.dead_peer_phi;
        estimates.get(node).map_or(0.0, |estimate| estimate.phi(now) / dead)
    }

    fn unlisted(&self, node: &NodeId, generation: Generation) -> Option<Gone> {
        self.node.unlisted(node, generation)
    }

    fn here(&self) -> Option<&Here> {
        Some(self)
    }
}

impl Gossipmonger {
    /// Why a node does not offer what it offered in this generation, and is not listed with now; `None` if it may offer
    /// it again.
    pub(super) fn unlisted(&self, node: &NodeId, generation: Generation) -> Option<Gone> {
        let snapshot = self.snapshot();
        let Some((known, _)) = snapshot.version(node) else {
            return Some(Gone::NodeForgotten);
        };
        if known > generation {
            return Some(Gone::Restarted);
        }
        if node == snapshot.local() {
            return Some(Gone::Withdrawn);
        }
        match snapshot.member(node).map(|member| member.state) {
            None => Some(Gone::NodeForgotten),
            Some(PeerState::Dead) => Some(Gone::NodeDead),
            Some(PeerState::Left) => Some(Gone::NodeLeft),
            Some(PeerState::Live | PeerState::Suspect) => Some(Gone::Withdrawn),
            // It may come back.
            Some(_) => None,
        }
    }
}
