//! The callee's half of a lane: which frames a caller may send, and which of its requests run.

use std::collections::BTreeMap;

use super::{
    ServiceId,
    calls::BINDS_MAX,
    frame::{Cast, Frame, Hello, Request},
};
use crate::protocol::time::Time;

/// Requests of one lane that run or wait, at most. A caller sends no more than its own limit, which is the same by
/// default.
pub const RUNNING_MAX: usize = 1_024;

/// A frame from the caller, checked.
#[derive(Debug)]
pub enum Arrived<'a, S, R> {
    /// The caller introduces itself.
    Hello(Hello),
    /// The caller will name this service by the next number. The answer is [`Intake::bind`].
    Bind(ServiceId),
    /// A request. If it runs, [`Intake::began`] must follow.
    Request(&'a S, Request),
    /// A request too many: it is to be refused.
    TooMany(Request),
    /// A message without an answer.
    Cast(&'a S, Cast),
    /// The caller does not wait for this one any more.
    Cancelled(R),
    /// A frame of no consequence: the cancel of a request that has been answered.
    Nothing,
}

/// How a caller breaks the protocol. The lane must be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The first frame is not an introduction, or a later one is.
    #[error("the introduction is not the first frame, or not the only one")]
    Introduction,
    /// The numbers of services do not follow each other, or are too many.
    #[error("it binds a service to the number {found} where {expected} comes next")]
    Bind {
        /// The next number.
        expected: u32,
        /// The number in the frame.
        found: u32,
    },
    /// A frame names a service that was not bound.
    #[error("it names the service {0}, which it has not bound")]
    Unbound(u32),
    /// Two requests have one id.
    #[error("it sends a second request {0} before the answer to the first")]
    Twice(u64),
    /// Too many requests or messages name actors that were never exposed.
    #[error("it guesses the numbers of exposed actors")]
    Guesses,
    /// A frame that only the other end sends.
    #[error("it sends a frame that only a callee sends")]
    Direction,
}

/// The callee's half of one lane. `S` is a bound service, `R` a running request.
#[derive(Debug)]
pub struct Intake<S, R> {
    introduced: bool,
    services: Vec<S>,
    running: BTreeMap<u64, (R, Time)>,
    /// No deadline is earlier.
    earliest: Option<Time>,
}

impl<S, R> Default for Intake<S, R> {
    fn default() -> Self {
        Self { introduced: false, services: Vec::new(), running: BTreeMap::new(), earliest: None }
    }
}

impl<S, R> Intake<S, R> {
    /// Checks a frame of the caller.
    ///
    /// # Errors
    /// [`Violation`]: the lane must be closed.
    pub fn frame(&mut self, frame: Frame) -> Result<Arrived<'_, S, R>, Violation> {
        if self.introduced == matches!(frame, Frame::Hello(_) | Frame::ClientHello(_)) {
            return Err(Violation::Introduction);
        }
        Ok(match frame {
            Frame::Hello(hello) => {
                self.introduced = true;
                Arrived::Hello(hello)
            }
            // Judged by the owner of the lane: it says nothing else about the caller.
            Frame::ClientHello(_) => {
                self.introduced = true;
                Arrived::Nothing
            }
            Frame::Bind { index, service } => {
                let expected = self.services.len() as u32;
                if index != expected || self.services.len() >= BINDS_MAX {
                    return Err(Violation::Bind { expected, found: index });
                }
                Arrived::Bind(service)
            }
            Frame::Request(request) => {
                if self.running.contains_key(&request.id) {
                    return Err(Violation::Twice(request.id));
                }
                if self.running.len() >= RUNNING_MAX {
                    return Ok(Arrived::TooMany(request));
                }
                Arrived::Request(self.service(request.index)?, request)
            }
            Frame::Cast(cast) => Arrived::Cast(self.service(cast.index)?, cast),
            Frame::Cancel { id } => match self.running.remove(&id) {
                Some((running, _)) => Arrived::Cancelled(running),
                None => Arrived::Nothing,
            },
            Frame::Welcome | Frame::Drain | Frame::Reply { .. } | Frame::Refuse { .. } => {
                return Err(Violation::Direction);
            }
        })
    }

    fn service(&self, index: u32) -> Result<&S, Violation> {
        self.services.get(index as usize).ok_or(Violation::Unbound(index))
    }

    /// Gives the next number to a service.
    pub fn bind(&mut self, service: S) {
        self.services.push(service);
    }

    /// A request runs, or waits for room.
    pub fn began(&mut self, id: u64, running: R, deadline: Time) {
        self.running.insert(id, (running, deadline));
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
    }

    /// A request has an answer; returns whether the caller still waits for it.
    pub fn finished(&mut self, id: u64) -> bool {
        self.running.remove(&id).is_some()
    }

    /// The requests whose deadline has passed, by id: they are to be aborted, since no caller waits for an answer.
    pub fn late(&mut self, now: Time) -> Vec<R> {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return Vec::new();
        }
        let is_late = |(_, deadline): &(R, Time)| *deadline <= now;
        let late = self.running.iter().filter(|(_, held)| is_late(held)).map(|(id, _)| *id);
        let late: Vec<_> = late.collect();
        let late: Vec<_> = late.iter().filter_map(|id| self.running.remove(id)).collect();
        self.earliest = self.running.values().map(|(_, deadline)| *deadline).min();
        late.into_iter().map(|(running, _)| running).collect()
    }

    /// When [`Intake::late`] has something to do at the earliest.
    #[must_use]
    pub const fn wake(&self) -> Option<Time> {
        self.earliest
    }

    /// The lane has ended: all its requests, by id, are to be aborted.
    pub fn end(&mut self) -> Vec<R> {
        std::mem::take(&mut self.running).into_values().map(|(running, _)| running).collect()
    }

    /// Requests that run or wait.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{
        super::{ServiceName, frame::ClientHello, identity::Tag},
        *,
    };
    use crate::protocol::id::{ClusterId, Generation, NodeId};

    fn hello() -> Frame {
        Frame::Hello(Hello {
            cluster: ClusterId::new("demo").unwrap(),
            node: NodeId::new("a").unwrap(),
            generation: Generation(1),
            expected: Generation(2),
            features: 0,
        })
    }

    fn bind(index: u32) -> Frame {
        let service = ServiceId { name: ServiceName::new("stock").unwrap(), major: 1 };
        Frame::Bind { index, service }
    }

    fn request(index: u32, id: u64) -> Frame {
        Frame::Request(Request {
            index,
            id,
            method: 1,
            left_ms: 100,
            tag: Tag::default(),
            body: Bytes::new(),
        })
    }

    fn open() -> Intake<&'static str, u32> {
        let mut intake = Intake::default();
        assert!(matches!(intake.frame(hello()), Ok(Arrived::Hello(_))));
        assert!(matches!(intake.frame(bind(0)), Ok(Arrived::Bind(_))));
        intake.bind("stock");
        intake
    }

    #[test]
    fn nothing_comes_before_the_introduction_and_no_second_one_after_it() {
        for frame in [bind(0), request(0, 1), Frame::Cancel { id: 1 }] {
            let refused = Intake::<&str, u32>::default().frame(frame).unwrap_err();
            assert_eq!(refused, Violation::Introduction);
        }
        let client = || Frame::ClientHello(ClientHello { expected: Generation(2), features: 0 });
        assert_eq!(open().frame(hello()).unwrap_err(), Violation::Introduction);
        assert_eq!(open().frame(client()).unwrap_err(), Violation::Introduction);
        let mut intake = Intake::<&str, u32>::default();
        assert!(intake.frame(client()).is_ok() && intake.frame(hello()).is_err());
    }

    #[test]
    fn numbers_of_services_follow_each_other() {
        let expected = Violation::Bind { expected: 1, found: 2 };
        assert_eq!(open().frame(bind(2)).unwrap_err(), expected);
        assert_eq!(open().frame(request(1, 1)).unwrap_err(), Violation::Unbound(1));
        let mut intake = open();
        for index in 1..BINDS_MAX as u32 {
            intake.frame(bind(index)).unwrap();
            intake.bind("another");
        }
        assert!(intake.frame(bind(BINDS_MAX as u32)).is_err());
    }

    #[test]
    fn a_caller_sends_no_frames_of_a_callee() {
        assert_eq!(open().frame(Frame::Welcome).unwrap_err(), Violation::Direction);
        let reply = Frame::Reply { id: 0, load: 0, body: Bytes::new() };
        assert_eq!(open().frame(reply).unwrap_err(), Violation::Direction);
    }

    #[test]
    fn an_id_is_used_once_at_a_time_and_no_more_run_than_allowed() {
        let mut intake = open();
        for id in 0..RUNNING_MAX as u64 {
            assert!(matches!(intake.frame(request(0, id)), Ok(Arrived::Request(&"stock", _))));
            intake.began(id, 0, Time::ZERO);
        }
        assert_eq!(intake.frame(request(0, 3)).unwrap_err(), Violation::Twice(3));
        assert!(matches!(intake.frame(request(0, 5_000)), Ok(Arrived::TooMany(_))));
        assert!(intake.finished(3) && !intake.finished(3));
        assert!(matches!(intake.frame(request(0, 3)), Ok(Arrived::Request(..))));
    }

    #[test]
    fn what_is_cancelled_late_or_cut_off_is_aborted_once() {
        let mut intake = open();
        let at = |ms| Time::from_origin(std::time::Duration::from_millis(ms));
        for (id, deadline) in [(1, 10), (2, 20), (3, 30)] {
            intake.frame(request(0, id)).unwrap();
            intake.began(id, id as u32, at(deadline));
        }
        assert!(matches!(intake.frame(Frame::Cancel { id: 1 }), Ok(Arrived::Cancelled(1))));
        assert!(matches!(intake.frame(Frame::Cancel { id: 1 }), Ok(Arrived::Nothing)));
        assert_eq!(intake.late(at(9)), [0_u32; 0]);
        assert_eq!(intake.late(at(20)), [2]);
        assert_eq!((intake.wake(), intake.end(), intake.running()), (Some(at(30)), vec![3], 0));
    }

    #[test]
    fn requests_are_aborted_in_the_order_of_their_ids() {
        let begun = || {
            let mut intake = open();
            for id in (0..100).rev() {
                intake.frame(request(0, id)).unwrap();
                intake.began(id, id as u32, Time::ZERO);
            }
            intake
        };
        let expected: Vec<u32> = (0..100).collect();
        assert_eq!((begun().late(Time::ZERO), begun().end()), (expected.clone(), expected));
    }
}
