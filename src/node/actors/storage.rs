//! The storage actor: wraps the [`Replica`], answers from memory, and passes durable changes to the store.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, UNIX_EPOCH},
};

use ractor::{ActorProcessingErr, ActorRef};
use rand::Rng;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    node::{
        error::Error,
        links::{revoked::close_revoked, table::Links},
        messages::{StorageMessage, Writes},
        shared::Shared,
        timer::Timer,
    },
    protocol::{
        exchange::{Ask, Reply},
        id::{NodeId, Version},
        record::Status,
        replica::Replica,
        route::{Counter, Output, SchedulerInput, StorageInput},
        seal::{Notary, Seals},
        service::manifest::Manifest,
        sketch::SketchKey,
        state::PeerState,
        time::Time,
        wave::Census,
        write::{WriteError, Written},
    },
    store::{Change, StoreError},
    tls::Tls,
};

#[derive(Debug)]
pub(crate) struct Storage;

/// The start parameters of a storage actor.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) shared: Arc<Shared>,
    pub(crate) links: Arc<Links>,
}

#[derive(Debug)]
pub(crate) struct State {
    shared: Arc<Shared>,
    links: Arc<Links>,
    replica: Replica,
    timer: Timer,
    /// How late the node was served when the machine last heard of it.
    lag: Duration,
    /// How long this actor has worked for exchanges, as far as the scheduler was not told.
    repaired: Duration,
    /// Callers that wait for a count.
    counts: BTreeMap<u64, oneshot::Sender<Census>>,
}

#[ractor::actor(message = StorageMessage, state = State, arguments = Arguments)]
impl Storage {
    async fn pre_start(
        &self,
        myself: ActorRef<StorageMessage>,
        Arguments { shared, links }: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let stored = unless_ending(&shared, shared.writer.load()).await?;
        let copies = shared.published.maps.load_full();
        // Replaced when a message arrives, if the transport is available.
        let mut config = shared.config.replica(SketchKey([0; 16]));
        let now = shared.clock.now();
        let before = copies.get(&config.node).and_then(|map| map.record.as_ref());
        if let Some((_, record)) = before {
            // If it has left meanwhile, an actor that failed afterwards must not undo that.
            config.record.status = record.status;
        }
        let validity = tls(&shared).map(|tls| tls.validity()).or_else(|| shown(&shared));
        (config.record.not_before, config.record.not_after) = validity.unzip();
        let mut out = Vec::new();
        let mut replica = Replica::start(
            config,
            stored,
            &copies,
            shared.renewed(),
            now,
            shared.ambient.wall(),
            &mut out,
        );
        let mut secret = [0; 32];
        shared.ambient.rng().fill_bytes(&mut secret);
        replica.set_secret(secret);
        if let Some(tls) = tls(&shared) {
            replica.set_authorities(now, Arc::new(tls), &mut out);
        }
        if before.is_none() {
            // The services of an earlier process are not offered any more.
            let withdrawn = replica.announce(now, &Manifest::default(), &mut out);
            out.push(Output::Persist(withdrawn.map(|written| written.persist).unwrap_or_default()));
        }
        // Nothing may be sent in a generation that a process could take again after a crash. So
        // readers and the transport see the generation only when it is durable.
        let (persist, rest) = out.into_iter().partition(|out| matches!(out, Output::Persist(_)));
        shared.route(persist);
        unless_ending(&shared, shared.writer.flush()).await?;
        // Only now: questions of exchanges to an actor that waits for a disk would pile up.
        shared.lag.restarted();
        shared.routes.storage.set(myself.clone());
        let (timer, counts) = (Timer::default(), BTreeMap::new());
        let (lag, repaired) = (Duration::ZERO, Duration::ZERO);
        let mut state = State { shared, links, replica, timer, lag, repaired, counts };
        state.finish(&myself, rest);
        state.remember_the_dead(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<StorageMessage>,
        message: StorageMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (mut out, begun) = (Vec::new(), state.shared.clock.now());
        state.replica.set_wall(begun, state.shared.ambient.wall());
        state.learn_certificates(begun, &mut out);
        state.learn_lag(begun, &mut out);
        let repairs = match &message {
            StorageMessage::Ask(_, ask, ..) => !matches!(ask, Ask::Gossip(_) | Ask::Repeated(_)),
            StorageMessage::Input(input) => matches!(input, StorageInput::BeginRound(_)),
            _ => false,
        };
        let owed = match message {
            StorageMessage::Input(input) => {
                state.replica.handle(state.shared.clock.now(), input, &mut out);
                Owed::Nothing
            }
            StorageMessage::Write(writes, permit, reply) => {
                Owed::Acknowledgement(state.write(writes, &mut out), permit, reply)
            }
            StorageMessage::Probe => {
                state.shared.lag.received(begun);
                Owed::Nothing
            }
            StorageMessage::Count(version, patience, reply) => {
                let now = state.shared.clock.now();
                let id = state.replica.count(now, version, patience, &mut out);
                state.counts.retain(|_, reply| !reply.is_closed());
                state.counts.insert(id, reply);
                Owed::Nothing
            }
            StorageMessage::Ask(peer, ask, reply, turn) => {
                Owed::Answer(state.answer(&peer, ask, &mut out), reply, turn)
            }
        };
        // Whatever the message was: the machine may have asked for a call, and would wait for it.
        state.finish(&myself, out);
        match owed {
            Owed::Nothing => {}
            Owed::Acknowledgement(written, permit, reply) => {
                state.acknowledge(written, permit, reply);
            }
            Owed::Answer(answer, reply, turn) => {
                // The exchange may have broken off meanwhile.
                let _ = reply.send(answer);
                drop(turn);
            }
        }
        let worked = state.shared.clock.now().since(begun);
        state.shared.diagnostics.counters.storage_step(worked);
        if repairs {
            state.repaired(worked);
        }
        Ok(())
    }
}

impl State {
    /// Reads the present certificates, and renews the proof of this generation when the node's own one changes.
    fn learn_certificates(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(tls) = tls(&self.shared) else {
            let shown = shown(&self.shared);
            if shown.is_some() {
                self.replica.set_validity(now, shown, out);
            }
            return;
        };
        self.replica.set_sketch_key(tls.sketch_key());
        self.replica.set_validity(now, Some(tls.validity()), out);
        let notary: Arc<dyn Notary> = Arc::new(tls);
        if !self.replica.knows_seals() {
            let signing = self.shared.config.signing;
            self.replica.set_seals(Some(Seals { notary, signing }));
        }
        self.replica.renew_credential(self.shared.clock.now(), out);
    }

    /// This actor has worked for so long for an exchange.
    fn repaired(&mut self, worked: Duration) {
        let micros = u64::try_from(worked.as_micros()).unwrap_or(u64::MAX);
        self.shared.diagnostics.counters.add(Counter::RepairMicros, micros);
        self.repaired += worked;
        if self.repaired >= REPAIRED_STEP {
            let repaired = SchedulerInput::Repaired(std::mem::take(&mut self.repaired));
            self.shared.routes.scheduler.cast(repaired);
        }
    }

    /// Tells the machine before each message how late the node is: through the mailbox that would come late.
    fn learn_lag(&mut self, now: Time, out: &mut Vec<Output>) {
        let lag = self.shared.lag.told();
        if self.lag != lag {
            self.lag = lag;
            self.replica.handle(now, StorageInput::Lag(lag), out);
        }
    }

    fn write(&mut self, writes: Writes, out: &mut Vec<Output>) -> Result<Written, WriteError> {
        let now = self.shared.clock.now();
        match writes {
            Writes::Batch(batch) => self.replica.write(now, batch, out),
            Writes::Tags(tags) => self.replica.set_tags(now, tags, out),
            Writes::Offers(manifest) => self.replica.announce(now, &manifest, out),
            Writes::Revoke(statement) => self.replica.revoke(now, *statement, out),
            Writes::Leave { remembered } => {
                let mut written = self.replica.set_status(now, Status::Left, out);
                written.persist.push(Change::Left(remembered));
                Ok(written)
            }
        }
    }

    /// After a restart: repeats the inputs that the detector had sent to the previous actor.
    fn remember_the_dead(&mut self, myself: &ActorRef<StorageMessage>) {
        let now = self.shared.clock.now();
        let mut out = Vec::new();
        for (peer, life) in &**self.shared.published.lives.load() {
            let over = matches!(life.state, PeerState::Dead | PeerState::Left);
            if over && now.since(life.since) >= self.shared.config.forget_after / 2 {
                self.replica.handle(
                    now,
                    StorageInput::Retire(peer.clone(), life.generation),
                    &mut out,
                );
            }
        }
        self.finish(myself, out);
    }

    /// Answers a writer, at once if no change has to be kept.
    fn acknowledge(
        &self,
        written: Result<Written, WriteError>,
        permit: OwnedSemaphorePermit,
        reply: oneshot::Sender<Result<Version, Error>>,
    ) {
        match written {
            Ok(Written { version, persist, .. }) => {
                // A write without a change may repeat one that is still on its way to the store.
                let ack = move |result: Result<(), _>| {
                    let _ = reply.send(result.map(|()| version).map_err(Error::NotDurable));
                    drop(permit);
                };
                self.shared.writer.write(persist, Some(Box::new(ack)));
            }
            Err(refused) => drop(reply.send(Err(refused.into()))),
        }
    }

    fn answer(&mut self, peer: &NodeId, ask: Ask, out: &mut Vec<Output>) -> Reply {
        self.replica.serve(self.shared.clock.now(), peer, ask, out)
    }

    /// Publishes the state for readers, then sends the events: a reader that receives an event can read its change.
    fn finish(&mut self, myself: &ActorRef<StorageMessage>, out: Vec<Output>) {
        let shared = Arc::clone(&self.shared);
        self.enforce(&out);
        if self.replica.renewed() {
            self.shared.renewed.store(true, Ordering::Release);
        }
        let counted = out.iter().filter_map(|output| match output {
            Output::Counted(id, census) => Some((self.counts.remove(id)?, census.clone())),
            _ => None,
        });
        let counted: Vec<_> = counted.collect();
        let view = || {
            let Some((maps, changed)) = self.replica.view_and_changes() else { return Vec::new() };
            shared.published.maps.store(Arc::new(maps));
            shared.services_seen(changed.iter())
        };
        if let Some(wait) = shared.publish(out, view) {
            self.timer.set(myself, wait, || StorageMessage::Input(StorageInput::Tick));
        }
        for (reply, census) in counted {
            let _ = reply.send(census);
        }
    }

    /// Closes the connections of revoked peers before the revocation is reported.
    fn enforce(&self, out: &[Output]) {
        for output in out {
            let Output::Revoked(revocations) = output else { continue };
            self.shared.published.revocations.store(Arc::clone(revocations));
            if let Some(tls) = tls(&self.shared) {
                close_revoked(&self.links, &tls, revocations);
                self.shared.services.close_revoked(&tls);
                self.shared.clients.recheck();
            }
        }
    }
}

/// What the sender of a message gets once the machine's outputs are on their way.
enum Owed {
    Nothing,
    Acknowledgement(
        Result<Written, WriteError>,
        OwnedSemaphorePermit,
        oneshot::Sender<Result<Version, Error>>,
    ),
    Answer(Reply, oneshot::Sender<Reply>, Arc<OwnedSemaphorePermit>),
}

/// The scheduler is told of this much work for exchanges at once.
const REPAIRED_STEP: Duration = Duration::from_millis(10);

/// The validity of a certificate that is only a date: from the beginning, to that date, in seconds since 1970.
fn shown(shared: &Shared) -> Option<(u64, u64)> {
    let end = shared.endpoint.upgrade()?.shown()?.expires?;
    Some((0, end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()))
}

/// The TLS of the node, as long as it is connected to a network with certificates.
fn tls(shared: &Shared) -> Option<Tls> {
    shared.endpoint.upgrade()?.tls().cloned()
}

/// The root waits for this actor's start: a disk that hangs must not prevent the end of the node.
async fn unless_ending<T>(
    shared: &Shared,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, ActorProcessingErr> {
    tokio::select! {
        biased;
        result = call => Ok(result?),
        () = shared.end.begun() => Err("the node ends".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Config, Gossipmonger,
        net::memory::MemoryNetwork,
        protocol::id::{ClusterId, Datacenter},
        tls::PeerName,
    };

    const PATIENCE: Duration = Duration::from_secs(600);

    async fn spawn(network: &MemoryNetwork, node: &str, seed: Option<&str>) -> Gossipmonger {
        let id = |name: &str| NodeId::new(name).unwrap();
        let cluster = ClusterId::new("test").unwrap();
        let datacenter = Datacenter::new("dc").unwrap();
        let mut config = Config::new(&PeerName { cluster, datacenter, node: id(node) });
        config.seeds.extend(seed.map(|seed| MemoryNetwork::address(&id(seed))));
        // A round would repair what this looks for.
        config.gossip_interval = Duration::from_secs(60);
        Gossipmonger::spawn(config, network.place()).await.unwrap().0
    }

    /// The message that learns of a new lag is often a probe, and then the machine's answer is all it causes.
    #[tokio::test(start_paused = true)]
    async fn an_update_does_not_wait_for_a_round_when_a_probe_brings_a_new_lag() {
        let network = MemoryNetwork::default();
        let a = spawn(&network, "a", None).await;
        let b = spawn(&network, "b", Some("a")).await;
        let linked = async {
            while b.get(a.node(), "key").is_none() {
                a.set("key", "linked").await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, linked).await.unwrap();
        let before = a.counters().get(Counter::ExchangesInitiated)
            + b.counters().get(Counter::ExchangesInitiated);
        // More than is sent at once, so some of it waits when the probe comes.
        for n in 0..100_u32 {
            a.set("key", n.to_string()).await.unwrap();
            a.shared.lag.tell(Duration::from_millis(u64::from(n % 5)));
            a.shared.routes.storage.cast(StorageMessage::Probe);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        a.set("key", "alone").await.unwrap();
        let arrived = async {
            while b.get_str(a.node(), "key").as_deref() != Some("alone") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), arrived)
            .await
            .expect("the last update is sent at once");
        let after = a.counters().get(Counter::ExchangesInitiated)
            + b.counters().get(Counter::ExchangesInitiated);
        assert_eq!(after, before, "exchanges");
    }
}
