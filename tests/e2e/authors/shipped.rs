//! docs/objectives.md: the manifests of the shipped objectives.

use std::{env, fs, path::Path};

use crate::{
    runs::distribution::moved,
    support::rig::{Answer, clean},
};

/// Catches a page that lacks an objective or an option. `cargo xtask test --accept` writes it anew.
#[test]
fn the_page_of_objectives_is_what_show_prints() {
    let lab = tempfile::tempdir().expect("a temporary folder");
    // A distribution has the shipped plugins and no others.
    let mut command = std::process::Command::new(moved(&lab).join("telos"));
    let answer = Answer::of(clean(&mut command).current_dir(lab.path()).args(["plugins", "page"]));
    let now = answer.succeeds();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let page = root.join("docs/objectives.md");
    if env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always") {
        fs::write(&page, now).expect("the page is written");
    }
    let was = fs::read_to_string(&page).unwrap_or_default();
    for (number, (is, was)) in now.lines().zip(was.lines()).enumerate() {
        assert_eq!(is, was, "docs/objectives.md:{}: run `cargo xtask test --accept`", number + 1);
    }
    assert_eq!(now, was, "docs/objectives.md: run `cargo xtask test --accept`");
}
