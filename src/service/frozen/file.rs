//! The file of golden bytes.
//!
//! ```text
//! stock 2.1
//! 1 call,idempotent 0 Level question 03746561
//! 1 call,idempotent 0 Level answer 0103
//! 2 gone
//! ```
//!
//! The first line is the service. Each other one is a message: the number of its method, the kind (and whether it is
//! idempotent), the first minor version, the name for people, the part, and the bytes; or the number of a method that is
//! gone.

use std::{collections::BTreeSet, fmt, fs, io, path::Path};

use super::super::{Kind, Method, Service};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) major: u16,
    pub(super) minor: u16,
    pub(super) lines: Vec<Line>,
    /// The numbers of methods that existed once.
    pub(super) gone: BTreeSet<u16>,
}

/// An encoded message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: u16,
    /// The kind of the method, and whether it may run twice for one call.
    kind: String,
    since: u16,
    /// The name of the method, for people.
    pub(super) method: String,
    pub(super) part: String,
    hex: String,
}

impl File {
    /// An empty one.
    pub(super) fn of<S: Service>() -> Self {
        let (name, version) = (S::NAME.to_owned(), S::VERSION);
        let (lines, gone) = (Vec::new(), BTreeSet::new());
        Self { name, major: version.major, minor: version.minor, lines, gone }
    }

    /// Reads a file; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, String> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("it cannot be read: {error}")),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate();
        let head = lines.next().and_then(|(_, head)| {
            let (name, version) = head.split_once(' ')?;
            let (major, minor) = version.split_once('.')?;
            Some((name.to_owned(), major.parse().ok()?, minor.parse().ok()?))
        });
        let (name, major, minor) = head.ok_or("line 1 is not a service, such as stock 2.1")?;
        let mut file = Self { name, major, minor, lines: Vec::new(), gone: BTreeSet::new() };
        for (nth, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let words: Vec<_> = line.split_whitespace().collect();
            let wrong = || format!("line {} is not a message: {line:?}", nth + 1);
            match words[..] {
                [number, "gone"] => {
                    file.gone.insert(number.parse().map_err(|_| wrong())?);
                }
                [number, kind, since, method, part, ref rest @ ..] if rest.len() < 2 => {
                    file.lines.push(Line {
                        number: number.parse().map_err(|_| wrong())?,
                        kind: kind.to_owned(),
                        since: since.parse().map_err(|_| wrong())?,
                        method: method.to_owned(),
                        part: part.to_owned(),
                        // A message may have no bytes.
                        hex: rest.concat(),
                    });
                }
                _ => return Err(wrong()),
            }
        }
        Ok(file)
    }

    /// How the file is not one of this service.
    pub(super) fn is_of_another<S: Service>(&self) -> Option<String> {
        let (Self { name, major, minor, .. }, version) = (self, S::VERSION);
        if name != S::NAME || *major != version.major {
            let (own, own_major) = (S::NAME, version.major);
            return Some(format!(
                "it is of {name} {major}, and the service is {own} {own_major}: each major version has a file of its own"
            ));
        }
        let earlier = version.minor < *minor;
        earlier.then(|| format!("it is of {name} {major}.{minor}, and the service is {version}"))
    }
}

impl Line {
    pub(super) fn new(method: &Method, part: &str, bytes: &[u8]) -> Self {
        Self {
            number: method.number,
            kind: format!(
                "{}{}",
                word(method.kind),
                if method.idempotent { IDEMPOTENT } else { "" }
            ),
            since: method.since,
            method: method.name.to_owned(),
            part: part.to_owned(),
            hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// How the message is another one than before, if it is. The name of a method may change.
    pub(super) fn differs(&self, now: &Self) -> Option<String> {
        if (&self.kind, self.since) != (&now.kind, now.since) {
            let (kind, since) = (&self.kind, self.since);
            return Some(format!(
                "it was a {kind} since {since}, and is a {} since {}",
                now.kind, now.since
            ));
        }
        let (part, hex) = (&self.part, &self.hex);
        let differs = (part, hex) != (&now.part, &now.hex);
        differs.then(|| format!("the {part} was {hex}, and the {} is {}", now.part, now.hex))
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}.{}", self.name, self.major, self.minor)?;
        let mut lines: Vec<_> = self.lines.iter().collect();
        // The messages of a method keep their order.
        lines.sort_by_key(|line| line.number);
        for Line { number, kind, since, method, part, hex } in lines {
            writeln!(f, "{}", format!("{number} {kind} {since} {method} {part} {hex}").trim_end())?;
        }
        self.gone.iter().try_for_each(|number| writeln!(f, "{number} gone"))
    }
}

/// The word for a kind of methods in `service!`.
const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Call => "call",
        Kind::Cast => "cast",
        Kind::ServerStream => "stream",
        Kind::ClientStream => "collect",
        Kind::Duplex => "duplex",
    }
}

/// Behind the kind of a method that may run twice.
const IDEMPOTENT: &str = ",idempotent";
