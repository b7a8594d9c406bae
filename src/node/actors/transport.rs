//! The actor of the fourth machine: it takes what the other actors want from the network, and owns the
//! tasks of all connections, which call the machine directly.

use std::{sync::Arc, time::Duration};

use ractor::{ActorProcessingErr, ActorRef};
use tokio::time::MissedTickBehavior;

use crate::{
    net::Endpoint,
    node::{
        host::Host,
        links::{
            accept,
            context::Context,
            initiate, reach, serve,
            table::{Links, Said},
            tasks::Tasks,
        },
    },
    protocol::{
        liveness::TICKS_PER_INTERVAL,
        outbox::Encoded,
        peering::{PeeringInput, PeeringOutput},
        route::{Counter, TransportInput},
    },
};

#[cfg(feature = "cluster")]
impl ractor::Message for TransportInput {}

/// The minimum interval between two checks of the connections.
const LOOK_MIN: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Transport;

#[derive(Debug)]
pub(crate) struct State {
    context: Context,
    /// Ends with the actor.
    _tasks: Tasks,
}

#[ractor::actor(message = TransportInput, state = State, arguments = (Arc<Links>, Arc<dyn Endpoint>))]
impl Transport {
    async fn pre_start(
        &self,
        _: ActorRef<TransportInput>,
        (links, endpoint): (Arc<Links>, Arc<dyn Endpoint>),
    ) -> Result<State, ActorProcessingErr> {
        let tasks = Tasks::default();
        let spawner = tasks.spawner(links.host().node());
        let context = Context { links, endpoint, spawner, renew: reach::renew };
        context.spawner.spawn(accept::accept(context.clone()));
        context.spawner.spawn(look(Arc::clone(&context.links)));
        context.spawner.spawn(tick(context.host().clone()));
        // The connections of the previous actor.
        serve::resume(&context);
        Ok(State { context, _tasks: tasks })
    }

    async fn handle(
        &self,
        _: ActorRef<TransportInput>,
        input: TransportInput,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        #[cfg(feature = "sim")]
        if state.context.host().switch().holds(&input) {
            return Ok(());
        }
        if let Some(input) = prepare(state.context.host(), input) {
            let said = state.context.links.handle(input);
            state.carry_out(said);
        }
        Ok(())
    }
}

impl State {
    fn carry_out(&self, said: Said) {
        for output in said.rest {
            match output {
                PeeringOutput::Exchange(target, summary) => {
                    initiate::begin(&self.context, target, summary);
                }
                PeeringOutput::Dial(peer) => reach::dial(&self.context, peer),
                PeeringOutput::Hurry { peer, stale } => reach::hurry(&self.context, peer, stale),
                PeeringOutput::Finish(connection, closing) => {
                    serve::finish(&self.context, connection, closing);
                }
                // Already delivered.
                _ => {}
            }
        }
    }
}

/// Encodes gossip before the lock is taken.
fn prepare(host: &Host, input: TransportInput) -> Option<PeeringInput> {
    let TransportInput::Gossip { to, gossip } = input else {
        return Some(PeeringInput::Transport(input));
    };
    match Encoded::new(&gossip) {
        Ok(encoded) => Some(PeeringInput::Send { to, gossip, encoded }),
        Err(error) => {
            tracing::warn!(node = %host.node(), %error, "gossip that cannot be told");
            host.count(Counter::GossipShed);
            None
        }
    }
}

/// Measures how late this node is served, as long as the actor lives.
async fn tick(host: Host) {
    host.resume_lag();
    loop {
        let (now, next) = host.tick_lag();
        tokio::time::sleep(next.since(now)).await;
    }
}

/// Makes the machine check all connections, as long as the actor lives.
async fn look(links: Arc<Links>) {
    let interval = links.host().config().gossip_interval;
    let mut looks = tokio::time::interval((interval / TICKS_PER_INTERVAL).max(LOOK_MIN));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        links.handle(PeeringInput::Look);
    }
}
