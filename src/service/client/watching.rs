//! Keeps a client's directory up to date: it reads that of one node, and goes on to the next when that node is lost.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use rand::RngExt;

use super::{
    super::{
        Call, Service,
        directory::{Changes, Directory, List, PATIENCE, WAIT},
        id,
        messages::{decode_answer, encode_question},
    },
    inner::{Failures, Inner, NODES_MAX},
    row::CheckedRow,
};
use crate::{
    node::services::{dial, link::Link},
    protocol::{
        close::Close,
        id::{Generation, NodeId},
        service::{
            attempt::Ending,
            calls::LaneLimits,
            frame::{ClientHello, Frame},
            introduction::Purpose,
            windows::Holder,
        },
    },
};

/// The shortest and the longest pause after no node has answered.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The pause after an answer that says nothing new although it came early.
const EARLY_PAUSE: Duration = Duration::from_millis(100);
/// Most nodes that the client asks beside those that it was given.
const LEARNED_MAX: usize = 16;

/// A node to ask.
#[derive(Debug)]
struct Host {
    addresses: Vec<String>,
    /// Its name, if the client has learned of it.
    node: Option<NodeId>,
}

impl Host {
    fn name(&self) -> String {
        self.node.as_ref().map_or_else(|| self.addresses.join(", "), ToString::to_string)
    }
}

/// Asks one node after the other, without end.
pub(super) async fn run(inner: Arc<Inner>, given: Vec<String>) {
    let clock = inner.outbound.clock();
    let mut pause = PAUSE.0;
    let mut lost = BTreeMap::new();
    let mut round = Failures::new();
    loop {
        let hosts = hosts(&inner, &given);
        lost.retain(|lost, _| hosts.iter().any(|host| host.name() == *lost));
        // The first one that was never lost, or else that was lost first.
        let in_round = |host: &&Host| round.iter().any(|(tried, _)| *tried == host.name());
        let next = hosts.iter().filter(|host| !in_round(host));
        let Some(host) = next.min_by_key(|host| lost.get(&host.name())) else {
            inner.first.set_first(Err(std::mem::take(&mut round)));
            // Clients of a host that is lost do not all come back at once.
            let part = rand::rng().random_range(0.5..1.0);
            tokio::time::sleep(pause.mul_f64(part)).await;
            pause = (pause * 2).min(PAUSE.1);
            continue;
        };
        let (has_read, why) = ask(&inner, host).await;
        inner.set_host(None);
        tracing::debug!(client = %inner.name, host = %host.name(), %why, "no directory");
        if has_read {
            (round, pause) = (Failures::new(), PAUSE.0);
        }
        lost.insert(host.name(), clock.now());
        round.push((host.name(), why));
    }
}

/// The nodes to ask: those that the client was given, and then those that it has learned of.
fn hosts(inner: &Inner, given: &[String]) -> Vec<Host> {
    let given = given.iter().map(|host| Host { addresses: vec![host.clone()], node: None });
    let listings = inner.outbound.watched.listings();
    let learned = listings.get(&id::<Directory>()).into_iter().flat_map(|listing| listing.iter());
    let learned = learned.filter(|provider| !provider.draining).take(LEARNED_MAX);
    let learned = learned.map(|provider| Host {
        addresses: inner.addresses_of(&provider.node),
        node: Some(provider.node.clone()),
    });
    given.chain(learned.filter(|host| !host.addresses.is_empty())).collect()
}

/// Follows the directory of one node; returns whether it was read, and why it is lost.
async fn ask(inner: &Inner, host: &Host) -> (bool, String) {
    let opened = dial::open(&host.addresses, host.node.as_ref(), inner.endpoint.as_ref());
    let deadline = inner.dial_timeout;
    let (connection, stream) = match tokio::time::timeout(deadline, opened).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(why)) => return (false, why),
        Err(_) => return (false, format!("no connection within {deadline:?}")),
    };
    let windows = inner.outbound.windows();
    let Some(_window) = windows.open(connection.as_ref(), Holder::Member, Purpose::Lane) else {
        return (false, dial::NO_WINDOW.to_owned());
    };
    inner.outbound.connected(&connection);
    let peer = connection.peer();
    let Some(name) = peer.name.clone() else {
        return (false, "its certificate names no node".to_owned());
    };
    let datacenter = peer.datacenter.clone();
    let limits = inner.outbound.limits();
    let lane = LaneLimits { calls: 1, queue_bytes: limits.lane_queue_bytes };
    // Its generation is not known yet, and the directory of any process will do.
    let any = Generation::ZERO;
    let to = (name.node.clone(), Purpose::Lane, any);
    let rooms = inner.outbound.answers(&name.node);
    let link = Arc::new(Link::new(
        to,
        lane,
        (rooms, Arc::clone(&inner.outbound.abroad)),
        (inner.outbound.clock(), inner.outbound.ambient.clone()),
    ));
    let hello = Frame::ClientHello(ClientHello { expected: any, features: 0 });
    // An answer of the directory fits on its lane.
    let no_long_answers = std::future::pending();
    let mut read = false;
    let followed = follow(inner, &link, || {
        read = true;
        inner.set_host(Some((name.node.clone(), datacenter.clone())));
        inner.first.set_first(Ok(()));
    });
    let why = tokio::select! {
        // What a node has answered before it has closed counts.
        biased;
        Err(why) = followed => why,
        why = link.serve(Arc::clone(&connection), stream, hello, WAIT + PATIENCE, no_long_answers) => {
            link.end(why.clone());
            why.to_string()
        }
    };
    connection.close(Close::Unneeded as u32, b"this client asks another node");
    (read, why)
}

/// Reads the directory of a node, and then each change. Returns why it is lost.
async fn follow(
    inner: &Inner,
    link: &Arc<Link>,
    mut when_read: impl FnMut(),
) -> Result<Infallible, String> {
    loop {
        let (process, mut since) = read(inner, link).await?;
        when_read();
        loop {
            let begun = inner.outbound.clock().now();
            let news = question(inner, link, &Changes { process, since }).await?;
            if !news.known {
                tokio::time::sleep(EARLY_PAUSE).await;
                break;
            }
            let checked =
                news.rows.into_iter().map(CheckedRow::read).collect::<Result<Vec<_>, _>>();
            let checked = checked.map_err(|bad| bad.to_string())?;
            inner.update(&checked);
            if inner.is_full() {
                return Err(format!("it lists more than {NODES_MAX} nodes"));
            }
            let waited = inner.outbound.clock().now().since(begun);
            if checked.is_empty() && waited < WAIT / 2 {
                tokio::time::sleep(EARLY_PAUSE).await;
            }
            since = news.version;
        }
    }
}

/// Reads all pages; returns the process that has answered, and up to which version its changes are known.
async fn read(inner: &Inner, link: &Arc<Link>) -> Result<(u64, u64), String> {
    let mut checked: Vec<CheckedRow> = Vec::new();
    let mut first = None;
    loop {
        let after = checked.last().map(|checked| checked.node.clone());
        let page = question(inner, link, &List { after }).await?;
        // Changes while it is read come again.
        let (process, version) = *first.get_or_insert((page.process, page.version));
        if page.process != process {
            return Err("another process answers".to_owned());
        }
        let is_empty = page.rows.is_empty();
        for row in page.rows {
            if checked.last().is_some_and(|last| last.node >= row.node) {
                return Err("its pages are out of order".to_owned());
            }
            checked.push(CheckedRow::read(row).map_err(|bad| bad.to_string())?);
        }
        if checked.len() > NODES_MAX {
            return Err(format!("it lists more than {NODES_MAX} nodes"));
        }
        if !page.more {
            inner.replace(&checked);
            return Ok((process, version));
        }
        if is_empty {
            return Err("its pages have no end".to_owned());
        }
    }
}

async fn question<M: Call<Service = Directory>>(
    inner: &Inner,
    link: &Arc<Link>,
    ask: &M,
) -> Result<M::Reply, String> {
    let body = encode_question(ask).map_err(|error| error.to_string())?;
    let now = inner.outbound.clock().now();
    let deadline = now + WAIT + PATIENCE;
    let call = link.call(&id::<Directory>(), (M::METHOD.number, body).into(), now, deadline);
    let (outcome, link) = call.map_err(|full| full.to_string())?.ended().await;
    let ending = Ending::settle(outcome, || link.why());
    let body =
        ending.result.map_err(|failure| format!("{}: {}", Directory::NAME, failure.reason()))?;
    decode_answer::<M>(body).map_err(|error| format!("its answer is not understood: {error}"))
}
