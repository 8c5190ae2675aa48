//! Losses that compare the policy with frozen models, on whole models: gradients by finite differences, cuts of a window, backends,
//! and the same answers behind other prompts.

use plugin_api::{
    batch::names,
    objective::ObjectivePlugin,
    options::{OptionMap, OptionSet},
};
use telos::{
    data::{PackedBatch, Sequence, pack::pack},
    device::{Buffer, Device},
    model::{Keep, Model, ModelConfig, Recompute},
    objectives::{Objectives, active::Active, micro_batch::behind_other_prompts},
    runs::breadcrumb::CrashMarker,
    train::{
        roles::{ContextModel, Roles, reference::Reference},
        step::{
            forward::ForwardPass,
            gradient::{Route, TrainedModels, WindowPass},
        },
    },
};
use test_plugin_distilling::{ContextKl, Distilling, TopDistilling};

use crate::support::{device, l2, perturb, tiny};

fn objectives<T: ObjectivePlugin + 'static>(id: &str, options: &str) -> Objectives {
    let options: OptionMap = serde_json::from_str(options).unwrap();
    let instance = T::create(T::Options::parse(&options).unwrap()).unwrap();
    let active =
        Active::new(id, 1.0, String::new(), T::manifest(), Box::new(instance), T::manifest().data.as_str()).unwrap();
    Objectives::new(vec![active]).unwrap()
}

fn distilling(options: &str) -> Objectives {
    objectives::<Distilling>("distilling", options)
}

fn top(options: &str) -> Objectives {
    objectives::<TopDistilling>("top-distilling", options)
}

fn context(options: &str) -> Objectives {
    objectives::<ContextKl>("context-kl", options)
}

/// An answer to `prompt`, and the prompt behind which the role `context` reads it.
fn answer(row: u64, prompt: &[u32], answer: &[u32], other: &[u32]) -> Sequence {
    Sequence {
        ids: [prompt, answer].concat(),
        supervised: prompt.iter().map(|_| false).chain(answer.iter().map(|_| true)).collect(),
        row,
        context_prompt: Some(other.to_vec()),
        ..Default::default()
    }
}

/// Four answers of different lengths; the third has a hole in its mask.
fn sequences() -> Vec<Sequence> {
    let mut all = vec![
        answer(0, &[3, 1], &[4, 1, 5], &[2, 7, 1]),
        answer(1, &[9], &[2, 6], &[8]),
        answer(2, &[5, 3], &[5, 8, 9, 7], &[6, 0, 4]),
        answer(3, &[10, 0, 2], &[3, 8], &[1]),
    ];
    all[2].supervised[4] = false;
    all
}

/// The window in micro-batches of this many sequences.
fn cut(each: usize) -> Vec<PackedBatch> {
    sequences().chunks(each).map(|part| pack(part).unwrap()).collect()
}

/// The policy, and a teacher of another width and depth.
fn policy(device: &Device) -> Model {
    let model = Model::init(device, tiny("llama", false), 5).unwrap();
    perturb(&model);
    model
}

fn teacher(device: &Device) -> Model {
    let text = r#"{"model_type": "llama", "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3,
        "num_key_value_heads": 3, "intermediate_size": 10, "vocab_size": 11, "max_position_embeddings": 16,
        "initializer_range": 0.4, "tie_word_embeddings": true}"#;
    let model = Model::init(device, ModelConfig::parse(text, "teacher").unwrap(), 9).unwrap();
    perturb(&model);
    model
}

/// The same other model in every role.
fn roles(device: &Device) -> Roles {
    Roles {
        reference: Some(Reference { model: Some(teacher(device)), dropped_early: false, follow: None }),
        teacher: Some(teacher(device)),
        context: Some(ContextModel::Frozen(Box::new(teacher(device)))),
        critic: None,
    }
}

/// The loss and the gradient of a window.
fn step(objectives: &mut Objectives, model: &Model, roles: &Roles, window: &[PackedBatch]) -> (f64, Buffer) {
    let grads = model.flat_buffer().unwrap();
    let trained = TrainedModels { models: roles.models(model), recompute: Recompute::Auto, grads: &grads };
    let loss = trained.accumulate(objectives, window, &CrashMarker::default()).unwrap().loss;
    (loss, grads)
}

fn values(model: &Model, grads: &Buffer) -> Vec<f64> {
    model.layout().parameters().iter().flat_map(|parameter| model.values(grads, parameter).unwrap()).collect()
}

/// Catches a wrong term of any backward of a comparison: the head's part that replaces another's, a divergence of the wrong
/// direction, rows that are paired with those of another target, a tail without a gradient, a gradient that flows into the other
/// model through a shared buffer. The teacher has another width and depth.
#[test]
fn gotcha_38_comparisons_agree_with_finite_differences() {
    let device = device("reference");
    let (model, roles, window, h) = (policy(&device), roles(&device), cut(2), 1e-5);
    for mut objectives in [
        distilling("{}"),
        distilling(r#"{"mix": 1.0, "temperature": 2.0}"#),
        distilling(r#"{"mix": 0.3, "coupled": true}"#),
        top(r#"{"count": 4}"#),
        top(r#"{"count": 2, "coupled": true}"#),
        context(r#"{"mix": 0.5}"#),
    ] {
        let (_, grads) = step(&mut objectives, &model, &roles, &window);
        for parameter in model.layout().parameters() {
            let (own, found) = (model.values(model.params(), parameter), model.values(&grads, parameter).unwrap());
            for (i, value) in own.unwrap().iter().enumerate().step_by(3) {
                let mut at = |x: f64| {
                    model.params().upload(parameter.offset + i as u64, &[x]).unwrap();
                    step(&mut objectives, &model, &roles, &window).0
                };
                let expected = (at(value + h) - at(value - h)) / (2.0 * h);
                at(*value);
                let error = (found[i] - expected).abs() / expected.abs().max(1.0);
                let (name, id) = (&parameter.name, &objectives.iter().next().unwrap().id);
                assert!(error < 1e-6, "{id} {name}[{i}]: {}, expected {expected}", found[i]);
            }
        }
    }
}

/// Catches a mean that is taken per micro-batch, statistics of several columns that are cut or joined in the wrong places, and a
/// coupled loss with another gradient.
#[test]
fn gotcha_01_comparisons_do_not_depend_on_the_cut() {
    let device = device("reference");
    let (model, roles) = (policy(&device), roles(&device));
    let plain = [distilling("{}"), top(r#"{"count": 3}"#), context("{}")];
    let coupled =
        [distilling(r#"{"coupled": true}"#), top(r#"{"count": 3, "coupled": true}"#), context(r#"{"coupled": true}"#)];
    for (mut plain, mut coupled) in plain.into_iter().zip(coupled) {
        let id = plain.iter().next().unwrap().id.clone();
        let (loss, grads) = step(&mut plain, &model, &roles, &cut(4));
        let expected = values(&model, &grads);
        assert!(loss > 0.01 && l2(&expected) > 0.01, "{id}: {loss}");
        for each in [4, 2, 1] {
            for objectives in [&mut plain, &mut coupled] {
                let (other, grads) = step(objectives, &model, &roles, &cut(each));
                let differences: Vec<f64> = values(&model, &grads).iter().zip(&expected).map(|(a, b)| a - b).collect();
                assert!((loss - other).abs() < 1e-12, "{id} in {each}s: {other}, expected {loss}");
                assert!(l2(&differences) < 1e-12 * l2(&expected), "{id} in {each}s");
            }
        }
    }
}

/// Catches an operation that another backend computes otherwise, and a wrong call of one that a backend does not notice.
#[test]
fn comparisons_agree_on_all_backends() {
    let names: [fn() -> Objectives; 3] =
        [|| distilling(r#"{"mix": 0.3, "temperature": 1.5}"#), || top("{}"), || context(r#"{"mix": 1.0}"#)];
    for create in names {
        let on = |backend: &str| {
            let device = device(backend);
            let (model, roles) = (policy(&device), roles(&device));
            let (loss, grads) = step(&mut create(), &model, &roles, &cut(2));
            (loss, values(&model, &grads))
        };
        let (loss, expected) = on("reference");
        for backend in crate::support::backends().into_iter().skip(1) {
            let (found, grads) = on(backend);
            assert!((found - loss).abs() < 1e-5 * loss, "{backend}: {found}, expected {loss}");
            let differences: Vec<f64> = grads.iter().zip(&expected).map(|(a, b)| a - b).collect();
            assert!(l2(&differences) < 1e-4 * l2(&expected), "{backend}: {}", l2(&differences) / l2(&expected));
        }
    }
}

/// Self-distillation from behind the sequence's own prompt teaches nothing. Catches an answer that is compared with itself shifted
/// by a token, other rows of the head, or a gradient through the copy.
#[test]
fn gotcha_02_a_context_with_the_own_prompt_is_the_policy() {
    let own = |sequence: Sequence| {
        let prompt = sequence.supervised.iter().position(|supervised| *supervised).unwrap();
        Sequence { context_prompt: Some(sequence.ids[..prompt].to_vec()), ..sequence }
    };
    let same: Vec<Sequence> = sequences().into_iter().map(own).collect();
    let roles = Roles { context: Some(ContextModel::Policy), ..Roles::default() };
    for backend in ["reference", "candle kernels"] {
        let device = device(backend);
        let model = policy(&device);
        let (loss, grads) = step(&mut context("{}"), &model, &roles, &[pack(&same).unwrap()]);
        let norm = l2(&values(&model, &grads));
        assert!(loss.abs() < 1e-6 && norm < 1e-5, "{backend}: loss {loss}, gradient {norm}");
        let (loss, grads) = step(&mut context("{}"), &model, &roles, &cut(4));
        let norm = l2(&values(&model, &grads));
        assert!(loss > 0.01 && norm > 0.01, "{backend}, other prompts: loss {loss}, gradient {norm}");
    }
}

/// Catches statistics at positions instead of targets: an answer behind another prompt has other positions and the same targets.
#[test]
fn gotcha_02_an_answer_behind_another_prompt_keeps_its_targets() {
    let packed = pack(&sequences()).unwrap();
    let other = behind_other_prompts(&packed).unwrap();
    let targets = |packed: &PackedBatch| -> Vec<i32> {
        packed.targets.iter().zip(&packed.mask).filter(|(_, mask)| **mask != 0.0).map(|(id, _)| *id).collect()
    };
    assert_eq!(targets(&packed), [4, 1, 5, 2, 6, 5, 8, 7, 3, 8]);
    assert_eq!(targets(&other), targets(&packed));
    assert_eq!(other.tokens[..5], [2, 7, 1, 4, 1]);
    assert_eq!(other.offsets, [0, 5, 7, 13, 15]);
    // The whole answer was predicted from the other prompt, even its first token.
    assert_eq!((other.mask[2], other.mask[1]), (1.0, 0.0));
}

/// A frozen model's statistics by name, and those of the ids. Catches a statistic of another role, ids that are not those that the
/// teacher finds most probable, and numbers of tokens that are not supervised.
#[test]
fn statistics_of_roles_are_those_of_their_models() {
    let device = device("reference");
    let (model, roles) = (policy(&device), roles(&device));
    let packed = pack(&sequences()).unwrap();
    let objectives = top(r#"{"count": 4}"#);
    assert!(!objectives.knows_cotangents(&[]));
    let pass = ForwardPass { models: roles.models(&model), objectives: &objectives };
    let batch = pass.run(&packed, Keep::Nothing).unwrap().batch;
    let (ids, own) = (batch.array(names::CANDIDATE_IDS).unwrap(), batch.array("candidates").unwrap());
    let teachers = batch.array("teacher.candidates").unwrap();
    assert_eq!([ids.cols, own.cols, teachers.cols], [4; 3]);
    assert_eq!([ids.differentiable, own.differentiable, teachers.differentiable], [false, true, false]);
    for (n, mask) in packed.mask.iter().enumerate() {
        let row = |name: &str, cols: usize| &batch.get(name).unwrap()[n * cols..(n + 1) * cols];
        if *mask == 0.0 {
            let all =
                [row("candidates", 4), row("teacher.candidates", 4), row(names::CANDIDATE_IDS, 4), row("tail", 1)];
            assert!(all.concat().iter().all(|value| *value == 0.0));
            continue;
        }
        for (candidates, tail) in [("candidates", "tail"), ("teacher.candidates", "teacher.tail")] {
            let sum: f64 = row(candidates, 4).iter().chain(row(tail, 1)).map(|x| x.exp()).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{candidates}: {sum}");
        }
        let teacher = row("teacher.candidates", 4);
        assert!(teacher.windows(2).all(|pair| pair[0] >= pair[1]), "{teacher:?}");
        assert!(row("teacher.tail", 1)[0].exp() <= 7.0 * teacher[3].exp() + 1e-12);
    }
    // Equal models: the statistics are equal, and there is nothing to learn.
    let same = Roles { teacher: Some(policy(&device)), ..Roles::default() };
    let (loss, grads) = step(&mut top("{}"), &model, &same, std::slice::from_ref(&packed));
    assert!(loss.abs() < 1e-12 && l2(&values(&model, &grads)) < 1e-12);
}

/// Catches a window whose cotangents are computed before the models run although they depend on what these compute.
#[test]
fn comparisons_are_never_known_in_advance() {
    let device = device("reference");
    let (model, roles, window) = (policy(&device), roles(&device), cut(2));
    for (mut objectives, expected) in [
        (distilling("{}"), Route::StatisticsFirst),
        (top("{}"), Route::StatisticsFirst),
        (distilling(r#"{"coupled": true}"#), Route::Coupled),
    ] {
        let grads = model.flat_buffer().unwrap();
        let trained = TrainedModels { models: roles.models(&model), recompute: Recompute::Auto, grads: &grads };
        let pass =
            WindowPass::prepare(&trained, &mut objectives, &window, &CrashMarker::default()).map(|pass| pass.route());
        assert_eq!(pass.unwrap(), expected);
    }
}
