//! Objectives and the keys of training, in whole runs.

use std::ops::Deref;

use crate::support::lab::{Lab, Run, TINY, close, with_sets};

/// A finished run and its folder.
struct Done(Run, #[expect(dead_code, reason = "the folder lives as long as the run is looked at")] Lab);

impl Deref for Done {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.0
    }
}

fn train(sets: &[&str]) -> Done {
    let lab = Lab::tiny();
    lab.run(sets).succeeds();
    Done(lab.tiny_run(), lab)
}

/// Catches weights that are forgotten, applied twice, or applied to the report but not to the gradient: a quarter and three
/// quarters of cross-entropy are cross-entropy.
#[test]
fn two_objectives_add_up_with_their_weights() {
    let lab = Lab::new();
    let one = "[objective]\nplugin = \"ce\"\n";
    let two = "[[objective]]\nplugin = \"ce\"\nweight = 0.25\n[[objective]]\nplugin = \"ce\"\nweight = 0.75\n";
    assert!(TINY.contains(one));
    lab.write("tiny.toml", TINY);
    lab.write("two.toml", TINY.replace(one, two));
    lab.write("half.toml", TINY.replace(one, "[objective]\nplugin = \"ce\"\nweight = 0.5\n"));
    for file in ["tiny.toml", "two.toml", "half.toml"] {
        lab.ask(&["run", file]).succeeds();
    }
    let [one, two, half] = ["tiny", "two", "half"].map(|name| Run(lab.at(&format!("runs/{name}"))));
    for key in ["loss", "grad_norm"] {
        close(one.train(key)[0], two.train(key)[0], 1e-6, key);
        close(one.train(key)[7], two.train(key)[7], 1e-4, key);
        close(one.train(key)[0], 2.0 * half.train(key)[0], 1e-6, key);
    }
    // Each reports its own numbers.
    let line = two.metrics("train").swap_remove(0);
    let loss = one.train("loss")[0];
    for key in ["ce.0/cross_entropy", "ce.1/cross_entropy"] {
        close(line[key].as_f64().unwrap_or(f64::NAN), loss, 1e-6, key);
    }
}

/// Catches options that are read and then not used.
#[test]
fn label_smoothing_and_z_loss_change_what_is_minimised() {
    let plain = train(&[]);
    let smooth = train(&["objective.label_smoothing=0.1"]);
    let z = train(&["objective.z_loss=0.01"]);
    let last = |run: &Run, key: &str| run.train(key)[7];
    // nll is never smoothed, so that runs can be compared.
    assert!(last(&smooth, "loss") > last(&smooth, "nll"));
    assert_eq!(plain.train("loss"), plain.train("nll"));
    for step in 0..8 {
        let line = &z.metrics("train")[step];
        let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
        close(number("loss"), number("cross_entropy") + 0.01 * number("z_loss"), 1e-12, "loss");
    }
    assert!(last(&z, "log_z").abs() < z.train("log_z")[0].abs(), "{:?}", z.train("log_z"));
}

/// Catches a patience that is never exhausted or counts wrong, and a resumed run that trains on past its end.
#[test]
fn early_stopping_ends_the_run_and_resume_does_not_continue_it() {
    let sets = [
        "train.steps=40",
        "eval.every=2",
        "eval.early_stop={patience=2,min_delta=10.0}",
        "checkpoint.every=0",
        "sample.every=0",
    ];
    let lab = Lab::tiny();
    let answer = lab.run(&sets);
    assert!(answer.succeeds().contains("6 steps"), "{answer:#?}");
    let expected = "stopped after step 6: eval/loss has not improved in 2 evaluations";
    assert!(answer.err.contains(expected), "{answer:#?}");
    let run = lab.tiny_run();
    // The first evaluation of the run sets the mark; two without a gain of 10 nats end it.
    assert_eq!(run.train("loss").len(), 6);
    assert_eq!(run.pointer("LATEST"), Some(6));
    lab.resume(&sets).succeeds();
    run.has_steps(6);
    // Patience counts from the last gain, so a run that learns continues.
    let learns = train(&["eval.every=2", "eval.early_stop={patience=2}"]);
    learns.has_steps(8);
}

/// Catches BEST that names the last instead, that is rotated away, or that is lost when the last step is saved twice.
#[test]
fn gotcha_41_the_best_checkpoint_is_kept_and_is_the_best() {
    // A rate so high that the loss rises again.
    let sets = ["train.steps=24", "eval.every=3", "checkpoint.every=2", "checkpoint.keep=2"];
    let run = train(&[&sets[..], &["train.optimizer.lr=0.05", "train.schedule=constant"]].concat());
    let best = |run: &Run| {
        let lines = run.metrics("eval");
        let measured = lines.iter().filter(|line| line["step"] != 0);
        let least =
            measured.min_by(|a, b| a["eval/loss"].as_f64().partial_cmp(&b["eval/loss"].as_f64()).expect("no NaN"));
        least.and_then(|line| line["step"].as_u64())
    };
    assert_eq!(run.pointer("BEST"), best(&run));
    assert_eq!(run.pointer("LATEST"), Some(24));
    let kept = run.checkpoints();
    assert!(
        kept.contains(&run.pointer("BEST").expect("a best one")) && kept.contains(&22) && kept.contains(&24),
        "{kept:?}"
    );
    assert!(kept.len() <= 3, "{kept:?}");
    // The last step is the best one of a run that gets better and better.
    let falling = train(&["checkpoint.every=8"]);
    assert_eq!((best(&falling), falling.pointer("BEST")), (Some(8), Some(8)));
}

/// Catches a length that is not used, or that changes at another step than configured.
#[test]
fn the_context_length_follows_its_schedule() {
    let run = train(&["train.context_schedule=[[0,4],[3,8],[6,16]]"]);
    assert_eq!(run.train("context"), [4.0, 4.0, 4.0, 8.0, 8.0, 8.0, 16.0, 16.0]);
    // And it is the length of what is trained on.
    let (short, long) = (
        train(&["train.context_schedule=[[0,4]]", "train.batch={sequences=8}"]),
        train(&["train.batch={sequences=8}"]),
    );
    assert!(short.train("tokens").iter().all(|tokens| *tokens <= 32.0), "{:?}", short.train("tokens"));
    assert!(long.train("tokens").iter().any(|tokens| *tokens > 64.0), "{:?}", long.train("tokens"));
}

/// Catches a group whose rate is not used: a frozen embedding does not change, and other weights do.
#[test]
fn parameter_groups_have_their_own_rate() {
    let lab = Lab::tiny();
    let frozen = "train.optimizer.groups=[{match=\"*embed*\",lr_scale=0.0}]";
    lab.run(&[frozen, "checkpoint.every=1", "checkpoint.keep=9"]).succeeds();
    let run = lab.tiny_run();
    let tensor = |step, name: &str| {
        let file = run.saved(step, "model.safetensors");
        let size = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
        let header: serde_json::Value = serde_json::from_slice(&file[8..8 + size]).expect("JSON");
        let at = |n: usize| 8 + size + header[name]["data_offsets"][n].as_u64().expect("an offset") as usize;
        file[at(0)..at(1)].to_vec()
    };
    assert!(tensor(1, "model.embed_tokens.weight") == tensor(8, "model.embed_tokens.weight"));
    assert!(tensor(1, "lm_head.weight") != tensor(8, "lm_head.weight"));
}

/// Catches a schedule that is configured and not used; the values are those of its formula.
#[test]
fn every_schedule_is_followed() {
    let cosine = |p: f64| 0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * p).cos());
    let cases: [(&str, [f64; 8]); 4] = [
        ("{kind=\"constant\",warmup=4}", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("{kind=\"linear\",warmup=0.5}", [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]),
        (
            "{kind=\"cosine\",warmup=4,min_lr_ratio=0.1}",
            [0.25, 0.5, 0.75, 1.0, cosine(0.0), cosine(0.25), cosine(0.5), cosine(0.75)],
        ),
        ("{kind=\"wsd\",warmup=2,decay=4}", [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]),
    ];
    for (schedule, expected) in cases {
        let run = train(&[&format!("train.schedule={schedule}"), "eval.every=0", "sample.every=0"]);
        for (step, (lr, share)) in run.train("lr").into_iter().zip(expected).enumerate() {
            close(lr, 1e-2 * share, 1e-12, &format!("{schedule}, step {}", step + 1));
        }
    }
}

/// Catches a length in epochs that is not that of the data, and activations that are computed again as other ones.
#[test]
fn epochs_and_recomputation_work_as_documented() {
    let lab = Lab::new();
    for (name, epochs) in [("one", "epochs = 1"), ("two", "epochs = 2")] {
        lab.write("tiny.toml", TINY.replace("steps = 8", epochs));
        lab.run(&[&format!("name={name}"), "data.rows=60", "eval.every=0", "sample.every=0"]).succeeds();
    }
    let [one, two] = ["one", "two"].map(|name| Run(lab.at(&format!("runs/{name}"))).train("loss").len());
    assert!(one > 1 && (2 * one).abs_diff(two) <= 1, "{one} and {two} steps");
    let (kept, again) = (train(&[]), train(&["train.recompute=all"]));
    assert_eq!(kept.train("loss"), again.train("loss"));
    assert!(kept.saved(8, "model.safetensors") == again.saved(8, "model.safetensors"));
}

/// Catches expectations of objectives that are never checked, that need an evaluation that never runs, that are reported
/// twice, or that fail for a model because it is trained.
#[test]
fn gotcha_10_a_first_loss_far_from_ln_v_is_reported_once_and_only_for_new_weights() {
    let lab = Lab::tiny();
    lab.write("some.txt", crate::support::lab::some_text(600));
    let nothing_held_out = ["data={source='text',path='some.txt',held_out=0}", "eval={}"];
    let notes = |sets: &[&str]| {
        let answer = lab.ask(&with_sets(&["run", "tiny.toml"], sets));
        answer.succeeds();
        answer.err.lines().filter(|line| line.contains("before training")).map(str::to_owned).collect::<Vec<_>>()
    };
    for (name, sets) in [("name=a", &[][..]), ("name=b", &nothing_held_out)] {
        assert_eq!(notes(&[&[name], sets].concat()), [""; 0]);
        let wild = notes(&[&[&format!("{name}2"), "model.init_std=1.0"], sets].concat());
        assert!(wild.len() == 1 && wild[0].contains("\"ce\" expects about 5.5491"), "{wild:?}");
    }
    let sets = [&["name=c", "model={from='runs/b'}"], &nothing_held_out[..]].concat();
    assert_eq!(notes(&sets), [""; 0], "a trained model is not near ln V");
}
