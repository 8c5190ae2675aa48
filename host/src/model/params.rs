//! The place of every parameter: one flat buffer, tensors one after the other, each at a multiple of [`FLAT_ALIGN`].
//!
//! Gradients and moments use the same layout. Query, key and value projections (and gate and up) are adjacent, so that one
//! product with a taller matrix computes all of them if the alignment leaves no gap.

use std::collections::BTreeMap;
use std::ops::Deref;

use plugin_api::abi::View;
use plugin_api::backend::ops::FLAT_ALIGN;
use telos_random::Rng;

use super::shape::config::ModelConfig;
use crate::device::Buffer;
use crate::error::{Error, Result};
use crate::families::family::Mlp;

/// The name of the scalar head in files.
pub const SCALAR_HEAD: &str = "score.weight";

/// The initial values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with this standard deviation.
    Normal(f64),
    /// All ones.
    One,
    /// All zeros.
    Zero,
    /// Uniform between the negative of this bound and the bound: the first factor of an adapter. Drawn from a random stream of its
    /// own, so that a model and its adapter with the same seed share no numbers.
    Uniform(f64),
}

/// One tensor of the flat buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its Hugging Face name.
    pub name: String,
    /// Elements before it.
    pub offset: u64,
    /// Rows; 1 for a vector. A linear layer has one row per output.
    pub rows: u64,
    /// Columns.
    pub cols: u64,
    /// Whether it is two-dimensional: weight decay applies by default. Vectors (norms, biases) do not decay.
    pub matrix: bool,
    /// Whether files store it as (columns, rows).
    pub stored_transposed: bool,
    /// Heads of a joint projection that files store head by head, query, key and value together; 0: the rows are in order. A vector's
    /// elements count as rows.
    pub stored_heads: u64,
    /// Its initial values.
    pub init: Init,
}

impl Parameter {
    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.rows * self.cols
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its shape in files.
    pub fn stored_shape(&self) -> Vec<usize> {
        let (rows, cols) = (self.rows as usize, self.cols as usize);
        match (self.matrix, self.stored_transposed) {
            (false, _) => vec![cols],
            (true, false) => vec![rows, cols],
            (true, true) => vec![cols, rows],
        }
    }

    /// Returns its matrix inside a flat buffer of the layout.
    pub fn view(&self, flat: &Buffer) -> View {
        flat.matrix(self.offset, self.rows, self.cols)
    }
}

/// A norm's parameters, as indices into [`Layout::parameters`].
#[derive(Debug, Clone, Copy)]
pub(super) struct NormRef {
    pub weight: usize,
    pub bias: Option<usize>,
}

/// A linear layer's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinearRef {
    pub weight: usize,
    pub bias: Option<usize>,
}

/// A layer's norms, those that its family has.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerNorms {
    /// Before attention and before the feed-forward block.
    pub before: [Option<NormRef>; 2],
    /// Of the heads of queries and of keys.
    pub heads: Option<[NormRef; 2]>,
    /// Of the outputs of attention and of the feed-forward block.
    pub after: [Option<NormRef>; 2],
}

impl LayerNorms {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = NormRef> {
        let around = self.before.into_iter().chain(self.after).flatten();
        around.chain(self.heads.into_iter().flatten())
    }
}

/// A layer's parameters.
#[derive(Debug, Clone)]
pub(super) struct LayerRefs {
    pub qkv: Vec<LinearRef>,
    pub output: LinearRef,
    pub up: Vec<LinearRef>,
    pub down: LinearRef,
    pub norms: LayerNorms,
}

/// The parameters of one flat buffer: those of a model, or those of an adapter.
#[derive(Debug, Clone)]
pub struct Table {
    parameters: Vec<Parameter>,
    by_name: BTreeMap<String, usize>,
    len: u64,
    /// The matrices that Muon orthogonalises.
    hidden: Vec<usize>,
}

/// The table of a model's parameters, and the role of each.
#[derive(Debug, Clone)]
pub struct Layout {
    table: Table,
    pub(super) embedding: usize,
    pub(super) positions: Option<usize>,
    pub(super) layers: Vec<LayerRefs>,
    pub(super) norm: NormRef,
    /// The head; the embedding if they are tied, or if there is no language-model head.
    pub(super) head: usize,
    /// The scalar head, if there is one.
    pub(super) scalar: Option<usize>,
}

impl Layout {
    /// Returns the layout of a config.
    ///
    /// # Errors
    /// The model is too large to address.
    pub fn new(config: &ModelConfig) -> Result<Layout> {
        Builder { config, rows: Rows::default() }.build()
    }

    /// Returns the linear maps of all layers; those that read the same input are together.
    pub(super) fn inputs(&self) -> impl Iterator<Item = Vec<LinearRef>> + '_ {
        let of = |layer: &LayerRefs| [layer.qkv.clone(), vec![layer.output], layer.up.clone(), vec![layer.down]];
        self.layers.iter().flat_map(of)
    }

    /// Returns the linear maps of all layers.
    pub(super) fn linears(&self) -> impl Iterator<Item = LinearRef> + '_ {
        self.inputs().flatten()
    }
}

impl Deref for Layout {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl Table {
    /// Every parameter, in ascending order of offset.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Returns the indices of the layers' linear maps: every matrix except embeddings and heads. For an adapter, those of its
    /// factors.
    pub fn hidden_matrices(&self) -> Vec<usize> {
        self.hidden.clone()
    }

    /// Elements of a flat buffer, gaps included: a multiple of [`FLAT_ALIGN`].
    pub fn flat_len(&self) -> u64 {
        self.len
    }

    /// Number of parameters, without gaps.
    pub fn count(&self) -> u64 {
        self.parameters.iter().map(Parameter::len).sum()
    }

    /// The index of the parameter of this name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.index(name).map(|index| &self.parameters[index])
    }

    /// Returns the initial values of parameter `index`, row by row. They depend only on seed, index and init, so every backend
    /// starts from the same bits.
    pub fn initial(&self, index: usize, seed: u64) -> Vec<f32> {
        let Some(parameter) = self.parameters.get(index) else { return Vec::new() };
        let len = parameter.len() as usize;
        match parameter.init {
            Init::One => vec![1.0; len],
            Init::Zero => vec![0.0; len],
            Init::Normal(std) => normals(&mut Rng::new(&[seed, INIT_STREAM, index as u64]), len, std),
            Init::Uniform(bound) => {
                let mut rng = Rng::new(&[seed, ADAPTER_STREAM, index as u64]);
                (0..len).map(|_| (bound * (2.0 * uniform(&mut rng) - 1.0)) as f32).collect()
            }
        }
    }
}

/// Separates the random streams of initial weights from all others with the same seed.
const INIT_STREAM: u64 = 0x1917;
/// As [`INIT_STREAM`], for adapters.
const ADAPTER_STREAM: u64 = 0x10a4;

/// Normal numbers by Box and Muller (1958).
fn normals(rng: &mut Rng, len: usize, std: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(len + 1);
    while values.len() < len {
        // From (0, 1], so that the logarithm is finite.
        let radius = (-2.0 * (1.0 - uniform(rng)).ln()).sqrt() * std;
        let (sin, cos) = (std::f64::consts::TAU * uniform(rng)).sin_cos();
        values.push((radius * cos) as f32);
        values.push((radius * sin) as f32);
    }
    values.truncate(len);
    values
}

/// Uniform in [0, 1), 53 bits.
fn uniform(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

struct Builder<'a> {
    config: &'a ModelConfig,
    rows: Rows,
}

/// A table in progress.
#[derive(Default)]
pub(super) struct Rows {
    parameters: Vec<Parameter>,
    end: u64,
}

impl Rows {
    /// Returns the table, whose hidden matrices are `hidden`.
    pub(super) fn finish(self, hidden: Vec<usize>) -> Table {
        let by_name = self.parameters.iter().enumerate().map(|(index, p)| (p.name.clone(), index)).collect();
        Table { parameters: self.parameters, by_name, len: self.end, hidden }
    }

    /// Adds a parameter after all others and returns its index.
    pub(super) fn push(&mut self, mut parameter: Parameter) -> Result<usize> {
        parameter.offset = self.end;
        let end = parameter
            .rows
            .checked_mul(parameter.cols)
            .and_then(|len| self.end.checked_add(len))
            .and_then(|end| end.checked_next_multiple_of(FLAT_ALIGN))
            .filter(|end| *end < 1 << 48);
        self.end =
            end.ok_or_else(|| Error::request(format!("the model is too large: {} overflows", parameter.name)))?;
        self.parameters.push(parameter);
        Ok(self.parameters.len() - 1)
    }
}

impl Builder<'_> {
    fn build(mut self) -> Result<Layout> {
        let (config, names) = (self.config, &self.config.family.names);
        let normal = Init::Normal(config.init_std);
        let root = |name: &str| format!("{}{name}", names.prefix);
        let embedding = self.matrix(root(names.embedding) + ".weight", config.vocab, config.dim, normal, false)?;
        let positions = match names.positions {
            Some(name) => Some(self.matrix(root(name) + ".weight", config.context, config.dim, normal, false)?),
            None => None,
        };
        let mut layers = Vec::with_capacity(config.layers as usize);
        for layer in 0..config.layers {
            layers.push(self.layer(&root(&format!("{}{layer}.", names.layer)))?);
        }
        let norm = self.norm(&root(names.norm))?;
        let head = if config.tied || !config.outputs.tokens {
            embedding
        } else {
            self.matrix(format!("{}.weight", names.head), config.vocab, config.dim, normal, false)?
        };
        let scalar = match config.outputs.scalar {
            true => Some(self.matrix(SCALAR_HEAD.to_owned(), 1, config.dim, Init::Zero, false)?),
            false => None,
        };
        let of = |layer: &LayerRefs| {
            let alone = [layer.output, layer.down];
            layer.qkv.iter().chain(&layer.up).chain(&alone).map(|linear| linear.weight).collect::<Vec<_>>()
        };
        let table = self.rows.finish(layers.iter().flat_map(of).collect());
        Ok(Layout { table, embedding, positions, layers, norm, head, scalar })
    }

    fn layer(&mut self, prefix: &str) -> Result<LayerRefs> {
        let config = self.config;
        let names = &config.family.names;
        let at = |name: &str| format!("{prefix}{name}");
        let all = |these: &[&str]| these.iter().map(|name| at(name)).collect::<Vec<_>>();
        let (q, kv) = (config.query_width(), config.kv_width());
        let widths: &[u64] = if names.qkv.len() == 1 { &[q + 2 * kv] } else { &[q, kv, kv] };
        let normal = Init::Normal(config.init_std);
        // Projections that add to the residual stream start with smaller values, the more of them there are (Radford et al.
        // 2019).
        let residual = Init::Normal(config.init_std / (2.0 * config.layers as f64).sqrt());
        // Gate and up may be one matrix.
        let joined = if config.family.mlp == Mlp::Gated { 2 / names.up.len().max(1) as u64 } else { 1 };
        let up_widths = vec![joined * config.hidden; names.up.len()];
        let norm1 = self.optional_norm(names.norm1, prefix)?;
        let first = self.rows.parameters.len();
        let qkv = self.linears(&all(names.qkv), widths, config.dim, config.attention_bias, normal)?;
        if config.family.stored_by_head {
            self.rows.parameters[first..].iter_mut().for_each(|parameter| parameter.stored_heads = config.heads);
        }
        let heads = match names.head_norms {
            Some([query, key]) => {
                let wide = config.family.wide_head_norms;
                let (q, k) = if wide { (q, kv) } else { (config.head_dim, config.head_dim) };
                Some([self.norm_of(&at(query), q)?, self.norm_of(&at(key), k)?])
            }
            None => None,
        };
        let output = self.linear(at(names.output), config.dim, q, config.output_bias, residual)?;
        let post1 = self.optional_norm(names.post1, prefix)?;
        let norm2 = self.optional_norm(names.norm2, prefix)?;
        let up = self.linears(&all(names.up), &up_widths, config.dim, config.mlp_bias, normal)?;
        let down = self.linear(at(names.down), config.dim, config.hidden, config.mlp_bias, residual)?;
        let post2 = self.optional_norm(names.post2, prefix)?;
        let norms = LayerNorms { before: [norm1, norm2], heads, after: [post1, post2] };
        Ok(LayerRefs { qkv, output, up, down, norms })
    }

    fn optional_norm(&mut self, name: Option<&str>, prefix: &str) -> Result<Option<NormRef>> {
        name.map(|name| self.norm(&format!("{prefix}{name}"))).transpose()
    }

    fn norm(&mut self, name: &str) -> Result<NormRef> {
        self.norm_of(name, self.config.dim)
    }

    fn norm_of(&mut self, name: &str, width: u64) -> Result<NormRef> {
        let init = if self.config.family.norm_offset == 0.0 { Init::One } else { Init::Zero };
        let weight = self.vector(format!("{name}.weight"), width, init)?;
        let bias = self.config.family.norm_bias.then(|| self.vector(format!("{name}.bias"), width, Init::Zero));
        Ok(NormRef { weight, bias: bias.transpose()? })
    }

    fn linear(&mut self, name: String, outputs: u64, inputs: u64, bias: bool, init: Init) -> Result<LinearRef> {
        let refs = self.linears(&[name], &[outputs], inputs, bias, init)?;
        refs.into_iter().next().ok_or_else(|| Error::run("a linear layer without a name"))
    }

    /// Adds layers that read the same input: all weights, then all biases, so that each kind is one block.
    fn linears(
        &mut self,
        names: &[String],
        outputs: &[u64],
        inputs: u64,
        bias: bool,
        init: Init,
    ) -> Result<Vec<LinearRef>> {
        let transposed = self.config.family.stored_transposed;
        let mut refs = Vec::with_capacity(names.len());
        for (name, rows) in names.iter().zip(outputs) {
            let weight = self.matrix(format!("{name}.weight"), *rows, inputs, init, transposed)?;
            refs.push(LinearRef { weight, bias: None });
        }
        if bias {
            for ((name, rows), linear) in names.iter().zip(outputs).zip(&mut refs) {
                linear.bias = Some(self.vector(format!("{name}.bias"), *rows, Init::Zero)?);
            }
        }
        Ok(refs)
    }

    fn vector(&mut self, name: String, len: u64, init: Init) -> Result<usize> {
        self.rows.push(Parameter {
            name,
            offset: 0,
            rows: 1,
            cols: len,
            matrix: false,
            stored_transposed: false,
            stored_heads: 0,
            init,
        })
    }

    fn matrix(&mut self, name: String, rows: u64, cols: u64, init: Init, stored_transposed: bool) -> Result<usize> {
        self.rows.push(Parameter {
            name,
            offset: 0,
            rows,
            cols,
            matrix: true,
            stored_transposed,
            stored_heads: 0,
            init,
        })
    }
}
