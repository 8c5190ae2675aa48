//! Names of options: keys of the plugin's table in an experiment, beside the host's own keys there.

use crate::manifest::OptionSpec;

/// The host's own keys of `[[objective]]`: no option of an objective may have these names.
pub const OBJECTIVE_KEYS: &[&str] = &["plugin", "weight", "text", "tokens"];

/// The host's own keys of `[[reward]]`: no option of a reward may have these names.
pub const REWARD_KEYS: &[&str] = &["plugin", "model", "name", "weight", "normalise", "aggregate"];

/// The host's own keys of `[backend]`: no option of a backend may have these names.
pub const BACKEND_KEYS: &[&str] = &["plugin", "device", "dtype", "threads"];

/// How the names of the keys begin that later hosts may add to these tables. No option may have such a name, so that an older plugin
/// keeps all of its options in every later host.
pub const RESERVED_PREFIX: &str = "host_";

/// All mistakes in the names of a plugin's options: names that are `taken`, that begin as those of a later host's keys, that are
/// given twice, or that are not a plain key; empty if there are none.
pub fn option_names(options: &[OptionSpec], taken: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (i, option) in options.iter().enumerate() {
        let name = option.name.as_str();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            wrong.push(format!("the option {name:?} has a name other than letters, digits, _ and -"));
        }
        if taken.contains(&name) {
            let keys = taken.join("`, `");
            wrong.push(format!(
                "the option `{name}` has the name of the host's own key in that table (`{keys}`), so that no experiment could \
                 set it; rename it"
            ));
        }
        if name.starts_with(RESERVED_PREFIX) {
            wrong.push(format!(
                "the option `{name}` begins with `{RESERVED_PREFIX}`, as only keys of later hosts do; rename it"
            ));
        }
        if options[..i].iter().any(|earlier| earlier.name == name) {
            wrong.push(format!("the option `{name}` is declared twice"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an option that the host takes for its own key, so that the plugin never receives it.
    #[test]
    fn names_that_an_experiment_cannot_set_are_refused() {
        let named = |name: &str| OptionSpec { name: name.into(), kind: "float".into(), ..Default::default() };
        assert_eq!(option_names(&[named("beta"), named("hosts")], OBJECTIVE_KEYS), [""; 0]);
        for (names, why) in [
            (&["weight"][..], "rename it"),
            (&["tokens"], "rename it"),
            (&["host_seed"], "keys of later hosts"),
            (&["a.b"], "letters, digits"),
            (&[""], "letters, digits"),
            (&["beta", "beta"], "declared twice"),
        ] {
            let options: Vec<OptionSpec> = names.iter().map(|name| named(name)).collect();
            let wrong = option_names(&options, OBJECTIVE_KEYS);
            assert!(wrong.len() == 1 && wrong[0].contains(why), "{names:?}: {wrong:?}");
        }
    }
}
