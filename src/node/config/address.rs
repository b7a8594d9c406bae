//! Addresses as an operator writes them.

use std::net::{Ipv6Addr, SocketAddr};

use super::error::ConfigError;
use crate::protocol::record;

/// Refuses addresses that no socket, or no second one, can bind. `key`: the setting that has them.
///
/// # Errors
/// The first such address, and why.
pub fn check_listen(key: &'static str, addresses: &[SocketAddr]) -> Result<(), ConfigError> {
    let refused = |address: &SocketAddr, allowed: &str| {
        Err(ConfigError { key, value: address.to_string(), allowed: allowed.to_owned() })
    };
    for (n, address) in addresses.iter().enumerate() {
        if address.ip().is_multicast() {
            return refused(address, "a multicast address is nobody's own: name one of this host");
        }
        if address.port() != 0 && addresses[..n].contains(address) {
            return refused(address, "each address may be named once");
        }
    }
    Ok(())
}

/// Refuses an address that cannot be dialed. `key`: the setting that has it.
///
/// # Errors
/// The address, and what is allowed.
pub fn check_address(key: &'static str, address: &str) -> Result<(), ConfigError> {
    let refused = |allowed: String| ConfigError { key, value: format!("{address:?}"), allowed };
    let parts = address.rsplit_once(':');
    let good = parts.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified()) {
        let allowed = "nobody can dial an unspecified address: name one by which others reach it";
        return Err(refused(allowed.to_owned()));
    }
    if let Some((host, _)) = parts.filter(|_| good && address.len() <= record::ADDRESS_BYTES_MAX) {
        return check_host(host).map_err(|why| refused(format!("{why}; write {HOST_AND_PORT}")));
    }
    Err(refused(format!(
        "host:port with a port of 1 to 65535, at most {} bytes (IPv6 as [::1]:7101)",
        record::ADDRESS_BYTES_MAX
    )))
}

/// Refuses names that no system resolves.
fn check_host(host: &str) -> Result<(), &'static str> {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let (address, scope) = inner.split_once('%').unwrap_or((inner, "0"));
        return match (address.parse::<Ipv6Addr>(), scope.parse::<u32>()) {
            (Ok(_), Ok(_)) => Ok(()),
            (Ok(_), Err(_)) => Err("after % the number of the interface is expected, not its name"),
            (Err(_), _) => Err("in brackets an IPv6 address is expected"),
        };
    }
    if host.parse::<Ipv6Addr>().is_ok() || host.strip_suffix(':').is_some() {
        return Err("an IPv6 address needs brackets");
    }
    if host.contains("://") {
        return Err("a URL is not expected");
    }
    if host.contains([',', ';', ' ']) {
        return Err("one address is expected; give several as a list");
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(letters)
    };
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Err("the host is neither an IP address nor the name of a host");
    }
    Ok(())
}

const HOST_AND_PORT: &str = "host:port (IPv6 as [::1]:7101)";
/// Maximum length of a host name and of one label of it (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
