//! The paths that a file names, tests left out.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, File, Item, ItemMod, ItemUse, Macro, UseTree, Visibility,
    meta::ParseNestedMeta,
    visit::{self, Visit},
};

/// A path, and where it is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PathUse {
    /// The module that names it.
    pub(crate) module: Vec<String>,
    /// Its names, as they are written; a glob is the path before the `*`.
    pub(crate) path: Vec<String>,
    /// How it is named.
    pub(crate) by: By,
}

/// How a path is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum By {
    /// A `use`: by this name from then on.
    Import {
        /// The name.
        name: String,
        /// Others may use the name as well.
        again: bool,
    },
    /// A `use` of all that is there.
    Glob {
        /// Others may use the names as well.
        again: bool,
    },
    /// In an expression, a type, a macro.
    Mention,
}

/// What a file names and what it defines.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The paths.
    pub(crate) uses: BTreeSet<PathUse>,
    /// Modules and items, by their whole path.
    pub(crate) defined: BTreeSet<Vec<String>>,
    /// Modules in files of their own that only tests have.
    pub(crate) tests: BTreeSet<Vec<String>>,
    module: Vec<String>,
}

impl Names {
    /// Those of a file that is this module.
    pub(crate) fn of(file: &File, module: &[String]) -> Self {
        let mut names = Self { module: module.to_vec(), ..Self::default() };
        names.visit_file(file);
        names
    }

    fn tree(&mut self, before: &[String], tree: &UseTree, again: bool) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&with(path.ident.to_string()), &path.tree, again),
            UseTree::Name(name) if name.ident == "self" => {
                let name = before.last().cloned().unwrap_or_default();
                self.note(before.to_vec(), By::Import { name, again });
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                self.note(with(name.clone()), By::Import { name, again });
            }
            UseTree::Rename(rename) => {
                let name = rename.rename.to_string();
                self.note(with(rename.ident.to_string()), By::Import { name, again });
            }
            UseTree::Glob(_) => self.note(before.to_vec(), By::Glob { again }),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.tree(before, tree, again));
            }
        }
    }

    fn note(&mut self, path: Vec<String>, by: By) {
        self.uses.insert(PathUse { module: self.module.clone(), path, by });
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
            self.note(path, By::Mention);
        }
    }

    fn define(&mut self, name: &syn::Ident) {
        self.defined.insert([&self.module[..], &[name.to_string()]].concat());
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
        let test = attributes.iter().any(is_test);
        match item {
            Item::Mod(module) if test => {
                let name = module.ident.to_string();
                self.tests.insert([&self.module[..], &[name]].concat());
            }
            Item::Mod(ItemMod { ident, .. }) => self.define(ident),
            Item::Const(item) => self.define(&item.ident),
            Item::Enum(item) => self.define(&item.ident),
            Item::Fn(item) => self.define(&item.sig.ident),
            Item::Static(item) => self.define(&item.ident),
            Item::Struct(item) => self.define(&item.ident),
            Item::Trait(item) => self.define(&item.ident),
            Item::Type(item) => self.define(&item.ident),
            Item::Macro(item) => item.ident.iter().for_each(|name| self.define(name)),
            _ => {}
        }
        if !test {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &ItemUse) {
        self.tree(&[], &item.tree, !matches!(item.vis, Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note(names, By::Mention);
        visit::visit_path(self, path);
    }

    fn visit_vis_restricted(&mut self, vis: &syn::VisRestricted) {
        // `pub(crate)` and the like have one name, or say where a module is.
        self.visit_path(&vis.path);
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
