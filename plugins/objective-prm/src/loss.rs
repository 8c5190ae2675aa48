//! Binary cross-entropy of segments, the papers' steps (Lightman et al. 2023, arXiv 2305.20050). An answer is a list of segments, each with a label y from
//! 0 (wrong) to 1 (right). With s, the scalar head's output after the last token of a segment has been read,
//!
//! ```text
//! bce = -(y log sigmoid(s) + (1 - y) log sigmoid(-s))        in nats; d bce / d s = sigmoid(s) - y
//! ```
//!
//! summed over the segments of the micro-batch and divided, by the host, by the labelled segments of the optimizer window, so that every
//! segment has the same weight and an answer with many segments more than one with few. Labels between 0 and 1, such as the share of
//! continuations that reach the right answer (Wang et al. 2024, Math-Shepherd, arXiv 2312.08935), are soft targets.
//!
//! `token_score`, `mask` and `segment_end` are `[N]`: entry n belongs to target n, and the score was computed after that target was
//! read. `column.labels` is a list per sequence, the k-th value for the k-th segment. A truncated answer lost segments: their labels
//! are not used. A segment whose last token is not supervised is not learned.
//!
//! TRL's PRM trainer learns the same labels with a head of two classes at the separator's token; with s the difference of their
//! logits, its cross-entropy is this one.

use plugin_api::{batch::names, prelude::*};

/// The only term.
pub const BCE: &str = "bce";
/// The data's column of labels.
pub const LABELS: &str = "labels";

/// Returns 1 at the last token of each segment that is learned, else 0; `last_only`: only at the last segment of each answer, and not in a
/// truncated one, which has lost its last segment.
///
/// # Errors
/// [`Code::ARRAY`] for answers without segments.
pub fn segments(batch: &Batch<'_>, last_only: bool) -> Result<Vec<f64>> {
    let ends = batch.find(names::SEGMENT_END).map(|array| array.data.as_ref()).ok_or_else(|| {
        let why = "the data's answers have no segments: give every row a list of texts, `completions`, and a list of numbers, \
                   `labels`; the batch has no array `segment_end`";
        Error::new(Code::ARRAY, why)
    })?;
    let mut segments: Vec<f64> = ends.iter().zip(batch.mask()?).map(|(end, mask)| end * mask).collect();
    if last_only {
        let labels = batch.lengths(&format!("{}{LABELS}", names::COLUMN))?;
        for (bounds, labels) in batch.offsets()?.windows(2).zip(labels) {
            let found = ends[bounds[0]..bounds[1]].iter().filter(|end| **end == 1.0).count();
            let own = &mut segments[bounds[0]..bounds[1]];
            let last = own.iter().rposition(|segment| *segment != 0.0).unwrap_or(0);
            let others = if found < labels { own.len() } else { last };
            own.iter_mut().take(others).for_each(|segment| *segment = 0.0);
        }
    }
    Ok(segments)
}

/// Terms, cotangents and metrics of a micro-batch.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing, fewer labels than segments, and a label outside 0 to 1.
pub fn loss(batch: &Batch<'_>, last_only: bool) -> Result<Loss> {
    let (tape, segments) = (batch.tape()?, segments(batch, last_only)?);
    let labels = batch.at_segment_ends(LABELS)?;
    if let Some(n) = labels.iter().position(|label| !(0.0..=1.0).contains(label)) {
        let sequence = batch.offsets()?.iter().skip(1).filter(|end| **end <= n).count();
        let why =
            format!("`column.{LABELS}` holds {} for sequence {sequence}, expected a number from 0 to 1", labels[n]);
        return Err(Error::new(Code::ARRAY, why));
    }
    let score = batch.var(&tape, names::TOKEN_SCORE)?;
    let (right, wrong) =
        (tape.constant(labels.clone()), tape.constant(labels.iter().map(|y| 1.0 - y).collect::<Vec<_>>()));
    // log sigmoid(-s) and not log(1 - sigmoid(s)), which is -inf for scores above 37.
    let likelihood = right * score.log_sigmoid() + wrong * (-score).log_sigmoid();
    let loss = Loss::new().term(&tape, BCE, 1.0, -likelihood.masked_sum(&segments))?;
    let scored: Vec<(f64, bool)> = score
        .to_vec()?
        .into_iter()
        .zip(&labels)
        .zip(&segments)
        .filter(|(_, segment)| **segment != 0.0)
        .map(|((score, label), _)| (score, *label > 0.5))
        .collect();
    let mean = |loss: Loss, name: &str, of: bool| {
        let own: Vec<f64> = scored.iter().filter(|(_, right)| *right == of).map(|(score, _)| *score).collect();
        loss.metric(name, own.iter().sum(), own.len() as f64)
    };
    let hits = scored.iter().filter(|(score, right)| (*score > 0.0) == *right).count();
    let loss = loss.metric(metric::ACCURACY, hits as f64, scored.len() as f64);
    Ok(mean(mean(loss, metric::RIGHT, true), metric::WRONG, false))
}

/// Names of the metrics.
pub mod metric {
    /// Share of segments on the right side of 0.
    pub const ACCURACY: &str = "accuracy";
    /// Mean score of right segments.
    pub const RIGHT: &str = "score/right";
    /// Mean score of wrong segments.
    pub const WRONG: &str = "score/wrong";
}
