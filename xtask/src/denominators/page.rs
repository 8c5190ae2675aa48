//! The page as HTML that needs no network.

use super::entries::{Cut, Thread};
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");

/// Gradient norms that threads publish, relative to that of the batch that is not cut: the name, and the values for rising numbers of
/// micro-batches.
const PUBLISHED: [(&str, &[(u64, f64)]); 2] = [
    ("unsloth-zoo before its fix (thread 1023)", &[(1, 1.0), (2, 0.520_837 / 1.041_674), (4, 0.260_419 / 1.041_674)]),
    ("axolotl as reported (thread 2262)", &[(1, 1.0), (8, 8.0)]),
];

/// The page.
pub fn page(cuts: &[Cut], threads: &[Thread]) -> String {
    let mut body = String::from(INTRODUCTION);
    _ = write!(body, "<h2>Here</h2>\n{HERE}{}", table(&here(cuts)));
    _ = write!(body, "<h2>The norm of a gradient, by the number of micro-batches</h2>\n{CHART}{}", chart(cuts));
    _ = write!(body, "<h2>Elsewhere</h2>\n{ELSEWHERE}{}", threads_table(threads));
    body.push_str(AGAIN);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Denominators</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

const INTRODUCTION: &str = "<h1>Does your gradient depend on how the batch is cut?</h1>\n\
<p>A batch that does not fit into memory is cut into micro-batches, and their gradients are added. Cutting must change nothing. It \
changes the gradient as soon as each micro-batch is divided by its own count:</p>\n\
<p class=\"formula\">(<i>x</i>₁ + <i>x</i>₂) / (<i>n</i>₁ + <i>n</i>₂) &nbsp;≠&nbsp; (<i>x</i>₁/<i>n</i>₁ + <i>x</i>₂/<i>n</i>₂) / 2 \
&nbsp; unless &nbsp; <i>n</i>₁ = <i>n</i>₂</p>\n\
<p>For example, 20 tokens with a mean loss of 3.0 and 180 tokens with a mean loss of 1.0 have a mean loss of 1.2; the mean of the \
two means is 2.0. Short answers then count more than long ones, and nothing fails.</p>\n";

const HERE: &str = "<p>In Telos an objective returns sums and names what divides them. The host counts the divisor over the whole \
optimizer step before it divides, so there is no mean of means to write. The same batch, cut 1, 2, 4 and 8 ways, with a small model \
and rows of different lengths; f32 on a processor:</p>\n";

const CHART: &str = "<p>Relative to the batch that is not cut. The line of Telos has the six objectives of the table; the others are \
values that the threads below publish, for the number of accumulation steps.</p>\n";

const ELSEWHERE: &str = "<p>What threads of other frameworks say. We did not run them; numbers are the threads' own. Each was found, \
described and mostly mended by the people named, whom the field owes thanks. Versions after these threads may behave otherwise.</p>\n";

const AGAIN: &str = "<h2>Again</h2>\n<p>For your own experiment: <code>telos compare FILE --backends candle --cuts 1,2,4,8</code>. This page: \
<code>cargo xtask denominators</code>; its threads: <code>docs/denominators.toml</code>.</p>\n";

/// The rows of the table of cuts.
fn here(cuts: &[Cut]) -> Vec<Vec<String>> {
    let heads = ["objective", "divided by", "micro-batches", "loss", "gradient norm", "difference of the norm"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for Cut { plugin, normaliser, cuts } in cuts {
        let whole = cuts.first().map_or(f64::NAN, |cut| cut.2);
        for (at, (micro_batches, loss, norm)) in cuts.iter().enumerate() {
            let first = |text: &str| if at == 0 { text.to_owned() } else { String::new() };
            let difference = (norm / whole - 1.0).abs();
            let difference = if difference == 0.0 { "0".to_owned() } else { format!("{difference:.1e}") };
            let numbers = [micro_batches.to_string(), format!("{loss:.8}"), format!("{norm:.8}"), difference];
            rows.push([first(plugin), first(normaliser)].into_iter().chain(numbers).collect());
        }
    }
    rows
}

fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::from("<div class=\"table\"><table>\n");
    for (at, row) in rows.iter().enumerate() {
        let name = if at == 0 { "th" } else { "td" };
        let cells: String = row.iter().map(|cell| format!("<{name}>{}</{name}>", escaped(cell))).collect();
        _ = writeln!(text, "<tr>{cells}</tr>");
    }
    text + "</table></div>\n"
}

fn threads_table(threads: &[Thread]) -> String {
    let mut text = String::from(
        "<div class=\"table\"><table class=\"threads\">\n<tr><th>framework</th><th>what happened</th><th>published numbers</th>\
         <th>by</th><th>date</th><th>thread</th></tr>\n",
    );
    for Thread { framework, links, by, date, what, numbers, outcome } in threads {
        let link = |link: &String| {
            let number = link.rsplit('/').next().unwrap_or(link);
            format!("<a href=\"{0}\">{1}</a>", escaped(link), escaped(number))
        };
        let links: Vec<String> = links.iter().map(link).collect();
        let outcome = if outcome.is_empty() { String::new() } else { format!(", {}", escaped(outcome)) };
        let [framework, what, numbers, by, date] = [framework, what, numbers, by, date].map(|text| escaped(text));
        _ = writeln!(
            text,
            "<tr><td>{framework}</td><td>{what}</td><td>{numbers}</td><td>{by}</td><td>{date}</td><td>{}{outcome}</td></tr>",
            links.join(", ")
        );
    }
    text + "</table></div>\n"
}

/// Bars over a logarithmic axis from an eighth to eight.
fn chart(cuts: &[Cut]) -> String {
    let ours: Vec<(u64, f64)> = worst(cuts);
    let rows = [("Telos, the largest difference of six objectives", ours.as_slice())].into_iter().chain(PUBLISHED);
    let (left, width, height) = (330.0, 420.0, 18.0);
    let at = |ratio: f64| left + width * (ratio.log2() + 3.0) / 6.0;
    let (mut bars, mut y) = (String::new(), 24.0);
    for (name, values) in rows {
        for (index, (count, ratio)) in values.iter().enumerate() {
            let label = if index == 0 { name } else { "" };
            let (from, to) = (at(1.0).min(at(*ratio)), at(1.0).max(at(*ratio)));
            _ = writeln!(
                bars,
                "<text x=\"0\" y=\"{ty}\">{label}</text><text x=\"{cx}\" y=\"{ty}\" class=\"end\">{count}</text>\
                 <rect x=\"{from:.1}\" y=\"{y}\" width=\"{w:.1}\" height=\"{h}\"/>\
                 <text x=\"{vx:.1}\" y=\"{ty}\">{ratio:.3}</text>",
                ty = y + 12.0,
                cx = left - 10.0,
                w = (to - from).max(2.0),
                h = height - 5.0,
                vx = to + 6.0,
            );
            y += height;
        }
        y += 10.0;
    }
    let mut grid = String::new();
    for ratio in [0.125_f64, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0] {
        let x = at(ratio);
        _ = write!(
            grid,
            "<line x1=\"{x:.1}\" y1=\"18\" x2=\"{x:.1}\" y2=\"{y}\"/><text x=\"{x:.1}\" y=\"12\" class=\"mid\">{ratio}</text>"
        );
    }
    format!(
        "<figure><svg viewBox=\"0 0 800 {y}\" role=\"img\" aria-label=\"gradient norms\">\n<g class=\"grid\">{grid}</g>\n{bars}</svg></figure>\n"
    )
}

/// For each number of micro-batches, the ratio of norms that is farthest from 1.
fn worst(cuts: &[Cut]) -> Vec<(u64, f64)> {
    let mut worst: Vec<(u64, f64)> = Vec::new();
    for Cut { cuts, .. } in cuts {
        let whole = cuts.first().map_or(f64::NAN, |cut| cut.2);
        for (count, _, norm) in cuts {
            let ratio = norm / whole;
            match worst.iter_mut().find(|(known, _)| known == count) {
                Some((_, known)) if (ratio - 1.0).abs() > (*known - 1.0).abs() => *known = ratio,
                Some(_) => {}
                None => worst.push((*count, ratio)),
            }
        }
    }
    worst
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a thread that is left out, text that becomes markup, and a difference that is hidden by another objective.
    #[test]
    fn the_page_has_every_thread_and_the_worst_cut() {
        let cut = |plugin, norms: [f64; 2]| Cut {
            plugin,
            normaliser: "tokens",
            cuts: vec![(1, 0.5, norms[0]), (2, 0.5, norms[1])],
        };
        let cuts = [cut("a", [2.0, 2.0]), cut("b", [1.0, 0.75]), cut("c", [4.0, 4.4])];
        assert_eq!(worst(&cuts), [(1, 1.0), (2, 0.75)]);
        let thread = Thread { framework: "<f>".into(), links: vec!["https://x/pull/7".into()], ..Thread::default() };
        let text = page(&cuts, &[thread]);
        assert!(text.contains("&lt;f&gt;") && text.contains("<a href=\"https://x/pull/7\">7</a>"));
        assert!(text.contains("2.5e-1") && !text.contains("<script"));
    }
}
