//! From an HTTP request to the line of a request, and from the lines of its answer to an HTTP response.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use tokio::{
    io::{
        AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, duplex,
        split,
    },
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use super::{Proof, connection::Link};
use crate::{
    admin::{Answer, Code, Failure, LINE_BYTES_MAX},
    agent::server::{
        Agent, Caller, LONG_REQUEST_TIMEOUT, REQUEST_TIMEOUT, SHORT_REQUEST_BYTES, Who,
    },
    api::{BASE64, Kind, Route, Shape},
};

/// The body of a response.
pub(in crate::agent) type Body = BoxBody<Bytes, io::Error>;

/// The line of a request: the fields in its path, its query and its body.
pub(super) async fn line(
    agent: &Agent,
    who: &Who,
    route: &Route,
    mut fields: Map<String, Value>,
    request: Request<Incoming>,
) -> Result<String, Response<Body>> {
    let wrong = |error: crate::error::CliError| failed(&Failure::from(&error));
    let (head, body) = request.into_parts();
    route.read_query(head.uri.query().unwrap_or_default(), &mut fields).map_err(wrong)?;
    if route.has_body() {
        let body = read(agent, who, body).await?;
        let value = route.fields.iter().any(|field| field.kind == Kind::Value);
        let json = head.headers.get(header::CONTENT_TYPE).map_or(!value, is_json);
        match (json, value) {
            (false, true) => {
                fields.insert(BASE64.to_owned(), STANDARD.encode(&body).into());
            }
            (false, false) if !body.is_empty() => {
                let message = "the body is a JSON object: say Content-Type: application/json";
                return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Usage, message));
            }
            _ => route.read_body(&body, &mut fields).map_err(wrong)?,
        }
    }
    route.line(fields).map_err(wrong)
}

fn is_json(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|value| {
        value
            .split(';')
            .next()
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    })
}

/// The body of a request. Few callers at once may send long ones, and only those that may make changes.
async fn read(agent: &Agent, who: &Who, body: Incoming) -> Result<Bytes, Response<Body>> {
    let most = who.request_bytes_max();
    let announced = hyper::body::Body::size_hint(&body);
    let long = announced.upper().is_none_or(|bytes| bytes > SHORT_REQUEST_BYTES as u64);
    let too_long = || {
        let message = format!("a request of this caller may have {most} bytes");
        refused(StatusCode::PAYLOAD_TOO_LARGE, Code::Usage, &message)
    };
    if announced.lower() > most as u64 {
        return Err(too_long());
    }
    let _turn = match long && most > SHORT_REQUEST_BYTES {
        true => agent.long_request().await,
        false => None,
    };
    let time = if long { LONG_REQUEST_TIMEOUT } else { REQUEST_TIMEOUT };
    match timeout(time, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(refused(StatusCode::BAD_REQUEST, Code::Usage, "the body broke off")),
        Err(_) => Err(refused(StatusCode::REQUEST_TIMEOUT, Code::Usage, "no body within the time")),
    }
}

/// Has a request handled as that of any caller, and passes on the answer. `proof`: whether the caller may go on to read
/// a stream.
pub(super) async fn respond(
    agent: &Arc<Agent>,
    link: &Link,
    route: &Route,
    line: String,
    who: Who,
    proof: Proof,
) -> Response<Body> {
    let (near, far) = duplex(PIPE_BYTES);
    let ((from, to), (answers, mut requests)) = (split(near), split(far));
    let (serving, ends) = (Arc::clone(agent), link.ends());
    let mut making = JoinSet::new();
    making.spawn(async move {
        let mut caller = Caller::new(from, to, who);
        if let Err(error) = caller.serve(&serving).await {
            tracing::debug!("a request over HTTP broke off: {error}");
        }
        let (mut to, leaves) = caller.into_parts();
        if leaves {
            ends.end_node();
        }
        let _ = to.shutdown().await;
    });
    // A read request ends with its connection; a change is carried out.
    if route.method != Method::GET {
        making.detach_all();
    }
    // A caller that refuses before it has read everything says why.
    let _ = requests.write_all(line.as_bytes()).await;
    let mut lines = Lines { answers: BufReader::new(answers), _making: making };
    let mut response = match (lines.next().await, route.answer) {
        (Ok(Some(Answer::Error(failure))), _) => failed(&failure),
        (Ok(Some(Answer::Done(done))), Shape::One) => whole(done.get()),
        (Ok(Some(Answer::Done(_))), Shape::List) => whole("[]"),
        (Ok(Some(Answer::Item(first))), Shape::List) => {
            passed_on("application/json", |to| list(lines, first, to))
        }
        (Ok(Some(Answer::Item(first))), Shape::Stream) => {
            // The other end of the pipe is the caller's sign that its reader is still there.
            passed_on("text/event-stream", |to| async move {
                stream(lines, first, to, &proof).await;
                drop(requests);
            })
        }
        _ => {
            refused(StatusCode::INTERNAL_SERVER_ERROR, Code::Failed, "the request was not answered")
        }
    };
    if link.is_ending() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

type Part = Answer<Box<RawValue>, Box<RawValue>>;

/// The lines of an answer.
struct Lines {
    answers: BufReader<ReadHalf<DuplexStream>>,
    /// What makes them; it ends when this is dropped.
    _making: JoinSet<()>,
}

impl Lines {
    /// The next one; `None`: there are no more.
    async fn next(&mut self) -> io::Result<Option<Part>> {
        let mut line = Vec::new();
        (&mut self.answers).take(LINE_BYTES_MAX as u64 * 2).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(None);
        }
        let mut reader = serde_json::Deserializer::from_slice(&line);
        Part::deserialize(&mut reader).map(Some).map_err(io::Error::from)
    }
}

impl Lines {
    /// As [`next`](Self::next), as a future that owns the lines: a part of a line is not lost.
    async fn take(mut self) -> (Self, io::Result<Option<Part>>) {
        let line = self.next().await;
        (self, line)
    }
}

type Chunks = mpsc::Sender<io::Result<Bytes>>;

/// A JSON array. If the answer does not end as it should, the body breaks off.
async fn list(mut lines: Lines, first: Box<RawValue>, to: Chunks) {
    let mut chunk = format!("[{}", first.get());
    loop {
        match lines.next().await {
            Ok(Some(Answer::Item(item))) => {
                chunk.push_str(",\n");
                chunk.push_str(item.get());
                if chunk.len() < CHUNK_BYTES {
                    continue;
                }
                if to.send(Ok(std::mem::take(&mut chunk).into())).await.is_err() {
                    return;
                }
            }
            Ok(Some(Answer::Done(_))) => {
                chunk.push_str("]\n");
                let _ = to.send(Ok(chunk.into())).await;
                return;
            }
            _ => {
                let _ = to.send(Err(io::ErrorKind::BrokenPipe.into())).await;
                return;
            }
        }
    }
}

/// Server-sent events, until the caller may not read them any more.
async fn stream(lines: Lines, first: Box<RawValue>, to: Chunks, proof: &Proof) {
    let event = |item: &RawValue| Bytes::from(format!("data: {}\n\n", item.get()));
    if to.send(Ok(event(&first))).await.is_err() {
        return;
    }
    let mut beat = tokio::time::interval(BEAT);
    beat.reset();
    let mut check = tokio::time::interval(CHECK);
    let mut next = Box::pin(lines.take());
    loop {
        let (lines, line) = tokio::select! {
            biased;
            () = to.closed() => return,
            _ = check.tick() => {
                if proof.holds().await {
                    continue;
                }
                return;
            }
            read = &mut next => read,
            _ = beat.tick() => {
                if to.send(Ok(Bytes::from_static(b": still here\n\n"))).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let chunk = match line {
            Ok(Some(Answer::Item(item))) => event(&item),
            Ok(Some(Answer::Done(_))) => {
                let _ = to.send(Ok(Bytes::from_static(b"event: end\ndata: {}\n\n"))).await;
                return;
            }
            Ok(Some(Answer::Error(failure))) => {
                let error = json!({ "error": failure });
                let _ = to.send(Ok(format!("event: error\ndata: {error}\n\n").into())).await;
                return;
            }
            _ => return,
        };
        if to.send(Ok(chunk)).await.is_err() {
            return;
        }
        next = Box::pin(lines.take());
    }
}

/// A response whose body a task produces; the reader sets the pace.
fn passed_on<F: Future<Output = ()> + Send + 'static>(
    kind: &'static str,
    produce: impl FnOnce(Chunks) -> F,
) -> Response<Body> {
    let (to, from) = mpsc::channel(CHUNKS);
    tokio::spawn(produce(to));
    let mut response = Response::new(Produced(from).boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A body that a task produces.
struct Produced(mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Produced {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

fn whole(json: &str) -> Response<Body> {
    text(StatusCode::OK, "application/json", format!("{json}\n"))
}

/// A response with a text.
pub(super) fn text(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// No body.
pub(super) fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

/// A refusal, in the form of all errors.
pub(super) fn refused(status: StatusCode, code: Code, message: &str) -> Response<Body> {
    let body = json!({ "error": Failure { code, message: message.into() } });
    text(status, "application/json", format!("{body}\n"))
}

/// The status of a failure.
fn failed(failure: &Failure) -> Response<Body> {
    let status = match failure.code {
        Code::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Usage => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::Credentials => StatusCode::CONFLICT,
    };
    text(status, "application/json", format!("{}\n", json!({ "error": failure })))
}

/// Bytes between a request and its caller, each way.
const PIPE_BYTES: usize = 16 << 10;
/// Items of a list go together up to so many bytes.
const CHUNK_BYTES: usize = 16 << 10;
/// Parts of a body that wait for the connection.
const CHUNKS: usize = 2;
/// The reader of a stream proves so often who it is.
const CHECK: Duration = Duration::from_secs(1);
/// A stream says so often that it is still there.
const BEAT: Duration = Duration::from_secs(15);
