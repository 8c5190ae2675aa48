//! Alerts: rules that watch metrics while a run trains, and may stop it.

use std::fs;

use serde_json::Value;

use crate::support::{
    experiments::{PPO, lab},
    kills::{kill_at, start_or_resume, with_enough_steps},
    lab::{Lab, Run},
};

/// The alert lines of a run, each as step, state and metric.
fn alerts(run: &Run) -> Vec<Value> {
    run.lines("timing.jsonl").into_iter().filter(|line| line["kind"] == "alert").collect()
}

fn end(run: &Run) -> Value {
    serde_json::from_slice(&run.bytes("end.json")).expect("JSON")
}

/// Catches an alert that does not stop a run, one that ends it as a failure or without a checkpoint, a reason that is not recorded,
/// and a stopped run that continues.
#[test]
fn an_alert_stops_a_run_with_a_checkpoint_and_its_reason() {
    let lab = Lab::tiny();
    let set = "alert=[{metric=\"loss\",above=1.0,for=3,then=\"stop\"}]";
    let answer = lab.run(&[set]);
    answer.succeeds();
    let why = "stopped after step 3: alert: step 3: loss is 5.";
    assert!(answer.err.contains(why) && answer.err.contains("above 1, 3 times in a row (loss above 1)"), "{answer:#?}");
    assert_eq!(answer.err.matches("\nalert: ").count(), 1, "{answer:#?}");
    assert!(answer.out.contains("alert, active at the end: step 3: loss is 5."), "{answer:#?}");
    let run = lab.tiny_run();
    assert_eq!(run.checkpoints().last(), Some(&3));
    let end = end(&run);
    assert_eq!((&end["ending"], &end["step"]), (&"early".into(), &3.into()), "{end}");
    assert!(end["reason"].as_str().is_some_and(|reason| reason.starts_with("alert: step 3: loss is 5.")), "{end}");
    let listed = lab.ask(&["runs"]);
    assert!(listed.succeeds().contains("stopped early") && listed.out.contains("alert: step 3: loss"), "{listed:#?}");
    let page = fs::read_to_string(run.0.join("report.html")).expect("a report");
    assert!(page.contains("<ul class=\"alerts\"><li>alert: step 3: loss is 5."), "the report has no alert");
    let again = lab.resume(&[set]);
    again.succeeds();
    assert!(again.err.contains("the run ended after step 3 of 8") && again.err.contains("an alert"), "{again:#?}");
    lab.resume(&[set, "train.steps=20"]).refuses(2, &["an alert", "stopped it before its last step"]);
}

/// Catches a resumed run that stops at another step or for another reason, repeats or loses an alert, or leaves other bits.
#[test]
fn a_run_that_an_alert_stops_ends_at_the_same_step_after_kills() {
    with_enough_steps(150, |steps| {
        let length = format!("train.steps={steps}");
        let whole = Lab::tiny();
        whole.run(&[&length, "checkpoint.every=0", "sample.every=0"]).succeeds();
        // The smallest loss of the first steps is undercut later: at step `stop`.
        let losses = whole.tiny_run().train("loss");
        let limit = losses[..40].iter().copied().fold(f64::INFINITY, f64::min);
        let Some(stop) = losses[40..].iter().position(|loss| *loss < limit).map(|at| at as u64 + 41) else {
            return false;
        };
        // Another one begins early: a resume must know it, and must not warn again.
        let rules = format!(
            "alert=[{{metric=\"loss\",below={limit:?},for=1,then=\"stop\"}},{{metric=\"loss\",above=0.5}},\
             {{metric=\"grad_norm\",spike=1.5,drop=1.5,window=8,for=1}}]"
        );
        let sets =
            [length.as_str(), &rules, "eval.every=7", "sample.every=10", "checkpoint.every=1", "checkpoint.keep=2"];
        let undisturbed = Lab::tiny();
        undisturbed.run(&sets).succeeds();
        let lab = Lab::tiny();
        let run = lab.tiny_run();
        let killed = kill_at(&lab, &sets, &run, [4, 12, 24]);
        start_or_resume(&lab, &sets).answer().succeeds();
        run.has_steps(stop);
        run.equals(&undisturbed.tiny_run(), stop);
        let (ours, theirs) = (alerts(&run), alerts(&undisturbed.tiny_run()));
        assert_eq!(ours, theirs);
        assert!(ours.len() > 4, "{ours:?}");
        let [ours, theirs] = [end(&run), end(&undisturbed.tiny_run())];
        assert_eq!((&ours["step"], &ours["reason"]), (&stop.into(), &theirs["reason"]));
        assert!(ours["reason"].as_str().is_some_and(|reason| reason.contains("loss below")), "{ours}");
        killed
    });
}

/// Catches a rule on a metric that nothing reports, one without an effect, and a mistake that is found after files were written.
#[test]
fn alerts_that_can_never_begin_are_refused_before_anything_is_written() {
    let lab = lab(PPO);
    let refused = |rule: &str, parts: &[&str]| {
        lab.run(&[&format!("alert=[{{{rule}}}]")]).refuses(2, parts);
        assert!(!lab.tiny_run().0.exists(), "{rule}");
    };
    refused("metric=\"objective/kll\",above=1.0", &["alert.0.metric", "did you mean \"objective/kl\"?"]);
    refused("metric=\"zzzzzzzzz\",above=1.0", &["reported are loss, lr, grad_norm", "reward/length", "value/error"]);
    let evaluated = "alert=[{metric=\"eval/rewrd\",above=1.0}]";
    lab.run(&[evaluated, "eval.generate=4"]).refuses(2, &["alert.0.metric", "did you mean \"eval/reward\"?"]);
    lab.run(&["alert=[{metric=\"eval/loss\",above=1.0}]", "eval.every=0"])
        .refuses(2, &["alert.0.metric", "eval.every"]);
    refused("metric=\"loss\"", &["alert.0.above", "a condition is needed"]);
    refused("above=1.0", &["alert.0.metric", "missing"]);
    refused("metric=\"loss\",above=1.0,below=2.0", &["alert.0.below", "every number"]);
    refused("metric=\"loss\",above=1.0,window=9", &["alert.0.window", "unused"]);
    refused("metric=\"loss\",above=1.0,then=\"off\"", &["alert.0.then", "built-in"]);
    refused("metric=\"loss\",above=1.0,then=\"end\"", &["alert.0.then", "\"stop\""]);
    refused("rule=\"loss-spike\"", &["alert.0.then", "warn anyway"]);
    let one = |rule: &str, parts: &[&str]| {
        let answer = lab.run(&[&format!("alert=[{{{rule}}}]")]);
        answer.refuses(2, parts);
        assert!(answer.err.starts_with("error: 1 mistake in"), "{answer:#?}");
    };
    one("rule=\"loss-spyke\",then=\"off\"", &["alert.0.rule", "did you mean \"loss-spike\"?"]);
    one("rule=\"loss-spyke\",metric=\"loss\"", &["alert.0.rule", "did you mean \"loss-spike\"?"]);
    one("rul=\"loss-spike\",then=\"off\"", &["alert.0.rul: unknown key; did you mean `rule`?"]);
    one("metrc=\"loss\",above=1.0", &["alert.0.metrc: unknown key; did you mean `metric`?"]);
    one("metric=\"kl\",above=1.0", &["no step reports \"kl\"; did you mean \"objective/kl\"?"]);
    refused("rule=\"loss-spike\",above=1.0,then=\"off\"", &["alert.0.above", "unused"]);
    refused("rule=\"all\",metric=\"loss\",above=1.0", &["alert.0.rule", "contradicts"]);
    lab.ask(&["check", "tiny.toml", "--set", "alert=[{metric=\"kl\",above=1.0}]"])
        .refuses(2, &["no step reports \"kl\""]);
}

/// Catches built-in rules that warn in a short run without problems, an alert that changes the bits of metrics.jsonl, and a run
/// whose alerts cannot be changed when it is resumed.
#[test]
fn a_healthy_run_has_no_alert_and_alerts_change_no_bits() {
    let (plain, watched) = (lab(PPO), lab(PPO));
    let answer = plain.run(&[]);
    answer.succeeds();
    assert!(!answer.err.contains("alert") && alerts(&plain.tiny_run()).is_empty(), "{answer:#?}");
    let rule = "alert=[{metric=\"reward/length\",below=9.0,for=1},{rule=\"all\",then=\"off\"}]";
    watched.run(&[rule, "train.steps=6"]).succeeds();
    assert_eq!(alerts(&watched.tiny_run()).len(), 1);
    let more =
        watched.resume(&["alert=[{metric=\"reward/length\",below=9.0,for=1},{metric=\"grad_norm\",above=0.0,for=2}]"]);
    more.succeeds();
    assert!(more.err.contains("note: changed on resuming: alert.1"), "{more:#?}");
    let seen = alerts(&watched.tiny_run());
    assert_eq!(seen.len(), 1, "{seen:?}: both were active, by the lines before, when the run was resumed");
    watched.tiny_run().equals(&plain.tiny_run(), 12);
}
