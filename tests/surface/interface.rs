//! The items that a user of the library sees, one a line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use public_api::{Builder, PublicApi, PublicItem, tokens::Token};

pub(crate) const UPDATE: &str = ".ci/public-api update";

/// The hidden module. What users need from it has a second path outside.
const HIDDEN: &str = "gossipmonger::protocol";

pub(crate) struct Interface {
    lines: Vec<String>,
    /// How many items have a name that is theirs: neither a field nor a variant, nor part of a trait of others.
    named: usize,
    /// How many are fields and variants.
    parts: usize,
}

impl Interface {
    pub(crate) fn read(root: &Path) -> Self {
        let api = Builder::from_rustdoc_json(root.join("target/doc/gossipmonger.json"))
            .omit_blanket_impls(true)
            .omit_auto_trait_impls(true)
            .omit_auto_derived_impls(true)
            .build()
            .unwrap_or_else(|error| {
                panic!("the CI's version of Rust writes what this can read: {error}")
            });
        let (hidden, shown) = split(&api);
        let implementations: BTreeSet<_> =
            shown.iter().filter(|item| is_of_trait(item)).map(|item| item.id().0).collect();
        let (mut named, mut parts) = (0, 0);
        for item in shown.iter().filter(|item| !is_impl(item)) {
            if kind(item).is_none() {
                parts += 1;
            } else if !item.parent_id().is_some_and(|parent| implementations.contains(&parent.0)) {
                named += 1;
            }
        }
        let paths = second_paths(&hidden, &shown);
        let lines = shown.iter().map(|item| renamed(&item.to_string(), &paths)).collect();
        Self { lines, named, parts }
    }

    /// The types of this crate which an item names, but which have no public path.
    pub(crate) fn absent(&self) -> BTreeSet<String> {
        let listed: BTreeSet<_> =
            self.lines.iter().filter_map(|line| paths_in(line).next()).collect();
        let is_type = |path: &&str| {
            path.rsplit("::")
                .next()
                .is_some_and(|name| name.starts_with(|c: char| c.is_uppercase()))
        };
        self.lines
            .iter()
            .flat_map(|line| paths_in(line).filter(is_type))
            .filter(|path| !listed.contains(path))
            .map(ToOwned::to_owned)
            .collect()
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lines, named, parts } = self;
        writeln!(
            f,
            "# {named} modules, types, traits, functions, methods and constants; {parts} fields and variants."
        )?;
        writeln!(
            f,
            "# Not counted: `impl` lines and the items of a trait's implementation. Derived ones are left out."
        )?;
        writeln!(f, "# Written by `{UPDATE}`.")?;
        lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// `struct`, `fn` and so on. A field and a variant have none, and an `impl` line neither.
fn kind(item: &PublicItem) -> Option<&str> {
    item.tokens()
        .find_map(|token| if let Token::Kind(kind) = token { Some(kind.as_str()) } else { None })
}

fn has_keyword(item: &PublicItem, word: &str) -> bool {
    item.tokens().any(|token| matches!(token, Token::Keyword(keyword) if keyword == word))
}

fn is_impl(item: &PublicItem) -> bool {
    kind(item).is_none() && has_keyword(item, "impl")
}

fn is_of_trait(item: &PublicItem) -> bool {
    is_impl(item) && has_keyword(item, "for")
}

/// The items of the hidden module, and the others. An item is listed below each module that shows it.
fn split(api: &PublicApi) -> (Vec<&PublicItem>, Vec<&PublicItem>) {
    let mut hides = false;
    api.items().partition(|item| {
        let path = item.to_string();
        if let Some(module) = path.strip_prefix("pub mod ") {
            hides = module.starts_with(HIDDEN);
        } else if hides && kind(item).is_some_and(|kind| kind != "fn") && !path.contains(HIDDEN) {
            hides = false;
        }
        hides
    })
}

/// The path outside for each type of the hidden module that has one.
fn second_paths(hidden: &[&PublicItem], shown: &[&PublicItem]) -> BTreeMap<String, String> {
    let path = |item: &PublicItem| paths_in(&item.to_string()).next().map(ToOwned::to_owned);
    let is_type = |item: &&&PublicItem| {
        kind(item).is_some_and(|kind| ["struct", "enum", "trait", "type"].contains(&kind))
    };
    let outside: BTreeMap<_, _> =
        shown.iter().filter(is_type).filter_map(|item| Some((item.id().0, path(item)?))).collect();
    let inside = hidden.iter().filter(is_type);
    inside.filter_map(|item| Some((path(item)?, outside.get(&item.id().0)?.clone()))).collect()
}

/// The line with each path into the hidden module replaced by the one outside.
fn renamed(line: &str, paths: &BTreeMap<String, String>) -> String {
    let mut new = String::new();
    for part in line.split_inclusive(ends_path) {
        let outside = paths.iter().find_map(|(inside, outside)| {
            let rest = part.strip_prefix(inside.as_str())?;
            // A name may begin with another one.
            let is_whole = !rest.starts_with(|c: char| c.is_alphanumeric());
            is_whole.then(|| format!("{outside}{rest}"))
        });
        new.push_str(outside.as_deref().unwrap_or(part));
    }
    new
}

/// The paths of this crate which the line names, the item's own first.
fn paths_in(line: &str) -> impl Iterator<Item = &str> {
    line.split(ends_path)
        .map(|path| path.trim_end_matches(':'))
        .filter(|path| path.starts_with("gossipmonger::"))
}

fn ends_path(c: char) -> bool {
    !(c.is_alphanumeric() || c == '_' || c == ':')
}
