//! A model on a device: its parameters, and what its passes are made of.

use std::path::Path;

use plugin_api::abi::{DType, View};
use plugin_api::backend::ops::{Cast, Fill};

use super::compute::projection::Projection;
use super::compute::rotation::Rotation;
use super::files::weights::Source;
use super::params::{Layout, LinearRef, NormRef, Parameter};
use super::shape::config::{ModelConfig, Outputs};
use crate::device::{Buffer, Device};
use crate::error::{Error, Result};

/// A decoder with its parameters on a device.
pub struct Model {
    pub(super) device: Device,
    pub(super) config: ModelConfig,
    pub(super) layout: Layout,
    pub(super) params: Buffer,
    pub(super) shadow: Option<Buffer>,
    pub(super) trainable: Vec<bool>,
    pub(super) layers: Vec<Layer>,
    pub(super) rotary: Option<Rotation>,
}

/// A layer's linear maps and norms, ready to call.
pub(super) struct Layer {
    pub(super) norm1: NormRef,
    pub(super) qkv: Projection,
    pub(super) output: Projection,
    pub(super) norm2: NormRef,
    pub(super) up: Projection,
    pub(super) down: Projection,
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
        let source = Source::open(folder, &config, &layout)?;
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
    pub(super) fn weights(&self) -> &Buffer {
        self.shadow.as_ref().unwrap_or(&self.params)
    }

    pub(super) fn weight(&self, index: usize) -> View {
        self.layout.parameters()[index].view(self.weights())
    }

    /// The gradient of a parameter that learns.
    pub(super) fn gradient(&self, index: usize, grads: &Buffer) -> Option<View> {
        self.trainable[index].then(|| self.layout.parameters()[index].view(grads))
    }
}
