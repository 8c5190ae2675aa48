//! `telos generate --prompts`.

use std::path::{Path, PathBuf};

use crate::{
    cli::{args::BackendArgs, out::check_folder, print},
    error::Result,
    inference::{batch::PromptsToAnswer, saved_model::Opened},
    runs::Interrupt,
};

/// Printed at the first Ctrl-C.
const STOPPING: &str = "\nstopping; the rows that are written stay\n";

/// Answers the prompts and prints the counts.
pub(super) fn answer(
    model: &Path,
    wanted: &PromptsToAnswer,
    backend: &BackendArgs,
    plugin_folders: Vec<PathBuf>,
    json: bool,
) -> Result<()> {
    check_folder("--out", &wanted.out)?;
    let mut opened = Opened::open(model, &backend.choice(plugin_folders))?;
    let interrupt = Interrupt::listen(|_| print::err(STOPPING))?;
    let counts = opened.answer_prompts(wanted, backend.settings(), &interrupt)?;
    print::result(&counts, json)
}
