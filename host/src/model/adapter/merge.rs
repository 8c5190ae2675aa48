//! The sum `W + scale B A` as a model with weights of its own, computed in f64 and rounded once.

use crate::error::{Error, Result};
use crate::model::loaded::Model;

impl Model {
    /// Returns a model without an adapter that computes the same function.
    ///
    /// # Errors
    /// Frozen weights that are held in the compute dtype alone, which is too coarse; memory; errors of the backend.
    pub fn merged(&self) -> Result<Model> {
        let adapter = self.adapter().ok_or_else(|| Error::request("the model has no adapter to merge"))?;
        if self.params.dtype() != self.device.accumulator() {
            let what =
                format!("the frozen weights are held in {}, which is too coarse for a merge", self.params.dtype());
            return Err(Error::request(what).with_hint("merge with dtype f32"));
        }
        let merged = Model::allocate(&self.device, self.config.clone())?;
        let scale = adapter.settings().scale();
        let values = |index: usize| {
            let parameter = &adapter.table().parameters()[index];
            adapter.params().download(parameter.offset, parameter.len())
        };
        for (index, parameter) in merged.layout.parameters().iter().enumerate() {
            if merged.layout.scalar == Some(index) {
                let head = adapter.scalar().ok_or_else(|| Error::run("an adapter without the model's scalar head"))?;
                merged.params.upload(parameter.offset, &adapter.params().download(head.offset, head.len())?)?;
                continue;
            }
            let own = self.layout.index(&parameter.name).ok_or_else(|| Error::run(format!("no {}", parameter.name)))?;
            let base = &self.layout.parameters()[own];
            let mut sum = self.params.download(base.offset, base.len())?;
            if let Some(factors) = adapter.factors.iter().find(|factors| factors.weight == own) {
                let (a, b) = (values(factors.a)?, values(factors.b)?);
                let (inputs, outputs) = (base.cols as usize, base.rows as usize);
                for (inner, row_of_a) in a.chunks_exact(inputs).enumerate() {
                    for (output, row) in sum.chunks_exact_mut(inputs).enumerate() {
                        let factor = scale * b[inner * outputs + output];
                        row.iter_mut().zip(row_of_a).for_each(|(w, a)| *w += factor * a);
                    }
                }
            }
            merged.params.upload(parameter.offset, &sum)?;
        }
        merged.refresh_shadow()?;
        Ok(merged)
    }
}
