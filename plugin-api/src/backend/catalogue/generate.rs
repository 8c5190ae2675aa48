//! The macros that generate an operation's struct, its encoding and decoding, and its group's trait from one description.

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

        impl $crate::backend::catalogue::spec::AttrValue for $Name {
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

/// Generates the structs of a group of operations, their descriptions, the group's trait and its dispatcher.
macro_rules! catalogue {
    ($(#[doc = $gdoc:literal])* $Group:ident $(
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
        use $crate::{
            Error, Result,
            abi::{Attr, Call, RSlice, RStr, View},
            backend::catalogue::{
                check::{check, read_attr, within},
                spec::{AttrSpec, AttrValue, Class, Op, OpSpec, OperandSpec, Usage},
            },
        };

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
                    // A later version's optional output has to come behind these, or it would move them on the wire.
                    outputs: &[
                        $($(catalogue!(@operand $out $ucl $ur $uc false Output),)*)?
                        $($(catalogue!(@operand $oout $wcl $wr $wc true Output),)*)?
                        $($(catalogue!(@operand $upd $acl $ar $ac false Update),)*)?
                        $($(catalogue!(@operand $oupd $bcl $br $bc true Update),)*)?
                    ],
                    attrs: &[$($(AttrSpec {
                        name: stringify!($attr),
                        kind: <$tty as AttrValue>::KIND,
                        default: || <$tty as AttrValue>::to_bits($tdef),
                    },)*)?],
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

        /// The operations of this group.
        pub(super) const SPECS: &[&OpSpec] = &[$(<$Name as Op>::SPEC,)*];

        $(#[doc = $gdoc])*
        ///
        /// One method per operation; a method that is left out returns `Code::UNSUPPORTED`.
        ///
        /// Operand shapes, dtypes and aliasing have been checked. The backend checks that views lie inside live buffers and that
        /// indices are within their tables.
        pub trait $Group {
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

        /// Decodes `call`, checks it and runs the backend's method for it; `None` if the operation is not in this group.
        #[inline]
        pub(super) fn dispatch<B: $Group + ?Sized>(backend: &mut B, call: &Call<'_>) -> Option<Result<()>> {
            match call.op {
                $($id => Some($Name::decode(call).and_then(|op| backend.$method(&op))),)*
                _ => None,
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
