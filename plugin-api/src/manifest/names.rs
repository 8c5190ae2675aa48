//! Names with a fixed set of values per minor version.

use serde::{Deserialize, Serialize};

/// Declares a `&str`-like newtype with named values. It accepts values of newer minor versions.
macro_rules! names {
    ($(#[$meta:meta])* $Name:ident { $($(#[$vmeta:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $Name(pub std::borrow::Cow<'static, str>);

        impl $Name {
            $($(#[$vmeta])* pub const $value: $Name = $Name(std::borrow::Cow::Borrowed($text));)*

            /// Every value of this minor.
            pub const ALL: &'static [&'static str] = &[$($text,)*];

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

names! {
    /// What kind of rows an objective learns from.
    DataKind {
        /// Running text.
        TEXT = "text",
        /// A prompt and its completion (or a conversation).
        PROMPT_COMPLETION = "prompt-completion",
        /// A prompt, a chosen and a rejected answer.
        PREFERENCE = "preference",
        /// A prompt, an answer and whether it is desirable.
        UNPAIRED = "unpaired",
        /// Only prompts; the policy answers.
        PROMPT = "prompt",
    }
}

impl Default for DataKind {
    fn default() -> Self {
        DataKind::TEXT
    }
}

names! {
    /// What a term's sum is divided by, counted over the whole optimizer window: all micro-batches and ranks.
    Normaliser {
        /// Tokens whose mask is 1.
        SUPERVISED_TOKENS = "supervised tokens",
        /// Sequences.
        SEQUENCES = "sequences",
        /// Pairs.
        PAIRS = "pairs",
        /// Groups.
        GROUPS = "groups",
        /// The number that `weigh` returns under the term's name.
        CUSTOM = "custom",
    }
}

names! {
    /// Which tokens of its sequence a token attends to.
    AttentionMask {
        /// Those before it and itself.
        CAUSAL = "causal",
        /// Those before it and itself, and all tokens of the prompt.
        PREFIX = "prefix",
        /// All.
        BIDIRECTIONAL = "bidirectional",
    }
}

impl Default for AttentionMask {
    fn default() -> Self {
        AttentionMask::CAUSAL
    }
}

names! {
    /// How a metric's parts are combined into one number.
    Reduction {
        /// The sum of the sums, divided by the sum of the weights.
        MEAN = "mean",
        /// The sum of the sums.
        SUM = "sum",
        /// The smallest value.
        MIN = "min",
        /// The largest value.
        MAX = "max",
    }
}

names! {
    /// The type of a column's values. A host treats a name that it cannot interpret as [`ColumnValue::ANY`].
    ColumnValue {
        /// A text or a number.
        ANY = "any",
        /// A text.
        TEXT = "text",
        /// A number, or true or false.
        NUMBER = "number",
    }
}

impl Default for ColumnValue {
    fn default() -> Self {
        Self::ANY
    }
}
