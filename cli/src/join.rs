//! `join`: makes a directory for an agent from a token and a host.
//!
//! It overwrites nothing that exists, and after a failure it removes what it made.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead, Write},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use gossipmonger::{
    issuer::{self, Asked, Joined, Token},
    pki::Existing,
    protocol::id::{Datacenter, NodeId},
    unstable::{file, host_and_port},
};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::{
    admin::CertificateView,
    agent::directory::{CONFIG, LOCK, Lock},
    certificates::{Key, new_name},
    config,
    error::CliError,
    output,
};

/// Join a cluster: get a certificate for a token and write what an agent needs into --dir.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What `gossipmonger token create` has printed; `-` reads it from standard input.
    #[arg(value_name = "TOKEN")]
    token: String,
    /// The host of the agent that has made the token, or HOST:PORT with the port of its gossip.
    #[arg(value_name = "SEED")]
    seed: String,
    /// The name of this node, if the token does not fix it.
    #[arg(long, value_name = "NAME", value_parser = new_name::<NodeId>)]
    node: Option<NodeId>,
    /// The datacenter it is in, if the token does not fix it. Default: that of the issuer.
    #[arg(long, value_name = "NAME", value_parser = new_name::<Datacenter>)]
    datacenter: Option<Datacenter>,
    /// Address that the agent is to listen on; may be given several times. Default: this machine's
    /// address on the way to the seed, with the seed's port; on loopback any free port.
    #[arg(long, value_name = "ADDR:PORT", value_delimiter = ',', value_parser = config::socket_address)]
    listen: Vec<SocketAddr>,
    /// Address or name (HOST:PORT) where others reach it; may be given several times.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    advertise: Vec<String>,
    /// The kind of key.
    #[arg(long = "key-type", alias = "key", value_enum, default_value_t)]
    key: Key,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(dir: Option<&Path>, args: Args) -> Result<(), CliError> {
    let dir = dir.ok_or_else(|| CliError::usage("say where: --dir DIR is needed here"))?;
    let joined = fill(dir, &args)?;
    tell(dir, &joined, args.json)
}

/// As the command, for an agent that starts then.
pub(crate) fn prepare(
    dir: &Path,
    token: &str,
    seed: &str,
    node: Option<NodeId>,
    datacenter: Option<Datacenter>,
) -> Result<(), CliError> {
    let args = Args {
        token: token.to_owned(),
        seed: seed.to_owned(),
        node,
        datacenter,
        listen: Vec::new(),
        advertise: Vec::new(),
        key: Key::default(),
        json: false,
    };
    let joined = fill(dir, &args)?;
    output::lines(&format!("{}\nwritten to   {}", joined.issued.certificate, dir.display()))
}

fn fill(dir: &Path, args: &Args) -> Result<Joined, CliError> {
    let token: Token = read_token(&args.token)?.parse().map_err(CliError::usage)?;
    let seed = Seed::parse(&args.seed)?;
    if seed.port == Some(token.port()) {
        return Err(CliError::usage(format!(
            "{} is where the issuer gives out certificates; name the host alone, or the port of its gossip",
            args.seed
        )));
    }
    let asked = Asked {
        node: args.node.clone(),
        datacenter: args.datacenter.clone(),
        key: args.key.into(),
    };
    let mut place = Place::claim(dir)?;
    let joined = Runtime::new()?.block_on(issuer::join(&token, &seed.host, &asked))?;
    let config = configuration(args, &seed, &token, &joined);
    place.write(&joined, &config)?;
    place.keep();
    Ok(joined)
}

/// clap does not parse the token: its message would repeat the secret.
fn read_token(given: &str) -> Result<zeroize::Zeroizing<String>, CliError> {
    let mut token = zeroize::Zeroizing::new(given.to_owned());
    if given == "-" {
        token.clear();
        io::stdin().lock().read_line(&mut token).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => {
                CliError::usage("what came on standard input is no token: it is no text")
            }
            _ => error.into(),
        })?;
    }
    Ok(token)
}

/// The host of the issuer, and the port of its gossip if it is known.
#[derive(Debug, PartialEq)]
struct Seed {
    host: String,
    port: Option<u16>,
}

impl Seed {
    fn parse(text: &str) -> Result<Self, CliError> {
        let bad = || {
            CliError::usage(format!(
                "{text:?} is no seed: say HOST or HOST:PORT (IPv6 as [::1]:7101)"
            ))
        };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { host: address.to_string(), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| bad())?))
            }
            _ => (text, None),
        };
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
        if host.is_empty()
            || host.len() > HOST_BYTES_MAX
            || !host.chars().all(plain)
            || port == Some(0)
        {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// The directory to fill. Unless it is kept, everything made in it is removed again.
struct Place {
    dir: PathBuf,
    made: Vec<PathBuf>,
    made_dir: bool,
    lock: Option<Lock>,
}

impl Place {
    /// Checks, before any request is sent, that the directory can be written and that its files do not exist.
    fn claim(dir: &Path) -> Result<Self, CliError> {
        let made_dir = !dir.exists();
        if made_dir {
            make_directory(dir)
                .map_err(|error| CliError::failed(format!("{}: {error}", dir.display())))?;
        }
        let mut place = Self { dir: dir.to_owned(), made: Vec::new(), made_dir, lock: None };
        for name in [CONFIG, file::CERTIFICATE, file::KEY, file::ROOTS, file::AUTHORITY_KEY] {
            let path = dir.join(name);
            if path.exists() {
                return Err(CliError::failed(format!(
                    "{} exists already and is not overwritten; choose another --dir",
                    path.display()
                )));
            }
        }
        let lock = dir.join(LOCK);
        if !lock.exists() {
            place.made.push(lock);
        }
        place.lock = Some(Lock::take(dir)?);
        Ok(place)
    }

    /// Writes the certificate last: with it `agent --join` takes the directory for that of a node that has joined.
    fn write(&mut self, joined: &Joined, config: &str) -> Result<(), CliError> {
        for name in [file::KEY, file::CERTIFICATE, file::ROOTS, CONFIG] {
            self.made.push(self.dir.join(name));
        }
        let path = self.dir.join(CONFIG);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&path).and_then(|mut file| {
            file.write_all(config.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| CliError::failed(format!("{}: {error}", path.display())))?;
        Ok(joined.issued.save(&self.dir, Existing::Refuse)?)
    }

    fn keep(mut self) {
        self.made.clear();
        self.made_dir = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for path in &self.made {
            let _ = fs::remove_file(path);
        }
        if self.made_dir {
            // Only if it is empty.
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

fn make_directory(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn configuration(args: &Args, seed: &Seed, token: &Token, joined: &Joined) -> String {
    let strings = |values: Vec<String>| {
        toml::Value::Array(values.into_iter().map(toml::Value::String).collect()).to_string()
    };
    let mut text = String::from("# Written by `gossipmonger join`; change what you like.\n");
    let listen: Vec<_> = match &args.listen[..] {
        [] if joined.local.is_loopback() || joined.local.is_unspecified() => Vec::new(),
        [] => vec![SocketAddr::new(joined.local, joined.gossip_port).to_string()],
        given => given.iter().map(ToString::to_string).collect(),
    };
    if !listen.is_empty() {
        text.push_str(&format!("listen = {}\n", strings(listen)));
    }
    if !args.advertise.is_empty() {
        text.push_str(&format!("advertise = {}\n", strings(args.advertise.clone())));
    }
    let gossip = host_and_port(&seed.host, seed.port.unwrap_or(joined.gossip_port));
    text.push_str(&format!("seeds = {}\n", strings(vec![gossip])));
    let door = host_and_port(&seed.host, token.port());
    text.push_str("# Where the certificate is renewed.\n");
    let mut doors = vec![door];
    doors.extend(
        joined.issuers.iter().filter(|other| **other != doors[0]).cloned().collect::<Vec<_>>(),
    );
    text.push_str(&format!("issuers = {}\n", strings(doors)));
    text
}

#[derive(Serialize)]
struct Told {
    directory: String,
    certificate: CertificateView,
}

fn tell(dir: &Path, joined: &Joined, json: bool) -> Result<(), CliError> {
    let certificate = &joined.issued.certificate;
    let directory = dir.display().to_string();
    if json {
        return output::json(&Told { directory, certificate: certificate.into() });
    }
    output::lines(&format!(
        "{certificate}\nwritten to   {directory}\nstart it with: gossipmonger agent --dir {directory}"
    ))
}

/// Longest DNS name.
const HOST_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_host_with_and_without_a_port() {
        let seed = |text| Seed::parse(text).map(|seed| (seed.host, seed.port));
        for (text, host, port) in [
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:7101", "10.0.0.1", Some(7101)),
            ("a.example.org", "a.example.org", None),
            ("a.example.org:7101", "a.example.org", Some(7101)),
            ("::1", "::1", None),
            ("[::1]", "::1", None),
            ("[::1]:7101", "::1", Some(7101)),
        ] {
            assert_eq!(seed(text).unwrap(), (host.to_owned(), port), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_host() {
        for text in ["", ":7101", "a:b", "a:0", "a:70000", "a b", "a/b", "a\nb", "https://a"] {
            assert!(Seed::parse(text).is_err(), "{text}");
        }
    }
}
