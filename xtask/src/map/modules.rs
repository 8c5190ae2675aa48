//! The modules of a crate with the names in each, and the resolution of a path to the file that defines the item.

use super::{
    graph::{Graph, Import},
    paths::{Named, Paths, attributes, is_test_only},
    sources::Sources,
};
use crate::errors::Result;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use syn::visit::Visit;

/// A chain of `pub use` longer than this is treated as a cycle.
const HOPS: usize = 24;

/// The meaning of a name in a module.
enum Meaning {
    /// A child module.
    Module(usize),
    /// Something defined here.
    Item,
    /// An item imported by `use`, with the path that it is imported from.
    Import(Vec<String>),
}

struct Module {
    parent: Option<usize>,
    file: PathBuf,
    names: BTreeMap<String, Vec<Meaning>>,
    /// Paths of `use path::*`.
    globs: Vec<Vec<String>>,
    has_children: bool,
    paths: Paths,
}

/// The target of a path.
#[derive(Clone, Copy)]
enum Place {
    Module(usize),
    /// An item that the module defines.
    Item(usize),
}

/// The modules of one crate, without those of tests.
struct Crate<'a> {
    sources: &'a Sources,
    modules: Vec<Module>,
    /// Modules that define a `macro_rules!`, by its name.
    macros: BTreeMap<String, usize>,
}

/// Adds the imports between the files of the crate with the root file `root` to `graph`.
pub fn add_crate(graph: &mut Graph, sources: &Sources, root: &Path) -> Result<()> {
    let mut this = Crate { sources, modules: Vec::new(), macros: BTreeMap::new() };
    let folder = root.parent().unwrap_or(Path::new(""));
    this.read_file(None, root, folder)?;
    for module in 0..this.modules.len() {
        this.add_imports(graph, module);
    }
    Ok(())
}

impl Crate<'_> {
    /// Reads the file of a module, whose children's files are in `folder`. Returns `None` if the whole file is for tests.
    fn read_file(&mut self, parent: Option<usize>, path: &Path, folder: &Path) -> Result<Option<usize>> {
        let text = self.sources.files.get(path).ok_or_else(|| format!("{} is missing", path.display()))?;
        let file = syn::parse_file(text)
            .map_err(|e| format!("{}:{}: cannot be parsed: {e}", path.display(), e.span().start().line))?;
        if is_test_only(&file.attrs) {
            return Ok(None);
        }
        self.read_items(parent, path, folder, &file.items).map(Some)
    }

    fn read_items(&mut self, parent: Option<usize>, file: &Path, folder: &Path, items: &[syn::Item]) -> Result<usize> {
        let this = self.modules.len();
        self.modules.push(Module {
            parent,
            file: file.to_owned(),
            names: BTreeMap::new(),
            globs: Vec::new(),
            has_children: false,
            paths: Paths::default(),
        });
        let mut paths = Paths::default();
        for item in items.iter().filter(|item| !is_test_only(attributes(item))) {
            if let syn::Item::Mod(child) = item {
                self.read_child(this, file, folder, child)?;
                continue;
            }
            paths.visit_item(item);
            if let syn::Item::Macro(definition) = item
                && let Some(name) = &definition.ident
            {
                self.macros.insert(name.to_string(), this);
            }
            for name in defined(item) {
                self.name(this, name, Meaning::Item);
            }
        }
        for import in &paths.imports {
            match &import.name {
                Some(name) if name != "_" => self.name(this, name.clone(), Meaning::Import(import.named.parts.clone())),
                Some(_) => {}
                None => self.modules[this].globs.push(import.named.parts.clone()),
            }
        }
        self.modules[this].paths = paths;
        Ok(this)
    }

    fn read_child(&mut self, parent: usize, file: &Path, folder: &Path, child: &syn::ItemMod) -> Result<()> {
        let name = child.ident.to_string();
        let inner = folder.join(&name);
        let read = match (&child.content, path_attribute(&child.attrs)) {
            (Some((_, items)), _) => Some(self.read_items(Some(parent), file, &inner, items)?),
            (None, Some(path)) => {
                let path = plain(&file.parent().unwrap_or(Path::new("")).join(path));
                let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                self.read_file(Some(parent), &path, &folder)?
            }
            (None, None) => {
                let flat = folder.join(format!("{name}.rs"));
                let path = if self.sources.files.contains_key(&flat) { flat } else { inner.join("mod.rs") };
                self.read_file(Some(parent), &path, &inner)?
            }
        };
        if let Some(module) = read {
            self.modules[parent].has_children = true;
            self.name(parent, name, Meaning::Module(module));
        }
        Ok(())
    }

    fn name(&mut self, module: usize, name: String, meaning: Meaning) {
        self.modules[module].names.entry(name).or_default().push(meaning);
    }

    fn add_imports(&self, graph: &mut Graph, module: usize) {
        let this = &self.modules[module];
        for import in &this.paths.imports {
            self.add(graph, module, &import.named, import.is_public, self.resolve(module, &import.named.parts, HOPS));
        }
        for named in &this.paths.named {
            // A single name may be a variable that has the name of a module; it cannot mean the module.
            let place = self.resolve(module, &named.parts, HOPS);
            let place = place.filter(|place| named.parts.len() > 1 || matches!(place, Place::Item(_)));
            self.add(graph, module, named, false, place);
        }
        for named in &this.paths.macros {
            let imported = self.resolve(module, &named.parts, HOPS);
            let place = imported.or_else(|| self.macros.get(&named.parts[0]).map(|module| Place::Item(*module)));
            self.add(graph, module, named, false, place);
        }
    }

    fn add(&self, graph: &mut Graph, from: usize, named: &Named, is_public: bool, place: Option<Place>) {
        let to = match place {
            Some(Place::Item(module)) => module,
            // Items used from a module with children are resolved where they are used; a module without children is one file.
            Some(Place::Module(module)) if !self.modules[module].has_children => module,
            _ => return,
        };
        let (file, target) = (&self.modules[from].file, &self.modules[to].file);
        if file != target {
            let is_reexport = is_public && self.ancestors(to).any(|ancestor| ancestor == from);
            let path = named.parts.join("::");
            let path = path.trim_end_matches("::self").to_owned();
            graph.add(file, target, Import { line: named.line, path, is_reexport });
        }
    }

    fn ancestors(&self, module: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.modules[module].parent, |m| self.modules[*m].parent)
    }

    /// Resolves a path from a module, through `pub use` as well. `None` if it leads out of the crate.
    fn resolve(&self, from: usize, parts: &[String], hops: usize) -> Option<Place> {
        let hops = hops.checked_sub(1)?;
        let (mut module, mut rest) = (from, parts);
        while let [first, after @ ..] = rest {
            let is_first = rest.len() == parts.len();
            let place = match first.as_str() {
                "crate" if is_first => Place::Module(0),
                "self" => Place::Module(module),
                "super" => Place::Module(self.modules[module].parent?),
                "Self" => return None,
                name => self.look_up(module, name, !after.is_empty(), hops)?,
            };
            match place {
                Place::Module(found) => (module, rest) = (found, after),
                // The rest of the path is a variant, an associated function or the like.
                Place::Item(_) => return Some(place),
            }
        }
        Some(Place::Module(module))
    }

    fn look_up(&self, module: usize, name: &str, is_prefix: bool, hops: usize) -> Option<Place> {
        let hops = hops.checked_sub(1)?;
        let this = &self.modules[module];
        let meanings = this.names.get(name).map_or(&[][..], Vec::as_slice);
        let item = meanings.iter().any(|m| matches!(m, Meaning::Item)).then_some(Place::Item(module));
        let child = meanings.iter().find_map(|m| match m {
            Meaning::Module(child) => Some(Place::Module(*child)),
            _ => None,
        });
        let import = || {
            meanings.iter().find_map(|m| match m {
                Meaning::Import(parts) => self.resolve(module, parts, hops),
                _ => None,
            })
        };
        let named = if is_prefix { child.or_else(import).or(item) } else { item.or(child).or_else(import) };
        named.or_else(|| {
            let globs = this.globs.iter().filter_map(|glob| self.resolve(module, glob, hops));
            let mut modules = globs.filter_map(|place| match place {
                Place::Module(glob) if glob != module => Some(glob),
                _ => None,
            });
            modules.find_map(|glob| self.look_up(glob, name, is_prefix, hops))
        })
    }
}

/// The names that an item adds to its module.
fn defined(item: &syn::Item) -> Vec<String> {
    let name = match item {
        syn::Item::Const(i) => &i.ident,
        syn::Item::Enum(i) => &i.ident,
        syn::Item::Fn(i) => &i.sig.ident,
        syn::Item::Static(i) => &i.ident,
        syn::Item::Struct(i) => &i.ident,
        syn::Item::Trait(i) => &i.ident,
        syn::Item::TraitAlias(i) => &i.ident,
        syn::Item::Type(i) => &i.ident,
        syn::Item::Union(i) => &i.ident,
        syn::Item::Macro(syn::ItemMacro { ident: Some(name), .. }) => name,
        _ => return Vec::new(),
    };
    vec![name.to_string()]
}

fn path_attribute(attributes: &[syn::Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(syn::MetaNameValue {
            path,
            value: syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }),
            ..
        }) if path.is_ident("path") => Some(text.value()),
        _ => None,
    })
}

/// Without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, component| {
        match component {
            std::path::Component::ParentDir => _ = plain.pop(),
            other => plain.push(other),
        }
        plain
    })
}
