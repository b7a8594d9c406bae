//! The initiating half of an exchange: it connects to the target first.

use std::sync::Arc;

use tracing::Instrument;

use super::{
    super::host::Host, context::Context, exchange::drive, frames::StreamFrames, link::Link, reach,
};
use crate::{
    net::Stream,
    protocol::{exchange::Summary, route::Target, served::DIALER_MAX, timing::Timing},
};

/// Runs an exchange with a target; its end is reported in every case.
pub(crate) fn begin(context: &Context, target: Target, summary: Summary) {
    let own = context.clone();
    context.spawner.spawn(async move {
        let dialed = reach::reach(&own, &target).await;
        if dialed.busy {
            return own.host().deferred(target);
        }
        let mut done = false;
        if let Some(link) = &dialed.link {
            done = initiate(&own, link, summary.clone()).await;
            // Two nodes that dial each other at the same time agree on one connection, and close the other one
            // while it is in use.
            if !done
                && let Some(other) = own.links.link(&link.peer)
                && other.id != link.id
            {
                done = initiate(&own, &other, summary).await;
            }
        }
        own.host().ended(target, dialed.node, done);
    });
}

/// Runs the initiating half, in a span of its own; returns whether it completed.
async fn initiate(context: &Context, link: &Arc<Link>, summary: Summary) -> bool {
    let span = tracing::debug_span!("exchange", peer = %link.peer, begun = "here");
    initiate_in_span(context, link, summary).instrument(span).await
}

async fn initiate_in_span(context: &Context, link: &Arc<Link>, summary: Summary) -> bool {
    let (links, host) = (&context.links, context.host());
    let underway = link.begin();
    let Some(stream) = open(host, link).await else { return false };
    let mut frames = StreamFrames::new(stream, link, links);
    let (half, step) = summary.open();
    let begun = host.now();
    let Err(error) = drive(links, link, half, step, &mut frames, |_| false).await else {
        host.counters().took(Timing::Exchange, host.now().since(begun));
        context.spawner.spawn(async move {
            // Until the peer has received all of it.
            frames.finished().await;
            drop(underway);
        });
        return true;
    };
    frames.abort();
    if error.is_misbehaviour() {
        links.misbehaved(link, &error);
    } else {
        tracing::debug!(node = %host.node(), peer = %link.peer, %error, "exchange failed");
    }
    false
}

/// A peer may refuse us every stream; it then counts as one that does not answer.
async fn open(host: &Host, link: &Link) -> Option<Stream> {
    let deadline = host.config().quic.exchange_timeout;
    let opened = host.lateness().within(deadline, deadline * DIALER_MAX, link.connection.open());
    opened.await.ok()?.ok()
}
