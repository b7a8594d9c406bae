//! `agent`: runs one node from one directory until it is told to stop.
//!
//! On SIGTERM and SIGINT the node announces to its peers that it leaves, and ends; the next start joins again. That is
//! for restarts: nobody is alarmed. Only `leave` is recorded for later starts.
//!
//! Another command can run an agent with work of its own ([`run_with`]): a member that is measured, for example.

pub(crate) mod directory;
mod check;
mod desk;
mod effective;
mod files;
mod gatherings;
pub(crate) mod http;
mod issuing;
mod journal;
mod lines;
mod logs;
mod metrics;
mod monitor;
mod notices;
mod offload;
mod paths;
mod pause;
mod peers;
mod places;
mod probe;
mod reload;
pub(crate) mod renewal;
mod server;
mod settings;
mod setup;
mod spool;
mod spread;
mod tail;
mod waiting;
mod watchdog;

use std::{collections::BTreeSet, path::Path, pin::Pin, sync::Arc, time::Duration};

use gossipmonger::{
    Backends, Config, Gossipmonger, SpawnError, net::quic::QuicNetwork, protocol::event::Problem,
    store::Store,
};
use sd_notify::NotifyState;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    task::JoinHandle,
};

pub(crate) use self::settings::Flags;
use self::{
    desk::Desk,
    directory::Lock,
    http::{Http, Surface},
    logs::Logs,
    offload::{FILE_TIMEOUT, FILES, SYSTEMD, offload},
    reload::Reloader,
    renewal::Renewal,
    server::{Agent, Served, Server},
    settings::{Credentials, Settings},
    setup::Setup,
    waiting::Ready,
};
use super::error::{CliError, Exit};

/// Run a node from its directory, until it is told to stop.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Checks what the start would check, and ends with its exit code. Binds no port of the cluster and changes nothing.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    setup: Setup,
}

pub(crate) fn run(dir: &Path, args: Args) -> Result<(), CliError> {
    if args.check {
        return check::check(dir, &args.flags);
    }
    args.setup.prepare(dir)?;
    run_with(dir, args.flags, None)
}

/// What a command does with the node of the agent that it runs. When the work has ended, the agent leaves; when the
/// node has ended, the work must end soon.
pub(crate) type Work = Box<dyn FnOnce(Gossipmonger) -> Working + Send>;

type Working = Pin<Box<dyn Future<Output = Result<(), CliError>> + Send>>;

/// Runs an agent; `work` begins when the agent is ready, and its failure is that of the command.
pub(crate) fn run_with(dir: &Path, flags: Flags, work: Option<Work>) -> Result<(), CliError> {
    let settings = Settings::read(dir, &flags)?;
    let logs = Logs::start(&settings)?;
    settings.tell_ignored();
    let spool = logs.spool().clone();
    let ended = run_logged(dir, flags, settings, logs, work);
    spool.flush(FLUSH_TIMEOUT);
    ended
}

fn run_logged(
    dir: &Path,
    flags: Flags,
    settings: Settings,
    logs: Logs,
    work: Option<Work>,
) -> Result<(), CliError> {
    let runtime = Runtime::new()?;
    let mut lock = None;
    let ended = runtime.block_on(start(dir, flags, settings, logs, &mut lock, work));
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    drop(lock);
    ended
}

/// Starts the node, and runs it from the moment on when certificate, key and roots can be used.
async fn start(
    dir: &Path,
    flags: Flags,
    settings: Settings,
    logs: Logs,
    lock: &mut Option<Lock>,
    work: Option<Work>,
) -> Result<(), CliError> {
    let mut signals = Signals::new()?;
    let Signals { terminate, interrupt, hangup } = &mut signals;
    let begun = tokio::select! {
        biased;
        begun = begin(dir, &flags, settings, &logs, hangup, lock) => begun?,
        () = stop(terminate, interrupt) => {
            tracing::info!("stopped before it had started");
            return Ok(());
        }
    };
    serve(dir, flags, begun, logs, signals, work).await
}

/// A node that runs, and the resources bound for it.
struct Begun {
    node: Gossipmonger,
    running: JoinHandle<()>,
    settings: Settings,
    bound: Bound,
}

/// The resources that a node needs apart from its gossip.
struct Bound {
    transport: Arc<QuicNetwork>,
    trusted: BTreeSet<String>,
    door: Option<issuing::Prepared>,
    metrics: Option<http::Bound>,
    http: Option<http::Bound>,
    server: Server,
}

/// Starts the node when certificate, key and roots can be used. The future may be dropped at any moment: calls that
/// wait for the system run on threads that nobody joins.
async fn begin(
    dir: &Path,
    flags: &Flags,
    settings: Settings,
    logs: &Logs,
    hangup: &mut Signal,
    lock: &mut Option<Lock>,
) -> Result<Begun, CliError> {
    tracing::debug!("reading certificate, key and roots");
    let (settings, ready) = waiting::ready(dir, flags, settings, logs, hangup).await?;
    // Not earlier: the agent leaves no lock in a directory that is not a node's.
    let here = dir.to_owned();
    let taken = move || Lock::take(&here);
    *lock = Some(offload(&FILES, "taking the directory's lock", FILE_TIMEOUT, taken).await?);
    let (here, these) = (dir.to_owned(), settings.clone());
    // A large store takes a while.
    let bound = tokio::task::spawn_blocking(move || bind(&here, &these, ready)).await;
    let (config, store, bound) = bound.map_err(CliError::failed)??;
    let backends = Backends::from(Arc::clone(&bound.transport)).with_store(store);
    let (node, running) = Gossipmonger::spawn(config, backends).await?;
    Ok(Begun { node, running, settings, bound })
}

/// Opens the store, and binds everything except the gossip's sockets. In a tokio runtime, on a thread that may block.
fn bind(
    dir: &Path,
    settings: &Settings,
    ready: Ready,
) -> Result<(Config, Arc<dyn Store>, Bound), CliError> {
    let Ready { credentials, issuer } = ready;
    journal::warn_of(&credentials);
    let Credentials { identity, roots, .. } = credentials;
    let trusted = reload::fingerprints(&roots);
    let transport = Arc::new(QuicNetwork::new(identity, roots).map_err(CliError::usage)?);
    transport.set_roles(settings.clients());
    let config = settings.config(&transport)?;
    let store = settings.storage(dir)?;
    let door = issuer
        .map(|issuer| issuing::Prepared::bind(issuer, settings, dir, &config.listen))
        .transpose()?;
    let bind = |terms, surface| http::Bound::bind(terms, surface);
    let metrics = settings.metrics().map(|terms| bind(terms, Surface::Metrics)).transpose()?;
    let http = settings.http(dir).map(|terms| bind(terms, Surface::Whole)).transpose()?;
    let server = Server::bind(dir)?;
    Ok((config, store, Bound { transport, trusted, door, metrics, http, server }))
}

async fn serve(
    dir: &Path,
    flags: Flags,
    begun: Begun,
    logs: Logs,
    mut signals: Signals,
    work: Option<Work>,
) -> Result<(), CliError> {
    let Begun { node, running, settings, bound } = begun;
    let Bound { transport, trusted, door, metrics, http, server } = bound;
    let store =
        settings.store(dir).map_or_else(|| "memory".to_owned(), |p| p.display().to_string());
    let directory = settings.offers_directory().then(|| node.offer_directory()).transpose();
    let directory = directory.map_err(|error| settings.refused("services.directory", error))?;
    journal::started(&node, dir);
    let events = tokio::spawn(journal::keep(node.clone(), node.subscribe()));
    let company = tokio::spawn(journal::miss_company(node.clone()));
    let issuing = door.map(|door| door.open(dir, transport.tls(), node.clone()));
    let renewal = Renewal::new(dir, issuing.as_ref());
    let reloader = Reloader::new(dir, flags, settings, trusted, transport, logs, node.clone());
    let served = Served {
        store,
        metrics: metrics.as_ref().map(|metrics| metrics.address().to_string()),
        http: http.as_ref().map(http::Bound::view),
    };
    let agent = Arc::new(Agent::new(dir, node, reloader, renewal, issuing, served));
    // Without it other agents lack this one's answers, and nothing else.
    let asked = peers::offer(&agent.node, Arc::clone(&agent.notices)).await;
    if let Err(error) = &asked {
        tracing::warn!("this agent does not answer questions of other agents: {error}");
    }
    let renewing = tokio::spawn(renewal::keep(Arc::clone(&agent)));
    if let Some(http) = &agent.http {
        let dir = dir.display();
        tracing::info!(
            url = http.url,
            "speaks HTTP; open the web view by: gossipmonger --dir {dir} web"
        );
    }
    let exporter = metrics::Exporter::new(&agent);
    let page = exporter.page();
    let measuring = exporter.keep();
    let listeners: Vec<_> = metrics
        .into_iter()
        .chain(http)
        .map(|bound| bound.serve(&agent, Arc::clone(&page)))
        .collect();
    let local = Http::for_owner(&agent, page);
    let server = tokio::spawn(server.serve(Arc::clone(&agent), local));
    let files = tokio::spawn(files::watch(Arc::clone(&agent)));
    let expiry = tokio::spawn(journal::watch_expiry(agent.node.clone()));
    agent.node.serve_clients(Arc::new(Desk::new(&agent)));
    notify(vec![NotifyState::Ready, NotifyState::Status("running")]).await;
    let watchdog = tokio::spawn(watchdog::keep_alive(agent.node.clone()));
    let worked = Arc::new(Notify::new());
    let working = work.map(|work| spawn_work(work, &agent.node, &worked));

    let ended = signals.attend(&agent, &worked).await;
    [company, files, expiry, renewing, watchdog, measuring].iter().for_each(JoinHandle::abort);
    drop((directory, asked));
    let Some(ended) = ended else {
        return Err(CliError::failed("ended at once by a second signal"));
    };
    // Open requests are answered, watchers see the end, and the journal is complete.
    let rest = async { (running.await, server.await, events.await) };
    if tokio::time::timeout(REST_TIMEOUT, rest).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
    listeners.iter().for_each(JoinHandle::abort);
    ended.and(result_of(working).await)
}

/// Begins the work of a command; `worked` is notified of its end.
fn spawn_work(
    work: Work,
    node: &Gossipmonger,
    worked: &Arc<Notify>,
) -> JoinHandle<Result<(), CliError>> {
    let (working, worked) = (work(node.clone()), Arc::clone(worked));
    tokio::spawn(async move {
        let result = working.await;
        worked.notify_one();
        result
    })
}

/// What the work of a command came to, after the node has ended.
async fn result_of(working: Option<JoinHandle<Result<(), CliError>>>) -> Result<(), CliError> {
    let Some(working) = working else { return Ok(()) };
    match tokio::time::timeout(REST_TIMEOUT, working).await {
        Ok(worked) => worked.map_err(CliError::failed)?,
        Err(_) => Err(CliError::failed("the command's work did not end with its node")),
    }
}

/// The signals that the agent handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, CliError> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Acts on the signals until the node has ended; `None`: do not wait for the node. The node leaves when the work has
    /// ended.
    async fn attend(&mut self, agent: &Agent, worked: &Notify) -> Option<Result<(), CliError>> {
        let mut hanging_up = None;
        let mut again = false;
        loop {
            tokio::select! {
                problem = agent.node.ended() => return Some(ended(problem)),
                () = stop(&mut self.terminate, &mut self.interrupt) => break,
                () = worked.notified() => break,
                _ = self.hangup.recv() => match hanging_up {
                    // The reload that is running may have read the files before they changed.
                    Some(_) => again = true,
                    None => hanging_up = Some(Box::pin(hang_up(agent))),
                },
                () = done(&mut hanging_up) => {
                    hanging_up = std::mem::take(&mut again).then(|| Box::pin(hang_up(agent)));
                }
            }
        }
        drop(hanging_up);
        notify(vec![NotifyState::Stopping]).await;
        tracing::info!("leaving; a second signal ends this at once");
        tokio::select! {
            () = leave(&agent.node) => Some(ended(agent.node.ended().await)),
            () = self.stop_again() => None,
        }
    }

    /// Waits for a second signal. A signal right after the first is part of the same request: wrappers such as
    /// `timeout` signal the process, and then its group.
    async fn stop_again(&mut self) {
        let echoes = async {
            loop {
                stop(&mut self.terminate, &mut self.interrupt).await;
            }
        };
        let _: Result<(), _> = tokio::time::timeout(ECHO_TIME, echoes).await;
        stop(&mut self.terminate, &mut self.interrupt).await;
    }
}

/// Waits for one of the signals that end an agent.
async fn stop(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Waits for the end of the future, if there is one.
async fn done(under_way: &mut Option<Pin<Box<impl Future<Output = ()>>>>) {
    match under_way {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}

/// Leaves until the next start.
async fn leave(node: &Gossipmonger) {
    match node.leave_for_now().await {
        Ok(acknowledged) => tracing::info!(acknowledged, "left until the next start"),
        Err(error) => {
            tracing::warn!("stopped without having told the peers: {error}");
            node.shutdown().await;
        }
    }
}

async fn hang_up(agent: &Agent) {
    tracing::info!("told to reload by SIGHUP");
    match NotifyState::monotonic_usec_now() {
        // In one message: systemd needs it to tell several reloads apart.
        Ok(now) => notify(vec![NotifyState::Reloading, now]).await,
        Err(_) => notify(vec![NotifyState::Reloading]).await,
    }
    // The reloader has logged the result.
    let _ = agent.reloader.reload().await;
    notify(vec![NotifyState::Ready]).await;
}

fn ended(problem: Option<Problem>) -> Result<(), CliError> {
    match problem {
        None => Ok(()),
        Some(problem @ (Problem::Displaced { .. } | Problem::Revoked { .. })) => {
            Err(CliError::new(Exit::Unwelcome, problem))
        }
        Some(problem) => Err(CliError::failed(problem)),
    }
}

/// Loads and judges certificate, key and roots according to the settings.
async fn read_credentials(dir: &Path, settings: Settings) -> Result<Credentials, CliError> {
    let dir = dir.to_owned();
    offload(&FILES, CREDENTIALS, FILE_TIMEOUT, move || settings.credentials(&dir)).await
}

/// Sends a message to systemd, if it is there.
async fn notify(state: Vec<NotifyState<'static>>) {
    let told = move || {
        let _ = sd_notify::notify(&state);
        Ok(())
    };
    if let Err(error) = offload(&SYSTEMD, "systemd's socket", NOTIFY_TIMEOUT, told).await {
        tracing::warn!("systemd was not told: {error}");
    }
}

impl From<SpawnError> for CliError {
    fn from(error: SpawnError) -> Self {
        match &error {
            SpawnError::Config(_) => Self::usage(error),
            SpawnError::HasLeft => Self::new(
                Exit::Unwelcome,
                "this node has left the cluster on purpose: start it with --rejoin to join again",
            ),
            _ => Self::failed(error),
        }
    }
}

/// Signals so close together count as one.
const ECHO_TIME: Duration = Duration::from_millis(250);
/// How long answers in progress may take after the node has ended.
const REST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last lines of the log may take to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long systemd may take to receive a message.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);
/// How messages call the reading of these files.
const CREDENTIALS: &str = "reading certificate, key and roots";
/// How long a file system call in progress may delay the end.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(2);
