//! AdamW (Loshchilov and Hutter 2019) over the flat buffers. Clipping and the update happen on the device ([`Operation`]); this file
//! computes the rates.

use plugin_api::backend::ops::{AdamW as Operation, FLAT_ALIGN, Fill};

use super::{
    groups::{Rule, Segment, segments},
    kind::{Gradient, Optimizer, measure_into},
};
use crate::{
    device::{Buffer, Device, Tensor},
    error::{Error, Result},
    model::params::Table,
};

/// AdamW's settings, except the rates and decays of its parameters.
#[derive(Debug, Clone, Copy)]
pub struct Hyper {
    /// Decay of the first and second moment.
    pub betas: [f64; 2],
    /// Epsilon in the denominator.
    pub eps: f64,
    /// Largest global gradient norm; 0: no clipping.
    pub clip: f64,
}

/// AdamW's state and settings for one set of parameters.
pub struct AdamW {
    device: Device,
    settings: Hyper,
    segments: Vec<Segment>,
    bounds: Tensor,
    hyper: Tensor,
    norm: Tensor,
    /// First moments, flat.
    m: Buffer,
    /// Second moments, flat.
    v: Buffer,
    /// Updates applied so far.
    updates: u64,
}

impl AdamW {
    /// Creates the optimizer with zero moments for the parameters of `layout`, with a rule for each.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(device: &Device, layout: &Table, settings: Hyper, rules: &[Rule]) -> Result<AdamW> {
        let segments = segments(layout, rules);
        let bounds: Vec<i32> = segments
            .iter()
            .map(|s| s.start)
            .chain([layout.flat_len() / FLAT_ALIGN])
            .map(|unit| i32::try_from(unit).map_err(|_| Error::request("the model is too large for one optimizer")))
            .collect::<Result<_>>()?;
        let acc = device.accumulator();
        let moments = || -> Result<Buffer> {
            let buffer = device.buffer(acc, layout.flat_len())?;
            device.call(&Fill { x: buffer.view(), value: 0.0 })?;
            Ok(buffer)
        };
        Ok(AdamW {
            bounds: device.ints(&bounds)?,
            hyper: device.tensor_of(acc, segments.len() as u64, 2)?,
            norm: device.tensor_of(acc, 1, 2)?,
            m: moments()?,
            v: moments()?,
            device: device.clone(),
            settings,
            segments,
            updates: 0,
        })
    }
}

impl Optimizer for AdamW {
    fn measure(&mut self, grads: &Buffer) -> Result<Gradient> {
        measure_into(&self.device, grads.view(), &self.norm)
    }

    fn update(&mut self, params: &Buffer, shadow: Option<&Buffer>, grads: &Buffer, lr: f64) -> Result<()> {
        let hyper: Vec<f64> = self.segments.iter().flat_map(|s| [lr * s.rule.lr_scale, s.rule.weight_decay]).collect();
        self.hyper.buffer().upload(0, &hyper)?;
        let step = i64::try_from(self.updates + 1).unwrap_or(i64::MAX);
        self.device.call(&Operation {
            grads: grads.view(),
            norm: self.norm.view(),
            bounds: self.bounds.view(),
            hyper: self.hyper.view(),
            shadow: shadow.map(Buffer::view),
            params: params.view(),
            m: self.m.view(),
            v: self.v.view(),
            beta1: self.settings.betas[0],
            beta2: self.settings.betas[1],
            eps: self.settings.eps,
            clip: self.settings.clip,
            step,
        })?;
        self.updates += 1;
        Ok(())
    }

    fn moments(&self) -> [(&'static str, &Buffer); 2] {
        [("exp_avg", &self.m), ("exp_avg_sq", &self.v)]
    }

    fn updates(&self) -> u64 {
        self.updates
    }

    fn continue_after(&mut self, updates: u64) {
        self.updates = updates;
    }
}
