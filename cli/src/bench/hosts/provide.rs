//! `bench provide`: a member that offers the service, and counts what it does.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use gossipmonger::{
    Gossipmonger,
    service::{Access, Offer, stream::ItemSender},
};
use serde_json::json;

use super::{
    idle::{self, IDLE_MAX},
    service::{BYTES_MAX, Bulk, Echo, Measured, Once, Piece, Told},
};
use crate::{
    agent::Flags,
    bench::{Report, faults::Faults, in_range},
    error::CliError,
};

/// A member that answers the calls of `bench drive`: run it as you run `agent`, until SIGTERM. Then it prints what it
/// has done.
#[derive(Debug, clap::Args)]
pub(crate) struct Provide {
    #[command(flatten)]
    flags: Flags,
    /// Services that it offers besides, which nobody calls: at most 20.
    #[arg(long, default_value_t = 0, value_name = "N")]
    idle_services: usize,
    /// Do not offer the service that `bench drive` calls.
    #[arg(long)]
    no_echo: bool,
    /// File to which the number of each call that must not run twice is appended before the call is answered, a line
    /// each: what ran is known even after a kill -9.
    #[arg(long, value_name = "FILE")]
    ran: Option<PathBuf>,
}

/// What is offered.
#[derive(Debug)]
pub(super) struct Offers {
    idle_services: usize,
    echo: bool,
    done: Arc<Done>,
}

impl Provide {
    /// Checks the arguments, and opens the file.
    pub(super) fn prepare(self) -> Result<(Flags, Offers), CliError> {
        in_range("idle-services", self.idle_services, 0, IDLE_MAX)?;
        let ran = self.ran.map(|path| {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.map(Mutex::new).map_err(|error| {
                CliError::usage(format!("--ran {} cannot be written: {error}", path.display()))
            })
        });
        let done = Arc::new(Done { ran: ran.transpose()?, ..Done::default() });
        let offers = Offers { idle_services: self.idle_services, echo: !self.no_echo, done };
        Ok((self.flags, offers))
    }
}

impl Offers {
    /// Offers all of it until the node has ended.
    pub(super) async fn run(self, node: &Gossipmonger) -> Result<Report, CliError> {
        let _idle = idle::offer(node, self.idle_services).await?;
        let _offer = if self.echo { Some(offer(node, &self.done).await?) } else { None };
        node.ended().await;
        let mut out = Report::new();
        out.insert("scenario".into(), "provide".into());
        out.insert("node".into(), node.node().to_string().into());
        out.insert("idle_services".into(), self.idle_services.into());
        self.done.report(&mut out);
        Ok(out)
    }
}

async fn offer(node: &Gossipmonger, done: &Arc<Done>) -> Result<Offer, CliError> {
    let [echoes, onces, told, bulk] = [(); 4].map(|()| Arc::clone(done));
    let builder = node.offer::<Measured>(Access::members());
    let builder = builder.call(move |Echo(body), _| {
        echoes.echoes.fetch_add(1, Ordering::Relaxed);
        async move { body }
    });
    let builder = builder.call(move |once: Once, _| {
        let times = onces.once(&once);
        async move { times }
    });
    let builder = builder.cast(move |_: Told, _| {
        told.casts.fetch_add(1, Ordering::Relaxed);
        async {}
    });
    let builder = builder.stream(move |ask: Bulk, mut items: ItemSender<Bulk>, _| {
        let done = Arc::clone(&bulk);
        async move {
            let piece = Piece(".".repeat((ask.bytes as usize).min(BYTES_MAX)));
            for _ in 0..ask.pieces {
                items.send(&piece).await?;
                done.pieces.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
    });
    builder.start().await.map_err(CliError::failed)
}

/// What this node has done.
#[derive(Debug, Default)]
struct Done {
    echoes: AtomicU64,
    casts: AtomicU64,
    pieces: AtomicU64,
    onces: Mutex<Onces>,
    ran: Option<Mutex<File>>,
}

/// Calls that must not run twice.
#[derive(Debug, Default)]
struct Onces {
    ran: u64,
    /// How often each number has run.
    times: HashMap<u64, u32>,
    /// Calls whose numbers did not fit in.
    unnumbered: u64,
    /// Numbers that could not be written to the file.
    unwritten: u64,
}

impl Done {
    /// Returns how often this number has run.
    fn once(&self, once: &Once) -> u32 {
        let written = self.ran.as_ref().is_none_or(|file| {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(format!("{:016x}\n", once.number).as_bytes()).is_ok()
        });
        let mut onces = self.onces.lock().unwrap_or_else(PoisonError::into_inner);
        onces.ran += 1;
        onces.unwritten += u64::from(!written);
        if onces.times.len() >= NUMBERS_MAX && !onces.times.contains_key(&once.number) {
            onces.unnumbered += 1;
            return 1;
        }
        let times = onces.times.entry(once.number).or_default();
        *times += 1;
        *times
    }

    fn report(&self, out: &mut Report) {
        let onces = self.onces.lock().unwrap_or_else(PoisonError::into_inner);
        out.insert("echoes".into(), self.echoes.load(Ordering::Relaxed).into());
        out.insert("casts".into(), self.casts.load(Ordering::Relaxed).into());
        out.insert("pieces".into(), self.pieces.load(Ordering::Relaxed).into());
        out.insert("once_ran".into(), onces.ran.into());
        let twice = onces.times.values().filter(|times| **times > 1).count();
        out.insert("once_ran_twice".into(), json!(twice));
        let mut faults = Faults::default();
        faults.require(onces.unnumbered == 0, || {
            format!(
                "{} calls had numbers that were not kept: only {NUMBERS_MAX} are; measure for a shorter time",
                onces.unnumbered
            )
        });
        faults.require(onces.unwritten == 0, || {
            format!("{} numbers could not be written to --ran; is the disk full?", onces.unwritten)
        });
        faults.judge(out, &["once_ran_twice"]);
    }
}

/// How many numbers are remembered.
const NUMBERS_MAX: usize = 4_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_ran_twice_is_counted() {
        let done = Done::default();
        let run = |number| done.once(&Once { number, body: String::new() });
        assert_eq!([run(1), run(2), run(1), run(3)], [1, 1, 2, 1]);
        let mut out = Report::new();
        done.report(&mut out);
        assert_eq!((&out["once_ran"], &out["once_ran_twice"]), (&json!(4), &json!(1)), "{out:?}");
    }

    #[test]
    fn numbers_that_cannot_be_written_void_the_result() {
        let file = File::open("/dev/null").unwrap();
        let done = Done { ran: Some(Mutex::new(file)), ..Done::default() };
        done.once(&Once { number: 1, body: String::new() });
        let mut out = Report::new();
        done.report(&mut out);
        assert!(Faults::check(&out).is_err(), "{out:?}");
    }
}
