//! The program's side of the socket. One request a connection; it waits, but not for ever.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::{
    admin::{Answer, LINE_BYTES_MAX, Line, Nothing, Request, SOCKET, VERSION},
    error::{CliError, Exit},
};

/// Asks the agent in `dir` for one thing.
pub(crate) fn call<D: DeserializeOwned>(dir: &Path, request: Request) -> Result<D, CliError> {
    let mut client = Client::connect(dir)?;
    client.stream.get_ref().set_read_timeout(Some(ANSWER_TIMEOUT))?;
    client.ask(request)?;
    match client.next::<Nothing, D>()? {
        Answer::Done(done) => Ok(done),
        Answer::Item(_) => Err(CliError::failed("the agent answered with more than was asked for")),
        Answer::Error(failure) => Err(failure.into()),
    }
}

/// Asks the agent in `dir` for many things, all that there are at the moment.
pub(crate) fn list<I: DeserializeOwned>(dir: &Path, request: Request) -> Result<Vec<I>, CliError> {
    let mut items = Vec::new();
    stream(dir, request, Some(ANSWER_TIMEOUT), |item| {
        items.push(item);
        Ok(())
    })?;
    Ok(items)
}

/// Hands over what the agent in `dir` tells, until it ends.
pub(crate) fn watch<I: DeserializeOwned>(
    dir: &Path,
    request: Request,
    take: impl FnMut(I) -> Result<(), CliError>,
) -> Result<(), CliError> {
    stream(dir, request, None, take)
}

fn stream<I: DeserializeOwned>(
    dir: &Path,
    request: Request,
    timeout: Option<Duration>,
    mut take: impl FnMut(I) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut client = Client::connect(dir)?;
    client.stream.get_ref().set_read_timeout(timeout)?;
    client.ask(request)?;
    loop {
        match client.next::<I, Nothing>()? {
            Answer::Item(item) => take(item)?,
            Answer::Done(_) => return Ok(()),
            Answer::Error(failure) => return Err(failure.into()),
        }
    }
}

struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    fn connect(dir: &Path) -> Result<Self, CliError> {
        let path = dir.join(SOCKET);
        let stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => no_agent(dir),
            _ => CliError::failed(format!("{}: {error}", path.display())),
        })?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    fn ask(&mut self, request: Request) -> Result<(), CliError> {
        let line = Line { v: VERSION, request };
        let mut line = serde_json::to_string(&line).map_err(CliError::failed)?;
        line.push('\n');
        // An agent that has refused without reading all of it has said why.
        match self.stream.get_mut().write_all(line.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(broken(&error)),
            _ => Ok(()),
        }
    }

    fn next<I: DeserializeOwned, D: DeserializeOwned>(&mut self) -> Result<Answer<I, D>, CliError> {
        let mut line = Vec::new();
        let mut limited = self.stream.by_ref().take(LINE_BYTES_MAX as u64);
        limited.read_until(b'\n', &mut line).map_err(|error| broken(&error))?;
        if line.last() != Some(&b'\n') {
            return Err(CliError::new(Exit::NoAgent, "the agent ended before it had answered"));
        }
        serde_json::from_slice(&line).map_err(|error| {
            CliError::failed(format!("the agent's answer is not understood: {error}"))
        })
    }
}

fn no_agent(dir: &Path) -> CliError {
    let dir = dir.display();
    CliError::new(
        Exit::NoAgent,
        format!("no agent runs in {dir}: start it with: gossipmonger agent --dir {dir}"),
    )
}

/// Not through `From<io::Error>`: a broken pipe is the reader's end there, the agent's here.
fn broken(error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            CliError::failed(format!("the agent has not answered within {ANSWER_TIMEOUT:?}"))
        }
        _ => CliError::new(Exit::NoAgent, format!("the connection to the agent broke: {error}")),
    }
}

/// How long an answer may take; the agent itself gives up a call after half of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
