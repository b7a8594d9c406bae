//! A struct of the protocol has few fields: one with many is usually several things, each of which
//! should own its state.

use std::{collections::BTreeSet, fs, path::Path};

use syn::{
    File, ItemStruct,
    visit::{self, Visit},
};

/// Most fields of one struct.
const FIELDS_MAX: usize = 15;

/// What has more today. An entry that is not needed any more fails the test: the list only shrinks.
const EXCEPTIONS: &[(&str, &str)] = &[];

#[test]
fn no_struct_of_the_protocol_has_more_than_fifteen_fields() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut large = BTreeSet::new();
    let (mut files, mut structs) = (0, 0);
    for file in walkdir::WalkDir::new(&root).sort_by_file_name() {
        let file = file.unwrap();
        let name = file.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let is_protocol = name == "protocol.rs" || name.starts_with("protocol/");
        if is_protocol && name.ends_with(".rs") {
            let found = count(&name, &fs::read_to_string(file.path()).unwrap());
            files += 1;
            structs += found.len();
            let found = found.into_iter().filter(|(_, fields)| *fields > FIELDS_MAX);
            large.extend(found.map(|(item, fields)| (name.clone(), item, fields)));
        }
    }
    assert!(files > 40 && structs > 100, "{structs} structs in {files} files: not all were read");
    let news: Vec<_> = large
        .iter()
        .filter(|(file, item, _)| !EXCEPTIONS.contains(&(file.as_str(), item.as_str())))
        .collect();
    let gone: Vec<_> = EXCEPTIONS
        .iter()
        .filter(|(file, item)| !large.iter().any(|found| (found.0 == *file) && found.1 == *item))
        .collect();
    assert!(news.is_empty(), "more than {FIELDS_MAX} fields: {news:#?}");
    assert!(gone.is_empty(), "these exceptions are not needed any more: {gone:#?}");
}

#[test]
fn the_count_finds_each_kind_of_struct() {
    let text = "
        struct None; struct Tuple(u8, u16);
        /// Documented.
        pub struct Named<'a> { a: &'a str, #[allow(dead_code)] b: u8, c: (u8, u8) }
        mod inner { struct Inner { x: u8 } }
    ";
    let found = count("made_up.rs", text);
    let found: Vec<_> = found.iter().map(|(name, fields)| (name.as_str(), *fields)).collect();
    assert_eq!(found, [("None", 0), ("Tuple", 2), ("Named", 3), ("Inner", 1)]);
}

/// The structs of a file, and how many fields each has.
fn count(file: &str, text: &str) -> Vec<(String, usize)> {
    let parsed: File = syn::parse_str(text).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut structs = Structs::default();
    structs.visit_file(&parsed);
    structs.0
}

#[derive(Default)]
struct Structs(Vec<(String, usize)>);

impl Visit<'_> for Structs {
    fn visit_item_struct(&mut self, item: &ItemStruct) {
        self.0.push((item.ident.to_string(), item.fields.len()));
        visit::visit_item_struct(self, item);
    }
}
