//! What a handshake costs: mutual TLS over QUIC, both certificates checked, both ends in this process.

use std::net::Ipv4Addr;

use quinn::{ClientConfig, Endpoint, ServerConfig, VarInt};
use serde_json::json;

use super::{Report, in_range, machine, rounded};
use crate::{
    cli::{error::CliError, stopwatch::Stopwatch, throwaway::Throwaway},
    tls::{Expect, SERVER_NAME, Tls},
};

/// The arguments of `handshake`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// How many, one after the other.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    count: usize,
}

/// Measures the CPU time of whole handshakes, until the dialer's is done and the connection closed.
pub(super) async fn handshake(args: &Args) -> Result<Report, CliError> {
    in_range("count", args.count, 1, 1_000_000)?;
    let authority = Throwaway::new("bench")?;
    let tls = |name| -> Result<Tls, CliError> {
        let (identity, roots) = authority.issue(name, "here")?.parts()?;
        Tls::new(identity, roots).map_err(CliError::failed)
    };
    let (server, dialer) = (tls("a")?, tls("b")?);
    let config = ServerConfig::with_crypto(server.accept().0);
    let server = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into())?;
    let address = server.local_addr()?;
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    connection.closed().await;
                }
            });
        }
    });
    let client = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let one = async || {
        let config = ClientConfig::new(dialer.dial(Expect::AnyNode).0);
        let connecting = client.connect_with(config, address, SERVER_NAME);
        let connection = connecting.map_err(CliError::failed)?.await.map_err(CliError::failed)?;
        connection.close(VarInt::from_u32(0), b"");
        Ok::<_, CliError>(())
    };
    for _ in 0..WARM_UP {
        one().await?;
    }
    let (cpu, wire, watch) = (machine::cpu_seconds(), machine::loopback(), Stopwatch::start());
    for _ in 0..args.count {
        one().await?;
    }
    let seconds = watch.seconds();
    let (cpu, wire) = (machine::cpu_seconds() - cpu, machine::loopback().since(&wire));
    let each = |total: f64| total / args.count as f64;
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
    Ok(out)
}

const WARM_UP: usize = 20;
