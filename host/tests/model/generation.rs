//! Decoding over cached keys and values compared with the full forward pass, and the rules of stopping.

use std::ops::ControlFlow;

use telos::families::NAMES;
use telos::generate::session::Session;
use telos::generate::{Drawn, Finish, GenerateOptions, generate};
use telos::model::compute::cache::KvCache;
use telos::model::{Keep, Model};

use crate::support::{Packed, backends, device, perturb, tiny};

fn model(backend: &str, family: &str) -> Model {
    let model = Model::init(&device(backend), tiny(family, false), 3).unwrap();
    perturb(&model);
    model
}

/// Catches a cache row off by one, a position off by one, keys cached before their rotation, slots mixed up.
#[test]
fn gotcha_34_decoded_logits_equal_a_full_forward() {
    let sequences = [vec![3, 1, 4, 1, 5, 9], vec![9, 2, 6, 5, 3, 5], vec![6, 5, 10, 0, 8, 7]];
    let prompts = [1, 3, 2];
    for (family, backend) in NAMES.into_iter().flat_map(|f| backends().into_iter().map(move |b| (f, b))) {
        let model = model(backend, family);
        let vocab = model.config().vocab as usize;
        let tolerance = if backend == "reference" { 1e-12 } else { 1e-5 };
        let full = |sequence: &[i32]| {
            let packed = Packed::new(&[sequence.to_vec()]);
            let forward = model.forward(packed.view(), Keep::Nothing).unwrap();
            model.logits(forward.hidden()).unwrap().to_vec().unwrap()
        };
        let cache = KvCache::new(&model, 4, 8).unwrap();
        let starts: Vec<Vec<i32>> = sequences.iter().zip(prompts).map(|(s, n)| s[..n].to_vec()).collect();
        let slots = [2, 0, 3];
        model.prefill(Packed::new(&starts).view(), &cache, &slots.map(|s| s as u64)).unwrap();
        for step in 0..3 {
            let lengths = prompts.map(|n| (n + step) as i32);
            let tokens: Vec<i32> = sequences.iter().zip(lengths).map(|(s, n)| s[n as usize]).collect();
            let hidden = model.decode(&tokens, &slots, &lengths, &cache).unwrap();
            let logits = model.logits(&hidden).unwrap().to_vec().unwrap();
            for ((sequence, length), row) in sequences.iter().zip(lengths).zip(logits.chunks(vocab)) {
                let expected = full(&sequence[..=length as usize]);
                for (got, wanted) in row.iter().zip(&expected[expected.len() - vocab..]) {
                    assert!((got - wanted).abs() < tolerance, "{family} on {backend}: {got}, expected {wanted}");
                }
            }
        }
    }
}

/// Catches noise that depends on the batch, and samples that read each other's slots, with more prompts than slots.
#[test]
fn a_sample_does_not_depend_on_its_neighbours() {
    let prompts: Vec<Vec<i32>> = (0..70).map(|i| (0..1 + i % 4).map(|j| (i * 3 + j * 5) % 11).collect()).collect();
    let options = GenerateOptions { max_tokens: 4, temperature: 1.5, seed: 7, ..GenerateOptions::default() };
    let model = model("reference", "llama");
    let together = generate(&model, &prompts, &options, &mut |_| {}).unwrap();
    let reordered = generate(&model, &prompts[..1], &options, &mut |_| {}).unwrap();
    assert_eq!(together[0], reordered[0]);
    // Sample 69 keeps its number only as the last of 70: the prompts before it change, its draws do not.
    let mut others = prompts.clone();
    others[..69].iter_mut().for_each(|prompt| *prompt = vec![1, 2]);
    let among_others = generate(&model, &others, &options, &mut |_| {}).unwrap();
    assert_eq!(together[69].tokens, among_others[69].tokens);
    let same = generate(&model, &vec![vec![1, 2]; 20], &options, &mut |_| {}).unwrap();
    let distinct: std::collections::BTreeSet<_> = same.iter().map(|completion| &completion.tokens).collect();
    assert!(distinct.len() > 5, "samples share their noise");
    let other = GenerateOptions { seed: 8, ..options };
    assert_ne!(together, generate(&model, &prompts, &other, &mut |_| {}).unwrap(), "the seed has no effect");
}

/// Catches copies that omit a layer or the values, take another slot or too few rows, and samples that use the hidden state of
/// another prompt: if the prompts run separately, nothing is copied.
#[test]
fn samples_that_share_a_prompt_equal_those_of_separate_prompts() {
    let (shared, other) = (vec![3, 1, 4], vec![9, 2]);
    let prompts = [shared.clone(), other.clone(), shared.clone(), shared, other];
    for backend in backends() {
        let model = model(backend, "llama");
        let options = GenerateOptions { max_tokens: 4, temperature: 1.5, seed: 7, ..GenerateOptions::default() };
        let together = generate(&model, &prompts, &options, &mut |_| {}).unwrap();
        for (sample, found) in together.iter().enumerate() {
            // The same sample among prompts that differ from its own and from each other.
            let apart: Vec<Vec<i32>> = (0..prompts.len())
                .map(|i| if i == sample { prompts[i].clone() } else { vec![10, i as i32, 5] })
                .collect();
            let expected = &generate(&model, &apart, &options, &mut |_| {}).unwrap()[sample];
            assert_eq!(found.tokens, expected.tokens, "{backend}: sample {sample}");
            for (a, b) in found.logps.iter().zip(&expected.logps) {
                assert!((a - b).abs() < 1e-5, "{backend}: sample {sample}: {a}, expected {b}");
            }
        }
    }
}

/// Catches log-probabilities of another temperature or renormalised by top-k.
#[test]
fn log_probabilities_are_those_of_the_whole_softmax_at_the_temperature() {
    let model = model("reference", "gpt2");
    let options = GenerateOptions { max_tokens: 3, temperature: 0.7, top_k: 2, seed: 1, ..GenerateOptions::default() };
    let prompt = vec![4, 2];
    let done = generate(&model, std::slice::from_ref(&prompt), &options, &mut |_| {}).unwrap().remove(0);
    let mut sequence = prompt;
    sequence.extend(&done.tokens);
    let packed = Packed::new(&[sequence]);
    let forward = model.forward(packed.view(), Keep::Nothing).unwrap();
    let request = telos::model::HeadRequest { temperature: 0.7, ..packed.request() };
    let logp = model.head_stats(&forward, &request).unwrap().stats.logp;
    for (got, wanted) in done.logps.iter().zip(&logp[1..]) {
        assert!((got - wanted).abs() < 1e-12, "{got}, expected {wanted}");
    }
}

/// Catches a continuation that runs past its end token, its limit or the model's context, or does not say why it ended.
#[test]
fn generation_stops_at_the_end_token_the_limit_and_the_context_and_gives_the_reason() {
    let mut model = model("reference", "llama");
    let greedy = |max_tokens| GenerateOptions { max_tokens, temperature: 0.0, ..GenerateOptions::default() };
    let prompt = vec![1, 2, 3];
    let mut heard = Vec::new();
    let long =
        generate(&model, std::slice::from_ref(&prompt), &greedy(100), &mut |drawn: Drawn| heard.push(drawn.token))
            .unwrap();
    assert_eq!(long[0].finish, Finish::Context);
    // Eight positions, three of them the prompt's; the last drawn token needs none.
    assert_eq!(long[0].tokens.len(), 6);
    assert_eq!(heard, long[0].tokens);
    let short = generate(&model, std::slice::from_ref(&prompt), &greedy(2), &mut |_| {}).unwrap();
    assert_eq!((short[0].finish, short[0].tokens.as_slice()), (Finish::MaxTokens, &long[0].tokens[..2]));
    let full: Vec<i32> = (0..8).collect();
    assert_eq!(generate(&model, &[full], &greedy(5), &mut |_| {}).unwrap()[0].tokens.len(), 1);
    let end = long[0].tokens[2];
    let first = long[0].tokens.iter().position(|token| *token == end).unwrap();
    model.config_mut().eos = vec![10_000, end as u32];
    let ended = generate(&model, &[prompt], &greedy(100), &mut |_| {}).unwrap();
    assert_eq!((ended[0].finish, ended[0].tokens.as_slice()), (Finish::EndOfSequence, &long[0].tokens[..=first]));
}

/// Catches a request that would loop, read outside a table or divide by zero; each must be refused as a user error.
#[test]
fn impossible_requests_are_request_errors() {
    let model = model("reference", "llama");
    let base = GenerateOptions::default();
    let cases = [
        (vec![], base.clone(), "no tokens"),
        (vec![0; 9], base.clone(), "9 tokens"),
        (vec![1, 11], base.clone(), "token id 11"),
        (vec![-1], base.clone(), "token id -1"),
        (vec![1], GenerateOptions { max_tokens: 0, ..base.clone() }, "max_tokens"),
        (vec![1], GenerateOptions { temperature: f64::NAN, ..base.clone() }, "temperature"),
        (vec![1], GenerateOptions { top_p: 0.0, ..base }, "top_p"),
    ];
    for (prompt, options, named) in cases {
        let error = generate(&model, &[prompt], &options, &mut |_| {}).unwrap_err();
        assert!(error.message().contains(named) && error.exit_code() == 2, "{error:?}");
    }
    assert_eq!(generate(&model, &[], &GenerateOptions::default(), &mut |_| {}).unwrap(), []);
}

/// Catches a cache that keeps tokens of an earlier text, a token that is read twice or not at all, keys and values that are lost
/// when the cache grows, and noise of another position.
#[test]
fn a_session_answers_as_if_each_text_were_new() {
    let mut config = tiny("llama", false);
    config.context = 64;
    let model = Model::init(&device("reference"), config, 3).unwrap();
    perturb(&model);
    let options = GenerateOptions { max_tokens: 5, temperature: 1.5, seed: 7, ..GenerateOptions::default() };
    let mut session = Session::new(&model);
    let mut prompt: Vec<i32> = (0..12).map(|i| (i * 7 + 2) % 11).collect();
    for turn in 0..6 {
        let expected = generate(&model, std::slice::from_ref(&prompt), &options, &mut |_| {}).unwrap().remove(0);
        let mut logps = Vec::new();
        let said = session.answer(&prompt, &options, &mut |drawn| {
            logps.push(drawn.logp);
            ControlFlow::Continue(())
        });
        let (tokens, finish) = said.unwrap();
        assert_eq!((&tokens, finish), (&expected.tokens, Some(expected.finish)), "turn {turn}");
        for (got, wanted) in logps.iter().zip(&expected.logps) {
            assert!((got - wanted).abs() < 1e-12, "turn {turn}: {got}, expected {wanted}");
        }
        // The conversation goes on; once it is another one, which begins as this one did.
        prompt.extend(tokens);
        if turn == 3 {
            prompt.truncate(20);
        }
        prompt.push(turn);
    }
    let stopped = session.answer(&prompt, &options, &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((stopped.0.len(), stopped.1), (1, None));
}
