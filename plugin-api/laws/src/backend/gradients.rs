//! Backward operations against central finite differences of their forward ones, in f64.
//!
//! With random cotangents c of the outputs o, `L = sum c o`. The backward operation must write for c the derivative of L by every
//! element of every differentiable input.

use super::{
    case::Case,
    cases::backward_pairs,
    compare::worst,
    rules::{Rule, Start},
    stage::{Layout, Outcome, Stage, run},
    tables::{self, SEED},
    tensor::Tensor,
};
use crate::{Agreement, Broken, Report};
use plugin_api::{
    Error, Result,
    abi::DType,
    backend::{Session, catalogue::OpSpec},
};
use telos_random::SplitMix64;

/// Largest input that is checked element by element.
const LARGEST: usize = 700;

/// Half the distance between the two points.
const STEP: f64 = 1e-5;

/// The allowed error from truncation and rounding of a difference, relative to the gradient's scale.
const LIMIT: f64 = 1e-6;

/// Checks every backward operation of `session`, which must compute in f64.
pub fn verify_gradients(session: &mut dyn Session) -> Report {
    verify_gradients_of(session, &|_| true)
}

/// Checks the backward operations that `wanted` selects; writes no line if it selects none.
pub fn verify_gradients_of(session: &mut dyn Session, wanted: &dyn Fn(&OpSpec) -> bool) -> Report {
    let mut report = Report::default();
    let rng = &mut SplitMix64::new(SEED);
    let leads_there = |spec: &OpSpec| tables::rules().any(|r| r.forward.id == spec.id && wanted(r.backward));
    let written = match tables::written(session, DType::F64, &leads_there) {
        Ok(written) => written,
        Err(e) => {
            report.push("session", "prepares the cases", Err(e.to_string()));
            return report;
        }
    };
    for forward in written.iter().filter(|case| is_smooth(case)) {
        for (forward, rule) in backward_pairs(forward) {
            if wanted(rule.backward) {
                let outcome = check(session, &forward, rule, rng).unwrap_or_else(|e| Err(e.to_string().into()));
                report.measure(rule.backward.name, &format!("gradient of {}", forward.name), outcome);
            }
        }
    }
    report
}

/// Small enough, and without points at which a function has a kink.
fn is_smooth(case: &Case) -> bool {
    let small = case.operands.iter().all(|(_, tensor)| tensor.data.len() <= LARGEST);
    small && case.is_filled() && !case.name.contains("extremes")
}

fn check(
    session: &mut dyn Session,
    forward: &Case,
    rule: &Rule,
    rng: &mut SplitMix64,
) -> Result<Result<Agreement, Broken>> {
    let out = run(session, forward, DType::F64, Layout::Dense)?;
    let backward = rule.derive(forward, &out, rng, Start::Zero)?;
    let gradients = run(session, &backward, DType::F64, Layout::Dense)?;
    let slopes = Slopes { forward, rule, backward: &backward };
    let mut largest = Agreement::new(0.0, LIMIT);
    for (input, gradient) in rule.gradients() {
        let (Some(x), Some(found)) = (forward.operand(input), gradients.output(gradient)) else { continue };
        let expected = Tensor { data: slopes.of(session, input)?, ..x.clone() };
        let (error, at) = worst(&expected, found);
        if error > LIMIT {
            let text = format!(
                "`{gradient}` at {at}: {:e}, but `{input}` has slope {:e}: error {error:.1e}",
                found.data[at], expected.data[at]
            );
            return Ok(Err(Broken { text, agreement: Some(Agreement::new(error, LIMIT)) }));
        }
        largest = largest.worse(Agreement::new(error, LIMIT));
    }
    Ok(Ok(largest))
}

/// The forward case whose differences are taken.
struct Slopes<'a> {
    forward: &'a Case,
    rule: &'a Rule,
    backward: &'a Case,
}

impl Slopes<'_> {
    /// The central difference of `L` by each element of `input`.
    fn of(&self, session: &mut dyn Session, input: &str) -> Result<Vec<f64>> {
        let stage = Stage::place(session, self.forward, DType::F64, Layout::Dense)?;
        let slopes = self.walk(session, &stage, input);
        stage.release(session)?;
        slopes
    }

    fn walk(&self, session: &mut dyn Session, stage: &Stage<'_>, input: &str) -> Result<Vec<f64>> {
        let values = self.forward.operand(input).map_or(&[][..], |t| &t.data);
        let (view, draft) = (stage.view(input), stage.draft());
        let mut slopes = Vec::with_capacity(values.len());
        for (at, &x) in values.iter().enumerate() {
            let place = view.offset + at as u64 / view.cols * view.row_stride + at as u64 % view.cols;
            let mut at_step = |step: f64| -> Result<f64> {
                session.upload(view.buffer, place, &(x + step).to_le_bytes())?;
                draft.invoke(session)?;
                self.projection(&stage.collect(session)?)
            };
            let (above, below) = (at_step(STEP)?, at_step(-STEP)?);
            slopes.push((above - below) / (2.0 * STEP));
            session.upload(view.buffer, place, &x.to_le_bytes())?;
        }
        Ok(slopes)
    }

    /// `sum c o` over the outputs for which the backward operation got cotangents.
    fn projection(&self, out: &Outcome) -> Result<f64> {
        let mut sum = 0.0;
        for (output, cotangent) in self.rule.cotangents() {
            let Some(c) = self.backward.operand(cotangent) else { continue };
            let o = out.output(output).ok_or_else(|| Error::internal(format!("no output `{output}`")))?;
            sum += c.data.iter().zip(&o.data).map(|(c, o)| c * o).sum::<f64>();
        }
        Ok(sum)
    }
}
