//! The directory for clients, at the node that offers it.

use std::{any::Any, fmt, time::Duration};

use super::{
    super::{
        Access, Caller, OfferError,
        access::viewer,
        context::Context,
        offer::{Offer, OfferBuilder},
    },
    Changes, Directory, List, News, Page, WAIT,
    answers::{changed, page},
};
use crate::{node::Gossipmonger, protocol::service::clients::Viewer, tls::Role};

/// Questions to the directory that wait for changes at once, of all clients.
const WAITING_MAX: usize = 4_096;
/// Of these the part of one client, in per cent.
const PER_CLIENT: usize = 1;
/// Changes within this time are sent in one answer.
const GATHER: Duration = Duration::from_millis(20);
/// An answer takes at least this time, so that one client, of which some forty questions run at once, costs little.
const PACE: Duration = Duration::from_millis(25);
/// An answer is ready so long before the deadline of its question.
const MARGIN: Duration = Duration::from_millis(500);
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
    /// Offers the directory, from which clients that are not members read what they may call at all nodes. A node that
    /// offers a service to clients does so by itself; this is for nodes that offer nothing else to clients.
    ///
    /// # Errors
    /// [`OfferError`] if this node drains, or offers as many services as it may.
    pub fn offer_directory(&self) -> Result<DirectoryOffer, OfferError> {
        self.shared.services.built_in.enter(|| {
            // Any client may ask: the answer lists only what that client may call.
            let offer = OfferBuilder::<Directory>::new(self.clone(), Access::clients(Role::Read));
            let (lists, changes) = (self.clone(), self.clone());
            let offer = offer
                .call(move |ask: List, context: Context| {
                    let node = lists.clone();
                    async move {
                        tokio::time::sleep(PACE).await;
                        list(&node, &ask, &context)
                    }
                })
                .call(move |ask: Changes, context: Context| {
                    let node = changes.clone();
                    async move {
                        tokio::time::sleep(PACE).await;
                        news(&node, &ask, &context).await
                    }
                })
                .room(WAITING_MAX, 0)
                .per_caller(PER_CLIENT)
                .register()?;
            self.shared.show_to_clients();
            let offered = Kept { node: self.clone(), _offer: offer.0 };
            Ok::<Box<dyn Any + Send>, OfferError>(Box::new(offered))
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
struct Kept {
    node: Gossipmonger,
    _offer: Offer,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.node.shared.services.outbound.watched.end_client_directory();
    }
}

/// One page of all rows.
fn list(node: &Gossipmonger, ask: &List, context: &Context) -> Page {
    let process = node.generation().0;
    let found = client(context).and_then(|viewer| {
        let directory = node.shared.services.outbound.watched.client_directory()?;
        Some(page(&directory, &viewer, process, ask.after.as_ref()))
    });
    found.unwrap_or(Page { process, version: 0, rows: Vec::new(), more: false })
}

/// The rows that have changed, as soon as there are some.
async fn news(node: &Gossipmonger, ask: &Changes, context: &Context) -> News {
    let unknown = News { known: false, version: 0, rows: Vec::new() };
    let Some(viewer) = client(context).filter(|_| ask.process == node.generation().0) else {
        return unknown;
    };
    let watched = &node.shared.services.outbound.watched;
    let mut changes = watched.client_changes();
    let wait = tokio::time::sleep(context.left().saturating_sub(MARGIN).min(WAIT));
    tokio::pin!(wait);
    let mut is_over = false;
    loop {
        let news =
            watched.client_directory().map(|directory| changed(&directory, &viewer, ask.since));
        let news = news.unwrap_or_else(|| unknown.clone());
        if is_over || !news.known || !news.rows.is_empty() {
            return news;
        }
        tokio::select! {
            biased;
            () = &mut wait => is_over = true,
            // A node that leaves does not wait for it.
            () = node.shared.services.drains() => is_over = true,
            // Last: in a busy cluster there is always one.
            changed = changes.changed() => match changed {
                Ok(()) => tokio::time::sleep(GATHER).await,
                Err(_) => is_over = true,
            },
        }
    }
}

fn client(context: &Context) -> Option<Viewer> {
    match context.caller() {
        Caller::Client(client) => Some(viewer(client)),
        Caller::Node { .. } => None,
    }
}
