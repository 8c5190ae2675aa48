//! The texts that a new crate is made of. Placeholders are `@NAME@` (package and id), `@CRATE@` (the crate in Rust),
//! and paths of the SDK as strings of TOML.

/// `src/lib.rs`, `tests/laws.rs`, `experiment.toml` and what the README says of them.
pub struct Template {
    /// `src/lib.rs`.
    pub library: &'static str,
    /// `tests/laws.rs`.
    pub tests: &'static str,
    /// `experiment.toml`.
    pub experiment: &'static str,
    /// `README.md`.
    pub readme: &'static str,
}

/// `Cargo.toml`.
pub const MANIFEST: &str = include_str!("templates/Cargo.toml.txt");
/// `.gitignore`.
pub const IGNORED: &str = include_str!("templates/gitignore.txt");
/// `rustfmt.toml`.
pub const FORMAT: &str = include_str!("templates/rustfmt.toml");

/// The kinds of data that an objective can be made for, as the command line names them.
pub const DATA: [&str; 5] = ["text", "prompt-completion", "preference", "unpaired", "prompt"];

macro_rules! objective {
    ($kind:literal) => {
        Template {
            library: include_str!(concat!("templates/objective/", $kind, ".rs.txt")),
            tests: include_str!("templates/tests/objective.rs.txt"),
            experiment: include_str!(concat!("templates/experiments/", $kind, ".toml")),
            readme: include_str!("templates/readme/objective.md"),
        }
    };
}

/// The template of an objective for a name of [`DATA`].
pub fn objective(data: &str) -> Option<Template> {
    Some(match data {
        "text" => objective!("text"),
        "prompt-completion" => objective!("prompt-completion"),
        "preference" => objective!("preference"),
        "unpaired" => objective!("unpaired"),
        "prompt" => objective!("prompt"),
        _ => return None,
    })
}

/// The template of a reward.
pub const REWARD: Template = Template {
    library: include_str!("templates/reward.rs.txt"),
    tests: include_str!("templates/tests/reward.rs.txt"),
    experiment: include_str!("templates/experiments/reward.toml"),
    readme: include_str!("templates/readme/reward.md"),
};

/// The template of a backend.
pub const BACKEND: Template = Template {
    library: include_str!("templates/backend.rs.txt"),
    tests: include_str!("templates/tests/backend.rs.txt"),
    experiment: include_str!("templates/experiments/backend.toml"),
    readme: include_str!("templates/readme/backend.md"),
};
