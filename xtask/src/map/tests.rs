use super::*;

/// Sources from texts: paths and contents. Every `lib.rs` is the root file of a crate.
fn sources(files: &[(&str, &str)]) -> Sources {
    let files: BTreeMap<PathBuf, String> =
        files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
    let roots = files.keys().filter(|path| path.ends_with("lib.rs")).cloned().collect();
    Sources { files, roots }
}

fn errors_of(files: &[(&str, &str)]) -> Vec<String> {
    let sources = sources(files);
    errors(&sources, &graph(&sources).unwrap())
}

fn imports_of(files: &[(&str, &str)]) -> Vec<(String, String, usize)> {
    let graph = graph(&sources(files)).unwrap();
    let text = |path: &Path| path.display().to_string();
    graph.all().map(|(from, to, import)| (text(from), text(to), import.line)).collect()
}

/// Catches a low layer that imports a high one without an error, and an error without the file, the line or the layers.
#[test]
fn an_import_upwards_is_an_error() {
    let lib = ("host/src/lib.rs", "mod config; mod data;");
    let down = [
        lib,
        ("host/src/config.rs", "use crate::data::Row;\npub struct Experiment(Row);"),
        ("host/src/data.rs", "pub struct Row;"),
    ];
    assert_eq!(errors_of(&down), [""; 0]);
    let up = [
        lib,
        ("host/src/config.rs", "pub struct Experiment;"),
        ("host/src/data.rs", "pub struct Row;\nfn row(of: &crate::config::Experiment) {}"),
    ];
    let errors = errors_of(&up);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("host/src/data.rs:2 imports `crate::config::Experiment` of host/src/config.rs"));
    assert!(errors[0].contains("the layer of `data` is below that of `config`"), "{}", errors[0]);
}

/// Catches modules of one layer that import each other's items, and a new module that is missing in the table.
#[test]
fn modules_of_one_layer_and_modules_without_a_layer_are_errors() {
    let same_layer = [
        ("host/src/lib.rs", "mod compare; mod verify;"),
        ("host/src/compare.rs", "use crate::verify::Law;"),
        ("host/src/verify.rs", "pub struct Law;"),
    ];
    assert!(errors_of(&same_layer)[0].contains("are the same"));
    let unknown = [
        ("host/src/lib.rs", "mod cli; mod novelty;"),
        ("host/src/cli.rs", "use crate::novelty::New;"),
        ("host/src/novelty.rs", "pub struct New;"),
    ];
    assert!(errors_of(&unknown)[0].contains("`novelty` has no layer"));
}

/// Catches a pair that is not found because one side writes its import as a path in the code.
#[test]
fn two_files_that_import_each_other_are_an_error() {
    let errors = errors_of(&[
        ("a/src/lib.rs", "mod one;\nmod two;"),
        ("a/src/one.rs", "use super::two::Two;\npub struct One(Two);"),
        ("a/src/two.rs", "pub struct Two;\n\nfn two() { crate::one::One::new(); }"),
    ]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("a/src/one.rs:1 imports `super::two::Two` of a/src/two.rs"), "{}", errors[0]);
    assert!(errors[0].contains("a/src/two.rs:3 imports `crate::one::One::new` of a/src/one.rs"), "{}", errors[0]);
}

/// Catches a pair of parent and child that is not found, and an error if the parent only re-exports items of its children.
#[test]
fn a_parent_that_only_reexports_is_not_imported() {
    let reexports = [
        ("a/src/lib.rs", "mod folder;"),
        ("a/src/folder/mod.rs", "mod one;\nmod two;\npub use one::One;\npub use two::*;"),
        ("a/src/folder/one.rs", "use super::Two;\npub struct One(Two);"),
        ("a/src/folder/two.rs", "pub struct Two;"),
    ];
    assert_eq!(errors_of(&reexports), [""; 0]);
    let one = "a/src/folder/one.rs".to_owned();
    assert!(imports_of(&reexports).contains(&(one, "a/src/folder/two.rs".into(), 1)), "the path is followed");
    let defines = [
        ("a/src/lib.rs", "mod folder;"),
        ("a/src/folder/mod.rs", "mod one;\npub use one::One;\npub struct Two;"),
        ("a/src/folder/one.rs", "use super::Two;\npub struct One(Two);"),
    ];
    assert_eq!(errors_of(&defines).len(), 1);
    let declares = [
        ("a/src/lib.rs", "mod folder;"),
        ("a/src/folder/mod.rs", "mod one;\npub struct Two;"),
        ("a/src/folder/one.rs", "use super::Two;\npub struct One(Two);"),
    ];
    assert_eq!(errors_of(&declares), [""; 0]);
}

/// Catches names that are resolved to the wrong file: a child's, one that `use` renames, a variant's, one in a macro, in an
/// attribute, in an inline module, behind `#[path]`, and a macro by example.
#[test]
fn a_path_leads_to_the_file_that_defines_what_it_names() {
    let lib = "
        #[macro_use] mod marks;
        mod kinds;
        mod deep;
        #[path = \"elsewhere/far.rs\"] mod far;
        fn far() {}
        use kinds::{self as sorts, Kind};
        fn code() { let kinds = 1; println!(\"{}\", kinds); }
    ";
    let files = |code: &'static str| {
        [
            ("a/src/lib.rs", lib),
            ("a/src/kinds.rs", "pub enum Kind { One }"),
            ("a/src/marks.rs", "macro_rules! mark { () => {} }"),
            ("a/src/elsewhere/far.rs", "pub fn far() {}"),
            ("a/src/deep/mod.rs", "pub mod below; mod user; pub mod inline { pub fn here() {} }"),
            ("a/src/deep/below.rs", "pub const DEPTH: u8 = 1; pub fn below() {}"),
            ("a/src/deep/user.rs", code),
        ]
    };
    let to = |code: &'static str| -> Vec<String> {
        let imports = imports_of(&files(code)).into_iter();
        imports.filter(|(from, ..)| from == "a/src/deep/user.rs").map(|(_, to, _)| to).collect()
    };
    assert_eq!(to("fn f() { super::below::below() }"), ["a/src/deep/below.rs"]);
    assert_eq!(to("use super::below; fn f() { below::below() }"), ["a/src/deep/below.rs"]);
    assert_eq!(to("use crate::far::{self}; fn f() { far::far() }"), ["a/src/elsewhere/far.rs"]);
    assert_eq!(to("fn f() { crate::sorts::Kind::One; }"), ["a/src/kinds.rs"]);
    assert_eq!(to("use crate::Kind as Sort; fn f() { Sort::One; }"), ["a/src/kinds.rs"]);
    assert_eq!(to("fn f() { println!(\"{}\", crate::deep::below::DEPTH) }"), ["a/src/deep/below.rs"]);
    assert_eq!(to("#[serde(default = \"super::below::below\")] struct S;"), ["a/src/deep/below.rs"]);
    assert_eq!(to("fn f() { super::inline::here() }"), ["a/src/deep/mod.rs"]);
    assert_eq!(to("mod inner { use super::super::below::*; }"), ["a/src/deep/below.rs"]);
    assert_eq!(to("fn f() { crate::far::far() }"), ["a/src/elsewhere/far.rs"]);
    assert_eq!(to("mark!();"), ["a/src/marks.rs"]);
    assert_eq!(to("use std::fs; pub(in crate::deep) fn f() { fs::read(\"\"); let below = 1; below; }"), [""; 0]);
}

/// Catches a crowded folder that is not reported, or is reported one file too early, and files of other kinds or of subfolders
/// that count.
#[test]
fn a_folder_of_13_is_an_error() {
    let names: Vec<String> = (0..13).map(|at| format!("a/src/f{at}.{}", ["rs", "c", "cpp"][at % 3])).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(
        errors_of(&files),
        ["a/src/: 13 source files at one level, at most 12 are allowed: group them in folders by topic"]
    );
    let mut twelve = files[1..].to_vec();
    twelve.push(("a/src/folder/mod.rs", ""));
    assert_eq!(errors_of(&twelve), [""; 0]);
}

/// A chain of `files` files in `folder`, the last one importing `end`.
fn chain(folder: &str, files: usize, end: &str) -> Vec<String> {
    let modules: String = (0..files).map(|at| format!("mod f{at};\n")).collect();
    let mut texts = vec!["host/src/lib.rs".to_owned(), "mod train;".into(), format!("{folder}/mod.rs"), modules];
    for at in 0..files {
        let next = if at + 1 < files { format!("use super::f{}::F;", at + 1) } else { end.to_owned() };
        texts.extend([format!("{folder}/f{at}.rs"), format!("{next}\npub struct F;")]);
    }
    texts
}

fn chain_errors(texts: &[String]) -> Vec<String> {
    let files: Vec<(&str, &str)> = texts.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    errors_of(&files)
}

/// Catches a chain that is truncated, and one that is counted one file too long.
#[test]
fn a_chain_of_8_is_an_error() {
    assert_eq!(chain_errors(&chain("host/src/train", 7, "")), [""; 0]);
    let errors = chain_errors(&chain("host/src/train", 8, ""));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("a chain of imports has 8 files, at most 7 are allowed"), "{}", errors[0]);
    assert!(
        errors[0].contains("host/src/train/f0.rs:1 (imports super::f1::F)\n   host/src/train/f1.rs:1"),
        "{}",
        errors[0]
    );
}

/// Catches a search without end, and files of a cycle that are not counted.
#[test]
fn a_cycle_counts_with_all_its_files() {
    let errors = chain_errors(&chain("host/src/train", 8, "use super::f5::F as Back;"));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("has 8 files"), "{}", errors[0]);
    assert!(errors[0].contains("in a cycle: host/src/train/f5.rs"), "{}", errors[0]);
}

/// Catches imports of tests that count: of items, of inline modules, of whole files, of functions in an implementation.
#[test]
fn imports_of_tests_do_not_count() {
    let lib = "
        mod one;
        mod two;
        #[cfg(test)] mod only_tests;
        #[cfg(test)] mod tests { use super::one::One; use super::two::Two; }
    ";
    let files = [
        ("a/src/lib.rs", lib),
        ("a/src/one.rs", "pub struct One; #[cfg(all(test, unix))] use super::two::Two;"),
        (
            "a/src/two.rs",
            "pub struct Two; impl Two { #[cfg(test)] fn f() { super::one::One; } #[test] fn t() { crate::one::One; } }",
        ),
        ("a/src/only_tests.rs", "use super::{one::One, two::Two};"),
    ];
    assert_eq!(imports_of(&files), []);
    let counted = [
        ("a/src/lib.rs", "mod one; mod two;"),
        ("a/src/one.rs", "pub struct One; #[cfg(any(test, feature = \"f\"))] use super::two::Two;"),
        ("a/src/two.rs", "pub struct Two; #[cfg(not(test))] use super::one::One;"),
    ];
    assert_eq!(imports_of(&counted).len(), 2);
}

/// Catches figures that leave out a kind.
#[test]
fn figures_show_the_chain_the_pairs_and_the_folders() {
    let sources = sources(&[
        ("a/src/lib.rs", "mod one;\nmod two;"),
        ("a/src/one.rs", "use super::two::Two;\npub struct One;"),
        ("a/src/two.rs", "use super::one::One;\npub struct Two;"),
    ]);
    let expected = "\
longest chain in host/src/train/: 0 files (limit 7)
pairs that import each other: 1
   a/src/one.rs:1 (super::two::Two)  <->  a/src/two.rs:1 (super::one::One)
folders with more than 12 source files at one level: 0
imports that do not go downwards in host/src/: 0
";
    assert_eq!(figures(&sources, &graph(&sources).unwrap()), expected);
}
