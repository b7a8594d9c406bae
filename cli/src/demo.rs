//! `gossipmonger demo`: a whole cluster on loopback, to look at.
//!
//! The nodes are real: QUIC endpoints with certificates of a CA that exists only in memory. One node is killed and
//! comes back during the demo. The view shows what the nodes themselves report, by their events and snapshots; the
//! verdict at the end uses nothing else.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use self::{
    play::{Play, Progress},
    screen::Screen,
    stage::LOCAL_MAX,
};
use super::{
    error::{CliError, Exit},
    output,
    terminal::is_interactive,
};

mod account;
mod calls;
mod log;
mod plain;
mod play;
mod screen;
mod stage;

/// The arguments of `demo`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// How many nodes to start.
    #[arg(long, default_value_t = 5, value_name = "N")]
    nodes: usize,
    /// How many datacenters to spread them over.
    #[arg(long, default_value_t = 2, value_name = "N")]
    datacenters: usize,
    /// How long it takes; the node is killed after one third and comes back after two.
    #[arg(long, default_value_t = 30, value_name = "S")]
    seconds: u64,
    /// Print a line per event instead of the live view; so it does without a terminal, too.
    #[arg(long)]
    plain: bool,
    /// Choose victim, keys and values by this number, so that they are the same again.
    #[arg(long, value_name = "NUMBER")]
    random_seed: Option<u64>,
}

/// Runs the demo.
///
/// # Errors
/// Exit 1 with what was missing, 2 for invalid arguments, 130 after Ctrl-C or SIGTERM.
pub(crate) fn run(args: Args) -> Result<(), CliError> {
    args.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let verdict = runtime.block_on(perform(args));
    // A node that still runs has no peer to inform.
    runtime.shutdown_background();
    verdict
}

impl Args {
    fn check(&self) -> Result<(), CliError> {
        within("nodes", self.nodes as u64, 2, NODES_MAX as u64, "")?;
        within(
            "datacenters",
            self.datacenters as u64,
            1,
            self.nodes as u64,
            "one node each at least",
        )?;
        let death = if self.nodes > LOCAL_MAX { SECONDS_MIN_MANY } else { SECONDS_MIN };
        let least = death + self.nodes as u64 / NODES_PER_SECOND;
        within("seconds", self.seconds, least, SECONDS_MAX, "a death has to be noticed on the way")
    }
}

fn within(name: &str, value: u64, least: u64, most: u64, why: &str) -> Result<(), CliError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    Err(CliError::usage(format!("--{name} {value} is refused: {least} to {most} is allowed{why}")))
}

async fn perform(args: Args) -> Result<(), CliError> {
    let mut view = View::open(args.plain)?;
    let mut play = Play::begin(&args)?;
    let ran = watch(&mut play, &mut view).await;
    drop(view);
    let end = ran?;
    play.end().await;
    play.account().print(play.elapsed(), end != End::Played)?;
    let after = play.elapsed().as_secs_f64();
    match end {
        End::Played => {}
        End::Quit => return output::line(&format!("ended by hand after {after:.0} s")),
        End::Signal => {
            let message = format!("cut short after {after:.0} s, before the verdict");
            return Err(CliError::new(Exit::Interrupted, message));
        }
    }
    match play.verdict() {
        [] => Ok(()),
        missing => Err(CliError::failed(format!("the demo failed: {}", missing.join("; ")))),
    }
}

/// How the demo ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It ran to its end.
    Played,
    /// `q` or Esc: the keys that the screen names.
    Quit,
    /// Ctrl-C or SIGTERM.
    Signal,
}

/// Runs the demo to its end, or until the user ends it.
async fn watch(play: &mut Play, view: &mut View) -> Result<End, CliError> {
    let (mut interrupt, mut terminate) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = play.listen() => {}
            _ = ticks.tick() => {
                if play.step().await? == Progress::Done {
                    view.show(play)?;
                    return Ok(End::Played);
                }
            }
            _ = interrupt.recv() => return Ok(End::Signal),
            _ = terminate.recv() => return Ok(End::Signal),
        }
        view.show(play)?;
        if let Some(end) = view.wants_to_end()? {
            return Ok(end);
        }
    }
}

fn listen(kind: SignalKind) -> io::Result<Signal> {
    signal(kind)
}

/// The form of the view.
#[derive(Debug)]
enum View {
    Plain,
    Screen(Screen),
}

impl View {
    fn open(plain: bool) -> io::Result<Self> {
        if plain || !is_interactive() {
            return Ok(Self::Plain);
        }
        Screen::open().map(Self::Screen)
    }

    fn show(&mut self, play: &mut Play) -> io::Result<()> {
        match self {
            Self::Plain => plain::show(play),
            Self::Screen(screen) => screen.show(play),
        }
    }

    fn wants_to_end(&self) -> io::Result<Option<End>> {
        match self {
            Self::Plain => Ok(None),
            Self::Screen(screen) => screen.wants_to_end(),
        }
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0    all nodes converged, the death and the return were seen by all, and no call has failed at a node
       that was not killed; or ended by q or Esc
  1    they were not; the last line says what was missing
  2    the command line is wrong
  130  cut short by Ctrl-C or SIGTERM, before the verdict";

/// Each node has a connection to every other: 64 nodes have 2,016 connections.
const NODES_MAX: usize = 64;
/// A third of it must suffice to detect a death, which takes about a second.
const SECONDS_MIN: u64 = 6;
/// And about four seconds if many nodes gossip once a second.
const SECONDS_MIN_MANY: u64 = 15;
/// This many more handshakes take a second more.
const NODES_PER_SECOND: u64 = 4;
const SECONDS_MAX: u64 = 86_400;
/// How often the view is drawn and the demo advances.
const TICK: Duration = Duration::from_millis(100);
