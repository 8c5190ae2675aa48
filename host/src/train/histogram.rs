//! What a run's pictures of distributions need, as lines of histograms.jsonl: values counted in bins of one width, and the
//! calibration of a reward model.

use serde::Serialize;

/// The most bins of a histogram.
const BINS: usize = 30;
/// Bins of predicted probabilities.
const PROBABILITIES: usize = 10;
/// The name of a reward model's calibration.
pub const CALIBRATION: &str = "calibration";

/// A line of histograms.jsonl, without its step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Distribution {
    /// Values counted in bins.
    Histogram(Histogram),
    /// Predicted and observed preferences.
    Calibration(Calibration),
}

/// Values counted in bins of one width. Values that are not finite are counted apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    name: String,
    /// Finite values.
    count: u64,
    not_finite: u64,
    sum: f64,
    sum_squares: f64,
    /// Absent if no value is finite, as is the largest one.
    min: Option<f64>,
    max: Option<f64>,
    /// One more than there are bins; a bin includes its lower edge, the last one both.
    edges: Vec<f64>,
    counts: Vec<u64>,
}

/// How often a reward model's preferences are right, by the probability that it gives them. Each pair is an answer `a` and an
/// answer `b`: of every second pair the chosen answer is `a`, of the others the rejected one, since a probability that is always
/// that of the chosen answer would always come true. Predicted is `sigmoid(score of a - score of b)`, observed whether `a` is
/// the chosen answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    name: &'static str,
    /// Pairs in the bins.
    count: u64,
    not_finite: u64,
    edges: Vec<f64>,
    /// The mean prediction of each bin; absent for a bin without pairs.
    predicted: Vec<Option<f64>>,
    /// The share of each bin's pairs whose `a` is the chosen answer.
    observed: Vec<Option<f64>>,
    counts: Vec<u64>,
}

impl Distribution {
    /// Counts `values` in bins; `None` if there are none.
    pub fn of(name: impl Into<String>, values: &[f64]) -> Option<Distribution> {
        (!values.is_empty()).then(|| Distribution::Histogram(histogram(name.into(), values)))
    }

    /// Returns what is recorded of pairs with these scores of the chosen and of the rejected answer; nothing without pairs.
    pub fn of_pairs(pairs: &[(f64, f64)]) -> Vec<Distribution> {
        let each = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).collect::<Vec<f64>>();
        let calibration = (!pairs.is_empty()).then(|| Distribution::Calibration(calibration(pairs)));
        let histograms = [
            Distribution::of("score/chosen", &each(|(chosen, _)| *chosen)),
            Distribution::of("score/rejected", &each(|(_, rejected)| *rejected)),
            Distribution::of("margin", &each(|(chosen, rejected)| chosen - rejected)),
        ];
        histograms.into_iter().chain([calibration]).flatten().collect()
    }
}

fn histogram(name: String, values: &[f64]) -> Histogram {
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    // A sum of -0 alone would be -0.
    let sum = |of: fn(f64) -> f64| finite.iter().fold(0.0, |sum, value| sum + of(*value));
    let min = finite.iter().copied().reduce(f64::min);
    let max = finite.iter().copied().reduce(f64::max);
    let edges = min.zip(max).map(|(min, max)| edges(&finite, min, max)).unwrap_or_default();
    let mut counts = vec![0; edges.len().saturating_sub(1)];
    for value in &finite {
        if let Some(count) = counts.get_mut(bin(&edges, *value)) {
            *count += 1;
        }
    }
    Histogram {
        name,
        count: finite.len() as u64,
        not_finite: (values.len() - finite.len()) as u64,
        sum: sum(|value| value),
        sum_squares: sum(|value| value * value),
        min,
        max,
        edges,
        counts,
    }
}

/// Returns the edges of bins from `min` to `max`. Whole numbers get bins of a whole width around them, so that no bin has more of
/// them than another.
fn edges(values: &[f64], min: f64, max: f64) -> Vec<f64> {
    let is_whole = values.iter().all(|value| value.fract() == 0.0) && min.abs().max(max.abs()) < 1e15;
    if is_whole {
        let numbers = max - min + 1.0;
        let width = (numbers / BINS as f64).ceil();
        let bins = (numbers / width).ceil() as usize;
        return (0..=bins).map(|edge| min - 0.5 + edge as f64 * width).collect();
    }
    // The difference of the extremes might not be finite.
    let width = max / BINS as f64 - min / BINS as f64;
    let edges: Vec<f64> = (0..=BINS).map(|edge| if edge == BINS { max } else { min + edge as f64 * width }).collect();
    match edges.windows(2).all(|pair| pair[0] < pair[1]) {
        true => edges,
        // Equal values, or values so close that no number lies between two edges: one bin around them.
        false => vec![min - (min.abs() / 2.0).min(0.5), max + (max.abs() / 2.0).min(0.5)],
    }
}

/// Returns the bin of a value from the first to the last of `edges`.
fn bin(edges: &[f64], value: f64) -> usize {
    let after = edges.partition_point(|edge| *edge <= value);
    after.saturating_sub(1).min(edges.len().saturating_sub(2))
}

fn calibration(pairs: &[(f64, f64)]) -> Calibration {
    let edges: Vec<f64> = (0..=PROBABILITIES).map(|edge| edge as f64 / PROBABILITIES as f64).collect();
    let mut counts = vec![0_u64; PROBABILITIES];
    let (mut predictions, mut chosen_first) = (vec![0.0; PROBABILITIES], vec![0_u64; PROBABILITIES]);
    for (index, (chosen, rejected)) in pairs.iter().enumerate() {
        let is_chosen = index.is_multiple_of(2);
        let margin = if is_chosen { chosen - rejected } else { rejected - chosen };
        if !margin.is_finite() {
            continue;
        }
        let predicted = 1.0 / (1.0 + (-margin).exp());
        let bin = bin(&edges, predicted);
        counts[bin] += 1;
        predictions[bin] += predicted;
        chosen_first[bin] += u64::from(is_chosen);
    }
    let share = |(sum, count): (f64, &u64)| (*count > 0).then(|| sum / *count as f64);
    let count = counts.iter().sum();
    Calibration {
        name: CALIBRATION,
        count,
        not_finite: pairs.len() as u64 - count,
        predicted: predictions.into_iter().zip(&counts).map(share).collect(),
        observed: chosen_first.into_iter().map(|count| count as f64).zip(&counts).map(share).collect(),
        edges,
        counts,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(values: &[f64]) -> Value {
        serde_json::to_value(Distribution::of("x", values)).unwrap()
    }

    /// Catches a largest value that falls out of the last bin, values in a neighbouring bin, moments that include numbers that
    /// are not finite, and such numbers in the edges.
    #[test]
    fn values_are_counted_in_bins_of_one_width() {
        let values: Vec<f64> = (0..=60).map(|i| f64::from(i) / 60.0).collect();
        let found = line(&[&values[..], &[f64::NAN, f64::INFINITY]].concat());
        assert_eq!((&found["count"], &found["not_finite"]), (&json!(61), &json!(2)));
        assert_eq!((&found["min"], &found["max"]), (&json!(0.0), &json!(1.0)));
        assert!((found["sum"].as_f64().unwrap() - 30.5).abs() < 1e-12);
        let squares: f64 = values.iter().map(|value| value * value).sum();
        assert!((found["sum_squares"].as_f64().unwrap() - squares).abs() < 1e-12);
        let edges: Vec<f64> = serde_json::from_value(found["edges"].clone()).unwrap();
        let counts: Vec<u64> = serde_json::from_value(found["counts"].clone()).unwrap();
        assert_eq!((edges.len(), counts.len(), edges[0], edges[30]), (31, 30, 0.0, 1.0));
        for (bin, count) in counts.iter().enumerate() {
            let is_in = |v: &&f64| edges[bin] <= **v && (**v < edges[bin + 1] || bin == 29);
            assert_eq!(*count, values.iter().filter(is_in).count() as u64, "bin {bin}");
        }
    }

    /// Catches whole numbers of which one bin has two and its neighbour one, and bins in which no number can lie.
    #[test]
    fn whole_numbers_have_bins_of_a_whole_width() {
        let found = line(&[3.0, 5.0, 5.0, 3.0, 3.0]);
        assert_eq!((&found["edges"], &found["counts"]), (&json!([2.5, 3.5, 4.5, 5.5]), &json!([3, 0, 2])));
        let many: Vec<f64> = (0..70).map(f64::from).collect();
        let found = line(&many);
        let counts: Vec<u64> = serde_json::from_value(found["counts"].clone()).unwrap();
        assert_eq!((counts[0], counts[22], counts[23], counts.len()), (3, 3, 1, 24));
    }

    /// Catches bins without a width, and values that are lost with one that is not a number.
    #[test]
    fn values_without_a_range_have_one_bin() {
        assert_eq!(line(&[0.25, 0.25])["edges"], json!([0.125, 0.375]));
        assert_eq!(line(&[7.0])["edges"], json!([6.5, 7.5]));
        for values in [&[f64::MAX, -f64::MAX, 0.5][..], &[5e-324, 0.0], &[0.1, 0.1 + 1e-17, 0.2 - 0.1]] {
            let found = line(values);
            let edges: Vec<f64> = serde_json::from_value(found["edges"].clone()).unwrap();
            let counts: Vec<u64> = serde_json::from_value(found["counts"].clone()).unwrap();
            assert!(edges.windows(2).all(|pair| pair[0] < pair[1]), "{found}");
            assert_eq!(counts.iter().sum::<u64>(), values.len() as u64, "{found}");
        }
        let none = line(&[f64::NAN]);
        let expected = json!({ "name": "x", "count": 0, "not_finite": 1, "sum": 0.0, "sum_squares": 0.0, "min": null, "max": null,
            "edges": [], "counts": [] });
        assert_eq!(none, expected);
        assert_eq!(Distribution::of("x", &[]), None);
    }

    /// Catches predictions that are always those of the chosen answer (every share would be 1), a probability of the other
    /// answer, and bins without pairs that get a share of 0.
    #[test]
    fn a_reward_model_is_calibrated_by_pairs_in_both_orders() {
        let odds = |p: f64| (p / (1.0 - p)).ln();
        // In order: a is chosen at 0.75, a is rejected at 0.75, a is chosen at 0.15 (a wrong preference).
        let pairs = [(odds(0.75), 0.0), (1.0, 1.0 + odds(0.75)), (odds(0.15), 0.0), (f64::NAN, 0.0)];
        let found = calibration(&pairs);
        assert_eq!((found.count, found.not_finite), (3, 1));
        assert_eq!(found.counts, [0, 1, 0, 0, 0, 0, 0, 2, 0, 0]);
        assert_eq!(found.observed[7], Some(0.5));
        assert_eq!((found.observed[1], found.observed[0]), (Some(1.0), None));
        assert!(found.predicted[7].is_some_and(|p| (p - 0.75).abs() < 1e-12));
        assert!(found.predicted[1].is_some_and(|p| (p - 0.15).abs() < 1e-12));
    }

    /// Catches scores of one side under the other's name, and a margin of the wrong sign.
    #[test]
    fn pairs_have_both_scores_their_margin_and_a_calibration() {
        let found = serde_json::to_value(Distribution::of_pairs(&[(3.0, 1.0), (5.0, 1.0)])).unwrap();
        let of = |index: usize| (found[index]["name"].clone(), found[index]["sum"].clone());
        assert_eq!(of(0), (json!("score/chosen"), json!(8.0)));
        assert_eq!(of(1), (json!("score/rejected"), json!(2.0)));
        assert_eq!(of(2), (json!("margin"), json!(6.0)));
        assert_eq!((&found[3]["name"], &found[3]["count"]), (&json!("calibration"), &json!(2)));
        assert!(Distribution::of_pairs(&[]).is_empty());
    }
}
