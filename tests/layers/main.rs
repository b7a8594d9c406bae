//! The floors of the library: a module uses its own floor and lower ones, and each floor names only the
//! crates that it may name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, File, Item, Macro, UseTree,
    meta::ParseNestedMeta,
    visit::{self, Visit},
};

/// The modules directly below `src`, by floor.
const FLOORS: &[(usize, &[&str])] = &[
    (1, &["protocol", "foreign"]),
    (2, &["tls", "store", "clock", "counters", "latest", "cuts", "dials"]),
    (3, &["transport"]),
    (4, &["pki"]),
    (5, &["actors", "config", "error", "node", "propagation", "snapshot", "subscription"]),
    (6, &["sim"]),
    (7, &["issuer"]),
];

/// From which floor on a file may name a crate.
const CRATES: [(&str, usize); 5] =
    [("tokio", 2), ("tracing", 2), ("quinn", 3), ("rcgen", 4), ("ractor", 5)];

/// What breaks the rules today. An entry that is not needed any more fails the test: the list only shrinks.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("transport.rs", "crate::actors"),
    ("transport.rs", "crate::config"),
    ("transport.rs", "ractor"),
    ("transport/memory.rs", "ractor"),
    ("transport/quic.rs", "ractor"),
    ("transport/quic/actor.rs", "ractor"),
];

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
        "use crate::actors::shared::Shared;",
        "use crate::{foreign::Foreign, actors};",
        "fn f() { crate::actors::go(); }",
        "fn f(x: crate::actors::X) {}",
        "fn f() { println!(\"{}\", crate::actors::x()); }",
        "pub(in crate::actors) fn f() {}",
    ] {
        assert_eq!(found(text), BTreeSet::from(["crate::actors".to_owned()]), "{text}");
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
        "#[cfg(test)] mod tests { use crate::actors::shared::Shared; use tokio::time; }",
        "#[cfg(all(test, unix))] mod tests { use crate::actors::shared::Shared; }",
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
    let mut names = Names::default();
    let parsed: File = syn::parse_str(text).unwrap_or_else(|error| panic!("{file}: {error}"));
    names.visit_file(&parsed);
    names
        .paths
        .into_iter()
        .filter_map(|path| {
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

/// The first two names of every path of a file, tests left out.
#[derive(Default)]
struct Names {
    paths: BTreeSet<Vec<String>>,
}

impl Names {
    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Name(name) => self.note(with(name.ident.to_string())),
            UseTree::Rename(rename) => self.note(with(rename.ident.to_string())),
            UseTree::Glob(_) => self.note(before.to_vec()),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.tree(before, tree));
            }
        }
    }

    fn note(&mut self, mut path: Vec<String>) {
        path.truncate(2);
        self.paths.insert(path);
    }

    /// What a macro is given cannot be parsed: every `a::b` counts.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) if colons == 2 && !path.is_empty() => {
                    path.push(name.to_string());
                    colons = 0;
                    continue;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(name) => {
                    self.end(std::mem::replace(&mut path, vec![name.to_string()]));
                    colons = 0;
                    continue;
                }
                TokenTree::Group(group) => self.tokens(group.stream()),
                _ => {}
            }
            self.end(std::mem::take(&mut path));
            colons = 0;
        }
        self.end(path);
    }

    fn end(&mut self, path: Vec<String>) {
        if path.len() > 1 {
            self.note(path);
        }
    }
}

impl Visit<'_> for Names {
    fn visit_item(&mut self, item: &Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(module) => &module.attrs,
            Item::Use(used) => &used.attrs,
            Item::Fn(function) => &function.attrs,
            Item::Impl(block) => &block.attrs,
            _ => &[],
        };
        if !attributes.iter().any(is_test) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        // A single name is a local one, or was imported.
        if names.len() > 1 {
            self.note(names);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, found: &Macro) {
        self.visit_path(&found.path);
        self.tokens(found.tokens.clone());
    }
}

fn is_test(attribute: &Attribute) -> bool {
    fn needs_test(meta: &ParseNestedMeta<'_>, test: &mut bool) -> syn::Result<()> {
        if meta.path.is_ident("test") {
            *test = true;
        } else if meta.path.is_ident("all") {
            meta.parse_nested_meta(|inner| needs_test(&inner, test))?;
        }
        Ok(())
    }
    let mut test = false;
    if attribute.path().is_ident("cfg") {
        // What is not understood (`feature = "x"`) ends the search: `test` stands first.
        let _ = attribute.parse_nested_meta(|meta| needs_test(&meta, &mut test));
    }
    test
}
