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
