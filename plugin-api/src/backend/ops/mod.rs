//! The operation catalogue: only this folder defines what a backend computes, a file per group of operations.
//!
//! The host's typed calls, the SDK's traits (one per group, all of them [`Ops`]), the shape, dtype and alias checks, and the lines
//! of `abi.lock` are generated from it. Ids, names, operand order and attribute names are permanent; a changed meaning gets a new
//! operation with a new id. A later minor version may add an optional operand, which comes last among the inputs or the outputs of
//! a call, and an attribute with a default. A host sends neither where the call does without them, so that a backend of an earlier
//! version can run it.
//!
//! # Reading it
//! Every operand is a matrix `[rows, columns]`; a vector is `[1, n]`. Shape letters: N tokens, D model width, I and O
//! a linear layer's widths, F feed-forward width, V vocabulary, S sequences, H query heads, Q = H x head width,
//! K = key-value heads x head width (ids per token in the head's operations), P positions, R half the rotated width, B decoding
//! rows, C cache rows, E another model's width, M elements of a flat buffer, G parameter segments. Classes: `T` compute dtype, `A`
//! its accumulator (f32, or f64 for f64), `I` i32, `F` any float. `update` operands are accumulated into or stepped in place.
//! Every reduction, norm and softmax accumulates in f32 or better, whatever `T` is.
//!
//! Zero-sized operands are legal and have no effect (an empty sum is 0).

mod activation;
mod attention;
mod candidates;
mod divergence;
mod elementwise;
mod head;
mod linear;
mod norm;
mod optimizer;
mod rows;

pub use activation::*;
pub use attention::*;
pub use candidates::*;
pub use divergence::*;
pub use elementwise::*;
pub use head::*;
pub use linear::*;
pub use norm::*;
pub use optimizer::*;
pub use rows::*;

use super::catalogue::OpSpec;
use crate::{Error, Result, abi::Call};

/// Joins the groups: the trait of a whole backend, the table of descriptions and the dispatcher.
macro_rules! groups {
    ($($group:ident $Group:ident,)*) => {
        /// What a backend implements: the trait of every group. A backend that lacks a whole group implements its trait with an
        /// empty body.
        pub trait Ops: $($Group +)* {}

        impl<T: $($Group +)* ?Sized> Ops for T {}

        const GROUPS: &[&[&OpSpec]] = &[$($group::SPECS,)*];

        /// Decodes `call`, checks it and runs the backend's method for it.
        ///
        /// # Errors
        /// Those of [`super::Op::decode`], those of the method, and `Code::UNSUPPORTED` for an operation of a newer minor version.
        pub fn dispatch<B: Ops + ?Sized>(backend: &mut B, call: &Call<'_>) -> Result<()> {
            $(if let Some(done) = $group::dispatch(backend, call) {
                return done;
            })*
            Err(Error::unsupported(format!("operation {} is unknown here", call.op)))
        }
    };
}

groups! {
    elementwise ElementwiseOps,
    rows RowOps,
    norm NormOps,
    linear LinearOps,
    attention AttentionOps,
    activation ActivationOps,
    head HeadOps,
    divergence DivergenceOps,
    candidates CandidateOps,
    optimizer OptimizerOps,
}

const COUNT: usize = {
    let (mut count, mut group) = (0, 0);
    while group < GROUPS.len() {
        count += GROUPS[group].len();
        group += 1;
    }
    count
};

/// Every operation of this minor, by ascending id, without gaps.
pub static CATALOGUE: &[&OpSpec] = &by_id();

/// The operations of all groups, each at the index that is its id; does not compile if an id is missing or occurs twice.
const fn by_id() -> [&'static OpSpec; COUNT] {
    let mut all: [Option<&'static OpSpec>; COUNT] = [None; COUNT];
    let mut group = 0;
    while group < GROUPS.len() {
        let mut at = 0;
        while at < GROUPS[group].len() {
            let spec = GROUPS[group][at];
            assert!(all[spec.id as usize].is_none(), "two operations have the same id");
            all[spec.id as usize] = Some(spec);
            at += 1;
        }
        group += 1;
    }
    let mut sorted = [GROUPS[0][0]; COUNT];
    let mut id = 0;
    while id < COUNT {
        if let Some(spec) = all[id] {
            sorted[id] = spec;
        }
        id += 1;
    }
    sorted
}

/// An error of a backend's function for an operation, before the operation's name is added to its text.
pub trait Fault {
    /// The contract's error for this fault in `operation`.
    fn named(self, operation: &str) -> Error;
}

impl Fault for Error {
    /// The error itself: its text is final.
    fn named(self, _: &str) -> Error {
        self
    }
}

/// Implements a group's trait with a backend's functions: `operations! { ActivationOps for MyBackend: glu Glu => glu, }`. A
/// function takes the backend and the operation, and returns `Result<(), F>` with an `F` that is a `plugin_api::backend::ops::Fault`.
/// An operation that is left out returns [`Code::UNSUPPORTED`](crate::Code::UNSUPPORTED).
#[macro_export]
macro_rules! operations {
    ($Group:ident for $Backend:ty: $($method:ident $Op:ident => $function:path,)*) => {
        impl $crate::backend::ops::$Group for $Backend {
            $(fn $method(&mut self, op: &$crate::backend::ops::$Op) -> $crate::Result<()> {
                $function(self, op).map_err(|fault| $crate::backend::ops::Fault::named(fault, stringify!($method)))
            })*
        }
    };
}
