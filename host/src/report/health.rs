//! Where a run's metrics left the ranges that its objectives declare healthy, in plain sentences.

use super::record::{EVAL, RunRecord};
pub use crate::decimals::short;

/// A sentence for each metric that left its range.
pub fn sentences(run: &RunRecord) -> Vec<String> {
    let ranges = run.about.metrics.iter().filter_map(|spec| Some((spec, spec.healthy?)));
    let mut found = Vec::new();
    for (spec, (low, high)) in ranges {
        for (name, which) in [(spec.name.clone(), "steps"), (format!("{EVAL}{}", spec.name), "evaluations")] {
            let Some(points) = run.metrics.get(&name) else { continue };
            let is_outside = |value: f64| value.is_finite() && !(low..=high).contains(&value);
            let outside: Vec<_> = points.iter().filter(|(_, value)| is_outside(*value)).collect();
            let (Some((step, value)), Some((_, last))) = (outside.first(), points.last()) else { continue };
            let many = points.len();
            let now = match last {
                last if is_outside(*last) => "and at the end",
                last if last.is_finite() => "and inside again at the end",
                _ => "and not a number at the end",
            };
            found.push(format!(
                "{name} left its healthy range, {} to {}, at step {step} with {}: outside in {} of {many} {which} {now}.",
                short(low),
                short(high),
                short(*value),
                outside.len()
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::record::tests::empty_run;
    use plugin_api::manifest::{MetricSpec, Reduction};

    /// Catches an end of the range that counts as outside, a wrong first step, and a null that counts as outside.
    #[test]
    fn a_metric_outside_its_range_is_named_with_its_first_step() {
        let mut run = empty_run();
        let healthy = Some((0.0, 0.4));
        run.about.metrics = vec![MetricSpec { healthy, ..MetricSpec::new("clip", Reduction::MEAN, "") }];
        let points = [0.4, f64::NAN, 0.5, 0.6, 0.1].iter().zip(1..).map(|(value, step)| (f64::from(step), *value));
        run.metrics.insert("clip".into(), points.collect());
        run.metrics.insert("other".into(), vec![(1.0, 99.0)]);
        let expected = "clip left its healthy range, 0 to 0.4, at step 3 with 0.5: outside in 2 of 5 steps and inside again at the end.";
        assert_eq!(sentences(&run), [expected]);
        run.metrics.insert("clip".into(), vec![(1.0, 0.4)]);
        assert!(sentences(&run).is_empty());
    }
}
