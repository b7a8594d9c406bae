//! The store of a node at its start.

use std::sync::Arc;

use rand::Rng;

use super::{channel::Channel, config::Config, error::SpawnError, writer::Writer};
use crate::{
    counters::Counters,
    protocol::event::{Event, Problem},
    store::{Change, EndpointKeys, Store, StoreError, Stored},
};

/// Starts what writes to the store; its failures are reported as events.
pub(super) fn start_writer(
    storage: Arc<dyn Store>,
    config: &Config,
    counters: &Arc<Counters>,
    events: &Arc<Channel<Event>>,
) -> Result<Writer, SpawnError> {
    let (events, node) = (Arc::clone(events), config.node.clone());
    let on_failure = Box::new(move |error: &StoreError| {
        let problem = Problem::Store { reason: error.to_string() };
        tracing::error!(%node, "{problem}");
        events.send(Event::Error(problem));
    });
    Writer::start(storage, Arc::clone(counters), on_failure)
        .map_err(|error| SpawnError::Actor(format!("no thread for the store: {error}")))
}

/// Checks that a node of this configuration may start with the content of a store.
///
/// # Errors
/// [`SpawnError::ForeignStore`] if it is that of another node; [`SpawnError::HasLeft`] if the node has left for good and
/// the configuration does not let it [rejoin](Config::rejoin).
pub fn check_stored(config: &Config, stored: &Stored) -> Result<(), SpawnError> {
    if let Some((cluster, node)) = &stored.identity
        && (*cluster != config.cluster || *node != config.node)
    {
        return Err(SpawnError::ForeignStore {
            stored_node: node.clone(),
            stored_cluster: cluster.clone(),
            node: config.node.clone(),
            cluster: config.cluster.clone(),
        });
    }
    if stored.left && !config.rejoin {
        return Err(SpawnError::HasLeft);
    }
    Ok(())
}

/// Checks that the store belongs to this node, and writes what it must contain before the node starts.
pub(super) async fn prepare_store(
    config: &Config,
    writer: &Writer,
) -> Result<(Stored, EndpointKeys), SpawnError> {
    let stored = writer.load().await?;
    check_stored(config, &stored)?;
    let keys = stored.endpoint_keys.clone().unwrap_or_else(random_keys);
    let identity = Change::Identity { cluster: config.cluster.clone(), node: config.node.clone() };
    let changes = vec![identity, Change::EndpointKeys(keys.clone()), Change::Left(false)];
    writer.write(changes, None);
    writer.flush().await?;
    Ok((stored, keys))
}

fn random_keys() -> EndpointKeys {
    let mut reset = [0; 64];
    rand::rng().fill_bytes(&mut reset);
    EndpointKeys { reset, connection_id: rand::rng().next_u64() }
}
