//! AdamW over the flat buffers: the parameter groups, the moments, and one update.
//!
//! Norm, clipping and the finite check are computed on the device ([`GlobalNorm`], [`AdamW`]); this file sets the rates.

pub mod moments;
pub mod schedule;

use glob::Pattern;
use plugin_api::backend::ops::{AdamW, FLAT_ALIGN, GlobalNorm};

use crate::{
    config::experiment::{Group, Optimizer},
    device::{Buffer, Device, Tensor},
    error::{Error, Result},
    model::params::Layout,
};

/// A segment of the flat buffer with one rate and one decay.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Segment {
    /// First unit of [`FLAT_ALIGN`] elements.
    start: u64,
    /// Factor on the learning rate.
    lr_scale: f64,
    /// Decoupled weight decay.
    weight_decay: f64,
}

/// AdamW's state and settings for one set of parameters.
pub struct Adam {
    device: Device,
    settings: Optimizer,
    segments: Vec<Segment>,
    bounds: Tensor,
    hyper: Tensor,
    norm: Tensor,
    /// First moments, flat.
    pub m: Buffer,
    /// Second moments, flat.
    pub v: Buffer,
    /// Updates applied so far.
    pub updates: u64,
}

/// A gradient's norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gradient {
    /// Global gradient norm before clipping.
    pub norm: f64,
    /// Whether all values are finite.
    pub finite: bool,
}

impl Adam {
    /// Creates zero moments for the parameters of `layout`.
    ///
    /// # Errors
    /// A group with an invalid pattern (a request error); memory.
    pub fn new(device: &Device, layout: &Layout, settings: &Optimizer) -> Result<Adam> {
        let segments = segments(layout, settings)?;
        let bounds: Vec<i32> = segments
            .iter()
            .map(|s| s.start)
            .chain([layout.flat_len() / FLAT_ALIGN])
            .map(|unit| i32::try_from(unit).map_err(|_| Error::request("the model is too large for one optimizer")))
            .collect::<Result<_>>()?;
        let acc = device.accumulator();
        let moments = || -> Result<Buffer> {
            let buffer = device.buffer(acc, layout.flat_len())?;
            device.call(&plugin_api::backend::ops::Fill { x: buffer.view(), value: 0.0 })?;
            Ok(buffer)
        };
        Ok(Adam {
            bounds: device.ints(&bounds)?,
            hyper: device.tensor_of(acc, segments.len() as u64, 2)?,
            norm: device.tensor_of(acc, 1, 2)?,
            m: moments()?,
            v: moments()?,
            device: device.clone(),
            settings: settings.clone(),
            segments,
            updates: 0,
        })
    }

    /// Returns the gradient's norm and stores it on the device for the update. Weights and moments do not change.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn measure(&mut self, grads: &Buffer) -> Result<Gradient> {
        measure_into(&self.device, grads, &self.norm)
    }

    /// Applies one update at learning rate `lr`, after [`Adam::measure`].
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn update(&mut self, params: &Buffer, shadow: Option<&Buffer>, grads: &Buffer, lr: f64) -> Result<()> {
        let hyper: Vec<f64> = self.segments.iter().flat_map(|s| [lr * s.lr_scale, s.weight_decay]).collect();
        self.hyper.buffer().upload(0, &hyper)?;
        let step = i64::try_from(self.updates + 1).unwrap_or(i64::MAX);
        self.device.call(&AdamW {
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
}

/// Returns the norm of a flat buffer, and whether all its values are finite.
///
/// # Errors
/// Errors of the backend.
pub fn global_norm(device: &Device, flat: &Buffer) -> Result<Gradient> {
    measure_into(device, flat, &device.tensor_of(device.accumulator(), 1, 2)?)
}

fn measure_into(device: &Device, flat: &Buffer, norm: &Tensor) -> Result<Gradient> {
    device.call(&GlobalNorm { x: flat.view(), norm: norm.view() })?;
    Ok(match norm.to_vec()?.as_slice() {
        [norm, finite] => Gradient { norm: *norm, finite: *finite != 0.0 && norm.is_finite() },
        _ => Gradient { norm: f64::NAN, finite: false },
    })
}

/// Checks that every group matches a parameter of the models that learn.
///
/// # Errors
/// A request error that names a group that does not.
pub fn check_groups(layouts: &[&Layout], settings: &Optimizer) -> Result<()> {
    let patterns = patterns(settings)?;
    let group = |name: &str| patterns.iter().position(|pattern| pattern.matches(name));
    let names = || layouts.iter().flat_map(|layout| layout.parameters()).map(|parameter| parameter.name.as_str());
    let used: Vec<usize> = names().filter_map(group).collect();
    let Some(index) = (0..patterns.len()).find(|index| !used.contains(index)) else { return Ok(()) };
    let some: Vec<&str> = names().take(5).collect();
    Err(Error::request(format!(
        "train.optimizer.groups.{index}.match: \"{}\" matches no parameter that an earlier group has not taken",
        settings.groups[index].pattern
    ))
    .with_hint(format!("parameters are named like {}", some.join(", "))))
}

fn patterns(settings: &Optimizer) -> Result<Vec<Pattern>> {
    let pattern = |group: &Group| {
        Pattern::new(&group.pattern).map_err(|e| Error::request(format!("train.optimizer.groups: {e}")))
    };
    settings.groups.iter().map(pattern).collect()
}

/// Returns rate and decay of each parameter; neighbours with equal settings are merged. A parameter belongs to the first group
/// whose pattern matches its name; outside all groups, matrices decay and vectors do not.
fn segments(layout: &Layout, settings: &Optimizer) -> Result<Vec<Segment>> {
    let patterns = patterns(settings)?;
    let mut segments: Vec<Segment> = Vec::new();
    for parameter in layout.parameters() {
        let rule = if parameter.matrix { settings.weight_decay } else { 0.0 };
        let group = patterns.iter().position(|p| p.matches(&parameter.name));
        let (lr_scale, weight_decay) = match group {
            Some(index) => {
                let group = &settings.groups[index];
                (group.lr_scale, group.weight_decay.unwrap_or(rule))
            }
            None => (1.0, rule),
        };
        let segment = Segment { start: parameter.offset / FLAT_ALIGN, lr_scale, weight_decay };
        match segments.last() {
            Some(last) if last.lr_scale == lr_scale && last.weight_decay == weight_decay => {}
            _ => segments.push(segment),
        }
    }
    Ok(segments)
}
