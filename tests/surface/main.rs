//! The public interface of the library is the one in `docs/public-api.txt`. It is closed: each type that it names
//! is part of it. It names nothing of bincode, which encodes the messages.
//!
//! rustdoc describes the interface in JSON; `.ci/public-api` asks it to, and then runs these tests.

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use interface::{Interface, UPDATE};

mod interface;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
#[ignore = "needs rustdoc's JSON: run .ci/public-api"]
fn the_public_interface_is_the_committed_list() {
    let path = root().join("docs/public-api.txt");
    let now = Interface::read(&root()).to_string();
    if env::var("PUBLIC_API").is_ok_and(|mode| mode == "update") {
        fs::write(path, now).unwrap();
        return;
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (before.lines().collect(), now.lines().collect());
    for line in old.difference(&new) {
        println!("-{line}");
    }
    for line in new.difference(&old) {
        println!("+{line}");
    }
    assert!(before == now, "the public interface has changed; if it should have: {UPDATE}");
}

#[test]
#[ignore = "needs rustdoc's JSON: run .ci/public-api"]
fn each_type_that_the_interface_names_is_part_of_it() {
    let absent = Interface::read(&root()).absent();
    assert!(absent.is_empty(), "types without a public path: {absent:#?}");
}

#[test]
fn the_public_interface_names_nothing_of_bincode() {
    let list = fs::read_to_string(root().join("docs/public-api.txt")).unwrap();
    let named: Vec<_> = list.lines().filter(|line| line.contains("bincode")).collect();
    assert!(named.is_empty(), "a user would depend on how it encodes: {named:#?}");
}

/// Most items of the interface outside `service`, as the page "All items" of rustdoc counts them: modules, types, traits,
/// free functions, constants and macros. Methods, fields and variants belong to one of them.
const ITEMS_MAX: usize = 200;

#[test]
fn the_interface_without_services_stays_small() {
    let list = fs::read_to_string(root().join("docs/public-api.txt")).unwrap();
    let items: BTreeSet<_> = list.lines().filter_map(item).collect();
    let (services, others): (Vec<&str>, Vec<_>) =
        items.into_iter().partition(|path| path.starts_with("gossipmonger::service"));
    println!("{} items, and {} of services", others.len(), services.len());
    assert!(others.len() <= ITEMS_MAX, "{} items: {others:#?}", others.len());
    assert!(others.len() > 100 && services.len() > 50, "the list is not read as it should be");
}

const KINDS: [&str; 10] =
    ["mod", "struct", "enum", "trait", "fn", "const", "type", "macro", "static", "union"];

/// The path of an item with a name of its own in a line of the list.
fn item(line: &str) -> Option<&str> {
    let words: Vec<_> = line.split(' ').skip_while(|word| *word != "pub").skip(1).collect();
    let (["const" | "async" | "unsafe", "fn", path, ..] | ["unsafe", "trait", path, ..]) =
        words[..]
    else {
        let [kind, path, ..] = words[..] else { return None };
        return KINDS.contains(&kind).then(|| own_path(path))?;
    };
    own_path(path)
}

/// The path without what follows it, unless it is that of a part of a type.
fn own_path(path: &str) -> Option<&str> {
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let path = path[..end.unwrap_or(path.len())].trim_end_matches(':');
    let (of, _) = path.rsplit_once("::")?;
    let of = of.rsplit("::").next().unwrap_or(of);
    (!of.starts_with(|c: char| c.is_uppercase())).then_some(path)
}
