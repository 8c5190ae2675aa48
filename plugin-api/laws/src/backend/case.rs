//! A case: one operation with its attributes and operands, on the host.

use super::tensor::Tensor;
use plugin_api::{
    abi::DType,
    backend::{
        Op,
        catalogue::{Class, OpSpec, OperandSpec, Usage},
    },
};

/// Optional operands that require another one: (operation, operand, the required operand).
const NEEDS: &[(&str, &str, &str)] = &[
    ("embedding", "positions", "position_table"),
    ("embedding", "position_table", "positions"),
    ("head_backward", "dentropy", "entropy"),
    ("head_candidates_backward", "dtail", "tail"),
];

/// Operations that move or round values and compute nothing.
const EXACT: &[&str] = &["nop", "fill", "copy", "cast", "gather_rows"];

/// Whether an operation only moves or rounds values, so that its results must agree exactly.
pub fn is_exact(spec: &OpSpec) -> bool {
    EXACT.contains(&spec.name)
}

/// One operation with its attributes and operands.
#[derive(Clone, Debug)]
pub struct Case {
    /// The operation.
    pub spec: &'static OpSpec,
    /// What distinguishes it from other cases of the operation.
    pub name: String,
    /// Name, kind and bits of each attribute.
    pub attrs: Vec<(&'static str, u32, u64)>,
    /// Operands by name; outputs hold their content before the call.
    pub operands: Vec<(&'static str, Tensor)>,
    /// Operands that are column blocks of one buffer.
    pub packed: &'static [&'static [&'static str]],
    /// Whether to run it again without each optional operand; one such case per operation has them all.
    pub vary: bool,
}

impl Case {
    /// A case of the operation `op` with its attributes; operands are added by [`Case::with`].
    pub fn new<O: Op>(name: impl Into<String>, op: &O) -> Self {
        let attrs = op.with_call(|call| {
            let pairs = O::SPEC.attrs.iter().zip(call.attrs.iter());
            pairs.map(|(spec, attr)| (spec.name, attr.kind, attr.bits)).collect()
        });
        Case { spec: O::SPEC, name: name.into(), attrs, operands: Vec::new(), packed: &[], vary: false }
    }

    /// Adds an operand.
    #[must_use]
    pub fn with(mut self, name: &'static str, tensor: Tensor) -> Self {
        self.operands.retain(|(n, _)| *n != name);
        self.operands.push((name, tensor));
        self
    }

    /// Adds an output of that shape, filled with NaN.
    #[must_use]
    pub fn out(self, name: &'static str, rows: usize, cols: usize) -> Self {
        self.with(name, Tensor::garbage(rows, cols))
    }

    /// Places operands next to each other in one buffer.
    #[must_use]
    pub fn packed(mut self, groups: &'static [&'static [&'static str]]) -> Self {
        self.packed = groups;
        self
    }

    /// Requests the variants without optional operands.
    #[must_use]
    pub fn vary(mut self) -> Self {
        self.vary = true;
        self
    }

    /// The operand's values.
    pub fn operand(&self, name: &str) -> Option<&Tensor> {
        self.operands.iter().find(|(n, _)| *n == name).map(|(_, tensor)| tensor)
    }

    /// An attribute's bits.
    pub fn attr(&self, name: &str) -> Option<u64> {
        self.attrs.iter().find(|(n, _, _)| *n == name).map(|(_, _, bits)| *bits)
    }

    /// All operands of the operation, inputs first.
    pub fn specs(&self) -> impl Iterator<Item = &'static OperandSpec> {
        self.spec.inputs.iter().chain(self.spec.outputs)
    }

    /// The dtype of an operand where the case computes in `compute`.
    pub fn dtype_of(&self, spec: &OperandSpec, compute: DType) -> DType {
        match spec.class {
            Class::T => compute,
            Class::A => compute.accumulator(),
            Class::I => DType::I32,
            Class::F => self.operand(spec.name).and_then(|t| t.dtype).unwrap_or(compute),
        }
    }

    /// Whether at least one required operand holds elements, so that wrong views and values can matter.
    pub fn is_filled(&self) -> bool {
        let required = self.specs().filter(|spec| !spec.optional);
        required.filter_map(|spec| self.operand(spec.name)).all(|tensor| !tensor.data.is_empty())
    }

    /// The same case without `name` and the operands that require it.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let needs = |dropped: &str| NEEDS.contains(&(self.spec.name, dropped, name)) || dropped == name;
        let mut case = self.clone();
        case.operands.retain(|(n, _)| !needs(n));
        case.name = format!("{}, no {name}", self.name);
        case.vary = false;
        case
    }

    /// The case without each optional operand that `droppable` allows, and without all of them.
    pub fn variants(&self, droppable: impl Fn(&OperandSpec) -> bool) -> Vec<Case> {
        let present = |spec: &&OperandSpec| self.operand(spec.name).is_some();
        let dropped: Vec<_> = self.specs().filter(|s| s.optional && droppable(s)).filter(present).collect();
        let mut cases: Vec<Case> = dropped.iter().map(|spec| self.without(spec.name)).collect();
        if dropped.len() > 1 {
            let mut bare = dropped.iter().fold(self.clone(), |case, spec| case.without(spec.name));
            bare.name = format!("{}, none optional", self.name);
            cases.push(bare);
        }
        cases
    }
}

/// Whether the operand is only read.
pub fn is_input(spec: &OperandSpec) -> bool {
    spec.usage == Usage::Input
}
