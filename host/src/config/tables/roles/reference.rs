//! `[reference]`: the frozen model that the policy is compared with. Whether an objective reads it is known only once its plugin is
//! loaded, and is checked then.

use std::ops::Bound::{Excluded, Included};

use serde::Serialize;

use crate::keys::notes::Notes;
use crate::keys::{Form, table, words};

table! {
    /// the frozen model that the policy is compared with
    pub struct Written at "reference": Form::Table, default "the policy's initial weights, if an objective reads it",
        example { from = "runs/sft" } {
        /// self: the policy's initial weights; or another model, or an adapter, named as in model.from
        from: String, Form::Text, default "\"self\"", example "self";
        /// which adapter the reference has, if the policy is one and from = "self": off (the weights of model.from alone) or start (a
        /// frozen copy of the adapter that the run starts from, such as that of an SFT stage)
        adapter: Adapter, Form::Word(Adapter::WORDS), default "none: needed if an adapter is trained", example "off";
        /// number of steps after which the policy's weights are copied to the reference, repeatedly
        copy_every: u64, Form::POSITIVE_INT, default "never", example 100;
        /// after every step the reference becomes average * reference + (1 - average) * policy: a moving average
        average: f64, Form::Float(Included(0.0), Excluded(1.0)), default "none", example 0.99;
    }
}

words! {
    /// Which adapter a reference has, if the policy is one.
    pub enum Adapter {
        /// None: the frozen weights alone.
        Off = "off",
        /// A frozen copy of the adapter that the run starts from.
        Start = "start",
    }
}

/// Value of `reference.from`: the policy's initial weights.
pub const SELF: &str = "self";

/// `[reference]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reference {
    /// `self` for the policy's initial weights, or a model's folder.
    pub from: String,
    /// Which adapter it has; absent: the policy is not an adapter, or the reference is another model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Adapter>,
    /// How it tracks the policy; absent: not at all.
    #[serde(flatten)]
    pub follow: Option<Follow>,
}

/// How the reference model tracks the policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Follow {
    /// It is replaced by the policy after every N steps.
    CopyEvery(u64),
    /// After every step it becomes the average of itself, with this weight, and of the policy, with the remaining
    /// weight.
    Average(f64),
}

/// Resolves `[reference]`.
pub fn resolve(written: Written, policy_has_adapter: bool, notes: &mut Notes<'_>) -> Reference {
    if written.copy_every.is_some() && written.average.is_some() {
        notes.refuse("reference.average", "contradicts reference.copy_every: give one of them");
    }
    let follow = written.copy_every.map(Follow::CopyEvery).or(written.average.map(Follow::Average));
    let from = written.from.unwrap_or_else(|| SELF.to_owned());
    if !policy_has_adapter {
        let why = "the policy is not an adapter (model.lora, model.adapter); if model.from names an adapter, name the adapter in \
                   model.adapter and its base in model.from";
        notes.unused("reference.adapter", &written.adapter, why);
    } else if from != SELF {
        notes.unused("reference.adapter", &written.adapter, "reference.from names another model; remove one of them");
    }
    if policy_has_adapter && from != SELF && follow.is_some() {
        let why = "contradicts copy_every and average: a reference that tracks an adapter starts as a copy of it; leave reference.from out";
        notes.refuse("reference.from", why);
    }
    if written.adapter == Some(Adapter::Off) && follow.is_some() {
        let why = "a reference that tracks the policy is an adapter; set adapter = \"start\", or remove copy_every and average";
        notes.refuse("reference.adapter", why);
    }
    Reference { from, adapter: written.adapter, follow }
}
