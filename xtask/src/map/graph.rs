//! The graph of imports between files: pairs that import each other, the longest chain.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// An import of one file by another: the first one in the importing file.
#[derive(Clone, Debug)]
pub struct Import {
    /// Its line in the importing file.
    pub line: usize,
    /// The path as that file writes it.
    pub path: String,
    /// Whether it only re-exports an item of a child module (`pub use child::Item` in the parent).
    pub is_reexport: bool,
}

/// All imports between files.
#[derive(Default)]
pub struct Graph {
    imports: BTreeMap<PathBuf, BTreeMap<PathBuf, Import>>,
}

impl Graph {
    /// Adds an import. Of several between the same files, the first that is not a re-export is kept.
    pub fn add(&mut self, from: &Path, to: &Path, import: Import) {
        let known = self.imports.entry(from.to_owned()).or_default();
        match known.get_mut(to) {
            Some(old) if old.is_reexport && !import.is_reexport => *old = import,
            Some(_) => {}
            None => _ = known.insert(to.to_owned(), import),
        }
    }

    /// Every import: from, to, and its line and path.
    pub fn all(&self) -> impl Iterator<Item = (&Path, &Path, &Import)> {
        self.imports.iter().flat_map(|(from, to)| to.iter().map(|(to, import)| (from.as_path(), to.as_path(), import)))
    }

    /// The import of `to` by `from`.
    pub fn import(&self, from: &Path, to: &Path) -> Option<&Import> {
        self.imports.get(from)?.get(to)
    }

    /// Files that import each other, each pair once.
    pub fn pairs(&self) -> Vec<(&Path, &Path)> {
        let both = |(from, to, _): &(&Path, &Path, &Import)| from < to && self.import(to, from).is_some();
        self.all().filter(both).map(|(from, to, _)| (from, to)).collect()
    }

    /// The longest chain of imports between the files inside `folder`, importers first. A link is a file, or all files of an
    /// import cycle, since a chain could follow the cycle without end. Re-exports do not count.
    pub fn longest_chain(&self, folder: &Path) -> Vec<Vec<&Path>> {
        let mut inside: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
        for (from, to, import) in self.all() {
            if from.starts_with(folder) && to.starts_with(folder) && !import.is_reexport {
                inside.entry(from).or_default().push(to);
                inside.entry(to).or_default();
            }
        }
        let cycles = Cycles::find(&inside);
        let mut longest: Vec<Vec<Vec<&Path>>> = Vec::new();
        // Imported files come before the files that import them.
        for cycle in cycles.found {
            let imported = cycle.iter().flat_map(|file| &inside[file]).map(|to| cycles.of[to]);
            let below = imported.filter_map(|at| longest.get(at)).max_by_key(|chain| length(chain)).cloned();
            longest.push([cycle].into_iter().chain(below.unwrap_or_default()).collect());
        }
        longest.into_iter().max_by_key(|chain| length(chain)).unwrap_or_default()
    }
}

/// The files of a chain.
pub fn length(chain: &[Vec<&Path>]) -> usize {
    chain.iter().map(Vec::len).sum()
}

/// Strongly connected files (Tarjan's algorithm); a file in no cycle is a component of its own.
struct Cycles<'g, 'a> {
    imports: &'g BTreeMap<&'a Path, Vec<&'a Path>>,
    found: Vec<Vec<&'a Path>>,
    /// The index in `found` of each file.
    of: BTreeMap<&'a Path, usize>,
    index: BTreeMap<&'a Path, usize>,
    stack: Vec<&'a Path>,
    on_stack: BTreeSet<&'a Path>,
}

impl<'g, 'a> Cycles<'g, 'a> {
    fn find(imports: &'g BTreeMap<&'a Path, Vec<&'a Path>>) -> Cycles<'g, 'a> {
        let mut this = Cycles {
            imports,
            found: Vec::new(),
            of: BTreeMap::new(),
            index: BTreeMap::new(),
            stack: Vec::new(),
            on_stack: BTreeSet::new(),
        };
        for file in imports.keys() {
            if !this.index.contains_key(file) {
                this.visit(file);
            }
        }
        this
    }

    /// Returns the smallest index that is reachable from `file`.
    fn visit(&mut self, file: &'a Path) -> usize {
        let index = self.index.len();
        self.index.insert(file, index);
        self.stack.push(file);
        self.on_stack.insert(file);
        let mut lowest = index;
        for to in &self.imports[file] {
            match self.index.get(to) {
                None => lowest = lowest.min(self.visit(to)),
                Some(seen) if self.on_stack.contains(to) => lowest = lowest.min(*seen),
                Some(_) => {}
            }
        }
        if lowest == index {
            let at = self.stack.iter().position(|f| *f == file).unwrap_or(0);
            let cycle = self.stack.split_off(at);
            for member in &cycle {
                self.on_stack.remove(member);
                self.of.insert(member, self.found.len());
            }
            self.found.push(cycle);
        }
        lowest
    }
}
