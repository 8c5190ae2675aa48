//! The formula by hand, and known mistakes by their numbers in the project's list.

use super::{
    batch, create,
    support::{metric, near},
};
use plugin_api::{objective::Term, prelude::*};
use serde_json::json;

fn loss(batch: &Batch<'_>) -> Loss {
    create(json!({"candidates": 2, "alpha": 0.5})).unwrap().loss(batch).unwrap()
}

fn cotangents<'a>(term: &'a Term, statistic: &str) -> &'a [f64] {
    &term.cotangents.iter().find(|(name, _)| name == statistic).unwrap().1
}

/// Catches a sign, alpha that is ignored or applied twice, and a gradient of the wrong candidate: d/dx of -log(1 - exp
/// x) is exp x / (1 - exp x).
#[test]
fn terms_and_derivatives_match_the_formula() {
    let (p, q): (f64, f64) = (0.3, 0.6);
    let loss = loss(&batch(&[(-1.0, [p.ln(), q.ln()], [1.0, 1.0]), (-2.0, [-9.0, q.ln()], [0.0, 1.0])]));
    let [nll, unlikelihood] = &loss.terms[..] else { panic!("{loss:?}") };
    assert_eq!((nll.sum, nll.coefficient, unlikelihood.coefficient), (3.0, 1.0, 0.5));
    assert_eq!(cotangents(nll, "logp"), [-1.0, -1.0]);
    assert_eq!((cotangents(nll, "candidates"), cotangents(unlikelihood, "logp")), (&[0.0; 4][..], &[0.0; 2][..]));
    near("sum", unlikelihood.sum, -(1.0 - p).ln() - 2.0 * (1.0 - q).ln(), 1e-14);
    for (found, expected) in
        cotangents(unlikelihood, "candidates").iter().zip([p / (1.0 - p), q / (1.0 - q), 0.0, q / (1.0 - q)])
    {
        near("gradient", *found, expected, 1e-14);
    }
    near("repeated", metric(&loss, "repeated"), (p + 2.0 * q) / 2.0, 1e-14);
    assert_eq!(metric(&loss, "candidates_per_token"), 1.5);
}

/// Catches `log(1 - exp(x))`, which is minus infinity for a certain candidate and 0 for one of -1e-17.
#[test]
fn gotcha_25_certain_candidates_have_a_finite_loss() {
    let certain = loss(&batch(&[(-1.0, [0.0, -1e-9], [1.0, 1.0])]));
    near("certain", certain.terms[1].sum, -2.0 * 1e-5_f64.ln(), 1e-9);
    assert!(certain.terms[1].cotangents.iter().flat_map(|(_, values)| values).all(|v| *v == 0.0), "{certain:?}");
    let small = loss(&batch(&[(-1.0, [-40.0, -800.0], [1.0, 1.0])]));
    near("small", small.terms[1].sum, (-40.0_f64).exp(), 1e-12);
    assert!(small.terms[1].sum > 0.0);
}

/// Catches a filled column, or a candidate of a token that is not supervised, that is learned: whatever their values
/// are.
#[test]
fn gotcha_08_what_does_not_count_has_no_loss_and_no_gradient() {
    let hidden = batch(&[(-1.0, [-0.5, f64::NAN], [1.0, 0.0]), (f64::NAN, [f64::NAN, 0.0], [1.0, 1.0])]).with(
        "mask",
        Scope::TOKEN,
        vec![1.0, 0.0],
    );
    let loss = loss(&hidden);
    assert_eq!(loss.terms[0].sum, 1.0);
    near("sum", loss.terms[1].sum, -(1.0 - (-0.5_f64).exp()).ln(), 1e-14);
    let gradient = cotangents(&loss.terms[1], "candidates");
    assert!(gradient[0] > 0.0 && gradient[1..] == [0.0; 3], "{gradient:?}");
}
