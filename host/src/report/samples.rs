//! What a run wrote over time: answers to the same prompts side by side, or the first answers of some steps.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{health::short, record::RunRecord};

/// Steps that are shown.
const STEPS: usize = 4;
/// Prompts that are shown, or answers of a step.
const PROMPTS: usize = 6;
/// Characters of a prompt or an answer that are shown.
const LONGEST: usize = 400;

/// A table of texts.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleTable {
    /// Its heading.
    pub title: String,
    /// Headings of the columns and rows of cells; the first column has prompts, or steps.
    pub rows: Vec<Vec<String>>,
}

type Line = Map<String, Value>;

/// The tables of a run's samples, one for each kind.
pub fn tables(run: &RunRecord) -> Vec<SampleTable> {
    let mut kinds: BTreeMap<&str, BTreeMap<u64, Vec<&Line>>> = BTreeMap::new();
    for line in &run.samples {
        let text = |key: &str| line.get(key).and_then(Value::as_str);
        let kind = text("kind").unwrap_or(if line.contains_key("reward") { "rollout" } else { "sample" });
        let step = line.get("step").and_then(Value::as_u64).unwrap_or(0);
        kinds.entry(kind).or_default().entry(step).or_default().push(line);
    }
    kinds.into_iter().filter_map(|(kind, steps)| table(kind, &steps)).collect()
}

fn table(kind: &str, steps: &BTreeMap<u64, Vec<&Line>>) -> Option<SampleTable> {
    let title = match kind {
        "rollout" => "First answers of rollouts",
        "sample" => "Samples",
        "exact_match" => "Greedy answers to held-out prompts",
        "reward" => "Sampled answers to held-out prompts",
        "pass" => "Answers for pass@k",
        other => other,
    };
    let shown = spread(&steps.keys().copied().collect::<Vec<_>>(), STEPS);
    let first = steps.get(shown.first()?)?;
    let shared = |prompt: &&str| shown.iter().all(|step| answer(steps, *step, prompt).is_some());
    let prompts: Vec<&str> = distinct(first.iter().filter_map(|line| text(line, "prompt")));
    let prompts: Vec<&str> = prompts.into_iter().filter(shared).take(PROMPTS).collect();
    let rows = if !prompts.is_empty() && (shown.len() > 1 || steps.len() == 1) {
        let expects = first.iter().any(|line| text(line, "expected").is_some());
        let head = ["prompt"].into_iter().chain(expects.then_some("expected")).map(str::to_owned);
        let head = head.chain(shown.iter().map(|step| format!("step {step}"))).collect();
        let row = |prompt: &&str| {
            let expected = first.iter().find(|line| text(line, "prompt") == Some(prompt));
            let expected = expected.and_then(|line| text(line, "expected")).unwrap_or_default();
            let lead = [*prompt].into_iter().chain(expects.then_some(expected)).map(cut);
            lead.chain(shown.iter().map(|step| answer(steps, *step, prompt).map_or_else(String::new, cell))).collect()
        };
        [head].into_iter().chain(prompts.iter().map(row)).collect()
    } else {
        let head = ["step", "prompt", "answer"].map(str::to_owned).to_vec();
        let of_step = |step: &u64| {
            let own = steps.get(step).into_iter().flatten().take(PROMPTS / 2);
            let row = |line: &&Line| vec![step.to_string(), cut(text(line, "prompt").unwrap_or_default()), cell(line)];
            own.map(row).collect::<Vec<_>>()
        };
        [head].into_iter().chain(shown.iter().flat_map(of_step)).collect()
    };
    Some(SampleTable { title: title.to_owned(), rows })
}

fn text<'a>(line: &'a Line, key: &str) -> Option<&'a str> {
    line.get(key).and_then(Value::as_str)
}

fn answer<'a>(steps: &BTreeMap<u64, Vec<&'a Line>>, step: u64, prompt: &str) -> Option<&'a Line> {
    steps.get(&step)?.iter().find(|line| text(line, "prompt") == Some(prompt)).copied()
}

/// An answer, with its reward and whether it is right.
fn cell(line: &Line) -> String {
    let answer = cut(text(line, "answer").or_else(|| text(line, "text")).unwrap_or_default());
    let reward = line.get("reward").and_then(Value::as_f64).map(|reward| format!("reward {}", short(reward)));
    let right =
        line.get("match").and_then(Value::as_bool).map(|right| if right { "right" } else { "wrong" }.to_owned());
    let notes: Vec<String> = right.into_iter().chain(reward).collect();
    if notes.is_empty() { answer } else { format!("{answer}\n[{}]", notes.join(", ")) }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{} ...", &text[..at]),
        None => text.to_owned(),
    }
}

fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = std::collections::BTreeSet::new();
    texts.filter(|text| seen.insert(*text)).collect()
}

/// Up to `most` of the values, the first and the last among them.
fn spread(values: &[u64], most: usize) -> Vec<u64> {
    let last = values.len().saturating_sub(1);
    let count = values.len().min(most);
    (0..count).map(|at| values[if count > 1 { at * last / (count - 1) } else { 0 }]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::record::tests::empty_run;
    use serde_json::json;

    fn of(lines: &[Value]) -> Vec<SampleTable> {
        let mut run = empty_run();
        run.samples = lines.iter().filter_map(|line| line.as_object().cloned()).collect();
        tables(&run)
    }

    /// Catches answers of other prompts in a row, and steps in the wrong order.
    #[test]
    fn answers_to_the_same_prompt_stand_side_by_side() {
        let line = |step: u64, prompt: &str, answer: &str, right: bool| json!({"step": step, "kind": "exact_match", "prompt": prompt, "answer": answer, "expected": "x", "match": right});
        let lines =
            [line(8, "b", "b8", true), line(0, "a", "a0", false), line(0, "b", "b0", false), line(8, "a", "a8", false)];
        let rows = [
            ["prompt", "expected", "step 0", "step 8"],
            ["a", "x", "a0\n[wrong]", "a8\n[wrong]"],
            ["b", "x", "b0\n[wrong]", "b8\n[right]"],
        ];
        let [table] = &of(&lines)[..] else { panic!("one table") };
        assert_eq!(table.rows, rows.map(|row| row.map(str::to_owned).to_vec()));
    }

    /// Catches rollouts, whose prompts differ, that are left out.
    #[test]
    fn answers_to_different_prompts_are_listed_by_step() {
        let line = |step: u64| json!({"step": step, "prompt": format!("p{step}"), "text": "t", "reward": 0.5});
        let [table] = &of(&(1..=9).map(line).collect::<Vec<_>>())[..] else { panic!("one table") };
        let steps: Vec<&str> = table.rows[1..].iter().map(|row| row[0].as_str()).collect();
        assert_eq!(steps, ["1", "3", "6", "9"]);
        assert_eq!(table.rows[1], ["1", "p1", "t\n[reward 0.5]"]);
    }

    /// Catches a text that is cut within a character.
    #[test]
    fn long_texts_are_cut() {
        let long = "é".repeat(LONGEST + 1);
        assert_eq!(cut(&long), format!("{} ...", "é".repeat(LONGEST)));
        assert_eq!(spread(&[], 4), Vec::<u64>::new());
        assert_eq!(spread(&[5], 4), [5]);
    }
}
