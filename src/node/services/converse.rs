//! One stream that a caller has opened for one call.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::Sleep,
};

use super::{
    caller::Caller,
    framed::{Broken, FrameReader, FrameWriter, Framed},
    lane::Lane,
    offered::{Attached, Inbound, InboundCast, Input, NOT_OFFERED, Offered, words},
    pace::Waited,
    responder::Responder,
    room::{Counted, NO_ROOM, Rooms},
    running::Running,
    table::Called,
};
use crate::{
    ambient::lost::Lost,
    net::Stream,
    node::host::Host,
    protocol::{
        route::Counter,
        service::{
            Kind, ServiceId,
            calls::Outcome,
            exposed::EXPOSED,
            frame::{Code, LANE_BODY_MAX},
            identity::Question,
            intake,
            limits::DEADLINE_MAX,
            stream::{Beginning, Open, StreamFrame, body_time},
        },
    },
};

/// Why a caller is refused that has used its calls of a second.
const TOO_MANY_CALLS: &str = "more calls in a second than allowed";
/// Items of a caller that wait for the handler.
const ITEMS_WAITING_MAX: usize = 2;

/// How a caller breaks the protocol of streams.
pub(crate) struct Violation(pub(crate) String);

/// Serves one stream to its end. Dropping it aborts the handler. `lane`: the lane of its connection; `None` if the caller
/// is in this process.
pub(crate) async fn run(
    host: Host,
    caller: Arc<Caller>,
    lane: Option<Arc<Lane>>,
    rooms: Rooms,
    ((send, receive), waited): (Stream, Waited),
) -> Result<(), Violation> {
    let reader = FrameReader::new(receive, host.services().limits().request_bytes, rooms);
    let writer = Arc::new(FrameWriter::new(send));
    let conversation =
        Conversation { host, caller, lane, writer, waited, beginning: Arc::default() };
    match conversation.run(reader).await {
        Ok(()) | Err(End::Gone) => Ok(()),
        Err(End::Refused(code, words)) => {
            if conversation.beginning.give_up() {
                conversation.host.count(Counter::CallsRefused);
            }
            conversation.refuse(code, Duration::ZERO, words).await;
            Ok(())
        }
        Err(End::Violation(words)) => Err(Violation(words)),
    }
}

struct Conversation {
    host: Host,
    caller: Arc<Caller>,
    lane: Option<Arc<Lane>>,
    writer: Arc<FrameWriter>,
    /// What its answers have waited for their turn.
    waited: Waited,
    /// Whether the handler begins.
    beginning: Arc<Beginning>,
}

/// Why a stream ends without an answer of the offer.
enum End {
    /// The caller has given up, or the connection has ended.
    Gone,
    /// Why it is refused.
    Refused(Code, String),
    /// The caller breaks the protocol.
    Violation(String),
}

/// Aborts the handler when the stream has ended.
struct Aborts(Arc<Running>);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Conversation {
    async fn run(&self, mut reader: FrameReader) -> Result<(), End> {
        let first = self.host.config().quic.handshake_timeout;
        let Framed { frame, .. } = within(first, &mut reader).await?;
        let StreamFrame::Open(Open { service, method, left_ms, tag }) = frame else {
            return Err(End::Violation("the first frame of a stream does not open it".to_owned()));
        };
        if let Some(lane) = &self.lane
            && lane.rates.call(self.host.now()).is_err()
        {
            return Err(refused(Code::PeerOverloaded, TOO_MANY_CALLS));
        }
        let left = Duration::from_millis(left_ms.into()).min(DEADLINE_MAX);
        let is_exposed = service.name.as_str() == EXPOSED;
        if !is_exposed {
            self.found(&service, method, &mut Bytes::new())?;
            self.counts(&service);
        } else if self.host.services().exposed.is_empty() {
            // The number of the actor is in the question: there is none that it could have.
            self.host.count(Counter::ExposedUnknown);
            return Err(refused(Code::NoSuchService, NOT_OFFERED));
        }
        let deadline = self.host.now() + left;
        let mut ends = Box::pin(tokio::time::sleep(left));
        let Framed { frame, held } = within(left, &mut reader).await?;
        let StreamFrame::Item(mut body) = frame else {
            return Err(End::Violation("the second frame of a stream is no question".to_owned()));
        };
        let (offer, kind) = self.found(&service, method, &mut body)?;
        if self.loses(Lost::Request) {
            ends.await;
            return Err(End::Gone);
        }
        if is_exposed {
            self.counts(&service);
        }
        if kind == Kind::Cast {
            let message = Question { method, body, tag };
            offer.cast(&self.caller, InboundCast { message, held, read_at: None });
            return Ok(());
        }
        let (waiter, answer) = oneshot::channel();
        let (running, responder) = (Arc::new(Running::default()), Responder::here(waiter));
        let _aborts = Aborts(Arc::clone(&running));
        let (mut unread, mut items) = (Some(reader), None);
        let input = match kind {
            Kind::ClientStream => {
                let (sender, waiting) = mpsc::channel(ITEMS_WAITING_MAX);
                items = Some(sender);
                Input::Items(waiting)
            }
            Kind::Duplex => unread.take().map_or(Input::None, Input::Bytes),
            _ => Input::None,
        };
        let (writer, beginning) = (Arc::clone(&self.writer), Arc::clone(&self.beginning));
        let request = Inbound {
            method,
            body,
            tag,
            deadline,
            running,
            responder,
            held,
            attached: Some(Box::new(Attached { writer, input, beginning })),
            read_at: None,
        };
        offer.request(&self.caller, request);
        let outcome = match unread {
            Some(reader) => self.ended(kind, reader, items, (ends.as_mut(), answer)).await?,
            None => self.begun_by(ends.as_mut(), answer).await,
        };
        if matches!(kind, Kind::Call | Kind::ClientStream) && self.loses(Lost::Reply) {
            ends.await;
            return Err(End::Gone);
        }
        self.settle(kind, outcome).await;
        Ok(())
    }

    /// Whether a test loses this of the call. Nothing is lost within a node.
    fn loses(&self, what: Lost) -> bool {
        let caller = self.lane.as_ref().and_then(|lane| lane.caller.node());
        caller.is_some_and(|caller| self.host.ambient().loses(what, caller, self.host.node()))
    }

    /// What a question is for, if the caller may ask it.
    fn found(
        &self,
        service: &ServiceId,
        method: u16,
        body: &mut Bytes,
    ) -> Result<(Arc<dyn Offered>, Kind), End> {
        let offer = match self.host.services().called(service, body) {
            Called::Found(offer) => offer,
            Called::NotOffered => return Err(refused(Code::NoSuchService, NOT_OFFERED)),
            called => {
                self.host.count(Counter::ExposedUnknown);
                if let (Called::Guessed, Some(lane)) = (called, &self.lane)
                    && lane.lock().wrong_numbers.one_more(self.host.now())
                {
                    return Err(End::Violation(intake::Violation::Guesses.to_string()));
                }
                return Err(refused(Code::NoSuchService, NOT_OFFERED));
            }
        };
        let kind = offer.kind(&self.caller, method).map_err(|code| refused(code, words(code)))?;
        Ok((offer, kind))
    }

    /// One more call of this caller to the service. Those of this node to itself are not counted.
    fn counts(&self, service: &ServiceId) {
        if self.lane.is_none() {
            return;
        }
        let (callers, now) = (&self.host.services().callers, self.host.now());
        callers.count(service, self.caller.name(), now).called(now);
    }

    /// The end of a handler that reads the stream itself.
    async fn begun_by(
        &self,
        ends: Pin<&mut Sleep>,
        mut answer: oneshot::Receiver<Outcome>,
    ) -> Outcome {
        tokio::select! {
            biased;
            outcome = &mut answer => return outcome.unwrap_or_else(|_| no_answer()),
            () = ends => {}
        }
        if self.beginning.give_up() { late() } else { answer.await.unwrap_or_else(|_| no_answer()) }
    }

    /// Waits for the end of the handler, and hands it the items of the caller.
    async fn ended(
        &self,
        kind: Kind,
        mut reader: FrameReader,
        mut items: Option<mpsc::Sender<Framed>>,
        (mut ends, mut answer): (Pin<&mut Sleep>, oneshot::Receiver<Outcome>),
    ) -> Result<Outcome, End> {
        let (mut next, mut timed) = (None::<Framed>, true);
        loop {
            let waits = next.is_some();
            tokio::select! {
                biased;
                outcome = &mut answer => return Ok(outcome.unwrap_or_else(|_| no_answer())),
                () = ends.as_mut(), if timed => {
                    if self.beginning.give_up() {
                        return Ok(late());
                    }
                    // It may have run: the caller finds out by its own deadline, or by the end of the stream.
                    if kind == Kind::Call {
                        return Err(End::Gone);
                    }
                    timed = false;
                }
                room = room(items.clone()), if waits => match (room, next.take()) {
                    (Some(room), Some(item)) => {
                        let is_last = matches!(item.frame, StreamFrame::End { .. });
                        drop(room.send(item));
                        if is_last {
                            items = None;
                        }
                    }
                    // The handler takes no more of them.
                    _ => items = None,
                },
                read = reader.next(), if !waits => match read {
                    Ok(Some(framed)) => match (&framed.frame, &items) {
                        (StreamFrame::Item(_) | StreamFrame::End { .. }, Some(_)) => {
                            next = Some(framed);
                        }
                        // What the handler does not want is skipped.
                        (StreamFrame::Item(_) | StreamFrame::End { .. }, None)
                            if kind == Kind::ClientStream => {}
                        _ => {
                            let words = "a frame that this stream does not take".to_owned();
                            return Err(End::Violation(words));
                        }
                    },
                    Ok(None) => return Err(End::Gone),
                    Err(broken) => return Err(broken_off(broken)),
                },
            }
        }
    }

    /// Sends what the handler has come to.
    async fn settle(&self, kind: Kind, outcome: Outcome) {
        match outcome {
            Outcome::Reply { load, body } => {
                let end = StreamFrame::End { load };
                match kind {
                    Kind::Call | Kind::ClientStream => {
                        let long = body.len() > LANE_BODY_MAX;
                        let unsent = &self.host.services().unsent;
                        let counted = long.then(|| unsent.count(self.caller.name(), body.len()));
                        if matches!(counted, Some(None)) {
                            self.refuse(Code::ReplyTooLarge, Duration::ZERO, NO_ROOM).await;
                        } else {
                            let limit = counted.as_ref().and_then(Option::as_ref);
                            let limit = limit.map_or_else(|| body_time(body.len()), Counted::limit);
                            let sent = self.writer.finish([StreamFrame::Item(body), end]);
                            let clock = self.host.services().outbound.clock();
                            if self.waited.within(limit, clock, sent).await.is_none() {
                                self.host.count(Counter::AnswersUnread);
                            }
                        }
                        drop(counted);
                    }
                    Kind::ServerStream => self.writer.finish([end]).await,
                    Kind::Duplex | Kind::Cast => {}
                }
            }
            Outcome::Refused { code, retry_after, words } => {
                self.refuse(code, retry_after, words).await;
            }
            Outcome::Deadline { .. } | Outcome::Ended { .. } => {}
        }
    }

    async fn refuse(&self, code: Code, retry_after: Duration, words: impl Into<String>) {
        let code = self.beginning.refusal(code);
        let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
        let refuse = StreamFrame::Refuse { code, retry_after_ms, words: words.into() };
        self.writer.finish([refuse]).await;
    }
}

async fn within(limit: Duration, reader: &mut FrameReader) -> Result<Framed, End> {
    let read = tokio::time::timeout(limit, reader.next()).await;
    let read = read.map_err(|_| refused(Code::Deadline, "the question has not arrived in time"))?;
    read.map_err(broken_off)?.ok_or(End::Gone)
}

async fn room(items: Option<mpsc::Sender<Framed>>) -> Option<mpsc::OwnedPermit<Framed>> {
    items?.reserve_owned().await.ok()
}

fn broken_off(broken: Broken) -> End {
    match broken {
        Broken::Failed(_) | Broken::Cut => End::Gone,
        // Its caller may have another limit.
        Broken::Bad(crate::protocol::service::frame::BadFrame::TooLong(bytes)) => {
            refused(Code::TooLarge, &format!("{bytes} bytes"))
        }
        Broken::Late => refused(Code::Deadline, &Broken::Late.to_string()),
        Broken::Bad(_) => End::Violation(broken.to_string()),
    }
}

fn refused(code: Code, words: &str) -> End {
    End::Refused(code, words.to_owned())
}

fn no_answer() -> Outcome {
    let (code, words) = (Code::NoAnswer, String::new());
    Outcome::Refused { code, retry_after: Duration::ZERO, words }
}

fn late() -> Outcome {
    let (code, words) = (Code::Deadline, String::new());
    Outcome::Refused { code, retry_after: Duration::ZERO, words }
}
