//! The floors of the library: a module uses its own floor and lower ones, each floor names only the
//! crates that it may name, and files do not import each other in circles.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use names::{Names, PathUse};

mod cycles;
mod fields;
mod names;

/// The modules directly below `src`, by floor.
const FLOORS: &[(usize, &[&str])] = &[
    (1, &["protocol", "foreign"]),
    (2, &["tls", "store", "ambient", "clock", "counters", "latest", "slot", "dials", "lateness"]),
    (3, &["net"]),
    (4, &["pki"]),
    (5, &["node"]),
    (6, &["sim", "service", "metrics"]),
    (7, &["issuer", "testkit", "unstable"]),
];

/// From which floor on a file may name a crate.
const CRATES: [(&str, usize); 5] =
    [("tokio", 2), ("tracing", 2), ("quinn", 3), ("rcgen", 4), ("ractor", 5)];

/// What breaks the rules today. An entry that is not needed any more fails the test: the list only shrinks.
const EXCEPTIONS: &[(&str, &str)] = &[];

#[test]
fn each_module_uses_its_own_floor_and_lower_ones() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = BTreeSet::new();
    for file in walkdir::WalkDir::new(&root).sort_by_file_name() {
        let file = file.unwrap();
        if file.path().extension().is_some_and(|extension| extension == "rs") {
            let name = file.path().strip_prefix(&root).unwrap().to_str().unwrap();
            let text = fs::read_to_string(file.path()).unwrap();
            broken.extend(judge(name, &text).into_iter().map(|used| (name.to_owned(), used)));
        }
    }
    let allowed: BTreeSet<_> =
        EXCEPTIONS.iter().map(|(file, used)| ((*file).to_owned(), (*used).to_owned())).collect();
    let news: Vec<_> = broken.difference(&allowed).collect();
    let gone: Vec<_> = allowed.difference(&broken).collect();
    assert!(news.is_empty(), "these files use what stands above them: {news:#?}");
    assert!(gone.is_empty(), "these exceptions are not needed any more: {gone:#?}");
}

#[test]
fn the_check_finds_each_way_to_name_a_module_or_a_crate() {
    let found = |text: &str| judge("protocol/made_up.rs", text);
    for text in [
        "use crate::node::shared::Shared;",
        "use crate::{foreign::Foreign, node};",
        "fn f() { crate::node::go(); }",
        "fn f(x: crate::node::X) {}",
        "fn f() { println!(\"{}\", crate::node::x()); }",
        "pub(in crate::node) fn f() {}",
    ] {
        assert_eq!(found(text), BTreeSet::from(["crate::node".to_owned()]), "{text}");
    }
    assert_eq!(found("use tokio::sync::Mutex;"), BTreeSet::from(["tokio".to_owned()]));
    assert_eq!(
        found("fn f() { ::tracing::info!(\"x\"); }"),
        BTreeSet::from(["tracing".to_owned()])
    );
    assert_eq!(
        found("fn f() { std::fs::read(\"x\"); std::net::x(); }"),
        BTreeSet::from(["std::fs".to_owned(), "std::net".to_owned()])
    );
    // Not a module, so where it stands cannot be told.
    assert_eq!(found("use crate::Config;"), BTreeSet::from(["crate::Config".to_owned()]));
    for text in [
        "use crate::foreign::Foreign; use super::id::NodeId; use std::fmt;",
        "#[cfg(test)] mod tests { use crate::node::shared::Shared; use tokio::time; }",
        "#[cfg(all(test, unix))] mod tests { use crate::node::shared::Shared; }",
        "fn f() { let tokio = 1; g(tokio); }",
    ] {
        assert_eq!(found(text), BTreeSet::new(), "{text}");
    }
}

/// What a file names that it may not name: modules as `crate::name`, others as they are called.
fn judge(file: &str, text: &str) -> BTreeSet<String> {
    let module = file.split('/').next().unwrap().trim_end_matches(".rs");
    if module == "lib" {
        return BTreeSet::new();
    }
    let floors: BTreeMap<&str, usize> = FLOORS
        .iter()
        .flat_map(|(floor, modules)| modules.iter().map(|module| (*module, *floor)))
        .collect();
    let own = *floors.get(module).unwrap_or_else(|| panic!("{module} stands on no floor"));
    let parsed = syn::parse_str(text).unwrap_or_else(|error| panic!("{file}: {error}"));
    Names::of(&parsed, &[])
        .uses
        .into_iter()
        .filter(|PathUse { path, .. }| path.len() > 1)
        .filter_map(|PathUse { path, .. }| {
            let (first, second) = (path[0].as_str(), path.get(1).map_or("", String::as_str));
            let refused = match first {
                "crate" => floors.get(second).is_none_or(|floor| *floor > own),
                "std" if own == 1 => matches!(second, "fs" | "net"),
                name => CRATES.iter().any(|(of, floor)| *of == name && *floor > own),
            };
            let two = matches!(first, "crate" | "std");
            refused.then(|| if two { format!("{first}::{second}") } else { first.to_owned() })
        })
        .collect()
}
