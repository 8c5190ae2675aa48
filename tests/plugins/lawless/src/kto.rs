//! KTO whose reference point is the batch's mean log-ratio: held constant on a tape, by hand, or not at all.

use plugin_api::{objective::Term, prelude::*};

const BETA: f64 = 0.1;
const POINT: &str = "reference_point";

/// How the reference point enters the gradient.
mod point {
    /// Detached on the tape.
    pub const HELD: u8 = 1;
    /// Held constant by hand in a loss without a tape, with `stop_gradient`.
    pub const BY_HAND: u8 = 2;
    /// The gradient flows through it.
    pub const FORGOTTEN: u8 = 3;
    /// Held constant by hand and not declared.
    pub const UNDECLARED: u8 = 4;
}

/// KTO.
pub struct Kto<const WAY: u8>;

impl<const WAY: u8> ObjectivePlugin for Kto<WAY> {
    type Options = ();

    fn manifest() -> ObjectiveManifest {
        let stop_gradients = match WAY {
            point::HELD | point::BY_HAND => vec![StopGradient::new(POINT, "max(0, mean log-ratio of the batch)")],
            _ => Vec::new(),
        };
        ObjectiveManifest {
            summary: "KTO against the batch's mean log-ratio, for tests".into(),
            formula: "sum over answers of 1 - sigmoid(s beta (r - z)), s = 1 or -1, z = max(0, mean r) held constant"
                .into(),
            data: DataKind::UNPAIRED,
            terms: vec![TermSpec::new("kto", Normaliser::SEQUENCES, "1 - the value of an answer")],
            expectations: vec![Expectation {
                quantity: "loss".into(),
                value: "0.5".into(),
                tolerance: 1e-6,
                when: "the policy is the reference".into(),
            }],
            coupled: true,
            stop_gradients,
            ..Default::default()
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(Kto)
    }
}

impl<const WAY: u8> Objective for Kto<WAY> {
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements { coupled: true, ..Requirements::reading(["logp", "reference.logp"]) })
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        if WAY == point::BY_HAND || WAY == point::UNDECLARED {
            return by_hand(batch, WAY == point::BY_HAND);
        }
        let tape = batch.tape()?;
        let ratio = (batch.var(&tape, "logp")? - batch.var(&tape, "reference.logp")?).seq_sum(batch.mask()?);
        let mean = ratio.mean().relu();
        let reference_point = if WAY == point::HELD { mean.detach_as(POINT) } else { mean };
        let sign = tape.constant(batch.get("side")?.iter().map(|side| 2.0 * side - 1.0).collect::<Vec<_>>());
        let loss = (1.0 - (BETA * sign * (ratio - reference_point)).sigmoid()).sum();
        Loss::new().term(&tape, "kto", 1.0, loss)
    }
}

fn by_hand(batch: &Batch<'_>, declared: bool) -> Result<Loss> {
    let (logp, reference, mask) = (batch.get("logp")?, batch.get("reference.logp")?, batch.mask()?);
    let (side, offsets) = (batch.get("side")?, batch.offsets()?);
    let sum = |w: &[usize]| (w[0]..w[1]).filter(|n| mask[*n] == 1.0).map(|n| logp[n] - reference[n]).sum::<f64>();
    let ratios: Vec<f64> = offsets.windows(2).map(sum).collect();
    let mut point = [(ratios.iter().sum::<f64>() / ratios.len().max(1) as f64).max(0.0)];
    if declared {
        point = stop_gradient(POINT, point);
    }
    let (mut loss, mut cotangents) = (0.0, vec![0.0; mask.len()]);
    for ((bounds, ratio), side) in offsets.windows(2).zip(&ratios).zip(side) {
        let sign = 2.0 * side - 1.0;
        let value = 1.0 / (1.0 + (-BETA * sign * (ratio - point[0])).exp());
        loss += 1.0 - value;
        for n in (bounds[0]..bounds[1]).filter(|n| mask[*n] == 1.0) {
            cotangents[n] = -BETA * sign * value * (1.0 - value);
        }
    }
    let term = Term { name: "kto".into(), coefficient: 1.0, sum: loss, cotangents: vec![("logp".into(), cotangents)] };
    Ok(Loss { terms: vec![term], metrics: Vec::new() })
}

export_objective!("kto-held", Kto<{ point::HELD }>);
export_objective!("kto-by-hand", Kto<{ point::BY_HAND }>);
export_objective!("kto-forgotten", Kto<{ point::FORGOTTEN }>);
export_objective!("kto-undeclared", Kto<{ point::UNDECLARED }>);
