//! The families of decoders as data: a file per family, read by experiments (`model.arch`), `config.json`, layout and decoder.
//!
//! | file | job |
//! |---|---|
//! | [`family`] | the fields of a family |
//! | `llama`, `gpt2`, `mistral`, `qwen2`, `qwen3`, `phi3` | a family each |
//!
//! A new family made of existing pieces is a new file, and its line in [`FAMILIES`]; `..LLAMA` copies the fields of a relative. A
//! new kind of piece is a new value of an enum in [`family`], and one place in the decoder that computes it.

pub mod family;
mod gpt2;
mod llama;
mod mistral;
mod phi3;
mod qwen2;
mod qwen3;

pub use family::Family;

/// Every family.
pub const FAMILIES: &[&Family] =
    &[&llama::LLAMA, &gpt2::GPT2, &mistral::MISTRAL, &qwen2::QWEN2, &qwen3::QWEN3, &phi3::PHI3];

/// The family of an experiment that does not name one.
pub const DEFAULT: &Family = &llama::LLAMA;

/// Every family's `model_type`, in the order of [`FAMILIES`].
pub const NAMES: [&str; FAMILIES.len()] = {
    let mut names = [""; FAMILIES.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = FAMILIES[at].model_type;
        at += 1;
    }
    names
};

/// Returns the family of a `model_type`.
pub fn find(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|family| family.model_type == model_type)
}

#[cfg(test)]
mod tests {
    use super::family::{Mlp, Positions};
    use super::*;

    /// Catches two families of one name, of which the second would never be found, and a family whose names of tensors or keys
    /// contradict its pieces.
    #[test]
    fn every_family_is_found_and_is_consistent() {
        for family in FAMILIES {
            let (name, names) = (family.model_type, &family.names);
            assert_eq!(find(name).map(|found| found.class), Some(family.class), "{name}");
            assert!(names.up.len() == 1 || family.mlp == Mlp::Gated && names.up.len() == 2, "{name}");
            assert!(matches!(names.qkv.len(), 1 | 3), "{name}");
            assert_eq!(names.positions.is_some(), family.positions == Positions::Learned, "{name}");
        }
    }
}
