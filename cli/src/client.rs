//! The program's end of the socket, where it speaks HTTP (`api.rs`), or of a QUIC connection to another machine, which
//! carries lines. One request for each connection; the program waits for the answer, with a limit.

mod local;

use std::{path::Path, time::Duration};

use gossipmonger::Foreign;
use serde::de::DeserializeOwned;

use self::local::Local;
use super::{
    admin::{Answer, Line, Nothing, Request, VERSION},
    error::{CliError, Exit},
    remote::{Target, Visit},
};

/// The page with the metrics of the agent in a directory.
pub(crate) fn metrics(dir: &Path) -> Result<Vec<u8>, CliError> {
    let mut local = Local::connect(dir)?;
    local.wait_at_most(Some(ANSWER_TIMEOUT));
    local.page("/metrics")
}

/// Sends a request that has one answer.
pub(crate) fn call<D: DeserializeOwned>(
    agent: impl Into<Target>,
    request: Request,
) -> Result<D, CliError> {
    call_within(&agent.into(), request, ANSWER_TIMEOUT)
}

/// The same, with a time limit of its own.
pub(crate) fn call_within<D: DeserializeOwned>(
    agent: &Target,
    request: Request,
    patience: Duration,
) -> Result<D, CliError> {
    let mut client = Client::connect(agent)?;
    client.wait_at_most(Some(patience));
    client.ask(request)?;
    match client.next::<Nothing, D>()? {
        Some(Answer::Done(done)) => Ok(done),
        Some(Answer::Item(_)) => {
            Err(CliError::failed("the agent answered with more than was asked for"))
        }
        Some(Answer::Error(failure)) => Err(failure.into()),
        None => Err(ended()),
    }
}

/// Sends a request whose answer is a list of the present items.
pub(crate) fn list<I: DeserializeOwned>(
    agent: impl Into<Target>,
    request: Request,
) -> Result<Vec<I>, CliError> {
    list_within(&agent.into(), request, ANSWER_TIMEOUT)
}

/// The same; each item may take this long.
pub(crate) fn list_within<I: DeserializeOwned>(
    agent: &Target,
    request: Request,
    patience: Duration,
) -> Result<Vec<I>, CliError> {
    let mut items = Vec::new();
    let take = |item| {
        items.push(item);
        Ok(())
    };
    match stream(agent, request, Some(patience), take)? {
        End::Done => Ok(items),
        End::Broken => Err(ended()),
    }
}

/// Passes on the items of an answer until it ends.
pub(crate) fn watch<I: DeserializeOwned>(
    agent: impl Into<Target>,
    request: Request,
    take: impl FnMut(I) -> Result<(), CliError>,
) -> Result<(), CliError> {
    stream(&agent.into(), request, None, take).map(drop)
}

/// How an answer has ended.
enum End {
    /// The answer is complete.
    Done,
    /// The agent on the other machine has ended, and its answer with it.
    Broken,
}

fn stream<I: DeserializeOwned>(
    agent: &Target,
    request: Request,
    timeout: Option<Duration>,
    mut take: impl FnMut(I) -> Result<(), CliError>,
) -> Result<End, CliError> {
    let mut client = Client::connect(agent)?;
    client.wait_at_most(timeout);
    client.ask(request)?;
    loop {
        match client.next::<I, Nothing>()? {
            Some(Answer::Item(item)) => take(item)?,
            Some(Answer::Done(_)) => return Ok(End::Done),
            Some(Answer::Error(failure)) => return Err(failure.into()),
            None => return Ok(End::Broken),
        }
    }
}

enum Client {
    Local(Box<Local>),
    Visit(Box<Visit>),
}

impl Client {
    fn connect(agent: &Target) -> Result<Self, CliError> {
        match agent {
            Target::Here(dir) => Ok(Self::Local(Box::new(Local::connect(dir)?))),
            Target::There(remote) => Ok(Self::Visit(Box::new(remote.visit()?))),
        }
    }

    fn wait_at_most(&mut self, timeout: Option<Duration>) {
        match self {
            Self::Local(local) => local.wait_at_most(timeout),
            Self::Visit(visit) => visit.wait_at_most(timeout),
        }
    }

    fn ask(&mut self, request: Request) -> Result<(), CliError> {
        let visit = match self {
            Self::Local(local) => return local.ask(request),
            Self::Visit(visit) => visit,
        };
        let line = Line { v: VERSION, request };
        let mut line = serde_json::to_string(&line).map_err(CliError::failed)?;
        line.push('\n');
        visit.write(line.as_bytes());
        Ok(())
    }

    /// The next part of the answer; `None`: the agent on the other machine has ended.
    fn next<I: DeserializeOwned, D: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<Answer<I, D>>, CliError> {
        match self {
            Self::Local(local) => local.next(),
            Self::Visit(visit) => visit.line()?.map(|line| understood(&line)).transpose(),
        }
    }
}

/// A part of an answer.
fn understood<T: DeserializeOwned>(part: &[u8]) -> Result<T, CliError> {
    serde_json::from_slice(part).map_err(|error| {
        let why = Foreign::from(error.to_string()).cut(WORDS_MAX);
        CliError::failed(format!("the agent's answer is not understood: {why}"))
    })
}

fn ended() -> CliError {
    CliError::new(Exit::NoAgent, "the agent ended before it had answered")
}

/// The time limit for an answer; the agent itself gives up a call after half of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest parse error that is printed, in characters: it quotes the answer.
const WORDS_MAX: usize = 200;
