//! What calls and casts to a remote actor cost through a mesh, beside `ractor_cluster` over plain TCP.
//!
//!     cargo bench --features cluster --bench mesh
//!
//! Each measurement is two processes, one with the actor and one that calls it, since a process can be one node only.
//! Both kinds take turns, three times; the least CPU time of both processes counts. A reply is compared with its
//! question, and of casts the far actor counts how many have come: otherwise the program fails. Linux only: it reads `/proc`.

use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use gossipmonger::{
    ClusterId, Config, Datacenter, Gossipmonger, NodeId,
    net::quic::QuicNetwork,
    pki::{Authority, AuthorityOptions},
    service::mesh::{
        Mesh, MeshOptions,
        ractor_cluster::{NodeServer, NodeServerMessage, RactorClusterMessage, client_connect},
    },
    tls::{Identity, Roots},
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, call_t, pg};

type Any = Box<dyn Error + Send + Sync>;

const BODY: usize = 64;
const AT_ONCE: [usize; 3] = [1, 16, 256];
const ROUNDS: usize = 3;
/// Casts that may be on their way, so that the queue of upstream stays short.
const CAST_WINDOW: u64 = 1_024;
const ROLE: &str = "MESH_BENCH_ROLE";
const READY: &str = "ready";

/// How much is measured.
#[derive(Clone, Copy)]
struct Size {
    each: Duration,
    casts: u64,
}

#[derive(RactorClusterMessage)]
enum EchoMessage {
    Cast(Vec<u8>),
    #[rpc]
    Call(Vec<u8>, RpcReplyPort<Vec<u8>>),
    #[rpc]
    Received(RpcReplyPort<u64>),
}

struct Echo;

#[ractor::actor(message = EchoMessage, state = u64, arguments = ())]
impl Echo {
    async fn pre_start(
        &self,
        myself: ActorRef<EchoMessage>,
        (): (),
    ) -> Result<u64, ActorProcessingErr> {
        pg::join("echo".to_owned(), vec![myself.get_cell()]);
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<EchoMessage>,
        message: EchoMessage,
        received: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            EchoMessage::Cast(_) => *received += 1,
            EchoMessage::Call(body, reply) => drop(reply.send(body)),
            EchoMessage::Received(reply) => drop(reply.send(*received)),
        }
        Ok(())
    }
}

fn main() -> Result<(), Any> {
    // Only `cargo bench` says so; `cargo test` asks whether it runs.
    let short = !std::env::args().any(|argument| argument == "--bench");
    let size = if short {
        Size { each: Duration::from_millis(50), casts: 1_000 }
    } else {
        Size { each: Duration::from_secs(2), casts: 200_000 }
    };
    match std::env::var(ROLE).as_deref() {
        Ok("far-mesh" | "far-tcp") => runtime()?.block_on(far()),
        Ok("near-mesh" | "near-tcp") => {
            // On a worker, as in a real program: a thread that blocks is woken at a higher price.
            runtime()?.block_on(async { tokio::spawn(near(size)).await? })
        }
        _ => compare(if short { 1 } else { ROUNDS }),
    }
}

/// Two workers, so that more cores do not change what is compared.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// Runs both kinds in turn and prints the ratios.
fn compare(rounds: usize) -> Result<(), Any> {
    let mut least = [[f64::INFINITY; AT_ONCE.len() + 1]; 2];
    for _ in 0..rounds {
        for (kind, least) in ["mesh", "tcp"].into_iter().zip(&mut least) {
            let output = again().env(ROLE, format!("near-{kind}")).output()?;
            if !output.status.success() {
                return Err(format!("{kind}: {}", String::from_utf8_lossy(&output.stderr)).into());
            }
            let line = String::from_utf8(output.stdout)?;
            let figures: Vec<f64> =
                line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
            if figures.len() != least.len() {
                return Err(format!("{kind} printed {line:?}").into());
            }
            for (least, figure) in least.iter_mut().zip(figures) {
                *least = least.min(figure);
            }
        }
    }
    println!("CPU us of both processes: the mesh, ractor_cluster over plain TCP, ratio");
    let names = AT_ONCE.map(|at_once| format!("calls of {BODY} B, {at_once} at once"));
    for (index, name) in names.into_iter().chain([format!("casts of {BODY} B")]).enumerate() {
        let (mesh, tcp) = (least[0][index], least[1][index]);
        println!("{name:32} {mesh:8.2} {tcp:8.2} {:6.2}", mesh / tcp);
    }
    Ok(())
}

/// Measures, and prints CPU us a call for each concurrency, and a cast.
async fn near(size: Size) -> Result<(), Any> {
    let role = std::env::var(ROLE)?;
    let (mut far, address) = start_far(&role.replace("near", "far"))?;
    let _held = connect(&role, &address).await?;
    let echo = loop {
        let members = pg::get_members(&"echo".to_owned());
        if let Some(echo) = members.into_iter().find(|cell| !cell.get_id().is_local()) {
            break ActorRef::<EchoMessage>::from(echo);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut figures = Vec::new();
    for at_once in AT_ONCE {
        calls(&echo, at_once, size.each / 10).await?;
        let before = cpu(far.id())?;
        let count = calls(&echo, at_once, size.each).await?;
        figures.push((cpu(far.id())? - before) / count as f64);
    }
    let before = cpu(far.id())?;
    casts(&echo, size.casts).await?;
    figures.push((cpu(far.id())? - before) / size.casts as f64);
    println!("{}", figures.iter().map(|figure| format!("{figure:.3} ")).collect::<String>());
    far.kill()?;
    far.wait()?;
    Ok(())
}

async fn calls(echo: &ActorRef<EchoMessage>, at_once: usize, span: Duration) -> Result<u64, Any> {
    let end = now() + span;
    let callers = (0..at_once).map(|caller| {
        let echo = echo.clone();
        tokio::spawn(async move {
            let mut count = 0_u64;
            while now() < end {
                let body = vec![(caller as u8).wrapping_add(count as u8); BODY];
                if call_t!(echo, EchoMessage::Call, 30_000, body.clone())? != body {
                    return Err("another body came back".into());
                }
                count += 1;
            }
            Ok::<_, Any>(count)
        })
    });
    let mut count = 0;
    for caller in callers.collect::<Vec<_>>() {
        count += caller.await??;
    }
    Ok(count)
}

async fn casts(echo: &ActorRef<EchoMessage>, count: u64) -> Result<(), Any> {
    let first = call_t!(echo, EchoMessage::Received, 30_000)?;
    for sent in 1..=count {
        echo.cast(EchoMessage::Cast(vec![7; BODY]))?;
        if sent % CAST_WINDOW == 0 {
            // Casts and calls of one sender stay in order: all before it have come.
            let received = call_t!(echo, EchoMessage::Received, 30_000)? - first;
            if received != sent {
                return Err(format!("{received} of {sent} casts have come").into());
            }
        }
    }
    let received = call_t!(echo, EchoMessage::Received, 30_000)? - first;
    if received == count { Ok(()) } else { Err(format!("{received} of {count} came").into()) }
}

/// Keeps the connection of this process.
type Held = Box<dyn Send>;

async fn connect(role: &str, address: &str) -> Result<Held, Any> {
    if role.ends_with("mesh") {
        let mut parts = address.splitn(2, ' ');
        let (at, pem) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let [certificate, key, roots]: [String; 3] = serde_json::from_str(pem)?;
        let (node, mesh) = join(&certificate, &key, &roots, vec![at.to_owned()]).await?;
        Ok(Box::new((node, mesh)))
    } else {
        let server = tcp("near", free_port()?).await?;
        client_connect(&server, (Ipv4Addr::LOCALHOST, address.parse()?)).await?;
        Ok(Box::new(server))
    }
}

async fn join(
    certificate: &str,
    key: &str,
    roots: &str,
    seeds: Vec<String>,
) -> Result<(Gossipmonger, Mesh), Any> {
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes())?;
    let roots = Roots::from_pem(roots.as_bytes())?;
    let mut config = Config::new(identity.name()).local();
    config.seeds = seeds;
    let (node, _) = Gossipmonger::spawn(config, QuicNetwork::new(identity, roots)?).await?;
    let mesh = Mesh::start(&node, MeshOptions::new("bench")).await?;
    Ok((node, mesh))
}

async fn tcp(name: &str, port: u16) -> Result<ActorRef<NodeServerMessage>, Any> {
    let (name, host) = (name.to_owned(), "localhost".to_owned());
    let server = NodeServer::new(port, "bench".to_owned(), name, host, None, None);
    let server = server.with_listen_addr(Ipv4Addr::LOCALHOST.into());
    Ok(Actor::spawn(None, server, ()).await?.0)
}

/// The process with the actor. It ends when its input does.
async fn far() -> Result<(), Any> {
    let _echo = Actor::spawn(None, Echo, ()).await?;
    let (_held, address): (Held, _) = if std::env::var(ROLE)?.ends_with("mesh") {
        let authority = Authority::create(ClusterId::new("bench")?, &AuthorityOptions::default())?;
        let issue = |name: &str| {
            let (node, datacenter) = (NodeId::new(name)?, Datacenter::new("eu")?);
            let issued = authority.issue(node, datacenter, Duration::from_secs(3_600))?;
            Ok::<_, Any>([issued.certificate_pem, issued.key_pem.to_string(), issued.roots_pem])
        };
        let [certificate, key, roots] = issue("far")?;
        let (node, mesh) = join(&certificate, &key, &roots, Vec::new()).await?;
        let address =
            format!("{} {}", node.addresses()[0], serde_json::to_string(&issue("near")?)?);
        (Box::new((node, mesh)), address)
    } else {
        let port = free_port()?;
        (Box::new(tcp("far", port).await?), port.to_string())
    };
    println!("{READY} {address}");
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()))
        .await??;
    Ok(())
}

fn start_far(role: &str) -> Result<(Child, String), Any> {
    let mut far = again().env(ROLE, role).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let output = far.stdout.take().ok_or("no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let address = line.strip_prefix(READY).ok_or("the far process did not start")?;
    Ok((far, address.trim().to_owned()))
}

/// This program once more, with its arguments.
fn again() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
    command.args(std::env::args().skip(1));
    command
}

fn free_port() -> Result<u16, Any> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// CPU us of this process and another one.
fn cpu(other: u32) -> Result<f64, Any> {
    let of = |process: String| {
        let tasks = fs::read_dir(format!("/proc/{process}/task"))?;
        let mut sum = 0.0;
        for task in tasks {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            sum += text.split(' ').next().unwrap_or_default().parse::<f64>()? / 1_000.0;
        }
        Ok::<_, Any>(sum)
    };
    Ok(of("self".to_owned())? + of(other.to_string())?)
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}
