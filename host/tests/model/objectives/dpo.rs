//! Direct preference optimisation on real backends: ten steps compared with TRL's trainer, and the memory that a step may
//! allocate.

use std::collections::BTreeMap;

use objective_dpo::{
    Dpo,
    config::Config,
    loss::metric::{ACCURACY, CHOSEN, LOGPS_CHOSEN, LOGPS_REJECTED, MARGIN, REJECTED},
};
use plugin_api::{batch::names, objective::ObjectivePlugin, options::OptionSet};
use serde_json::{Map, Value};
use telos::{
    config::experiment::{Optimizer, OptimizerKind},
    data::{
        PackedBatch, Sequence,
        pack::{pack, together},
    },
    device::{Buffer, Device},
    model::{Model, ModelConfig, Recompute},
    objectives::{Objectives, active::Active},
    optimizer,
    runs::breadcrumb::CrashMarker,
    train::{
        roles::{Roles, reference::Reference},
        step::gradient::{TrainedModels, WindowLoss},
    },
};

use crate::{
    support::{backends, close, device, float, floats, ints, oracles, trajectories},
    trajectories::ends_at,
};

/// The plugin with these options.
fn dpo(options: &Map<String, Value>) -> Objectives {
    let instance = Dpo::create(Config::parse(options).unwrap()).unwrap();
    let active = Active::new("dpo", 1.0, String::new(), Dpo::manifest(), Box::new(instance), "preference").unwrap();
    Objectives::new(vec![active]).unwrap()
}

/// An answer to `prompt`; only the answer's tokens are supervised.
fn answer(group: usize, side: f64, prompt: &[i32], answer: &[i32]) -> Sequence {
    Sequence {
        ids: prompt.iter().chain(answer).map(|id| *id as u32).collect(),
        supervised: prompt.iter().map(|_| false).chain(answer.iter().map(|_| true)).collect(),
        per_sequence: BTreeMap::from([(names::GROUP.to_owned(), group as f64), (names::SIDE.to_owned(), side)]),
        row: group as u64,
        ..Default::default()
    }
}

fn pairs(data: &Value) -> Vec<Sequence> {
    let list = |key: &str| -> Vec<Vec<i32>> { data[key].as_array().unwrap().iter().map(ints).collect() };
    let (prompts, chosen, rejected) = (list("prompts"), list("chosen"), list("rejected"));
    let pair = |group: usize| {
        let prompt = &prompts[group];
        [answer(group, 1.0, prompt, &chosen[group]), answer(group, 0.0, prompt, &rejected[group])]
    };
    (0..prompts.len()).flat_map(pair).collect()
}

/// TRL's settings, by our names.
fn options(data: &Value) -> Map<String, Value> {
    let loss = data["loss_type"].as_str().unwrap().trim_end_matches("_pair").replace('_', "-");
    [("loss", loss.into()), ("beta", data["beta"].clone()), ("label_smoothing", data["label_smoothing"].clone())]
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// Loss, rewards and gradient of one window, the gradient in `grads`.
fn window(
    objectives: &mut Objectives,
    model: &Model,
    roles: &Roles,
    batches: &[PackedBatch],
    grads: &Buffer,
) -> WindowLoss {
    model.zero(grads).unwrap();
    let trained = TrainedModels { models: roles.models(model), recompute: Recompute::Auto, grads };
    trained.accumulate(objectives, batches, &CrashMarker::default()).unwrap()
}

fn frozen(model: Model) -> Roles {
    let reference = Some(Reference { model: Some(model), dropped_early: false, follow: None });
    Roles { reference, ..Roles::default() }
}

/// Catches a reference that is trained or reads other weights, exchanged sides, prompts that count, a mean over tokens, a loss
/// divided by the pairs of a micro-batch, and everything that the cross-entropy trajectory catches.
#[test]
fn runs_follow_every_trajectory_of_trl() {
    for (name, expected) in trajectories("dpo") {
        let sequences = pairs(&expected["data"]);
        let whole = vec![pack(&sequences).unwrap()];
        let cut: Vec<PackedBatch> = sequences.chunk_by(together).map(|pair| pack(pair).unwrap()).collect();
        assert_eq!(2 * cut.len(), sequences.len(), "a micro-batch a pair");
        for backend in backends() {
            follow(&device(backend), &expected, &whole, &format!("{name} on {backend}"));
        }
        follow(&device("reference"), &expected, &cut, &format!("{name} pair by pair"));
    }
}

fn follow(device: &Device, expected: &Value, batches: &[PackedBatch], what: &str) {
    let (hyper, betas) = (&expected["hyper"], floats(&expected["hyper"]["betas"]));
    let settings = Optimizer {
        kind: OptimizerKind::Adamw,
        lr: 1.0,
        betas: [betas[0], betas[1]],
        eps: float(&hyper["eps"]),
        weight_decay: float(&hyper["weight_decay"]),
        clip: float(&hyper["clip_norm"]),
        groups: Vec::new(),
    };
    let folder = oracles().join(expected["model"].as_str().unwrap());
    let model = Model::from_folder(device, &folder).unwrap();
    let roles = frozen(Model::from_folder(device, &folder).unwrap());
    let mut optimizer = optimizer::create(device, model.layout(), &settings).unwrap();
    let (grads, options) = (model.flat_buffer().unwrap(), options(&expected["data"]));
    for (step, line) in expected["log_f64"].as_array().unwrap().iter().enumerate() {
        let what = |name: &str| format!("{what}: {name} of step {step}");
        let out = window(&mut dpo(&options), &model, &roles, batches, &grads);
        close(&what("loss"), out.loss, float(&line["loss"]), 2e-5);
        close(&what("grad_norm"), optimizer.measure(&grads).unwrap().norm, float(&line["grad_norm"]), 2e-5);
        let metrics: BTreeMap<&str, f64> = out.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let pairs = [
            (CHOSEN, "reward_chosen"),
            (REJECTED, "reward_rejected"),
            (MARGIN, "margin"),
            (ACCURACY, "accuracy"),
            (LOGPS_CHOSEN, "logps_chosen"),
            (LOGPS_REJECTED, "logps_rejected"),
        ];
        for (ours, theirs) in pairs {
            let (got, expected) = (metrics[ours], float(&line[theirs]));
            // Rewards start at 0, so small ones are compared absolutely.
            let error = (got - expected).abs() / expected.abs().max(1.0);
            assert!(error < 2e-5, "{}: {got}, expected {expected}", what(theirs));
        }
        optimizer.update(model.params(), model.shadow(), &grads, float(&line["lr"])).unwrap();
    }
    ends_at(&model, expected, what, 2e-5);
}

/// A step with its reference needs logits in chunks, never a row of logits for each token. Catches a head, a reference pass or a
/// scatter that holds `[tokens, vocabulary]`.
#[test]
fn no_step_keeps_logits_of_all_its_tokens() {
    let text = r#"{"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
        "num_key_value_heads": 1, "intermediate_size": 8, "vocab_size": 32768, "max_position_embeddings": 64,
        "tie_word_embeddings": true}"#;
    let config = ModelConfig::parse(text, "wide").unwrap();
    let ids = |first: usize| -> Vec<i32> { (0..32).map(|n| ((first + n) % 32768) as i32).collect() };
    let pair = |group: usize| {
        let (prompt, chosen, rejected) = (ids(7 * group), ids(11 * group + 1), ids(13 * group + 2));
        [answer(group, 1.0, &prompt, &chosen), answer(group, 0.0, &prompt, &rejected)]
    };
    let sequences: Vec<Sequence> = (0..32).flat_map(pair).collect();
    let batch = pack(&sequences).unwrap();
    let logits = 4 * batch.supervised() as u64 * config.vocab;
    assert_eq!(batch.supervised(), 2048);
    for backend in backends().into_iter().filter(|backend| *backend != "reference") {
        let device = device(backend);
        let model = Model::init(&device, config.clone(), 1).unwrap();
        let roles = frozen(Model::init(&device, config.clone(), 1).unwrap());
        let grads = model.flat_buffer().unwrap();
        let before = device.memory().peak;
        assert!(before < logits / 8, "{backend}: {before} bytes before the step");
        window(&mut dpo(&Map::new()), &model, &roles, std::slice::from_ref(&batch), &grads);
        let peak = device.memory().peak;
        assert!(peak < logits / 2, "{backend}: {peak} bytes at most, all logits are {logits}");
    }
}
