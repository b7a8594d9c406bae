//! Makes every certificate that the tests need, good and bad. `certs/README.md` lists the result that each
//! must have, `examples/certs.rs` is the command, and `tests/cluster/certs.rs` the test.

use std::{
    error::Error,
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use gossipmonger::{
    ClusterId,
    pki::{Authority, AuthorityOptions, Existing, KeyKind, LeafOptions, Usage},
    tls::{ClientName, PeerName, Role},
};

/// Makes all of them below `dir`: `pki`, and a directory for each certificate. What is there already
/// is not overwritten. Says whether there was an `openssl` command for those it makes.
pub(crate) fn make(dir: &Path, openssl: &Path) -> Result<bool, Box<dyn Error>> {
    let new = |cluster: &str| {
        Authority::create(ClusterId::new(cluster)?, &AuthorityOptions::default())
            .map_err(Box::<dyn Error>::from)
    };
    let (ours, foreign, twin) = (new("demo")?, new("other")?, new("demo")?);
    ours.save(&dir.join("pki"))?;
    foreign.save(&dir.join("pki-foreign"))?;
    twin.save(&dir.join("pki-twin"))?;

    for name in ["good", "other"] {
        issue(dir, name, &ours, node(name))?;
    }
    issue(dir, "p256", &ours, LeafOptions { key: KeyKind::P256, ..node("p256") })?;
    issue(dir, "any-purpose", &ours, LeafOptions { usages: vec![], ..node("any-purpose") })?;
    issue(dir, "foreign", &foreign, node("foreign"))?;
    issue(dir, "twin", &twin, node("twin"))?;
    issue(dir, "expired", &ours, dated(node("expired"), -3, -2))?;
    issue(dir, "early", &ours, dated(node("early"), 2, 3))?;
    issue(dir, "wrong-name", &ours, node("other"))?;
    issue(dir, "wrong-cluster", &ours, named(&["spiffe://staging/eu/wrong-cluster"]))?;
    issue(dir, "no-uri", &ours, named(&[]))?;
    issue(dir, "two-uris", &ours, named(&["spiffe://demo/eu/two-uris", "spiffe://demo/eu/x"]))?;
    issue(dir, "other-uri", &ours, named(&["https://demo/eu/other-uri"]))?;
    let server_only = LeafOptions { usages: vec![Usage::Server], ..node("server-only") };
    issue(dir, "server-only", &ours, server_only)?;
    signed_by_a_node(dir)?;

    for role in Role::ALL {
        let name = format!("client-{role}");
        issue(dir, &name, &ours, client("demo", role, &name)?)?;
    }
    let admin = |name: &str| client("demo", Role::Admin, name);
    issue(dir, "client-foreign", &foreign, admin("client-foreign")?)?;
    issue(dir, "client-twin", &twin, admin("client-twin")?)?;
    issue(dir, "client-expired", &ours, dated(admin("client-expired")?, -3, -2))?;
    let staging = client("staging", Role::Admin, "client-wrong-cluster")?;
    issue(dir, "client-wrong-cluster", &ours, staging)?;
    let root = named(&["spiffe://demo/client/root/client-wrong-role"]);
    issue(dir, "client-wrong-role", &ours, LeafOptions { usages: vec![Usage::Client], ..root })?;
    let both = vec![Usage::Server, Usage::Client];
    let both = LeafOptions { usages: both, ..admin("client-for-both")? };
    issue(dir, "client-for-both", &ours, both)?;

    let made = by_openssl(dir, openssl)?;
    let mut roots = ours.certificate_pem().to_owned();
    for name in if made { &OPENSSL[..] } else { &[] } {
        roots += &fs::read_to_string(dir.join(name).join("roots.pem"))?;
    }
    fs::write(dir.join("roots.pem"), roots)?;
    Ok(made)
}

fn issue(
    dir: &Path,
    name: &str,
    by: &Authority,
    options: LeafOptions,
) -> Result<(), Box<dyn Error>> {
    Ok(by.issue_with(&options)?.save(&dir.join(name), Existing::Refuse)?)
}

fn node(name: &str) -> LeafOptions {
    named(&[&format!("spiffe://demo/eu/{name}")])
}

fn named(uris: &[&str]) -> LeafOptions {
    let any = PeerName::from_uri("spiffe://demo/eu/any").expect("it has the form of a name");
    let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
    LeafOptions { uris, ..LeafOptions::new(&any, VALIDITY) }
}

fn client(cluster: &str, role: Role, name: &str) -> Result<LeafOptions, Box<dyn Error>> {
    let name = ClientName::from_uri(&format!("spiffe://{cluster}/client/{role}/{name}"))?;
    Ok(LeafOptions::client(&name, VALIDITY))
}

/// Valid from and until so many days from now.
fn dated(options: LeafOptions, from: i32, until: i32) -> LeafOptions {
    let at = |days: i32| {
        let distance = DAY * days.unsigned_abs();
        if days < 0 { now() - distance } else { now() + distance }
    };
    LeafOptions { not_before: at(from), not_after: at(until), ..options }
}

/// What a member makes that has nothing but its own key: a certificate for another.
fn signed_by_a_node(dir: &Path) -> Result<(), Box<dyn Error>> {
    let (signer, made) = (dir.join("other"), dir.join("signed-by-node"));
    let chain = fs::read_to_string(signer.join("node.pem"))?;
    let key = rcgen::KeyPair::from_pem(&fs::read_to_string(signer.join("node.key"))?)?;
    let issuer = rcgen::Issuer::from_ca_cert_pem(&chain, key)?;
    let mut params = rcgen::CertificateParams::default();
    let uri = "spiffe://demo/eu/signed-by-node".try_into()?;
    params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
    params.not_before = now().into();
    params.not_after = (now() + DAY).into();
    let key = rcgen::KeyPair::generate()?;
    let leaf = params.signed_by(&key, &issuer)?;
    fs::create_dir_all(&made)?;
    fs::write(made.join("node.pem"), leaf.pem() + &chain)?;
    write_key(&made.join("node.key"), &key.serialize_pem())?;
    fs::copy(signer.join("roots.pem"), made.join("roots.pem"))?;
    Ok(())
}

/// Chains with an intermediate, as any other PKI has them.
fn by_openssl(dir: &Path, script: &Path) -> Result<bool, Box<dyn Error>> {
    if !Command::new("openssl").arg("version").output().is_ok_and(|said| said.status.success()) {
        return Ok(false);
    }
    for name in OPENSSL {
        let made = dir.join(name);
        let kind = name.trim_start_matches("openssl-");
        let said =
            Command::new("sh").arg(script).arg(&made).args([kind, "demo", "eu", name]).output()?;
        if !said.status.success() {
            return Err(String::from_utf8_lossy(&said.stderr).into());
        }
        fs::rename(made.join(name).with_extension("pem"), made.join("node.pem"))?;
        fs::rename(made.join(name).with_extension("key"), made.join("node.key"))?;
    }
    Ok(true)
}

#[cfg(unix)]
fn write_key(path: &Path, pem: &str) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(pem.as_bytes())
}

#[cfg(not(unix))]
fn write_key(path: &Path, pem: &str) -> std::io::Result<()> {
    fs::write(path, pem)
}

#[expect(clippy::disallowed_methods, reason = "certificates' dates are wall time")]
fn now() -> SystemTime {
    SystemTime::now()
}

const OPENSSL: [&str; 2] = ["openssl-p256", "openssl-rsa"];
const DAY: Duration = Duration::from_secs(86_400);
const VALIDITY: Duration = Duration::from_secs(30 * 86_400);
