//! The environment variables that Kubernetes and Docker set for a service called `gossipmonger`, or with
//! a name that begins so. They are not settings of ours, and no operator of an agent has written them.
//!
//! Kubernetes (`enableServiceLinks`) sets `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`,
//! `NAME_SERVICE_PORT_<port>`, `NAME_PORT` and `NAME_PORT_<number>_<TCP|UDP|SCTP>`, the last also with
//! `_PROTO`, `_PORT` and `_ADDR`; links of Docker are the last two.

/// Whether a variable is one of these. `name` is without our prefix, which may be the whole name of
/// the service.
pub fn is_service_link(name: &str, value: &str) -> bool {
    let name = format!("_{name}");
    let of_port = |rest: &str| rest.is_empty() || rest.starts_with('_');
    if name.ends_with("_SERVICE_HOST") {
        return true;
    }
    if let Some((_, rest)) = name.rsplit_once("_SERVICE_PORT") {
        return of_port(rest);
    }
    // Require an address, so that `GOSSIPMONGER_PORT=7101`, written by an operator, is refused.
    if name.ends_with("_PORT") && value.contains("://") {
        return true;
    }
    name.match_indices("_PORT_").any(|(at, part)| is_numbered(&name[at + part.len()..], value))
}

/// `7101_UDP`, an address, or `7101_UDP_ADDR` and the like.
fn is_numbered(rest: &str, value: &str) -> bool {
    let mut parts = rest.split('_');
    let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
    let protocol = parts.next().is_some_and(|part| ["TCP", "UDP", "SCTP"].contains(&part));
    let detail = match parts.next() {
        None => value.contains("://"),
        Some(detail) => ["PROTO", "PORT", "ADDR"].contains(&detail) && parts.next().is_none(),
    };
    number && protocol && detail
}
