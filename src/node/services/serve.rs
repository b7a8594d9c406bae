//! One connection that another node has dialed to call this one.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    caller::{Caller, CallerName},
    client, converse,
    expiry::{EXPIRED, expired},
    lane::{Lane, State},
    long::{self, Long},
    offered::{Inbound, InboundCast, NOT_OFFERED, Offered},
    pace::{Waited, receives},
    refusal::Refusal,
    responder::Responder,
    running::Running,
    table::{Called, Place, Services},
    window::Window,
};
use crate::{
    ambient::lost::Lost,
    net::{Connection, ReceiveStream, SendStream, Stream},
    node::{host::Host, links::closing::close_with},
    protocol::{
        close::Close,
        id::Generation,
        message,
        route::Counter,
        service::{
            frame::{Cast, Code, Frame, Frames, Hello, Request},
            identity::Question,
            intake::{Arrived, Violation},
            introduction::{Mismatch, Purpose, admit},
            limits::DEADLINE_MAX,
            stream::STREAMS_PER_PEER,
            windows::Holder,
        },
        time::Time,
    },
};

/// Bytes read from a lane at once.
const READ_BYTES: usize = 64 << 10;
/// The label of connections beyond their limit.
const TOO_MANY: &str = "service_connections_max";
/// The label of callers that break the protocol.
const MISBEHAVIOUR: &str = "service_protocol";

/// Serves a connection until it ends.
pub(crate) async fn welcome(host: Host, services: Arc<Services>, connection: Arc<dyn Connection>) {
    let incoming = Arc::new(Incoming { host, services, connection });
    match incoming.introduced().await {
        Ok(opened) => {
            incoming.host.count(Counter::ServiceConnectionsAccepted);
            let peer = incoming.connection.peer().name.as_ref().map(|name| &name.node);
            let _entered = incoming.host.enter(peer, &incoming.connection);
            let lane = Arc::clone(&opened.lane);
            let (_place, _window) = incoming.serve(opened).await;
            lane.end();
        }
        Err(refusal) => incoming.refuse(refusal),
    }
}

struct Incoming {
    host: Host,
    services: Arc<Services>,
    connection: Arc<dyn Connection>,
}

/// A lane whose caller was admitted.
struct Opened {
    lane: Arc<Lane>,
    long: mpsc::UnboundedReceiver<Long>,
    purpose: Purpose,
    stream: Stream,
    frames: Frames,
    place: Place,
    window: Window,
}

impl Incoming {
    /// Receives the introduction of the caller, and judges it.
    async fn introduced(&self) -> Result<Opened, Refusal> {
        let deadline = self.host.config().quic.handshake_timeout;
        let introduced = tokio::time::timeout(deadline, async {
            let mut stream = self.connection.accept().await.map_err(|ended| lost(&ended))?;
            let mut frames = Frames::default();
            loop {
                match frames.take() {
                    Ok(Some(hello @ (Frame::Hello(_) | Frame::ClientHello(_)))) => {
                        return Ok((hello, stream, frames));
                    }
                    Ok(Some(_)) => return Err(misbehaves(&Violation::Introduction)),
                    Ok(None) => {}
                    Err(error) => return Err(misbehaves(&error)),
                }
                match stream.1.read(READ_BYTES).await {
                    Ok(Some(chunk)) => frames.push(chunk),
                    Ok(None) => return Err(lost(&"the caller has closed the lane")),
                    Err(error) => return Err(lost(&error)),
                }
            }
        });
        let (hello, stream, frames) = introduced.await.unwrap_or_else(|_| {
            let words = "no introduction in time".to_owned();
            Err(Refusal { label: "timeout", close: Close::Timeout, words })
        })?;
        let caller = self.judge(&hello)?;
        let (name, generation, purpose) = match &hello {
            Frame::Hello(hello) => (caller.name(), hello.generation, Purpose::of(hello.features)),
            Frame::ClientHello(hello) => {
                (caller.name(), Generation::ZERO, Purpose::of(hello.features))
            }
            _ => (caller.name(), Generation::ZERO, Purpose::Lane),
        };
        let (queue_bytes, unsent) =
            (self.services.limits().lane_queue_bytes, Arc::clone(&self.services.unsent));
        let rates = self.services.rates.of(caller.name());
        let (lane, long) = Lane::new(caller, queue_bytes, unsent, rates);
        let lane = Arc::new(lane);
        // The introduction counts as the first frame.
        let _ = lane.lock().intake.frame(hello);
        let holder = match name {
            CallerName::Node(_) => Holder::Member,
            CallerName::Client(_) => Holder::Client,
        };
        let place = self.services.enter(name, generation, &self.connection, &lane);
        let windows = self.services.outbound.windows();
        let window = windows.open(self.connection.as_ref(), holder, purpose);
        let (Some(place), Some(window)) = (place, window) else {
            let words = "no further connection for calls is admitted: try again later".to_owned();
            return Err(Refusal { label: TOO_MANY, close: Close::Busy, words });
        };
        if purpose == Purpose::Streams {
            self.connection.set_streams(1 + STREAMS_PER_PEER as u32, 0);
        }
        lane.say(&Frame::Welcome);
        Ok(Opened { lane, long, purpose, stream, frames, place, window })
    }

    fn judge(&self, hello: &Frame) -> Result<Caller, Refusal> {
        match hello {
            Frame::Hello(hello) => self.judge_member(hello),
            Frame::ClientHello(hello) => {
                client::judge(&self.host, &self.services, self.connection.as_ref(), hello)
            }
            _ => Err(misbehaves(&Violation::Introduction)),
        }
    }

    fn judge_member(&self, hello: &Hello) -> Result<Caller, Refusal> {
        let rejected = |label, words: String| Refusal { label, close: Close::Unwelcome, words };
        let peer = self.connection.peer();
        let Some(name) = &peer.name else { return Err(client::not_a_member()) };
        let claimed = message::Hello {
            cluster: hello.cluster.clone(),
            node: hello.node.clone(),
            generation: hello.generation,
            known: hello.expected,
            features: hello.features,
        };
        let met = self
            .host
            .meet(&claimed, &name.node, None)
            .map_err(|error| rejected(error.as_str(), error.to_string()))?;
        let (own, known) = (self.host.generation(), self.host.known(&met.node));
        admit(hello, own, known).map_err(|mismatch| {
            let (label, close) = match mismatch {
                Mismatch::OtherProcess { .. } => ("restarted", Close::Restarted),
                Mismatch::Outlived { .. } => ("old_generation", Close::OldGeneration),
            };
            Refusal { label, close, words: mismatch.to_string() }
        })?;
        if self.host.is_revoked(self.connection.peer()) {
            let words = "your certificate was revoked".to_owned();
            return Err(Refusal { label: "revoked", close: Close::Revoked, words });
        }
        Ok(Caller::Node {
            node: met.node,
            datacenter: peer.datacenter.clone(),
            generation: met.generation,
        })
    }

    fn refuse(&self, refusal: Refusal) {
        let Refusal { label, close, words } = refusal;
        if !label.is_empty() {
            let remote = self.connection.remote();
            let peer = self.connection.peer();
            // Its port differs each time.
            let host = remote.rsplit_once(':').map_or(&*remote, |(host, _)| host);
            let client =
                || peer.client.as_ref().map_or_else(|| host.to_owned(), ToString::to_string);
            let peer = peer.name.as_ref().map_or_else(client, |name| name.node.to_string());
            self.host.refused_of(&peer, remote, label, format!("calls are refused: {words}"));
        }
        close_with(self.connection.as_ref(), close, &words);
    }

    async fn serve(self: &Arc<Self>, opened: Opened) -> (Place, Window) {
        let Opened { lane, long, purpose, stream, frames, place, window } = opened;
        let (lane, (mut send, mut receive)) = (&lane, stream);
        // Tasks of their own: what wakes the one does not have to look at all the others. They end with the set.
        let mut ends = JoinSet::new();
        let written = Arc::clone(lane);
        ends.spawn(async move {
            write(&written, send.as_mut()).await;
            None
        });
        let (incoming, read) = (Arc::clone(self), Arc::clone(lane));
        ends.spawn(async move { Some(incoming.read(&read, receive.as_mut(), frames).await) });
        let host = self.host.clone();
        let unread = move || host.count(Counter::AnswersUnread);
        tokio::select! {
            biased;
            Some(end) = ends.join_next() => {
                if let Ok(Some(refusal)) = end {
                    self.refuse(refusal);
                }
            }
            () = stop_late(lane, &self.host) => {}
            () = long::send((&self.connection, &self.services.outbound.abroad), long, unread) => {}
            violation = self.converse(lane, purpose) => self.refuse(misbehaves(&violation)),
            () = expired(self.connection.as_ref(), self.host.ambient()) => {
                let words = EXPIRED.to_owned();
                self.refuse(Refusal { label: "expired", close: Close::Expired, words });
            }
            refusal = client::recheck(&self.host, self.connection.as_ref(), &lane.caller) => {
                self.refuse(refusal);
            }
            () = lane.over.notified() => {
                let words = "this node serves you no more".to_owned();
                self.refuse(Refusal { label: "", close: Close::Unneeded, words });
            }
            _ = self.connection.closed() => {}
        }
        (place, window)
    }

    /// Serves the streams of a connection; returns how the caller breaks the protocol.
    async fn converse(&self, lane: &Arc<Lane>, purpose: Purpose) -> String {
        if purpose != Purpose::Streams {
            return std::future::pending().await;
        }
        let (mut streams, rooms) = (JoinSet::new(), self.services.questions(lane.caller.name()));
        loop {
            tokio::select! {
                biased;
                Some(done) = streams.join_next() => {
                    if let Ok(Err(converse::Violation(words))) = done {
                        return words;
                    }
                }
                // Last: a busy caller has always opened one.
                opened = self.connection.accept(), if streams.len() < STREAMS_PER_PEER => {
                    // At its end the connection says why itself.
                    let Ok(stream) = opened else { return std::future::pending().await };
                    let (host, caller) = (self.host.clone(), Arc::clone(&lane.caller));
                    let stream = self.paced(lane, stream);
                    let (lane, rooms) = (Some(Arc::clone(lane)), rooms.clone());
                    streams.spawn(converse::run(host, caller, lane, rooms, stream));
                }
            }
        }
    }

    /// A stream that keeps to the rate of its caller, and to that of this node if the caller is in another datacenter.
    fn paced(&self, lane: &Lane, (send, receive): Stream) -> (Stream, Waited) {
        let (send, waited) = self.services.outbound.abroad.sends(send, self.connection.peer());
        ((send, receives(receive, &lane.rates.bytes)), waited)
    }

    /// Reads requests until the lane ends.
    async fn read(
        &self,
        lane: &Arc<Lane>,
        stream: &mut dyn ReceiveStream,
        mut frames: Frames,
    ) -> Refusal {
        loop {
            let mut now = self.host.now();
            loop {
                // A caller that does not read its answers gets no further ones.
                while lane.is_full() {
                    lane.sent.notified().await;
                    now = self.host.now();
                }
                match frames.take() {
                    Ok(Some(frame)) => {
                        if let Err(violation) = self.take(lane, frame, now) {
                            return misbehaves(&violation);
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return misbehaves(&error),
                }
            }
            match stream.read(READ_BYTES).await {
                Ok(Some(chunk)) => frames.push(chunk),
                Ok(None) => return lost(&"the caller has closed the lane"),
                Err(error) => return lost(&error),
            }
        }
    }

    /// Takes a frame of a chunk that was read at this time.
    fn take(&self, lane: &Arc<Lane>, frame: Frame, now: Time) -> Result<(), Violation> {
        let mut state = lane.lock();
        match state.intake.frame(frame)? {
            Arrived::Hello(_) | Arrived::Nothing => {}
            Arrived::Bind(service) => {
                let offered = self.services.is_offered(&service);
                let bound = self.services.callers.bound(service, offered, &lane.caller, now);
                state.intake.bind(bound);
            }
            Arrived::Cancelled(running) => {
                drop(state);
                running.cancel();
            }
            Arrived::TooMany(request) => {
                drop(state);
                lane.say(&Frame::Refuse {
                    id: request.id,
                    code: Code::PeerOverloaded,
                    retry_after_ms: 0,
                    words: "too many requests on one connection".to_owned(),
                });
            }
            Arrived::Cast(..) if self.loses(lane, Lost::Request) => {}
            Arrived::Cast(service, cast) => {
                let Cast { method, mut body, tag, .. } = cast;
                if lane.rates.take(now, body.len()).is_err() {
                    self.host.count(Counter::CastsRefused);
                    return Ok(());
                }
                service.called(now);
                let called = self.services.called(&service.service, &mut body);
                let offer = self.found(called, &mut state)?;
                drop(state);
                match offer {
                    Some(offer) => {
                        let message = Question { method, body, tag };
                        let read_at = Some(now);
                        offer.cast(&lane.caller, InboundCast { message, held: None, read_at });
                    }
                    None => self.host.count(Counter::CastsRefused),
                }
            }
            Arrived::Request(service, request) => {
                let Request { id, method, left_ms, mut body, tag, .. } = request;
                if self.loses(lane, Lost::Request) {
                    return Ok(());
                }
                if let Err(wait) = lane.rates.take(now, body.len()) {
                    drop(state);
                    self.host.count(Counter::CallsRefused);
                    lane.say(&too_much(id, wait));
                    return Ok(());
                }
                service.called(now);
                let called = self.services.called(&service.service, &mut body);
                let offer = self.found(called, &mut state)?;
                let left = Duration::from_millis(left_ms.into()).min(DEADLINE_MAX);
                let deadline = now + left;
                let running = Arc::new(Running::default());
                state.intake.began(id, Arc::clone(&running), deadline);
                drop(state);
                let responder = match self.loses(lane, Lost::Reply) {
                    false => Responder::lane(Arc::clone(lane), id),
                    true => Responder::nowhere(),
                };
                match offer {
                    Some(offer) => {
                        let request = Inbound {
                            method,
                            body,
                            tag,
                            deadline,
                            running,
                            responder,
                            held: None,
                            attached: None,
                            read_at: Some(now),
                        };
                        offer.request(&lane.caller, request);
                    }
                    None => {
                        responder.refuse(Code::NoSuchService, Duration::ZERO, NOT_OFFERED);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a test loses this of the next call of a node.
    fn loses(&self, lane: &Lane, what: Lost) -> bool {
        let caller = lane.caller.node();
        caller.is_some_and(|caller| self.host.ambient().loses(what, caller, self.host.node()))
    }

    /// What a request or message is for, if it is there. Who guesses is cut off.
    fn found(
        &self,
        called: Called,
        state: &mut State,
    ) -> Result<Option<Arc<dyn Offered>>, Violation> {
        match called {
            Called::Found(offer) => return Ok(Some(offer)),
            Called::NotOffered => {}
            Called::Ended => self.host.count(Counter::ExposedUnknown),
            Called::Guessed => {
                self.host.count(Counter::ExposedUnknown);
                if state.wrong_numbers.one_more(self.host.now()) {
                    return Err(Violation::Guesses);
                }
            }
        }
        Ok(None)
    }
}

/// Writes answers until the lane ends.
async fn write(lane: &Lane, stream: &mut dyn SendStream) {
    loop {
        let Some(bytes) = lane.next_write() else {
            lane.answers.notified().await;
            continue;
        };
        if stream.write(&mut [bytes]).await.is_err() {
            return;
        }
        lane.sent.notify_one();
    }
}

/// Stops requests whose deadline has passed, also if the caller does not say so.
async fn stop_late(lane: &Lane, host: &Host) {
    loop {
        lane.stop_late(host.now());
        tokio::time::sleep(LATE_LOOK).await;
    }
}

/// How often requests are stopped whose deadline has passed. The caller cancels them at the deadline itself, so this is
/// for callers that do not.
const LATE_LOOK: Duration = Duration::from_secs(1);

/// The caller has used its calls or bytes of a second.
fn too_much(id: u64, wait: Duration) -> Frame {
    Frame::Refuse {
        id,
        code: Code::PeerOverloaded,
        retry_after_ms: u32::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX),
        words: "more calls or bytes in a second than allowed".to_owned(),
    }
}

fn misbehaves(error: &dyn std::fmt::Display) -> Refusal {
    Refusal { label: MISBEHAVIOUR, close: Close::Misbehaviour, words: error.to_string() }
}

/// The connection has ended by itself.
fn lost(why: &dyn std::fmt::Display) -> Refusal {
    Refusal { label: "", close: Close::Unneeded, words: why.to_string() }
}
