//! Reward ranking (Bradley and Terry 1952; as a language model's loss: Ouyang et al. 2022, arXiv 2203.02155, equation 1). Of a
//! pair with scores `s_c` of the chosen and `s_r` of the rejected answer
//!
//! ```text
//! ranking   = -log sigmoid(s_c - s_r - margin)     margin: the data's column of that name; 0 where it has none
//! centering = (s_c + s_r)^2                        Eisenstein et al. 2023, arXiv 2312.09244
//! total     = ranking + centering_option * centering
//! ```
//!
//! each summed over pairs and divided, by the host, by the pairs of the optimizer window. The margin (Touvron et al. 2023, Llama 2,
//! arXiv 2307.09288, equation 2) is how much better the chosen answer should score. `score`, `group`, `side` and
//! `column.margin` have shape `[S]`: a score is the scalar head's output at the sequence's last real token. All as in TRL, where
//! `centering` is called `center_rewards_coefficient`.

use crate::config::Config;
use plugin_api::{batch::names, prelude::*};

/// The term that ranks the pairs.
pub const RANKING: &str = "ranking";
/// The term that pulls scores towards 0.
pub const CENTERING: &str = "centering";
/// The data set's column of margins.
pub const MARGIN_COLUMN: &str = "column.margin";

/// Terms, cotangents and metrics of a micro-batch.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing, or a margin that is not a finite number; [`Code::SHAPE`] for lengths that
/// disagree, and for a pair without exactly one answer on each side.
pub fn loss(config: &Config, batch: &Batch<'_>) -> Result<Loss> {
    let tape = batch.tape()?;
    let score = batch.var(&tape, "score")?;
    let (group, side) = (batch.get(names::GROUP)?, batch.get(names::SIDE)?);
    let (chosen, rejected) = (score.chosen(group, side), score.rejected(group, side));
    let difference = chosen - rejected;
    let logit = match margins(batch)? {
        Some(margins) => difference - tape.constant(margins).chosen(group, side),
        None => difference,
    };
    let mut loss = Loss::new().term(&tape, RANKING, 1.0, -logit.log_sigmoid().sum())?;
    if config.centers() {
        loss = loss.term(&tape, CENTERING, config.centering, (chosen + rejected).square().sum())?;
    }
    let pairs = difference.to_vec()?.len() as f64;
    let right = difference.gt(0.0).count() as f64;
    let loss = loss.metric(metric::ACCURACY, right, pairs);
    Ok(scores(loss.metric(metric::MARGIN, difference.sum().scalar()?, pairs), &score.to_vec()?))
}

/// The margin of each sequence's pair, if the data has one.
fn margins<'b>(batch: &'b Batch<'_>) -> Result<Option<&'b [f64]>> {
    let Some(column) = batch.find(MARGIN_COLUMN) else { return Ok(None) };
    match column.data.iter().position(|margin| !margin.is_finite()) {
        None => Ok(Some(&column.data)),
        Some(s) => {
            let why = format!(
                "`{MARGIN_COLUMN}`[{s}] is {}: every pair needs a margin, or none may have one",
                column.data[s]
            );
            Err(Error::new(Code::ARRAY, why))
        }
    }
}

/// Metrics of the scores' distribution, over both sides.
fn scores(loss: Loss, score: &[f64]) -> Loss {
    let answers = score.len() as f64;
    let some = f64::from(u8::from(!score.is_empty()));
    let extreme = |of: fn(f64, f64) -> f64| score.iter().copied().reduce(of).unwrap_or(0.0);
    loss.metric(metric::SCORE_MEAN, score.iter().sum(), answers)
        .metric(metric::SCORE_MEAN_SQUARE, score.iter().map(|s| s * s).sum(), answers)
        .metric(metric::SCORE_MIN, extreme(f64::min), some)
        .metric(metric::SCORE_MAX, extreme(f64::max), some)
}

/// Names of the metrics.
pub mod metric {
    /// Share of pairs that are ranked correctly.
    pub const ACCURACY: &str = "accuracy";
    /// Chosen minus rejected score.
    pub const MARGIN: &str = "margin";
    /// Mean of all scores.
    pub const SCORE_MEAN: &str = "score/mean";
    /// Mean square of all scores; with the mean it gives their spread.
    pub const SCORE_MEAN_SQUARE: &str = "score/mean_square";
    /// Smallest score.
    pub const SCORE_MIN: &str = "score/min";
    /// Largest score.
    pub const SCORE_MAX: &str = "score/max";
}
