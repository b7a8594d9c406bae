//! Callers that are no members: one node, their host, tells them what they may call.
//!
//! What a host shows, and the order of its changes, are those of the machine
//! ([`client_directory`](crate::protocol::service::client_directory)). A client reads all of it, then each change; when its host is gone, it asks
//! another node and replaces what it knew. The questions are messages of a model: in an agent they are calls.

use std::collections::BTreeMap;

use rand::RngExt;

use super::{
    event::{Event, Row},
    knowledge::{admitted, seen, state},
    settings::Mutation,
    state::{Process, View},
    world::World,
};
use crate::{
    protocol::{
        entry::Value,
        id::NodeId,
        service::{
            client_directory::{self, Observed, outlived},
            clients::{Rank, Viewer},
            directory::{Directory, Seen},
            manifest::Manifest,
        },
        state::PeerState,
    },
    sim::queue::micros,
};

impl World {
    /// A client looks for a host.
    pub(super) fn ask(&mut self, client: usize) {
        let (own, host) =
            (self.processes[client].node, self.rng.random_range(0..self.settings.nodes));
        let now = self.queue.now();
        let reached = self.nodes[host].process.filter(|to| {
            let is_awake = self.processes[*to].paused_until <= now;
            is_awake && self.cut_until(own, host) <= now
        });
        let Some(host) = reached else {
            let pause = micros(self.settings.dial_timeout);
            return self.after(pause, Event::Ask(client));
        };
        self.note(format_args!("client {client} asks process {host}"));
        self.processes[client].host = Some(host);
        let at = self.travels(client, host);
        self.queue.at(at, Event::Asked { client, host, since: None });
    }

    /// The question of a client arrives at its host.
    pub(super) fn asked(&mut self, client: usize, host: usize, since: Option<u64>) {
        if self.processes[client].host != Some(host) {
            return;
        }
        let viewer = viewer();
        let shown = &self.processes[host].shown;
        let changes: Option<Vec<_>> =
            since.and_then(|since| Some(shown.since(&viewer, since)?.collect()));
        let (all, rows) = match (changes, since) {
            (Some(rows), Some(since)) if rows.is_empty() => {
                self.processes[host].asked.insert(client, since);
                return;
            }
            (Some(rows), _) => (false, rows),
            (None, _) => (true, shown.rows(&viewer, None).collect::<Vec<_>>()),
        };
        let version = shown.version();
        let rows = rows.into_iter().map(|(name, row)| self.row(host, name, row)).collect();
        let at = self.travels(host, client);
        self.queue.at(at, Event::Told { client, host, all, version, rows });
    }

    /// What a client is told of a node.
    fn row(&self, host: usize, name: &NodeId, row: &client_directory::Row) -> Row {
        let node = name.as_str()[1..].parse().expect("names of nodes end with their numbers");
        let offers = row.offers_to(&viewer()).cloned().collect();
        let mut manifest: Value = Manifest { draining: row.draining, offers }.encode().into();
        if self.mutates(Mutation::ShowAll)
            && let Some(whole) = self.processes[host].views.get(&node)
        {
            manifest = whole.manifest.clone().unwrap_or(manifest);
        }
        Row { node, generation: row.generation, state: row.state, manifest }
    }

    /// A client is told what has changed, and asks again.
    pub(super) fn told(
        &mut self,
        client: usize,
        (host, all, version): (usize, bool, u64),
        rows: Vec<Row>,
    ) {
        if self.processes[client].host != Some(host) {
            return;
        }
        rows.iter().for_each(|row| self.check_row(client, row));
        match all {
            true => self.replace(client, &rows),
            false => rows.iter().for_each(|row| self.tell(client, row)),
        }
        let at = self.travels(client, host);
        self.queue.at(at, Event::Asked { client, host, since: Some(version) });
    }

    /// Takes what a client is told of one node.
    fn tell(&mut self, client: usize, row: &Row) {
        let views = &mut self.processes[client].views;
        match view(row) {
            Some(view) => drop(views.insert(row.node, view)),
            None => drop(views.remove(&row.node)),
        }
        self.update(client, row.node);
        self.judge_row(client, row);
    }

    /// Ends what has been outlived by the process that a client is told of.
    fn judge_row(&mut self, client: usize, row: &Row) {
        let (generation, why) = outlived(row.generation, row.state);
        self.end_peer(client, row.node, generation, why);
        self.check_pending(client, row.node, row.generation, row.state);
    }

    /// Takes all that a new host tells, in place of all that the client knew.
    fn replace(&mut self, client: usize, rows: &[Row]) {
        let views: BTreeMap<_, _> =
            rows.iter().filter_map(|row| Some((row.node, view(row)?))).collect();
        let (mut directory, mut told) = (Directory::default(), Vec::new());
        for (node, view) in &views {
            let (held, mut out) = (&self.nodes[*node], Vec::new());
            directory.update(&held.id, Some(seen(view, &held.datacenter)), &mut out);
            told.push((*node, out));
        }
        let process = &mut self.processes[client];
        (process.directory, process.views) = (directory, views);
        for (node, out) in told {
            self.apply(client, node, out);
            self.hedge_suspected(client, node);
        }
        rows.iter().for_each(|row| self.judge_row(client, row));
    }

    /// A host shows clients what it knows of a node now.
    pub(super) fn show(&mut self, process: usize, node: usize) {
        let is_host = self.settings.clients > 0 && !self.is_client(self.processes[process].node);
        if !is_host || self.strikes(Mutation::TellLess) {
            return;
        }
        let (held, Process { shown, views, asked, .. }) =
            (&self.nodes[node], &mut self.processes[process]);
        let view = views.get(&node);
        let manifest = view.and_then(|view| view.manifest.as_ref());
        let manifest = manifest.and_then(|value| Manifest::decode(value).ok()).unwrap_or_default();
        shown.update(
            &held.id,
            view.map(|view| Observed {
                generation: view.generation,
                datacenter: &held.datacenter,
                state: state(view),
                draining: manifest.draining,
                offers: &manifest.offers,
                addresses: &[],
            }),
        );
        for (client, since) in std::mem::take(asked) {
            self.asked(client, process, Some(since));
        }
    }

    /// A process ends: its clients find out after `wait`.
    pub(super) fn leaves_clients(&mut self, host: usize, wait: u64) {
        for client in 0..self.processes.len() {
            if self.processes[client].host == Some(host) {
                let wait = wait + self.within(self.settings.spread);
                self.after(wait, Event::HostLost { client, host });
            }
        }
    }

    /// A client has lost its host.
    pub(super) fn host_lost(&mut self, client: usize, host: usize) {
        if self.processes[client].host == Some(host) {
            self.processes[client].host = None;
            self.ask(client);
        }
    }

    /// When a message of one process arrives at another one.
    fn travels(&mut self, from: usize, to: usize) -> u64 {
        let (from, to) = (self.processes[from].node, self.processes[to].node);
        self.cut_until(from, to).max(self.queue.now()) + self.latency(from, to)
    }

    /// A client is shown only what admits it.
    fn check_row(&mut self, client: usize, row: &Row) {
        let manifest = Manifest::decode(&row.manifest).unwrap_or_default();
        if let Some(offer) = manifest.offers.iter().find(|offer| !offer.clients.admits(&viewer())) {
            let what = format_args!("client {client} is shown {}, which admits none", offer.name);
            self.oracle.found(10, what);
        }
    }

    /// When nothing happens any more, a client knows what its host knows, as far as it may.
    pub(super) fn check_client(&mut self, client: usize) {
        let Process { alive, host: Some(host), ref directory, .. } = self.processes[client] else {
            return;
        };
        let Process { alive: serves, ref asked, ref views, .. } = self.processes[host];
        if !alive || !serves || !asked.contains_key(&client) {
            return;
        }
        let mut fresh = Directory::default();
        for (node, view) in views {
            let held = &self.nodes[*node];
            let manifest = view.manifest.as_ref();
            let manifest = manifest.and_then(|value| Manifest::decode(value).ok());
            let Manifest { draining, mut offers } = manifest.unwrap_or_default();
            offers.retain(|offer| offer.clients.admits(&viewer()));
            let manifest: Value = Manifest { draining, offers }.encode().into();
            let known = seen(view, &held.datacenter);
            fresh.update(
                &held.id,
                Some(Seen { manifest: Some(&manifest), ..known }),
                &mut Vec::new(),
            );
        }
        if !directory.listings().iter().eq(fresh.listings().iter()) {
            let what = format_args!("client {client} knows something else than its host {host}");
            self.oracle.found(8, what);
        }
    }

    /// Whether a service admits a caller.
    pub(super) fn is_admitted(&self, caller: usize, service: usize) -> bool {
        !self.is_client(caller) || admitted(service).admits(&viewer())
    }
}

/// All clients have the same certificate.
fn viewer() -> Viewer {
    Viewer::new(Rank::Read, [])
}

/// A row as a member would know it; `None` if the node was forgotten.
fn view(row: &Row) -> Option<View> {
    let Row { generation, state, ref manifest, .. } = *row;
    let state: PeerState = state?;
    let verdict = (generation, state);
    Some(View { stamp: 0, generation, manifest: Some(manifest.clone()), verdict })
}
