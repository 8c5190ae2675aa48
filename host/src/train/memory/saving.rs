//! Memory that a checkpoint takes besides what a run holds.

use plugin_api::abi::DType;
use safetensors::Dtype;

use crate::{
    device::Device,
    error::Result,
    model::{Model, Parameter, files::tensor_file::PIECE, params::Table},
};

/// Memory that a checkpoint takes at most, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Saving {
    /// On the device: the merged model.
    pub device: u64,
    /// In this process, while a tensor is copied.
    pub host: u64,
}

impl Saving {
    /// Counts a checkpoint of `policy` on a `device` that only counts. The weights are stored in `dtype`, those of the `others` in their
    /// own.
    ///
    /// # Errors
    /// The model is too large to address.
    pub fn of(
        device: &Device,
        policy: &Model,
        others: &[&Model],
        dtype: Option<Dtype>,
        merged: bool,
    ) -> Result<Saving> {
        let host = others.iter().map(|model| copied(model, None)).chain([copied(policy, dtype)]).max().unwrap_or(0);
        if !merged {
            return Ok(Saving { device: 0, host });
        }
        // Spare buffers are freed before a checkpoint.
        device.trim();
        let before = device.memory().in_use;
        let whole = Model::allocate(device, policy.config().clone())?;
        let bytes = device.memory().in_use.saturating_sub(before);
        // A sum is computed in f64 from a copy in the dtype of the weights.
        let sum = largest(whole.layout(), |one| one.len() * (8 + width(&whole)));
        Ok(Saving { device: bytes, host: host.max(sum).max(copied(&whole, dtype)) })
    }
}

/// Returns how many bytes the copies of the largest tensor take while a model is saved.
fn copied(model: &Model, dtype: Option<Dtype>) -> u64 {
    let learned = model.learned();
    let master = if learned.params.dtype() == DType::F64 { Dtype::F64 } else { Dtype::F32 };
    let width = width(model);
    // The master weights are saved too.
    let masters = largest(learned.table, |one| match is_reordered(one) {
        false => (one.len() * width).min(PIECE),
        // As bytes, as values, in the order of files, and as bytes again.
        true => 4 * one.len() * width,
    });
    if model.adapter().is_some() || dtype.is_none_or(|dtype| dtype == master) {
        return masters;
    }
    let rounded = largest(learned.table, |one| match is_reordered(one) {
        // In the dtype of the weights and in f64; the rounded values are smaller than the former.
        false => one.len() * (8 + width),
        // In f64: as the device holds them, transposed, and in the order of heads.
        true => 3 * 8 * one.len(),
    });
    masters.max(rounded)
}

fn is_reordered(parameter: &Parameter) -> bool {
    parameter.stored_transposed || parameter.stored_heads > 0
}

/// Bytes of a weight that is learned.
fn width(model: &Model) -> u64 {
    model.learned().params.dtype().size().unwrap_or(4) as u64
}

fn largest(table: &Table, bytes: impl Fn(&Parameter) -> u64) -> u64 {
    table.parameters().iter().map(bytes).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use backend_reference::Reference;

    use super::*;
    use crate::{
        device::sizes::SizesOnly,
        model::{ModelConfig, Outputs, adapter::Settings},
    };

    const LLAMA: &str = r#"{"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 64, "max_position_embeddings": 8, "tie_word_embeddings": true}"#;
    const GPT2: &str =
        r#"{"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 4, "n_positions": 8}"#;

    fn model(device: &Device, config: &str) -> Model {
        Model::allocate(device, ModelConfig::parse(config, "config.json").unwrap()).unwrap()
    }

    /// Catches a merged adapter that takes no memory, and tensors that are copied as a whole but counted as a piece, or not at all: the
    /// embedding of 64 x 8 values, or the 32 x 8 of gpt2's feed-forward block, which files hold transposed.
    #[test]
    fn a_checkpoint_of_a_merged_adapter_takes_a_second_model() {
        let real = Device::new(Box::new(Reference::new(1)), DType::F32).unwrap();
        let (device, _) = SizesOnly::device(&real).unwrap();
        let width = device.accumulator().size().unwrap() as u64;
        let other = if width == 8 { Dtype::F32 } else { Dtype::BF16 };
        let of = |policy: &Model, dtype, merged| Saving::of(&device, policy, &[], dtype, merged).unwrap();
        let (llama, gpt2) = (model(&device, LLAMA), model(&device, GPT2));
        let host = |policy, dtype| of(policy, dtype, false).host;
        assert_eq!(host(&llama, None), 64 * 8 * width);
        assert_eq!(host(&llama, Some(other)), 64 * 8 * (8 + width));
        assert_eq!(host(&gpt2, None), 4 * 32 * 8 * width);
        assert_eq!(host(&gpt2, Some(other)), (3 * 8).max(4 * width) * 32 * 8);
        let settings = Settings { rank: 1, alpha: 1.0, targets: vec!["q_proj".into()], rslora: false };
        let adapter = llama.with_undefined_adapter(Outputs::TOKENS, settings).unwrap();
        let (apart, merged) = (of(&adapter, None, false), of(&adapter, None, true));
        assert_eq!(apart.device, 0);
        assert!(apart.host < 4 * 16 * 8 * width, "{apart:?}");
        assert!(merged.device >= llama.layout().flat_len() * width, "{merged:?}");
        assert_eq!(merged.host, 64 * 8 * (8 + width));
        assert_eq!(Saving::of(&device, &adapter, &[&gpt2], None, false).unwrap().host, host(&gpt2, None));
    }
}
