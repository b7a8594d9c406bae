//! `monitor`: the log at another level than the agent's own, for as long as somebody reads it.
//!
//! Without a reader no event is formatted twice: the layer asks for nothing then. No thread waits for a reader: lines
//! that find no room are dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc::{self, Receiver, Sender},
};
use tracing::{Level, Metadata, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    filter::Targets,
    fmt::MakeWriter,
    layer::{Context, Filter},
};

use super::server::{Agent, Caller};
use crate::{
    admin::{Answer, Nothing},
    error::CliError,
    monitor::LogItem,
};

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Caller<R, W> {
    /// Sends log lines until the node ends or the caller is gone.
    pub(super) async fn monitor(&mut self, agent: &Agent, level: &str) -> io::Result<()> {
        let Ok(level) = level.parse::<Level>() else {
            let refused = "a level is error, warn, info, debug or trace";
            return self.fail(&CliError::usage(refused)).await;
        };
        let Some(_place) = agent.watchers.take(self.client()) else {
            return self.too_many().await;
        };
        let Some(mut reading) = agent.reloader.monitors().read(level) else {
            let message =
                format!("{READERS_MAX} read the log already, the most that may; end one first");
            return self.fail(&CliError::failed(message)).await;
        };
        self.item(&LogItem::Watching).await?;
        self.stand();
        loop {
            let line = tokio::select! {
                Some(line) = reading.lines.recv() => line,
                _ = agent.node.ended() => return self.done().await,
                () = self.gone() => return Ok(()),
            };
            let dropped = reading.reader.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                self.write(&Answer::<_, Nothing>::Item(LogItem::Dropped { lines: dropped }))
                    .await?;
            }
            let line = LogItem::Line { line: line.into() };
            self.write(&Answer::<_, Nothing>::Item(line)).await?;
        }
    }
}

/// The readers of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Monitors(Arc<RwLock<Vec<Arc<Reader>>>>);

/// One of them.
#[derive(Debug)]
struct Reader {
    wanted: Targets,
    most: LevelFilter,
    lines: Sender<String>,
    dropped: AtomicU64,
}

/// A reader's end; dropping it ends the reading.
#[derive(Debug)]
pub(super) struct Reading {
    monitors: Monitors,
    reader: Arc<Reader>,
    lines: Receiver<String>,
}

impl Monitors {
    /// One more reader; `None` if there are as many as may be. The level applies to this program; of its libraries only
    /// warnings are shown, as in the log.
    pub(super) fn read(&self, level: Level) -> Option<Reading> {
        let wanted = Targets::new()
            .with_default(LevelFilter::WARN.min(level.into()))
            .with_target(PROGRAM, level);
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let most = LevelFilter::from(level);
        let reader = Arc::new(Reader { wanted, most, lines: sender, dropped: AtomicU64::new(0) });
        {
            let mut readers = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if readers.len() >= READERS_MAX {
                return None;
            }
            readers.push(Arc::clone(&reader));
        }
        // Events that nobody wanted so far are skipped where they are made.
        tracing::callsite::rebuild_interest_cache();
        Some(Reading { monitors: self.clone(), reader, lines })
    }

    fn readers<T>(&self, look: impl FnOnce(&[Arc<Reader>]) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn wants(&self, meta: &Metadata<'_>) -> bool {
        self.readers(|readers| readers.iter().any(|reader| reader.wants(meta)))
    }
}

impl Reader {
    fn wants(&self, meta: &Metadata<'_>) -> bool {
        self.wanted.would_enable(meta.target(), meta.level())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        {
            let mut readers = self.monitors.0.write().unwrap_or_else(PoisonError::into_inner);
            readers.retain(|reader| !Arc::ptr_eq(reader, &self.reader));
        }
        tracing::callsite::rebuild_interest_cache();
    }
}

/// What the readers want, all together.
impl<S> Filter<S> for Monitors {
    fn enabled(&self, meta: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(meta)
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> Interest {
        if self.wants(meta) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let most = |readers: &[Arc<Reader>]| readers.iter().map(|reader| reader.most).max();
        Some(self.readers(most).unwrap_or(LevelFilter::OFF))
    }
}

/// Gives each line to those that want it.
#[derive(Debug)]
pub(super) struct Line(Vec<Arc<Reader>>);

impl MakeWriter<'_> for Monitors {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(self.readers(<[_]>::to_vec))
    }

    fn make_writer_for(&self, meta: &Metadata<'_>) -> Line {
        let wanting = |reader: &&Arc<Reader>| reader.wants(meta);
        Line(self.readers(|readers| readers.iter().filter(wanting).cloned().collect()))
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches('\n');
        for reader in &self.0 {
            if reader.lines.try_send(text.to_owned()).is_err() {
                reader.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The targets of the program and its library begin with this.
const PROGRAM: &str = "gossipmonger";
/// Lines that wait for one reader.
const LINES_MAX: usize = 1_024;
/// Readers at once: each line is copied for each of them.
const READERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use tracing_subscriber::{fmt, layer::SubscriberExt};

    use super::*;

    fn logging(monitors: &Monitors, log: impl FnOnce()) {
        let lines = fmt::layer().with_ansi(false).with_writer(monitors.clone());
        let lines = tracing_subscriber::Layer::with_filter(lines, monitors.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log);
    }

    fn lines(reading: &mut Reading) -> usize {
        std::iter::from_fn(|| reading.lines.try_recv().ok()).count()
    }

    #[test]
    fn each_reader_gets_its_own_level_and_no_more_than_it_takes() {
        let monitors = Monitors::default();
        let mut warns = monitors.read(Level::WARN).unwrap();
        let mut debugs = monitors.read(Level::DEBUG).unwrap();
        logging(&monitors, || {
            tracing::warn!("one");
            tracing::debug!("two");
            tracing::trace!("three");
            tracing::debug!(target: "quinn", "four");
            tracing::warn!(target: "quinn", "five");
        });
        assert_eq!((lines(&mut warns), lines(&mut debugs)), (2, 3));
        logging(&monitors, || (0..LINES_MAX + 7).for_each(|n| tracing::debug!(n)));
        assert_eq!(debugs.reader.dropped.load(Ordering::Relaxed), 7);
        assert_eq!((lines(&mut warns), lines(&mut debugs)), (0, LINES_MAX));
    }

    #[test]
    fn admits_so_many_readers_and_forgets_those_that_are_gone() {
        let monitors = Monitors::default();
        let all: Vec<_> = (0..READERS_MAX).map(|_| monitors.read(Level::INFO).unwrap()).collect();
        assert!(monitors.read(Level::INFO).is_none());
        drop(all);
        assert_eq!(
            Filter::<tracing_subscriber::Registry>::max_level_hint(&monitors),
            Some(LevelFilter::OFF)
        );
        assert!(monitors.read(Level::INFO).is_some());
    }
}
