//! The program's end of the socket, or of a QUIC connection to another machine. One request for each connection; the
//! program waits for the answer, with a limit.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::Path,
    time::Duration,
};

use gossipmonger::Foreign;
use serde::de::DeserializeOwned;

use super::{
    admin::{Answer, LINE_BYTES_MAX, Line, Nothing, Request, SOCKET, VERSION},
    error::{CliError, Exit},
    remote::{Target, Visit},
};

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
    client.wait_at_most(Some(patience))?;
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
    client.wait_at_most(timeout)?;
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
    Socket(BufReader<UnixStream>),
    Visit(Box<Visit>),
}

impl Client {
    fn connect(agent: &Target) -> Result<Self, CliError> {
        let dir = match agent {
            Target::Here(dir) => dir,
            Target::There(remote) => return Ok(Self::Visit(Box::new(remote.visit()?))),
        };
        let path = dir.join(SOCKET);
        let stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => no_agent(dir),
            _ => CliError::failed(format!("{}: {error}", path.display())),
        })?;
        check_owner(&stream, dir)?;
        Ok(Self::Socket(BufReader::new(stream)))
    }

    fn wait_at_most(&mut self, timeout: Option<Duration>) -> Result<(), CliError> {
        match self {
            Self::Socket(stream) => stream.get_ref().set_read_timeout(timeout)?,
            Self::Visit(visit) => visit.wait_at_most(timeout),
        }
        Ok(())
    }

    fn ask(&mut self, request: Request) -> Result<(), CliError> {
        let line = Line { v: VERSION, request };
        let mut line = serde_json::to_string(&line).map_err(CliError::failed)?;
        line.push('\n');
        let stream = match self {
            Self::Socket(stream) => stream.get_mut(),
            Self::Visit(visit) => {
                visit.write(line.as_bytes());
                return Ok(());
            }
        };
        // An agent that refused before it read everything has sent the reason.
        match stream.write_all(line.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(broken(&error)),
            _ => Ok(()),
        }
    }

    /// The next part of the answer; `None`: the agent on the other machine has ended.
    fn next<I: DeserializeOwned, D: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<Answer<I, D>>, CliError> {
        let Some(line) = self.line()? else { return Ok(None) };
        serde_json::from_slice(&line).map(Some).map_err(|error| {
            let why = Foreign::from(error.to_string()).cut(WORDS_MAX);
            CliError::failed(format!("the agent's answer is not understood: {why}"))
        })
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, CliError> {
        let stream = match self {
            Self::Socket(stream) => stream,
            Self::Visit(visit) => return visit.line(),
        };
        let mut line = Vec::new();
        let mut limited = stream.by_ref().take(LINE_BYTES_MAX as u64);
        limited.read_until(b'\n', &mut line).map_err(|error| broken(&error))?;
        if line.last() != Some(&b'\n') { Err(ended()) } else { Ok(Some(line)) }
    }
}

/// Refuses a socket that another user has put into the directory, since the client trusts the answers.
fn check_owner(stream: &UnixStream, dir: &Path) -> Result<(), CliError> {
    let ours = UnixStream::pair().and_then(|(one, _)| owner(&one))?;
    let (theirs, of_dir) = (owner(stream)?, dir.metadata()?.uid());
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
fn owner(stream: &UnixStream) -> io::Result<u32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    // The clone shares the mode of the socket, so reset it afterwards.
    stream.set_nonblocking(true)?;
    let owner = tokio::net::UnixStream::from_std(stream.try_clone()?)?.peer_cred()?.uid();
    stream.set_nonblocking(false)?;
    Ok(owner)
}

fn ended() -> CliError {
    CliError::new(Exit::NoAgent, "the agent ended before it had answered")
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
fn broken(error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            CliError::failed(format!("the agent has not answered within {ANSWER_TIMEOUT:?}"))
        }
        _ => CliError::new(Exit::NoAgent, format!("the connection to the agent broke: {error}")),
    }
}

/// The time limit for an answer; the agent itself gives up a call after half of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest parse error that is printed, in characters: it quotes the answer.
const WORDS_MAX: usize = 200;
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
        assert_eq!(owner(&one).unwrap(), directory.path().metadata().unwrap().uid());
        check_owner(&one, directory.path()).unwrap();
    }
}
