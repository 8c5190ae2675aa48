//! Objectives that compare the policy with other models, each as small as possible, for tests of the host:
//!
//! ```text
//! distilling      sum over supervised tokens of teacher.kl
//! top-distilling  sum over supervised tokens of sum_k q_k (log q_k - log p_k) + q_t (log q_t - log p_t)
//! context-kl      sum over supervised tokens of context.kl
//! own-answers     the same, over the policy's own answers
//! ```
//!
//! with p the policy, q the teacher, k the teacher's most probable ids and t all others. The statistics of one token are `[N]`, those
//! of ids `[N, K]`.

use plugin_api::manifest::{Candidates, Divergence};
use plugin_api::prelude::*;

options! {
    /// Options of a divergence.
    pub struct DivergenceOptions {
        /// 0 forward, 1 reverse, otherwise the generalised Jensen-Shannon divergence of this weight.
        mix: f64 = 0.0, in 0.0..=1.0;
        /// Divides the logits of both models.
        temperature: f64 = 1.0, in 0.1..=10.0;
        /// Whether the loss claims to couple the window, so that the host runs it in one call.
        coupled: bool = false;
    }
}

options! {
    /// Options of a divergence over the most probable ids.
    pub struct TopOptions {
        /// Ids per token.
        count: i64 = 3, in 1..=64;
        /// Whether the loss claims to couple the window, so that the host runs it in one call.
        coupled: bool = false;
    }
}

/// The divergence from the teacher.
pub struct Distilling(DivergenceOptions);

/// The same over the teacher's most probable ids.
pub struct TopDistilling(TopOptions);

/// The divergence from the model that reads the same answers behind other prompts.
pub struct ContextKl(DivergenceOptions);

/// The same over the policy's own answers.
pub struct OwnAnswers(DivergenceOptions);

fn described(summary: &str, formula: &str, data: DataKind) -> ObjectiveManifest {
    ObjectiveManifest {
        summary: summary.into(),
        formula: formula.into(),
        data,
        terms: vec![TermSpec::new(TERM, Normaliser::SUPERVISED_TOKENS, "The divergence, in nats")],
        expectations: vec![Expectation {
            quantity: "loss".into(),
            value: "0".into(),
            tolerance: 0.0,
            when: "both models give every id the same probability".into(),
        }],
        ..Default::default()
    }
}

const TERM: &str = "divergence";

/// The sum of one statistic.
fn sum_of(batch: &Batch<'_>, statistic: &str) -> Result<Loss> {
    let tape = batch.tape()?;
    let sum = batch.var(&tape, statistic)?.masked_sum(batch.mask()?);
    Loss::new().term(&tape, TERM, 1.0, sum)
}

impl DivergenceOptions {
    fn requirements(&self, statistic: &str) -> Requirements {
        let divergence = Divergence { weight: self.mix, temperature: self.temperature };
        Requirements { divergence: Some(divergence), coupled: self.coupled, ..Requirements::reading([statistic]) }
    }
}

impl ObjectivePlugin for Distilling {
    type Options = DivergenceOptions;

    fn manifest() -> ObjectiveManifest {
        let formula = "sum over supervised tokens of teacher.kl";
        described("Divergence from a teacher, for tests", formula, DataKind::PROMPT_COMPLETION)
    }

    fn create(options: DivergenceOptions) -> Result<Self> {
        Ok(Self(options))
    }
}

impl Objective for Distilling {
    fn requirements(&self) -> Result<Requirements> {
        Ok(self.0.requirements("teacher.kl"))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        sum_of(batch, "teacher.kl")
    }
}

impl ObjectivePlugin for ContextKl {
    type Options = DivergenceOptions;

    fn manifest() -> ObjectiveManifest {
        let formula = "sum over supervised tokens of context.kl";
        described("Divergence from a model behind other prompts, for tests", formula, DataKind::PROMPT_COMPLETION)
    }

    fn create(options: DivergenceOptions) -> Result<Self> {
        Ok(Self(options))
    }
}

impl Objective for ContextKl {
    fn requirements(&self) -> Result<Requirements> {
        Ok(self.0.requirements("context.kl"))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        sum_of(batch, "context.kl")
    }
}

impl ObjectivePlugin for OwnAnswers {
    type Options = DivergenceOptions;

    fn manifest() -> ObjectiveManifest {
        let formula = "sum over answers' tokens of context.kl";
        described("Divergence of own answers from a model behind other prompts, for tests", formula, DataKind::PROMPT)
    }

    fn create(options: DivergenceOptions) -> Result<Self> {
        Ok(Self(options))
    }
}

impl Objective for OwnAnswers {
    fn requirements(&self) -> Result<Requirements> {
        Ok(self.0.requirements("context.kl"))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        sum_of(batch, "context.kl")
    }
}

impl ObjectivePlugin for TopDistilling {
    type Options = TopOptions;

    fn manifest() -> ObjectiveManifest {
        let formula =
            "sum over supervised tokens of KL(teacher || policy) over the teacher's top ids and all others together";
        described("Divergence from a teacher over its top ids, for tests", formula, DataKind::PROMPT_COMPLETION)
    }

    fn create(options: TopOptions) -> Result<Self> {
        Ok(Self(options))
    }
}

impl Objective for TopDistilling {
    fn requirements(&self) -> Result<Requirements> {
        let count = u64::try_from(self.0.count).unwrap_or(1);
        let candidates = Some(Candidates { from: "teacher".into(), count });
        let read = ["candidates", "tail", "teacher.candidates", "teacher.tail"];
        Ok(Requirements { candidates, coupled: self.0.coupled, ..Requirements::reading(read) })
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let var = |name: &str| batch.var(&tape, name);
        let (policy, teacher) = (var("candidates")?, var("teacher.candidates")?);
        let own = (teacher.exp() * (teacher - policy)).sum_last();
        let (policy, teacher) = (var("tail")?, var("teacher.tail")?);
        let sum = (own + teacher.exp() * (teacher - policy)).masked_sum(batch.mask()?);
        Loss::new().term(&tape, TERM, 1.0, sum)
    }
}

export_objective!("distilling", Distilling);
export_objective!("top-distilling", TopDistilling);
export_objective!("context-kl", ContextKl);
export_objective!("own-answers", OwnAnswers);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api_laws::objective::{Generator, verify};

    /// Catches a loss that is not the divergence it says, under all options.
    #[test]
    fn every_law_holds() {
        let options = |json: &str| serde_json::from_str(json).unwrap();
        let cases = [options("{}"), options(r#"{"mix": 0.5, "temperature": 2.0, "coupled": true}"#)];
        verify::<Distilling>(&cases, &Generator::new(3)).assert_ok();
        verify::<ContextKl>(&cases, &Generator::new(4)).assert_ok();
        verify::<OwnAnswers>(&cases, &Generator::new(6)).assert_ok();
        let cases = [options("{}"), options(r#"{"count": 1}"#), options(r#"{"count": 7, "coupled": true}"#)];
        verify::<TopDistilling>(&cases, &Generator::new(5)).assert_ok();
    }
}
