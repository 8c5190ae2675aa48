//! The objectives that learn from pairs of answers, as the shipped libraries.

use crate::support::rig::{Answer, library, plugins, telos};
use plugin_api::{
    batch::{Batch, Scope},
    objective::Objective,
    options::OptionMap,
};
use plugin_api_load::{Library, LoadedObjective, scan};

fn load(id: &str, options: &[(&str, &str)]) -> LoadedObjective {
    let path = library(&plugins(), &format!("objective-{id}"));
    let found = scan(&path).unwrap_or_else(|e| panic!("{e}")).into_iter().find(|p| p.id == id);
    let library = Library::load(&found.expect("the library holds it")).unwrap_or_else(|e| panic!("{e}"));
    let options: OptionMap = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    library.objective(&options).unwrap_or_else(|e| panic!("{e}"))
}

/// Catches a wire that loses the flag: the host would then cut a window whose loss sorts over all of it.
#[test]
fn an_instance_reports_across_the_boundary_that_it_is_coupled() {
    for (loss, coupled) in [("sigmoid", false), ("aot", true), ("aot-unpaired", true), ("ipo", false)] {
        let requirements = load("dpo", &[("loss", loss)]).requirements().expect("requirements");
        assert_eq!(requirements.coupled, coupled, "{loss}");
        assert_eq!(requirements.statistics, ["logp", "reference.logp"]);
    }
}

/// Gotcha 21 through the real library: the option reaches the maths. At equal scores and models the numbers are known.
#[test]
fn the_named_loss_is_computed() {
    let batch = Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 1.0, 2.0])
        .with("mask", Scope::TOKEN, vec![1.0, 1.0])
        .with("group", Scope::SEQUENCE, vec![5.0, 5.0])
        .with("side", Scope::SEQUENCE, vec![0.0, 1.0])
        .with("reference.logp", Scope::TOKEN, vec![-1.0, -2.0])
        .with_statistic("logp", Scope::TOKEN, vec![-1.0, -2.0])
        .with_statistic("score", Scope::SEQUENCE, vec![0.0, 0.0]);
    for (loss, expected) in [("sigmoid", std::f64::consts::LN_2), ("hinge", 1.0), ("ipo", 25.0)] {
        let found = load("dpo", &[("loss", loss)]).loss(&batch).expect("a loss").terms[0].sum;
        assert!((found - expected).abs() < 1e-12, "{loss}: {found}");
    }
    let ranking = load("reward", &[]).loss(&batch).expect("a loss");
    assert!((ranking.terms[0].sum - std::f64::consts::LN_2).abs() < 1e-12, "{ranking:?}");
    assert_eq!(ranking.terms[0].cotangents, [("score".to_owned(), vec![0.5, -0.5])]);
}

/// `plugins show` prints every loss with its convention.
#[test]
fn gotcha_18_plugins_show_distinguishes_sum_and_mean() {
    let here = tempfile::tempdir().expect("a temporary folder");
    let show = Answer::of(telos(here.path()).args(["plugins", "show", "dpo"]));
    for line in ["sigmoid (sum): ", "ipo (mean): ", "aot-unpaired (sum): ", "sigmoid-norm (mean): "] {
        assert!(show.succeeds().contains(line), "{show:#?}");
    }
}
