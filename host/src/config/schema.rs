//! Every key of an experiment.
//!
//! The form check ([`super::form`]) reads this list, suggestions come from it, and `telos run --help-keys` prints it. A key is
//! declared in the file of its table, in [`super::tables`] or in the module that owns the table.

use super::experiment::Written;
use crate::families::FAMILIES;
use crate::keys::{Key, Table};

/// Every key, parents before children.
pub const KEYS: &[Key] = Written::KEYS;

/// The key at `path`.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names directly below `parent` (empty: the root).
pub fn children(parent: &str) -> impl Iterator<Item = &'static str> + Clone {
    KEYS.iter().filter_map(move |key| {
        let below = if parent.is_empty() { key.path } else { key.path.strip_prefix(parent)?.strip_prefix('.')? };
        (!below.contains('.')).then_some(below)
    })
}

/// All paths whose last name is `leaf`.
pub fn paths_of(leaf: &str) -> Vec<&'static str> {
    KEYS.iter().map(|key| key.path).filter(|path| path.rsplit('.').next() == Some(leaf)).collect()
}

/// The reference's text on pipelines.
const STAGES: &str = "
stage
    makes the file a pipeline: each [[stage]] has the keys above, extends or replaces those set above the stages, and is a
    run in runs_dir/NAME/STAGE
    a list of tables
stage.name
    name of the stage: letters, digits, `-`, `_`; \"stage:NAME\" as a value of a later stage (model.from) is its last
    checkpoint, \"stage:NAME/best\" its best
    a string (not empty)

sweep.values
    values of keys of the experiment, or of the last stage of a pipeline: a list for each key, and for random and latin-hypercube
    also a range { min, max, scale = \"linear\" or \"log\", integer = true }; for example \"train.optimizer.lr\" = [1e-4, 3e-4]
    a table
sweep.arm
    for method = \"list\": each [[sweep.arm]] has keys of the experiment with their values
    a list of tables
";

/// Returns the reference that `telos run --help-keys` prints: every key with form, default and meaning.
pub fn reference() -> String {
    let mut text = String::new();
    for key in KEYS {
        let depth = key.path.matches('.').count();
        if depth == 0 {
            text.push('\n');
        }
        let default = if key.default.is_empty() { String::new() } else { format!("; default {}", key.default) };
        text.push_str(&format!("{}\n    {}\n    {}{default}\n", key.path, key.meaning, key.form.expected()));
        if key.path == "model.arch" {
            for family in FAMILIES {
                let (name, pieces, tied) = (family.model_type, family.summary, family.defaults.tied);
                text.push_str(&format!("    {name}: {pieces}; tied = {tied}\n"));
            }
        }
    }
    text.push_str(STAGES);
    text.trim_start().to_owned()
}
