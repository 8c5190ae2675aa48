//! Which models the objectives need, and which of the policy's outputs.

use super::reads::Frozen;

/// Which models the objectives need, and which of the policy's outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Any statistic of the language-model head; a reward model or a critic has no such head.
    pub tokens: bool,
    /// The scalar head's score of a sequence.
    pub score: bool,
    /// The scalar head's scores of tokens.
    pub token_score: bool,
    /// A statistic of the frozen reference.
    pub reference: bool,
    /// More of the reference than its log-probabilities of the targets, so that it runs in every step.
    pub reference_in_step: bool,
    /// A statistic of the teacher.
    pub teacher: bool,
    /// A statistic of the model that reads the same answers behind other prompts.
    pub context: bool,
    /// A critic's values.
    pub critic: bool,
    /// Rollouts: rows are prompts, and the policy answers them first.
    pub rollouts: bool,
}

impl Needs {
    /// Whether an objective reads at the end of a sequence, so that its last token is read too.
    pub fn reads_last(self) -> bool {
        self.score || self.token_score || self.critic
    }

    /// Whether a statistic of this frozen role is read.
    pub fn frozen(self, role: Frozen) -> bool {
        match role {
            Frozen::Reference => self.reference,
            Frozen::Teacher => self.teacher,
            Frozen::Context => self.context,
        }
    }
}
