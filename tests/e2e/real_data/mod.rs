//! Real models and published data, which are not included here: these tests are ignored unless `TELOS_DATA` names their folder
//! when the tests are built and run.

mod evaluate;
mod golden;
mod rows;

use std::path::PathBuf;

/// The folder that `TELOS_DATA` names.
fn data() -> PathBuf {
    std::env::var_os("TELOS_DATA").expect("TELOS_DATA names the folder of real data").into()
}

/// The folder of a small language model that was trained elsewhere.
fn model() -> PathBuf {
    data().join("models").join("stories260k")
}
