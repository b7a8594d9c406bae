//! The state of a stream, at both ends.

use std::time::Duration;

use super::state::Pipe;
use crate::protocol::{
    id::Generation,
    service::{
        Kind,
        stream::{Beginning, StreamFrames},
    },
    time::Time,
};

/// A stream of one call.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) process: usize,
    pub(super) node: usize,
    pub(super) generation: Generation,
    pub(super) to: Option<usize>,
    pub(super) service: usize,
    pub(super) kind: Kind,
    pub(super) deadline: Time,
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    pub(super) broken: bool,
    // The caller's end.
    pub(super) over: bool,
    pub(super) written: bool,
    pub(super) begun: bool,
    pub(super) answers: StreamFrames,
    pub(super) answered: bool,
    pub(super) arrived: u64,
    /// Items that the caller sends.
    pub(super) sends: u64,
    // The callee's end.
    pub(super) ended: bool,
    pub(super) questions: StreamFrames,
    pub(super) left: Option<Duration>,
    pub(super) run: Option<usize>,
    pub(super) beginning: Beginning,
    pub(super) taken: u64,
    pub(super) items: u64,
    /// The caller has sent its last item.
    pub(super) complete: bool,
}

impl Stream {
    pub(super) fn new(
        process: usize,
        (node, generation): (usize, Generation),
        (service, kind): (usize, Kind),
        deadline: Time,
    ) -> Self {
        Self {
            process,
            node,
            generation,
            to: None,
            service,
            kind,
            deadline,
            up: Pipe::default(),
            down: Pipe::default(),
            broken: false,
            over: false,
            written: false,
            begun: false,
            answers: StreamFrames::new(BODY),
            answered: false,
            arrived: 0,
            sends: 0,
            ended: false,
            questions: StreamFrames::new(BODY),
            left: None,
            run: None,
            beginning: Beginning::default(),
            taken: 0,
            items: 0,
            complete: false,
        }
    }
}

/// The longest body.
const BODY: usize = 100_000;
