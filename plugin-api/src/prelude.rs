//! What the author of an objective or a reward needs: `use plugin_api::prelude::*;`

pub use crate::{
    Code, Error, Result,
    batch::{Batch, Scope},
    export_objective, export_reward,
    manifest::{
        AttentionMask, Candidates, ColumnValue, DataKind, Divergence, Expectation, GivenNumber, MetricSpec, Normaliser,
        ObjectiveColumn, ObjectiveManifest, Reduction, Requirements, RewardColumn, RewardManifest, RewardPart,
        Statistic, StopGradient, TermNormaliser, TermSpec,
    },
    objective::{Loss, Objective, ObjectivePlugin, Verdict},
    options,
    options::OptionSet,
    reward::{Column, Rating, Reward, RewardPlugin, Sample, Span},
    tape::{Mask, Tape, Var, stop_gradient},
};
