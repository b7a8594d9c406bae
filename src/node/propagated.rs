//! Waits until a write has reached enough nodes.

use std::time::Duration;

use tokio::sync::oneshot;

use super::Gossipmonger;
use crate::{
    node::{
        error::Error,
        messages::StorageMessage,
        propagation::{Audience, Propagation},
        snapshot::Member,
    },
    protocol::{id::Version, state::PeerState, wave::Census},
};

impl Gossipmonger {
    /// Waits until this many nodes have a version of this node's own map, as `set` returned it, and
    /// all versions before it. It asks the whole cluster repeatedly until then: one message each way
    /// on every link.
    ///
    /// # Errors
    /// [`Error::NotPropagated`] reports, at the timeout, how many nodes the write has reached; it
    /// goes on spreading. [`Error::Stopped`] if the node has ended.
    pub async fn await_propagated(
        &self,
        version: Version,
        audience: Audience,
        timeout: Duration,
    ) -> Result<Propagation, Error> {
        self.unless_ended(self.ask_until(version, audience, timeout)).await
    }

    async fn ask_until(
        &self,
        version: Version,
        audience: Audience,
        timeout: Duration,
    ) -> Result<Propagation, Error> {
        let clock = self.shared.clock;
        let deadline = clock.now() + timeout;
        let mut pause = PAUSE_MIN;
        let mut last = Propagation { have: 1, ..Propagation::default() };
        loop {
            let left = deadline.since(clock.now());
            if left.is_zero() {
                return Err(Error::NotPropagated { version, within: timeout, reached: last });
            }
            last = self.propagation(version, left.min(WAVE_TIMEOUT)).await?;
            if self.is_enough(&last, audience) {
                return Ok(last);
            }
            tokio::time::sleep(pause.min(deadline.since(clock.now()))).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The nodes that do not have a version of this node's own map yet.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the node has ended.
    pub async fn peers_behind(&self, version: Version) -> Result<Propagation, Error> {
        self.unless_ended(self.propagation(version, WAVE_TIMEOUT)).await
    }

    async fn propagation(
        &self,
        version: Version,
        patience: Duration,
    ) -> Result<Propagation, Error> {
        let (reply, answer) = oneshot::channel();
        let stopped = || Error::Stopped { reason: self.problem() };
        let storage = self.shared.routes.storage.current().ok_or_else(stopped)?;
        if storage.cast(StorageMessage::Count(version, patience, reply)).is_err() {
            return Err(stopped());
        }
        // The actor may restart meanwhile: then no answer arrives.
        let census = tokio::time::timeout(patience + PAUSE_MAX, answer).await;
        let Census { have, lack, behind, complete } =
            census.ok().and_then(Result::ok).unwrap_or_default();
        let live = self.snapshot().live().count();
        // Some of the nodes that answered may be unknown here: they must not replace one that did not.
        let unreached = live.saturating_sub(have + lack).max(usize::from(!complete));
        Ok(Propagation { have, behind: lack, names: behind, unreached })
    }

    fn is_enough(&self, reached: &Propagation, audience: Audience) -> bool {
        match audience {
            Audience::All => reached.behind == 0 && reached.unreached == 0 && reached.have > 0,
            Audience::Quorum => reached.have > self.snapshot().members().filter(stays).count() / 2,
            Audience::AtLeast(nodes) => reached.have >= nodes,
        }
    }
}

fn stays(member: &Member) -> bool {
    member.state != PeerState::Left
}

/// How long one wave may take.
const WAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two waves.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);
