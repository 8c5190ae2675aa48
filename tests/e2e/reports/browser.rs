//! A report in Chromium: it is opened from disk without a network, and driven by a script that the test adds to a copy of the page.

use std::{fs, path::Path};

use serde_json::Value;

use super::chromium::chromium;
use crate::support::lab::Lab;

/// Catches errors before the page's own script runs.
const FIRST: &str = "<script>window.problems = []; \
    window.addEventListener('error', (event) => window.problems.push(String(event.message))); \
    console.error = (...all) => window.problems.push(all.join(' ')); \
    window.addEventListener('unhandledrejection', (event) => window.problems.push(String(event.reason)));</script>";

/// Drives the page: hovers, hides a run, changes axis, smoothing and theme, and leaves what it found in the document. The clock of
/// the page runs ahead of the machine's, so a pause also counts, and what the page does later is waited for, not timed.
const DRIVE: &str = r##"<script>
window.addEventListener("load", async () => {
  const pause = async () => {
    await new Promise((done) => setTimeout(done, 50));
    for (let count = 0; count < 1e7; count += 1) window.counted = count;
  };
  const until = async (holds) => { for (let tries = 0; tries < 300 && !holds(); tries += 1) await pause(); };
  const all = (query) => [...document.querySelectorAll(query)];
  await until(() => all("[data-chart] .u-wrap").length >= all("[data-chart]").length);
  const found = { charts: all("[data-chart]").length, drawn: all("[data-chart] .u-wrap").length };
  found.width = [document.documentElement.scrollWidth, window.innerWidth];
  const first = () => document.querySelector("[data-chart]");
  const values = () => [...first().querySelectorAll(".u-value")].map((cell) => cell.textContent);
  const names = () => [...first().querySelectorAll(".u-label")].map((cell) => cell.textContent);
  found.before = values();
  const over = first().querySelector(".u-over");
  const box = over.getBoundingClientRect();
  const at = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2, bubbles: true };
  over.dispatchEvent(new MouseEvent("mouseenter", at));
  over.dispatchEvent(new MouseEvent("mousemove", at));
  await until(() => !isNaN(parseFloat(values()[0])));
  found.hover = values();
  found.names = names();
  const ink = () => first().querySelector("canvas").toDataURL().length;
  found.ink = ink();
  const boxes = all("#toggles input");
  found.toggles = boxes.length;
  if (boxes.length) { boxes[1].click(); await pause(); found.hidden = names(); boxes[1].click(); }
  const change = (id, value, kind) => {
    document.getElementById(id).value = value;
    document.getElementById(id).dispatchEvent(new Event(kind));
  };
  for (const axis of ["tokens", "seconds", "flops"]) { change("axis", axis, "change"); await pause(); found[axis] = [names()[0], ink()]; }
  change("smooth", "0.9", "input");
  await pause();
  found.theme = [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor];
  document.getElementById("theme").click();
  await pause();
  found.other = [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor];
  found.problems = window.problems;
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = JSON.stringify(found);
  document.body.replaceChildren(result);
});
</script>"##;

/// Opens a page in a window of this size and returns what the script found.
fn drive(lab: &Lab, page: &str, size: (u32, u32), dark: bool) -> Value {
    let text = fs::read_to_string(lab.at(page)).expect("a page");
    let text = text.replacen("<head>", &format!("<head>{FIRST}"), 1).replacen("</body>", &format!("{DRIVE}</body>"), 1);
    let copy = lab.write("driven.html", text);
    let profile = tempfile::tempdir().expect("a folder");
    let mut command = chromium(env!("TELOS_CHROMIUM"), profile.path());
    command.args(["--virtual-time-budget=600000", &format!("--window-size={},{}", size.0, size.1)]);
    if dark {
        command.arg("--blink-settings=preferredColorScheme=0");
    }
    let output = command.arg(url(&copy)).output().expect("Chromium starts");
    let dom = String::from_utf8_lossy(&output.stdout);
    let result = dom.split("<pre id=\"result\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let result = result
        .unwrap_or_else(|| panic!("no result ({}): {dom}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(&result.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")).expect("JSON")
}

fn url(path: &Path) -> String {
    format!("file://{}", fs::canonicalize(path).expect("a path").display())
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect()
}

/// Catches a chart that is not drawn, values that do not follow the pointer, a run that cannot be hidden, an axis or a theme that
/// changes nothing, a page wider than a phone, and any error on the console.
#[test]
#[cfg_attr(not(telos_chromium), ignore = "needs a Chromium that starts: install the package chromium")]
fn a_report_works_in_a_browser() {
    let lab = Lab::tiny();
    for (name, lr) in [("one", "1e-2"), ("two", "3e-3")] {
        lab.ask(&["run", "tiny.toml", "--name", name, "--set", &format!("train.optimizer.lr={lr}")]).succeeds();
    }
    lab.ask(&["report", "runs/one", "runs/two", "-o", "both.html"]).succeeds();
    for (page, size, dark, runs) in [
        ("both.html", (1400, 4000), false, 2),
        ("both.html", (500, 9000), true, 2),
        ("runs/one/report.html", (1400, 4000), true, 0),
    ] {
        let found = drive(&lab, page, size, dark);
        let what = format!("{page} {size:?}: {found}");
        assert!(texts(&found["problems"]).is_empty(), "{what}");
        assert!(found["charts"].as_u64() > Some(5), "{what}");
        assert_eq!(found["charts"], found["drawn"], "{what}");
        assert!(found["width"][0].as_f64() <= found["width"][1].as_f64(), "wider than the window: {what}");
        assert!(texts(&found["before"]).iter().all(|value| ["-", "--"].contains(value)), "{what}");
        assert!(texts(&found["hover"])[0].parse::<f64>().is_ok(), "{what}");
        assert!(texts(&found["hover"])[1..].iter().any(|value| value.parse::<f64>().is_ok()), "{what}");
        assert_eq!(found["toggles"], runs, "{what}");
        if runs > 0 {
            assert!(texts(&found["names"]).iter().any(|name| name.contains("two")), "{what}");
            assert!(!texts(&found["hidden"]).iter().any(|name| name.contains("two")), "{what}");
        }
        for axis in ["tokens", "seconds", "flops"] {
            assert_eq!(found[axis][0], axis, "{what}");
        }
        let themes = [&found["theme"], &found["other"]].map(|theme| texts(theme));
        let expected = if dark { ["dark", "light"] } else { ["light", "dark"] };
        assert_eq!(themes.clone().map(|theme| theme[0]), expected, "{what}");
        assert_ne!(themes[0][1], themes[1][1], "{what}");
    }
}
