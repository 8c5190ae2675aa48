//! What an objective's author needs: `use plugin_api::prelude::*;`

pub use crate::{
    Code, Error, Result,
    batch::{Batch, Scope},
    export_objective,
    manifest::{
        DataKind, Expectation, MetricSpec, Normaliser, ObjectiveManifest, Reduction, Requirements, Role, Statistic,
        TermSpec,
    },
    objective::{Loss, Objective, ObjectivePlugin, Verdict},
    options,
    tape::{Mask, Tape, Var},
};
