//! Preferences and rollouts: reward models, direct preference optimisation, PPO.

mod adapters;
mod metric_rules;
mod named_models;
mod preference_pipelines;
mod preference_resume;
mod preference_rows;
mod preference_runs;
