//! The end of a connection for calls with the first certificate of either end.

use std::time::Duration;

use crate::{ambient::Ambient, net::Connection};

/// Why such a connection is closed.
pub(super) const EXPIRED: &str = "a certificate of this connection has expired";

/// The expiry of certificates is checked at least this often, since the wall clock may be set.
const LOOK: Duration = Duration::from_secs(600);

/// Returns when a certificate of the connection has expired.
pub(super) async fn expired(connection: &dyn Connection, ambient: &Ambient) {
    let proof = &connection.peer().proof;
    loop {
        let ends = [proof.ours.expires, proof.theirs.expires].into_iter().flatten().min();
        let Some(end) = ends else { return std::future::pending().await };
        let Ok(left) = end.duration_since(ambient.wall()) else { return };
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use tokio::sync::Semaphore;

    use super::{
        super::{link::Link, pace::Abroad, room::Rooms},
        *,
    };
    use crate::{
        clock::Clock,
        net::pipe,
        net::quiet::Quiet,
        protocol::{
            close::Close,
            id::{Generation, NodeId},
            service::{
                calls::LaneLimits,
                frame::{ClientHello, Frame},
                introduction::Purpose,
                link_end::LinkEnd,
            },
        },
    };

    #[tokio::test(start_paused = true)]
    async fn the_callers_end_closes_a_connection_with_the_first_certificate() {
        let (past, future) = (Clock::wall() - LOOK, Clock::wall() + 1_000 * LOOK);
        let clock = Clock::start();
        for (ours, theirs) in [(past, future), (future, past)] {
            let connection = Quiet::until(Some(ours), Some(theirs));
            let to = (NodeId::new("b").unwrap(), Purpose::Lane, Generation(1));
            let rooms = Rooms::of_peer(&Arc::new(Semaphore::new(1)), 1, 1);
            let abroad = Arc::new(Abroad::new(None, clock, 1));
            let limits = LaneLimits { calls: 1, queue_bytes: 1 };
            let link =
                Arc::new(Link::new(to, limits, (rooms, abroad), (clock, Ambient::default())));
            let hello = Frame::ClientHello(ClientHello { expected: Generation(1), features: 0 });
            let (stream, _far) = pipe::two_way();
            let served = link.serve(
                Arc::<Quiet>::clone(&connection),
                stream,
                hello,
                LOOK * 2_000,
                pending(),
            );
            assert_eq!(served.await, LinkEnd::Connection(EXPIRED.to_owned()));
            assert_eq!(*connection.closed.lock().unwrap(), Some(Close::Expired as u32));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_certificates_does_not_expire() {
        let connection = Quiet::until(None, None);
        let ambient = Ambient::default();
        let expired = tokio::time::timeout(LOOK * 10, expired(connection.as_ref(), &ambient));
        assert!(expired.await.is_err());
    }
}
