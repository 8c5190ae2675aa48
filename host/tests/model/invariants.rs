//! Changes that must not change a result: packing, recomputation, the head's path, rows left out; and the buffers that a step may
//! leave.

use plugin_api::abi::DType;
use telos::device::Device;
use telos::families::NAMES;
use telos::model::{BatchView, Cotangents, HeadRequest, Keep, Model, Recompute, kept_bytes};

use crate::support::{Packed, RECOMPUTES, backends, close, device, gradient, perturb, session, tiny};

fn sequences() -> Vec<Vec<i32>> {
    vec![vec![3, 1, 4, 1, 5], vec![9, 2], vec![6], vec![6, 5, 10, 0, 8, 7, 3, 2]]
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Catches attention across documents, positions that continue into the next one, and a loss across the boundary.
#[test]
fn gotcha_06_12_packed_equals_one_by_one() {
    for family in NAMES {
        for backend in backends() {
            let model = Model::init(&device(backend), tiny(family, false), 3).unwrap();
            perturb(&model);
            let tolerance = if backend == "reference" { 1e-12 } else { 2e-5 };
            let packed = Packed::new(&sequences());
            let (loss, grads) = gradient(&model, &packed, Recompute::Auto, false);
            let together = grads.download(0, grads.len()).unwrap();
            let total = packed.supervised.len() as f64;
            let (mut loss_sum, mut grad_sum) = (0.0, vec![0.0; together.len()]);
            for sequence in sequences().iter().filter(|sequence| sequence.len() > 1) {
                let one = Packed::new(std::slice::from_ref(sequence));
                let share = one.supervised.len() as f64 / total;
                let (loss, grads) = gradient(&model, &one, Recompute::Auto, false);
                loss_sum += share * loss;
                let grads = grads.download(0, grads.len()).unwrap();
                grad_sum.iter_mut().zip(grads).for_each(|(sum, g)| *sum += share * g);
            }
            close(&format!("{family} loss on {backend}"), loss, loss_sum, tolerance);
            for (a, b) in together.iter().zip(&grad_sum) {
                assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{family} on {backend}: {a} and {b}");
            }
        }
    }
}

/// Catches a recomputed activation that differs from the first one, and one that is read from a buffer already reused.
#[test]
fn gotcha_40_recompute_settings_give_the_same_gradients_bitwise() {
    let packed = Packed::new(&sequences());
    for (family, other) in [("llama", false), ("llama", true), ("gpt2", true)] {
        for backend in backends() {
            let model = Model::init(&device(backend), tiny(family, other), 3).unwrap();
            perturb(&model);
            let all = RECOMPUTES.map(|recompute| {
                let (loss, grads) = gradient(&model, &packed, recompute, true);
                (loss.to_bits(), bits(&grads.download(0, grads.len()).unwrap()))
            });
            assert!(all[0] == all[1] && all[0] == all[2], "{family} on {backend}");
        }
    }
}

/// Catches a recompute setting that keeps everything anyway, and a forward without backward that saves something.
#[test]
fn memory_shrinks_from_keeping_all_to_recomputing_all_to_keeping_nothing() {
    let device = device("reference");
    let model = Model::init(&device, tiny("llama", false), 3).unwrap();
    let packed = Packed::new(&[vec![1; 8]]);
    let held = |keep: Keep| {
        let before = device.memory();
        let forward = model.forward(packed.view(), keep).unwrap();
        let after = device.memory();
        drop(forward);
        assert_eq!(device.memory().handles, before.handles, "{keep:?} leaks");
        after.handles - before.handles
    };
    let [none, auto, all] = RECOMPUTES.map(|recompute| held(Keep::ForBackward(recompute)));
    let nothing = held(Keep::Nothing);
    // Ids, positions, offsets and the hidden states; no prompts, which a causal model does not read.
    assert_eq!(nothing, 4);
    assert!(nothing < all && all < auto && auto < none, "{nothing} {all} {auto} {none}");
}

/// Catches a norm after a branch that is not counted, one before it that a family lacks and that is counted, and the stream between
/// parallel branches, which is not kept.
#[test]
fn the_activations_of_a_layer_take_the_bytes_that_are_counted() {
    for (family, other) in NAMES.iter().flat_map(|family| [(family, false), (family, true)]) {
        // Numbers of elements that the pool does not round up.
        let packed = Packed::new(&vec![(0..8).collect::<Vec<i32>>(); 4]);
        let kept = |layers: u64| {
            let mut config = tiny(family, other);
            (config.layers, config.ropes.rotated) = (layers, Vec::new());
            config.windows.clear();
            // Without spare buffers of another model, which may be larger than needed.
            let device = device("reference");
            let model = Model::init(&device, config.clone(), 3).unwrap();
            let before = device.memory().in_use;
            let _forward = model.forward(packed.view(), Keep::ForBackward(Recompute::None)).unwrap();
            (config.clone(), device.memory().in_use - before, kept_bytes(&config, DType::F64))
        };
        let ((config, one, counted), (_, two, twice)) = (kept(1), kept(2));
        let names = &config.family.names;
        let norms = [names.norm1, names.norm2, names.post1, names.post2].into_iter().flatten().count() as u64;
        let of_heads = match (names.head_norms, config.family.wide_head_norms) {
            (None, _) => 0,
            (Some(_), true) => 2,
            (Some(_), false) => config.heads + config.kv_heads,
        };
        let small = 8 * (config.heads + 2 * (norms + of_heads));
        let tokens = packed.tokens.len() as u64;
        assert_eq!(two - one, tokens * (twice - counted + small), "{family}, {other}");
        assert_eq!(twice, 2 * counted);
    }
}

/// Catches buffers that leak or are allocated again in every step.
#[test]
fn a_steady_state_allocates_nothing() {
    for backend in backends() {
        let device = device(backend);
        let model = Model::init(&device, tiny("llama", false), 3).unwrap();
        let packed = Packed::new(&sequences());
        let mut before = None;
        for step in 0..4 {
            gradient(&model, &packed, Recompute::Auto, false);
            let memory = device.memory();
            let state = (memory.fresh_allocations, memory.handles, memory.in_use);
            assert!(step < 2 || before == Some(state), "{backend}, step {step}: {before:?} became {state:?}");
            before = Some(state);
        }
    }
}

/// Catches rows that are gathered but scattered back elsewhere, and a fused head whose gradient differs.
#[test]
fn omitted_rows_equal_zero_cotangents_and_both_head_paths_agree() {
    for backend in backends() {
        let model = Model::init(&device(backend), tiny("gpt2", false), 3).unwrap();
        perturb(&model);
        let packed = Packed::new(&sequences());
        let targets: Vec<i32> = packed.targets.iter().map(|t| (*t).max(0)).collect();
        let dlogp: Vec<f64> = (0..targets.len()).map(|i| (i as f64).cos()).collect();
        let chosen: Vec<i32> = vec![0, 3, 5, 8, 14];
        let mut masked = vec![0.0; dlogp.len()];
        chosen.iter().for_each(|row| masked[*row as usize] = dlogp[*row as usize]);
        let picked: Vec<f64> = chosen.iter().map(|row| dlogp[*row as usize]).collect();
        let run = |rows: Option<&[i32]>, dlogp: &[f64], fused: bool, keep_logits: bool| {
            let grads = model.flat_buffer().unwrap();
            let forward = model.forward(packed.view(), Keep::ForBackward(Recompute::None)).unwrap();
            let request = HeadRequest { rows, keep_logits, ..HeadRequest::new(&targets) };
            let cotangents = Cotangents { logp: Some(dlogp), ..Cotangents::default() };
            let dhidden = if fused {
                model.head_fused(&forward, &request, &cotangents, &grads).unwrap().1
            } else {
                let head = model.head_stats(&forward, &request).unwrap();
                model.head_backward(head, &cotangents, &grads).unwrap()
            };
            model.backward(forward, dhidden, &grads).unwrap();
            grads.download(0, grads.len()).unwrap()
        };
        let expected = run(None, &masked, false, false);
        let tolerance = if backend == "reference" { 1e-12 } else { 1e-5 };
        for (fused, keep_logits) in [(false, false), (false, true), (true, false)] {
            for (a, b) in run(Some(&chosen), &picked, fused, keep_logits).iter().zip(&expected) {
                assert!((a - b).abs() < tolerance, "{backend}, fused {fused}, kept {keep_logits}: {a} and {b}");
            }
        }
        assert!(expected.iter().any(|g| g.abs() > 0.01), "a gradient of zero would agree with anything");
    }
}

/// Catches a batch that would silently read outside a table, or mix up sequences.
#[test]
fn batches_that_contradict_themselves_are_refused() {
    let model = Model::init(&device("reference"), tiny("llama", false), 3).unwrap();
    type Case = (&'static [i32], &'static [i32], &'static [i32], &'static str);
    let cases: [Case; 6] = [
        (&[1, 2], &[0], &[0, 2], "positions"),
        (&[1, 2], &[0, 1], &[0, 1], "offsets"),
        (&[1, 2], &[0, 1], &[1, 2], "offsets"),
        (&[1, 2], &[0, 1], &[0, 2, 1, 2], "offsets"),
        (&[1, 11], &[0, 1], &[0, 2], "token id 11"),
        (&[1, 2], &[0, 8], &[0, 2], "position 8"),
    ];
    for (tokens, positions, offsets, named) in cases {
        let error = model.forward(BatchView { tokens, positions, offsets, prompts: &[] }, Keep::Nothing).err().unwrap();
        assert!(error.message().contains(named), "{error:?}");
    }
}

/// Catches initial weights that depend on the backend, lack the residual scaling, or share one stream.
#[test]
fn initial_weights_are_the_same_on_every_backend_and_have_their_spread() {
    let mut config = tiny("llama", true);
    (config.dim, config.head_dim, config.hidden, config.vocab, config.init_std) = (64, 32, 128, 500, 0.02);
    let init = |backend| Model::init(&device(backend), config.clone(), 11).unwrap();
    let models: Vec<Model> = backends().into_iter().map(init).collect();
    let values = |model: &Model, name: &str| model.values(model.params(), model.layout().get(name).unwrap()).unwrap();
    for parameter in models[0].layout().parameters() {
        let first = values(&models[0], &parameter.name);
        assert!(models.iter().all(|model| values(model, &parameter.name) == first), "{}", parameter.name);
    }
    let spread = |name: &str| {
        let values = values(&models[0], name);
        (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
    };
    close("embedding", spread("model.embed_tokens.weight"), 0.02, 0.03);
    // Two layers: 1 / sqrt(4).
    close("residual projection", spread("model.layers.1.mlp.down_proj.weight"), 0.01, 0.05);
    assert_eq!(spread("model.norm.weight"), 1.0);
    assert_eq!(spread("model.layers.0.self_attn.q_proj.bias"), 0.0);
    let (a, b) = ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.gate_proj.weight");
    assert_ne!(values(&models[0], a), values(&models[0], b));
    let other = Model::init(&device("reference"), config, 12).unwrap();
    assert_ne!(values(&models[0], a), values(&other, a), "the seed has no effect");
}

/// Catches a head or an initialisation whose first loss is not ln V.
#[test]
fn gotcha_10_the_first_loss_is_close_to_ln_v() {
    let mut config = tiny("gpt2", false);
    (config.dim, config.head_dim, config.hidden, config.vocab, config.init_std) = (64, 32, 256, 500, 0.02);
    let model = Model::init(&device("reference"), config, 1).unwrap();
    let packed = Packed::new(&[(0..8).map(|i| i * 61).collect()]);
    let (loss, _) = gradient(&model, &packed, Recompute::Auto, true);
    close("loss", loss, 500_f64.ln(), 0.02);
}

/// Catches a dtype that a backend does not support and that is reported only in the middle of a run.
#[test]
fn a_dtype_the_backend_lacks_is_refused_when_the_device_opens() {
    for (backend, dtype) in [("candle generic", DType::F64), ("candle kernels", DType::F64)] {
        let error = Device::new(session(backend, 1).0, dtype).err().unwrap();
        assert_eq!(error.exit_code(), 2);
        assert!(error.message().contains(&dtype.to_string()) && error.hint().is_some(), "{error:?}");
    }
}

/// Catches master weights kept in bf16, a shadow that forward does not read, or one that goes stale.
#[test]
fn bf16_computes_on_a_rounded_copy_of_f32_masters() {
    let device = Device::new(session("reference", 1).0, DType::BF16).unwrap();
    let mut config = tiny("llama", false);
    // Small weights: rounding then moves the gradient by little.
    (config.dim, config.head_dim, config.init_std) = (64, 32, 0.1);
    let model = Model::init(&device, config.clone(), 3).unwrap();
    assert_eq!((model.params().dtype(), model.shadow().unwrap().dtype()), (DType::F32, DType::BF16));
    let packed = Packed::new(&sequences());
    let (loss, grads) = gradient(&model, &packed, Recompute::Auto, true);
    assert_eq!(grads.dtype(), DType::F32);
    let exact = Model::init(&self::device("reference"), config, 3).unwrap();
    let (expected, exact_grads) = gradient(&exact, &packed, Recompute::Auto, true);
    assert_ne!(loss, expected, "nothing was rounded");
    close("loss", loss, expected, 0.005);
    for parameter in model.layout().parameters() {
        let [ours, theirs] = [(&model, &grads), (&exact, &exact_grads)]
            .map(|(model, grads)| crate::support::l2(&model.values(grads, parameter).unwrap()));
        close(&parameter.name, ours, theirs, 0.03);
    }
    model.zero(model.params()).unwrap();
    model.refresh_shadow().unwrap();
    let (uniform, _) = gradient(&model, &packed, Recompute::Auto, true);
    close("loss of zero weights", uniform, 11_f64.ln(), 1e-3);
}
