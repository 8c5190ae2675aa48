//! Plugins that are found, refused, loaded, or fail, through the real loader.

use crate::support::rig::{Answer, bin, clean, library, plugins, telos, test_plugins};
use plugin_api::{
    Code, Error,
    abi::header::{ABI_MAJOR, ABI_MINOR, MAGIC, PluginHeader},
    batch::{Batch, Scope, names},
    objective::Objective,
    options::OptionMap,
};
use plugin_api_load::{Library, LoadedObjective, PluginInfo, scan};
use std::{
    fs,
    mem::offset_of,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::{TempDir, tempdir};

fn folder() -> TempDir {
    tempdir().expect("a temporary folder")
}

/// A folder with telos and one plugin: a copy of cross-entropy with its bytes changed by `change`.
fn changed_copy(change: impl FnOnce(&mut Vec<u8>)) -> (TempDir, PathBuf) {
    let original = library(&plugins(), "objective-ce");
    let mut bytes = fs::read(&original).expect("the plugin is readable");
    change(&mut bytes);
    let folder = folder();
    let (program, copy) = (bin().join("telos"), folder.path().join("telos"));
    if fs::hard_link(&program, &copy).is_err() {
        fs::copy(&program, &copy).expect("telos is copied");
    }
    let beside = folder.path().join("plugins");
    fs::create_dir(&beside).expect("a new folder");
    let path = beside.join(original.file_name().expect("a file"));
    fs::write(&path, bytes).expect("the copy is written");
    (folder, path)
}

/// Runs the telos of [`changed_copy`], which finds only that plugin.
fn run_copy(folder: &Path, args: &[&str]) -> Answer {
    Answer::of(clean(&mut Command::new(folder.join("telos"))).current_dir(folder).args(args))
}

/// Overwrites a field of the plugin's header.
fn patch(bytes: &mut [u8], field: usize, value: &[u8]) {
    let header = bytes.windows(MAGIC.len()).position(|window| window == MAGIC).expect("a plugin has a header");
    bytes[header + field..][..value.len()].copy_from_slice(value);
}

fn show_ce(folder: &Path) -> Answer {
    run_copy(folder, &["plugins", "show", "ce"])
}

/// Catches a list that opens the libraries it lists. Showing a plugin does open its library, or this test shows nothing.
#[test]
fn listing_executes_nothing_and_showing_does() {
    let here = folder();
    let marker = here.path().join("marker");
    let ask = |words: &[&str]| {
        let mut command = telos(here.path());
        command.arg("plugins").args(words).arg("--plugins").arg(test_plugins()).env("TELOS_TEST_MARKER", &marker);
        Answer::of(&mut command)
    };
    let list = ask(&["list"]);
    assert!(list.succeeds().contains("panics-in-create"), "{list:#?}");
    assert!(!marker.exists(), "a library was opened by `plugins list`");
    let json: serde_json::Value = serde_json::from_str(ask(&["list", "--json"]).succeeds()).expect("JSON");
    assert!(json["plugins"].as_array().is_some_and(|all| all.iter().any(|p| p["id"] == "nan-loss")), "{json}");
    assert!(!marker.exists(), "a library was opened by `plugins list --json`");
    ask(&["show", "nan-loss"]).succeeds();
    assert!(marker.exists(), "the marker does not work");
}

/// Catches a host that does not find what `cargo xtask build` made, and a manifest that does not survive the crossing.
#[test]
fn shipped_plugins_are_found_next_to_the_program_and_described() {
    let here = folder();
    let list = Answer::of(telos(here.path()).args(["plugins", "list"]));
    for id in ["ce", "candle", "reference"] {
        assert!(list.succeeds().lines().any(|line| line.split_whitespace().nth(1) == Some(id)), "{id}: {list:#?}");
    }
    assert!(!list.out.contains("panics-in"), "a plugin for tests is among the shipped ones: {list:#?}");
    let show = Answer::of(telos(here.path()).args(["plugins", "show", "ce"]));
    for part in ["label_smoothing", "0 to 1", "supervised tokens", "ln_vocab", "arXiv", "logp"] {
        assert!(show.succeeds().contains(part), "{part}: {show:#?}");
    }
    let show = Answer::of(telos(here.path()).args(["plugins", "show", "reference", "--json"]));
    let json: serde_json::Value = serde_json::from_str(show.succeeds()).expect("JSON");
    assert_eq!(json["manifest"]["devices"][0]["name"], "cpu", "{json}");
}

#[test]
fn a_missing_plugin_is_refused_with_the_nearest_id_and_the_folders() {
    let here = folder();
    let near = Answer::of(telos(here.path()).args(["plugins", "show", "referense"]));
    near.refuses(2, &["`referense`", "did you mean `reference`?", "plugins found:", "candle", "/plugins"]);
    let far = Answer::of(telos(here.path()).args(["plugins", "show", "qqqqqqqq"]));
    far.refuses(2, &["`qqqqqqqq`", "--plugins", "TELOS_PLUGINS"]);
}

#[test]
fn a_plugin_of_a_newer_major_is_refused_by_its_header() {
    let newer = (ABI_MAJOR + 1).to_le_bytes();
    let (here, path) = changed_copy(|bytes| patch(bytes, offset_of!(PluginHeader, abi_major), &newer));
    show_ce(here.path()).refuses(2, &["`ce`", &path.to_string_lossy(), "2.0", "1.0", "update telos"]);
    let list = run_copy(here.path(), &["plugins", "list"]);
    assert!(list.succeeds().contains("cannot be used"), "{list:#?}");
}

#[test]
fn a_plugin_of_an_older_major_is_refused_with_its_own_remedy() {
    let older = (ABI_MAJOR - 1).to_le_bytes();
    let (here, _) = changed_copy(|bytes| patch(bytes, offset_of!(PluginHeader, abi_major), &older));
    show_ce(here.path()).refuses(2, &["`ce`", "0.0", "rebuild the plugin"]);
}

#[test]
fn a_plugin_that_requires_a_newer_minor_is_refused_and_one_that_is_only_built_with_it_is_not() {
    let newer = (ABI_MINOR + 1).to_le_bytes();
    let (here, _) = changed_copy(|bytes| patch(bytes, offset_of!(PluginHeader, requires_minor), &newer));
    show_ce(here.path()).refuses(2, &["`ce`", "needs a host of 1.1", "update telos"]);
    let (here, _) = changed_copy(|bytes| patch(bytes, offset_of!(PluginHeader, abi_minor), &newer));
    show_ce(here.path()).succeeds();
}

/// Catches a loader that passes a truncated file to the system, which would map it and die of a bus error.
#[test]
fn a_truncated_library_is_refused_at_any_length() {
    let whole = fs::read(library(&plugins(), "objective-ce")).expect("the plugin is readable").len();
    for length in [0, 1, 3, 16, 63, 64, 1000, whole / 4, whole / 2, whole * 3 / 4, whole - 4096, whole - 64, whole - 1]
    {
        let (here, path) = changed_copy(|bytes| bytes.truncate(length));
        let error = scan(&path).expect_err(&format!("cut to {length} of {whole} bytes"));
        assert_eq!(error.code, Code::LAYOUT, "{error}");
        show_ce(here.path()).refuses(2, &["`ce`", "is not a whole library", &path.to_string_lossy()]);
    }
}

#[test]
fn a_text_file_named_like_a_library_is_reported_with_the_missing_plugin() {
    let here = folder();
    let text = here.path().join("libnotes.so");
    fs::write(&text, "these are notes").expect("written");
    let answer = Answer::of(telos(here.path()).args(["plugins", "show", "notes", "--plugins", "."]));
    answer.refuses(2, &["`notes`", "libnotes.so", "is not a whole library"]);
    let list = Answer::of(telos(here.path()).args(["plugins", "list", "--plugins", "."]));
    assert!(list.succeeds().contains("libnotes.so"), "{list:#?}");
}

/// Catches a search that reports every library of the system as broken.
#[test]
fn a_valid_library_without_plugins_is_skipped() {
    let (here, path) = changed_copy(|bytes| {
        while let Some(at) = bytes.windows(13).position(|window| window == b"telos_plugin_") {
            bytes[at] = b'x';
        }
    });
    assert_eq!(scan(&path), Ok(Vec::new()));
    let list = run_copy(here.path(), &["plugins", "list"]);
    assert!(!list.succeeds().contains("broken"), "{list:#?}");
}

/// Catches a search whose result comes from the later folder, or varies.
#[test]
fn the_first_folder_wins_and_the_list_says_so() {
    let (_here, path) = changed_copy(|_| {});
    let named = path.parent().expect("a folder");
    let list = Answer::of(telos(named).args(["plugins", "list", "--plugins"]).arg(named));
    let used = list.succeeds().lines().find(|line| line.contains(" ce ")).unwrap_or_default();
    assert!(used.contains(&*path.to_string_lossy()), "{list:#?}");
    let other = list.out.lines().find(|line| line.starts_with("not used")).unwrap_or_default();
    assert!(other.contains(&*plugins().to_string_lossy()), "{list:#?}");
}

/// Catches a header that is trusted although the library has another kind of plugin.
#[test]
fn a_plugin_whose_header_names_another_kind_is_refused() {
    let (_here, path) = changed_copy(|bytes| patch(bytes, offset_of!(PluginHeader, kind), b"reward\0\0\0"));
    let error = Library::load(&the_plugin(&path, "ce")).err().expect("an objective is not a reward");
    assert_eq!(error.code, Code::LAYOUT);
    assert!(error.message.contains("reward") && error.message.contains("ce"), "{error}");
    let objective = Library::load(&the_plugin(&library(&plugins(), "objective-ce"), "ce")).expect("a sound plugin");
    let error = objective.backend_manifest().expect_err("an objective is no backend");
    assert!(error.message.contains("objective") && error.message.contains("backend"), "{error}");
}

/// Catches a header that is trusted although it names a plugin that the library does not have.
#[test]
fn a_plugin_whose_header_names_another_id_is_refused() {
    let (_here, path) = changed_copy(|bytes| patch(bytes, offset_of!(PluginHeader, id), b"no\0"));
    let error = Library::load(&the_plugin(&path, "no")).err().expect("there is no such root");
    assert_eq!(error.code, Code::LAYOUT, "{error}");
}

fn the_plugin(path: &Path, id: &str) -> PluginInfo {
    let found = scan(path).unwrap_or_else(|e| panic!("{e}"));
    found.into_iter().find(|p| p.id == id).unwrap_or_else(|| panic!("no `{id}` in {}", path.display()))
}

fn faulty(id: &str) -> Result<LoadedObjective, Error> {
    let library = Library::load(&the_plugin(&library(&test_plugins(), "test-plugin-faulty"), id))?;
    library.objective(&OptionMap::new())
}

fn batch() -> Batch<'static> {
    Batch::new()
        .with(names::OFFSETS, Scope::BATCH, vec![0.0, 2.0])
        .with(names::MASK, Scope::TOKEN, vec![1.0, 0.0])
        .with_statistic("logp", Scope::TOKEN, vec![-0.5, f64::NAN])
}

/// Checks that a call panicked; its message must contain `text`, and its location must be in the plugin's source.
fn panicked<T>(result: Result<T, Error>, plugin: &str, text: &str) -> Error {
    let error = result.err().unwrap_or_else(|| panic!("{plugin} did not fail"));
    assert_eq!((error.code, error.plugin.as_str()), (Code::PANIC, plugin), "{error}");
    assert!(error.message.contains(text), "{error}");
    error
}

/// Catches a guard that lets a panic out (which would abort this process), or that loses its message or place.
#[test]
fn a_panic_in_any_call_becomes_an_error_with_message_and_place() {
    let create = panicked(faulty("panics-in-create"), "panics-in-create", "panicked in create: the create that panics");
    let mut objective = faulty("panics-in-prepare").expect("created");
    let prepare = panicked(objective.prepare(&batch()), "panics-in-prepare", "panicked in prepare: the prepare that");
    let objective = faulty("panics-in-loss").expect("created");
    let loss =
        panicked(objective.loss(&batch()), "panics-in-loss", "panicked in loss: the loss that panics, in step 1");
    let mut objective = faulty("panics-in-after-step").expect("created");
    let after = panicked(objective.after_step(&[]), "panics-in-after-step", "panicked in after_step");
    for error in [create, prepare, loss, after] {
        let (file, place) = error.location.split_once(".rs:").unwrap_or_default();
        assert!(file.ends_with("lib") && place.split(':').all(|n| n.parse::<u32>().is_ok()), "{error:?}");
        assert!(error.to_string().contains(&error.location), "{error}");
    }
}

/// Catches an instance that continues from a state that a panic left half changed.
#[test]
fn an_instance_that_panicked_refuses_calls_and_others_do_not() {
    let broken = faulty("panics-in-loss").expect("created");
    assert!(broken.loss(&batch()).is_err());
    assert_eq!(broken.loss(&batch()).err().map(|e| e.code), Some(Code::POISONED));
    let sound = faulty("panics-in-destroy").expect("created");
    assert!(sound.loss(&batch()).is_ok());
}

/// Catches a guard that drops the payload outside of its protection, or that loses a panic of another thread.
#[test]
fn odd_panics_are_stopped_too() {
    panicked(faulty("bomb-in-loss").expect("created").loss(&batch()), "bomb-in-loss", "panicked in loss");
    let error = faulty("panics-on-other-thread").expect("created").loss(&batch());
    let error = panicked(error, "panics-on-other-thread", "the thread that panics");
    assert!(error.location.contains("lib.rs:"), "{error:?}");
    drop(faulty("panics-in-destroy").expect("created"));
}

/// Catches a wire that multiplies by the mask (NaN), mixes up terms, or loses the coefficient; and state that is not
/// carried over.
#[test]
fn loss_and_state_cross_the_boundary_unchanged() {
    let mut objective = faulty("panics-at-step-5").expect("created");
    let loss = objective.loss(&batch()).expect("a loss");
    assert_eq!((loss.terms.len(), loss.terms[0].name.as_str()), (1, "nll"));
    assert_eq!((loss.terms[0].coefficient, loss.terms[0].sum), (1.0, 0.5));
    assert_eq!(loss.terms[0].cotangents, [("logp".to_owned(), vec![-1.0, 0.0])]);
    for _ in 0..4 {
        objective.after_step(&[("loss".into(), 0.5)]).expect("a verdict");
    }
    let state = objective.state().expect("a state");
    let mut resumed = faulty("panics-at-step-5").expect("created");
    resumed.restore(&state).expect("restored");
    assert!(resumed.loss(&batch()).is_err(), "the resumed objective does not know its step");
    assert_eq!(resumed.restore(b"no").err().map(|e| e.code), Some(Code::POISONED));
    let mut fresh = faulty("panics-at-step-5").expect("created");
    assert_eq!(fresh.restore(b"no").err().map(|e| e.code), Some(Code::STATE));
}

/// Catches options that do not reach the plugin, and a refusal that does not name the key.
#[test]
fn options_are_checked_in_the_plugin_too() {
    let info = the_plugin(&library(&test_plugins(), "test-plugin-faulty"), "panics-in-loss");
    let library = Library::load(&info).expect("a sound library");
    let with = |json: &str| library.objective(&serde_json::from_str(json).expect("JSON"));
    assert!(with(r#"{"at_step": 2}"#).expect("created").loss(&batch()).is_ok());
    for (json, part) in [(r#"{"at_step": 0}"#, "`at_step`"), (r#"{"at_stop": 2}"#, "`at_stop` is unknown")] {
        let error = with(json).err().expect("refused");
        assert_eq!(error.code, Code::OPTION);
        assert!(error.message.contains(part), "{error}");
    }
}

/// Catches a build that ships the plugins for tests.
#[test]
fn plugins_for_tests_are_not_shipped() {
    let shipped: Vec<_> = fs::read_dir(bin().join("plugins")).expect("a folder").flatten().collect();
    assert!(!shipped.is_empty());
    assert!(shipped.iter().all(|entry| !entry.file_name().to_string_lossy().contains("test_plugin")));
}
