//! Dials one target: every path from each socket to each of its addresses, each a little later than the one
//! before.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use quinn::ClientConfig;
use tokio::task::JoinSet;

use super::{
    candidates::{self, ADDRESSES_MAX, CANDIDATES_MAX, Candidate, Ways},
    connection::{self, QuicConnection},
    outgoing::Outgoing,
    socket::Socket,
};
use crate::{
    clock::Clock,
    lateness::TooLate,
    net::{BoxFuture, Connection, Dial, Dialed, Ended, Protocol, Way},
    protocol::{counter::Counter, id::NodeId, served::DIALER_MAX, time::Time, timing::Timing},
    tls::SERVER_NAME,
};

/// The delay between two paths to a target, unless the earlier one has failed.
const STAGGER: Duration = Duration::from_millis(500);
/// How long the resolution of a name may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The paths to one target, and the progress of the handshakes.
pub(super) struct Race {
    outgoing: Arc<Outgoing>,
    expected: Option<NodeId>,
    protocol: Protocol,
    clock: Clock,
    names: JoinSet<(String, Result<Vec<SocketAddr>, String>)>,
    waiting: Ways,
    /// The path that is about to begin, once the caller agrees.
    about: Option<Candidate>,
    running: JoinSet<Attempt>,
    /// Those of `running`, and those that completed.
    begun: Vec<Candidate>,
    /// The start of the last one.
    last: Time,
    /// The next one may begin although others are running.
    next: bool,
    found: VecDeque<Dialed>,
}

/// A handshake that has ended.
struct Attempt {
    way: Candidate,
    result: Result<Arc<dyn Connection>, Failure>,
}

enum Failure {
    /// The system refuses to send there.
    Unreachable(String),
    /// No answer within this time.
    Silent(Duration),
    Ended(Ended),
}

/// The next event of a race.
enum Step {
    Named(String, Result<Vec<SocketAddr>, String>),
    Ended(Attempt),
    /// The next one may begin.
    Next,
    /// A packet was refused by the system.
    Unsent,
    /// A task of ours panicked or was cancelled.
    Lost,
}

impl Race {
    pub(super) fn new(
        outgoing: &Arc<Outgoing>,
        to: &[String],
        expected: Option<&NodeId>,
        protocol: Protocol,
    ) -> Self {
        let clock = Clock::start();
        let mut race = Self {
            outgoing: Arc::clone(outgoing),
            expected: expected.cloned(),
            protocol,
            clock,
            names: JoinSet::new(),
            waiting: Ways::default(),
            about: None,
            running: JoinSet::new(),
            begun: Vec::new(),
            last: clock.now(),
            next: true,
            found: VecDeque::new(),
        };
        for address in to {
            match address.parse() {
                Ok(to) => race.add(address, to),
                Err(_) => drop(race.names.spawn(resolve(Arc::clone(outgoing), address.clone()))),
            }
        }
        race
    }

    async fn step(&mut self) -> Option<Dialed> {
        loop {
            let outgoing = Arc::clone(&self.outgoing);
            let noted = outgoing.unsent.notified();
            tokio::pin!(noted);
            noted.as_mut().enable();
            if let Some(way) = self.about.take() {
                self.begin(way);
            } else if self.next || self.running.is_empty() || self.nothing_leaves() {
                if let Some(way) = self.waiting.next() {
                    let about = self.way(&way);
                    self.about = Some(way);
                    return Some(Dialed::About(about));
                }
                self.leave_out();
            }
            self.next = false;
            if let Some(found) = self.found.pop_front() {
                return Some(found);
            }
            if self.running.is_empty() && self.names.is_empty() {
                return None;
            }
            let wait = STAGGER.saturating_sub(self.since_last());
            let step = tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => ended.map_or(Step::Lost, Step::Ended),
                Some(named) = self.names.join_next() => {
                    named.map_or(Step::Lost, |(name, found)| Step::Named(name, found))
                }
                () = noted => Step::Unsent,
                () = tokio::time::sleep(wait), if !self.waiting.is_empty() => Step::Next,
            };
            match step {
                Step::Next => self.next = true,
                Step::Unsent => {}
                Step::Named(name, Ok(found)) => {
                    found.into_iter().for_each(|to| self.add(&name, to));
                }
                Step::Named(address, Err(reason)) => {
                    let way = Way { address, to: None, from: None };
                    self.found.push_back(Dialed::Failed(way, reason));
                }
                Step::Ended(attempt) => {
                    let ended = self.settle(attempt);
                    self.found.push_back(ended);
                }
                // Its work has failed.
                Step::Lost if self.running.is_empty() => self.begun.clear(),
                Step::Lost => {}
            }
        }
    }

    /// Adds all paths to an address.
    fn add(&mut self, address: &str, to: SocketAddr) {
        let sockets: Vec<_> =
            self.outgoing.endpoints.iter().map(|(_, socket)| socket.address()).collect();
        let source = if sockets.len() > 1 { candidates::source(to) } else { None };
        let ways = Candidate::all(address, to, &sockets, source);
        let Some(first) = ways.first().cloned() else {
            let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
            let reason = format!("this node listens on no {family} address");
            let way = Way { address: address.to_owned(), to: Some(to), from: None };
            return self.found.push_back(Dialed::Failed(way, reason));
        };
        if !self.waiting.add(ways) {
            let reason = format!("not tried: the target has more than {ADDRESSES_MAX} addresses");
            self.found.push_back(Dialed::Untried(self.way(&first), reason));
        }
    }

    /// Reports the paths that are not tried because of the limit.
    fn leave_out(&mut self) {
        for way in self.waiting.left_out() {
            let reason = format!(
                "not tried from here and from the sockets after it: {CANDIDATES_MAX} ways are tried for \
                 one target"
            );
            self.found.push_back(Dialed::Untried(self.way(&way), reason));
        }
    }

    /// Whether the system has refused the packets of all running handshakes.
    fn nothing_leaves(&self) -> bool {
        let refused = |way: &Candidate| self.socket(way).why_unsent(way.to).is_some();
        !self.waiting.is_empty() && self.begun.iter().all(refused)
    }

    fn socket(&self, way: &Candidate) -> &Socket {
        &self.outgoing.endpoints[way.socket].1
    }

    fn way(&self, way: &Candidate) -> Way {
        let from = Some(self.socket(way).address());
        Way { address: way.address.clone(), to: Some(way.to), from }
    }

    fn begin(&mut self, way: Candidate) {
        self.last = self.clock.now();
        let outgoing = &self.outgoing;
        let ours = outgoing.credentials.current();
        let (crypto, verdict) = ours.dial(self.expected.as_ref(), self.protocol);
        let mut client = ClientConfig::new(crypto);
        client.transport_config(outgoing.transport(self.protocol));
        self.socket(&way).forget_unsent(way.to);
        tracing::debug!(remote = %way.to, from = %self.socket(&way).address(), "dialing");
        let connecting = outgoing.endpoints[way.socket].0.connect_with(client, way.to, SERVER_NAME);
        let deadline = outgoing.limits.handshake_timeout;
        let (lateness, counters) = (Arc::clone(&outgoing.lateness), Arc::clone(&outgoing.counters));
        counters.add(Counter::HandshakesBegun, 1);
        self.begun.push(way.clone());
        let clock = self.clock;
        let begun = self.last;
        self.running.spawn(async move {
            let result = match connecting {
                Err(error) => Err(Failure::Unreachable(error.to_string())),
                Ok(connecting) => {
                    match lateness.within(deadline, deadline * DIALER_MAX, connecting).await {
                        Ok(Ok(connected)) => {
                            counters.add(Counter::HandshakesFinished, 1);
                            counters.took(Timing::HandshakeDialed, clock.now().since(begun));
                            QuicConnection::made(connected, &ours, verdict).map_err(Failure::Ended)
                        }
                        Ok(Err(error)) => Err(Failure::Ended(connection::end(&error, &verdict))),
                        Err(TooLate) => {
                            counters.add(Counter::HandshakesGivenUp, 1);
                            Err(Failure::Silent(deadline))
                        }
                    }
                }
            };
            Attempt { way, result }
        });
    }

    fn settle(&mut self, attempt: Attempt) -> Dialed {
        let Attempt { way, result } = attempt;
        let shown = self.way(&way);
        self.begun.retain(|begun| *begun != way);
        match result {
            Ok(connection) => Dialed::Reached(shown, connection),
            Err(Failure::Ended(ended)) => Dialed::Refused(shown, ended),
            Err(Failure::Unreachable(reason)) => Dialed::Failed(shown, reason),
            Err(Failure::Silent(deadline)) => {
                let reason = match self.socket(&way).why_unsent(way.to) {
                    Some(reason) => format!("the system refuses to send there: {reason}"),
                    None => format!("no answer within {deadline:?}"),
                };
                Dialed::Failed(shown, reason)
            }
        }
    }
}

impl Dial for Race {
    fn next(&mut self) -> BoxFuture<'_, Option<Dialed>> {
        Box::pin(self.step())
    }

    fn answered(&mut self, way: &Way) {
        let Some(at) = way.to else { return };
        self.about = self.about.take().filter(|way| way.to != at);
        self.waiting.answers(at);
    }

    fn again(&mut self, way: Option<&Way>) {
        let again = match way {
            Some(way) => {
                let (Some(to), Some(from)) = (way.to, way.from) else { return };
                let sockets = self.outgoing.endpoints.iter();
                let socket = sockets.map(|(_, socket)| socket.address()).position(|at| at == from);
                let address = way.address.clone();
                socket
                    .map(|socket| Candidate { address, to, socket, rank: 0 })
                    .into_iter()
                    .collect()
            }
            None => {
                self.running = JoinSet::new();
                std::mem::take(&mut self.begun)
            }
        };
        self.waiting.again(again);
    }

    fn since_last(&self) -> Duration {
        self.clock.now().since(self.last)
    }
}

/// Asks the system for the addresses of a name, on a thread where it may block. If it takes too long, the thread
/// continues and keeps its permit.
async fn resolve(
    outgoing: Arc<Outgoing>,
    name: String,
) -> (String, Result<Vec<SocketAddr>, String>) {
    let asked = async {
        let Ok(permit) = Arc::clone(&outgoing.names).acquire_owned().await else {
            return Ok(Vec::new());
        };
        let name = name.clone();
        let found = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let found = name.to_socket_addrs()?;
            Ok(found.take(ADDRESSES_MAX).collect())
        });
        found.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
    };
    let found = match tokio::time::timeout(RESOLVE_TIMEOUT, asked).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(format!("the name does not resolve: {error}")),
        Err(_) => {
            Err(format!("no answer within {RESOLVE_TIMEOUT:?} to which address the name has"))
        }
    };
    (name, found)
}
