//! The operations of one file in the suite: their cases, their backward operations, and wrong calls of them.

use super::{case::Case, rules::Rule};
use plugin_api::{
    Code, Result,
    abi::DType,
    backend::{Session, catalogue::OpSpec},
};
use telos_random::SplitMix64;

/// The operations of one file.
pub struct Family {
    /// Those with cases of their own.
    pub ops: &'static [&'static OpSpec],
    /// Their cases. The reference is used for cases whose result must not depend on rounding.
    pub cases: fn(&mut SplitMix64, &mut dyn Session, DType) -> Result<Vec<Case>>,
    /// The rules of their backward operations.
    pub rules: &'static [Rule],
    /// Mistakes that make a call of them wrong, those of backward operations included.
    pub wrong: Wrong,
}

/// Sources of wrong calls, by operation name.
pub struct Wrong {
    /// Operands that index a table: (operation, operand, the operand whose rows are the table).
    pub indices: &'static [(&'static str, &'static str, Option<&'static str>)],
    /// Operands that divide a range into parts.
    pub offsets: &'static [(&'static str, &'static str)],
    /// Invalid attribute values: (operation, attribute, value, legal codes).
    pub values: &'static [(&'static str, &'static str, f64, &'static [Code])],
    /// Optional operands that another one requires: (operation, the one left out).
    pub companions: &'static [(&'static str, &'static str)],
    /// Operands of several columns whose indices are distinct within a row: (operation, operand).
    pub distinct: &'static [(&'static str, &'static str)],
}

impl Wrong {
    /// Nothing beyond what the description refuses.
    pub const NONE: Wrong = Wrong { indices: &[], offsets: &[], values: &[], companions: &[], distinct: &[] };
}
