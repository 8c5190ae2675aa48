//! Attention masks of whole models: what a token depends on, gradients, and generation with a prefix.

use plugin_api::manifest::AttentionMask;
use telos::generate::{GenerateOptions, generate};
use telos::model::compute::cache::KvCache;
use telos::model::{Keep, Model, ModelConfig, Recompute};

use crate::support::{Packed, RECOMPUTES, backends, close, cross_entropy, device, gradient, perturb, tiny};

fn model(backend: &str, family: &str, attention: AttentionMask) -> Model {
    let config = ModelConfig { attention, windows: Vec::new(), ..tiny(family, false) };
    let model = Model::init(&device(backend), config, 5).unwrap();
    perturb(&model);
    model
}

const MASKS: [AttentionMask; 2] = [AttentionMask::PREFIX, AttentionMask::BIDIRECTIONAL];

fn sequences() -> Vec<Vec<i32>> {
    vec![vec![3, 1, 4, 1, 5], vec![9, 2], vec![6, 5, 10, 0, 8, 7, 3]]
}

fn hidden(model: &Model, packed: &Packed) -> Vec<Vec<f64>> {
    let forward = model.forward(packed.view(), Keep::Nothing).unwrap();
    let width = model.config().dim as usize;
    forward.hidden().to_vec().unwrap().chunks(width).map(<[f64]>::to_vec).collect()
}

/// Catches a mask that is not passed on, a prefix one token too short or too long, and one of another sequence: of seven tokens
/// with a prompt of four, the first changes with any of the prompt, and no token of the prompt with a later one.
#[test]
fn a_token_depends_on_what_its_mask_shows() {
    for (attention, backend) in [AttentionMask::CAUSAL]
        .into_iter()
        .chain(MASKS)
        .flat_map(|m| backends().into_iter().map(move |b| (m.clone(), b)))
    {
        let model = model(backend, "llama", attention.clone());
        let before = hidden(&model, &Packed::new(&sequences()));
        for changed in 0..7 {
            let mut others = sequences();
            others[2][changed] = 1;
            let after = hidden(&model, &Packed::new(&others));
            let moved: Vec<bool> = before.iter().zip(&after).map(|(a, b)| a != b).collect();
            let expected = (0..14).map(|n| {
                let seen = |query: usize| match attention.as_str() {
                    "causal" => changed <= query,
                    "prefix" => changed <= query || changed < 4,
                    _ => true,
                };
                n >= 7 && seen(n - 7)
            });
            assert_eq!(moved, expected.collect::<Vec<_>>(), "{attention} on {backend}, token {changed}");
        }
    }
}

/// Catches a backward pass with another mask or prefix than the forward pass, also where attention is recomputed.
#[test]
fn gotcha_38_gradients_under_every_mask_agree_with_finite_differences() {
    let (batch, h) = (Packed::new(&sequences()), 1e-5);
    for (family, attention) in ["llama", "gpt2"].into_iter().flat_map(|f| MASKS.map(|m| (f, m))) {
        let model = model("reference", family, attention.clone());
        let (_, grads) = gradient(&model, &batch, Recompute::Auto, false);
        for parameter in model.layout().parameters() {
            let values = model.values(model.params(), parameter).unwrap();
            let found = model.values(&grads, parameter).unwrap();
            // Every third element: attention mixes all of them.
            for (i, value) in values.iter().enumerate().step_by(3) {
                let at = |x: f64| {
                    model.params().upload(parameter.offset + i as u64, &[x]).unwrap();
                    cross_entropy(&model, &batch, Recompute::Auto, false, &model.flat_buffer().unwrap())
                };
                let expected = (at(value + h) - at(value - h)) / (2.0 * h);
                model.params().upload(parameter.offset + i as u64, &[*value]).unwrap();
                let (error, name) = ((found[i] - expected).abs() / expected.abs().max(1.0), &parameter.name);
                assert!(error < 1e-6, "{family} {attention} {name}[{i}]: {}, expected {expected}", found[i]);
            }
        }
        let exact = grads.download(0, grads.len()).unwrap();
        for (backend, recompute) in backends().into_iter().flat_map(|b| RECOMPUTES.map(|r| (b, r))) {
            let other = self::model(backend, family, attention.clone());
            let (_, grads) = gradient(&other, &batch, recompute, true);
            for (a, b) in grads.download(0, grads.len()).unwrap().iter().zip(&exact) {
                assert!((a - b).abs() <= 2e-5 * b.abs().max(1.0), "{family} {attention} on {backend}: {a} and {b}");
            }
        }
    }
}

/// Catches a prompt that is prefilled causally, so that its cached keys are not those of training, and a decoded token that changes
/// them.
#[test]
fn gotcha_34_a_prefix_is_read_at_once_and_continued_causally() {
    let (prompt, answer) = (vec![6, 5, 10, 0], [8, 7, 3]);
    for backend in backends() {
        let model = model(backend, "llama", AttentionMask::PREFIX);
        let cache = KvCache::new(&model, 1, 8).unwrap();
        let whole = Packed { prompts: vec![4], ..Packed::new(std::slice::from_ref(&prompt)) };
        model.prefill(whole.view(), &cache, &[0]).unwrap();
        for (step, token) in answer.into_iter().enumerate() {
            let decoded = model.decode(&[token], &[0], &[4 + step as i32], &cache).unwrap().to_vec().unwrap();
            let read = prompt.iter().chain(&answer[..=step]).copied().collect::<Vec<_>>();
            let packed = Packed { prompts: vec![4], ..Packed::new(&[read]) };
            let expected = hidden(&model, &packed).pop().unwrap();
            for (got, wanted) in decoded.iter().zip(&expected) {
                close(backend, *got, *wanted, if backend == "reference" { 1e-10 } else { 1e-3 });
            }
        }
        let bidirectional = self::model(backend, "llama", AttentionMask::BIDIRECTIONAL);
        let error = generate(&bidirectional, std::slice::from_ref(&prompt), &GenerateOptions::default(), &mut |_| {})
            .unwrap_err();
        assert!(error.message().contains("bidirectional"), "{}", error.report());
    }
}

/// Catches a batch without prompts that a prefix model reads as something else.
#[test]
fn a_prefix_model_needs_the_lengths_of_prompts() {
    let model = model("reference", "llama", AttentionMask::PREFIX);
    let packed = Packed { prompts: vec![1], ..Packed::new(&sequences()) };
    let error = model.forward(packed.view(), Keep::Nothing).err().unwrap();
    assert!(error.message().contains("1 lengths of prompts for 3 sequences"), "{}", error.report());
}
