//! Distributions over the steps of a run as pictures in HTML: a column for each step, darker where more values lie; and the
//! calibration of a reward model.

use std::fmt::Write;

use super::{
    health::short,
    record::{
        RunRecord,
        distribution::{Distribution, Over},
    },
};
use crate::html::escaped;

/// Width and height of a picture, and the room for numbers at its left and below, in units.
const SIZE: (f64, f64) = (340.0, 190.0);
const ROOM: (f64, f64) = (52.0, 22.0);

/// Meanings of what is counted.
const MEANINGS: [(&str, &str); 5] = [
    ("answers/length", "Tokens of an answer"),
    ("score/chosen", "Score of the better answer of a held-out pair"),
    ("score/rejected", "Score of the worse answer"),
    ("margin", "Score of the better answer minus that of the worse one"),
    ("reward", "Weighted sum of the rewards of an answer"),
];

/// The pictures of a run's distributions; empty without any.
pub fn pictures(run: &RunRecord) -> String {
    let mut text = String::new();
    let named = |kind: &str, name: &str| run.distributions.get(&(kind.to_owned(), name.to_owned()))?.last();
    for ((kind, name), over) in &run.distributions {
        let held_out = if kind == "eval" { ", held out" } else { "" };
        let is_calibration = over.last().is_some_and(|last| !last.predicted.is_empty());
        let (picture, meaning) = match is_calibration {
            true => (over.last().map_or_else(String::new, calibration), CALIBRATION.to_owned()),
            false => {
                let meaning = MEANINGS.iter().find(|(known, _)| known == name).map(|(_, meaning)| *meaning);
                (columns(over), format!("{}. A column is a step; darker is more.", meaning.unwrap_or("Values")))
            }
        };
        text.push_str(&figure(&format!("{name}{held_out}"), &meaning, &picture));
    }
    if let (Some(chosen), Some(rejected)) = (named("eval", "score/chosen"), named("eval", "score/rejected")) {
        let title = format!("scores at step {}, held out", chosen.step);
        text.push_str(&figure(&title, "Better answers filled, worse ones outlined", &two(chosen, rejected)));
    }
    if text.is_empty() { text } else { format!("<div class=\"charts\">{text}</div>\n") }
}

const CALIBRATION: &str = "How often the answer that the reward model prefers with this probability is the better one; a calibrated \
                           model lies on the line. The area of a point is its number of pairs";

fn figure(title: &str, meaning: &str, picture: &str) -> String {
    if picture.is_empty() {
        return String::new();
    }
    let (title, meaning) = (escaped(title), escaped(meaning));
    format!(
        "<figure class=\"chart distribution\"><figcaption><b>{title}</b><details><summary>?</summary><p>{meaning}</p></details></figcaption>\
         <svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{title}\">{picture}</svg></figure>\n",
        SIZE.0, SIZE.1
    )
}

/// A scale from `low` to `high` onto the places from `from` to `to`.
fn scale((low, high): (f64, f64), (from, to): (f64, f64)) -> impl Fn(f64) -> f64 {
    move |value| from + (to - from) * ((value - low) / (high - low).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
}

/// The least and the greatest edge.
fn range<'a>(lines: impl Iterator<Item = &'a Distribution>) -> Option<(f64, f64)> {
    let ends = lines.filter_map(|line| Some((*line.edges.first()?, *line.edges.last()?)));
    ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).filter(|(low, high)| low < high && (high - low).is_finite())
}

fn vertical(range: (f64, f64)) -> impl Fn(f64) -> f64 {
    scale(range, (SIZE.1 - ROOM.1, 8.0))
}

fn axes(x: [(f64, String); 2], y: [(f64, String); 2]) -> String {
    let mut text = String::new();
    for ((at, label), anchor) in x.into_iter().zip(["start", "end"]) {
        _ = write!(text, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{label}</text>", SIZE.1 - 6.0);
    }
    for (at, label) in y {
        _ = write!(text, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", ROOM.0 - 6.0, at + 4.0);
    }
    text
}

/// One column for each step, with its bins.
fn columns(over: &Over) -> String {
    let lines: Vec<&Distribution> = over.lines().collect();
    let (Some(range), Some(first), Some(last)) = (range(lines.iter().copied()), lines.first(), lines.last()) else {
        return String::new();
    };
    let y = vertical(range);
    let width = (SIZE.0 - ROOM.0) / lines.len() as f64;
    let mut text = axes(
        [
            (ROOM.0, format!("step {}", first.step)),
            (SIZE.0, if lines.len() > 1 { last.step.to_string() } else { String::new() }),
        ],
        [(y(range.0), short(range.0)), (y(range.1), short(range.1))],
    );
    for (column, line) in lines.iter().enumerate() {
        let most = line.counts.iter().max().copied().unwrap_or(0).max(1);
        for (bin, count) in line.edges.windows(2).zip(&line.counts).filter(|(_, count)| **count > 0) {
            let (top, bottom) = (y(bin[1]), y(bin[0]));
            _ = write!(
                text,
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" opacity=\"{:.2}\"/>",
                ROOM.0 + column as f64 * width,
                width.max(1.0),
                (bottom - top).max(0.8),
                0.12 + 0.88 * *count as f64 / most as f64,
            );
        }
    }
    text
}

/// Two distributions over one another, as shares of their counts.
fn two(filled: &Distribution, outlined: &Distribution) -> String {
    let Some(range) = range([filled, outlined].into_iter()) else { return String::new() };
    let x = scale(range, (ROOM.0, SIZE.0));
    // Bins may differ in their width, so the height is a density.
    let densities = |line: &Distribution| -> Vec<f64> {
        let total = line.counts.iter().sum::<u64>().max(1) as f64;
        let of = |(bin, count): (&[f64], &u64)| *count as f64 / total / (bin[1] - bin[0]).max(f64::MIN_POSITIVE);
        line.edges.windows(2).zip(&line.counts).map(of).collect()
    };
    let most = [filled, outlined].into_iter().flat_map(densities).fold(0.0, f64::max);
    if most <= 0.0 || !most.is_finite() {
        return String::new();
    }
    let y = vertical((0.0, most));
    let mut text =
        axes([(ROOM.0, short(range.0)), (SIZE.0, short(range.1))], [(y(0.0), "0".into()), (y(most), short(most))]);
    for (line, class) in [(filled, "filled"), (outlined, "outlined")] {
        for (bin, density) in line.edges.windows(2).zip(densities(line)).filter(|(_, density)| *density > 0.0) {
            _ = write!(
                text,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                x(bin[0]),
                y(density),
                (x(bin[1]) - x(bin[0])).max(0.8),
                y(0.0) - y(density),
            );
        }
    }
    text
}

/// Observed over predicted probabilities, with the line of a calibrated model.
fn calibration(line: &Distribution) -> String {
    let (x, y) = (scale((0.0, 1.0), (ROOM.0, SIZE.0 - 8.0)), vertical((0.0, 1.0)));
    let mut text = axes(
        [(ROOM.0, "predicted 0".into()), (SIZE.0 - 8.0, "1".into())],
        [(y(0.0), "0".into()), (y(1.0), "1".into())],
    );
    _ = write!(text, "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>", x(0.0), y(0.0), x(1.0), y(1.0));
    let most = line.counts.iter().max().copied().unwrap_or(0).max(1) as f64;
    for ((predicted, observed), count) in line.predicted.iter().zip(&line.observed).zip(&line.counts) {
        let (Some(predicted), Some(observed)) = (predicted, observed) else { continue };
        let radius = 2.0 + 7.0 * (*count as f64 / most).sqrt();
        _ = write!(
            text,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\"><title>predicted {}, observed {} of {count} pairs</title></circle>",
            x(*predicted),
            y(*observed),
            short(*predicted),
            short(*observed),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::record::tests::empty_run;

    fn line(step: u64, name: &str, edges: &[f64], counts: &[u64]) -> Distribution {
        Distribution {
            step,
            kind: "eval".into(),
            name: name.into(),
            edges: edges.to_vec(),
            counts: counts.to_vec(),
            predicted: Vec::new(),
            observed: Vec::new(),
        }
    }

    /// Catches a bin that is drawn upside down, an empty one that is drawn, and a name that becomes markup.
    #[test]
    fn a_step_is_a_column_with_its_bins() {
        let mut run = empty_run();
        let over = run.distributions.entry(("eval".into(), "<x>".into())).or_default();
        over.add(line(1, "<x>", &[0.0, 1.0, 2.0], &[3, 0]));
        over.add(line(2, "<x>", &[0.0, 2.0, 4.0], &[0, 6]));
        let text = pictures(&run);
        assert_eq!(text.matches("<rect").count(), 2);
        assert!(text.contains("&lt;x&gt;, held out") && !text.contains("<x>"));
        let at = |part: usize, key: &str| -> f64 {
            let rect = text.split("<rect").nth(part).unwrap();
            rect.split(&format!(" {key}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        assert!(at(1, "y") > at(2, "y") && at(1, "x") < at(2, "x"), "{text}");
        // A quarter and a half of the same range.
        assert!((at(2, "height") / at(1, "height") - 2.0).abs() < 0.02, "{text}");
        assert_eq!(pictures(&empty_run()), "");
    }

    /// Catches a shade that is not relative to the fullest bin of its step, and heights of bins of different widths that are counts
    /// instead of densities.
    #[test]
    fn shades_are_shares_of_the_fullest_bin_and_heights_are_densities() {
        let mut over = Over::default();
        over.add(line(1, "x", &[0.0, 1.0, 2.0], &[1, 4]));
        let text = columns(&over);
        assert!(text.contains("opacity=\"0.34\"") && text.contains("opacity=\"1.00\""), "{text}");
        let narrow = line(1, "x", &[0.0, 1.0, 2.0], &[4, 0]);
        let wide = line(1, "x", &[0.0, 2.0], &[4]);
        let heights: Vec<f64> = two(&narrow, &wide)
            .split(" height=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!((heights[0] / heights.last().unwrap() - 2.0).abs() < 0.02, "{heights:?}");
    }

    /// Catches a bin without pairs that is drawn at 0, and axes that are swapped.
    #[test]
    fn a_calibration_has_a_point_for_each_bin_with_pairs() {
        let calibrated = Distribution {
            predicted: vec![Some(0.2), None],
            observed: vec![Some(0.9), None],
            ..line(1, "calibration", &[0.0, 0.5, 1.0], &[10, 0])
        };
        let text = calibration(&calibrated);
        assert_eq!(text.matches("<circle").count(), 1);
        assert!(text.contains("predicted 0.2, observed 0.9 of 10 pairs"));
        let at = |key: &str| {
            text.split(&format!("{key}=\"")).nth(1).unwrap().split('"').next().unwrap().parse::<f64>().unwrap()
        };
        assert!(at("cx") < SIZE.0 / 2.0 && at("cy") < SIZE.1 / 2.0);
    }

    /// Catches a division by an empty range and numbers that overflow, which would end the picture of a diverged run.
    #[test]
    fn odd_numbers_are_drawn_or_left_out() {
        for (edges, counts) in
            [(vec![], vec![]), (vec![1.0, 1.0], vec![3]), (vec![-1e308, 1e308], vec![2]), (vec![0.0, 1.0], vec![0])]
        {
            let mut over = Over::default();
            over.add(line(1, "x", &edges, &counts));
            let text = columns(&over) + &two(&line(1, "x", &edges, &counts), &line(1, "x", &edges, &counts));
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }
}
