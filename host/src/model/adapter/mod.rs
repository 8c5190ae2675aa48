//! Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685): `y = W x + scale B A x` with `W` frozen. `A` has `rank` rows, `B` has
//! `rank` columns; `scale` is alpha / rank, or alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023, arXiv 2312.03732).
//!
//! | file | job |
//! |---|---|
//! | `mod` | settings, the table of an adapter's parameters |
//! | `base` | the place of its frozen weights |
//! | `attach` | an adapter over a model's frozen weights |
//! | `compute` | its products, forward and backward |
//! | [`config`] | `adapter_config.json` as PEFT writes it |
//! | [`files`] | an adapter's folder in and out |
//! | [`merge`] | the sum `W + scale B A` as a model of its own |
//!
//! An adapter has a flat buffer of its own, and so have its gradient and moments. The frozen weights have neither. A scalar head is
//! part of the adapter and trained as a whole.

mod attach;
mod base;
mod compute;
pub mod config;
pub mod files;
pub mod merge;

use std::path::PathBuf;

use crate::device::{Buffer, Device};
use crate::error::{Error, Result};
use crate::model::files::hash::SeenWeights;
use crate::model::params::{Init, Layout, Parameter, Rows, SCALAR_HEAD, Table};

/// What PEFT puts before the name of a module of the model that it wraps.
pub(super) const PREFIX: &str = "base_model.model.";
/// Value of `targets`: every linear map of the layers.
pub const ALL_LINEAR: &str = "all-linear";

/// The settings of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Rank of the added matrices.
    pub rank: u64,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Names of the adapted linear maps: the last parts of their names, or whole names, as in PEFT. [`ALL_LINEAR`] alone: all.
    pub targets: Vec<String>,
    /// Whether the scale is alpha / sqrt(rank) instead of alpha / rank.
    pub rslora: bool,
}

impl Settings {
    /// Factor of `B A x`.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }
}

/// The factors of an adapted linear map, as indices into the adapter's table.
#[derive(Debug, Clone)]
pub(super) struct Factors {
    /// The index of the map's weight in the layout of the frozen model.
    pub weight: usize,
    pub a: usize,
    pub b: usize,
}

/// An adapter on a device.
pub struct Adapter {
    pub(super) settings: Settings,
    /// The frozen model's place, as `adapter_config.json` names it.
    pub(super) base: base::Base,
    /// Where it was loaded from, if that is known.
    pub(super) base_folder: Option<PathBuf>,
    /// The files of its frozen weights when they were loaded.
    pub(super) base_weights: Option<SeenWeights>,
    pub(super) table: Table,
    pub(super) factors: Vec<Factors>,
    scalar: Option<usize>,
    pub(super) params: Buffer,
    pub(super) shadow: Option<Buffer>,
}

/// The parameters of an adapter of a layout.
pub struct Shape {
    /// Their table.
    pub table: Table,
    pub(super) factors: Vec<Factors>,
    /// Index of the scalar head.
    pub(super) scalar: Option<usize>,
}

impl Shape {
    /// Returns the parameters of an adapter for the linear maps that `settings` choose, and a scalar head of width `scalar`.
    ///
    /// # Errors
    /// A request error for a target that matches no linear map; an adapter that is too large to address.
    pub fn new(layout: &Layout, settings: &Settings, scalar: Option<u64>) -> Result<Shape> {
        let chosen = chosen(layout, &settings.targets)?;
        let mut rows = Rows::default();
        let (mut factors, mut hidden) = (Vec::new(), Vec::new());
        // Maps that read the same input are neighbours: their first factors come one after the other, so that one product
        // computes all of them.
        for maps in layout.inputs() {
            let own: Vec<_> = maps.into_iter().filter(|linear| chosen.contains(&linear.weight)).collect();
            let mut first = Vec::with_capacity(own.len());
            let matrix = |name, rows, cols, init| Parameter {
                name,
                offset: 0,
                rows,
                cols,
                matrix: true,
                stored_transposed: false,
                stored_heads: 0,
                init,
            };
            for linear in &own {
                let weight = &layout.parameters()[linear.weight];
                let init = Init::Uniform((weight.cols as f64).sqrt().recip());
                first.push(rows.push(matrix(factor(weight, "A"), settings.rank, weight.cols, init))?);
            }
            for (linear, a) in own.iter().zip(first) {
                let weight = &layout.parameters()[linear.weight];
                // The transpose of what files hold, so that both passes use products of the catalogue that add to their output.
                let b = matrix(factor(weight, "B"), settings.rank, weight.rows, Init::Zero);
                let b = rows.push(Parameter { stored_transposed: true, stored_heads: weight.stored_heads, ..b })?;
                factors.push(Factors { weight: linear.weight, a, b });
                hidden.extend([a, b]);
            }
        }
        let head = |width| {
            rows.push(Parameter {
                name: format!("{PREFIX}{SCALAR_HEAD}"),
                offset: 0,
                rows: 1,
                cols: width,
                matrix: true,
                stored_transposed: false,
                stored_heads: 0,
                init: Init::Zero,
            })
        };
        let scalar = scalar.map(head).transpose()?;
        Ok(Shape { table: rows.finish(hidden), factors, scalar })
    }
}

/// The name of a weight's factor in PEFT's files.
fn factor(weight: &Parameter, factor: &str) -> String {
    format!("{PREFIX}{}.lora_{factor}.weight", module(weight))
}

/// The name of the module with this weight.
pub(super) fn module(weight: &Parameter) -> &str {
    weight.name.strip_suffix(".weight").unwrap_or(&weight.name)
}

/// Returns the weights of the linear maps that `targets` name.
fn chosen(layout: &Layout, targets: &[String]) -> Result<Vec<usize>> {
    let named = |target: &str, weight: usize| {
        let module = module(&layout.parameters()[weight]);
        module.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    let weights: Vec<usize> = layout.linears().map(|linear| linear.weight).collect();
    if targets == [ALL_LINEAR] {
        return Ok(weights);
    }
    if let Some(target) = targets.iter().find(|target| !weights.iter().any(|weight| named(target, *weight))) {
        return Err(Error::request(format!("the model has no linear map `{target}`")).with_hint(format!(
            "its linear maps are {}; \"{ALL_LINEAR}\" names all of them",
            target_names(layout).join(", ")
        )));
    }
    Ok(weights.into_iter().filter(|weight| targets.iter().any(|target| named(target, *weight))).collect())
}

/// Returns the last parts of the names of all linear maps, each once.
pub(super) fn target_names(layout: &Layout) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for linear in layout.linears() {
        let name = module(&layout.parameters()[linear.weight]).rsplit('.').next().unwrap_or_default();
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

impl Adapter {
    /// Allocates an adapter of `layout` whose values are undefined.
    ///
    /// # Errors
    /// As [`Shape::new`]; the device is out of memory.
    pub(super) fn allocate(
        device: &Device,
        layout: &Layout,
        mut settings: Settings,
        scalar: Option<u64>,
    ) -> Result<Adapter> {
        let Shape { table, factors, scalar } = Shape::new(layout, &settings, scalar)?;
        if settings.targets == [ALL_LINEAR] {
            // As PEFT writes them: other programs do not know the word.
            settings.targets = target_names(layout);
        }
        let params = device.buffer(device.accumulator(), table.flat_len())?;
        device.call(&plugin_api::backend::ops::Fill { x: params.view(), value: 0.0 })?;
        let mixed = device.compute() != device.accumulator();
        let shadow = mixed.then(|| device.buffer(device.compute(), table.flat_len())).transpose()?;
        let (base, base_folder, base_weights) = Default::default();
        Ok(Adapter { settings, base, base_folder, base_weights, table, factors, scalar, params, shadow })
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The table of its parameters.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Its flat parameters, in the accumulator dtype.
    pub fn params(&self) -> &Buffer {
        &self.params
    }

    /// Its scalar head, if it has one.
    pub(super) fn scalar(&self) -> Option<&Parameter> {
        self.scalar.map(|index| &self.table.parameters()[index])
    }

    /// The flat parameters that forward and backward read.
    pub(super) fn weights(&self) -> &Buffer {
        self.shadow.as_ref().unwrap_or(&self.params)
    }
}
