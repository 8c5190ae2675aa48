//! The families of decoders as data: a file per family, read by experiments (`model.arch`), `config.json`, layout and decoder.
//!
//! | file | job |
//! |---|---|
//! | [`family`] | the fields of a family |
//! | `gemma`, `gpt2`, `gpt_neox`, `llama`, `mistral`, `olmo2`, `phi3`, `qwen`, `smollm3` | a family each, or its versions |
//!
//! A new family made of existing pieces is a new file, and its line in [`FAMILIES`]; `..LLAMA` copies the fields of a relative. A
//! new kind of piece is a new value of an enum in [`family`], and one place in the decoder that computes it.

pub mod family;
mod gemma;
mod gpt2;
mod gpt_neox;
mod llama;
mod mistral;
mod olmo2;
mod phi3;
mod qwen;
mod smollm3;

pub use family::Family;

/// Every family.
pub const FAMILIES: &[&Family] = &[
    &llama::LLAMA,
    &gpt2::GPT2,
    &mistral::MISTRAL,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &phi3::PHI3,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &gpt_neox::GPT_NEOX,
    &olmo2::OLMO2,
    &smollm3::SMOLLM3,
];

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
    use super::family::{Mlp, Positions, Residual};
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
            // Parallel branches have no norms after them, and read the layer's input through norms of their own.
            let (before, after) = ([names.norm1, names.norm2], [names.post1, names.post2]);
            let plain = before.iter().all(Option::is_some) && after.iter().all(Option::is_none);
            assert!(family.residual == Residual::Sequential || plain, "{name}");
            assert!(!family.stored_by_head || names.qkv.len() == 1 && family.keys.kv_heads.is_none(), "{name}");
        }
    }
}
