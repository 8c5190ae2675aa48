//! An adapter over a model's frozen weights. Several models may share the weights; each has an adapter of its own, or none.

use std::path::Path;

use plugin_api::backend::ops::Cast;

use crate::device::Device;
use crate::error::Result;
use crate::model::adapter::base::Base;
use crate::model::adapter::{Adapter, Factors, Settings};
use crate::model::compute::projection::{Branches, Outer, Projection};
use crate::model::files::hash::SeenWeights;
use crate::model::loaded::{Layer, Model};
use crate::model::params::{LinearRef, Table};
use crate::model::shape::config::Outputs;

impl Model {
    /// Returns a model of the same frozen weights, with these outputs and without an adapter.
    pub(crate) fn frozen(&self, outputs: Outputs) -> Model {
        let mut layers = self.layers.clone();
        layers.iter_mut().flat_map(Layer::projections_mut).for_each(|projection| projection.branches = None);
        let mut config = self.config.clone();
        if !config.outputs.scalar {
            (config.scores, config.segment_separator) = (None, None);
        }
        config.outputs = outputs;
        Model {
            device: self.device.clone(),
            config,
            layout: self.layout.clone(),
            params: self.params.clone(),
            shadow: self.shadow.clone(),
            trainable: vec![false; self.layout.parameters().len()],
            layers,
            rotary: self.rotary.clone(),
            adapter: None,
        }
    }

    /// Returns a model of the same frozen weights with a new adapter: `A` uniform within 1 / sqrt(inputs), `B` zero, so that it
    /// computes what the frozen model computes. The values depend only on the seed.
    ///
    /// # Errors
    /// A target that the model lacks (a request error); the device is out of memory.
    pub fn adapted(&self, outputs: Outputs, settings: Settings, seed: u64) -> Result<Model> {
        let model = self.with_undefined_adapter(outputs, settings)?;
        if let Some(adapter) = &model.adapter {
            for (index, parameter) in adapter.table.parameters().iter().enumerate() {
                adapter.params.upload_f32(parameter.offset, &adapter.table.initial(index, seed))?;
            }
        }
        model.copy_scalar(self)?;
        model.refresh_shadow()?;
        Ok(model)
    }

    /// As [`Model::adapted`] with the adapter's values undefined.
    pub(crate) fn with_undefined_adapter(&self, outputs: Outputs, settings: Settings) -> Result<Model> {
        let mut model = self.frozen(outputs);
        let scalar = outputs.scalar.then_some(self.config.dim);
        let adapter = Adapter::allocate(&self.device, &self.layout, settings, scalar)?;
        let layers = model.layers.iter_mut();
        for (layer, refs) in layers.zip(&self.layout.layers) {
            let maps = [&refs.qkv[..], &[refs.output], &refs.up[..], &[refs.down]];
            for (projection, linears) in layer.projections_mut().into_iter().zip(maps) {
                projection.branches = branches(projection, linears, &adapter.table, &adapter.factors);
            }
        }
        model.adapter = Some(adapter);
        Ok(model)
    }

    /// Copies the scalar head of the frozen weights, if they have one, into the adapter.
    fn copy_scalar(&self, base: &Model) -> Result<()> {
        let adapter = self.adapter.as_ref();
        if let (Some(index), Some((adapter, head))) =
            (base.layout.scalar, adapter.and_then(|adapter| Some((adapter, adapter.scalar()?))))
        {
            let own = &base.layout.parameters()[index];
            adapter.params.upload(head.offset, &base.params.download(own.offset, own.len())?)?;
        }
        Ok(())
    }

    /// Its adapter.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// Sets the place of the frozen weights that the adapter's files name.
    pub fn name_base(&mut self, base: &Path) {
        if let Some(adapter) = &mut self.adapter {
            adapter.base = Base::of(base);
            // Not at the next save: the files may be others by then.
            adapter.base_weights = SeenWeights::of(base).ok();
            adapter.base_folder = Some(base.to_owned());
        }
    }

    /// The folder or GGUF file that the frozen weights under the adapter were loaded from; `None` without an adapter, or if the weights
    /// are not from files.
    pub fn base_folder(&self) -> Option<&Path> {
        self.adapter.as_ref()?.base_folder.as_deref()
    }

    /// Copies the adapter's master parameters into their copy in the compute dtype.
    pub(in crate::model) fn refresh_adapter(device: &Device, adapter: &Adapter) -> Result<()> {
        match &adapter.shadow {
            Some(shadow) => device.call(&Cast { x: adapter.params.view(), y: shadow.view() }),
            None => Ok(()),
        }
    }
}

/// Returns what an adapter adds to the linear map made of `linears`; `None` if it adapts none of them.
fn branches(projection: &Projection, linears: &[LinearRef], table: &Table, factors: &[Factors]) -> Option<Branches> {
    let (mut first, mut outer, mut inner) = (Vec::new(), Vec::new(), 0);
    for (linear, part) in linears.iter().zip(&projection.parts) {
        let Some(own) = factors.iter().find(|own| own.weight == linear.weight) else { continue };
        let (a, b) = (&table.parameters()[own.a], &table.parameters()[own.b]);
        first.push(LinearRef { weight: own.a, bias: None });
        outer.push(Outer {
            offset: b.offset,
            inner: inner..inner + a.rows,
            columns: part.column..part.column + part.rows,
        });
        inner += a.rows;
    }
    let inner = Box::new(Projection::new(table, &first));
    (!outer.is_empty()).then_some(Branches { inner, outer })
}
