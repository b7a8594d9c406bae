//! Dials nodes for calls.

use std::sync::Arc;

use super::{link::Link, table::Services};
use crate::{
    net::{Connection, Dialed, Ended, Endpoint, Protocol, Stream},
    node::host::Host,
    protocol::{
        route::Counter,
        service::{
            frame::{Frame, Hello},
            link_end::LinkEnd,
        },
    },
};

/// Opens a link, serves it, and removes it when it ends.
pub(crate) async fn run(
    host: Host,
    services: Arc<Services>,
    endpoint: Arc<dyn Endpoint>,
    link: Arc<Link>,
) {
    let guard = Ends { services: Arc::clone(&services), link: Arc::clone(&link) };
    let deadline = host.config().quic.handshake_timeout;
    let opened = tokio::select! {
        opened = tokio::time::timeout(deadline, open(&host, endpoint.as_ref(), &link)) => opened,
        // The node has died, for example.
        () = link.ended_early() => return,
    };
    let failure = match opened {
        Ok(Ok((connection, stream))) => {
            host.count(Counter::ServiceConnectionsDialed);
            services.dialed(&link, host.now(), None);
            let hello = Frame::Hello(Hello {
                cluster: host.config().cluster.clone(),
                node: host.node().clone(),
                generation: host.generation(),
                expected: link.generation,
                features: 0,
            });
            let idle = services.limits().idle;
            let why = link.serve(connection, stream, hello, idle).await;
            tracing::debug!(node = %host.node(), peer = %link.peer, %why, "calls to a node have ended");
            link.end(why);
            drop(guard);
            return;
        }
        Ok(Err(failure)) => failure,
        Err(_) => format!("no connection within {deadline:?}"),
    };
    host.count(Counter::ServiceDialsFailed);
    services.dialed(&link, host.now(), Some(&failure));
    link.end(LinkEnd::NotConnected(failure));
    drop(guard);
}

/// A connection to the node, and its lane.
async fn open(
    host: &Host,
    endpoint: &dyn Endpoint,
    link: &Link,
) -> Result<(Arc<dyn Connection>, Stream), String> {
    let addresses = host.addresses(&link.peer);
    if addresses.is_empty() {
        return Err("its record has no address".to_owned());
    }
    let mut dial = endpoint.dial(&addresses, Some(&link.peer), Protocol::Services);
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
    services: Arc<Services>,
    link: Arc<Link>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.link.end(LinkEnd::Stopped);
        self.services.remove(&self.link);
    }
}
