//! The node's side of the directory for clients.

use std::{any::Any, fmt, time::Duration};

use super::{
    super::{
        Access, Caller, OfferError,
        access::viewer,
        context::Context,
        offer::{Offer, OfferBuilder},
    },
    Changes, Directory, Item, List, News, Page, Row, WAIT,
};
use crate::{
    node::Gossipmonger,
    protocol::{
        id::NodeId,
        service::{
            clients::Viewer,
            frame::LANE_BODY_MAX,
            shown::{self, Shown},
        },
    },
    tls::Role,
};

/// Questions to the directory that wait for changes at once, of all clients.
const WAITING_MAX: usize = 4_096;
/// Of these the part of one client, in per cent.
const PER_CLIENT: usize = 1;
/// Changes within this time are told together.
const GATHER: Duration = Duration::from_millis(20);
/// An answer is ready so long before the deadline of its question.
const MARGIN: Duration = Duration::from_millis(500);
/// Bytes of rows in one answer: what is left of the longest body is for what surrounds them.
const ROWS_BYTES_MAX: usize = LANE_BODY_MAX - 64;

/// Keeps the directory for clients offered; dropping the last one of a node withdraws it.
#[must_use = "dropping it withdraws the directory"]
pub struct DirectoryOffer {
    node: Gossipmonger,
}

impl fmt::Debug for DirectoryOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryOffer").field("node", self.node.node()).finish()
    }
}

impl Gossipmonger {
    /// Offers the directory, from which clients that are not members learn what they may call at all nodes. A node that
    /// offers a service to clients does so by itself; this is for nodes that only answer clients.
    ///
    /// # Errors
    /// [`OfferError`] if this node drains, or offers as many services as it may.
    pub fn offer_directory(&self) -> Result<DirectoryOffer, OfferError> {
        self.shared.services.built_in.enter(|| {
            // Whatever it answers, it shows a client only what that client may call.
            let offer = OfferBuilder::<Directory>::new(self.clone(), Access::clients(Role::Read));
            let (lists, changes) = (self.clone(), self.clone());
            let offer = offer
                .call(move |ask: List, context: Context| {
                    let page = list(&lists, &ask, &context);
                    async move { page }
                })
                .call(move |ask: Changes, context: Context| {
                    let node = changes.clone();
                    async move { news(&node, &ask, &context).await }
                })
                .room(WAITING_MAX, 0)
                .per_caller(PER_CLIENT)
                .register()?;
            self.shared.show_to_clients();
            let showing = Showing { node: self.clone(), _offer: offer.0 };
            Ok::<Box<dyn Any + Send>, OfferError>(Box::new(showing))
        })?;
        Ok(DirectoryOffer { node: self.clone() })
    }
}

impl Drop for DirectoryOffer {
    fn drop(&mut self) {
        self.node.shared.services.built_in.leave();
    }
}

/// The offered directory.
struct Showing {
    node: Gossipmonger,
    _offer: Offer,
}

impl Drop for Showing {
    fn drop(&mut self) {
        self.node.shared.services.outbound.watched.end_showing();
    }
}

/// One page of all rows.
fn list(node: &Gossipmonger, ask: &List, context: &Context) -> Page {
    let process = node.generation().0;
    let read = |shown: &Shown, viewer: &Viewer| {
        let version = shown.version();
        let mut rows = shown.rows(viewer, ask.after.as_ref()).peekable();
        let (rows, _) = fill(&mut rows, viewer);
        let after = rows.last().map(|row| row.node.clone());
        let more = after.is_some_and(|last| shown.rows(viewer, Some(&last)).next().is_some());
        Page { process, version, rows, more }
    };
    let page = client(context).and_then(|viewer| {
        node.shared.services.outbound.watched.shown(|shown| read(shown, &viewer))
    });
    page.unwrap_or(Page { process, version: 0, rows: Vec::new(), more: false })
}

/// The rows that have changed, as soon as there are some.
async fn news(node: &Gossipmonger, ask: &Changes, context: &Context) -> News {
    let unknown = News { known: false, version: 0, rows: Vec::new() };
    let Some(viewer) = client(context).filter(|_| ask.process == node.generation().0) else {
        return unknown;
    };
    let watched = &node.shared.services.outbound.watched;
    let mut showings = watched.showings();
    let wait = tokio::time::sleep(context.left().saturating_sub(MARGIN).min(WAIT));
    tokio::pin!(wait);
    let mut is_over = false;
    loop {
        let news = watched
            .shown(|shown| changed(shown, &viewer, ask.since))
            .unwrap_or_else(|| unknown.clone());
        if is_over || !news.known || !news.rows.is_empty() {
            return news;
        }
        tokio::select! {
            changed = showings.changed() => match changed {
                Ok(()) => tokio::time::sleep(GATHER).await,
                Err(_) => is_over = true,
            },
            () = &mut wait => is_over = true,
            // Nobody waits for a node that wants to end.
            () = node.shared.services.drains() => is_over = true,
        }
    }
}

/// The rows that have changed since a version, as many as fit into one answer.
fn changed(shown: &Shown, viewer: &Viewer, since: u64) -> News {
    let Some(rows) = shown.since(viewer, since) else {
        return News { known: false, version: 0, rows: Vec::new() };
    };
    let mut rows = rows.peekable();
    let (taken, last) = fill(&mut rows, viewer);
    let version = match rows.peek() {
        Some(_) => last,
        None => shown.version(),
    };
    News { known: true, version, rows: taken }
}

/// Takes as many rows as fit into one answer; returns the version of the last one as well.
fn fill<'a>(
    rows: &mut std::iter::Peekable<impl Iterator<Item = (&'a NodeId, &'a shown::Row)>>,
    viewer: &Viewer,
) -> (Vec<Row>, u64) {
    let (mut taken, mut bytes, mut last) = (Vec::new(), 0, 0);
    while let Some((node, row)) = rows.peek() {
        let next = message(node, row, viewer);
        bytes += length(&next);
        if bytes > ROWS_BYTES_MAX && !taken.is_empty() {
            break;
        }
        last = row.version();
        taken.push(next);
        rows.next();
    }
    (taken, last)
}

fn message(node: &NodeId, row: &shown::Row, viewer: &Viewer) -> Row {
    let offers = row.offers_to(viewer).map(|offer| Item {
        name: offer.name.clone(),
        major: offer.version.major,
        minor: offer.version.minor,
        weight: offer.weight,
        epoch: offer.epoch,
    });
    Row {
        node: node.clone(),
        generation: row.generation.0,
        datacenter: row.datacenter.clone(),
        state: row.state.into(),
        draining: row.draining,
        addresses: row.addresses.clone(),
        offers: offers.collect(),
    }
}

/// The most bytes that a row takes in an answer.
fn length(row: &Row) -> usize {
    let texts = row.addresses.iter().map(|address| NUMBER + address.len());
    let offers = row.offers.iter().map(|offer| NUMBER + offer.name.as_str().len() + OFFER);
    let names = 2 * NUMBER + row.node.as_str().len() + row.datacenter.as_str().len();
    names + 4 * NUMBER + texts.sum::<usize>() + offers.sum::<usize>()
}

/// The most bytes of a length; of a generation with its state and whether the node drains it is a part.
const NUMBER: usize = 9;
/// The most bytes of an offer beside its name: two numbers of up to 3, a byte, and a number of up to 5.
const OFFER: usize = 2 * 3 + 1 + 5;

fn client(context: &Context) -> Option<Viewer> {
    match context.caller() {
        Caller::Client(client) => Some(viewer(client)),
        Caller::Node { .. } => None,
    }
}
