//! A model on a device: its parameters, and the parts of its forward and backward passes.

use std::path::Path;
use std::rc::Rc;

use plugin_api::abi::{DType, View};
use plugin_api::backend::ops::{Cast, Fill};

use super::adapter::Adapter;
use super::compute::projection::Projection;
use super::compute::rotation::Rotations;
use super::files::weights::StoredWeights;
use super::params::{LayerNorms, Layout, LinearRef, Parameter, Table};
use super::shape::config::{ModelConfig, Outputs};
use crate::device::{Buffer, Device};
use crate::error::{Error, Result};

/// A decoder with its parameters on a device.
pub struct Model {
    pub(super) device: Device,
    pub(super) config: ModelConfig,
    pub(super) layout: Layout,
    /// Shared by the models that have the same frozen weights.
    pub(super) params: Rc<Buffer>,
    pub(super) shadow: Option<Rc<Buffer>>,
    pub(super) trainable: Vec<bool>,
    pub(super) layers: Vec<Layer>,
    pub(super) rotary: Rotations,
    /// What is trained in place of the weights.
    pub(super) adapter: Option<Adapter>,
}

/// What an optimizer updates: the weights, or the adapter over frozen ones.
#[derive(Clone, Copy)]
pub struct Learned<'a> {
    /// The parameters.
    pub table: &'a Table,
    /// Their master copy, in the accumulator dtype.
    pub params: &'a Buffer,
    /// Their copy in the compute dtype, if it is another one.
    pub shadow: Option<&'a Buffer>,
}

/// A layer's linear maps and norms, ready to compute.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) norms: LayerNorms,
    pub(super) qkv: Projection,
    pub(super) output: Projection,
    pub(super) up: Projection,
    pub(super) down: Projection,
}

impl Layer {
    pub(super) fn projections(&self) -> [&Projection; 4] {
        [&self.qkv, &self.output, &self.up, &self.down]
    }

    pub(super) fn projections_mut(&mut self) -> [&mut Projection; 4] {
        [&mut self.qkv, &mut self.output, &mut self.up, &mut self.down]
    }
}

impl Model {
    /// Creates a model with fresh weights, the same bits for the same config and seed on every backend.
    ///
    /// # Errors
    /// The device is out of memory, or the config names something that is not implemented.
    pub fn init(device: &Device, config: ModelConfig, seed: u64) -> Result<Model> {
        let model = Model::allocate(device, config)?;
        for (index, parameter) in model.layout.parameters().iter().enumerate() {
            model.params.upload_f32(parameter.offset, &model.layout.initial(index, seed))?;
        }
        model.refresh_shadow()?;
        Ok(model)
    }

    /// Adds the tokenizer's end-of-text token to the tokens that stop generation if neither `config.json` nor
    /// `generation_config.json` names it. Otherwise generation would not stop at the token that training puts at the end of
    /// answers.
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

    /// Sets the scalar head to 0, so that its output is 0 for every input.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn reset_scalar(&self) -> Result<()> {
        if let Some((adapter, head)) = self.adapter.as_ref().and_then(|adapter| Some((adapter, adapter.scalar()?))) {
            adapter.params().upload(head.offset, &vec![0.0; head.len() as usize])?;
            return self.refresh_shadow();
        }
        let Some(parameter) = self.layout.scalar.map(|index| &self.layout.parameters()[index]) else { return Ok(()) };
        self.params.upload(parameter.offset, &vec![0.0; (parameter.rows * parameter.cols) as usize])?;
        self.refresh_shadow()
    }

    /// Loads a folder with weights, with these outputs. A scalar head that the folder lacks starts at 0, so its output is 0 for
    /// every input; heads that are not in `outputs` are dropped. Weights that stay `frozen` are held in the compute dtype alone.
    ///
    /// # Errors
    /// A request error that names file and key or tensor; a folder without a language-model head if `outputs` needs one.
    pub(super) fn load(device: &Device, folder: &Path, outputs: Outputs, frozen: bool) -> Result<Model> {
        Model::opened(device, folder, outputs, frozen, StoredWeights::open)
    }

    /// Loads a checkpoint with weights of its own, with these outputs: its master weights if the others are rounded.
    ///
    /// # Errors
    /// A request error that names file and key or tensor.
    pub fn from_checkpoint(device: &Device, folder: &Path, outputs: Outputs) -> Result<Model> {
        Model::opened(device, folder, outputs, false, |folder, config, layout| {
            match StoredWeights::masters(folder, config, layout)? {
                Some(masters) => Ok(masters),
                None => StoredWeights::open(folder, config, layout),
            }
        })
    }

    fn opened(
        device: &Device,
        folder: &Path,
        outputs: Outputs,
        frozen: bool,
        open: impl Fn(&Path, &ModelConfig, &Layout) -> Result<StoredWeights>,
    ) -> Result<Model> {
        let mut config = ModelConfig::from_folder(folder)?;
        if outputs.tokens && !config.outputs.tokens {
            let what = format!("{} is a reward model or critic: it has no language-model head", folder.display());
            return Err(Error::request(what).with_hint("name the language model that it was trained from"));
        }
        if !config.outputs.scalar {
            (config.scores, config.segment_separator) = (None, None);
        }
        config.outputs = outputs;
        let layout = Layout::new(&config)?;
        let source = open(folder, &config, &layout)?;
        let model = if frozen { Model::allocate_frozen(device, config)? } else { Model::allocate(device, config)? };
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

    /// Allocates a model whose weights are undefined.
    ///
    /// # Errors
    /// A shape that contradicts itself; the device is out of memory.
    pub(crate) fn allocate(device: &Device, config: ModelConfig) -> Result<Model> {
        Model::allocate_in(device, config, device.accumulator())
    }

    /// As [`Model::allocate`], for weights that stay frozen: without a master copy if the compute dtype is another one. A scalar
    /// head is read in the accumulator dtype, so weights with one keep the copy.
    ///
    /// # Errors
    /// As [`Model::allocate`].
    pub(crate) fn allocate_frozen(device: &Device, config: ModelConfig) -> Result<Model> {
        let dtype = if config.outputs.scalar { device.accumulator() } else { device.compute() };
        let mut model = Model::allocate_in(device, config, dtype)?;
        model.trainable.fill(false);
        Ok(model)
    }

    fn allocate_in(device: &Device, config: ModelConfig, dtype: DType) -> Result<Model> {
        config.activation_kind()?;
        let layout = Layout::new(&config)?;
        let params = Rc::new(device.buffer(dtype, layout.flat_len())?);
        // The gaps between tensors must be zero: norms and updates include them.
        device.call(&Fill { x: params.view(), value: 0.0 })?;
        let mixed = device.compute() != dtype;
        let shadow = mixed.then(|| device.buffer(device.compute(), layout.flat_len()).map(Rc::new)).transpose()?;
        let projection = |linears: &[LinearRef]| Projection::new(&layout, linears);
        let layers = layout.layers.iter().map(|refs| Layer {
            norms: refs.norms,
            qkv: projection(&refs.qkv),
            output: projection(&[refs.output]),
            up: projection(&refs.up),
            down: projection(&[refs.down]),
        });
        let layers = layers.collect();
        let rotary = Rotations::new(device, &config)?;
        let trainable = vec![true; layout.parameters().len()];
        Ok(Model { device: device.clone(), config, layout, params, shadow, trainable, layers, rotary, adapter: None })
    }

    /// The device that holds it.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its shape, mutable: for values that are saved in `config.json`.
    pub fn config_mut(&mut self) -> &mut ModelConfig {
        &mut self.config
    }

    /// The table of parameters: name, offset, shape, matrix or vector.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The flat master parameters, in the accumulator dtype; those of a frozen model may be in the compute dtype. Without those of
    /// an adapter.
    pub fn params(&self) -> &Buffer {
        &self.params
    }

    /// The flat copy in the compute dtype that forward and backward read; `None` if they read the master parameters. The
    /// optimizer writes both (`AdamW::shadow`).
    pub fn shadow(&self) -> Option<&Buffer> {
        self.shadow.as_deref()
    }

    /// Number of all its parameters, those of an adapter included, and how many of them are trained.
    pub fn count(&self) -> (u64, u64) {
        match &self.adapter {
            Some(adapter) => (self.layout.count() + adapter.table().count(), adapter.table().count()),
            None => (self.layout.count(), self.layout.count()),
        }
    }

    /// What an optimizer updates.
    pub fn learned(&self) -> Learned<'_> {
        match &self.adapter {
            Some(adapter) => {
                Learned { table: &adapter.table, params: &adapter.params, shadow: adapter.shadow.as_ref() }
            }
            None => Learned { table: &self.layout, params: self.params(), shadow: self.shadow() },
        }
    }

    /// Copies the master parameters into the shadow. Required after every write to them except the optimizer's.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn refresh_shadow(&self) -> Result<()> {
        if let Some(adapter) = &self.adapter {
            return Model::refresh_adapter(&self.device, adapter);
        }
        match &self.shadow {
            Some(shadow) => self.device.call(&Cast { x: self.params.view(), y: shadow.view() }),
            None => Ok(()),
        }
    }

    /// Returns a zeroed flat buffer in the accumulator dtype for gradients or moments of what is learned.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn flat_buffer(&self) -> Result<Buffer> {
        let buffer = self.device.buffer(self.device.accumulator(), self.learned().table.flat_len())?;
        self.zero(&buffer)?;
        Ok(buffer)
    }

    /// Zeroes a flat buffer.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn zero(&self, flat: &Buffer) -> Result<()> {
        self.device.call(&Fill { x: flat.view(), value: 0.0 })
    }

    /// Sets which parameters are trainable. The others get no gradient: nothing is computed for them, and the backward pass
    /// ends above the lowest trainable layer.
    pub fn set_trainable(&mut self, choose: impl Fn(&Parameter) -> bool) {
        self.trainable = self.layout.parameters().iter().map(choose).collect();
    }

    /// Whether parameter `index` of the layout is trainable.
    pub fn is_trainable(&self, index: usize) -> bool {
        self.trainable.get(index).copied().unwrap_or(false)
    }

    /// Returns the values of a parameter as in the layout, row by row; `flat` is the parameters, gradients or moments.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn values(&self, flat: &Buffer, parameter: &Parameter) -> Result<Vec<f64>> {
        flat.download(parameter.offset, parameter.len())
    }

    /// Returns the flat parameters that forward and backward read.
    pub(super) fn weights(&self) -> &Buffer {
        self.shadow.as_deref().unwrap_or(&self.params)
    }

    pub(super) fn weight(&self, index: usize) -> View {
        self.layout.parameters()[index].view(self.weights())
    }

    /// Returns the gradient's view for a trainable parameter.
    pub(super) fn gradient(&self, index: usize, grads: &Buffer) -> Option<View> {
        self.trainable[index].then(|| self.layout.parameters()[index].view(grads))
    }
}
