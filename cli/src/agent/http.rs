//! The agent's HTTP interface: on the Unix socket for the owner, and on TCP for clients with a certificate or a token.
//!
//! A connection's first bytes decide on the socket between this and the older lines of JSON; on TCP there is HTTP/1.1
//! alone, with TLS unless the address is a loopback one. The [`gate`] authenticates the client, [`answer`] has the request
//! handled as any other caller's, so that the roles and the log are the same.

pub(super) mod answer;
pub(super) mod connection;
mod gate;
mod health;
mod listener;
mod page;
mod patient;
mod places;
pub(crate) mod tokens;

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use self::{
    answer::{Body, refused, text},
    connection::Link,
    gate::Gate,
    listener::Listener,
    tokens::Tokens,
};
use super::server::Agent;
use crate::{
    admin::{Code, HttpView},
    api::{self, Match, Shape, openapi},
    error::CliError,
};

/// The settings of the listener.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
    pub(super) tokens: PathBuf,
    pub(super) public_metrics: bool,
}

/// Renders the page of metrics.
pub(super) type MetricsPage = Arc<dyn Fn() -> String + Send + Sync>;

/// What every connection of the interface uses.
pub(super) struct Http {
    agent: Arc<Agent>,
    gate: Gate,
    metrics: MetricsPage,
    /// What is served: all, or what a scraper and a probe need.
    surface: Surface,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surface {
    /// Everything.
    Whole,
    /// The metrics and the probes, for everybody: the key `metrics`, on loopback only.
    Metrics,
}

/// A bound listener.
pub(super) struct Bound {
    listener: Listener,
    address: SocketAddr,
    terms: Terms,
    surface: Surface,
}

impl Bound {
    /// Binds the address, within a runtime, and reads the tokens.
    pub(super) fn bind(terms: Terms, surface: Surface) -> Result<Self, CliError> {
        if surface == Surface::Whole {
            Tokens::prepare(&terms.tokens)?;
        }
        let key = if surface == Surface::Whole { "http" } else { "metrics" };
        let failed =
            |error: io::Error| CliError::failed(format!("{key} = {}: {error}", terms.address));
        let listener = Listener::bind(terms.address).map_err(failed)?;
        let address = listener.address().map_err(failed)?;
        Ok(Self { listener, address, terms, surface })
    }

    /// The bound address, as a URL.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", if self.terms.tls { "https" } else { "http" }, self.address)
    }

    /// Where it is, for `info`.
    pub(super) fn view(&self) -> HttpView {
        let tokens = std::path::absolute(&self.terms.tokens);
        HttpView { url: self.url(), tokens: tokens.unwrap_or_else(|_| self.terms.tokens.clone()) }
    }

    /// The bound address.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the task is aborted.
    pub(super) fn serve(self, agent: &Arc<Agent>, metrics: MetricsPage) -> JoinHandle<()> {
        let Self { listener, terms, surface, .. } = self;
        let tls = terms.tls.then(|| agent.tls());
        let gate = Gate::new(
            Tokens::at(terms.tokens),
            terms.public_metrics || surface == Surface::Metrics,
        );
        let http = Arc::new(Http { agent: Arc::clone(agent), gate, metrics, surface });
        tokio::spawn(listener.serve(http, tls))
    }
}

impl Http {
    /// For the Unix socket.
    pub(super) fn for_owner(agent: &Arc<Agent>, metrics: MetricsPage) -> Arc<Self> {
        let gate = Gate::new(Tokens::none(), true);
        Arc::new(Self { agent: Arc::clone(agent), gate, metrics, surface: Surface::Whole })
    }

    /// Answers a request.
    pub(super) async fn answer(
        self: Arc<Self>,
        link: &Link,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let head = *request.method() == Method::HEAD;
        let mut response = self.route(link, request).await;
        let headers = response.headers_mut();
        let mut set = |name, value| {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        };
        set(header::CACHE_CONTROL, "no-store");
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(header::REFERRER_POLICY, "no-referrer");
        if head {
            *response.body_mut() = answer::empty();
        }
        Ok(response)
    }

    async fn route(self: &Arc<Self>, link: &Link, request: Request<Incoming>) -> Response<Body> {
        if let Err(refusal) = self.gate.check_origin(link, &request) {
            return *refusal;
        }
        let path = request.uri().path().to_owned();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match &*path {
            "/livez" if reads => return health::live(&self.agent),
            "/readyz" if reads => return health::ready(&self.agent),
            "/metrics" if reads => {
                return match self.gate.metrics(&self.agent, link, &request).await {
                    Ok(()) => text(StatusCode::OK, METRICS_TYPE, (self.metrics)()),
                    Err(refusal) => *refusal,
                };
            }
            "/livez" | "/readyz" | "/metrics" => return other_methods("GET, HEAD"),
            _ => {}
        }
        if self.surface == Surface::Metrics {
            return refused(
                StatusCode::NOT_FOUND,
                Code::NotFound,
                "here are /metrics, /livez and /readyz",
            );
        }
        if let Some(file) = page::file(&path) {
            return if reads { file } else { other_methods("GET, HEAD") };
        }
        if path == "/v1/openapi.json" {
            return match reads {
                true => text(StatusCode::OK, JSON_TYPE, openapi::document()),
                false => other_methods("GET, HEAD"),
            };
        }
        let method =
            if *request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let (route, fields) = match api::find(method, &path) {
            Match::Route(route, fields) => (route, fields),
            Match::OtherMethods(methods) => {
                return other_methods(
                    &methods.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(", "),
                );
            }
            Match::Nothing => {
                return refused(
                    StatusCode::NOT_FOUND,
                    Code::NotFound,
                    "no such path: see /v1/openapi.json",
                );
            }
        };
        if *request.method() == Method::HEAD && route.answer == Shape::Stream {
            return other_methods("GET");
        }
        let who = match self.gate.who(&self.agent, link, request.headers()).await {
            Ok(who) => who,
            Err(refusal) => return *refusal,
        };
        link.known(&who);
        let still = self.proof(link, request.headers());
        let line = match answer::line(&self.agent, &who, route, fields, request).await {
            Ok(line) => line,
            Err(refusal) => return refusal,
        };
        answer::respond(&self.agent, link, route, line, who, still).await
    }

    /// Whether the client is still authenticated.
    fn proof(self: &Arc<Self>, link: &Link, headers: &HeaderMap) -> Proof {
        let mut shown = HeaderMap::new();
        shown.extend(
            headers.get(header::AUTHORIZATION).map(|value| (header::AUTHORIZATION, value.clone())),
        );
        Proof { http: Arc::clone(self), link: link.clone(), shown }
    }
}

/// What a caller has shown, to be judged again.
pub(super) struct Proof {
    http: Arc<Http>,
    link: Link,
    shown: HeaderMap,
}

impl Proof {
    pub(super) async fn holds(&self) -> bool {
        self.http.gate.who(&self.http.agent, &self.link, &self.shown).await.is_ok()
    }
}

fn other_methods(allowed: &str) -> Response<Body> {
    let message = format!("this path has {allowed}");
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, Code::Usage, &message);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// The type of the text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON_TYPE: &str = "application/json";
