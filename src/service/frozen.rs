//! Golden bytes of a service: a test that fails when a released method has changed on the wire.
//!
//! The compiler does not see that a field was moved, or an enum's variant added in the middle: both ends compile, and
//! nodes of two versions misunderstand each other. So a file beside the tests keeps, for each method of a service, the
//! encoded bytes of examples. It is text, one message a line, and belongs into version control.
//!
//! It is part of the feature `testkit`, since it writes files at the wish of an environment variable: no program
//! needs it.

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    Call, Cast, ClientStream, Duplex, Method, ServerStream, Service,
    codec::{Codec, CodecError},
    messages::{decode, encode},
};

mod file;

use self::file::{File, Line};

/// Begins to compare the messages of a service with those in a file. Give it an example of each method's messages, and
/// let it [`check`](Frozen::check) them. `path` is relative to the directory of the test's package.
///
/// ```no_run
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Level { item: String }
/// #[derive(Serialize, Deserialize)]
/// struct Counted { item: String, count: u32 }
///
/// gossipmonger::service! {
///     struct Stock = "stock", 2.1;
///     1: call Level -> Option<u32>, idempotent;
///     2: cast Counted, since 1;
/// }
///
/// // #[test]
/// fn released_messages_keep_their_bytes() {
///     gossipmonger::service::frozen::<Stock>("tests/stock-2.golden")
///         .call(&Level { item: "tea".into() }, &Some(3))
///         .cast(&Counted { item: "tea".into(), count: 7 })
///         .check();
/// }
/// ```
///
/// With `GOLDEN=update` in the environment, the test writes the file: it adds what is new, and marks the methods that
/// are gone. It never changes what the file has, and a new method has to be `since` a later minor version than that of
/// the file: callers ask no earlier node for it. To change what was never released, remove the lines of its method and
/// put the last released version in the first line of the file, or remove the file if there was none.
pub fn frozen<S: Service>(path: impl Into<PathBuf>) -> Frozen<S> {
    Frozen { path: path.into(), lines: Vec::new(), faults: Vec::new(), service: PhantomData }
}

/// Examples of the messages of a service. A method may have several, for the variants of an enum for example; they are
/// compared in order.
#[must_use = "nothing is compared before `check`"]
#[derive(Debug)]
pub struct Frozen<S> {
    path: PathBuf,
    lines: Vec<Line>,
    faults: Vec<String>,
    service: PhantomData<S>,
}

impl<S: Service> Frozen<S> {
    /// An example of a method that is called.
    pub fn call<M: Call<Service = S>>(self, question: &M, answer: &M::Reply) -> Self
    where
        S::Codec: Codec<M> + Codec<M::Reply>,
    {
        self.message(M::METHOD, "question", question).message(M::METHOD, "answer", answer)
    }

    /// An example of a message without an answer.
    pub fn cast<M: Cast<Service = S>>(self, message: &M) -> Self
    where
        S::Codec: Codec<M>,
    {
        self.message(M::METHOD, "question", message)
    }

    /// An example of a question, and of an item of its answer.
    pub fn stream<M: ServerStream<Service = S>>(self, question: &M, item: &M::Item) -> Self
    where
        S::Codec: Codec<M> + Codec<M::Item>,
    {
        self.message(M::METHOD, "question", question).message(M::METHOD, "item", item)
    }

    /// An example of a question, of an item behind it, and of the answer.
    pub fn collect<M: ClientStream<Service = S>>(
        self,
        question: &M,
        item: &M::Item,
        answer: &M::Reply,
    ) -> Self
    where
        S::Codec: Codec<M> + Codec<M::Item> + Codec<M::Reply>,
    {
        let frozen = self.message(M::METHOD, "question", question);
        frozen.message(M::METHOD, "item", item).message(M::METHOD, "answer", answer)
    }

    /// An example of a question with bytes behind it.
    pub fn duplex<M: Duplex<Service = S>>(self, question: &M) -> Self
    where
        S::Codec: Codec<M>,
    {
        self.message(M::METHOD, "question", question)
    }

    /// Compares the examples with the file; with `GOLDEN=update` in the environment it writes the file first.
    ///
    /// # Panics
    /// If a method of the service has no example; if a method, or an example, is not in the file, or only there; if
    /// the bytes of an example, the kind, the first minor version or `idempotent` of a method differ from the file; if
    /// a method that is not in the file is not since a later minor version than the file's; if a message cannot be
    /// encoded, or its bytes cannot be decoded; if the file is of another service or major version, or of a later minor
    /// version; if the file cannot be read or written. The message names all of it.
    #[track_caller]
    pub fn check(self) {
        let update = env::var_os(VARIABLE).is_some_and(|value| value == "update");
        if let Err(faults) = self.compare(update) {
            panic!("{faults}");
        }
    }

    /// Writes the file, as [`check`](Self::check) does with `GOLDEN=update`, and compares.
    ///
    /// # Panics
    /// As [`check`](Self::check).
    #[track_caller]
    pub fn update(self) {
        if let Err(faults) = self.compare(true) {
            panic!("{faults}");
        }
    }

    fn message<T>(mut self, method: Method, part: &'static str, message: &T) -> Self
    where
        S::Codec: Codec<T>,
    {
        match round_trip::<S, T>(message) {
            Ok(bytes) => self.lines.push(Line::new(&method, part, &bytes)),
            Err(error) => self.faults.push(format!("the {part} of {}: {error}", Named(&method))),
        }
        self
    }

    fn compare(mut self, update: bool) -> Result<(), Faults> {
        let path = self.path.clone();
        self.check_methods();
        match File::read(&path) {
            Ok(Some(file)) => self.compare_with(file, update),
            Ok(None) if update => {
                let lines = self.lines.clone();
                self.write(&File { lines, ..File::of::<S>() });
            }
            Ok(None) => self.faults.push("there is no such file".to_owned()),
            Err(error) => self.faults.push(error),
        }
        match self.faults {
            faults if faults.is_empty() => Ok(()),
            faults => Err(Faults { path, faults }),
        }
    }

    /// Each method of the service has an example.
    fn check_methods(&mut self) {
        for method in S::METHODS {
            if !self.lines.iter().any(|line| line.number == method.number) {
                self.faults.push(format!("{} has no example", Named(method)));
            }
            if method.since > S::VERSION.minor {
                let (since, minor) = (method.since, S::VERSION.minor);
                self.faults.push(format!(
                    "{} is since minor version {since}, and the service has only {minor}",
                    Named(method)
                ));
            }
        }
    }

    fn compare_with(&mut self, mut file: File, update: bool) {
        if let Some(fault) = file.is_of_another::<S>() {
            return self.faults.push(fault);
        }
        let (old, new) = (by_method(&file.lines), by_method(&self.lines));
        let mut faults = Vec::new();
        let mut fresh = Vec::new();
        for method in S::METHODS {
            let named = Named(method);
            if file.gone.contains(&method.number) {
                faults.push(format!("{named} has the number of a method that is gone"));
            }
            let lines = new.get(&method.number).map_or(&[][..], Vec::as_slice);
            let kept = old.get(&method.number).map_or(&[][..], Vec::as_slice);
            if kept.is_empty() && method.since <= file.minor && !file.gone.contains(&method.number)
            {
                let (since, released) = (method.since, file.minor);
                faults.push(format!(
                    "{named} is new, and since minor version {since}: nodes of {released} may lack it, so it is since {} at least",
                    released.saturating_add(1),
                ));
            }
            for (nth, line) in lines.iter().enumerate() {
                let Some(kept) = kept.get(nth) else {
                    fresh.push((*line).clone());
                    continue;
                };
                faults.extend(kept.differs(line).map(|how| format!("{named}: {how}")));
            }
            if lines.len() < kept.len() && !lines.is_empty() {
                let (has, had) = (lines.len(), kept.len());
                faults.push(format!("{named}: the file has {had} messages, the test gives {has}"));
            }
        }
        let is_left = |number: &u16| S::METHODS.iter().any(|method| method.number == *number);
        let vanished: Vec<_> = old.keys().copied().filter(|number| !is_left(number)).collect();
        if update && faults.is_empty() && self.faults.is_empty() {
            file.lines.retain(|line| is_left(&line.number));
            file.lines.extend(fresh);
            file.gone.extend(vanished);
            file.minor = S::VERSION.minor;
            return self.write(&file);
        }
        let missing = |line: &Line| format!("{}: {} is not in the file", line.method, line.part);
        faults.extend(fresh.iter().map(missing));
        faults.extend(
            vanished.iter().map(|number| format!("method {number} was released, and is gone")),
        );
        self.faults.extend(faults);
    }

    fn write(&mut self, file: &File) {
        if !self.faults.is_empty() {
            return;
        }
        if let Err(error) = write(&self.path, &file.to_string()) {
            self.faults.push(format!("it cannot be written: {error}"));
        }
    }
}

/// The bytes of a message, which can be read again.
fn round_trip<S: Service<Codec: Codec<T>>, T>(message: &T) -> Result<Bytes, CodecError> {
    let bytes = encode::<S, T>(message)?;
    let again = encode::<S, T>(&decode::<S, T>(bytes.clone())?)?;
    match again == bytes {
        true => Ok(bytes),
        false => Err(CodecError::new("what was decoded is another message")),
    }
}

fn by_method(lines: &[Line]) -> BTreeMap<u16, Vec<&Line>> {
    let mut methods: BTreeMap<u16, Vec<&Line>> = BTreeMap::new();
    lines.iter().for_each(|line| methods.entry(line.number).or_default().push(line));
    methods
}

/// Writes a whole file, or leaves the old one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

/// A method, for people.
struct Named<'a>(&'a Method);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "method {} {}", self.0.number, self.0.name)
    }
}

/// All that differs.
#[derive(Debug)]
struct Faults {
    path: PathBuf,
    faults: Vec<String>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not fit the service:", self.path.display())?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))?;
        write!(
            f,
            "\nA released message never changes: see \"Upgrades\" in docs/services.md. {VARIABLE}=update adds what is new."
        )
    }
}

/// The environment variable that has the file written, if it is `update`.
const VARIABLE: &str = "GOLDEN";

#[cfg(test)]
mod tests;
