//! The decoder family over the operation catalogue: shape, parameters, files, forward, backward, head.
//!
//! | file | job |
//! |---|---|
//! | [`family`] | the families as data |
//! | [`config`] | the shape |
//! | `config_json` | `config.json` in and out |
//! | `generation_json` | `generation_config.json` in and out |
//! | [`params`] | the flat layout and initial values |
//! | [`weights`] | a folder's tensors in and out |
//! | [`tensor_file`] | one safetensors file |
//! | `projection` | linear layers that share an input, as few products as the layout allows |
//! | `activations` | batches, what is kept and what is recomputed |
//! | `decoder` | forward |
//! | `backward` | the decoder walked backwards |
//! | [`head`] | statistics per token, and their backward |
//! | `scalar` | one number per position: scores and values, and their backward |
//! | [`cache`] | keys and values of earlier tokens, for generation |
//!
//! Knows no objective and no optimizer: cotangents come in, gradients accumulate in a flat buffer.

mod activations;
mod backward;
pub mod cache;
pub mod config;
mod config_json;
mod decoder;
pub mod family;
mod generation_json;
pub mod head;
pub mod params;
mod projection;
mod scalar;
pub mod tensor_file;
pub mod weights;

use std::path::Path;

use plugin_api::abi::{DType, View};
use plugin_api::backend::ops::{Cast, Fill};

pub use activations::{BatchView, Forward, Keep, Recompute};
pub use config::{ModelConfig, Outputs};
pub use head::{Cotangents, Head, HeadRequest, HeadStats, Statistics};
pub use params::{Layout, Parameter};

use crate::capacity;
use crate::device::{Buffer, Device, Tensor};
use crate::error::{Error, Result};
use params::{LinearRef, NormRef};
use projection::Projection;

/// A decoder with its parameters on a device.
pub struct Model {
    device: Device,
    config: ModelConfig,
    layout: Layout,
    params: Buffer,
    shadow: Option<Buffer>,
    trainable: Vec<bool>,
    layers: Vec<Layer>,
    rotary: Option<Rotation>,
}

/// A layer's linear maps and norms, ready to call.
struct Layer {
    norm1: NormRef,
    qkv: Projection,
    output: Projection,
    norm2: NormRef,
    up: Projection,
    down: Projection,
}

/// Cosines and sines by position and pair.
struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

/// How many parameters a model has, and how many bytes `copies` of them take with its tables of rotations, computing in `compute`.
///
/// # Errors
/// The model is too large to address.
pub fn size(config: &ModelConfig, compute: DType, copies: u64) -> Result<(u64, u64)> {
    let layout = Layout::new(config)?;
    let number = if compute == DType::F64 { 8 } else { 4 };
    let shadow = if compute == DType::BF16 { 2 } else { 0 };
    let rotations =
        if config.family.positions == family::Positions::Rotary { config.context * config.head_dim } else { 0 };
    let bytes = layout.flat_len().saturating_mul(copies * number + shadow).saturating_add(rotations * number);
    Ok((layout.count(), bytes))
}

impl Model {
    /// A model with fresh weights, the same bits for the same config and seed on every backend.
    ///
    /// # Errors
    /// The device is out of memory, or the config asks for what is not implemented.
    pub fn init(device: &Device, config: ModelConfig, seed: u64) -> Result<Model> {
        let model = Model::allocate(device, config)?;
        for (index, parameter) in model.layout.parameters().iter().enumerate() {
            model.params.upload_f32(parameter.offset, &model.layout.initial(index, seed))?;
        }
        model.refresh_shadow()?;
        Ok(model)
    }

    /// The model of a Hugging Face folder: `config.json` and `model.safetensors`, or shards with their index.
    ///
    /// # Errors
    /// A request error naming file and key or tensor; nothing is allocated before names and shapes agree.
    pub fn from_folder(device: &Device, folder: &Path) -> Result<Model> {
        let config = ModelConfig::from_folder(folder)?;
        Model::from_folder_as(device, folder, config.outputs)
    }

    /// Has generation stop at the token that ends texts of the tokenizer too, where neither `config.json` nor
    /// `generation_config.json` names it: what is learned to end an answer would not end one.
    pub fn add_eos(&mut self, end_of_text: Option<u32>) {
        let known = |id: &u32| self.config.eos.contains(id) || u64::from(*id) >= self.config.vocab;
        let Some(id) = end_of_text.filter(|id| !known(id)) else { return };
        let mut note =
            format!("config.json does not name the tokenizer's end-of-text token {id} as eos_token_id: it is added");
        if self.config.generation.is_some() {
            note += "; generation_config.json is kept as it is, and programs that read it alone do not stop there";
        }
        self.config.eos.push(id);
        self.config.notes.push(note);
    }

    /// Puts the scalar head to 0, so that it answers 0 whatever it reads.
    ///
    /// # Errors
    /// The backend's.
    pub fn reset_scalar(&self) -> Result<()> {
        let Some(parameter) = self.layout.scalar.map(|index| &self.layout.parameters()[index]) else { return Ok(()) };
        self.params.upload(parameter.offset, &vec![0.0; (parameter.rows * parameter.cols) as usize])?;
        self.refresh_shadow()
    }

    /// The model of a folder with other heads: one that it does not have starts at 0 (a scalar head answers 0 then, whatever it
    /// reads), one that is not wanted is left out.
    ///
    /// # Errors
    /// As [`Model::from_folder`]; a language model is wanted of a folder that has none.
    pub fn from_folder_as(device: &Device, folder: &Path, outputs: Outputs) -> Result<Model> {
        let mut config = ModelConfig::from_folder(folder)?;
        if outputs.tokens && !config.outputs.tokens {
            let what = format!("{} is a reward model or critic: it has no language-model head", folder.display());
            return Err(Error::request(what).with_hint("name the language model that it was trained from"));
        }
        if !config.outputs.scalar {
            config.scores = None;
        }
        config.outputs = outputs;
        let layout = Layout::new(&config)?;
        let source = weights::Source::open(folder, &config, &layout)?;
        let model = Model::allocate(device, config)?;
        source.load(|index, values| {
            let parameter = &model.layout.parameters()[index];
            let fits = |value: &f64| device.accumulator() == DType::F64 || (*value as f32).is_finite();
            if let Some(value) = values.iter().find(|value| !fits(value)) {
                return Err(Error::request(format!("tensor `{}` holds {value}, too large for f32", parameter.name)));
            }
            model.params.upload(parameter.offset, values)
        })?;
        model.refresh_shadow()?;
        Ok(model)
    }

    /// Writes `config.json`, `generation_config.json` and `model.safetensors` into an existing folder. The tensors are
    /// stored in the master weights' own dtype (f32; f64 on a backend that computes in it), so loading them again gives
    /// the same bits. Whether the files are complete after a crash is the caller's to arrange.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, folder: &Path) -> Result<()> {
        weights::save(self, folder)
    }

    /// A model whose weights are undefined.
    ///
    /// # Errors
    /// A shape that contradicts itself; the device is out of memory.
    pub(crate) fn allocate(device: &Device, config: ModelConfig) -> Result<Model> {
        config.activation_kind()?;
        let layout = Layout::new(&config)?;
        let params = device.buffer(device.accumulator(), layout.flat_len())?;
        // The gaps between tensors must be zero: norms and updates run over them.
        device.call(&Fill { x: params.view(), value: 0.0 })?;
        let mixed = device.compute() != device.accumulator();
        let shadow = mixed.then(|| device.buffer(device.compute(), layout.flat_len())).transpose()?;
        let projection = |linears: &[LinearRef]| Projection::new(&layout, linears);
        let layers = layout.layers.iter().map(|refs| Layer {
            norm1: refs.norm1,
            qkv: projection(&refs.qkv),
            output: projection(&[refs.output]),
            norm2: refs.norm2,
            up: projection(&refs.up),
            down: projection(&[refs.down]),
        });
        let layers = layers.collect();
        let rotary = Rotation::new(device, &config)?;
        let trainable = vec![true; layout.parameters().len()];
        Ok(Model { device: device.clone(), config, layout, params, shadow, trainable, layers, rotary })
    }

    /// The device it lies on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its shape, to set token ids that end up in `config.json`.
    pub fn config_mut(&mut self) -> &mut ModelConfig {
        &mut self.config
    }

    /// The table of parameters: name, offset, shape, matrix or vector.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The flat master parameters, in the accumulator dtype.
    pub fn params(&self) -> &Buffer {
        &self.params
    }

    /// The flat copy in the compute dtype that forward and backward read; `None` where the masters serve. The
    /// optimizer writes both (`AdamW::shadow`).
    pub fn shadow(&self) -> Option<&Buffer> {
        self.shadow.as_ref()
    }

    /// Copies the masters into the shadow, after writing to them by any other way than the optimizer.
    ///
    /// # Errors
    /// The backend's.
    pub fn refresh_shadow(&self) -> Result<()> {
        match &self.shadow {
            Some(shadow) => self.device.call(&Cast { x: self.params.view(), y: shadow.view() }),
            None => Ok(()),
        }
    }

    /// A zeroed flat buffer in the accumulator dtype: gradients or moments.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn flat_buffer(&self) -> Result<Buffer> {
        let buffer = self.device.buffer(self.device.accumulator(), self.layout.flat_len())?;
        self.zero(&buffer)?;
        Ok(buffer)
    }

    /// Zeroes a flat buffer.
    ///
    /// # Errors
    /// The backend's.
    pub fn zero(&self, flat: &Buffer) -> Result<()> {
        self.device.call(&Fill { x: flat.view(), value: 0.0 })
    }

    /// Chooses which parameters learn. The others get no gradient: nothing is computed for them, and the backward pass
    /// ends above the lowest layer that learns.
    pub fn set_trainable(&mut self, choose: impl Fn(&Parameter) -> bool) {
        self.trainable = self.layout.parameters().iter().map(choose).collect();
    }

    /// Whether parameter `index` of the layout learns.
    pub fn is_trainable(&self, index: usize) -> bool {
        self.trainable.get(index).copied().unwrap_or(false)
    }

    /// The values of a parameter as the layout holds them, row by row; `flat` is the parameters, gradients or moments.
    ///
    /// # Errors
    /// The backend's.
    pub fn values(&self, flat: &Buffer, parameter: &Parameter) -> Result<Vec<f64>> {
        flat.download(parameter.offset, parameter.len())
    }

    /// What forward and backward read.
    fn weights(&self) -> &Buffer {
        self.shadow.as_ref().unwrap_or(&self.params)
    }

    fn weight(&self, index: usize) -> View {
        self.layout.parameters()[index].view(self.weights())
    }

    /// The gradient of a parameter that learns.
    fn gradient(&self, index: usize, grads: &Buffer) -> Option<View> {
        self.trainable[index].then(|| self.layout.parameters()[index].view(grads))
    }
}

impl Rotation {
    fn new(device: &Device, config: &ModelConfig) -> Result<Option<Rotation>> {
        if config.family.positions != family::Positions::Rotary {
            return Ok(None);
        }
        let pairs = config.head_dim / 2;
        // Cosines and sines are computed in f64 first.
        capacity::check(2 * 8 * config.context * pairs).map_err(|why| {
            Error::request(format!(
                "the tables of rotations for the model's context of {} tokens: {why}",
                config.context
            ))
            .with_hint("lower the context (model.context, or max_position_embeddings in config.json)")
        })?;
        let angles = (0..config.context).flat_map(|position| {
            (0..pairs).map(move |pair| {
                let frequency = config.rope_theta.powf(-((2 * pair) as f64) / config.head_dim as f64);
                position as f64 * frequency
            })
        });
        let (sin, cos): (Vec<f64>, Vec<f64>) = angles.map(f64::sin_cos).unzip();
        let table = |values: &[f64]| -> Result<Tensor> {
            let table = device.tensor_of(device.accumulator(), config.context, pairs)?;
            table.buffer().upload(0, values)?;
            Ok(table)
        };
        Ok(Some(Rotation { cos: table(&cos)?, sin: table(&sin)? }))
    }
}
