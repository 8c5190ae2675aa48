//! Checks a call against its operation's description: operand count, dtypes, shapes, attribute names, overlaps.

use std::iter;

use super::spec::{AttrValue, Class, OpSpec, OperandSpec};
use crate::{
    Code, Error, Result,
    abi::{Call, DType, View},
};

/// Reads attribute `name` of `call`, or its default.
pub fn read_attr<T: AttrValue>(call: &Call<'_>, name: &str, default: T) -> Result<T> {
    match call.attrs.iter().find(|attr| attr.name.as_str() == name) {
        None => Ok(default),
        Some(attr) if attr.kind == T::KIND => Ok(T::from_bits(attr.bits)),
        Some(attr) => Err(Error::invalid(format!("attribute `{name}` has kind {}, expected {}", attr.kind, T::KIND))),
    }
}

/// Checks a call against its description; `fixed` holds the symbols that attributes determine.
pub fn check(spec: &OpSpec, call: &Call<'_>, fixed: &[(&'static str, u64)]) -> Result<()> {
    let wrap = |e: Error| within(spec, e);
    check_header(spec, call).map_err(wrap)?;
    let mut symbols = Symbols::new(fixed);
    let mut compute = None;
    let mut accumulator = None;
    let inputs = spec.inputs.iter().zip(given(call.inputs.as_slice()));
    for (operand, view) in inputs.chain(spec.outputs.iter().zip(given(call.outputs.as_slice()))) {
        if view.is_none() {
            if operand.optional {
                continue;
            }
            return Err(wrap(Error::invalid(format!("operand `{}` is missing", operand.name))));
        }
        check_dtype(operand, view, &mut compute, &mut accumulator).map_err(wrap)?;
        symbols.bind(operand, 0, view.rows).map_err(wrap)?;
        symbols.bind(operand, 1, view.cols).map_err(wrap)?;
        if view.rows > 1 && view.row_stride < view.cols {
            return Err(wrap(Error::new(
                Code::SHAPE,
                format!("`{}` {view:?}: rows overlap (stride {})", operand.name, view.row_stride),
            )));
        }
    }
    check_aliases(spec, call).map_err(wrap)
}

/// The views of a call, and behind them absent ones: an operand that is not sent is absent.
fn given(views: &[View]) -> impl Iterator<Item = &View> {
    views.iter().chain(iter::repeat(&View::NONE))
}

/// The product of two attributes as a size; if they are negative or it overflows, a size that no operand has.
pub fn product(a: i64, b: i64) -> u64 {
    match (u64::try_from(a), u64::try_from(b)) {
        (Ok(a), Ok(b)) => a.saturating_mul(b),
        _ => u64::MAX,
    }
}

/// The error with the operation's name in its text.
pub fn within(spec: &OpSpec, e: Error) -> Error {
    Error { message: format!("{}: {}", spec.name, e.message), ..e }
}

fn check_header(spec: &OpSpec, call: &Call<'_>) -> Result<()> {
    if call.version != spec.version {
        return Err(Error::unsupported(format!(
            "version {} was requested, this backend has version {}",
            call.version, spec.version
        )));
    }
    // Operands of a later minor version come last; where such a call does without them, they are absent.
    for (what, known, views) in
        [("input", spec.inputs.len(), &call.inputs), ("output", spec.outputs.len(), &call.outputs)]
    {
        if views.iter().skip(known).any(|view| !view.is_none()) {
            return Err(Error::unsupported(format!(
                "{} {what}s given, {known} are known here; expected the others to be absent",
                views.len()
            )));
        }
    }
    for attr in call.attrs.iter() {
        if !spec.attrs.iter().any(|a| a.name == attr.name.as_str()) {
            return Err(Error::unsupported(format!("attribute `{}` is unknown here", attr.name)));
        }
    }
    Ok(())
}

fn check_dtype(
    operand: &OperandSpec,
    view: &View,
    compute: &mut Option<DType>,
    accumulator: &mut Option<DType>,
) -> Result<()> {
    let refuse = |expected: String| {
        Err(Error::new(Code::DTYPE, format!("`{}` is {}, expected {expected}", operand.name, view.dtype)))
    };
    let float = view.dtype.is_float();
    match operand.class {
        Class::I if view.dtype != DType::I32 => refuse("i32".into()),
        Class::I => Ok(()),
        Class::F if !float => refuse("a float type".into()),
        Class::F => Ok(()),
        Class::T => match *compute {
            _ if !float => refuse("a float type".into()),
            Some(dtype) if dtype != view.dtype => refuse(format!("{dtype} like the operands before it")),
            _ => {
                if let Some(acc) = accumulator.filter(|acc| view.dtype.accumulator() != *acc) {
                    return refuse(format!("a type that accumulates in {acc}"));
                }
                *compute = Some(view.dtype);
                *accumulator = Some(view.dtype.accumulator());
                Ok(())
            }
        },
        Class::A => match *accumulator {
            Some(dtype) if dtype != view.dtype => refuse(dtype.to_string()),
            None if view.dtype != DType::F32 && view.dtype != DType::F64 => refuse("f32 or f64".into()),
            _ => {
                *accumulator = Some(view.dtype);
                Ok(())
            }
        },
    }
}

/// The sizes of the symbols in one call.
struct Symbols {
    bound: [(&'static str, u64); 12],
    len: usize,
}

impl Symbols {
    fn new(fixed: &[(&'static str, u64)]) -> Self {
        let mut bound = [("", 0); 12];
        bound[..fixed.len()].copy_from_slice(fixed);
        Symbols { bound, len: fixed.len() }
    }

    fn bind(&mut self, operand: &OperandSpec, axis: usize, size: u64) -> Result<()> {
        let refuse = |expected: u64| {
            let axis = ["rows", "columns"][axis];
            Err(Error::new(
                Code::SHAPE,
                format!(
                    "`{}` has {size} {axis}, expected {expected} ([{}, {}])",
                    operand.name, operand.dims[0], operand.dims[1]
                ),
            ))
        };
        let dim = operand.dims[axis];
        if dim == "_" {
            return Ok(());
        }
        if let Ok(fixed) = dim.parse::<u64>() {
            return if size == fixed { Ok(()) } else { refuse(fixed) };
        }
        let (symbol, extra) = match dim.trim_matches(['(', ')']).split_once('+') {
            Some((symbol, extra)) => (symbol.trim(), extra.trim().parse::<u64>().unwrap_or(0)),
            None => (dim, 0),
        };
        if let Some((_, value)) = self.bound[..self.len].iter().find(|(name, _)| *name == symbol) {
            let expected = value.saturating_add(extra);
            return if size == expected { Ok(()) } else { refuse(expected) };
        }
        if size < extra {
            return refuse(extra);
        }
        self.bound[self.len] = (symbol, size - extra);
        self.len += 1;
        Ok(())
    }
}

/// Whether two views share an element. Errs towards yes: strided views are compared by their extents and column ranges.
pub fn overlap(a: &View, b: &View) -> bool {
    if a.is_none() || b.is_none() || a.buffer != b.buffer || a.is_empty() || b.is_empty() {
        return false;
    }
    let (Some(a_end), Some(b_end)) = (a.end(), b.end()) else { return true };
    if a_end <= b.offset || b_end <= a.offset {
        return false;
    }
    // Column blocks of one matrix (q, k, v of a fused projection) interleave without overlapping.
    if a.row_stride == b.row_stride && a.row_stride > 0 && a.rows > 1 && b.rows > 1 {
        let (ca, cb) = (a.offset % a.row_stride, b.offset % b.row_stride);
        let inside = ca + a.cols <= a.row_stride && cb + b.cols <= b.row_stride;
        return !inside || (ca < cb + b.cols && cb < ca + a.cols);
    }
    true
}

fn check_aliases(spec: &OpSpec, call: &Call<'_>) -> Result<()> {
    for (o, (out_spec, out)) in spec.outputs.iter().zip(call.outputs.iter()).enumerate() {
        for (in_spec, input) in spec.inputs.iter().zip(call.inputs.iter()) {
            let allowed = spec.aliases.contains(&(out_spec.name, in_spec.name));
            if overlap(out, input) && !(allowed && out == input) {
                return Err(alias_error(out_spec, out, in_spec, input, allowed));
            }
        }
        for (other_spec, other) in spec.outputs.iter().zip(call.outputs.iter()).skip(o + 1) {
            if overlap(out, other) {
                return Err(alias_error(out_spec, out, other_spec, other, false));
            }
        }
    }
    Ok(())
}

fn alias_error(a: &OperandSpec, va: &View, b: &OperandSpec, vb: &View, whole: bool) -> Error {
    let rule = if whole { "they may only be the very same view" } else { "they must not share elements" };
    Error::new(Code::ALIAS, format!("`{}` {va:?} overlaps `{}` {vb:?}: {rule}", a.name, b.name))
}
