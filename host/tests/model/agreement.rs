//! Backends compared with each other: the same model from the same seed on the same batch.

use telos::model::{Model, ModelConfig, Recompute};

use crate::support::{Packed, backends, close, device, gradient, l2};

/// Twelve sequences of 64 tokens, like one step of the Shakespeare experiment.
fn batch() -> Packed {
    let token = |sequence: i32, place: i32| (sequence * 31 + place * place * 7 + place * 13) % 96;
    Packed::new(&(0..12).map(|sequence| (0..64).map(|place| token(sequence, place)).collect()).collect::<Vec<_>>())
}

fn config() -> ModelConfig {
    let text = r#"{"model_type": "llama", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 4, "intermediate_size": 384, "vocab_size": 96, "max_position_embeddings": 64,
        "initializer_range": 0.02, "tie_word_embeddings": false}"#;
    ModelConfig::parse(text, "agreement").unwrap()
}

/// Catches a kernel that is right on the small shapes of the laws and wrong on a model's, and statistics that are stored in too
/// few bits.
#[test]
fn every_backend_gives_the_same_first_loss_and_gradients() {
    let batch = batch();
    let mut first: Option<(f64, Vec<Vec<f64>>)> = None;
    for backend in backends() {
        let model = Model::init(&device(backend), config(), 7).unwrap();
        let (loss, grads) = gradient(&model, &batch, Recompute::Auto, true);
        let parameters = model.layout().parameters();
        let gradients: Vec<_> = parameters.iter().map(|p| model.values(&grads, p).unwrap()).collect();
        let Some((expected_loss, expected)) = &first else {
            first = Some((loss, gradients));
            continue;
        };
        close(&format!("{backend}: loss"), loss, *expected_loss, 1e-6);
        for ((parameter, found), expected) in parameters.iter().zip(&gradients).zip(expected) {
            let difference: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
            let error = l2(&difference) / l2(expected);
            assert!(error <= 1e-5, "{backend}: gradient of {} is off by {error:.1e}", parameter.name);
        }
    }
}
