//! The report as one HTML page. What can be read without a script is HTML; the charts are data that `page/page.js` draws with uPlot,
//! which is in the page too.

use std::{fmt::Write, path::Path};

use serde_json::{Value, json};

use super::{
    Group, Labelled, Report,
    charts::{self, Chart},
    distributions, health, operations,
    record::alerts::AlertSpan,
    samples, study, tables,
    tables::Rows,
};
use crate::{
    error::Result,
    html::{self, escaped},
    runs::{disk::write_durably, folder::REPORT_TITLE},
};

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
/// uPlot 1.6.32, by Leon Sorokin, and its licence, MIT, which every copy must carry.
const UPLOT: &str = concat!("/*\n", include_str!("page/uplot.LICENSE"), "*/\n", include_str!("page/uplot.min.js"));
const UPLOT_STYLE: &str = include_str!("page/uplot.min.css");

/// Points of the table that turns steps into tokens and seconds.
const AXIS_POINTS: usize = 500;

/// Writes the page. A reader of the file sees the earlier page or this one, and never a part.
///
/// # Errors
/// A failed run naming the file.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    write_durably(path, page(report).as_bytes())
}

/// The page's text.
pub fn page(report: &Report) -> String {
    let title = format!("{REPORT_TITLE}{}", report.title);
    let mut body = format!("<header><h1>{}</h1></header>\n{TOOLBAR}", escaped(&title));
    body.push_str("<main>\n");
    report.studies.iter().for_each(|study| body.push_str(&study::page::section(study, report)));
    body.push_str("<section id=\"runs\">\n");
    body.push_str(&html::table(&tables::runs(report)));
    body.push_str(&list("remarks", &remarks(report)));
    body.push_str(&ends(report));
    body.push_str("</section>\n");
    let (mut charts, mut first) = (Vec::new(), 0);
    for group in &report.groups {
        body.push_str(&section(group, first, &mut charts));
        first += group.runs.len();
    }
    body.push_str("</main>\n");
    let data = json!({ "runs": report.runs().map(run).collect::<Vec<_>>(), "charts": charts });
    // A tag or a comment in a text would end the script or hide its end.
    let data = data.to_string().replace('<', "\\u003c");
    _ = write!(body, "<script type=\"application/json\" id=\"data\">{data}</script>\n<script>{UPLOT}</script>\n");
    _ = writeln!(body, "<script>\n{SCRIPT}</script>");
    html::page(&title, &format!("<style>\n{UPLOT_STYLE}\n{STYLE}</style>\n"), &body)
}

const TOOLBAR: &str = "<nav id=\"tools\" aria-label=\"charts\">\n\
    <label>axis <select id=\"axis\"><option value=\"step\">step</option><option value=\"tokens\">tokens</option>\
    <option value=\"seconds\">seconds</option><option value=\"flops\">FLOPs</option></select></label>\n\
    <label>smoothing <input id=\"smooth\" type=\"range\" min=\"0\" max=\"0.98\" step=\"0.02\" value=\"0\"></label>\n\
    <button id=\"theme\" type=\"button\">dark</button>\n<span id=\"toggles\"></span>\n\
    <noscript>Charts need a browser with scripts; the tables do not.</noscript>\n</nav>\n";

/// What is missing, for every run.
fn remarks(report: &Report) -> Vec<String> {
    let of_runs =
        report.named().flat_map(|(name, run)| run.remarks.iter().map(move |remark| format!("{name}: {remark}")));
    report.remarks.iter().cloned().chain(of_runs).collect()
}

/// Why runs ended that did not end as planned.
fn ends(report: &Report) -> String {
    let mut text = String::new();
    for (name, run) in report.named() {
        let why = run.state.why();
        if !why.is_empty() {
            let (name, state) = (escaped(&name), run.state.word());
            _ = writeln!(text, "<p class=\"end\"><b>{name}: {state}</b></p>\n<pre>{}</pre>", escaped(&why.join("\n")));
        }
    }
    text
}

fn list(class: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: String = items.iter().map(|item| format!("<li>{}</li>", escaped(item))).collect();
    format!("<ul class=\"{class}\">{items}</ul>\n")
}

/// A group's charts and tables. Charts are numbered through the page, and so are runs: those of this group begin at `first`.
fn section(group: &Group, first: usize, charts: &mut Vec<Value>) -> String {
    let mut text = "<section class=\"group\">\n".to_owned();
    if !group.title.is_empty() {
        _ = writeln!(text, "<h2>{}</h2>", escaped(&group.title));
    }
    for Labelled { run, label } in &group.runs {
        let named = |line: String| if group.runs.len() == 1 { line } else { format!("{label}: {line}") };
        text.push_str(&list("alerts", &run.alerts.iter().map(alert).map(named).collect::<Vec<_>>()));
        text.push_str(&list("health", &health::sentences(run).into_iter().map(named).collect::<Vec<_>>()));
    }
    for panel in charts::panels(&group.runs) {
        _ = writeln!(text, "<h3>{}</h3>\n<div class=\"charts\">", escaped(&panel.title));
        for one in &panel.charts {
            _ = writeln!(
                text,
                "<figure class=\"chart\" data-chart=\"{}\"><figcaption><b>{}</b>{}</figcaption><div></div></figure>",
                charts.len(),
                escaped(&one.title),
                meaning(one)
            );
            charts.push(chart(one, first));
        }
        text.push_str("</div>\n");
    }
    text.push_str(&folded("Options that differ", &tables::differences(group), true));
    text.push_str(&folded("Evaluations", &tables::evaluations(group), true));
    text.push_str(&folded("Where the time went", &tables::phases(group), false));
    for Labelled { run, label } in &group.runs {
        let of = |title: &str| if group.runs.len() == 1 { title.to_owned() } else { format!("{title}: {label}") };
        text.push_str(&part(&of("Time per operation"), &operations::table(run), false));
        text.push_str(&part(&of("Distributions"), &distributions::pictures(run), group.runs.len() == 1));
        for table in samples::tables(run) {
            text.push_str(&folded(&of(&table.title), &table.rows, true).replace("<table>", "<table class=\"texts\">"));
        }
        let notes: Vec<String> = run.notes.iter().map(|(step, note)| format!("step {step}: {note}")).collect();
        if !notes.is_empty() {
            _ = write!(text, "<h3>{}</h3>\n{}", escaped(&of("Notes")), list("notes", &notes));
        }
        text.push_str(&folded(&of("Data"), &tables::data(run), false));
        text.push_str(&folded(&of("Made with"), &tables::made_with(run), false));
        let heads = ["option", "value"].map(str::to_owned).to_vec();
        let options = tables::options(run).into_iter().map(|(key, value)| vec![key, value]);
        text.push_str(&folded(&of("Options"), &std::iter::once(heads).chain(options).collect(), false));
    }
    text.push_str("</section>\n");
    text
}

/// An alert in a line.
fn alert(AlertSpan { text, ended, .. }: &AlertSpan) -> String {
    match ended {
        Some(step) => format!("alert: {text}; it ended at step {step}"),
        None => format!("alert: {text}; it did not end"),
    }
}

fn meaning(chart: &Chart) -> String {
    let healthy =
        chart.healthy.map(|(low, high)| format!("Healthy: {} to {}", health::short(low), health::short(high)));
    let lines: Vec<String> = chart.meaning.iter().cloned().chain(healthy).map(|line| escaped(&line)).collect();
    if lines.is_empty() {
        return String::new();
    }
    format!("<details><summary>?</summary><p>{}</p></details>", lines.join("<br>"))
}

/// A table that can be folded away; nothing without rows besides the headings.
fn folded(title: &str, rows: &Rows, open: bool) -> String {
    let table = if rows.len() < 2 { String::new() } else { html::table(rows) };
    part(title, &table, open)
}

/// HTML that can be folded away; nothing without content.
fn part(title: &str, content: &str, open: bool) -> String {
    if content.is_empty() {
        return String::new();
    }
    let (title, open) = (escaped(title), if open { " open" } else { "" });
    format!("<details class=\"part\"{open}><summary>{title}</summary>\n{content}</details>\n")
}

fn run(Labelled { label, run }: &Labelled) -> Value {
    let size = run.progress.len().div_ceil(AXIS_POINTS).max(1);
    let last = run.progress.len().saturating_sub(1);
    let kept: Vec<_> = run.progress.iter().enumerate().filter(|(at, _)| at % size == 0 || *at == last).collect();
    let column =
        |value: fn(&super::record::Progress) -> f64| kept.iter().map(|(_, p)| number(value(p))).collect::<Value>();
    json!({
        "label": label,
        "steps": column(|progress| progress.step),
        "tokens": column(|progress| progress.tokens),
        "seconds": column(|progress| progress.seconds),
        "flops": number(run.about.flops_per_token),
    })
}

fn chart(chart: &Chart, first: usize) -> Value {
    let lines: Vec<Value> = chart
        .lines
        .iter()
        .map(|line| {
            let column =
                |value: fn(&(f64, f64)) -> f64| line.points.iter().map(|p| number(value(p))).collect::<Value>();
            json!({
                "run": first + line.run,
                "label": line.label,
                "held_out": line.held_out,
                "x": column(|point| point.0),
                "y": column(|point| point.1),
                "means": line.means.iter().map(|(x, y, count)| json!([number(*x), number(*y), count])).collect::<Value>(),
            })
        })
        .collect();
    let healthy = chart.healthy.map(|(low, high)| json!([number(low), number(high)]));
    json!({ "title": chart.title, "healthy": healthy, "lines": lines })
}

/// A number with six significant digits, integers whole; null if it is not finite.
fn number(value: f64) -> Value {
    if !value.is_finite() {
        return Value::Null;
    }
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return (value as i64).into();
    }
    format!("{value:.5e}").parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::record::tests::empty_run, runs::folder::is_report};

    fn report_of(run: super::super::RunRecord) -> Report {
        let runs = vec![Labelled { label: run.name.clone(), run }];
        Report {
            title: "t".into(),
            groups: vec![Group { title: String::new(), runs }],
            remarks: Vec::new(),
            studies: Vec::new(),
        }
    }

    /// Catches a text of a model or a name that ends the script or becomes markup, and a NaN, which is not JSON.
    #[test]
    fn texts_cannot_leave_their_place() {
        let evil = "<!--<script></script><script>alert(1)</script>";
        let mut run = empty_run();
        run.name = evil.into();
        run.notes = vec![(1, evil.into())];
        run.metrics.insert(evil.into(), vec![(1.0, f64::NAN), (2.0, 1.0 / 3.0)]);
        let text = page(&report_of(run));
        assert!(!text.contains(evil) && !text.contains("alert(1)</script>") && !text.contains("<!--"));
        let data = text.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["charts"][0]["lines"][0]["y"], json!([null, 0.333333]));
        assert_eq!(data["charts"][0]["title"], evil);
    }

    /// Catches a page that loads anything, which would not open without a network.
    #[test]
    fn a_page_loads_nothing() {
        let text = page(&report_of(empty_run()));
        let own = text.replace(UPLOT, "");
        for word in ["src=", "href=", "url(", "@import", "fetch(", "http"] {
            assert!(!own.contains(word), "{word}");
        }
        assert!(is_report(text.as_bytes()) && !is_report(b"<html>"));
    }

    /// Catches a page of a long run that is too large to be sent.
    #[test]
    fn a_run_of_a_hundred_thousand_steps_makes_a_small_page() {
        let mut run = empty_run();
        for name in ["loss", "nll", "lr", "grad_norm", "a", "b", "c", "d", "e", "f"] {
            let points = (0..100_000).map(|step| (f64::from(step), (f64::from(step) * 0.7).sin()));
            run.metrics.insert(name.into(), points.collect());
        }
        let size = page(&report_of(run)).len();
        assert!(size < 5_000_000, "{size}");
    }
}
