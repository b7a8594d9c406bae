//! `agent --check`: everything that the start checks, without a port, a lock or a change.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use gossipmonger::{
    net::quic::QuicNetwork,
    store::{Store, Stored, redb::RedbStore},
    unstable::check_stored,
};

use super::{
    directory::Lock,
    http::tokens,
    issuing,
    server::check_socket_path,
    settings::{Credentials, Flags, Settings},
};
use crate::{error::CliError, output};

/// Checks what the start would, in its order.
///
/// # Errors
/// As the start.
pub(super) fn check(dir: &Path, flags: &Flags) -> Result<(), CliError> {
    let settings = Settings::read(dir, flags)?;
    settings.log_filter()?;
    let Credentials { identity, roots, .. } =
        settings.credentials(dir).map_err(|error| match settings.advice(dir) {
            Some(advice) => CliError::new(error.exit(), format!("{error}\n{advice}")),
            None => error,
        })?;
    let name = identity.name().clone();
    issuing::open(&settings, dir, name.clone())?;
    if Lock::is_taken(dir) {
        return Err(CliError::failed(format!(
            "an agent runs in {} already: what it would be started with is fine so far, but a second one \
             does not start",
            dir.display()
        )));
    }
    let transport = QuicNetwork::new(identity, roots).map_err(CliError::usage)?;
    let config = settings.config(&transport)?;
    if let Some(path) = settings.store(dir).filter(|path| path.exists()) {
        let stored = read_copy(&path)?;
        check_stored(&config, &stored)?;
    }
    check_socket_path(dir)?;
    let (metrics, http) = (settings.metrics(), settings.http(dir));
    if let Some(http) = &http
        && http.tokens.symlink_metadata().is_ok()
    {
        tokens::check(&http.tokens)?;
    }
    let served: Vec<_> = metrics.iter().chain(&http).map(|terms| terms.address).collect();
    let doors = settings.issuer(dir).map(|_| settings.issuer_listen(&config.listen));
    for address in config.listen.iter().chain(&served).chain(doors.iter().flatten()) {
        is_here(*address)?;
    }
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    output::line(&format!(
        "node {} of cluster {} in datacenter {} would start, listening on {}; whether its ports are free was \
         not tried",
        name.node,
        name.cluster,
        name.datacenter,
        listen.join(", ")
    ))
}

/// What the store has. To open a store may repair it, so a copy is opened.
fn read_copy(path: &Path) -> Result<Stored, CliError> {
    let failed =
        |error: &dyn std::fmt::Display| CliError::failed(format!("{}: {error}", path.display()));
    let bytes = fs::metadata(path).map_err(|error| failed(&error))?.len();
    if bytes > COPY_BYTES_MAX {
        return Err(failed(&format!(
            "has {bytes} bytes: --check copies a store of at most {COPY_BYTES_MAX} to read it; say \
             --store memory to check everything else"
        )));
    }
    let copy = Copied::of(path).map_err(|error| failed(&error))?;
    let store = RedbStore::open(copy.file()).map_err(|error| failed(&error))?;
    store.load().map_err(|error| failed(&error))
}

/// Whether this machine has the address. Port 0 is any free one, so no port of the cluster is bound.
fn is_here(address: SocketAddr) -> Result<(), CliError> {
    let bound = UdpSocket::bind(SocketAddr::new(address.ip(), 0));
    bound.map(drop).map_err(|error| {
        CliError::failed(format!("this machine cannot listen on {address}: {error}"))
    })
}

/// A copy of a store in a directory of its own, which only this user can read; both are removed when it is dropped.
struct Copied(std::path::PathBuf);

impl Copied {
    fn of(store: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let name =
            format!("gossipmonger-check-{}-{:016x}", std::process::id(), rand::random::<u64>());
        let dir = std::env::temp_dir().join(name);
        // It fails if something is there already.
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let copy = Self(dir);
        let mut to =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(copy.file())?;
        std::io::copy(&mut fs::File::open(store)?, &mut to)?;
        to.set_permissions(fs::Permissions::from_mode(0o600))?;
        Ok(copy)
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.join("store.redb")
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The largest store that is copied.
const COPY_BYTES_MAX: u64 = 1 << 30;
