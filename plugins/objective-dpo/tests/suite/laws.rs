//! The laws of every objective, under every named loss, and which losses may be split.

use super::{create, of, options, pairwise};
use objective_dpo::{
    Dpo,
    losses::{LOSSES, Shape},
};
use plugin_api::{options::OptionMap, prelude::*};
use plugin_api_laws::objective::{Generator, Values, verify};
use serde_json::json;

/// Every loss, and every option that changes what is computed.
fn cases() -> Vec<OptionMap> {
    let more = [
        json!({"label_smoothing": 0.2, "beta": 0.7}),
        json!({"reference_free": true}),
        json!({"ld_alpha": 0.3}),
        json!({"loss": "nca", "ld_alpha": 0.0}),
        json!({"sft_weight": 1.5}),
        json!({"loss": "robust", "label_smoothing": 0.3}),
        json!({"loss": "aot", "label_smoothing": 0.1, "ld_alpha": 0.5, "reference_free": true}),
        json!({"divergence": "forward-kl"}),
        json!({"divergence": "js", "loss": "hinge"}),
        json!({"divergence": "alpha", "divergence_alpha": 0.4}),
    ];
    LOSSES.iter().map(of).chain(more).map(options).collect()
}

#[test]
fn the_laws_hold_under_every_loss() {
    verify::<Dpo>(&cases(), &Generator::new(31)).assert_ok();
    verify::<Dpo>(&cases(), &Generator::new(32).with_sizes(9, 15)).assert_ok();
}

/// Catches a loss that sorts without declaring it (its gradient would depend on the micro-batch), and one that declares it without
/// need (the window would run twice). The pieces keep pairs together.
#[test]
fn gotcha_01_a_loss_is_coupled_only_if_cutting_between_pairs_changes_it() {
    let generator = Generator::new(33);
    for loss in pairwise() {
        let dpo = create(of(loss)).unwrap();
        let requirements = dpo.requirements().unwrap();
        let (manifest, mut apart) = (Dpo::manifest(), 0.0_f64);
        for draw in 0..3 {
            let window = generator.data(&manifest, draw);
            let window = generator.fill(&window, &requirements.statistics, Values::Random(draw)).unwrap();
            let whole = dpo.loss(&window).unwrap().terms[0].sum;
            let pieces = alone(&window).iter().map(|pair| dpo.loss(pair).unwrap().terms[0].sum).sum::<f64>();
            apart = apart.max((whole - pieces).abs());
        }
        assert_eq!(requirements.coupled, apart > 1e-9, "{}: whole and pieces are {apart} apart", loss.name);
        assert_eq!(requirements.coupled, matches!(loss.shape, Shape::Sorted(_)), "{}", loss.name);
    }
}

/// Each pair of a window as a batch; the generator puts a pair's answers side by side.
fn alone(window: &Batch<'_>) -> Vec<Batch<'static>> {
    let offsets = window.offsets().unwrap();
    let pair = |s: usize| {
        let (from, to) = (offsets[s], offsets[s + 2]);
        window.arrays().iter().fold(Batch::new(), |batch, array| {
            let data: Vec<f64> = match array.scope {
                Scope::TOKEN => array.data[from..to].to_vec(),
                Scope::SEQUENCE => array.data[s..s + 2].to_vec(),
                _ => offsets[s..=s + 2].iter().map(|o| (o - from) as f64).collect(),
            };
            match array.differentiable {
                true => batch.with_statistic(array.name.to_string(), array.scope, data),
                false => batch.with(array.name.to_string(), array.scope, data),
            }
        })
    };
    (0..offsets.len() - 1).step_by(2).map(pair).collect()
}
