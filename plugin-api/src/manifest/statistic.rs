//! The statistics: numbers per token or sequence that the host computes for objectives. This table is the only list of them in the
//! contract.

use crate::batch::Scope;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The form of a statistic's array.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StatisticSpec {
    /// Its name, without a role.
    pub name: &'static str,
    /// What its rows are.
    pub scope: Scope,
    /// Whether it has an exact backward, so that a loss may return a cotangent for it if its model is trained.
    pub differentiable: bool,
    /// Whether a row holds several values.
    pub wide: bool,
    /// The smallest and the largest value that it can have.
    pub range: (f64, f64),
}

/// One number per token, with a gradient.
const TOKEN: StatisticSpec = StatisticSpec {
    name: "",
    scope: Scope::TOKEN,
    differentiable: true,
    wide: false,
    range: (f64::NEG_INFINITY, f64::INFINITY),
};

/// One number per sequence, with a gradient.
const SEQUENCE: StatisticSpec = StatisticSpec { scope: Scope::SEQUENCE, ..TOKEN };

/// Declares the statistics with their names and forms. A statistic of a newer minor version is accepted as a name.
macro_rules! statistics {
    ($($(#[doc = $doc:literal])* $value:ident = $text:literal, $form:expr;)*) => {
        /// A number per token (or sequence) that the host computes for an objective.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct Statistic(pub Cow<'static, str>);

        impl Statistic {
            $($(#[doc = $doc])* pub const $value: Statistic = Statistic(Cow::Borrowed($text));)*

            /// Every value of this minor.
            pub const ALL: &'static [&'static str] = &[$($text,)*];

            /// The form of each of them.
            const FORMS: &'static [StatisticSpec] = &[$(StatisticSpec { name: $text, ..$form },)*];
        }
    };
}

statistics! {
    /// Log-probability of the target, per token.
    LOGP = "logp", StatisticSpec { range: (f64::NEG_INFINITY, 0.0), ..TOKEN };
    /// Log-sum-exp of the logits, per token.
    LSE = "lse", TOKEN;
    /// Entropy of the prediction in nats, per token.
    ENTROPY = "entropy", StatisticSpec { range: (0.0, f64::INFINITY), ..TOKEN };
    /// Mean of the logits over the vocabulary, per token.
    MEAN_LOGIT = "mean_logit", TOKEN;
    /// 1 where the target has the largest logit, per token. No gradient.
    TOP1 = "top1", StatisticSpec { differentiable: false, range: (0.0, 1.0), ..TOKEN };
    /// Divergence of the policy's whole distribution from that of a role, per token: `teacher.kl`. Its gradient is the policy's.
    KL = "kl", StatisticSpec { range: (0.0, f64::INFINITY), ..TOKEN };
    /// Log-probabilities of given ids, per token and candidate.
    CANDIDATES = "candidates", StatisticSpec { wide: true, range: (f64::NEG_INFINITY, 0.0), ..TOKEN };
    /// Logarithm of the probability of all ids that are not candidates, per token. There is at least one: the host refuses
    /// candidates that are the whole vocabulary.
    TAIL = "tail", StatisticSpec { range: (f64::NEG_INFINITY, 0.0), ..TOKEN };
    /// The critic's value of the state before a token, per token.
    VALUE = "value", TOKEN;
    /// The scalar head at a sequence's last real token, per sequence.
    SCORE = "score", SEQUENCE;
    /// The scalar head after the target has been read, per token.
    TOKEN_SCORE = "token_score", TOKEN;
    /// The critic's value after the last token, per sequence. No gradient.
    VALUE_END = "value_end", StatisticSpec { differentiable: false, ..SEQUENCE };
}

impl Statistic {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form of the statistic of this name, with or without a role (`reference.logp`); `None` if this minor does not know it.
    pub fn form(name: &str) -> Option<&'static StatisticSpec> {
        let base = name.rsplit('.').next().unwrap_or(name);
        Self::FORMS.iter().find(|form| form.name == base)
    }
}

impl std::fmt::Display for Statistic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
