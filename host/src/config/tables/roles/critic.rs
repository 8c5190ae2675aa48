//! `[critic]`: the value model. Whether an objective reads it is known only once its plugin is loaded, and is checked then.

use serde::Serialize;

use crate::keys::notes::Notes;
use crate::keys::{Form, table};

table! {
    /// the value model, if an objective reads values
    pub struct Written at "critic": Form::Table, example { from = "policy" } {
        /// policy: the policy's initial weights with a zero-initialised scalar head; shared: a scalar head on the policy's own
        /// trunk; or a run, a checkpoint or a folder, such as that of the reward model
        from: String, Form::Text, default "\"policy\"", example "runs/reward";
        /// peak learning rate of the critic, unless it is shared
        lr: f64, Form::POSITIVE, default "that of train.optimizer", example 1e-4;
    }
}

/// Value of `critic.from`: a copy of the policy's initial weights.
pub const POLICY: &str = "policy";

/// Value of `critic.from`: a scalar head on the policy's own trunk.
pub const SHARED: &str = "shared";

/// `[critic]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Critic {
    /// `policy`, `shared`, or a model's folder.
    pub from: String,
    /// Peak learning rate; absent: the optimizer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
}

/// Resolves `[critic]`.
pub fn resolve(written: Written, notes: &mut Notes<'_>) -> Critic {
    let from = written.from.unwrap_or_else(|| POLICY.to_owned());
    if from == SHARED {
        notes.unused(
            "critic.lr",
            &written.lr,
            "a critic that shares the policy's trunk uses the policy's learning rate",
        );
    }
    Critic { from, lr: written.lr }
}
