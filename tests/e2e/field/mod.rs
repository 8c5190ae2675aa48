//! Inputs from elsewhere: files, tokenizers, templates and models that were not made for these tests.
//!
//! Each folder of `tests/field` is one case. Its test copies the folder, runs the command that its user would run, and compares
//! one exit code, text or number with the right one.

mod ends;
mod late;
mod reports;
mod road;
mod shapes;
mod templates;
mod tokenizers;

use std::{fs, path::Path};

use crate::support::lab::Lab;

/// A lab that holds a copy of `tests/field/NAME`.
pub fn case(name: &str) -> Lab {
    let lab = Lab::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("field").join(name);
    copy(&from, lab.path());
    lab
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())).flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).expect("a folder is created");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a file is copied");
        }
    }
}
