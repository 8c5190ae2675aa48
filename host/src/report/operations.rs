//! Time per operation as a table with bars, or why there is none.

use std::fmt::Write;

use super::{health::short, record::RunRecord};
use crate::html::escaped;

/// HTML; empty for a run without a step.
pub fn table(run: &RunRecord) -> String {
    let measured = &run.operations;
    if run.step == 0 {
        return String::new();
    }
    if measured.steps == 0 || measured.seconds <= 0.0 {
        return format!("<p>{}</p>\n", escaped(&why_none(run)));
    }
    let mut rows: Vec<(&str, Option<f64>, f64)> =
        measured.by_name.iter().map(|(name, (calls, seconds))| (name.as_str(), Some(*calls), *seconds)).collect();
    rows.sort_by(|a, b| b.2.total_cmp(&a.2));
    rows.push((REST, None, measured.rest()));
    let steps = measured.steps as f64;
    let mut text = format!(
        "<p>Measured in {} of {} steps, by the host's clock; evaluations and samples are not counted.</p>\n\
         <div class=\"table\"><table class=\"operations\">\n<tr><th>operation</th><th>calls per step</th><th>ms per step</th>\
         <th>share of the step</th><th></th></tr>\n",
        measured.steps, run.step
    );
    for (name, calls, seconds) in rows {
        let percent = 100.0 * seconds / measured.seconds;
        let calls = calls.map_or_else(String::new, |calls| short(calls / steps));
        _ = writeln!(
            text,
            "<tr><th>{}</th><td>{calls}</td><td>{:.3}</td><td>{percent:.1}%</td>\
             <td><div class=\"bar\" style=\"width:{:.1}%\"></div></td></tr>",
            escaped(name),
            1e3 * seconds / steps,
            percent.min(100.0)
        );
    }
    text.push_str("</table></div>\n");
    text
}

/// The name of what is not an operation.
const REST: &str = "the rest: data, objective, host";

fn why_none(run: &RunRecord) -> String {
    let device = run.experiment.get("backend").and_then(|backend| backend.get("device")?.as_str()).unwrap_or("cpu");
    if device.split(':').next() != Some("cpu") {
        return format!(
            "Not measured on {device}: a call returns before the operation is computed, so the host's clock does not show its time. \
             telos compare waits for each operation and measures it."
        );
    }
    "Not recorded: a run writes it after every 10 steps, with a checkpoint and at its end, and earlier versions did not write it."
        .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::record::tests::empty_run;

    /// Catches a wrong share or number of calls, lines that are not summed (those of a resumed run), a missing rest, an order that is
    /// not by time, and a name that becomes markup.
    #[test]
    fn operations_are_shown_per_step_with_the_rest() {
        let mut run = empty_run();
        assert_eq!(table(&run), "");
        run.step = 15;
        let mut add = |steps: u64, seconds: f64, linear: f64| {
            let operations = json!({ "a<b": { "calls": steps, "seconds": 0.1 }, "linear": { "calls": 4 * steps, "seconds": linear } });
            let line = json!({ "steps": steps, "step_seconds": seconds, "operations": operations });
            run.operations.add(line.as_object().unwrap());
        };
        add(9, 1.0, 0.6);
        add(1, 1.0, 0.4);
        let text = table(&run);
        let row = |name: &str, cells: &str| format!("<tr><th>{name}</th>{cells}");
        for expected in [
            "Measured in 10 of 15 steps",
            &row("linear", "<td>4</td><td>100.000</td><td>50.0%</td><td><div class=\"bar\" style=\"width:50.0%\">"),
            &row("a&lt;b", "<td>1</td><td>20.000</td><td>10.0%</td>"),
            &row(REST, "<td></td><td>80.000</td><td>40.0%</td>"),
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(text.find("linear") < text.find("a&lt;b"));
    }

    /// Catches a run without times whose report says nothing, and one on a GPU that is taken for an old one.
    #[test]
    fn a_run_without_times_says_why() {
        let mut run = empty_run();
        run.step = 3;
        assert!(table(&run).contains("earlier versions did not write it"));
        run.experiment = "[backend]\ndevice = \"cuda:1\"".parse().unwrap();
        assert!(table(&run).contains("Not measured on cuda:1: a call returns before"));
    }
}
