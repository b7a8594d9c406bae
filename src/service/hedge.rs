//! A second attempt while the first one still runs.
//!
//! It cuts the slowest calls short: few calls are slow at two nodes (Dean and Barroso, "The tail at scale",
//! Communications of the ACM 56(2), 2013).

use std::time::Duration;

use bytes::Bytes;

use super::{
    Method,
    calling::{Callee, Path, Target, Terms},
    error::CallError,
    place::Where,
};
use crate::protocol::{
    id::NodeId,
    route::Counter,
    service::{attempt::Ending, balance::retry::RetryBudget, identity::Tag},
};

impl Callee {
    /// Calls an idempotent method; asks a second provider as well if the first one is slow or suspected. Returns also who
    /// has answered.
    pub(super) async fn hedged(
        &self,
        place: &Where,
        method: &Method,
        body: Bytes,
        within: Duration,
        (path, after, tag): (Path, Duration, Tag),
    ) -> Result<(Bytes, NodeId), CallError> {
        let (body, mut attempts, mut target) = self.first(place, method, body, (within, true))?;
        let terms = Terms { deadline: attempts.deadline(), tag };
        let ask = |target: Target| {
            let body = body.clone();
            Box::pin(async move {
                let (ending, _, _) = self.attempt(&target, method, body, terms, path).await;
                (target.node, ending)
            })
        };
        loop {
            let mut first = ask(target.clone());
            let early = tokio::select! {
                biased;
                ended = &mut first => Some(ended),
                () = tokio::time::sleep(after) => None,
                () = self.suspected(&target) => None,
            };
            let second = match early {
                Some(_) => None,
                None => attempts
                    .beside(&target.node)
                    .and_then(|asked| self.another(place, method, &asked)),
            };
            let second = second.filter(|_| self.budget(RetryBudget::pays));
            let (node, Ending { result, verdict, .. }) = match (early, second) {
                (Some(ended), _) => ended,
                (None, None) => first.await,
                (None, Some(second)) => {
                    self.count(Counter::CallsHedged);
                    let mut second = ask(second);
                    let (ended, first_is_over) = tokio::select! {
                        biased;
                        ended = &mut first => (ended, true),
                        ended = &mut second => (ended, false),
                    };
                    match ended {
                        (node, Ending { result: Ok(reply), .. }) => return Ok((reply, node)),
                        (node, Ending { result: Err(failure), .. }) => {
                            attempts.failed(node, &failure);
                            if first_is_over { second.await } else { first.await }
                        }
                    }
                }
            };
            match result {
                Ok(reply) => return Ok((reply, node)),
                Err(failure) => {
                    let ended = (node, failure, verdict);
                    target = self.again(place, method, &mut attempts, ended).await?;
                }
            }
        }
    }

    /// Returns once a provider is suspected, or offers the service no more.
    async fn suspected(&self, target: &Target) {
        let mut changes = self.changes();
        loop {
            let suspected = self.listing(|listing| {
                Some(listing.find(&target.node).is_none_or(|provider| provider.suspect))
            });
            if suspected.unwrap_or(true) || changes.changed().await.is_err() {
                return;
            }
        }
    }
}
