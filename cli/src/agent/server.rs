//! The agent's end of the socket: see [`admin`](crate::admin). One task for each connection. Requests of clients are
//! handled by the same code: see [`desk`](super::desk).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use gossipmonger::{
    Foreign, Gossipmonger, Snapshot,
    clients::Visitor,
    issuer::Terms,
    protocol::{
        event::Event, id::NodeId, revocation::Revocation, route::Counter, time::Time, write::Write,
    },
    service::{ServiceChanges, ServiceId},
    subscription::{Events, ProtocolEvents, SubscriptionError},
    tls::{Role, Tls},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, join},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    task::JoinSet,
};

use super::{
    gatherings::{Asking, Gatherings, Turn},
    http::{Http, connection},
    issuing::Issuing,
    notices::Notices,
    paths,
    pause::Pause,
    places::{CLIENT_WATCHERS_MAX, WATCHERS_MAX, WATCHERS_PER_CLIENT, Watchers, answer_time},
    probe,
    reload::{self, Reloader},
    renewal::Renewal,
    spread,
};
use crate::{
    admin::{
        Answer, BehindView, Bytes, CertificateView, Code, Entry, Failure, Happening, HttpView,
        Info, LINE_BYTES_MAX, Left, Line, MemberView, Nothing, Request, SOCKET, State, Tags,
        VERSION, Written,
    },
    all_keys::KeyView,
    call::{Replied, WITHIN_MAX},
    clock::Clock,
    error::CliError,
    expiry,
    repeats::Repeats,
    revocations::{RevocationView, Revoked},
    services::{CallerView, OfferView, parsed},
    why::{DialView, Past, WhyView},
    why_service::ProviderView,
};

/// What `info` says of the agent's resources.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) store: String,
    pub(super) metrics: Option<String>,
    pub(super) http: Option<HttpView>,
}

/// The agent's state that requests use.
#[derive(Debug)]
pub(super) struct Agent {
    dir: PathBuf,
    pub(super) node: Gossipmonger,
    pub(super) reloader: Reloader,
    pub(super) renewal: Renewal,
    issuing: Option<Issuing>,
    store: String,
    metrics: Option<String>,
    pub(super) http: Option<HttpView>,
    pub(super) watchers: Watchers,
    /// Events and queries of operators.
    pub(super) notices: Arc<Notices>,
    /// Limits long requests of clients.
    long_requests: Semaphore,
    /// Limits questions to all members.
    gatherings: Gatherings,
    /// What was logged about clients that requested more than they may.
    told: Repeats,
    /// It has met another node since its start.
    met: AtomicBool,
    clock: Clock,
}

impl Agent {
    pub(super) fn new(
        dir: &Path,
        node: Gossipmonger,
        reloader: Reloader,
        renewal: Renewal,
        issuing: Option<Issuing>,
        served: Served,
    ) -> Self {
        let Served { store, metrics, http } = served;
        let watchers = Watchers::default();
        let long_requests = Semaphore::new(LONG_REQUESTS_MAX);
        Self {
            dir: dir.to_owned(),
            node,
            reloader,
            renewal,
            issuing,
            store,
            metrics,
            http,
            watchers,
            notices: Arc::default(),
            long_requests,
            gatherings: Gatherings::default(),
            told: Repeats::default(),
            met: AtomicBool::new(false),
            clock: Clock::start(),
        }
    }

    /// The TLS of the node.
    pub(super) fn tls(&self) -> Tls {
        self.reloader.tls()
    }

    /// Whether `meets` was true once.
    pub(super) fn met(&self, meets: impl FnOnce() -> bool) -> bool {
        if !self.met.load(Ordering::Relaxed) && meets() {
            self.met.store(true, Ordering::Relaxed);
        }
        self.met.load(Ordering::Relaxed)
    }

    pub(super) fn count_refused(&self) {
        self.node.counters().add(Counter::ClientRequestsRefused, 1);
    }

    /// A turn to read a long request.
    pub(super) async fn long_request(&self) -> Option<SemaphorePermit<'_>> {
        self.long_requests.acquire().await.ok()
    }
}

impl Agent {
    /// The counters of the node and of this process.
    pub(super) fn counters(&self) -> BTreeMap<&'static str, u64> {
        let mut counters = self.node.counters().all();
        counters.insert("log_lines_dropped", self.reloader.log_lines_dropped());
        counters
    }

    /// Why seeds of this node were not reached when they were last dialed.
    fn seed_failures(&self) -> Vec<DialView> {
        let snapshot = self.node.snapshot();
        let failures =
            self.node.config().seeds.iter().flat_map(|seed| self.node.dial_failures(seed));
        failures.map(|failure| DialView::new(&snapshot, &failure)).collect()
    }

    /// A turn to ask all members. It is returned when dropped.
    pub(super) async fn gathering(&self, client: Option<&str>) -> Result<Turn<'_>, CliError> {
        self.gatherings.turn(client, self.node.snapshot().members().count()).await
    }

    /// A turn to ask one member that this node may have no connection with.
    pub(super) async fn question(&self, client: Option<&str>) -> Result<Turn<'_>, CliError> {
        self.gatherings.turn(client, 1).await
    }

    /// A place to ask all members again and again for a while.
    pub(super) fn asking(&self, client: Option<&str>) -> Result<Asking<'_>, CliError> {
        self.gatherings.place(client, self.node.snapshot().members().count())
    }

    fn issuing(&self) -> Result<&Issuing, CliError> {
        self.issuing.as_ref().ok_or_else(|| {
            CliError::usage(
                "this agent issues nothing: ask one that runs with --issuer, or start this one with \
                 --issuer PKI-DIR (the directory of `ca init`)",
            )
        })
    }
}

/// The bound socket; dropping it removes the file.
#[derive(Debug)]
pub(super) struct Server {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl Server {
    /// Binds the socket for the owner alone. The caller has the directory's lock, so an existing socket belongs to an
    /// agent that has ended.
    pub(super) fn bind(dir: &Path) -> Result<Self, CliError> {
        check_socket_path(dir)?;
        let path = dir.join(SOCKET);
        let failed = |error: io::Error| CliError::failed(format!("{}: {error}", path.display()));
        remove_stale(&path).map_err(failed)?;
        let listener = UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let owner = fs::metadata(&path).map_err(failed)?.uid();
        Ok(Self { listener, path, owner })
    }

    /// Serves until the node has ended, and then until all open requests are answered.
    pub(super) async fn serve(self, agent: Arc<Agent>, http: Arc<Http>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = agent.node.ended() => break,
                Some(_) = connections.join_next() => {}
                (stream, permit) = self.accept(&room) => {
                    connections.spawn(answer(Arc::clone(&agent), Arc::clone(&http), stream, permit));
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }

    /// The next connection of the owner, once there is a free place.
    async fn accept(&self, room: &Arc<Semaphore>) -> (UnixStream, OwnedSemaphorePermit) {
        let permit = Arc::clone(room).acquire_owned().await.expect("is never closed");
        let mut pause = Pause::default();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if self.is_owner(&stream) => return (stream, permit),
                Ok(_) => tracing::warn!("another user's connection to the socket was refused"),
                Err(error) => pause.after("the socket", &error).await,
            }
        }
    }

    /// Between bind and chmod other users could connect, so the mode alone is not enough.
    fn is_owner(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| peer.uid() == self.owner || peer.uid() == ROOT)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Refuses a directory in which the system allows no socket.
pub(super) fn check_socket_path(dir: &Path) -> Result<(), CliError> {
    let path = dir.join(SOCKET);
    let bytes = path.as_os_str().len();
    if bytes > PATH_BYTES_MAX {
        return Err(CliError::usage(format!(
            "the path {} has {bytes} bytes, a Unix socket's may have {PATH_BYTES_MAX}: choose a \
             shorter --dir, or change into it and say --dir .",
            path.display()
        )));
    }
    Ok(())
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(ErrorKind::AlreadyExists, "is there, and is no socket")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Answers one connection. An error affects only this connection.
async fn answer(
    agent: Arc<Agent>,
    http: Arc<Http>,
    stream: UnixStream,
    permit: OwnedSemaphorePermit,
) {
    let (from, to) = stream.into_split();
    let mut from = BufReader::new(from);
    // A line of JSON begins with a brace, a request of HTTP with its method.
    let first = tokio::time::timeout(REQUEST_TIMEOUT, from.fill_buf()).await;
    if matches!(first, Ok(Ok([first, ..])) if first.is_ascii_uppercase()) {
        connection::serve(&http, connection::Link::owner(), join(from, to)).await;
        drop(permit);
        return;
    }
    let mut caller = Caller::new(from, to, Who::Owner);
    if let Err(error) = caller.serve(&agent).await {
        tracing::debug!("a connection to the socket broke: {error}");
    }
    drop(permit);
}

/// Who makes a request.
#[derive(Debug)]
pub(super) enum Who {
    /// The owner of the directory, who may do everything.
    Owner,
    /// A client with a role.
    Guest(Guest),
}

/// A client that has proved its name, by a certificate or by a token.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) name: String,
    pub(super) role: Role,
    /// Its address. It proves nothing.
    pub(super) remote: String,
}

impl From<Visitor> for Guest {
    fn from(visitor: Visitor) -> Self {
        let Visitor { client, remote, .. } = visitor;
        Self { name: client.name, role: client.role, remote }
    }
}

impl Who {
    /// Longest request.
    pub(super) fn request_bytes_max(&self) -> usize {
        match self {
            Self::Guest(guest) if !guest.role.permits(Role::Admin) => SHORT_REQUEST_BYTES,
            _ => LINE_BYTES_MAX,
        }
    }
}

/// A connection that makes a request.
pub(super) struct Caller<R, W> {
    from: BufReader<R>,
    to: W,
    who: Who,
    /// The node must end when the answer has arrived.
    leaves: bool,
    /// When the answer began, and how many bytes of it are written.
    begun: Option<(Clock, Time)>,
    written: usize,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Caller<R, W> {
    pub(super) fn new(from: R, to: W, who: Who) -> Self {
        Self { from: BufReader::new(from), to, who, leaves: false, begun: None, written: 0 }
    }

    /// Where the answers went, and whether the node must end.
    pub(super) fn into_parts(self) -> (W, bool) {
        (self.to, self.leaves)
    }

    /// Answers one request.
    pub(super) async fn serve(&mut self, agent: &Agent) -> io::Result<()> {
        let request = match tokio::time::timeout(REQUEST_TIMEOUT, self.read(agent)).await {
            Ok(Ok(request)) => request,
            Ok(Err(refused)) => return self.fail(&refused).await,
            Err(_) => return self.fail(&CliError::usage("no request within the time")).await,
        };
        let Who::Guest(guest) = &self.who else {
            let rule = request.rule();
            if rule.changes() {
                let (request, subject) = (rule.name, request.subject());
                tracing::info!(request, subject, "the owner of the socket asks");
            }
            return self.respond(agent, request).await;
        };
        let (rule, Guest { name: client, role, remote }) = (request.rule(), guest.clone());
        let name = rule.name;
        if let Err(forbidden) = rule.permits(role) {
            agent.node.counters().add(Counter::ClientRequestsRefused, 1);
            if agent.told.is_new(name, &client, agent.clock.now()) {
                tracing::warn!(%client, %remote, "a client was refused: {forbidden}");
            } else {
                tracing::debug!(%client, %remote, "a client was refused: {forbidden}");
            }
            let message = forbidden.to_string().into();
            return self.failed(Failure { code: Code::Forbidden, message }).await;
        }
        if rule.changes() {
            let subject = request.subject();
            tracing::info!(%client, %role, %remote, request = name, subject, "a client asks");
        } else {
            tracing::debug!(%client, %role, %remote, request = name, "a client asks");
        }
        match request {
            Request::Leave => self.leave(agent).await,
            request => self.respond(agent, request).await,
        }
    }

    async fn respond(&mut self, agent: &Agent, request: Request) -> io::Result<()> {
        match request {
            Request::List { node, prefix } => self.list(agent, &node, &prefix).await,
            Request::Members => self.members(agent).await,
            Request::Paths => self.paths(agent).await,
            Request::Reachability => self.reachability(agent).await,
            Request::Copies { prefix } => self.copies(agent, prefix).await,
            Request::Services => self.services(agent).await,
            Request::Callers { service } => self.callers(agent, service).await,
            Request::WhyService { service } => self.why_service(agent, &service).await,
            Request::Revocations => self.revocations(agent).await,
            Request::Watch { prefix, existing } => self.watch(agent, prefix, existing).await,
            Request::Events { user: true, .. } => self.user_events(agent).await,
            Request::Events { protocol, .. } => self.events(agent, protocol).await,
            Request::Monitor { level } => self.monitor(agent, &level).await,
            Request::LogTail => self.log_tail(agent).await,
            Request::Config => self.configuration(agent).await,
            Request::Behind => self.behind(agent).await,
            Request::Keys { node, prefix } => self.keys(agent, node, &prefix).await,
            Request::Event { name, value } => self.notify(agent, name, value, false).await,
            Request::Query { name, value } => self.notify(agent, name, value, true).await,
            request => match done(agent, self.client(), request).await {
                Ok(line) => self.send(&line).await,
                Err(error) => self.fail(&error).await,
            },
        }
    }

    /// The end of the node is delayed until the answer has arrived.
    async fn leave(&mut self, agent: &Agent) -> io::Result<()> {
        let told = agent.node.announce_decommission().await;
        self.leaves = !matches!(told, Err(gossipmonger::Error::Stopped { .. }));
        match told {
            Ok(acknowledged) => self.send(&Answer::<Nothing, _>::Done(Left { acknowledged })).await,
            Err(error) => self.fail(&error.into()).await,
        }
    }

    /// A line. Only a limited number of clients may send long ones at once, and only clients that may make changes.
    async fn line(&mut self, agent: &Agent) -> Result<Vec<u8>, CliError> {
        let most = self.who.request_bytes_max();
        let first = match &self.who {
            Who::Owner => most,
            Who::Guest(_) => SHORT_REQUEST_BYTES,
        };
        let mut line = Vec::new();
        (&mut self.from).take(first as u64).read_until(b'\n', &mut line).await?;
        if line.len() == first && line.last() != Some(&b'\n') && first < most {
            let _turn = agent.long_requests.acquire().await.map_err(CliError::failed)?;
            let rest = (most - first) as u64;
            (&mut self.from).take(rest).read_until(b'\n', &mut line).await?;
        }
        if line.last() != Some(&b'\n') {
            return Err(CliError::usage(format!("a request is a line of at most {most} bytes")));
        }
        Ok(line)
    }

    async fn read(&mut self, agent: &Agent) -> Result<Request, CliError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let line = self.line(agent).await?;
        let unknown = |error| CliError::usage(format!("the request is not understood: {error}"));
        let Version { v } = serde_json::from_slice(&line).map_err(unknown)?;
        if v != VERSION {
            return Err(CliError::usage(format!(
                "the request is of version {v}, this agent speaks version {VERSION}: use the program \
                 that the agent was started with"
            )));
        }
        let Line { request, .. } = serde_json::from_slice(&line).map_err(unknown)?;
        Ok(request)
    }

    async fn list(&mut self, agent: &Agent, node: &NodeId, prefix: &str) -> io::Result<()> {
        let snapshot = agent.node.snapshot();
        if snapshot.member(node).is_none() {
            return self.fail(&unknown_node(node)).await;
        }
        for (key, value) in snapshot.prefix(node, prefix) {
            if !is_hidden(key.as_str(), prefix) {
                self.item(&Entry::new(node, key, value)).await?;
            }
        }
        self.done().await
    }

    async fn log_tail(&mut self, agent: &Agent) -> io::Result<()> {
        for line in agent.reloader.log_tail() {
            self.item(&line).await?;
        }
        self.done().await
    }

    async fn configuration(&mut self, agent: &Agent) -> io::Result<()> {
        for row in agent.reloader.configuration().await {
            self.item(&row).await?;
        }
        self.done().await
    }

    async fn keys(&mut self, agent: &Agent, node: Option<NodeId>, prefix: &str) -> io::Result<()> {
        let snapshot = agent.node.snapshot();
        if let Some(node) = node.as_ref().filter(|node| snapshot.member(node).is_none()) {
            return self.fail(&unknown_node(node)).await;
        }
        for entry in snapshot.entries(prefix) {
            let wanted = node.as_ref().is_none_or(|node| node == entry.node);
            if wanted && !is_hidden(entry.key.as_str(), prefix) {
                let (key, bytes) = (entry.key.to_string(), entry.value.len());
                let (node, version) = (entry.node.clone(), entry.version);
                self.item(&KeyView { node, key, version, bytes }).await?;
            }
        }
        self.done().await
    }

    async fn members(&mut self, agent: &Agent) -> io::Result<()> {
        let offered = agent.node.offered().into_iter().filter(|offer| offer.draining);
        let draining: BTreeSet<_> = offered.map(|offer| offer.node).collect();
        for member in agent.node.snapshot().members() {
            let draining = draining.contains(&member.node);
            self.item(&MemberView::new(member, draining)).await?;
        }
        self.done().await
    }

    async fn services(&mut self, agent: &Agent) -> io::Result<()> {
        for listed in agent.node.offered() {
            self.item(&OfferView::new(listed, agent.node.node())).await?;
        }
        self.done().await
    }

    async fn callers(&mut self, agent: &Agent, service: Option<String>) -> io::Result<()> {
        let wanted = match service.as_deref().map(parsed).transpose() {
            Ok(wanted) => wanted,
            Err(error) => return self.fail(&error).await,
        };
        let snapshot = agent.node.snapshot();
        for figures in agent.node.callers() {
            if wanted.as_ref().is_none_or(|wanted| *wanted == figures.service) {
                self.item(&CallerView::new(&snapshot, figures)).await?;
            }
        }
        self.done().await
    }

    async fn why_service(&mut self, agent: &Agent, service: &str) -> io::Result<()> {
        let providers = match parsed(service) {
            Ok(service) => agent.node.explain(&service),
            Err(error) => return self.fail(&error).await,
        };
        if providers.is_empty() {
            let nobody = format!("no live node offers {service}");
            return self.fail(&CliError::not_found(nobody)).await;
        }
        for explained in providers {
            self.item(&ProviderView::new(service, explained)).await?;
        }
        self.done().await
    }

    async fn revocations(&mut self, agent: &Agent) -> io::Result<()> {
        for statement in agent.node.revocations().iter() {
            self.item(&RevocationView::from(statement)).await?;
        }
        self.done().await
    }

    async fn watch(&mut self, agent: &Agent, prefix: String, existing: bool) -> io::Result<()> {
        let Some(_place) = agent.watchers.take(self.client()) else {
            return self.too_many().await;
        };
        let events = agent.node.subscribe();
        let feed = Feed { events, protocol: None, services: None, prefix: Some(prefix) };
        self.item(&Happening::Watching).await?;
        if existing {
            let snapshot = agent.node.snapshot();
            for happening in feed.existing(&snapshot) {
                self.item(&happening).await?;
            }
        }
        self.follow(feed).await
    }

    async fn events(&mut self, agent: &Agent, protocol: bool) -> io::Result<()> {
        let Some(_place) = agent.watchers.take(self.client()) else {
            return self.too_many().await;
        };
        let protocol = protocol.then(|| agent.node.subscribe_protocol());
        let services = Some(agent.node.watch_services());
        let feed = Feed { events: agent.node.subscribe(), protocol, services, prefix: None };
        self.item(&Happening::Watching).await?;
        self.follow(feed).await
    }

    /// Sends events until the node ends or the caller is gone. The caller sets the pace: the subscription drops what
    /// the caller cannot take in time.
    async fn follow(&mut self, mut feed: Feed) -> io::Result<()> {
        self.stand();
        loop {
            let happening = tokio::select! {
                happening = feed.next() => happening,
                () = self.gone() => return Ok(()),
            };
            match happening {
                Ok(happening) => self.write(&Answer::<_, Nothing>::Item(happening)).await?,
                Err(SubscriptionError::Lagged(missed)) => {
                    self.write(&Answer::<_, Nothing>::Item(Happening::Lagged { missed })).await?;
                }
                Err(_) => return self.done().await,
            }
        }
    }

    /// The existing state is sent; from now on the caller holds only its place.
    pub(super) fn stand(&mut self) {
        (self.begun, self.written) = (None, 0);
    }

    /// Waits until the caller is gone: it has made its request already, so whatever comes is its end.
    pub(super) async fn gone(&mut self) {
        let _ = self.from.fill_buf().await;
    }

    pub(super) async fn too_many(&mut self) -> io::Result<()> {
        let message = format!(
            "as many watch already as may: {WATCHERS_MAX}, of clients {CLIENT_WATCHERS_MAX}, of one \
             client {WATCHERS_PER_CLIENT}; end some first"
        );
        self.fail(&CliError::failed(message)).await
    }

    pub(super) async fn item(&mut self, item: &impl Serialize) -> io::Result<()> {
        self.send(&Answer::<_, Nothing>::Item(item)).await
    }

    pub(super) async fn done(&mut self) -> io::Result<()> {
        self.send(&Answer::<Nothing, _>::Done(Nothing {})).await
    }

    pub(super) async fn fail(&mut self, error: &CliError) -> io::Result<()> {
        self.failed(error.into()).await
    }

    async fn failed(&mut self, failure: Failure) -> io::Result<()> {
        self.send(&Answer::<Nothing, Nothing>::Error(failure)).await
    }

    /// The name of the client that makes the request; `None` for the owner.
    pub(super) fn client(&self) -> Option<&str> {
        match &self.who {
            Who::Owner => None,
            Who::Guest(guest) => Some(&guest.name),
        }
    }

    /// Writes a line to a caller that waits for it. The caller must take the whole answer at a useful rate, not only
    /// each line in time.
    async fn send(&mut self, line: &impl Serialize) -> io::Result<()> {
        let (clock, begun) = *self.begun.get_or_insert_with(|| {
            let clock = Clock::start();
            (clock, clock.now())
        });
        let taken = clock.now().since(begun);
        let all = answer_time(SEND_TIMEOUT, self.written).saturating_sub(taken);
        tokio::time::timeout(SEND_TIMEOUT.min(all), self.write(line)).await?
    }

    pub(super) async fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        self.written = self.written.saturating_add(line.len());
        self.to.write_all(&line).await
    }
}

/// What a caller watches.
struct Feed {
    events: Events,
    protocol: Option<ProtocolEvents>,
    services: Option<ServiceChanges>,
    /// Only changes of keys with this prefix.
    prefix: Option<String>,
}

impl Feed {
    async fn next(&mut self) -> Result<Happening, SubscriptionError> {
        loop {
            let Self { events, protocol, services, .. } = self;
            let event = tokio::select! {
                // A service leaves because of what happens to its node, so that is told first.
                biased;
                event = events.next() => event?,
                Some(passed) = maybe(protocol.as_mut().map(|protocol| protocol.next())) => {
                    return Ok(passed?.into());
                }
                Some(change) = maybe(services.as_mut().map(|services| services.next())) => {
                    return Ok(change?.into());
                }
            };
            if self.wants(&event) {
                return Ok(event.into());
            }
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let Some(prefix) = &self.prefix else { return true };
        match event {
            Event::Updated { key, .. } | Event::Deleted { key, .. } => {
                key.as_str().starts_with(prefix)
            }
            _ => false,
        }
    }

    /// The existing keys, in the form of events.
    fn existing<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = Happening> + 'a {
        let prefix = self.prefix.as_deref().unwrap_or_default();
        snapshot.entries(prefix).map(|entry| Happening::Updated {
            peer: entry.node.clone(),
            key: entry.key.to_string(),
            value: Bytes::of(entry.value),
            generation: entry.generation,
            version: entry.version,
        })
    }
}

/// What a future gives; `None` at once if there is none.
async fn maybe<F: Future>(future: Option<F>) -> Option<F::Output> {
    Some(future?.await)
}

/// Handles a request that is answered by one line; returns the line.
async fn done(
    agent: &Agent,
    client: Option<&str>,
    request: Request,
) -> Result<serde_json::Value, CliError> {
    let node = &agent.node;
    match request {
        Request::Set { key, value, ttl_ms } => {
            let write = Write::set(key, value.into_bytes()?);
            let write = match ttl_ms {
                Some(ttl) => write.with_ttl(Duration::from_millis(ttl)),
                None => write,
            };
            line(Written { version: node.set_many(vec![write]).await? })
        }
        Request::Delete { key } => line(Written { version: node.delete(key).await? }),
        Request::Get { node: owner, key } => line(get(&node.snapshot(), &owner, &key)?),
        Request::Why { node: peer } => {
            let snapshot = node.snapshot();
            let addresses = snapshot.member(&peer).map(|member| member.addresses);
            let dials = addresses.iter().flatten().flat_map(|address| node.dial_failures(address));
            let dials = dials.map(|failure| DialView::new(&snapshot, &failure)).collect();
            let past = Past { cut: node.cut(&peer), dials, removal: node.removal(&peer) };
            let why = WhyView::new(&snapshot, &peer, past, &node.revocations());
            line(why.ok_or_else(|| unknown_node(&peer))?)
        }
        Request::Await { version, wait, within_ms } => {
            let _asking = agent.asking(client)?;
            line(spread::wait(agent, version, wait, within_ms).await?)
        }
        Request::Rtt { node: peer } => line(paths::rtt(agent, client, peer).await?),
        Request::Probe { node: peer, calls, bytes } => {
            line(probe::probe(agent, client, peer, (calls, bytes)).await?)
        }
        Request::Info => line(info(agent)),
        Request::Call { node: peer, service, method, question, within_ms } => {
            line(call(node, peer, &service, (method, question), within_ms).await?)
        }
        Request::Leave => line(Left { acknowledged: node.decommission().await? }),
        Request::Tags => line(Tags { tags: reload::own_tags(node) }),
        Request::ChangeTags { set, delete } => {
            line(Tags { tags: agent.reloader.change_tags(set, &delete).await? })
        }
        Request::Remove { node: peer } => {
            node.remove(&peer)?;
            line(Nothing {})
        }
        Request::Maintain { on } => {
            node.set_maintenance(on).await.map_err(CliError::failed)?;
            line(Nothing {})
        }
        Request::Reload => line(agent.reloader.reload().await?),
        Request::Revoke { node: peer, statement } => line(revoke(agent, &peer, statement).await?),
        Request::CreateToken { node, datacenter, ttl_ms, uses } => {
            let ttl = Duration::from_millis(ttl_ms);
            line(agent.issuing()?.create(Terms { node, datacenter, ttl, uses }).await?)
        }
        Request::Tokens => line(agent.issuing()?.list().await?),
        Request::RevokeToken { id } => line(agent.issuing()?.revoke(&id).await?),
        Request::Renew => line(agent.renewal.renew(&agent.reloader).await?),
        Request::List { .. }
        | Request::Members
        | Request::Paths
        | Request::Behind
        | Request::Copies { .. }
        | Request::Config
        | Request::Monitor { .. }
        | Request::LogTail
        | Request::Keys { .. }
        | Request::Event { .. }
        | Request::Query { .. }
        | Request::Reachability
        | Request::Services
        | Request::Callers { .. }
        | Request::WhyService { .. }
        | Request::Revocations
        | Request::Watch { .. }
        | Request::Events { .. } => Err(CliError::failed("is answered by more than a line")),
    }
}

/// Takes a statement and sends it to all nodes; signs it, if this agent may.
async fn revoke(
    agent: &Agent,
    peer: &NodeId,
    statement: Option<String>,
) -> Result<Revoked, CliError> {
    let node = &agent.node;
    let statement = match (statement, &agent.issuing) {
        (Some(statement), _) => Revocation::from_text(&statement).map_err(CliError::usage)?,
        // The agent signs nothing that it could not send.
        (None, Some(_)) if peer == node.node() => return Err(revokes_itself(peer)),
        (None, Some(issuing)) => issuing.revoke_node(peer.clone()).await?,
        (None, None) => {
            return Err(CliError::usage(
                "this agent is no issuer: give the authority's directory, with --ca DIR",
            ));
        }
    };
    if statement.node != *peer {
        return Err(CliError::usage(format!("the statement is about {}", statement.node)));
    }
    // A node accepts revocations of its own earlier certificates.
    let begins = agent.reloader.certificate().not_before.duration_since(SystemTime::UNIX_EPOCH);
    if peer == node.node() && begins.unwrap_or_default().as_secs() <= statement.cutoff {
        return Err(revokes_itself(peer));
    }
    node.revoke(statement).await?;
    Revoked::of(&node.revocations(), peer).ok_or_else(|| CliError::failed("nothing is revoked"))
}

fn revokes_itself(peer: &NodeId) -> CliError {
    CliError::usage(format!(
        "this agent is {peer} itself, which would end before it had told anybody: say it to another \
         agent"
    ))
}

fn line(done: impl Serialize) -> Result<serde_json::Value, CliError> {
    serde_json::to_value(Answer::<Nothing, _>::Done(done)).map_err(CliError::failed)
}

/// Whether a key belongs to the program, and nobody asks for those: every agent has some.
fn is_hidden(key: &str, prefix: &str) -> bool {
    key.starts_with('~') && !prefix.starts_with('~')
}

fn get(snapshot: &Snapshot, owner: &NodeId, key: &str) -> Result<Entry, CliError> {
    match snapshot.get(owner, key) {
        Some(value) => Ok(Entry::new(owner, &key.into(), value)),
        None if snapshot.member(owner).is_none() => Err(unknown_node(owner)),
        None => Err(CliError::not_found(format!("node {owner} has no key {key:?}"))),
    }
}

/// Calls a method of a service at a node.
async fn call(
    node: &Gossipmonger,
    peer: NodeId,
    service: &str,
    (method, question): (u16, Bytes),
    within_ms: u64,
) -> Result<Replied, CliError> {
    if node.snapshot().member(&peer).is_none() {
        return Err(unknown_node(&peer));
    }
    let offered = node.offered().into_iter().filter(|offer| offer.node == peer);
    let ids = offered.map(|offer| ServiceId { name: offer.service, major: offer.version.major });
    let ids = ids.filter(|id| id.to_string() == service || id.name.as_str() == service);
    let id = match &ids.collect::<Vec<_>>()[..] {
        [id] => id.clone(),
        [] => return Err(CliError::not_found(format!("node {peer} does not offer {service:?}"))),
        more => {
            let more: Vec<_> = more.iter().map(ToString::to_string).collect();
            let more = more.join(" and ");
            return Err(CliError::usage(format!("node {peer} offers {more}: say which")));
        }
    };
    let within = Duration::from_millis(within_ms).min(WITHIN_MAX);
    let question = question.into_bytes()?.into();
    let called = node.call_encoded(&peer, (&id, method), question, within).await;
    let answer = called.map_err(CliError::failed)?;
    Ok(Replied { node: peer, answer: Bytes::of(&answer) })
}

pub(super) fn unknown_node(node: &NodeId) -> CliError {
    CliError::not_found(format!("no node {node} is known"))
}

fn info(agent: &Agent) -> Info {
    let node = &agent.node;
    let snapshot = node.snapshot();
    let mut members = BTreeMap::new();
    for member in snapshot.members() {
        *members.entry(State::from(member.state)).or_default() += 1;
    }
    let (generation, version) = snapshot.version(node.node()).unwrap_or_default();
    let (config, now) = (node.config(), Clock::wall());
    let certificates = snapshot.certificates(now);
    let counts = |counts: BTreeMap<&'static str, u64>| {
        counts.into_iter().map(|(name, times)| (name.to_owned(), times)).collect()
    };
    Info {
        node: node.node().clone(),
        cluster: node.cluster().clone(),
        datacenter: node.datacenter().clone(),
        addresses: node.addresses().iter().map(|address| address.as_str().into()).collect(),
        generation,
        version,
        keys: snapshot.held_keys(node.node()),
        tags: reload::own_tags(node),
        members,
        program: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        directory: agent.dir.display().to_string(),
        store: agent.store.as_str().into(),
        metrics: agent.metrics.clone().map(Foreign::from),
        http: agent.http.clone(),
        gossip_interval_ms: u64::try_from(config.gossip_interval.as_millis()).unwrap_or(u64::MAX),
        dead_peer_phi: config.dead_peer_phi,
        health: node.health(),
        seeds: config.seeds.clone(),
        certificate: CertificateView::from(&agent.reloader.certificate()),
        certificate_problem: agent.reloader.problem().map(Foreign::from),
        certificates_expiring: certificates.expiring,
        certificate_warning: expiry::warning(&certificates, now).map(Foreign::from),
        behind: node.behind().map(|behind| BehindView::new(&behind)),
        seed_failures: agent.seed_failures(),
        counters: counts(agent.counters()),
        refusals: counts(node.counters().refusals()),
    }
}

/// Most connections at once; further ones wait until there is room.
const CONNECTIONS_MAX: usize = 64;
/// Longest request of a client that makes no long ones.
pub(super) const SHORT_REQUEST_BYTES: usize = 64 << 10;
/// Longer requests of all clients that are read at once: each may need as much memory as the longest line.
const LONG_REQUESTS_MAX: usize = 2;
/// How long a long request over HTTP may take to arrive.
pub(super) const LONG_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a request may take to arrive.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a caller may take to read one line of its answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// `sun_path` has 108 bytes on Linux, including the zero, and 104 on the BSDs and macOS.
const PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// The user that may do everything anyway.
const ROOT: u32 = 0;
