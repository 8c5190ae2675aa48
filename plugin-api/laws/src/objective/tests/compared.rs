//! Losses of divergences and of candidates: right ones pass, and each mistake is found.

use super::{Sketch, broken, check};
use plugin_api::{
    Result,
    batch::Batch,
    manifest::{Candidates, Divergence, Expectation, Normaliser, ObjectiveManifest, Requirements, TermSpec},
    objective::Loss,
};

fn manifest() -> ObjectiveManifest {
    ObjectiveManifest {
        summary: "A divergence from a teacher".into(),
        formula: "KL(teacher || policy)".into(),
        terms: vec![TermSpec::new("kl", Normaliser::SUPERVISED_TOKENS, "In nats")],
        expectations: vec![Expectation {
            quantity: "loss".into(),
            value: "0".into(),
            tolerance: 0.0,
            when: "both models give every id the same probability".into(),
        }],
        ..Default::default()
    }
}

/// Checks a loss that reads `teacher.kl`.
fn of_divergence(loss: fn(&Batch<'_>) -> Result<Loss>) -> crate::Report {
    let sketch = Sketch::new(&["teacher.kl"], false, loss);
    let divergence = Some(Divergence { weight: 0.5, temperature: 2.0 });
    broken(manifest(), Sketch { requirements: Requirements { divergence, ..sketch.requirements }, ..sketch })
}

/// Checks a loss that reads four candidates of the teacher.
fn of_candidates(loss: fn(&Batch<'_>) -> Result<Loss>) -> crate::Report {
    let sketch = Sketch::new(&["candidates", "tail", "teacher.candidates", "teacher.tail"], false, loss);
    let candidates = Some(Candidates { from: "teacher".into(), count: 4 });
    broken(manifest(), Sketch { requirements: Requirements { candidates, ..sketch.requirements }, ..sketch })
}

fn divergence(batch: &Batch<'_>) -> Result<Loss> {
    let tape = batch.tape()?;
    Loss::new().term(&tape, "kl", 1.0, batch.var(&tape, "teacher.kl")?.masked_sum(batch.mask()?))
}

/// The divergence over the candidates and all other ids together.
fn over_candidates(batch: &Batch<'_>) -> Result<Loss> {
    let tape = batch.tape()?;
    let var = |name: &str| batch.var(&tape, name);
    let part = |policy: &str, teacher: &str| {
        let (policy, teacher) = (var(policy)?, var(teacher)?);
        Ok::<_, plugin_api::Error>(teacher.exp() * (teacher - policy))
    };
    let each = part("candidates", "teacher.candidates")?.sum_last() + part("tail", "teacher.tail")?;
    Loss::new().term(&tape, "kl", 1.0, each.masked_sum(batch.mask()?))
}

/// A loss whose cotangents of one statistic are changed.
fn changed(loss: Loss, statistic: &str, change: impl Fn(&mut Vec<f64>)) -> Loss {
    let mut loss = loss;
    for (name, values) in loss.terms.iter_mut().flat_map(|term| term.cotangents.iter_mut()) {
        if name == statistic {
            change(values);
        }
    }
    loss
}

/// Catches a policy that is moved away from its teacher, and a sign that no law of the sums can see.
#[test]
fn a_divergence_is_learned_in_its_direction() {
    check("none", of_divergence(divergence), &[]);
    let away = |batch: &Batch<'_>| {
        Ok(changed(divergence(batch)?, "teacher.kl", |values| values.iter_mut().for_each(|value| *value = -*value)))
    };
    check("the wrong sign", of_divergence(away), &["cotangents"]);
}

/// Catches ids that are learned while the probability of all others is not: the policy may then move it anywhere.
#[test]
fn candidates_are_learned_with_their_tail() {
    check("none", of_candidates(over_candidates), &[]);
    let untailed = |batch: &Batch<'_>| Ok(changed(over_candidates(batch)?, "tail", |values| values.fill(0.0)));
    check("no gradient of the tail", of_candidates(untailed), &["cotangents"]);
}

/// Catches cotangents of `[N, K]` that are laid out as `[K, N]`, and one number per token that counts for all its ids.
#[test]
fn cotangents_of_candidates_have_a_row_per_token() {
    let turned = |batch: &Batch<'_>| {
        let turn = |values: &mut Vec<f64>| {
            let (old, tokens) = (values.clone(), values.len() / 4);
            (0..old.len()).for_each(|i| values[i] = old[(i % tokens) * 4 + i / tokens]);
        };
        Ok(changed(over_candidates(batch)?, "candidates", turn))
    };
    let report = of_candidates(turned);
    assert!(report.failures().any(|line| line.group == "cotangents"), "{report}");
    let short = |batch: &Batch<'_>| {
        Ok(changed(over_candidates(batch)?, "candidates", |values| values.truncate(values.len() / 4)))
    };
    let report = of_candidates(short);
    let declared = report.failures().find(|line| line.group == "declared").expect("its cotangents are too short");
    assert!(declared.detail.contains("cotangents of `candidates`"), "{}", declared.detail);
}

/// Catches a cotangent of a frozen model's statistic: the teacher would be asked to move.
#[test]
fn a_teacher_has_no_gradient() {
    let both = |batch: &Batch<'_>| {
        let mut loss = over_candidates(batch)?;
        let count = batch.get("teacher.candidates")?.len();
        loss.terms[0].cotangents.push(("teacher.candidates".to_owned(), vec![0.0; count]));
        Ok(loss)
    };
    let report = of_candidates(both);
    let declared = report.failures().find(|line| line.group == "declared").expect("the teacher is frozen");
    assert!(declared.detail.contains("has no gradient"), "{}", declared.detail);
}
