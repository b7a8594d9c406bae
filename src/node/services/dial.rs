//! Dials nodes for calls.

use std::{fmt, sync::Arc, time::Duration};

use super::{link::Link, outbound::Outbound, stream::long_answers};
use crate::{
    net::{Connection, Dialed, Ended, Endpoint, Protocol, Stream, ledger::Entered},
    node::host::Host,
    protocol::{
        id::{Generation, NodeId},
        route::Counter,
        service::{
            frame::{Frame, Hello},
            introduction::Purpose,
            link_end::LinkEnd,
            windows::Holder,
        },
    },
};

/// The process that dials.
pub(crate) trait Dialer: Send + Sync {
    /// Its name for traces.
    fn name(&self) -> &dyn fmt::Display;

    /// Its connections.
    fn outbound(&self) -> &Arc<Outbound>;

    /// The addresses of a node, best first.
    fn addresses(&self, peer: &NodeId) -> Vec<String>;

    /// The first frame on a connection of this purpose to a node in this generation.
    fn introduction(&self, purpose: Purpose, expected: Generation) -> Frame;

    /// How long a dial may take.
    fn timeout(&self) -> Duration;

    /// Increments a counter.
    fn count(&self, counter: Counter);

    /// Enters a connection to a node into the ledger, if the process keeps one.
    fn enter(&self, _peer: &NodeId, _connection: &Arc<dyn Connection>) -> Option<Entered> {
        None
    }
}

impl Dialer for Host {
    fn name(&self) -> &dyn fmt::Display {
        self.node()
    }

    fn outbound(&self) -> &Arc<Outbound> {
        &self.services().outbound
    }

    fn addresses(&self, peer: &NodeId) -> Vec<String> {
        self.addresses(peer)
    }

    fn introduction(&self, purpose: Purpose, expected: Generation) -> Frame {
        Frame::Hello(Hello {
            cluster: self.config().cluster.clone(),
            node: self.node().clone(),
            generation: self.generation(),
            expected,
            features: purpose.features(),
        })
    }

    fn timeout(&self) -> Duration {
        self.config().quic.handshake_timeout
    }

    fn count(&self, counter: Counter) {
        self.count(counter);
    }

    fn enter(&self, peer: &NodeId, connection: &Arc<dyn Connection>) -> Option<Entered> {
        Some(self.enter(Some(peer), connection))
    }
}

/// Opens a link, serves it, and removes it when it ends.
pub(crate) async fn run(dialer: impl Dialer, endpoint: Arc<dyn Endpoint>, link: Arc<Link>) {
    let outbound = dialer.outbound();
    let guard = Ends { outbound: Arc::clone(outbound), link: Arc::clone(&link) };
    let deadline = dialer.timeout();
    let addresses = dialer.addresses(&link.peer);
    let reach = open(&addresses, Some(&link.peer), endpoint.as_ref());
    let opened = tokio::select! {
        biased;
        opened = tokio::time::timeout(deadline, reach) => opened,
        // The node has died, for example.
        () = link.ended_early() => return,
    };
    let failure = match opened {
        Ok(Ok((connection, stream))) => {
            dialer.count(Counter::ServiceConnectionsDialed);
            outbound.connected(&connection);
            let _entered = dialer.enter(&link.peer, &connection);
            let why =
                match outbound.windows().open(connection.as_ref(), Holder::Member, link.purpose) {
                    Some(_window) => {
                        let hello = dialer.introduction(link.purpose, link.generation);
                        let limits = outbound.limits();
                        let answers = Arc::clone(&connection);
                        let long = long_answers(&link, answers.as_ref(), limits.reply_bytes);
                        link.serve(connection, stream, hello, limits.idle, long).await
                    }
                    None => LinkEnd::NotConnected(NO_WINDOW.to_owned()),
                };
            outbound.ended(&link, &why);
            tracing::debug!(node = %dialer.name(), peer = %link.peer, %why, "calls to a node have ended");
            link.end(why);
            drop(guard);
            return;
        }
        Ok(Err(failure)) => failure,
        Err(_) => format!("no connection within {deadline:?}"),
    };
    dialer.count(Counter::ServiceDialsFailed);
    outbound.not_reached(&link, &failure);
    link.end(LinkEnd::NotConnected(failure));
    drop(guard);
}

/// Why a connection is given up that was just opened.
pub(crate) const NO_WINDOW: &str =
    "the receive windows of all connections for calls use window_bytes";

/// A connection to a node at one of its addresses, best first, and its lane. `expected`: the name that its certificate has
/// to prove.
pub(crate) async fn open(
    addresses: &[String],
    expected: Option<&NodeId>,
    endpoint: &dyn Endpoint,
) -> Result<(Arc<dyn Connection>, Stream), String> {
    if addresses.is_empty() {
        return Err("it has no address that is known".to_owned());
    }
    let mut dial = endpoint.dial(addresses, expected, Protocol::Services);
    let mut failures = Vec::new();
    while let Some(dialed) = dial.next().await {
        match dialed {
            Dialed::About(_) => {}
            Dialed::Reached(way, connection) => match connection.open().await {
                Ok(stream) => return Ok((connection, stream)),
                Err(ended) => {
                    dial.answered(&way);
                    failures.push(format!("{way}: {ended}"));
                }
            },
            Dialed::Refused(way, ended) => {
                let why = match &ended {
                    Ended::Failed(_) => format!("{ended}; it may offer nothing any more"),
                    ended => ended.to_string(),
                };
                failures.push(format!("{way}: {why}"));
            }
            Dialed::Failed(way, why) | Dialed::Untried(way, why) => {
                failures.push(format!("{way}: {why}"));
            }
        }
    }
    Err(failures.join("; "))
}

/// Ends the link also if its task is aborted.
struct Ends {
    outbound: Arc<Outbound>,
    link: Arc<Link>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.link.end(LinkEnd::Stopped);
        self.outbound.remove(&self.link);
    }
}
