//! A second shell around the machine of the connections. It has no network: it gives the machine the inputs that a
//! tape has recorded, and answers its questions as the shell of the node did.

use std::{cell::RefCell, collections::BTreeMap, fmt, slice::Iter, time::SystemTime};

use gossipmonger::{
    Generation,
    protocol::peering::{ConnectionId, Packets, Peering, Surroundings},
    tape::{Answer, Record},
};

/// Where the machine of the replay does not do what the recorded one did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Which input, from zero.
    pub(crate) entry: usize,
    pub(crate) what: What,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The machine asks something else than it asked then; `None` on the side that asks nothing.
    Question {
        asked: Option<String>,
        recorded: Option<Answer>,
    },
    Outputs {
        replayed: Vec<String>,
        recorded: Vec<String>,
    },
}

/// Gives a new machine the recorded inputs, up to the first difference.
pub(crate) fn replay(record: &Record) -> Result<(), Difference> {
    let config = record.config.clone().expect("the node has not started");
    let mut machine = Peering::new(config);
    for (number, entry) in record.entries.iter().enumerate() {
        let shell = Recorded::new(&entry.answers);
        let mut out = Vec::new();
        machine.handle(entry.now, &shell, entry.input.clone(), &mut out);
        let outputs: Vec<_> = out.iter().map(|output| format!("{output:?}")).collect();
        let what = shell.difference().or_else(|| {
            let recorded = entry.outputs.clone();
            (outputs != recorded).then_some(What::Outputs { replayed: outputs, recorded })
        });
        if let Some(what) = what {
            return Err(Difference { entry: number, what });
        }
    }
    Ok(())
}

/// How many inputs and outputs of each kind there are.
pub(crate) fn kinds(record: &Record) -> [BTreeMap<String, usize>; 2] {
    let mut kinds = [BTreeMap::new(), BTreeMap::new()];
    for entry in &record.entries {
        *kinds[0].entry(kind(&format!("{:?}", entry.input))).or_default() += 1;
        for output in &entry.outputs {
            *kinds[1].entry(kind(output)).or_default() += 1;
        }
    }
    kinds
}

/// The name of a variant.
pub(crate) fn kind(printed: &str) -> String {
    printed.chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// Gives the recorded answers in the recorded order. After the first question that is not the recorded one, the
/// answers mean nothing.
struct Recorded<'a> {
    left: RefCell<Iter<'a, Answer>>,
    difference: RefCell<Option<What>>,
}

impl<'a> Recorded<'a> {
    fn new(answers: &'a [Answer]) -> Self {
        Self { left: RefCell::new(answers.iter()), difference: RefCell::default() }
    }

    /// The next answer, if it is one to this question.
    fn answer<T: Default>(
        &self,
        question: impl fmt::Display,
        is_it: impl FnOnce(Answer) -> Option<T>,
    ) -> T {
        let recorded = self.left.borrow_mut().next().copied();
        recorded.and_then(is_it).unwrap_or_else(|| {
            let asked = Some(question.to_string());
            self.difference.borrow_mut().get_or_insert(What::Question { asked, recorded });
            T::default()
        })
    }

    fn difference(self) -> Option<What> {
        let unasked = self.left.into_inner().next().copied();
        let unasked = unasked.map(|answer| What::Question { asked: None, recorded: Some(answer) });
        self.difference.into_inner().or(unasked)
    }
}

impl Surroundings for Recorded<'_> {
    fn own(&self) -> Generation {
        let own = self.answer("own", |answer| match answer {
            Answer::Own(own) => Some(Some(own)),
            _ => None,
        });
        own.unwrap_or(Generation::ZERO)
    }

    fn wall(&self) -> SystemTime {
        let wall = self.answer("wall", |answer| match answer {
            Answer::Wall(wall) => Some(Some(wall)),
            _ => None,
        });
        wall.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn is_open(&self, connection: ConnectionId) -> bool {
        self.answer(format_args!("is_open {connection:?}"), |answer| match answer {
            Answer::Open(of, open) if of == connection => Some(open),
            _ => None,
        })
    }

    fn received(&self, connection: ConnectionId) -> u64 {
        self.answer(format_args!("received {connection:?}"), |answer| match answer {
            Answer::Received(of, received) if of == connection => Some(received),
            _ => None,
        })
    }

    fn packets(&self, connection: ConnectionId) -> Packets {
        self.answer(format_args!("packets {connection:?}"), |answer| match answer {
            Answer::Packets(of, packets) if of == connection => Some(packets),
            _ => None,
        })
    }
}
