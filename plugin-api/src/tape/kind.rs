//! The names of all operations, used by errors, `{:?}` and the completeness check of the gradient tests.

use std::fmt;

macro_rules! op_kinds {
    ($($variant:ident $name:literal,)*) => {
        /// The operation that created a variable.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum OpKind {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl OpKind {
            /// All operations.
            pub const ALL: &'static [OpKind] = &[$(OpKind::$variant,)*];

            /// The name of its method.
            pub const fn name(self) -> &'static str {
                match self { $(OpKind::$variant => $name,)* }
            }
        }
    };
}

op_kinds! {
    Constant "constant",
    Input "input",
    Detach "detach",
    Compare "compare",
    Neg "neg",
    Exp "exp",
    Log "log",
    Sqrt "sqrt",
    Square "square",
    Powi "powi",
    Abs "abs",
    Sigmoid "sigmoid",
    LogSigmoid "log_sigmoid",
    Log1mExp "log1mexp",
    Softplus "softplus",
    Tanh "tanh",
    Relu "relu",
    Clamp "clamp",
    Add "add",
    Sub "sub",
    Mul "mul",
    Div "div",
    Max "max",
    Min "min",
    Select "select",
    Sum "sum",
    Mean "mean",
    MaskedSum "masked_sum",
    MaskedMean "masked_mean",
    SeqSum "seq_sum",
    SeqMean "seq_mean",
    GroupSum "group_sum",
    GroupMean "group_mean",
    SumLast "sum_last",
    ToTokens "to_tokens",
    GroupBroadcast "group_broadcast",
    Chosen "chosen",
    Rejected "rejected",
    IndexSelect "index_select",
    Gather "gather",
    Sort "sort",
    RepeatLast "repeat_last",
    Transpose "transpose",
    Concat "concat",
    LogSumExp "logsumexp",
    Matmul "matmul",
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
