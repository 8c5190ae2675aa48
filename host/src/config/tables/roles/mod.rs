//! What a policy is trained with besides its data: other models, rewards, and its own answers.

pub mod context;
pub mod critic;
pub mod reference;
pub mod reward;
pub mod rollout;
pub mod teacher;
