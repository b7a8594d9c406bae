//! The callee's end of a stream: its handler, and what it sends.

use std::time::Duration;

use rand::RngExt;

use super::{
    super::{
        caller::body,
        event::{Event, Stage},
        settings::Mutation,
        state::{Run, Way},
        stream::Stream,
        world::World,
    },
    ITEMS, arrived, item, method,
};
use crate::{
    protocol::service::{
        Kind, calls::Outcome, frame::Code, limits::DEADLINE_MAX, stream::StreamFrame,
    },
    sim::queue::micros,
};

impl World {
    /// Bytes of the caller arrive.
    pub(super) fn stream_up(&mut self, number: usize) {
        while let Some(bytes) = arrived(&mut self.streams[number].up, self.queue.now()) {
            if self.streams[number].ended {
                return;
            }
            self.streams[number].questions.push(bytes);
            loop {
                match self.streams[number].questions.take() {
                    Ok(Some(frame)) => self.stream_question(number, frame),
                    Ok(None) => break,
                    Err(error) => return self.oracle.found(0, format_args!("{error}")),
                }
            }
        }
    }

    fn stream_question(&mut self, number: usize, frame: StreamFrame) {
        let Stream { run, left, kind, taken, ended, .. } = self.streams[number];
        match (frame, left, run) {
            _ if ended => {}
            (StreamFrame::Open(open), None, None) => {
                let left = Duration::from_millis(open.left_ms.into()).min(DEADLINE_MAX);
                self.streams[number].left = Some(left);
                self.after(micros(left), Event::Stream(number, Stage::FarLate));
                if self.rng.random_bool(0.1) {
                    let pause = self.within(Duration::from_millis(300));
                    self.after(pause, Event::Stream(number, Stage::Fault));
                }
            }
            (StreamFrame::Item(_), Some(left), None) => self.stream_runs(number, left),
            (StreamFrame::Item(body), _, Some(_)) if kind == Kind::ClientStream => {
                if body[..8] != item(number, taken).to_be_bytes() {
                    self.oracle.found(3, format_args!("stream {number}: item {taken} is missing"));
                }
                self.streams[number].taken += 1;
            }
            (StreamFrame::End { .. }, _, Some(run)) if kind == Kind::ClientStream => {
                let work = self.within(self.settings.work);
                let held = &mut self.streams[number];
                held.complete = true;
                if held.taken != held.sends {
                    let what = format_args!("stream {number} is complete, and items are missing");
                    self.oracle.found(3, what);
                }
                if self.runs[run].begun.is_some() {
                    self.after(work, Event::Done(run));
                }
            }
            (frame, ..) => self.oracle.found(0, format_args!("a caller sends {frame:?}")),
        }
    }

    /// A question has arrived: it asks for a place.
    fn stream_runs(&mut self, number: usize, left: Duration) {
        let Stream { process: from, to, service, kind, .. } = self.streams[number];
        let (Some(process), run) = (to, self.runs.len()) else { return };
        self.streams[number].run = Some(run);
        self.runs.push(Run {
            process,
            service,
            caller: self.processes[from].node,
            method: method(kind),
            number: number as u64,
            deadline: self.now() + left,
            way: Way::Stream(number),
            cancelled: false,
            begun: None,
            over: false,
        });
        self.enter(run);
    }

    /// The handler of a stream has a place; whether it begins.
    pub(in crate::sim::calls) fn stream_begins(&mut self, number: usize) -> bool {
        if !self.streams[number].beginning.begin() {
            return false;
        }
        self.note(format_args!("stream {number} runs"));
        self.oracle.stream_began(number);
        if self.streams[number].kind != Kind::Call {
            self.stream_send(number, false, StreamFrame::Begun);
        }
        true
    }

    /// What happens when the handler of a stream has worked for a while.
    pub(in crate::sim::calls) fn stream_works(&mut self, number: usize, run: usize, work: u64) {
        match self.streams[number].kind {
            Kind::ServerStream => {
                self.streams[number].items = self.rng.random_range(0..=ITEMS);
                self.after(work, Event::Stream(number, Stage::Next));
            }
            // It waits for the last item.
            Kind::ClientStream if !self.streams[number].complete => {}
            _ => self.after(work, Event::Done(run)),
        }
    }

    /// The handler sends its next item, or ends.
    pub(super) fn next_item(&mut self, number: usize) {
        let Stream { ended, run: Some(run), items, taken, .. } = self.streams[number] else {
            return;
        };
        if ended || self.runs[run].over {
            return;
        }
        if self.strikes(Mutation::LoseItems) {
            self.streams[number].taken += 1;
        }
        if taken == items {
            return self.queue.at(self.queue.now(), Event::Done(run));
        }
        self.stream_send(number, false, StreamFrame::Item(body(item(number, taken), 10)));
        // The callee counts what it has sent.
        self.streams[number].taken += 1;
        let pause = self.within(self.settings.work / 4);
        self.after(pause, Event::Stream(number, Stage::Next));
    }

    /// Sends what a handler has come to.
    pub(in crate::sim::calls) fn stream_settled(&mut self, number: usize, outcome: Outcome) {
        let Stream { ended, kind, .. } = self.streams[number];
        if ended {
            return;
        }
        match outcome {
            Outcome::Reply { load, body } => {
                if kind != Kind::ServerStream {
                    let body = match self.strikes(Mutation::MixStreams) {
                        true => super::super::caller::body(number as u64 + 1, 0),
                        false => body,
                    };
                    self.stream_send(number, false, StreamFrame::Item(body));
                }
                self.stream_send(number, false, StreamFrame::End { load });
            }
            Outcome::Refused { code, retry_after, words } => {
                // Once it has begun, no refusal says that it has not run.
                let code = match self.mutates(Mutation::RefuseBegun) {
                    true => code,
                    false => self.streams[number].beginning.refusal(code),
                };
                let retry_after_ms = retry_after.as_millis() as u32;
                self.stream_send(
                    number,
                    false,
                    StreamFrame::Refuse { code, retry_after_ms, words },
                );
            }
            Outcome::Deadline { .. } | Outcome::Ended { .. } => {}
        }
        self.streams[number].ended = true;
    }

    /// The deadline at the callee: a call has to be answered by then, anything else has to begin.
    pub(super) fn stream_far_late(&mut self, number: usize) {
        let Stream { ended, kind, .. } = self.streams[number];
        if ended {
            return;
        }
        if self.streams[number].beginning.give_up() {
            self.stream_refused(number, Code::Deadline);
        } else if kind == Kind::Call {
            // It may have run: its caller finds out by its own deadline.
            self.abort_stream(number);
        }
    }

    /// The caller has sent something that the callee does not take.
    pub(super) fn stream_fault(&mut self, number: usize) {
        if !self.streams[number].ended {
            self.stream_refused(number, Code::TooLarge);
        }
    }

    fn stream_refused(&mut self, number: usize, code: Code) {
        let (retry_after, words) = (Duration::ZERO, String::new());
        self.stream_settled(number, Outcome::Refused { code, retry_after, words });
        if let Some(run) = self.streams[number].run {
            self.cancel(run);
        }
    }

    /// The callee's end is over without an answer.
    pub(super) fn abort_stream(&mut self, number: usize) {
        if !self.streams[number].ended {
            self.streams[number].ended = true;
            if let Some(run) = self.streams[number].run
                && !self.mutates(Mutation::KeepHandlers)
            {
                self.cancel(run);
            }
        }
        self.close_stream(number, false);
    }
}
