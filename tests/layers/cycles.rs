//! Files that import each other in circles.
//!
//! A file imports another one if it names something that is defined there, by whatever path: a name that a
//! module passes on counts for the file that defines it. To pass a name on is no import, and neither is a
//! method call. Tests are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::names::{By, Names, PathUse};

/// The files that are in circles today, by circle. An entry that is not needed any more fails the test: the
/// list only shrinks.
const EXCEPTIONS: &[&[&str]] = &[];

#[test]
fn files_do_not_import_each_other_in_circles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = BTreeMap::new();
    for file in walkdir::WalkDir::new(&root) {
        let file = file.unwrap();
        if file.path().extension().is_some_and(|extension| extension == "rs") {
            let name = file.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            texts.insert(name, fs::read_to_string(file.path()).unwrap());
        }
    }
    let imports = imports(&texts);
    let found = circles(&imports);
    println!(
        "{} of {} files are in circles",
        found.iter().map(Vec::len).sum::<usize>(),
        texts.len()
    );
    let allowed: BTreeSet<_> = EXCEPTIONS.concat().into_iter().map(str::to_owned).collect();
    let circling: BTreeSet<_> = found.concat().into_iter().collect();
    let news: Vec<_> = circling.difference(&allowed).collect();
    let gone: Vec<_> = allowed.difference(&circling).collect();
    assert!(
        news.is_empty(),
        "these files import each other in circles: {news:#?}{}",
        explained(&imports, &found)
    );
    assert!(gone.is_empty(), "these exceptions are not needed any more: {gone:#?}");
}

#[test]
fn the_check_follows_a_name_to_the_file_that_defines_it() {
    let texts = |files: &[(&str, &str)]| -> BTreeMap<String, String> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    };
    let circling = |files: &[(&str, &str)]| circles(&imports(&texts(files))).concat();
    let lib = ("lib.rs", "mod a; mod b; pub use a::inner::Deep;");
    let inner = ("a/inner.rs", "use crate::b::B; pub struct Deep; pub fn deep() {}");
    for b in [
        "use crate::a::Passed; pub struct B;",
        "use crate::Deep; pub struct B;",
        "use crate::a::{self, inner}; pub struct B; fn f() { inner::deep(); }",
        "pub struct B; fn f() { crate::a::inner::deep(); }",
        "pub struct B(super::Deep);",
        "use crate::a::*; pub struct B(Passed);",
        "pub use crate::a::Passed; pub struct B(Passed);",
    ] {
        let a = ("a.rs", "pub mod inner; pub use self::inner::Deep as Passed;");
        assert_eq!(circling(&[lib, a, inner, ("b.rs", b)]), ["a/inner.rs", "b.rs"], "{b}");
    }
    for b in [
        "pub use crate::a::Passed; pub struct B;",
        "use crate::a::inner; pub struct B;",
        "#[cfg(test)] mod tests { use crate::a::Passed; } pub struct B;",
    ] {
        let a = ("a.rs", "pub mod inner; pub use self::inner::Deep as Passed;");
        assert_eq!(circling(&[lib, a, inner, ("b.rs", b)]), [""; 0], "{b}");
    }
}

/// Which files each file imports.
fn imports(texts: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut files = BTreeMap::new();
    let mut all = Names::default();
    for (name, text) in texts {
        let module = module_of(name);
        let parsed = syn::parse_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let names = Names::of(&parsed, &module);
        all.uses.extend(names.uses);
        all.defined.extend(names.defined);
        all.tests.extend(names.tests);
        files.insert(module, name.clone());
    }
    let crate_names = Crate::new(&all, files);
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for used in &all.uses {
        let from = crate_names.file(&used.module);
        let in_test = all.tests.iter().any(|test| used.module.starts_with(test));
        let passed_on = matches!(used.by, By::Import { again: true, .. } | By::Glob { .. });
        if in_test || passed_on {
            continue;
        }
        let Some(to) = crate_names.defining(used).filter(|to| *to != from) else { continue };
        imports.entry(from.to_owned()).or_default().insert(to.to_owned());
    }
    imports
}

fn module_of(file: &str) -> Vec<String> {
    let mut module = vec!["crate".to_owned()];
    if file != "lib.rs" {
        module.extend(file.trim_end_matches(".rs").split('/').map(str::to_owned));
    }
    module
}

/// Where each name leads.
struct Crate<'a> {
    files: BTreeMap<Vec<String>, String>,
    /// Those in files of their own, and others.
    modules: BTreeSet<Vec<String>>,
    defined: &'a BTreeSet<Vec<String>>,
    imported: BTreeMap<(&'a [String], &'a str), &'a PathUse>,
    globs: BTreeMap<&'a [String], Vec<&'a PathUse>>,
}

impl<'a> Crate<'a> {
    fn new(all: &'a Names, files: BTreeMap<Vec<String>, String>) -> Self {
        let parents = all.defined.iter().map(|defined| defined[..defined.len() - 1].to_vec());
        let modules = files.keys().cloned().chain(parents).collect();
        let (imported, globs) = (BTreeMap::new(), BTreeMap::new());
        let mut this = Self { files, modules, defined: &all.defined, imported, globs };
        for used in &all.uses {
            match &used.by {
                By::Import { name, .. } => {
                    this.imported.insert((&used.module, name), used);
                }
                By::Glob { .. } => this.globs.entry(&used.module).or_default().push(used),
                By::Mention => {}
            }
        }
        this
    }

    /// The file that a module is in.
    fn file(&self, module: &[String]) -> &str {
        let parents = (1..=module.len()).rev().map(|len| &module[..len]);
        parents.filter_map(|parent| self.files.get(parent)).next().map_or("", String::as_str)
    }

    /// The file with the definition that a path leads to; `None`: it leads to a module, or out of the crate.
    fn defining(&self, used: &PathUse) -> Option<&str> {
        let PathUse { module, path, .. } = used;
        let import = !matches!(used.by, By::Mention);
        self.resolve(module, path, import, DEPTH_MAX)
    }

    fn resolve(
        &self,
        module: &[String],
        path: &[String],
        import: bool,
        depth: u32,
    ) -> Option<&str> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.descend(&module[..1], rest, depth),
            "self" => self.descend(module, rest, depth),
            "super" => {
                let parent = &module[..module.len().checked_sub(1)?];
                match rest.first().map(String::as_str) {
                    Some("super") => self.resolve(parent, rest, import, depth),
                    _ => self.descend(parent, rest, depth),
                }
            }
            // Most are local, or defined here.
            _ if !import && rest.is_empty() && !self.is_imported(module, first) => None,
            _ if import && !self.is_module(module, first) => None,
            _ => self.descend(module, path, depth),
        }
    }

    fn descend(&self, module: &[String], path: &[String], depth: u32) -> Option<&str> {
        let (first, rest) = path.split_first()?;
        let depth = depth.checked_sub(1)?;
        let whole = [module, std::slice::from_ref(first)].concat();
        if self.modules.contains(&whole) {
            return self.descend(&whole, rest, depth);
        }
        if self.defined.contains(&whole) {
            return Some(self.file(module));
        }
        if let Some(used) = self.imported.get(&(module, first.as_str())) {
            let onward = [&used.path[..], rest].concat();
            return self.resolve(&used.module, &onward, true, depth);
        }
        let globs = self.globs.get(module).into_iter().flatten();
        globs
            .filter_map(|glob| {
                let onward = [&glob.path[..], path].concat();
                self.resolve(&glob.module, &onward, true, depth)
            })
            .next()
    }

    fn is_imported(&self, module: &[String], name: &str) -> bool {
        self.globs.contains_key(module) || self.imported.contains_key(&(module, name))
    }

    fn is_module(&self, module: &[String], name: &str) -> bool {
        self.modules.contains(&[module, &[name.to_owned()]].concat())
    }
}

/// The groups of files each of which imports all others of its group, by whatever way.
fn circles(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        imports.keys().map(|file| (file, reach(imports, file))).collect();
    let mut circles = BTreeSet::new();
    for (file, reach) in &reached {
        if reach.contains(file) {
            let both = reach
                .iter()
                .filter(|other| reached.get(**other).is_some_and(|theirs| theirs.contains(file)));
            circles.insert(both.map(|other| (*other).clone()).collect::<Vec<_>>());
        }
    }
    circles.into_iter().collect()
}

fn reach<'a>(
    imports: &'a BTreeMap<String, BTreeSet<String>>,
    file: &String,
) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<_> = imports[file].iter().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(imports.get(file).into_iter().flatten());
        }
    }
    reached
}

fn explained(imports: &BTreeMap<String, BTreeSet<String>>, circles: &[Vec<String>]) -> String {
    let mut text = String::new();
    for circle in circles {
        text += &format!("\n{} files:", circle.len());
        for file in circle {
            let others: Vec<_> = imports[file].iter().filter(|to| circle.contains(to)).collect();
            text += &format!("\n  {file} -> {others:?}");
        }
    }
    text
}

/// Names that are passed on are followed so far.
const DEPTH_MAX: u32 = 32;
