//! The cost of a handshake: mutual TLS over QUIC, both certificates checked, both ends in this process.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use gossipmonger::{
    tls::Tls,
    unstable::{Expect, SERVER_NAME, peer_name},
};
use quinn::{ClientConfig, ConnectionError, Endpoint, ServerConfig, VarInt};
use serde_json::json;

use super::{Report, faults::Faults, in_range, machine, rounded};
use crate::{error::CliError, stopwatch::Stopwatch, throwaway::Throwaway};

/// The arguments of `handshake`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// How many, one after the other.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    count: usize,
}

/// Measures the CPU time of whole handshakes. The dialer's part ends before the other end has received its certificate,
/// so a handshake counts as complete when the other end has checked that and closes the connection.
pub(super) async fn handshake(args: &Args) -> Result<Report, CliError> {
    in_range("count", args.count, 1, 1_000_000)?;
    let authority = Throwaway::new("bench")?;
    let tls = |name| -> Result<Tls, CliError> {
        let (identity, roots) = authority.issue(name, "here")?.parts()?;
        Tls::new(identity, roots).map_err(CliError::failed)
    };
    let (server, dialer) = (tls("a")?, tls(DIALER)?);
    let config = ServerConfig::with_crypto(server.accept().0);
    let server = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into())?;
    let address = server.local_addr()?;
    let checked = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&checked);
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                if peer_name(&connection).is_ok_and(|name| name.node.as_str() == DIALER) {
                    counted.fetch_add(1, Ordering::Relaxed);
                    connection.close(CHECKED, b"");
                }
            });
        }
    });
    let client = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let one = async || {
        let config = ClientConfig::new(dialer.dial(Expect::AnyNode).0);
        let connecting = client.connect_with(config, address, SERVER_NAME);
        let connection = connecting.map_err(CliError::failed)?.await.map_err(CliError::failed)?;
        let known = peer_name(&connection).is_ok();
        let ConnectionError::ApplicationClosed(close) = connection.closed().await else {
            return Err(CliError::failed("a handshake that the other end did not finish"));
        };
        Ok::<_, CliError>(known && close.error_code == CHECKED)
    };
    for _ in 0..WARM_UP {
        one().await?;
    }
    let before = checked.load(Ordering::Relaxed);
    let (cpu, wire, watch) = (machine::cpu_seconds(), machine::loopback(), Stopwatch::start());
    let mut done = 0;
    for _ in 0..args.count {
        done += usize::from(one().await?);
    }
    let seconds = watch.seconds();
    let (cpu, wire) = (machine::cpu_seconds() - cpu, machine::loopback().since(&wire));
    let each = |total: f64| total / args.count as f64;
    let checked = checked.load(Ordering::Relaxed) - before;
    let mut out = Report::new();
    out.insert("scenario".into(), "handshake".into());
    out.insert("handshakes".into(), args.count.into());
    out.insert("cpu_us_both_ends".into(), rounded(each(cpu) * 1e6, 0));
    out.insert("wall_us".into(), rounded(each(seconds) * 1e6, 0));
    out.insert("wire_bytes".into(), rounded(each(wire.bytes as f64), 0));
    out.insert(
        "settings".into(),
        json!({ "key_exchange": "X25519MLKEM768", "certificates": "Ed25519, both ends" }),
    );
    out.insert("checked_by_both_ends".into(), checked.into());
    faults(args.count, done, checked)
        .judge(&mut out, &["cpu_us_both_ends", "wall_us", "wire_bytes"]);
    Ok(out)
}

/// Each end must have checked the other's certificate in every handshake.
fn faults(count: usize, by_dialer: usize, by_server: u64) -> Faults {
    let mut faults = Faults::default();
    faults.require(by_dialer == count, || format!("the dialer finished {by_dialer} of {count}"));
    faults.require(by_server == count as u64, || {
        format!("the accepting end checked {by_server} of {count} certificates")
    });
    faults
}

const DIALER: &str = "b";
/// The accepting end has identified the dialer.
const CHECKED: VarInt = VarInt::from_u32(7);
const WARM_UP: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_that_one_end_did_not_finish_are_void() {
        assert!(faults(5, 5, 5).is_empty());
        assert!(!faults(5, 4, 5).is_empty());
        assert!(!faults(5, 5, 4).is_empty());
    }
}
