//! How an operation is described, encoded, decoded and checked: the machinery behind [`super::ops`].
//!
//! One description generates the struct that both ends use: the host fills it and calls [`Op::with_call`]; the backend gets it
//! from [`Op::decode`], with operand count, dtypes, shapes and attribute names already checked.

use crate::{
    Code, Error, Result,
    abi::{Attr, Call, DType, View},
};
use std::fmt::Debug;

/// The dtypes that an operand may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The operation's compute dtype: one float type for all `T` operands of a call.
    T,
    /// The accumulator of the compute dtype: f32 for f32 and bf16, f64 for f64.
    A,
    /// i32.
    I,
    /// Any float type, unrelated to the others.
    F,
}

/// How an operand is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Read.
    Input,
    /// Overwritten; its old content does not matter.
    Output,
    /// Read and updated (accumulated into, or stepped in place).
    Update,
}

/// One operand of an operation.
#[derive(Debug, Clone, Copy)]
pub struct OperandSpec {
    /// Its permanent name.
    pub name: &'static str,
    /// Which dtypes it takes.
    pub class: Class,
    /// Rows and columns: a number, a symbol, `symbol + number`, or `_` for any size.
    pub dims: [&'static str; 2],
    /// Whether it may be omitted.
    pub optional: bool,
    /// Read, written or both.
    pub usage: Usage,
}

/// One attribute of an operation.
#[derive(Debug, Clone, Copy)]
pub struct AttrSpec {
    /// Its permanent name.
    pub name: &'static str,
    /// One of [`Attr::INT`], [`Attr::FLOAT`], [`Attr::BOOL`].
    pub kind: u32,
}

/// One operation of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct OpSpec {
    /// Its permanent id.
    pub id: u32,
    /// Its permanent name.
    pub name: &'static str,
    /// The version of its meaning.
    pub version: u32,
    /// Whether every backend must implement it.
    pub mandatory: bool,
    /// Inputs: required ones first, then optional ones.
    pub inputs: &'static [OperandSpec],
    /// Outputs: required, optional, updated, optionally updated.
    pub outputs: &'static [OperandSpec],
    /// Attributes.
    pub attrs: &'static [AttrSpec],
    /// (output, input) pairs that may be the very same view.
    pub aliases: &'static [(&'static str, &'static str)],
}

/// An attribute's type.
pub trait AttrValue: Copy + Debug {
    /// One of the `Attr::*` kinds.
    const KIND: u32;
    /// To bits.
    fn to_bits(self) -> u64;
    /// From bits of the right kind.
    fn from_bits(bits: u64) -> Self;
}

impl AttrValue for i64 {
    const KIND: u32 = Attr::INT;
    fn to_bits(self) -> u64 {
        self as u64
    }
    fn from_bits(bits: u64) -> Self {
        bits as i64
    }
}

impl AttrValue for f64 {
    const KIND: u32 = Attr::FLOAT;
    fn to_bits(self) -> u64 {
        f64::to_bits(self)
    }
    fn from_bits(bits: u64) -> Self {
        f64::from_bits(bits)
    }
}

impl AttrValue for bool {
    const KIND: u32 = Attr::BOOL;
    fn to_bits(self) -> u64 {
        u64::from(self)
    }
    fn from_bits(bits: u64) -> Self {
        bits != 0
    }
}

/// A typed operation: one struct of the catalogue.
pub trait Op: Copy + Debug {
    /// Its description.
    const SPEC: &'static OpSpec;

    /// Encodes it and hands the call to `f`, without allocating.
    fn with_call<R>(&self, f: impl FnOnce(&Call<'_>) -> R) -> R;

    /// Decodes and checks a call: operand count, dtypes, shapes, attribute names and kinds.
    ///
    /// # Errors
    /// [`Code::UNSUPPORTED`] for another version or an unknown attribute, [`Code::SHAPE`], [`Code::DTYPE`],
    /// [`Code::INVALID_ARGUMENT`] for a missing operand.
    fn decode(call: &Call<'_>) -> Result<Self>;
}

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
    let operands = spec.inputs.iter().zip(call.inputs.iter());
    for (operand, view) in operands.chain(spec.outputs.iter().zip(call.outputs.iter())) {
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
            "version {} was asked for, version {} is here",
            call.version, spec.version
        )));
    }
    if call.inputs.len() != spec.inputs.len() || call.outputs.len() != spec.outputs.len() {
        return Err(Error::invalid(format!(
            "{} inputs and {} outputs given, {} and {} expected",
            call.inputs.len(),
            call.outputs.len(),
            spec.inputs.len(),
            spec.outputs.len()
        )));
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

/// Declares an integer newtype for an attribute, with named values.
macro_rules! attr_enum {
    ($(#[$meta:meta])* $Name:ident { $($(#[$vmeta:meta])* $value:ident = $number:literal,)* }) => {
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $Name(pub i64);

        impl $Name {
            $($(#[$vmeta])* pub const $value: $Name = $Name($number);)*

            /// Every value of this minor with its name.
            pub const ALL: &'static [($Name, &'static str)] = &[$(($Name::$value, stringify!($value)),)*];

            /// The error for a value that `op` does not know.
            pub fn unknown(self, op: &str) -> $crate::Error {
                $crate::Error::unsupported(format!("{op}: {} {} is unknown here", stringify!($Name), self.0))
            }
        }

        impl std::fmt::Debug for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match Self::ALL.iter().find(|(v, _)| v == self) {
                    Some((_, name)) => f.write_str(name),
                    None => write!(f, "{}({})", stringify!($Name), self.0),
                }
            }
        }

        impl $crate::backend::catalogue::AttrValue for $Name {
            const KIND: u32 = $crate::abi::Attr::INT;
            fn to_bits(self) -> u64 {
                self.0 as u64
            }
            fn from_bits(bits: u64) -> Self {
                $Name(bits as i64)
            }
        }
    };
}
pub(crate) use attr_enum;

/// Generates the op structs, the table of descriptions, the SDK's trait and its dispatcher.
macro_rules! catalogue {
    ($(
        $(#[doc = $doc:literal])*
        $id:literal $Name:ident $method:ident v $version:literal $need:ident {
            $(in { $($(#[doc = $idoc:literal])* $in:ident: $icl:ident [$ir:tt, $ic:tt],)* })?
            $(opt { $($(#[doc = $odoc:literal])* $opt:ident: $ocl:ident [$or:tt, $oc:tt],)* })?
            $(out { $($(#[doc = $udoc:literal])* $out:ident: $ucl:ident [$ur:tt, $uc:tt],)* })?
            $(opt_out { $($(#[doc = $wdoc:literal])* $oout:ident: $wcl:ident [$wr:tt, $wc:tt],)* })?
            $(update { $($(#[doc = $adoc:literal])* $upd:ident: $acl:ident [$ar:tt, $ac:tt],)* })?
            $(opt_update { $($(#[doc = $bdoc:literal])* $oupd:ident: $bcl:ident [$br:tt, $bc:tt],)* })?
            $(attr { $($(#[doc = $tdoc:literal])* $attr:ident: $tty:ty = $tdef:expr,)* })?
            $(fixed { $($sym:ident = $symexpr:expr,)* })?
            $(alias { $($ao:ident = $ai:ident,)* })?
        }
    )*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $Name {
                $($($(#[doc = $idoc])* pub $in: View,)*)?
                $($($(#[doc = $odoc])* pub $opt: Option<View>,)*)?
                $($($(#[doc = $udoc])* pub $out: View,)*)?
                $($($(#[doc = $wdoc])* pub $oout: Option<View>,)*)?
                $($($(#[doc = $adoc])* pub $upd: View,)*)?
                $($($(#[doc = $bdoc])* pub $oupd: Option<View>,)*)?
                $($($(#[doc = $tdoc])* pub $attr: $tty,)*)?
            }

            impl Default for $Name {
                /// Every operand absent, every attribute at its default, for struct update syntax.
                fn default() -> Self {
                    Self {
                        $($($in: View::NONE,)*)?
                        $($($opt: None,)*)?
                        $($($out: View::NONE,)*)?
                        $($($oout: None,)*)?
                        $($($upd: View::NONE,)*)?
                        $($($oupd: None,)*)?
                        $($($attr: $tdef,)*)?
                    }
                }
            }

            impl Op for $Name {
                const SPEC: &'static OpSpec = &OpSpec {
                    id: $id,
                    name: stringify!($method),
                    version: $version,
                    mandatory: catalogue!(@need $need),
                    inputs: &[
                        $($(catalogue!(@operand $in $icl $ir $ic false Input),)*)?
                        $($(catalogue!(@operand $opt $ocl $or $oc true Input),)*)?
                    ],
                    outputs: &[
                        $($(catalogue!(@operand $out $ucl $ur $uc false Output),)*)?
                        $($(catalogue!(@operand $oout $wcl $wr $wc true Output),)*)?
                        $($(catalogue!(@operand $upd $acl $ar $ac false Update),)*)?
                        $($(catalogue!(@operand $oupd $bcl $br $bc true Update),)*)?
                    ],
                    attrs: &[$($(AttrSpec { name: stringify!($attr), kind: <$tty as AttrValue>::KIND },)*)?],
                    aliases: &[$($((stringify!($ao), stringify!($ai)),)*)?],
                };

                fn with_call<R>(&self, f: impl FnOnce(&Call<'_>) -> R) -> R {
                    let inputs = [$($(self.$in,)*)? $($(self.$opt.unwrap_or(View::NONE),)*)?];
                    let outputs = [
                        $($(self.$out,)*)?
                        $($(self.$oout.unwrap_or(View::NONE),)*)?
                        $($(self.$upd,)*)?
                        $($(self.$oupd.unwrap_or(View::NONE),)*)?
                    ];
                    let attrs = [$($(Attr {
                        name: RStr::from_str(stringify!($attr)),
                        kind: <$tty as AttrValue>::KIND,
                        reserved: 0,
                        bits: AttrValue::to_bits(self.$attr),
                    },)*)?];
                    f(&Call {
                        op: $id,
                        version: $version,
                        inputs: RSlice::from_slice(&inputs),
                        outputs: RSlice::from_slice(&outputs),
                        attrs: RSlice::from_slice(&attrs),
                    })
                }

                #[allow(unused_mut, unused_variables)]
                fn decode(call: &Call<'_>) -> Result<Self> {
                    let none = |v: View| (!v.is_none()).then_some(v);
                    let mut inputs = call.inputs.iter().copied();
                    let mut outputs = call.outputs.iter().copied();
                    let mut input = || inputs.next().unwrap_or(View::NONE);
                    let mut output = || outputs.next().unwrap_or(View::NONE);
                    let op = Self {
                        $($($in: input(),)*)?
                        $($($opt: none(input()),)*)?
                        $($($out: output(),)*)?
                        $($($oout: none(output()),)*)?
                        $($($upd: output(),)*)?
                        $($($oupd: none(output()),)*)?
                        $($($attr: read_attr(call, stringify!($attr), $tdef).map_err(|e| within(Self::SPEC, e))?,)*)?
                    };
                    let fixed = [$($((stringify!($sym), ($symexpr)(&op)),)*)?];
                    check(Self::SPEC, call, &fixed)?;
                    Ok(op)
                }
            }
        )*

        /// Every operation of this minor, by ascending id.
        pub static CATALOGUE: &[&OpSpec] = &[$(<$Name as Op>::SPEC,)*];

        /// What a backend implements: one method per operation. A method that is left out returns `Code::UNSUPPORTED`.
        ///
        /// Operand shapes, dtypes and aliasing have been checked. The backend checks that views lie inside live buffers and that
        /// indices are within their tables.
        pub trait Ops {
            $(
                $(#[doc = $doc])*
                ///
                /// # Errors
                /// Errors with a code for shapes, dtypes, handles, indices or memory.
                fn $method(&mut self, op: &$Name) -> Result<()> {
                    let _ = op;
                    Err(Error::unsupported(concat!(stringify!($method), ": not in this backend")))
                }
            )*
        }

        /// Decodes `call`, checks it and runs the backend's method for it.
        ///
        /// # Errors
        /// Those of [`Op::decode`], those of the method, and `Code::UNSUPPORTED` for an operation of a newer minor version.
        pub fn dispatch<B: Ops + ?Sized>(backend: &mut B, call: &Call<'_>) -> Result<()> {
            match call.op {
                $($id => backend.$method(&$Name::decode(call)?),)*
                other => Err(Error::unsupported(format!("operation {other} is unknown here"))),
            }
        }
    };
    (@need mandatory) => { true };
    (@need optional) => { false };
    (@operand $name:ident $class:ident $r:tt $c:tt $optional:literal $usage:ident) => {
        OperandSpec {
            name: stringify!($name),
            class: Class::$class,
            dims: [stringify!($r), stringify!($c)],
            optional: $optional,
            usage: Usage::$usage,
        }
    };
}
pub(crate) use catalogue;
