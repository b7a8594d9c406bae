//! An offered service: its handlers, its access, and its room.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::Notify};
use tracing::{Span, field::Empty};

use super::{
    Caller, Method,
    access::Access,
    context::{Context, Serving},
    counted::TARGET,
    job::{Answer, Audited, Job, Owner, Place},
    remembered::{Arrives, Identity, Remembered},
};
use crate::{
    clock::Clock,
    node::{
        services::{
            audit,
            caller::CallerName,
            figures::{CallEnd, Row},
            offered::{Attached, Inbound, InboundCast, Offered as ByConnections, words},
            responder::Responder,
            room::Held,
            running::Running,
        },
        shared::Shared,
    },
    protocol::{
        hash::hash,
        id::{Datacenter, NodeId},
        route::Counter,
        service::{
            Kind, ServiceId,
            balance::{Bounds, by_key},
            figures::CallOutcome,
            frame::Code,
            identity::{Question, Tag},
            once::Recalled,
            room::{Entered, Room, RoomLimits},
        },
        time::Time,
    },
    slot::Slot,
};

/// Runs one request of a method. It returns at once.
pub(super) type Handler = Box<dyn Fn(Job) + Send + Sync>;

/// One method of an offered service.
pub(super) struct Offering {
    pub(super) handler: Handler,
    /// Narrower than that of the service, if it is stated.
    pub(super) access: Option<Access>,
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    /// Its row in the figures.
    row: usize,
}

impl Offering {
    pub(super) const fn new(handler: Handler, method: &Method) -> Self {
        Self { handler, access: None, kind: method.kind, name: method.name, row: 0 }
    }
}

/// An offered service.
pub(super) struct Offered {
    pub(super) id: ServiceId,
    shared: Arc<Shared>,
    runtime: Handle,
    access: Access,
    methods: BTreeMap<u16, Offering>,
    /// The figures of the methods, and of what is no method.
    rows: Vec<Arc<Row>>,
    /// The calls that it remembers, if it does.
    remembered: Option<Remembered>,
    /// Whether the end of each of its calls is logged.
    audited: bool,
    room: Mutex<Room<CallerName, Waiting>>,
    /// Places that were given back.
    freed: Mutex<Freed>,
    /// A request has ended.
    left: Notify,
    /// It takes no new requests.
    closed: Slot<()>,
}

/// Places that were given back while a thread fills places: it fills these as well. So no thread fills one from within
/// the other, however many requests end at once.
#[derive(Default)]
struct Freed {
    places: VecDeque<(CallerName, Duration)>,
    being_filled: bool,
}

/// A request that waits for room.
struct Waiting {
    method: u16,
    body: Bytes,
    tag: Tag,
    caller: Arc<Caller>,
    deadline: Time,
    running: Option<Arc<Running>>,
    responder: Option<Responder>,
    held: Option<Held>,
    attached: Option<Box<Attached>>,
    row: usize,
    /// If it is remembered.
    call: Option<Identity>,
    /// Its span, if calls are traced: part of that in which it has arrived, whoever makes room for it.
    span: Option<Box<Span>>,
    /// As [`Inbound::read_at`], as long as it has not waited.
    read_at: Option<Time>,
}

impl Offered {
    pub(super) fn new(
        id: ServiceId,
        (shared, runtime): (Arc<Shared>, Handle),
        access: Access,
        mut methods: BTreeMap<u16, Offering>,
        limits: RoomLimits,
    ) -> Self {
        let figures = &shared.services.outbound.figures;
        let mut rows = vec![figures.other(CallEnd::Provider)];
        for (number, offering) in &mut methods {
            offering.row = rows.len();
            rows.push(figures.row(CallEnd::Provider, &id, (*number, offering.name)));
        }
        let room = Mutex::new(Room::new(limits));
        Self {
            id,
            shared,
            runtime,
            access,
            methods,
            rows,
            remembered: None,
            audited: false,
            room,
            freed: Mutex::default(),
            left: Notify::new(),
            closed: Slot::default(),
        }
    }

    /// It answers a call from memory that arrives again within this time.
    pub(super) fn remembering(mut self, window: Option<Duration>) -> Self {
        self.remembered = window.map(Remembered::new);
        self
    }

    /// The end of each of its calls is logged.
    pub(super) fn audited(mut self, audited: bool) -> Self {
        self.audited = audited;
        self
    }

    fn room(&self) -> MutexGuard<'_, Room<CallerName, Waiting>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A method that a caller may use. To a client, "there is none" and "you may not" are one answer.
    fn method_for(&self, caller: &Caller, method: u16) -> Result<&Offering, Code> {
        let is_client = matches!(caller, Caller::Client(_));
        let refused = |code| {
            let (now, of) = (self.clock().now(), (&self.id, method));
            self.shared.services.audit.refused(now, caller, of, code);
            code
        };
        if !self.access.permits(caller) {
            let code = if is_client { Code::NoSuchService } else { Code::Forbidden };
            return Err(refused(code));
        }
        let offering = self.methods.get(&method).ok_or(Code::NoSuchMethod)?;
        match offering.access.as_ref().is_none_or(|access| access.permits(caller)) {
            true => Ok(offering),
            false if is_client => Err(refused(Code::NoSuchMethod)),
            false => Err(refused(Code::Forbidden)),
        }
    }

    /// The row of a request that breaks no rule, or the rule that it breaks.
    fn admitted(&self, waiting: &Waiting) -> Result<usize, Code> {
        let offering = self.method_for(&waiting.caller, waiting.method)?;
        let fits = match offering.kind {
            Kind::Cast => waiting.responder.is_none(),
            Kind::Call => waiting.responder.is_some(),
            Kind::ServerStream | Kind::ClientStream | Kind::Duplex => {
                waiting.responder.is_some() && waiting.attached.is_some()
            }
        };
        if fits { Ok(offering.row) } else { Err(Code::NoSuchMethod) }
    }

    fn enter(self: &Arc<Self>, mut waiting: Waiting) {
        waiting.row = match self.admitted(&waiting) {
            Ok(row) => row,
            Err(code) => {
                waiting.row = self.methods.get(&waiting.method).map_or(0, |offering| offering.row);
                self.rows[waiting.row].begin();
                return self.refuse(waiting, code, Duration::ZERO);
            }
        };
        let Some(mut waiting) = self.anew(waiting) else { return };
        self.rows[waiting.row].begin();
        waiting.span = self.span(&waiting).map(Box::new);
        let name = waiting.caller.name();
        let is_gone = |waiting: &Waiting| {
            waiting.running.as_ref().is_some_and(|running| running.is_cancelled())
        };
        let (entered, gone) = self.room().enter_or_purge(&name, waiting, is_gone);
        for gone in gone {
            self.rows[gone.row].end(CallOutcome::Cancelled);
            self.forget(gone.call.as_ref(), Code::Overloaded, Duration::ZERO);
        }
        match entered {
            Entered::Runs(waiting) => self.run(name, waiting),
            Entered::Waits => {}
            Entered::Refused { request, code, retry_after } => {
                if let Some(span) = &request.span {
                    span.record("outcome", CallOutcome::refused(code).as_str());
                }
                self.forget(request.call.as_ref(), code, retry_after);
                self.refuse(request, code, retry_after);
            }
        }
    }

    /// A remembered call has not run. A repetition that waits for it is refused, and may be sent once more.
    fn forget(&self, call: Option<&Identity>, code: Code, retry_after: Duration) {
        if let Some((remembered, call)) = self.remembered.as_ref().zip(call) {
            remembered.forget(call, code, retry_after);
        }
    }

    /// A request that has not come before, or that is not remembered.
    fn anew(&self, mut waiting: Waiting) -> Option<Waiting> {
        let Some(remembered) = &self.remembered else { return Some(waiting) };
        if self.methods.get(&waiting.method).is_none_or(|method| method.kind != Kind::Call) {
            return Some(waiting);
        }
        let Some(back) = waiting.responder.take() else { return Some(waiting) };
        let call = Identity::new(&waiting.caller, waiting.tag.number);
        match remembered.arrives(self.clock().now(), &call, back, self.load()) {
            Arrives::New(back) => {
                (waiting.responder, waiting.call) = (Some(back), Some(call));
                Some(waiting)
            }
            Arrives::Again => {
                // It may have run by the way over which it came first.
                let _ = waiting.attached.map(|attached| attached.beginning.begin());
                self.count(Counter::CallsRecalled);
                if self.audited {
                    let method = self.methods.get(&waiting.method).map_or("", |method| method.name);
                    audit::recalled(&waiting.caller, (&self.id, method));
                }
                None
            }
            Arrives::NoRoom(back, code) => {
                self.rows[waiting.row].begin();
                waiting.responder = Some(back);
                self.refuse(waiting, code, Duration::ZERO);
                None
            }
        }
    }

    fn refuse(&self, waiting: Waiting, code: Code, retry_after: Duration) {
        let outcome = CallOutcome::refused(code);
        self.rows[waiting.row].end(outcome);
        // Those because of who calls are logged already, no more often than allowed.
        let by_access = matches!(code, Code::Forbidden | Code::NoSuchService | Code::NoSuchMethod);
        if self.audited && !by_access {
            let method = self.methods.get(&waiting.method).map_or("", |method| method.name);
            audit::ended(&waiting.caller, (&self.id, method), outcome, Duration::ZERO);
        }
        match waiting.responder {
            Some(responder) => {
                self.count(Counter::CallsRefused);
                responder.refuse(code, retry_after, words(code));
            }
            None => self.count(Counter::CastsRefused),
        }
    }

    /// The span of a request that arrives here.
    fn span(&self, waiting: &Waiting) -> Option<Span> {
        let name = self.methods.get(&waiting.method)?.name;
        is_traced().then(|| {
            tracing::debug_span!(
                target: TARGET, "serve", service = %self.id, method = name,
                caller = %waiting.caller, outcome = Empty
            )
        })
    }

    /// Runs a request that has a place.
    fn run(self: &Arc<Self>, caller: CallerName, waiting: Waiting) {
        let Waiting { method, body, tag, caller: who, deadline, running, responder, .. } = waiting;
        let (held, attached, row) = (waiting.held, waiting.attached, waiting.row);
        let _entered = waiting.span.as_ref().map(|span| span.enter());
        let now = waiting.read_at.unwrap_or_else(|| self.clock().now());
        let place = Place::new(Arc::<Self>::clone(self), (caller, row), now);
        let beginning = attached.as_ref().map(|attached| Arc::clone(&attached.beginning));
        let mut answer =
            Answer::new(Arc::<Self>::clone(self), (running, beginning), responder, row);
        answer.call = waiting.call;
        if self.audited {
            let caller = Arc::clone(&who);
            answer.audited = Some(Box::new(Audited { caller, method, begun: now }));
        }
        let context = Context { caller: who, deadline, tag, serving: Arc::<Self>::clone(self) };
        if answer.is_cancelled() {
            self.forget(answer.call.take().as_ref(), Code::Overloaded, Duration::ZERO);
            return;
        }
        if answer.call.is_some() {
            // From here on it runs to its end, since its caller may send it again.
            answer.running = None;
        }
        if deadline <= now {
            return answer.refuse(Code::Deadline, "");
        }
        let Some(offering) = self.methods.get(&method) else {
            return answer.refuse(Code::NoSuchMethod, "");
        };
        let trace = context.trace();
        // A handler that panics here must not end the lane of its caller, and neither must a propagator.
        let job = Job {
            body,
            held,
            attached,
            context,
            answer,
            place,
            by_reader: waiting.read_at.is_some(),
        };
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| {
            if let Some(trace) = trace {
                self.shared.services.outbound.tags.received(trace, waiting.span.as_deref());
            }
            (offering.handler)(job);
        }));
    }

    fn freed(&self) -> MutexGuard<'_, Freed> {
        self.freed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place is free: gives it to those that wait.
    fn fill(self: &Arc<Self>, caller: &CallerName, took: Duration) {
        let mut next = self.room().leave(caller, took);
        // Only who withdraws it waits for its end.
        if self.closed.is_set() {
            self.left.notify_waiters();
        }
        while let Some((caller, mut waiting)) = next {
            // This thread is no reader, or has other requests to read.
            waiting.read_at = None;
            self.run(caller, waiting);
            next = self.room().next_turn();
        }
    }

    /// The next place to fill; none ends the filling.
    fn next_freed(&self) -> Option<(CallerName, Duration)> {
        let mut freed = self.freed();
        let next = freed.places.pop_front();
        freed.being_filled = next.is_some();
        next
    }

    /// Takes no new requests from now on.
    pub(super) fn close(&self) {
        self.room().drain();
        self.closed.set(());
    }

    /// Waits until it takes no new requests.
    pub(super) async fn closed(&self) {
        self.closed.wait().await;
    }

    /// Waits until no request runs or waits.
    pub(super) async fn emptied(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            let is_empty = {
                let room = self.room();
                room.running() == 0 && room.waiting() == 0
            };
            if is_empty {
                return;
            }
            left.await;
        }
    }
}

/// Whether calls have spans.
fn is_traced() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// How long a cast may wait for room.
const CAST_DEADLINE: Duration = Duration::from_secs(60);

impl Owner for Offered {
    fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn clock(&self) -> Clock {
        self.shared.clock
    }

    fn load(&self) -> u8 {
        self.room().load()
    }

    fn reply_bytes(&self) -> usize {
        self.shared.services.limits().reply_bytes
    }

    fn count(&self, counter: Counter) {
        self.shared.count(counter);
    }

    fn ended(&self, row: usize, outcome: CallOutcome) {
        self.rows[row].end(outcome);
        if is_traced() {
            Span::current().record("outcome", outcome.as_str());
        }
    }

    fn audit(&self, call: &Audited, outcome: CallOutcome) {
        let method = self.methods.get(&call.method).map_or("", |method| method.name);
        let took = self.clock().now().since(call.begun);
        audit::ended(&call.caller, (&self.id, method), outcome, took);
    }

    fn ran(&self, call: &Identity, how: Recalled) {
        if let Some(remembered) = &self.remembered {
            remembered.ended(self.clock().now(), call, how, self.load());
        }
    }

    fn did_not_run(&self, call: &Identity, code: Code) {
        if let Some(remembered) = &self.remembered {
            remembered.forget(call, code, Duration::ZERO);
        }
    }

    fn took(&self, row: usize, took: Duration) {
        self.rows[row].took(took);
    }

    fn leave(self: Arc<Self>, caller: &CallerName, took: Duration) {
        {
            let mut freed = self.freed();
            if std::mem::replace(&mut freed.being_filled, true) {
                freed.places.push_back((caller.clone(), took));
                return;
            }
        }
        let filling = Filling(&self);
        self.fill(caller, took);
        while let Some((caller, took)) = self.next_freed() {
            self.fill(&caller, took);
        }
        std::mem::forget(filling);
    }
}

/// A thread that fills places. If it panics, the next thread fills them.
struct Filling<'a>(&'a Offered);

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        self.0.freed().being_filled = false;
    }
}

impl ByConnections for Offered {
    fn request(self: Arc<Self>, caller: &Arc<Caller>, request: Inbound) {
        let Inbound { method, body, tag, deadline, running, responder, held, attached, read_at } =
            request;
        self.enter(Waiting {
            method,
            body,
            tag,
            caller: Arc::clone(caller),
            deadline,
            running: Some(running),
            responder: Some(responder),
            held,
            attached,
            row: 0,
            call: None,
            span: None,
            read_at,
        });
    }

    fn cast(self: Arc<Self>, caller: &Arc<Caller>, message: InboundCast) {
        let InboundCast { message: Question { method, body, tag }, held, read_at } = message;
        self.enter(Waiting {
            method,
            body,
            tag,
            caller: Arc::clone(caller),
            deadline: read_at.unwrap_or_else(|| self.clock().now()) + CAST_DEADLINE,
            running: None,
            responder: None,
            held,
            attached: None,
            row: 0,
            call: None,
            span: None,
            read_at,
        });
    }

    fn kind(&self, caller: &Caller, method: u16) -> Result<Kind, Code> {
        self.method_for(caller, method).map(|offering| offering.kind)
    }

    fn drain(&self) {
        self.close();
    }

    fn emptied(&self) -> crate::net::BoxFuture<'_, ()> {
        Box::pin(self.emptied())
    }
}

impl Serving for Offered {
    fn now(&self) -> Time {
        self.shared.clock.now()
    }

    fn node(&self) -> &NodeId {
        &self.shared.config.node
    }

    fn owner(&self, key: &[u8], datacenter: Option<&Datacenter>) -> Option<NodeId> {
        let listings = self.shared.services.outbound.watched.listings();
        let owner = by_key(listings.get(&self.id)?, datacenter, Bounds::default(), hash(key))?;
        Some(owner.node.clone())
    }
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("id", &self.id).finish_non_exhaustive()
    }
}
