//! Answers that are too long for a lane: each goes over a stream of its own, behind the small ones.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinSet};

use super::{pace::Abroad, room::Counted};
use crate::{net::Connection, protocol::service::stream::StreamFrame};

/// The code with which the stream of an abandoned answer is reset.
const GIVEN_UP: u32 = 1;
/// Below that of the lane.
const PRIORITY: i32 = -1;

/// A long answer that waits to be sent.
#[derive(Debug)]
pub(super) struct Long {
    pub(super) id: u64,
    pub(super) load: u8,
    pub(super) body: Bytes,
    /// It counts against the limit of all long answers until it is sent.
    pub(super) counted: Counted,
}

/// Sends long answers until the connection ends. The peer's limit on streams bounds how many are sent at once. `unread` is
/// called for each abandoned one.
pub(super) async fn send(
    (connection, abroad): (&Arc<dyn Connection>, &Arc<Abroad>),
    mut waiting: mpsc::UnboundedReceiver<Long>,
    unread: impl Fn() + Clone + Send + 'static,
) {
    let mut sent = JoinSet::new();
    while let Some(long) = waiting.recv().await {
        while sent.try_join_next().is_some() {}
        let (connection, abroad) = (Arc::clone(connection), Arc::clone(abroad));
        let unread = unread.clone();
        sent.spawn(async move {
            if !long.send(connection.as_ref(), &abroad).await {
                unread();
            }
        });
    }
    std::future::pending::<()>().await;
}

impl Long {
    /// Sends it; returns whether the caller receives it in time. If not, it is abandoned, and its caller waits until the
    /// deadline of the call.
    async fn send(self, connection: &dyn Connection, abroad: &Abroad) -> bool {
        let Self { id, load, body, counted } = self;
        let limit = counted.limit();
        let Ok(opened) = tokio::time::timeout(limit, connection.open_one_way()).await else {
            return false;
        };
        let Ok(opened) = opened else { return true };
        let (mut stream, waited) = abroad.sends(opened, connection.peer());
        let sent = async {
            stream.set_priority(PRIORITY);
            for frame in [StreamFrame::Answer { id, load }, StreamFrame::Item(body)] {
                if stream.write(&mut frame.pieces()).await.is_err() {
                    return;
                }
            }
            stream.finish();
            // Until then QUIC holds it.
            stream.delivered().await;
        };
        let in_time = waited.within(limit, abroad.clock(), sent).await.is_some();
        if !in_time {
            stream.reset(GIVEN_UP);
        }
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{caller::CallerName, room::Unsent},
        *,
    };
    use crate::{clock::Clock, net::quiet::Quiet, protocol::service::stream::body_time};

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_received_in_time_is_given_up() {
        let unsent = Unsent::new(1 << 20, 1 << 20);
        let name = CallerName::Client("a".to_owned());
        let connection = Quiet::until(None, None);
        let clock = Clock::start();
        let begun = clock.now();
        let answers = (0..2).map(|id| {
            let (body, counted) =
                (Bytes::from(vec![0; 200_000]), unsent.count(name.clone(), 200_000));
            let (long, connection) =
                (Long { id, load: 0, body, counted: counted.unwrap() }, Arc::clone(&connection));
            let abroad = Abroad::new(None, clock, 1);
            tokio::spawn(async move { long.send(connection.as_ref(), &abroad).await })
        });
        for (waiting, sent) in [200_000, 400_000].into_iter().zip(answers.collect::<Vec<_>>()) {
            assert!(!sent.await.unwrap());
            let took = clock.now().since(begun);
            assert_eq!(took.as_secs(), body_time(waiting).as_secs());
        }
        assert!(unsent.count(name, 1 << 19).is_some(), "its room is free again");
    }
}
