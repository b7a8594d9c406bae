//! Authentication of requests, and refusal of those that a page of another site makes a browser send.

use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;

use super::{
    answer::{Body, refused},
    connection::{End, Link},
    tokens::Tokens,
};
use crate::{
    admin::Code,
    agent::server::{Agent, Guest, Who},
};

/// The response to a client that is not permitted.
pub(super) type Refusal = Box<Response<Body>>;

/// The entrance of the interface.
pub(super) struct Gate {
    tokens: Tokens,
    /// Everybody may read the metrics.
    public_metrics: bool,
}

impl Gate {
    pub(super) const fn new(tokens: Tokens, public_metrics: bool) -> Self {
        Self { tokens, public_metrics }
    }

    /// Refuses what a browser sends for another site's page: under a name that somebody else's DNS server has given this
    /// address (DNS rebinding), or with the user's certificate (CSRF). A navigation to the view itself carries nothing.
    pub(super) fn check_origin(
        &self,
        link: &Link,
        request: &Request<Incoming>,
    ) -> Result<(), Refusal> {
        let End::Remote { shown, .. } = link.end() else { return Ok(()) };
        let headers = request.headers();
        let text = |name| headers.get(name).map(|value: &http::HeaderValue| value.to_str().ok());
        let one = headers.get_all(header::HOST).iter().count() == 1;
        // A proxy in front may have judged by the other one. HTTP/1.0 needs none.
        if !one && (headers.contains_key(header::HOST) || request.version() > Version::HTTP_10) {
            return Err(boxed(StatusCode::BAD_REQUEST, Code::Usage, "one Host is wanted"));
        }
        // A browser always names it.
        let host = match text(header::HOST) {
            None => "localhost",
            Some(host) => host.unwrap_or_default(),
        };
        if shown.is_none() && !is_loopback(host) {
            let message = "without TLS this agent answers to localhost and loopback addresses only";
            return Err(boxed(StatusCode::MISDIRECTED_REQUEST, Code::Forbidden, message));
        }
        let scheme = if shown.is_some() { "https" } else { "http" };
        let foreign = |origin: Option<&str>| origin != Some(&*format!("{scheme}://{host}"));
        let crossed = matches!(headers.get(SEC_FETCH_SITE).map(http::HeaderValue::as_bytes),
            Some(site) if site != b"same-origin" && site != b"none");
        let page = request.uri().path() == "/" && request.method() == http::Method::GET;
        if text(header::ORIGIN).is_some_and(foreign) || crossed && !page {
            let message = "a page of another site must not ask this agent";
            return Err(boxed(StatusCode::FORBIDDEN, Code::Forbidden, message));
        }
        Ok(())
    }

    /// Who makes a request.
    pub(super) async fn who(
        &self,
        agent: &Agent,
        link: &Link,
        headers: &HeaderMap,
    ) -> Result<Who, Refusal> {
        let End::Remote { address, shown } = link.end() else { return Ok(Who::Owner) };
        let remote = address.to_string();
        if let Some(token) = bearer(headers) {
            let Some((name, role)) = self.tokens.find(token).await else {
                agent.count_refused();
                return Err(unknown("no such token"));
            };
            return Ok(Who::Guest(Guest { name, role, remote }));
        }
        let Some(chain) = shown.as_deref().filter(|chain| !chain.is_empty()) else {
            return Err(unknown("a client's certificate or a bearer token is wanted"));
        };
        match agent.tls().client(chain) {
            Ok(client) => Ok(Who::Guest(Guest { name: client.name, role: client.role, remote })),
            Err(refusal) => {
                agent.count_refused();
                let message = format!("the certificate is not accepted: {refusal}");
                Err(boxed(StatusCode::FORBIDDEN, Code::Forbidden, &message))
            }
        }
    }

    /// Whether the client may read the metrics: each role may.
    pub(super) async fn metrics(
        &self,
        agent: &Agent,
        link: &Link,
        request: &Request<Incoming>,
    ) -> Result<(), Refusal> {
        if self.public_metrics {
            return Ok(());
        }
        self.who(agent, link, request.headers()).await.map(|who| link.known(&who))
    }
}

/// The token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn boxed(status: StatusCode, code: Code, message: &str) -> Refusal {
    Box::new(refused(status, code, message))
}

fn unknown(message: &str) -> Refusal {
    let mut response = boxed(StatusCode::UNAUTHORIZED, Code::Forbidden, message);
    let challenge = http::HeaderValue::from_static("Bearer realm=\"gossipmonger\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Whether a host (`NAME` or `NAME:PORT`) is this machine by its form: no DNS server has a say in it.
fn is_loopback(host: &str) -> bool {
    let port = |at: &usize| host[at + 1..].bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rfind(':').filter(port).map_or(host, |at| &host[..at]);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Says from where a browser's page sends a request (Fetch Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_dns_server_gives_are_loopback() {
        for host in
            ["127.0.0.1", "127.0.0.1:7180", "localhost:7180", "LOCALHOST", "[::1]:7180", "[::1]"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example:7180", "10.0.0.1", "", ":", "localhost.evil"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
