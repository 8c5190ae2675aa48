//! Evaluation: losses on held-out data, metrics of answers to held-out prompts, and the names and expected values of the
//! metrics.

pub(crate) mod checks;
mod compare;
pub mod evaluator;
pub mod exact_match;
pub(crate) mod expectations;
mod generation;
pub mod held_out;
pub(crate) mod improve;
pub(crate) mod pass_at_k;
pub mod prompts;

pub use compare::ComparedAnswer;
pub use evaluator::Figures;

/// The metrics of answers to held-out prompts, in the order in which they are measured and reported.
pub const EVALUATORS: [&dyn evaluator::Evaluator; 3] =
    [&exact_match::ExactMatch, &generation::RewardsOfAnswers, &pass_at_k::PassAtK];
