//! Two minor versions of the contract, crossed both ways: hosts and plugins built against this minor version and against one that
//! appends a slot to every table, each in a process of its own. `cargo xtask build --minors` builds them.

use crate::support::rig::{Answer, bin, library};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const THIS: &str = "this-minor";
const NEXT: &str = "next-minor";
const OTHER: &str = "other-layout";
/// A plugin of each kind, in the order of the list.
const IDS: [&str; 3] = ["cross-backend", "cross-objective", "cross-reward"];

fn built(variant: &str) -> PathBuf {
    let folder = bin().join("abi-cross").join(variant);
    assert!(folder.is_dir(), "no {}: run `cargo xtask build --minors`", folder.display());
    folder
}

fn plugin(variant: &str) -> PathBuf {
    library(&built(variant), "abi-cross-plugin")
}

fn host(variant: &str, args: &[&Path]) -> Answer {
    Answer::of(Command::new(built(variant).join("abi-cross-loader")).args(args))
}

/// The host calls every slot of all three plugins; `appended` is the result of the appended slots.
#[track_caller]
fn works(host_variant: &str, plugins: &[(&str, &str, &str)]) {
    let paths: Vec<PathBuf> = plugins.iter().map(|(variant, ..)| plugin(variant)).collect();
    let answer = host(host_variant, &paths.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    let host_line = if host_variant == THIS { "host 1.0" } else { "host 1.1" };
    let mut expected = vec![host_line.to_owned()];
    for (_, version, appended) in plugins {
        expected.extend(IDS.iter().map(|id| format!("{id} {version} {appended}")));
    }
    assert_eq!(answer.succeeds().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn this_host_runs_a_plugin_of_this_minor() {
    works(THIS, &[(THIS, "1.0", "root=unknown instance=unknown")]);
}

#[test]
fn the_next_host_runs_a_plugin_of_its_minor_with_the_appended_slots() {
    works(NEXT, &[(NEXT, "1.1", "root=1 instance=11")]);
}

/// Catches a host that compares the sizes of tables for equality.
#[test]
fn this_host_runs_a_plugin_of_the_next_minor() {
    works(THIS, &[(NEXT, "1.1", "root=unknown instance=unknown")]);
}

/// Catches the layout check in the usual direction, which refuses every plugin at the host's next minor; and a host that
/// calls a slot beyond the table's end.
#[test]
fn the_next_host_runs_a_plugin_of_this_minor_without_the_appended_slots() {
    works(NEXT, &[(THIS, "1.0", "root=missing instance=missing")]);
}

/// Catches a check that caches the first plugin's tables and compares the second one's with them.
#[test]
fn plugins_of_both_minors_load_into_one_host_in_any_order() {
    let (older, newer) = ((THIS, "1.0", "root=missing instance=missing"), (NEXT, "1.1", "root=1 instance=11"));
    works(NEXT, &[older, newer]);
    works(NEXT, &[newer, older]);
    let unknown = "root=unknown instance=unknown";
    works(THIS, &[(THIS, "1.0", unknown), (NEXT, "1.1", unknown)]);
    works(THIS, &[(NEXT, "1.1", unknown), (THIS, "1.0", unknown)]);
}

/// Shows that the reversed check is needed, so that the tests above do not pass by chance.
#[test]
fn the_check_of_abi_stable_alone_would_refuse_the_older_plugin() {
    let own = |variant: &str| host(NEXT, &[Path::new("--own-check"), &plugin(variant)]);
    let older = own(THIS);
    let expected: Vec<String> = IDS.iter().map(|id| format!("{id} refused")).collect();
    assert_eq!(older.succeeds().lines().skip(1).collect::<Vec<_>>(), expected);
    let straight = own(NEXT);
    assert!(straight.succeeds().lines().skip(1).all(|line| line.ends_with("accepted")), "{straight:#?}");
}

/// Catches a host that checks only the version: here a plain struct grew, which a later minor must never do.
#[test]
fn a_plugin_of_another_layout_is_refused_by_both_hosts_with_file_and_reason() {
    let path = plugin(OTHER);
    for variant in [THIS, NEXT] {
        let answer = host(variant, &[&path]);
        answer.refuses(1, &["cross-backend", &path.to_string_lossy(), "layout", "Memory"]);
        assert!(answer.err.lines().count() < 20, "a wall of text: {answer:#?}");
    }
}
