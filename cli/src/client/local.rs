//! The agent of a directory: HTTP over its Unix socket.

use std::{
    collections::VecDeque,
    io,
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request as Call, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::{runtime::Runtime, time::timeout};

use super::{ANSWER_TIMEOUT, ended, understood};
use crate::{
    admin::{Answer, Failure, LINE_BYTES_MAX, Request, SOCKET},
    api::{self, Made, Shape},
    error::{CliError, Exit},
};

/// A connection to the agent of this machine.
pub(super) struct Local {
    runtime: Runtime,
    stream: Option<UnixStream>,
    answer: Option<Incoming>,
    /// Parts of an answer that have arrived.
    parts: VecDeque<Part>,
    /// The part of an event that has arrived.
    begun: Vec<u8>,
    patience: Option<Duration>,
}

type Part = Answer<Box<RawValue>, Box<RawValue>>;

/// What an agent answers.
enum Answered {
    Whole(StatusCode, Bytes),
    Stream(Incoming),
}

/// A refusal.
#[derive(Deserialize)]
struct Refused {
    error: Failure,
}

impl Local {
    pub(super) fn connect(dir: &Path) -> Result<Self, CliError> {
        let path = dir.join(SOCKET);
        let stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => no_agent(dir),
            _ => CliError::failed(format!("{}: {error}", path.display())),
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        check_owner(&runtime, &stream, dir)?;
        Ok(Self {
            runtime,
            stream: Some(stream),
            answer: None,
            parts: VecDeque::new(),
            begun: Vec::new(),
            patience: None,
        })
    }

    /// Limits the time that a part may take to arrive; `None`: no limit.
    pub(super) const fn wait_at_most(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    /// A page of text.
    pub(super) fn page(&mut self, path: &str) -> Result<Vec<u8>, CliError> {
        let (method, target) = (Method::GET, path.to_owned());
        let made = Made { method, target, body: String::new(), answer: Shape::One };
        match self.exchange(made)? {
            Answered::Whole(StatusCode::OK, body) => Ok(body.to_vec()),
            Answered::Whole(status, _) => {
                Err(CliError::failed(format!("the agent's {path} answers {status}")))
            }
            Answered::Stream(_) => Err(ended()),
        }
    }

    /// Sends the request. An answer that is not a stream is read whole.
    pub(super) fn ask(&mut self, request: Request) -> Result<(), CliError> {
        let made = api::make(request)?;
        let shape = made.answer;
        let (status, body) = match self.exchange(made)? {
            Answered::Stream(answer) => {
                self.answer = Some(answer);
                return Ok(());
            }
            Answered::Whole(status, body) => (status, body),
        };
        if status != StatusCode::OK {
            let Refused { error } = understood(&body)?;
            self.parts.push_back(Answer::Error(error));
        } else if shape == Shape::List {
            let items: Vec<Box<RawValue>> = understood(&body)?;
            self.parts.extend(items.into_iter().map(Answer::Item));
            self.parts.push_back(Answer::Done(nothing()?));
        } else {
            self.parts.push_back(Answer::Done(understood(&body)?));
        }
        Ok(())
    }

    fn exchange(&mut self, made: Made) -> Result<Answered, CliError> {
        let call = Call::builder()
            .method(made.method)
            .uri(made.target)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(made.body)))
            .map_err(CliError::failed)?;
        let stream = self.stream.take().ok_or_else(ended)?;
        let patience = self.patience;
        self.runtime.block_on(async {
            stream.set_nonblocking(true)?;
            let stream = TokioIo::new(tokio::net::UnixStream::from_std(stream)?);
            let (mut sender, connection) = http1::handshake(stream).await.map_err(broken)?;
            tokio::spawn(connection);
            let sending = sender.send_request(call);
            let sent = within(patience.or(Some(ANSWER_TIMEOUT)), sending).await?;
            let answer = sent.map_err(broken)?;
            let status = answer.status();
            if status == StatusCode::OK && made.answer == Shape::Stream {
                return Ok(Answered::Stream(answer.into_body()));
            }
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
            let body = within(patience, body).await?.map_err(unread)?;
            Ok(Answered::Whole(status, body.to_bytes()))
        })
    }

    /// The next part of the answer.
    pub(super) fn next<I: DeserializeOwned, D: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<Answer<I, D>>, CliError> {
        while self.parts.is_empty() {
            self.receive()?;
        }
        let part = self.parts.pop_front();
        part.map(|part| {
            Ok(match part {
                Answer::Item(item) => Answer::Item(understood(item.get().as_bytes())?),
                Answer::Done(done) => Answer::Done(understood(done.get().as_bytes())?),
                Answer::Error(failure) => Answer::Error(failure),
            })
        })
        .transpose()
    }

    /// Waits for more of a stream.
    fn receive(&mut self) -> Result<(), CliError> {
        let Some(answer) = &mut self.answer else { return Err(ended()) };
        let frame = self.runtime.block_on(within(self.patience, answer.frame()))?;
        let frame = frame.ok_or_else(ended)?.map_err(broken)?;
        self.begun.extend(frame.data_ref().map_or(&[][..], |data| data));
        if self.begun.len() > LINE_BYTES_MAX {
            return Err(CliError::failed("the agent's answer is too long"));
        }
        while let Some(end) = self.begun.windows(2).position(|end| end == b"\n\n") {
            let event: Vec<u8> = self.begun.drain(..end + 2).collect();
            self.parts.extend(part(&event)?);
        }
        Ok(())
    }
}

/// The part of an answer that a server-sent event has; `None`: a comment.
fn part(event: &[u8]) -> Result<Option<Part>, CliError> {
    let event = String::from_utf8_lossy(event);
    let (mut kind, mut data) = ("", None);
    for line in event.lines() {
        match line.split_once(": ") {
            Some(("event", name)) => kind = name,
            Some(("data", json)) => data = Some(json),
            _ => {}
        }
    }
    let Some(data) = data else { return Ok(None) };
    Ok(Some(match kind {
        "error" => Answer::Error(understood::<Refused>(data.as_bytes())?.error),
        "end" => Answer::Done(nothing()?),
        _ => Answer::Item(understood(data.as_bytes())?),
    }))
}

fn nothing() -> Result<Box<RawValue>, CliError> {
    RawValue::from_string("{}".to_owned()).map_err(CliError::failed)
}

async fn within<F: Future>(patience: Option<Duration>, future: F) -> Result<F::Output, CliError> {
    match patience {
        None => Ok(future.await),
        Some(patience) => timeout(patience, future).await.map_err(|_| {
            CliError::failed(format!("the agent has not answered within {patience:?}"))
        }),
    }
}

/// Refuses a socket that another user has put into the directory, since the client trusts the answers.
fn check_owner(runtime: &Runtime, stream: &UnixStream, dir: &Path) -> Result<(), CliError> {
    let ours = UnixStream::pair().and_then(|(one, _)| owner(runtime, &one))?;
    let (theirs, of_dir) = (owner(runtime, stream)?, dir.metadata()?.uid());
    if may_answer(ours, theirs, of_dir) {
        return Ok(());
    }
    Err(CliError::failed(format!(
        "the socket in {} belongs to a process of user {theirs}, not to yours; nothing was sent to it: choose the \
         directory of your own agent with --dir",
        dir.display()
    )))
}

/// Whether the client trusts a process of user `theirs`: our own user, root, and for root the owner of the directory.
const fn may_answer(ours: u32, theirs: u32, of_dir: u32) -> bool {
    theirs == ours || theirs == ROOT || (ours == ROOT && theirs == of_dir)
}

/// The user whose process is at the other end.
fn owner(runtime: &Runtime, stream: &UnixStream) -> io::Result<u32> {
    let _entered = runtime.enter();
    // The clone shares the mode of the socket, so reset it afterwards.
    stream.set_nonblocking(true)?;
    let owner = tokio::net::UnixStream::from_std(stream.try_clone()?)?.peer_cred()?.uid();
    stream.set_nonblocking(false)?;
    Ok(owner)
}

fn no_agent(dir: &Path) -> CliError {
    let dir = dir.display();
    CliError::new(
        Exit::NoAgent,
        format!("no agent runs in {dir}: start it with: gossipmonger agent --dir {dir}"),
    )
}

/// Not through `From<io::Error>`: there a broken pipe means that the reader of the output ended, here that the agent
/// did.
fn broken(error: hyper::Error) -> CliError {
    if error.is_parse() {
        return CliError::failed(
            "what answers on the socket speaks no HTTP: an agent of an earlier version, perhaps; ask it with the \
             program that it was started with, or start it again with this one",
        );
    }
    CliError::new(Exit::NoAgent, format!("the connection to the agent broke: {error}"))
}

fn unread(error: Box<dyn std::error::Error + Send + Sync>) -> CliError {
    match error.downcast::<hyper::Error>() {
        Ok(error) => broken(*error),
        Err(_) => CliError::failed("the agent's answer is too long"),
    }
}

/// Longest answer: all keys of a node, for example.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// The user id of root.
const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_the_process_of_another_user() {
        let (us, other, service) = (1000, 1001, 999);
        assert!(!may_answer(us, other, us) && !may_answer(us, other, other));
        assert!(!may_answer(ROOT, other, ROOT) && !may_answer(ROOT, other, service));
        assert!(may_answer(us, us, us) && may_answer(us, ROOT, ROOT));
        assert!(may_answer(ROOT, ROOT, service) && may_answer(ROOT, service, service));
    }

    #[test]
    fn accepts_the_process_of_its_own_user() {
        let directory = tempfile::tempdir().unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(owner(&runtime, &one).unwrap(), directory.path().metadata().unwrap().uid());
        check_owner(&runtime, &one, directory.path()).unwrap();
    }
}
