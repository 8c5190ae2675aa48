//! What the author of an objective or a reward needs: `use plugin_api::prelude::*;`

pub use crate::{
    Code, Error, Result,
    batch::{Batch, Scope},
    export_objective, export_reward,
    manifest::{
        ColumnValue, DataKind, Expectation, MetricSpec, Normaliser, ObjectiveManifest, Reduction, Requirements,
        RewardColumn, RewardManifest, Statistic, StopGradient, TermSpec,
    },
    objective::{Loss, Objective, ObjectivePlugin, Verdict},
    options,
    options::OptionSet,
    reward::{Column, Reward, RewardPlugin, Sample},
    tape::{Mask, Tape, Var, stop_gradient},
};
