//! Evaluations of a saved model by tasks: multiple choice, answers that a reward checks, and answers that a reward model compares.

pub mod answer_rows;
pub mod checked;
pub mod choices;
pub mod spread;
pub mod win_rate;
mod written_choices;
