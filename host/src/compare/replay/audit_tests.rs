//! Tests that the audit names the wrong operation, and no other.

use super::*;
use crate::device::Device;
use crate::model::{BatchView, Cotangents, HeadRequest, Keep, Model, ModelConfig, Recompute};
use backend_candle::Candle;
use backend_reference::ReferenceBackend;
use plugin_api::backend::{Backend, SessionOptions};
use plugin_api_laws::faulty::{Fault, Faulty};

const TINY: &str = r#"{"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 12, "vocab_size": 11, "max_position_embeddings": 8,
    "initializer_range": 0.3, "tie_word_embeddings": true}"#;

/// Audits forward and backward of a small model whose cotangents are as small as those of a mean over many tokens.
/// One output of the operation is multiplied by `factor`.
fn verdict(operation: &'static str, output: usize, factor: f64) -> Verdict {
    let options = SessionOptions { threads: 2, ..Default::default() };
    let inner = Candle::open(&options).unwrap();
    let reference = ReferenceBackend::open(&SessionOptions { tag: 2, ..Default::default() }).unwrap();
    let op = CATALOGUE.iter().find(|spec| spec.name == operation).map_or(u32::MAX, |spec| spec.id);
    let broken = Box::new(Faulty::new(inner, op, Fault::Scale(output, factor)));
    let (session, audit) = Audited::wrap(broken, Box::new(reference), DType::F32);
    let device = Device::new(session, DType::F32).unwrap();
    let model = Model::init(&device, ModelConfig::parse(TINY, "tiny").unwrap(), 5).unwrap();
    let grads = model.flat_buffer().unwrap();
    assert_eq!(audit.verdict(), Verdict::default(), "it is not turned on yet");
    audit.replay(true);
    let tokens = [1, 5, 9, 2, 7, 3, 3, 8];
    let batch = BatchView { tokens: &tokens, positions: &[0, 1, 2, 3, 4, 0, 1, 2], offsets: &[0, 5, 8], prompts: &[] };
    let forward = model.forward(batch, Keep::ForBackward(Recompute::None)).unwrap();
    let cotangents = Cotangents { logp: Some(&[-1e-6; 8]), ..Cotangents::default() };
    let request = HeadRequest::new(&[5, 9, 2, 7, 3, 3, 8, 1]);
    let (_, dhidden) = model.head_fused(&forward, &request, &cotangents, &grads).unwrap();
    model.backward(forward, dhidden, &grads).unwrap();
    audit.replay(false);
    audit.verdict()
}

/// Catches an audit that misses an error in operations whose results are as small as real gradients, that blames
/// the operations after it, or that counts from the wrong place.
#[test]
fn only_the_wrong_operation_is_reported() {
    for (operation, output) in
        [("attention_backward", 0), ("attention_backward", 2), ("glu", 0), ("norm_backward", 0), ("linear", 0)]
    {
        let verdict = verdict(operation, output, 1.001);
        let first = verdict.first.clone().unwrap_or_else(|| panic!("{operation}: {verdict:?}"));
        assert_eq!((first.operation, verdict.beyond_names.as_slice()), (operation, [operation].as_slice()));
        let spec = CATALOGUE.iter().find(|spec| spec.name == operation).unwrap();
        assert_eq!(first.operand, spec.outputs[output].name);
        assert!((first.found / first.expected - 1.001).abs() < 1e-4, "{first:?}");
        assert!(first.ordinal >= 1 && first.ordinal <= verdict.operations, "{first:?}");
    }
}

/// Catches false alarms, operations that are skipped, and views read from the wrong place.
#[test]
fn a_correct_backend_is_within_all_limits() {
    let verdict = verdict("none", 0, 1.0);
    assert_eq!((verdict.first, verdict.beyond, verdict.skipped), (None, 0, Vec::new()));
    assert!(verdict.operations > 30, "{}", verdict.operations);
    let largest = verdict.largest.unwrap();
    assert!(largest.error > 0.0 && largest.excess() < 0.5, "{largest:?}");
}
