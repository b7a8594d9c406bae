//! The caller's end of a connection for calls.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
};

use super::{
    expiry::{EXPIRED, expired},
    lane::WRITE_BYTES,
    pace::Abroad,
    room::Rooms,
};
use crate::{
    ambient::Ambient,
    clock::Clock,
    net::{Connection, Ended, ReceiveStream, SendStream, Stream},
    node::links::closing::close_with,
    protocol::{
        close::Close,
        id::{Generation, NodeId},
        service::{
            ServiceId,
            calls::{Calls, LaneLimits, NeverAsked, NoRoom, Outcome},
            frame::{Frame, Frames},
            identity::Question,
            introduction::Purpose,
            link_end::LinkEnd,
        },
        time::Time,
    },
    slot::Slot,
};

/// Bytes read from a lane at once.
const READ_BYTES: usize = 64 << 10;

/// What a caller waits with.
pub(crate) type Waiter = oneshot::Sender<Outcome>;

/// The caller's end of a connection for calls to one node in one generation. Calls can be queued before it is open.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: NodeId,
    pub(crate) purpose: Purpose,
    pub(crate) generation: Generation,
    /// Room for the long answers of the node.
    pub(super) rooms: Rooms,
    pub(super) abroad: Arc<Abroad>,
    pub(super) clock: Clock,
    ambient: Ambient,
    calls: Mutex<State>,
    /// The node has admitted this one.
    pub(super) welcome: Slot<()>,
    /// Something waits to be sent.
    waits: Notify,
    /// A deadline is earlier than those before.
    earlier: Notify,
    /// Something was sent, or a call has ended: there may be room.
    pub(crate) room: Notify,
    connection: OnceLock<Arc<dyn Connection>>,
    why: OnceLock<LinkEnd>,
    /// The reason is there.
    over: Slot<()>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) calls: Calls<Waiter>,
    /// Streams that are open, or are opened.
    pub(super) streams: usize,
    /// When it was used last.
    pub(super) used: Time,
}

/// A call under way. Dropping it cancels the call.
#[derive(Debug)]
pub(crate) struct InFlight {
    link: Arc<Link>,
    id: u64,
    answer: oneshot::Receiver<Outcome>,
    done: bool,
}

impl Link {
    pub(crate) fn new(
        (peer, purpose, generation): (NodeId, Purpose, Generation),
        limits: LaneLimits,
        (rooms, abroad): (Rooms, Arc<Abroad>),
        (clock, ambient): (Clock, Ambient),
    ) -> Self {
        let state = State { calls: Calls::new(limits), streams: 0, used: clock.now() };
        Self {
            peer,
            purpose,
            generation,
            rooms,
            abroad,
            clock,
            ambient,
            calls: Mutex::new(state),
            welcome: Slot::default(),
            waits: Notify::new(),
            earlier: Notify::new(),
            room: Notify::new(),
            connection: OnceLock::new(),
            why: OnceLock::new(),
            over: Slot::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Code under the lock does not panic half way.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a call.
    pub(crate) fn call(
        self: &Arc<Self>,
        service: &ServiceId,
        question: Question,
        now: Time,
        deadline: Time,
    ) -> Result<InFlight, NoRoom> {
        let (waiter, answer) = oneshot::channel();
        let mut state = self.lock();
        let before = state.calls.wake();
        let queued = state.calls.call(service, question, deadline, waiter);
        state.used = now;
        drop(state);
        let id = queued.map_err(|(full, _)| full)?;
        self.waits.notify_one();
        if before.is_none_or(|before| deadline < before) {
            self.earlier.notify_one();
        }
        Ok(InFlight { link: Arc::clone(self), id, answer, done: false })
    }

    /// Queues a message without an answer.
    pub(crate) fn cast(
        &self,
        service: &ServiceId,
        message: Question,
        now: Time,
    ) -> Result<(), NoRoom> {
        let mut state = self.lock();
        state.used = now;
        state.calls.cast(service, message)?;
        drop(state);
        self.waits.notify_one();
        Ok(())
    }

    /// Ends it, and all calls with it. The first reason counts. The task of the connection closes it.
    pub(crate) fn end(&self, why: LinkEnd) {
        let _ = self.why.set(why);
        let mut done = Vec::new();
        self.lock().calls.end(&mut done);
        settle(done);
        self.room.notify_waiters();
        self.over.set(());
    }

    /// Why it has ended.
    pub(crate) fn why(&self) -> LinkEnd {
        self.why.get().cloned().unwrap_or(LinkEnd::Stopped)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.why.get().is_some()
    }

    /// Whether the node has admitted this one.
    pub(crate) fn is_admitted(&self) -> bool {
        self.welcome.is_set()
    }

    /// The bytes that wait to be sent.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.lock().calls.waiting_bytes()
    }

    /// When it was used last, if nothing is under way.
    pub(super) fn idle_since(&self) -> Option<Time> {
        let state = self.lock();
        state.is_unused().then_some(state.used)
    }

    /// Waits until the node has admitted this one, or the link has ended.
    pub(crate) async fn welcomed(&self) {
        tokio::select! {
            biased;
            () = self.welcome.wait() => {}
            () = self.ended() => {}
        }
    }

    /// Whether the node has admitted this one.
    pub(crate) fn is_welcome(&self) -> bool {
        self.welcome.is_set()
    }

    pub(crate) fn connection(&self) -> Option<&Arc<dyn Connection>> {
        self.connection.get()
    }

    /// Serves the open connection until it ends; returns why.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        connection: Arc<dyn Connection>,
        (mut send, mut receive): Stream,
        hello: Frame,
        idle: Duration,
        long_answers: impl Future<Output = LinkEnd>,
    ) -> LinkEnd {
        let connection = self.connection.get_or_init(|| connection);
        // Tasks of their own: what wakes the one does not have to look at all the others. They end with the set.
        let mut ends = JoinSet::new();
        let (writer, reader) = (Arc::clone(self), Arc::clone(self));
        ends.spawn(async move { writer.write(send.as_mut(), hello).await });
        ends.spawn(async move { reader.read(receive.as_mut()).await });
        let why = tokio::select! {
            biased;
            () = self.ended() => self.why(),
            Some(end) = ends.join_next() => end.unwrap_or(LinkEnd::Stopped),
            () = self.watch_deadlines() => LinkEnd::Stopped,
            () = self.watch_idle(idle) => LinkEnd::Idle,
            why = long_answers => why,
            () = expired(connection.as_ref(), &self.ambient) => {
                close_with(connection.as_ref(), Close::Expired, EXPIRED);
                LinkEnd::Connection(EXPIRED.to_owned())
            }
            ended = connection.closed() => ended_by(&ended),
        };
        close_with(connection.as_ref(), Close::Unneeded, &why.to_string());
        why
    }

    /// Ends calls whose deadline passes while the node is dialed, and returns if the link ends meanwhile.
    pub(super) async fn ended_early(&self) {
        tokio::select! {
            biased;
            () = self.ended() => {}
            () = self.watch_deadlines() => {}
        }
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        self.over.wait().await;
    }

    async fn write(&self, stream: &mut dyn SendStream, hello: Frame) -> LinkEnd {
        let mut to = BytesMut::new();
        hello.encode(&mut to);
        loop {
            let mut done = Vec::new();
            self.lock().calls.write(self.clock.now(), WRITE_BYTES, &mut to, &mut done);
            settle(done);
            if to.is_empty() {
                self.waits.notified().await;
                continue;
            }
            let mut chunk = [to.split().freeze()];
            if let Err(error) = stream.write(&mut chunk).await {
                return LinkEnd::Connection(error.to_string());
            }
            self.room.notify_waiters();
        }
    }

    async fn read(&self, stream: &mut dyn ReceiveStream) -> LinkEnd {
        let mut frames = Frames::default();
        loop {
            match stream.read(READ_BYTES).await {
                Ok(Some(chunk)) => frames.push(chunk),
                Ok(None) => return LinkEnd::Connection("the peer has closed the lane".to_owned()),
                Err(error) => return LinkEnd::Connection(error.to_string()),
            }
            loop {
                match frames.take() {
                    Ok(Some(frame)) => {
                        if let Err(why) = self.take(frame) {
                            return self.offended(&why);
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return self.offended(&error.to_string()),
                }
            }
        }
    }

    /// Takes a frame of the callee.
    fn take(&self, frame: Frame) -> Result<(), String> {
        let (id, outcome) = match frame {
            Frame::Welcome => {
                self.lock().calls.welcomed();
                self.waits.notify_one();
                self.welcome.set(());
                return Ok(());
            }
            Frame::Drain => {
                let mut done = Vec::new();
                self.lock().calls.drain(&mut done);
                settle(done);
                self.room.notify_waiters();
                self.end_if_drained();
                return Ok(());
            }
            Frame::Reply { id, load, body } => (id, Outcome::Reply { load, body }),
            Frame::Refuse { id, code, retry_after_ms, words } => {
                let retry_after = Duration::from_millis(retry_after_ms.into());
                (id, Outcome::Refused { code, retry_after, words })
            }
            _ => return Err("it sends a frame that only a caller sends".to_owned()),
        };
        self.answered(id, outcome).map_err(|error| error.to_string())
    }

    /// A call has an answer.
    pub(super) fn answered(&self, id: u64, outcome: Outcome) -> Result<(), NeverAsked> {
        let mut state = self.lock();
        let was_full = state.calls.is_full();
        let answered = state.calls.answered(id, outcome);
        drop(state);
        let answered = answered?;
        if was_full {
            self.room.notify_waiters();
        }
        if let Some((waiter, outcome)) = answered {
            let _ = waiter.send(outcome);
        }
        self.end_if_drained();
        Ok(())
    }

    /// Ends it if the node takes no new requests and has answered all.
    pub(super) fn end_if_drained(&self) {
        let drained = {
            let state = self.lock();
            state.calls.is_drained() && state.streams == 0
        };
        if drained {
            self.end(LinkEnd::Drained);
        }
    }

    pub(super) fn offended(&self, why: &str) -> LinkEnd {
        if let Some(connection) = self.connection.get() {
            close_with(connection.as_ref(), Close::Misbehaviour, why);
        }
        LinkEnd::Connection(format!("the peer breaks the protocol: {why}"))
    }

    async fn watch_deadlines(&self) {
        loop {
            let now = self.clock.now();
            let mut done = Vec::new();
            let (next, waits) = self.tick(now, &mut done);
            if !done.is_empty() {
                settle(done);
                self.room.notify_waiters();
                self.end_if_drained();
            }
            if waits {
                self.waits.notify_one();
            }
            let earlier = self.earlier.notified();
            match next {
                None => earlier.await,
                Some(next) => {
                    let _ = tokio::time::timeout(next.since(now), earlier).await;
                }
            }
        }
    }

    /// When to look again, and whether something waits to be sent.
    fn tick(&self, now: Time, done: &mut Vec<(Waiter, Outcome)>) -> (Option<Time>, bool) {
        let mut state = self.lock();
        state.calls.tick(now, done);
        (state.calls.wake(), state.calls.has_waiting())
    }

    /// Returns once nothing has been called for `idle`; from then on it takes no call.
    async fn watch_idle(&self, idle: Duration) {
        while !self.ends_idle(idle) {
            tokio::time::sleep(idle).await;
        }
    }

    fn ends_idle(&self, idle: Duration) -> bool {
        let now = self.clock.now();
        let mut state = self.lock();
        let ends = state.is_unused() && now.since(state.used) >= idle;
        if ends {
            // First the reason: a caller that finds the link ended looks for another one.
            let _ = self.why.set(LinkEnd::Idle);
            state.calls.end(&mut Vec::new());
        }
        ends
    }
}

impl State {
    /// Whether nothing is under way.
    fn is_unused(&self) -> bool {
        self.calls.pending_calls() == 0 && !self.calls.has_waiting() && self.streams == 0
    }
}

impl InFlight {
    /// Waits for the end of the call.
    pub(crate) async fn ended(mut self) -> (Outcome, Arc<Link>) {
        let outcome = (&mut self.answer).await;
        self.done = true;
        // A waiter is dropped only with its link.
        (outcome.unwrap_or(Outcome::Ended { sent: true }), Arc::clone(&self.link))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.done {
            let mut state = self.link.lock();
            state.calls.cancel(self.id);
            let waits = state.calls.has_waiting();
            drop(state);
            if waits {
                self.link.waits.notify_one();
            }
            self.link.room.notify_waiters();
            self.link.end_if_drained();
        }
    }
}

/// Wakes the callers whose calls have ended.
fn settle(done: Vec<(Waiter, Outcome)>) {
    for (waiter, outcome) in done {
        let _ = waiter.send(outcome);
    }
}

/// What the end of a connection means for its calls.
fn ended_by(ended: &Ended) -> LinkEnd {
    LinkEnd::Connection(ended.to_string())
}
