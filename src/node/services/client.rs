//! Callers that are clients, not members: whether one is admitted, and when its connection ends.
//!
//! A client introduces itself by the frame [`ClientHello`]; its certificate says who it is. It is judged when it
//! connects, and again when roots, roles or revocations change.

use super::{caller::Caller, refusal::Refusal, table::Services};
use crate::{
    net::Connection,
    node::host::Host,
    protocol::{
        close::Close,
        service::{frame::ClientHello, introduction::admit_client},
    },
    tls::{Client, Rejection},
};

/// The label of clients that no offer admits, or that introduce themselves as members.
const CLIENT: &str = "client";

/// Judges a client that introduces itself.
pub(super) fn judge(
    host: &Host,
    services: &Services,
    connection: &dyn Connection,
    hello: &ClientHello,
) -> Result<Caller, Refusal> {
    // The certificate first: without one of this cluster the client learns nothing.
    let client = identify(host, connection)?;
    if !services.admits_clients() {
        let words = "this node offers nothing to clients".to_owned();
        return Err(Refusal { label: CLIENT, close: Close::Unwelcome, words });
    }
    admit_client(hello, host.generation()).map_err(|mismatch| Refusal {
        label: "restarted",
        close: Close::Restarted,
        words: mismatch.to_string(),
    })?;
    Ok(Caller::Client(client))
}

/// A client that introduces itself as a member.
pub(super) fn not_a_member() -> Refusal {
    let words = "a client does not introduce itself as a member".to_owned();
    Refusal { label: CLIENT, close: Close::Unwelcome, words }
}

/// The client, by the roots, roles, revocations and dates of now.
fn identify(host: &Host, connection: &dyn Connection) -> Result<Client, Refusal> {
    let rejected =
        |words: &str| Refusal { label: CLIENT, close: Close::Unwelcome, words: words.to_owned() };
    let tls = host.tls().ok_or_else(|| rejected("this network proves no client's name"))?;
    tls.client(&connection.peer().chain).map_err(|refusal| {
        let (close, words) = match refusal.reason {
            Rejection::Expired => (Close::Expired, "your certificate has expired: renew it"),
            Rejection::Revoked => (Close::Revoked, "your certificate was revoked"),
            Rejection::NoRole => (Close::Unwelcome, "your certificate gives you no role"),
            _ => (Close::Unwelcome, "your certificate is not accepted any more"),
        };
        Refusal { label: refusal.reason.as_str(), close, words: words.to_owned() }
    })
}

/// Returns why the client is disconnected, once it is no longer the one that was admitted. Never returns for a member.
pub(super) async fn recheck(host: &Host, connection: &dyn Connection, caller: &Caller) -> Refusal {
    let (Caller::Client(admitted), Some(tls)) = (caller, host.tls()) else {
        return std::future::pending().await;
    };
    let (mut rechecks, mut reloads) = (host.clients().rechecks(), tls.reloads());
    loop {
        // Once more after the subscription: what has changed before it wakes no one.
        match identify(host, connection) {
            Ok(client) if client == *admitted => {}
            Ok(_) => {
                let words = "your role has changed: connect again".to_owned();
                return Refusal { label: CLIENT, close: Close::Unneeded, words };
            }
            Err(refusal) => return refusal,
        }
        let changed = tokio::select! {
            biased;
            changed = rechecks.changed() => changed,
            changed = reloads.changed() => changed,
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
    }
}
