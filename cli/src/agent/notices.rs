//! Events and queries of operators, as this agent receives them. Nothing is executed and nothing is stored: they are
//! passed to the clients that run `events --user` at that moment.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
};

use gossipmonger::{Foreign, protocol::id::NodeId};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::broadcast::{self, error::RecvError},
};

use super::{
    peers::{self, Silent},
    server::{Agent, Caller},
};
use crate::{
    admin::{Answer, Bytes, Happening, Nothing},
    clock::Clock,
    error::CliError,
    notices::{NoticeView, check},
};

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Caller<R, W> {
    /// Tells all agents, or asks them.
    pub(super) async fn notify(
        &mut self,
        agent: &Agent,
        name: String,
        value: Bytes,
        query: bool,
    ) -> io::Result<()> {
        let notice = value.into_bytes().and_then(|payload| {
            check(&name, &payload).map_err(CliError::usage)?;
            Ok(peers::Notice { name, payload, query })
        });
        let notice = match notice {
            Ok(notice) => notice,
            Err(error) => return self.fail(&error).await,
        };
        let gathered = match agent.gathering(self.client()).await {
            Ok(_turn) => peers::gather(&agent.node, &notice).await,
            Err(error) => return self.fail(&error).await,
        };
        for (member, taken) in gathered {
            let (asked, taken) = match taken {
                Ok(taken) => (true, taken),
                Err(Silent { asked, why }) => (asked, Err(why)),
            };
            let (readers, tag, problem) = match taken {
                Ok(taken) => (Some(taken.readers), taken.tag.map(Foreign::from), None),
                Err(problem) => (None, None, Some(problem.into())),
            };
            let (node, datacenter) = (member.node, member.datacenter);
            self.item(&NoticeView { node, datacenter, asked, readers, tag, problem }).await?;
        }
        self.done().await
    }

    /// Sends events and queries of operators, until the node ends or the caller is gone.
    pub(super) async fn user_events(&mut self, agent: &Agent) -> io::Result<()> {
        let Some(_place) = agent.watchers.take(self.client()) else {
            return self.too_many().await;
        };
        let mut notices = agent.notices.subscribe();
        self.item(&Happening::Watching).await?;
        self.stand();
        loop {
            let happening = tokio::select! {
                notice = notices.recv() => match notice {
                    Ok(notice) => notice.into(),
                    Err(RecvError::Lagged(missed)) => Happening::Lagged { missed },
                    Err(RecvError::Closed) => return self.done().await,
                },
                _ = agent.node.ended() => return self.done().await,
                () = self.gone() => return Ok(()),
            };
            self.write(&Answer::<_, Nothing>::Item(happening)).await?;
        }
    }
}

/// The notices of this agent.
#[derive(Debug)]
pub(super) struct Notices {
    readers: broadcast::Sender<Notice>,
    /// The present second, and the notices of each node in it.
    second: Mutex<(u64, BTreeMap<NodeId, u32>)>,
    clock: Clock,
}

/// An event or a query.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    pub(super) from: NodeId,
    pub(super) name: String,
    pub(super) payload: Vec<u8>,
    /// It wants an answer, which the agent gives.
    pub(super) query: bool,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            readers: broadcast::Sender::new(QUEUE),
            second: Mutex::default(),
            clock: Clock::start(),
        }
    }
}

impl Notices {
    /// Passes a notice to the readers; returns how many there are.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn take(&self, notice: Notice) -> Result<u32, String> {
        check(&notice.name, &notice.payload)?;
        self.admit(&notice.from)?;
        Ok(u32::try_from(self.readers.send(notice).unwrap_or(0)).unwrap_or(u32::MAX))
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.readers.subscribe()
    }

    fn admit(&self, from: &NodeId) -> Result<(), String> {
        let now = self.clock.now().since_origin().as_secs();
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if second.0 != now {
            *second = (now, BTreeMap::new());
        }
        let all: u32 = second.1.values().sum();
        let of_node = second.1.entry(from.clone()).or_default();
        if *of_node >= PER_NODE_MAX || all >= PER_SECOND_MAX {
            return Err(format!(
                "too many: an agent takes {PER_NODE_MAX} events and queries of one node in a second, \
                 {PER_SECOND_MAX} of all"
            ));
        }
        *of_node += 1;
        Ok(())
    }
}

impl From<Notice> for Happening {
    fn from(notice: Notice) -> Self {
        let Notice { from, name, payload, query } = notice;
        let (name, value) = (name.into(), Bytes::of(&payload));
        match query {
            true => Self::UserQuery { from, name, value },
            false => Self::UserEvent { from, name, value },
        }
    }
}

/// Notices that wait for one reader; a slower one misses some, and is told how many.
const QUEUE: usize = 256;
/// Notices of one node, and of all, that an agent takes in one second.
const PER_NODE_MAX: u32 = 20;
const PER_SECOND_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(from: &str) -> Notice {
        let from = NodeId::new(from).unwrap();
        Notice { from, name: "deploy".to_owned(), payload: Vec::new(), query: false }
    }

    #[test]
    fn refuses_what_is_too_much_and_counts_each_node_apart() {
        let notices = Notices::default();
        let name = Notice { name: "a b".to_owned(), ..notice("a") };
        assert!(notices.take(name).unwrap_err().contains("name"));
        let payload = Notice { payload: vec![0; 4_097], ..notice("a") };
        assert!(notices.take(payload).unwrap_err().contains("4096"));
        // A second may begin meanwhile, so there are more than twice as many.
        let taken = (0..50).filter(|_| notices.take(notice("a")).is_ok()).count();
        assert!((20..=40).contains(&taken), "{taken}");
        assert_eq!(notices.take(notice("b")), Ok(0));
    }

    #[test]
    fn says_how_many_read_it() {
        let notices = Notices::default();
        let mut reader = notices.subscribe();
        assert_eq!(notices.take(notice("a")), Ok(1));
        assert_eq!(reader.try_recv().unwrap().name, "deploy");
    }
}
