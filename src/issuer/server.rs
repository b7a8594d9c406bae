//! The issuer's listener: a UDP port of its own, for machines without a certificate.
//!
//! A client first proves its address (a Retry costs less than a handshake), spends one of its source's attempts,
//! which it gets back if its request is granted, takes a slot ([`places`](super::places)), and has one request and
//! one deadline. The reason of a refusal is sent to the client, counted, and logged.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quinn::{
    ConnectionError, Incoming, ReadToEndError, ServerConfig, crypto::rustls::QuicServerConfig,
};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
};

use super::{
    cluster::Cluster,
    connection::{GIVE_WAY, REQUEST_TIMEOUT, transport},
    grant::Issuer,
    ledger::Denied,
    places::{Full, MEMBERS_MAX, Places, VISITORS_MAX},
    request::{
        ANSWER_BYTES_MAX, Answer, Exported, Granted, JOIN_ALPN, REQUEST_BYTES_MAX, Refused, Request,
    },
};
use crate::{
    clock::Clock,
    foreign::Foreign,
    net::quic::{crypto, peer, socket::Lone},
    protocol::time::Time,
    tls::{PeerName, RefusedBy, Rejection, Tls, Verdict},
};

/// Concurrent connections, of visitors and of members.
pub(super) const CONNECTIONS_MAX: usize = VISITORS_MAX + MEMBERS_MAX;

/// Failed attempts per minute from one address, or IPv6 network of 64 bits.
pub(super) const ATTEMPTS_PER_MINUTE: u32 = 60;

/// Maximum number of source addresses in memory.
pub(super) const SOURCES_MAX: usize = 4_096;

/// The bound port.
#[derive(Debug)]
pub struct Door {
    endpoints: Vec<Lone>,
    addresses: Vec<SocketAddr>,
}

/// The port cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for those who join: {error}")]
pub struct DoorError {
    address: SocketAddr,
    error: io::Error,
}

impl Door {
    /// Binds the addresses; one with port 0 gets the port of the first. In a tokio runtime.
    ///
    /// # Errors
    /// [`DoorError`], naming the address.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, DoorError> {
        let mut door = Self { endpoints: Vec::new(), addresses: Vec::new() };
        for address in addresses {
            let mut address = *address;
            if let (0, Some(first)) = (address.port(), door.addresses.first()) {
                address.set_port(first.port());
            }
            let failed = |error| DoorError { address, error };
            let bound = Lone::bind(address).map_err(failed)?;
            door.addresses.push(bound.address());
            door.endpoints.push(bound);
        }
        Ok(door)
    }

    /// The bound addresses.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The port in tokens: that of the first address.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addresses.first().map_or(0, SocketAddr::port)
    }

    /// Serves until this is dropped. `tls`: the node's; its roots determine who is a member.
    pub async fn serve(self, issuer: Arc<Issuer>, tls: Tls, cluster: Arc<dyn Cluster>) {
        let desk = Arc::new(Desk {
            issuer,
            tls,
            cluster,
            sources: Mutex::default(),
            clock: Clock::start(),
            places: Mutex::default(),
            deciding: Arc::new(Semaphore::new(DECISIONS_MAX)),
        });
        let mut looking = JoinSet::new();
        looking.spawn(keep_looking(Arc::clone(&desk.issuer)));
        let mut doors = JoinSet::new();
        for bound in self.endpoints {
            let config = desk.server_config(Verdict::default());
            bound.endpoint.set_server_config(Some(config));
            doors.spawn(attend(Arc::clone(&desk), bound));
        }
        while doors.join_next().await.is_some() {}
    }
}

async fn attend(desk: Arc<Desk>, bound: Lone) {
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = visits.join_next() => {}
            incoming = bound.endpoint.accept() => {
                let Some(incoming) = incoming else {
                    let address = bound.address();
                    tracing::error!(
                        "the issuer's door at {address} has ended: start the agent again to let anybody join \
                         or renew there"
                    );
                    return;
                };
                if let Some((incoming, seat)) = desk.admit(incoming) {
                    visits.spawn(Arc::clone(&desk).visit(incoming, seat));
                }
            }
        }
    }
}

/// Keeps the listener's certificate up to date, and the listener closed while the authority's directory
/// cannot be read. Handshakes do not wait for files, because strangers start them.
async fn keep_looking(issuer: Arc<Issuer>) {
    let room = Arc::new(Semaphore::new(LOOKS_MAX));
    let mut shut: Option<String> = None;
    loop {
        let why = look(&issuer, &room).await.err();
        if let Some(why) = &why {
            issuer.shut();
            if shut.as_ref() != Some(why) {
                tracing::error!("nobody can join or renew here, the door is shut: {why}");
            }
        } else if shut.is_some() {
            tracing::info!("the authority can be read again, the door is open");
        }
        shut = why;
        tokio::time::sleep(LOOK).await;
    }
}

/// Checks once, on a thread that may hang.
async fn look(issuer: &Arc<Issuer>, room: &Arc<Semaphore>) -> Result<(), String> {
    let looked = async {
        let permit = Arc::clone(room).acquire_owned().await.map_err(|e| e.to_string())?;
        let issuer = Arc::clone(issuer);
        let looked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            issuer.look().map(drop)
        });
        looked.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    };
    let looked = tokio::time::timeout(LOOK_TIMEOUT, looked).await;
    looked.unwrap_or_else(|_| Err(hangs(&issuer.directory, LOOK_TIMEOUT)))
}

fn hangs(directory: &Path, patience: Duration) -> String {
    format!(
        "{}: no answer from the system within {patience:?}; is it on a file system that hangs, or is there \
         a pipe?",
        directory.display()
    )
}

/// Answers the clients.
struct Desk {
    issuer: Arc<Issuer>,
    tls: Tls,
    cluster: Arc<dyn Cluster>,
    sources: Mutex<Sources>,
    clock: Clock,
    places: Mutex<Places<oneshot::Sender<()>>>,
    /// Limits decisions in progress, including those without a waiting client.
    deciding: Arc<Semaphore>,
}

/// A client's slot; dropping it frees the slot.
struct Seat {
    desk: Arc<Desk>,
    number: u64,
    gives_way: oneshot::Receiver<()>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.desk.places().leave(self.number);
    }
}

impl Desk {
    /// Lets a handshake begin, or refuses it.
    fn admit(self: &Arc<Self>, incoming: Incoming) -> Option<(Incoming, Seat)> {
        if !incoming.remote_address_validated() && incoming.may_retry() {
            // It fails only if no retry is allowed.
            let _ = incoming.retry();
            return None;
        }
        let source = incoming.remote_address();
        if !self.sources().pays(source.ip(), self.clock.now()) {
            self.refused(source, RATE_LIMITED, "too many attempts within a minute");
            incoming.refuse();
            return None;
        }
        let (leave, gives_way) = oneshot::channel();
        let entered = self.places().enter(network(source.ip()), leave);
        match entered {
            Ok((number, gone)) => {
                send_away(gone);
                Some((incoming, Seat { desk: Arc::clone(self), number, gives_way }))
            }
            Err(Full) => {
                self.refused(source, BUSY, "too many are being served");
                incoming.refuse();
                None
            }
        }
    }

    async fn visit(self: Arc<Self>, incoming: Incoming, mut seat: Seat) {
        let source = incoming.remote_address();
        let verdict = Verdict::default();
        let config = self.server_config(verdict.clone());
        let served = self.serve(incoming, config, &mut seat);
        match tokio::time::timeout(REQUEST_TIMEOUT, served).await {
            Ok(Ok(Served::Answered)) => {}
            Ok(Ok(Served::GaveWay)) => {
                self.refused(
                    source,
                    GAVE_WAY,
                    "it had sent no request when another visitor needed its place",
                );
            }
            Ok(Err(error)) => self.broken(source, &error, &verdict),
            Err(_) => self.refused(source, TIMEOUT, "no whole request in time"),
        }
    }

    /// The handshake, one request, one answer; ends early if another client gets the slot.
    async fn serve(
        self: &Arc<Self>,
        incoming: Incoming,
        config: ServerConfig,
        seat: &mut Seat,
    ) -> Result<Served, ConnectionError> {
        let number = seat.number;
        let connecting = incoming.accept_with(Arc::new(config))?;
        let connection = tokio::select! {
            connection = connecting => connection?,
            _ = &mut seat.gives_way => return Ok(Served::GaveWay),
        };
        if let Ok(member) = peer::peer_certificate(&connection).and_then(|shown| shown.name) {
            let gone = self.places().prove(number, &member.node);
            send_away(gone);
        }
        tokio::select! {
            conversed = self.converse(&connection, number) => conversed.map(|()| Served::Answered),
            _ = &mut seat.gives_way => {
                connection.close(GIVE_WAY, b"another visitor needs this place; send the request at once");
                Ok(Served::GaveWay)
            }
        }
    }

    /// One request, one answer.
    async fn converse(
        self: &Arc<Self>,
        connection: &quinn::Connection,
        number: u64,
    ) -> Result<(), ConnectionError> {
        let (mut send, mut receive) = connection.accept_bi().await?;
        let request = match receive.read_to_end(REQUEST_BYTES_MAX).await {
            Ok(bytes) => Request::decode(&bytes).map_err(|e| Denied::new(Refused::BadRequest, e)),
            Err(ReadToEndError::TooLong) => Err(Denied::new(
                Refused::BadRequest,
                format!("a request has {REQUEST_BYTES_MAX} bytes at most"),
            )),
            Err(ReadToEndError::Read(_)) => return Err(connection.closed().await),
        };
        self.places().set_busy(number, true);
        let answer = match request {
            Ok(request) => self.answer(connection, request).await,
            Err(denied) => Err(denied),
        };
        // A grant must reach the client; a refusal may be lost.
        self.places().set_busy(number, answer.is_ok());
        let answer = self.tell(connection.remote_address(), answer).encode();
        debug_assert!(answer.len() <= ANSWER_BYTES_MAX);
        if send.write_all(&answer).await.is_ok() && send.finish().is_ok() {
            // The client closes when it has read the answer.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.closed()).await;
        }
        Ok(())
    }

    async fn answer(
        self: &Arc<Self>,
        connection: &quinn::Connection,
        request: Request,
    ) -> Result<(Granted, PeerName, bool), Denied> {
        let member = peer::peer_certificate(connection)
            .and_then(|shown| Ok((shown.name?, shown.not_before)));
        let exported = Exported::of(connection);
        let desk = Arc::clone(self);
        let decide = move || match request {
            Request::Join(join) => {
                let exported =
                    exported.ok_or_else(|| Denied::new(Refused::Unable, "no exporter"))?;
                let (granted, name) = desk.issuer.grant(&join, &exported, desk.cluster.as_ref())?;
                Ok((granted, name, false))
            }
            Request::Renew { csr } => {
                let (name, since) = member.map_err(|e| Denied::new(Refused::NoCertificate, e))?;
                let granted = desk.issuer.regrant(&name, since, &csr, desk.cluster.as_ref())?;
                Ok((granted, name, true))
            }
        };
        let inside = |_| Denied::new(Refused::Unable, "it failed inside");
        let decided = async {
            let permit = Arc::clone(&self.deciding).acquire_owned().await;
            let permit = permit.map_err(|e| Denied::new(Refused::Unable, e))?;
            let decided = tokio::task::spawn_blocking(move || {
                // The thread holds it until the system answers.
                let _permit = permit;
                decide()
            });
            decided.await.map_err(inside)?
        };
        let decided = tokio::time::timeout(DECISION_TIMEOUT, decided).await;
        decided.unwrap_or_else(|_| {
            let why = hangs(&self.issuer.directory, DECISION_TIMEOUT);
            Err(Denied::new(Refused::Unable, why))
        })
    }

    /// Counts and logs the answer.
    fn tell(
        &self,
        source: SocketAddr,
        answer: Result<(Granted, PeerName, bool), Denied>,
    ) -> Answer {
        match answer {
            Ok((granted, name, renewal)) => {
                self.sources().gives_back(source.ip());
                self.cluster.granted(source, &name, renewal);
                Answer::Granted(granted)
            }
            Err(Denied { why, detail }) => {
                let told =
                    if detail.is_empty() { why.to_string() } else { format!("{why}: {detail}") };
                self.refused(source, why.as_str(), &told);
                // Internal errors must not reach strangers.
                let detail = if why == Refused::Unable { String::new() } else { detail };
                Answer::Refused(why, detail.chars().take(DETAIL_CHARS_MAX).collect())
            }
        }
    }

    /// Counts and logs a connection that ended before an answer.
    fn broken(&self, source: SocketAddr, error: &ConnectionError, verdict: &Verdict) {
        match verdict.refusal(error) {
            Some(refusal)
                if refusal.by == RefusedBy::Peer
                    && refusal.reason == Rejection::UnknownAuthority =>
            {
                let detail = "it does not accept this authority: its token is of another one";
                self.refused(source, WRONG_PIN, detail);
            }
            Some(refusal) => {
                self.refused(source, refusal.reason.as_str(), &refusal.to_string());
            }
            None => self.refused(source, BROKEN, &error.to_string()),
        }
    }

    fn refused(&self, source: SocketAddr, label: &'static str, detail: &str) {
        self.cluster.refused(source, label, &Foreign::from(detail).cut(LOGGED_CHARS_MAX));
    }

    fn server_config(&self, verdict: Verdict) -> ServerConfig {
        let shown = Arc::new(Showing(Arc::clone(&self.issuer)));
        let crypto = self.tls.door(shown, JOIN_ALPN, verdict);
        let crypto = QuicServerConfig::try_from(crypto).expect(crypto::INITIAL_SUITE);
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config
            .transport_config(transport())
            .migration(false)
            .max_incoming(CONNECTIONS_MAX)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER * CONNECTIONS_MAX as u64);
        config
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Places<oneshot::Sender<()>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sources(&self) -> std::sync::MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a connection ended.
enum Served {
    /// The request was answered.
    Answered,
    /// Another client got its slot.
    GaveWay,
}

/// Ends the connection that gives way, unless it has ended already.
fn send_away(gone: Option<oneshot::Sender<()>>) {
    if let Some(leave) = gone {
        let _ = leave.send(());
    }
}

/// Shows the listener's present certificate in each handshake; none while the listener is closed.
#[derive(Debug)]
struct Showing(Arc<Issuer>);

impl ResolvesServerCert for Showing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.shown().map(|shown| Arc::clone(&shown.certified))
    }
}

/// The attempts that each source has left.
#[derive(Debug, Default)]
struct Sources(BTreeMap<IpAddr, Purse>);

#[derive(Clone, Copy, Debug)]
struct Purse {
    left: f64,
    at: Time,
}

impl Sources {
    /// Spends an attempt, if one is left.
    fn pays(&mut self, source: IpAddr, now: Time) -> bool {
        if self.0.len() >= SOURCES_MAX {
            self.0.retain(|_, purse| purse.at(now) < f64::from(ATTEMPTS_PER_MINUTE));
            // All of these have used attempts lately; then all start afresh, and the limit on slots has to hold.
            if self.0.len() >= SOURCES_MAX {
                self.0.clear();
            }
        }
        let full = Purse { left: f64::from(ATTEMPTS_PER_MINUTE), at: now };
        let purse = self.0.entry(network(source)).or_insert(full);
        *purse = Purse { left: purse.at(now), at: now };
        let pays = purse.left >= 1.0;
        purse.left -= f64::from(u8::from(pays));
        pays
    }

    /// Returns an attempt: its request was granted.
    fn gives_back(&mut self, source: IpAddr) {
        if let Some(purse) = self.0.get_mut(&network(source)) {
            purse.left = (purse.left + 1.0).min(f64::from(ATTEMPTS_PER_MINUTE));
        }
    }
}

impl Purse {
    fn at(&self, now: Time) -> f64 {
        let most = f64::from(ATTEMPTS_PER_MINUTE);
        (self.left + now.since(self.at).as_secs_f64() * most / 60.0).min(most)
    }
}

/// The holder of one IPv6 address has 2^64 of them.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// How often the authority's directory is checked.
const LOOK: Duration = Duration::from_secs(1);
/// How long a check may take before the listener closes.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Concurrent checks, including those whose caller has given up. Each takes a thread until the system
/// answers.
const LOOKS_MAX: usize = 4;
/// Requests decided concurrently; each takes a thread in the same way.
const DECISIONS_MAX: usize = 8;
/// How long the files may take for one request: shorter than [`REQUEST_TIMEOUT`], so that the client gets an answer.
const DECISION_TIMEOUT: Duration = Duration::from_secs(7);
/// How long a client may take to read its answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of packets held for one handshake that has not been processed.
const INCOMING_BUFFER: u64 = 16 << 10;
/// Maximum length of the detail that a refused client receives, in characters.
const DETAIL_CHARS_MAX: usize = 200;
/// Maximum length of a logged detail, in characters: it may quote the client.
const LOGGED_CHARS_MAX: usize = 400;
// Labels of connections refused without an answer.
const RATE_LIMITED: &str = "join_rate_limited";
const BUSY: &str = "join_busy";
const GAVE_WAY: &str = "join_gave_way";
const TIMEOUT: &str = "join_timeout";
const WRONG_PIN: &str = "join_wrong_pin";
const BROKEN: &str = "join_broken";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_source_that_has_spent_its_minute() {
        let mut sources = Sources::default();
        let (now, greedy) = (Time::ZERO, "10.0.0.1".parse().unwrap());
        let spent = (0..200).filter(|_| sources.pays(greedy, now)).count();
        assert_eq!(spent, 60);
        assert!(sources.pays("10.0.0.2".parse().unwrap(), now));
        sources.gives_back(greedy);
        assert!(sources.pays(greedy, now) && !sources.pays(greedy, now));
        assert!(sources.pays(greedy, now + Duration::from_secs(1)));
        assert!(!sources.pays(greedy, now + Duration::from_secs(1)));
    }

    #[test]
    fn takes_a_network_of_ipv6_as_one_source_and_remembers_a_limited_number() {
        let mut sources = Sources::default();
        let network = |n: u128| IpAddr::from((n << 64).to_be_bytes());
        while sources.pays(network(1), Time::ZERO) {}
        assert!(!sources.pays("0:0:0:1::77".parse().unwrap(), Time::ZERO));
        for n in 0..3 * SOURCES_MAX as u128 {
            sources.pays(network(n), Time::ZERO);
            assert!(sources.0.len() <= SOURCES_MAX);
        }
    }
}
