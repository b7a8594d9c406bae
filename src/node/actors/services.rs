//! The actor of services: it owns the tasks of the connections over which this node calls others, and announces what
//! this node offers. No call passes through it.

use std::{sync::Arc, time::Duration};

use ractor::{ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::{
    net::Endpoint,
    node::{
        error::Error,
        host::Host,
        links::tasks::Tasks,
        messages::{ServicesMessage, StorageMessage, Writes},
        services::dial,
        shared::Shared,
    },
};

/// Changes of offers within this time are one write.
const GATHER: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Services;

#[derive(Debug)]
pub(crate) struct State {
    shared: Arc<Shared>,
    endpoint: Arc<dyn Endpoint>,
    /// Ends with the actor, and with it the connections that it has dialed.
    tasks: Tasks,
    /// A change of offers waits to be announced.
    gathering: bool,
}

#[ractor::actor(message = ServicesMessage, state = State, arguments = (Arc<Shared>, Arc<dyn Endpoint>))]
impl Services {
    async fn pre_start(
        &self,
        myself: ActorRef<ServicesMessage>,
        (shared, endpoint): (Arc<Shared>, Arc<dyn Endpoint>),
    ) -> Result<State, ActorProcessingErr> {
        shared.routes.services.set(myself.clone());
        if !shared.services.offers_nothing() {
            // A change may have been lost with the previous actor.
            let _ = myself.cast(ServicesMessage::Changed);
        }
        Ok(State { shared, endpoint, tasks: Tasks::default(), gathering: false })
    }

    async fn handle(
        &self,
        myself: ActorRef<ServicesMessage>,
        message: ServicesMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ServicesMessage::Dial(link) => {
                let (host, endpoint) =
                    (Host::new(Arc::clone(&state.shared)), Arc::clone(&state.endpoint));
                state
                    .tasks
                    .spawner(&state.shared.config.node)
                    .spawn(dial::run(host, endpoint, link));
            }
            ServicesMessage::Changed => {
                if !std::mem::replace(&mut state.gathering, true) {
                    let _timer = myself.send_after(GATHER, || ServicesMessage::Announce);
                }
            }
            ServicesMessage::Announce => {
                state.gathering = false;
                state
                    .tasks
                    .spawner(&state.shared.config.node)
                    .spawn(announce(Arc::clone(&state.shared)));
            }
        }
        Ok(())
    }
}

/// Writes the list of offers; then wakes the callers that wait for it.
async fn announce(shared: Arc<Shared>) {
    let _turn = shared.services.announcing.lock().await;
    let (number, manifest) = shared.services.manifest();
    let permit = shared.write_room.take(manifest.encode().len()).await;
    let (reply, written) = oneshot::channel();
    shared.routes.storage.cast(StorageMessage::Write(Writes::Offers(manifest), permit, reply));
    // A storage actor that fails meanwhile may not have taken the write, so the offers are announced again.
    match written.await {
        Ok(Err(Error::Refused(refused))) => {
            tracing::error!(node = %shared.config.node, %refused, "services are not announced");
            shared.services.announced(number, Some(refused.to_string()));
        }
        // It is gossiped, though perhaps not durable; the next process has to offer again in any case.
        Ok(_) => shared.services.announced(number, None),
        Err(_) => shared.routes.services.cast(ServicesMessage::Changed),
    }
}
