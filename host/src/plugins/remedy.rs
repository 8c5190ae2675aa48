//! How a plugin that was not found gets here. It depends on where this program is: in a distribution there is nothing to build with.

use std::env;
use std::fs;
use std::path::Path;

/// The file that `cargo xtask dist` puts beside the program of a distribution.
const CARD: &str = "DIST.txt";

/// The advice to a user who named the plugin `id`, which no searched folder has.
pub fn of_missing(id: &str) -> String {
    let program = env::current_exe().ok().and_then(|program| fs::canonicalize(program).ok());
    advice(id, program.as_deref().and_then(Path::parent)).to_owned()
}

fn advice(id: &str, program_folder: Option<&Path>) -> &'static str {
    let is_distribution = program_folder.is_some_and(|folder| folder.join(CARD).is_file());
    match (is_distribution, id) {
        // Built separately, because nothing else needs libtorch.
        (false, "torch") => "`cargo xtask torch` finds or fetches libtorch and builds it",
        (false, _) => "build it (`cargo xtask build`), or name its folder with --plugins DIR or TELOS_PLUGINS",
        (true, "torch") => {
            "this distribution was made without it: in the source tree, `cargo xtask torch` and then `cargo xtask dist` make one with it"
        }
        (true, _) => {
            "install it (`telos plugins install PATH`), or name its folder with --plugins DIR or TELOS_PLUGINS"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches advice to run cargo's commands of the source tree in a distribution, which has no source tree, and advice about
    /// distributions in the source tree.
    #[test]
    fn the_advice_holds_where_the_program_is() {
        let folder = tempfile::tempdir().unwrap();
        let of = |id| advice(id, Some(folder.path()));
        assert!(of("nope").contains("`cargo xtask build`") && of("torch").starts_with("`cargo xtask torch`"));
        assert_eq!(advice("nope", None), of("nope"));
        fs::write(folder.path().join(CARD), "telos").unwrap();
        assert!(of("nope").contains("`telos plugins install PATH`") && !of("nope").contains("cargo"), "{}", of("nope"));
        assert!(of("torch").contains("this distribution was made without it"), "{}", of("torch"));
    }
}
