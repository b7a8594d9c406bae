//! What `top` shows, read by threads of their own, so that keys work while an agent does not answer.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use super::Cluster;
use crate::{
    admin::{Happening, Request},
    client,
    error::{CliError, Exit},
    remote::Target,
    stopwatch::Stopwatch,
    watch::described,
};

/// The last state and the last events.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) cluster: Cluster,
    /// Newest last, each with the seconds since the view began.
    pub(super) events: VecDeque<(f64, String)>,
    /// Why the agent does not answer; `None`: it does.
    pub(super) problem: Option<String>,
    clock: Stopwatch,
    news: Receiver<News>,
}

/// What a thread has read.
enum News {
    Cluster(Result<Cluster, CliError>),
    Event(String),
}

impl Feed {
    /// Begins to read. The threads end with the process.
    pub(super) fn start(agent: &Target, cluster: Cluster) -> Self {
        let (sender, news) = sync_channel(NEWS_MAX);
        let (of_events, agent_of_events) = (sender.clone(), agent.clone());
        thread::spawn(move || read_events(&agent_of_events, &of_events));
        let agent = agent.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(PERIOD);
                if sender.send(News::Cluster(Cluster::read(&agent))).is_err() {
                    return;
                }
            }
        });
        let (events, clock) = (VecDeque::new(), Stopwatch::start());
        Self { cluster, events, problem: None, clock, news }
    }

    /// Takes what was read meanwhile.
    pub(super) fn take(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Cluster(Ok(cluster)) => (self.cluster, self.problem) = (cluster, None),
                // The last state stays on the screen, below the reason.
                News::Cluster(Err(error)) => self.problem = Some(error.to_string()),
                News::Event(event) => {
                    self.events.push_back((self.clock.seconds(), event));
                    if self.events.len() > EVENTS_MAX {
                        self.events.pop_front();
                    }
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn of(cluster: Cluster, events: &[&str], problem: Option<&str>) -> Self {
        let (_, news) = sync_channel(1);
        let events = events.iter().map(|event| (1.0, (*event).to_owned())).collect();
        let problem = problem.map(str::to_owned);
        Self { cluster, events, problem, clock: Stopwatch::start(), news }
    }
}

/// Reads events, and begins again when the agent is back.
fn read_events(agent: &Target, sender: &SyncSender<News>) {
    loop {
        let request = Request::Events { protocol: false, user: false };
        let read = client::watch(agent, request, |happening: Happening| {
            let Some(event) = described(&happening) else { return Ok(()) };
            // A view that is behind skips events: it shows only the last ones.
            let _ = sender.try_send(News::Event(event));
            Ok(())
        });
        match read {
            // The role does not suffice, for example: that stays so.
            Err(error) if error.exit() == Exit::Usage => {
                let _ = sender.send(News::Event(format!("no events: {error}")));
                return;
            }
            _ => thread::sleep(PERIOD),
        }
    }
}

/// How often the state is read, and how long the feed waits for an agent that is gone.
const PERIOD: Duration = Duration::from_secs(1);
/// Events that are kept.
const EVENTS_MAX: usize = 200;
/// What waits for the view.
const NEWS_MAX: usize = 1_024;
