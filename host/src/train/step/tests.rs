//! What terms are divided by, and which sequences count.

use plugin_api::{
    batch::{Batch, Scope, names},
    manifest::{MetricSpec, Normaliser, ObjectiveManifest, Reduction, Requirements, TermNormaliser, TermSpec},
    objective::{Loss, MetricPart, Objective, Term},
};

use super::metrics::MetricAccumulator;
use crate::{
    data::{PackedBatch, Sequence, pack::pack},
    objectives::{Objectives, active::Active, clock::Clock, prepared_arrays::PreparedArrays},
};

/// Divides its terms as it was created to; `weigh` answers the step.
struct Divided(Vec<TermNormaliser>);

impl Objective for Divided {
    fn requirements(&self) -> plugin_api::Result<Requirements> {
        Ok(Requirements { normalisers: self.0.clone(), ..Default::default() })
    }

    fn weigh(&self, batch: &Batch<'_>) -> plugin_api::Result<Vec<(String, f64)>> {
        Ok(vec![("custom".to_owned(), batch.get(names::STEP)?[0])])
    }

    fn loss(&self, _: &Batch<'_>) -> plugin_api::Result<Loss> {
        Ok(Loss::new())
    }
}

const TERMS: [(&str, Normaliser); 4] = [
    ("tokens", Normaliser::SUPERVISED_TOKENS),
    ("sequences", Normaliser::SEQUENCES),
    ("groups", Normaliser::GROUPS),
    ("custom", Normaliser::CUSTOM),
];

fn objectives(own: &[(&str, Normaliser, f64)]) -> Objectives {
    let terms = TERMS.iter().map(|(name, normaliser)| TermSpec::new(name, normaliser.clone(), "")).collect();
    let metrics = vec![MetricSpec::new("hits", Reduction::SUM, "")];
    let manifest = ObjectiveManifest { terms, metrics, ..Default::default() };
    let entry = |(term, normaliser, times): &(&str, Normaliser, f64)| TermNormaliser {
        term: (*term).to_owned(),
        normaliser: normaliser.clone(),
        times: *times,
    };
    let divided = Divided(own.iter().map(entry).collect());
    let active = Active::new("divided", 1.0, String::new(), manifest, Box::new(divided), "text").unwrap();
    Objectives::new(vec![active]).unwrap()
}

/// Two micro-batches: a pair of 1 and 2 targets that counts if `counted`, and one sequence of 4 targets in a group of its own.
fn window(counted: [f64; 2]) -> Vec<PackedBatch> {
    let sequence = |targets: usize, group: f64, counted: f64| Sequence {
        ids: vec![1; targets + 1],
        supervised: vec![true; targets + 1],
        per_sequence: [(names::GROUP.to_owned(), group), (names::COUNTED.to_owned(), counted)].into(),
        ..Default::default()
    };
    let pair = [sequence(1, 3.0, counted[0]), sequence(2, 3.0, counted[1])];
    vec![pack(&pair).unwrap(), pack(&[sequence(4, 9.0, 1.0)]).unwrap()]
}

/// The numbers that the four terms are divided by.
fn denominators(own: &[(&str, Normaliser, f64)], window: &[PackedBatch]) -> [f64; 4] {
    let mut objectives = objectives(own);
    objectives.set_clock(Clock::at(5, 8));
    let found = objectives.denominators(window, &PreparedArrays::default()).unwrap();
    TERMS.map(|(name, _)| 1.0 / found.share(0, name, 1.0))
}

/// Catches a term that is divided by the manifest's normaliser although the options choose another, a constant that is ignored,
/// and `weigh` that is asked for the wrong term. The step is 5, and there are two micro-batches.
#[test]
fn gotcha_01_terms_are_divided_by_what_the_options_choose() {
    let all = window([1.0; 2]);
    assert_eq!(denominators(&[], &all), [7.0, 3.0, 2.0, 10.0]);
    let own = [
        ("tokens", Normaliser::SEQUENCES, 64.0),
        ("sequences", Normaliser::GROUPS, 1.0),
        ("groups", Normaliser::SUPERVISED_TOKENS, 0.5),
    ];
    assert_eq!(denominators(&own, &all), [192.0, 2.0, 3.5, 10.0]);
    assert_eq!(denominators(&[("custom", Normaliser::CUSTOM, 2.0)], &all)[3], 20.0);
}

/// Catches `counted` that is ignored for a normaliser, or for token accuracy. A group counts if one of its sequences does.
#[test]
fn sequences_that_do_not_count_are_in_no_normaliser_and_no_statistic() {
    assert_eq!(denominators(&[], &window([1.0, 0.0])), [5.0, 2.0, 2.0, 10.0]);
    let window = window([0.0, 0.0]);
    assert_eq!(denominators(&[], &window), [4.0, 1.0, 1.0, 10.0]);
    let objectives = objectives(&[]);
    let mut sums = MetricAccumulator::default();
    for (packed, hits) in window.iter().zip([vec![1.0; 3], vec![1.0, 0.0, 0.0, 1.0]]) {
        let metrics = vec![MetricPart { name: "hits".to_owned(), value: 1.0, weight: 1.0 }];
        let batch = Batch::new().with("top1", Scope::TOKEN, hits);
        sums.add(packed, &batch, &objectives, &[Loss { terms: Vec::new(), metrics }]);
    }
    let denominators = objectives.denominators(&window, &PreparedArrays::default()).unwrap();
    let metrics = sums.metrics(&sums.of_objectives(&objectives, &denominators));
    assert!(metrics.contains(&("token_accuracy".to_owned(), 0.5)), "{metrics:?}");
    assert_eq!((sums.supervised(), sums.tokens()), (4.0, 7));
}

/// Catches an objective that does not get the only term's value in `after_step`, because the records call it the loss, and one that
/// gets numbers of the host as if they were its own.
#[test]
fn an_objective_gets_every_number_of_its_own_and_no_other() {
    let (window, objectives) = (window([1.0; 2]), objectives(&[]));
    let mut sums = MetricAccumulator::default();
    let batch = Batch::new().with("top1", Scope::TOKEN, vec![1.0; 3]);
    let terms = vec![Term { name: "tokens".to_owned(), coefficient: 2.0, sum: 14.0, cotangents: Vec::new() }];
    let metrics = vec![MetricPart { name: "hits".to_owned(), value: 3.0, weight: 1.0 }];
    sums.add(&window[0], &batch, &objectives, &[Loss { terms, metrics }]);
    let denominators = objectives.denominators(&window, &PreparedArrays::default()).unwrap();
    let own = sums.of_objectives(&objectives, &denominators);
    let numbers =
        |own: &[(&str, f64)]| own.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<Vec<_>>();
    assert_eq!(own[0].all(), numbers(&[("tokens", 2.0), ("hits", 3.0)]));
    assert_eq!(sums.metrics(&own), numbers(&[("hits", 3.0), ("token_accuracy", 1.0)]));
}
