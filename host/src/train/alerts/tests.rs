//! Rules over made-up lines of metrics.jsonl: when they begin, when they do not, when they end, and what a replay restores.

use std::fmt::Write;

use plugin_api::manifest::{MetricSpec, ObjectiveManifest, Reduction};
use serde_json::{Value, json};

use super::{AlertState, Alerts, Line};
use crate::config::{
    Draft, Experiment,
    experiment::{Alert as Table, BuiltIn, MetricAlert, Then, Watched},
};

/// An experiment with `more` tables; with rollouts, the rewards `model`, trained, and `gold`, only measured.
fn experiment(rollouts: bool, alert: Vec<Table>) -> Experiment {
    let mut text = "[model]\nlayers = 1\ndim = 8\nheads = 2\ncontext = 8\n[objective]\nplugin = \"o\"\n\
                    [train]\nsteps = 9\noptimizer = { lr = 1e-3 }\n"
        .to_owned();
    text += match rollouts {
        true => {
            "batch = { prompts = 8 }\n[data]\nsource = \"jsonl\"\npath = \"a\"\n[rollout]\nprompts = 8\nmax_new_tokens = 4\n\
             [[reward]]\nmodel = \"m\"\n[[reward]]\nplugin = \"gold\"\nweight = 0\n"
        }
        false => "batch = { tokens = 8 }\n[data]\npath = \"a\"\n",
    };
    let mut draft = Draft::parse("exp.toml", "exp", &text, &[]).unwrap();
    let slots: Vec<_> = draft.plugins().iter().map(|plugin| plugin.slot).collect();
    slots.into_iter().for_each(|slot| draft.check_options(slot, &[]));
    Experiment { alert, ..draft.finish().unwrap().experiment }
}

fn manifest(names: &[(&str, Option<(f64, f64)>)]) -> ObjectiveManifest {
    let metric = |(name, healthy): &(&str, Option<(f64, f64)>)| MetricSpec {
        healthy: *healthy,
        ..MetricSpec::new(name, Reduction::MEAN, "what it means")
    };
    ObjectiveManifest { metrics: names.iter().map(metric).collect(), ..Default::default() }
}

fn on(rule: MetricAlert, then: Then) -> Table {
    Table { watched: Watched::Metric(rule), then }
}

fn built_in(rule: BuiltIn, then: Then) -> Table {
    Table { watched: Watched::BuiltIn { rule }, then }
}

fn line(step: u64, metrics: Value) -> Line {
    let Value::Object(metrics) = metrics else { panic!("{metrics}") };
    let head = json!({ "step": step, "kind": "train" });
    head.as_object().unwrap().clone().into_iter().chain(metrics).collect()
}

/// What changes while `alerts` observe the values of one metric, from step 1 on: `begin 3`.
fn changes(alerts: &mut Alerts, metric: &str, values: &[Option<f64>]) -> Vec<String> {
    let lines = values.iter().zip(1..).map(|(value, step)| line(step, json!({ metric: value })));
    let word = |state| if state == AlertState::Begin { "begin" } else { "end" };
    let all = lines.flat_map(|line| alerts.observe(&line));
    all.map(|change| format!("{} {}", word(change.state), change.step)).collect()
}

fn some(values: &[f64]) -> Vec<Option<f64>> {
    values.iter().copied().map(Some).collect()
}

/// Catches an alert in every step, one for a single value, a count that continues across values inside the limits, one that ends at
/// the first such value, and a null that counts as a value.
#[test]
fn a_limit_begins_and_ends_after_as_many_values_in_a_row() {
    let rule = MetricAlert { metric: "kl".into(), above: Some(1.0), below: Some(0.1), count: 2, ..Default::default() };
    let mut alerts = Alerts::new(&experiment(false, vec![on(rule.clone(), Then::Warn)]), &[]);
    let values = [2.0, 0.5, 2.0, 0.05, 2.0, 0.5, 2.0, 0.5, 0.5, 1.0, 0.1];
    assert_eq!(changes(&mut alerts, "kl", &some(&values)), ["begin 4", "end 9"]);
    assert!(alerts.active().is_empty());
    let mut gaps = Alerts::new(&experiment(false, vec![built_in(BuiltIn::All, Then::Off), on(rule, Then::Warn)]), &[]);
    assert_eq!(changes(&mut gaps, "kl", &[Some(2.0), None, Some(2.0), None]), ["begin 3"]);
    assert_eq!(changes(&mut gaps, "other", &some(&[2.0, 2.0])), [""; 0]);
    let text = gaps.active().join("");
    assert_eq!(text, "step 3: kl is 2, above 1, 2 times in a row (kl above 1 or below 0.1)");
}

/// Catches a spike that hides the next one, one before there is anything to compare with, a fall that counts as a rise, and a new
/// level that is a spike for ever.
#[test]
fn a_spike_is_compared_with_the_values_before_it() {
    let rule =
        |spike, drop| MetricAlert { metric: "x".into(), spike, drop, window: Some(6), count: 2, ..Default::default() };
    let noise = [1.0, 1.1, 0.9, 1.0, 1.1, 0.9];
    let run = |spike, drop, more: &[f64]| {
        let tables = vec![on(rule(spike, drop), Then::Warn)];
        changes(&mut Alerts::new(&experiment(false, tables), &[]), "x", &some(&[&noise[..], more].concat()))
    };
    assert_eq!(run(Some(4.0), None, &[3.0, 3.0, 3.0, 1.0, 1.0, 1.0]), ["begin 8", "end 11"]);
    assert_eq!(run(Some(4.0), None, &[3.0, 1.0, 3.0, 1.0]), [""; 0]);
    assert_eq!(run(Some(4.0), None, &[-3.0, -3.0, -3.0]), [""; 0]);
    assert_eq!(run(None, Some(4.0), &[-3.0, -3.0, -3.0]), ["begin 8"]);
    assert_eq!(run(Some(4.0), None, &[3.0, 3.1, 2.9, 3.0, 3.1, 2.9, 3.0, 3.0]), ["begin 8", "end 14"]);
    let mut early = Alerts::new(&experiment(false, vec![on(rule(Some(4.0), None), Then::Warn)]), &[]);
    assert_eq!(changes(&mut early, "x", &some(&[1.0, 1.1, 9.0, 9.0, 9.0])), [""; 0]);
}

/// Catches a healthy range that is not watched, or is watched under the name without its prefix, and a warning without the meaning.
#[test]
fn leaving_a_healthy_range_for_five_steps_warns_with_the_meaning() {
    let declared = manifest(&[("ratio", Some((0.8, 1.25))), ("free", None)]);
    let mut alerts = Alerts::new(&experiment(false, Vec::new()), &[("ppo/", &declared)]);
    assert_eq!(changes(&mut alerts, "ppo/free", &some(&[9.0; 9])), [""; 0]);
    assert_eq!(changes(&mut alerts, "ppo/ratio", &some(&[1.25, 0.8, 1.3, 1.3, 1.3, 1.3, 1.0])), [""; 0]);
    assert_eq!(changes(&mut alerts, "ppo/ratio", &some(&[0.7; 6])), ["begin 5"]);
    assert!(alerts.active()[0].contains("its healthy range, 0.8 to 1.25, 5 times in a row: what it means"));
    assert_eq!(changes(&mut alerts, "ppo/ratio", &some(&[1.0; 6])), ["end 5"]);
}

/// Catches a built-in rule that cannot be switched off or made to stop a run, a table that changes other rules too, and an alert
/// that stops the run after it has ended.
#[test]
fn built_in_rules_are_switched_by_name() {
    let bad = [None, Some(1.0)];
    let run = |tables: Vec<Table>| {
        let mut alerts = Alerts::new(&experiment(false, tables), &[]);
        let mut stops = Vec::new();
        for (value, step) in bad.iter().zip(1..) {
            alerts.observe(&line(step, json!({ "loss": value })));
            stops.push(alerts.stop().is_some());
        }
        (alerts.0.len(), stops)
    };
    let all = run(Vec::new());
    assert_eq!(all.1, [false, false]);
    assert_eq!(run(vec![built_in(BuiltIn::All, Then::Off)]).0, 0);
    assert_eq!(run(vec![built_in(BuiltIn::NonFinite, Then::Off)]).0, all.0 - 1);
    assert_eq!(run(vec![built_in(BuiltIn::NonFinite, Then::Stop)]), (all.0, vec![true, false]));
    assert_eq!(run(vec![built_in(BuiltIn::LossSpike, Then::Stop)]).1, [false, false]);
    let stop_all_but_one = vec![built_in(BuiltIn::All, Then::Stop), built_in(BuiltIn::NonFinite, Then::Warn)];
    assert_eq!(run(stop_all_but_one).1, [false, false]);
}

/// Catches a null that is not noticed, and a message that names another metric than the one without a number.
#[test]
fn a_metric_that_is_not_finite_is_named() {
    let mut alerts = Alerts::new(&experiment(false, Vec::new()), &[]);
    assert_eq!(alerts.observe(&line(1, json!({ "loss": 1.0, "kl": 2.0 }))), []);
    let changes = alerts.observe(&line(2, json!({ "loss": 1.0, "kl": null })));
    assert!(
        changes[0].metric == "kl" && changes[0].text.starts_with("step 2: kl is not a finite number"),
        "{changes:?}"
    );
    assert_eq!((changes[0].value, changes[0].name.as_str()), (None, "non-finite"));
    assert_eq!(alerts.observe(&line(3, json!({ "loss": 1.0, "kl": null }))), []);
    let ended = alerts.observe(&line(4, json!({ "loss": 1.0, "kl": 1.0 })));
    assert_eq!(
        ended.iter().map(|change| (change.state, change.metric.as_str())).collect::<Vec<_>>(),
        [(AlertState::End, "kl")]
    );
}

/// Catches a KL per answer that is compared as one per token, and rules for rollouts in a run without them.
#[test]
fn the_kl_of_answers_is_compared_per_token() {
    let ppo = manifest(&[("objective/kl", None), ("length/mean", None), ("policy/entropy_avg", None)]);
    let run = |rollouts: bool, kl: f64| {
        let mut alerts = Alerts::new(&experiment(rollouts, Vec::new()), &[("", &ppo)]);
        let lines = (1..=4).map(|step| line(step, json!({ "objective/kl": kl, "length/mean": 10.0 })));
        lines.flat_map(|line| alerts.observe(&line)).map(|change| (change.step, change.name)).collect::<Vec<_>>()
    };
    assert_eq!(run(true, 9.0), []);
    assert_eq!(run(true, 11.0), [(3, "kl-runaway".to_owned())]);
    assert_eq!(run(false, 11.0), []);
}

/// Catches a collapse that is judged against a fixed entropy: tasks with one right answer begin with little.
#[test]
fn entropy_is_compared_with_its_first_values() {
    let grpo = manifest(&[("entropy", None)]);
    let run = |first: f64, last: f64| {
        let mut alerts = Alerts::new(&experiment(true, Vec::new()), &[("", &grpo)]);
        changes(&mut alerts, "entropy", &some(&[[first; 5], [last; 5], [first; 5]].concat()))
    };
    assert_eq!(run(0.3, 0.014), ["begin 10", "end 15"]);
    assert_eq!(run(0.3, 0.016), [""; 0]);
    assert_eq!(run(0.02, 0.01), [""; 0]);
    assert_eq!(run(0.0, 0.0), [""; 0]);
}

/// The alerts that begin while the trained reward, the measured one and the length follow these functions of the rollout, with some
/// noise.
fn hacked(model: impl Fn(f64) -> f64, gold: impl Fn(f64) -> f64, length: impl Fn(f64) -> f64) -> Vec<String> {
    let declared = manifest(&[("length", None)]);
    let mut alerts = Alerts::new(&experiment(true, Vec::new()), &[("", &declared)]);
    let lines = (0..60_u64).map(|step| {
        let (at, noise) = (step as f64, 0.02 * (step * 7 % 5) as f64);
        let metrics =
            json!({ "reward/model": model(at) + noise, "reward/gold": gold(at) - noise, "length": length(at) + noise });
        // The steps in between learn from the same rollout.
        [line(2 * step, metrics), line(2 * step + 1, json!({ "length": length(at) }))]
    });
    lines
        .flatten()
        .flat_map(|line| alerts.observe(&line))
        .map(|change| format!("{} {:?}", change.metric, change.state))
        .collect()
}

/// Catches reward hacking that is not noticed, also if gold rises at first, and a warning for gold that rises, stays or falls
/// together with the trained reward, and for answers that grow while the reward does not.
#[test]
fn reward_hacking_is_a_rise_against_gold_or_length() {
    let rise = |at: f64| 0.05 * at;
    let (flat, fall) = (|_: f64| 1.0, |at: f64| -0.05 * at);
    let peak = |at: f64| -0.002 * (at - 20.0) * (at - 20.0);
    assert_eq!(hacked(rise, rise, flat), [""; 0]);
    assert_eq!(hacked(rise, flat, flat), [""; 0]);
    assert_eq!(hacked(fall, fall, flat), [""; 0]);
    assert_eq!(hacked(flat, fall, flat), [""; 0]);
    assert_eq!(hacked(rise, fall, flat), ["reward/gold Begin"]);
    assert_eq!(hacked(rise, peak, flat), ["reward/gold Begin"]);
    assert_eq!(hacked(rise, flat, |at| 10.0 + at), ["length Begin"]);
    assert_eq!(hacked(flat, flat, |at| 10.0 + at), [""; 0]);
    assert_eq!(hacked(rise, flat, |at| 10.0 + 0.1 * at), [""; 0]);
}

/// Catches a gradient of 0 that is not noticed, one that counts across other steps, rewards that are compared without rollouts, and
/// a short run that learned nothing and ends without a word.
#[test]
fn a_gradient_of_zero_and_equal_rewards_begin_and_end() {
    let new = |rollouts: bool| Alerts::new(&experiment(rollouts, Vec::new()), &[]);
    let mut alerts = new(false);
    assert_eq!(changes(&mut alerts, "grad_norm", &some(&[0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])), ["begin 6"]);
    let active = alerts.active().join("");
    assert!(active.starts_with("step 6: grad_norm is 0: the gradient is exactly 0, 3 times in a row: "), "{active}");
    assert!(active.contains("cotangents") && active.ends_with("(dead-gradients)") && alerts.too_short().is_empty());
    assert_eq!(changes(&mut alerts, "grad_norm", &some(&[1.0, 1.0, 1.0])), ["end 3"]);
    assert_eq!(changes(&mut new(false), "grad_norm", &some(&[1e-9; 9])), [""; 0], "small is not 0");
    assert_eq!(changes(&mut new(false), "answers/spread", &some(&[0.0; 9])), [""; 0]);
    let mut equal = new(true);
    // Only the steps that draw a rollout report a spread.
    assert_eq!(changes(&mut equal, "answers/spread", &[Some(0.0), Some(0.5), Some(0.0)]), [""; 0]);
    equal.observe(&line(4, json!({ "loss": 1.0 })));
    assert_eq!(changes(&mut equal, "answers/spread", &some(&[0.0])), ["begin 1"]);
    assert!(equal.active()[0].contains("all rewards of the rollout are equal, 2 times in a row"));
}

/// Catches a short run that learned nothing and ends without a word, and one that is reported though a step learned something.
#[test]
fn a_rule_that_held_in_all_of_a_short_run_is_reported_at_its_end() {
    let run = |norms: &[f64], tables: Vec<Table>| {
        let mut alerts = Alerts::new(&experiment(true, tables), &[]);
        changes(&mut alerts, "grad_norm", &some(norms));
        changes(&mut alerts, "answers/spread", &some(&[0.0]));
        alerts.too_short()
    };
    let both = run(&[0.0, 0.0], Vec::new());
    assert!(
        both.len() == 2 && both[0].contains("exactly 0, 2 times in a row") && both[1].contains("equal"),
        "{both:?}"
    );
    for norms in [&[0.0, 1.0][..], &[1.0, 0.0], &[0.0, 0.0, 0.0], &[]] {
        assert!(!run(norms, Vec::new()).iter().any(|text| text.contains("gradient is")), "{norms:?}");
    }
    assert!(run(&[0.0], vec![built_in(BuiltIn::All, Then::Off)]).is_empty());
}

/// Catches a rise and a fall by rounding that count: rewards that are equal within a rollout have no standard error.
#[test]
fn rounding_is_no_reward_hacking() {
    let declared = manifest(&[("length", None)]);
    let mut alerts = Alerts::new(&experiment(true, Vec::new()), &[("", &declared)]);
    let lines = (0..24_u64).map(|step| {
        let by = if step < 8 { 0.0 } else { 1e-12 };
        line(step, json!({ "reward/model": 1.0 + by, "reward/gold": 1.0 - by }))
    });
    assert_eq!(lines.flat_map(|line| alerts.observe(&line)).collect::<Vec<_>>(), []);
}

/// Catches a resumed run that forgets earlier values, a count in progress or an active alert: from any line on, a replay continues
/// as the uninterrupted run.
#[test]
fn a_replay_restores_every_rule_after_any_line() {
    let declared = manifest(&[("length", Some((0.0, 20.0))), ("kl/reference", None), ("entropy", None)]);
    let spike =
        MetricAlert { metric: "loss".into(), spike: Some(3.0), window: Some(5), count: 2, ..Default::default() };
    let experiment = experiment(true, vec![on(spike, Then::Stop)]);
    let new = || Alerts::new(&experiment, &[("", &declared)]);
    let lines: Vec<Line> = (0..70_u64)
        .map(|step| {
            let at = step as f64;
            let loss = if step % 23 > 20 { 9.0 } else { 1.0 + 0.1 * (step % 3) as f64 };
            let loss = if step == 30 { Value::Null } else { json!(loss) };
            line(
                step,
                json!({
                    "loss": loss, "length": at / 3.0, "kl/reference": at / 40.0, "entropy": 1.0 / (1.0 + at),
                    "reward/model": 0.1 * at + 0.01 / (1.0 + at), "reward/gold": -0.1 * at,
                    "grad_norm": if (40..45).contains(&step) { 0.0 } else { 1.0 }, "answers/spread": (step / 9 % 2) as f64,
                }),
            )
        })
        .collect();
    let run =
        |alerts: &mut Alerts, lines: &[Line]| lines.iter().flat_map(|line| alerts.observe(line)).collect::<Vec<_>>();
    let whole = run(&mut new(), &lines);
    let names: std::collections::BTreeSet<&str> = whole.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(names.len(), 8, "{names:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrics.jsonl");
    for cut in 0..lines.len() {
        let (before, after) = lines.split_at(cut);
        let text = before.iter().fold(String::new(), |mut text, line| {
            writeln!(text, "{}", Value::Object(line.clone())).unwrap();
            text
        });
        std::fs::write(&file, text).unwrap();
        let mut resumed = new();
        resumed.replay(&file).unwrap();
        let done = run(&mut new(), before).len();
        assert_eq!(run(&mut resumed, after), whole[done..], "after {cut} lines");
    }
    new().replay(&folder.path().join("missing")).unwrap();
}
