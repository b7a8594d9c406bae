//! A node of a mesh, in this process or in one of its own.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use gossipmonger::{
    ClusterId, Config, Datacenter, Gossipmonger, NodeId,
    net::quic::QuicNetwork,
    pki::{Authority, AuthorityOptions, Issued},
    service::mesh::{Mesh, MeshOptions, ractor_cluster::RactorClusterMessage},
    tls::{Identity, Roots},
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, pg};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};

/// The process group in which the actors are.
pub(crate) const ECHO: &str = "echo";
pub(crate) const GROUP: &str = "tests";
/// What a process of its own has to do.
pub(crate) const PLAN: &str = "GOSSIPMONGER_MESH_PLAN";
/// For the conditions that are waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    certificate: String,
    key: String,
    roots: String,
    seeds: Vec<String>,
    listen: String,
    group: String,
}

#[derive(RactorClusterMessage)]
pub(crate) enum EchoMessage {
    /// Counted, not answered.
    Cast(Vec<u8>),
    /// The same bytes back.
    #[rpc]
    Call(Vec<u8>, RpcReplyPort<Vec<u8>>),
    /// How many casts have come.
    #[rpc]
    Received(RpcReplyPort<u64>),
}

pub(crate) struct Echo;

#[ractor::actor(message = EchoMessage, state = u64, arguments = ())]
impl Echo {
    async fn pre_start(
        &self,
        myself: ActorRef<EchoMessage>,
        (): (),
    ) -> Result<u64, ActorProcessingErr> {
        pg::join(ECHO.to_owned(), vec![myself.get_cell()]);
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

/// One test at a time.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

pub(crate) fn authority() -> Authority {
    let cluster = ClusterId::new("mesh").expect("a label");
    Authority::create(cluster, &AuthorityOptions::default()).expect("keys can be made")
}

pub(crate) fn id(name: &str) -> NodeId {
    NodeId::new(name).expect("a label")
}

pub(crate) fn plan(authority: &Authority, name: &str, seeds: &[String]) -> Plan {
    let datacenter = Datacenter::new("eu").expect("a label");
    let issued = authority.issue(id(name), datacenter, Duration::from_secs(3_600));
    let Issued { certificate_pem, key_pem, roots_pem, .. } = issued.expect("it can be signed");
    Plan {
        certificate: certificate_pem,
        key: key_pem.to_string(),
        roots: roots_pem,
        seeds: seeds.to_vec(),
        listen: "127.0.0.1:0".to_owned(),
        group: GROUP.to_owned(),
    }
}

impl Plan {
    pub(crate) fn in_group(mut self, group: &str) -> Self {
        self.group = group.to_owned();
        self
    }

    pub(crate) fn at(mut self, address: &str) -> Self {
        self.listen = address.to_owned();
        self
    }

    pub(crate) async fn node(&self) -> Gossipmonger {
        let identity = Identity::from_pem(self.certificate.as_bytes(), self.key.as_bytes());
        let identity = identity.expect("it was issued");
        let roots = Roots::from_pem(self.roots.as_bytes()).expect("they were issued");
        let mut config = Config::new(identity.name()).local();
        config.listen = vec![self.listen.parse().expect("an address")];
        config.seeds = self.seeds.clone();
        let network = QuicNetwork::new(identity, roots).expect("certificates that fit");
        Gossipmonger::spawn(config, network).await.expect("it starts").0
    }

    pub(crate) async fn mesh(&self, node: &Gossipmonger) -> Mesh {
        let options = MeshOptions::new(self.group.clone());
        Mesh::start(node, options).await.expect("the mesh starts")
    }
}

/// A node in a process of its own, with an actor in the group [`ECHO`]. Dropping it kills the process.
pub(crate) struct Process {
    child: Child,
    /// Where the node listens.
    pub address: String,
}

impl Process {
    pub(crate) fn start(plan: &Plan) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "process::is_a_node_if_it_is_told_so", "--nocapture"])
            .env(PLAN, serde_json::to_string(plan).expect("it has a text"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut found = lines
            .map_while(Result::ok)
            .filter_map(|line| line.split_once(READY).map(|(_, address)| address.to_owned()));
        let address = found.next().expect("the process says where it listens");
        Self { child, address }
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.expect("there is a `kill`").success());
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It fails if it was killed before.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Passes at once unless this process was started by [`Process::start`]: then it is a node until its input ends.
#[test]
fn is_a_node_if_it_is_told_so() {
    let Ok(plan) = std::env::var(PLAN) else { return };
    let plan: Plan = serde_json::from_str(&plan).expect("a plan");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let node = plan.node().await;
        let (_echo, _) = Actor::spawn(None, Echo, ()).await.expect("it starts");
        let _mesh = plan.mesh(&node).await;
        println!("{READY}{}", node.addresses()[0]);
        // It ends with the process that has started this one.
        let input = tokio::task::spawn_blocking(|| {
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink())
        });
        drop(input.await);
    });
}

/// The remote actors of the group.
pub(crate) fn remote() -> Vec<ActorRef<EchoMessage>> {
    let members = pg::get_members(&ECHO.to_owned());
    members.into_iter().filter(|cell| !cell.get_id().is_local()).map(Into::into).collect()
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("it never came to this: {what}"));
}

/// Whether a path can be read: the tests of `/proc` do nothing on other systems.
pub(crate) fn is_there(path: &str) -> bool {
    Path::new(path).exists()
}

const READY: &str = "the node listens at ";
