//! The contract's conformance suite on both paths.

use backend_candle::{Candle, CandleSession};
use backend_reference::ReferenceBackend;
use plugin_api::{
    Code,
    backend::{Backend, DType, Session, SessionOptions},
    laws::backend::verify,
};

fn open(path: &str, threads: usize) -> CandleSession {
    let mut options = SessionOptions { threads, ..SessionOptions::default() };
    options.options.insert("path".into(), path.into());
    Candle::open(&options).unwrap()
}

#[test]
fn both_paths_conform() {
    for path in ["kernels", "generic"] {
        let mut reference = ReferenceBackend::open(&SessionOptions::default()).unwrap();
        let report = verify(&mut open(path, 2), &mut reference, DType::F32);
        let failures: Vec<_> =
            report.failures().map(|l| format!("{path}: {}: {}: {}", l.group, l.case, l.detail)).collect();
        assert!(report.is_ok(), "{}", failures.join("\n"));
    }
}

#[test]
fn bf16_is_denied_where_it_does_not_compute_and_offered_where_it_moves() {
    let session = open("kernels", 1);
    for spec in plugin_api::backend::ops::CATALOGUE {
        let any = ["nop", "cast"].contains(&spec.name);
        let moves = any || ["fill", "copy", "global_norm", "adamw"].contains(&spec.name);
        assert!(session.supports(spec.id, DType::F32), "{}", spec.name);
        assert_eq!(session.supports(spec.id, DType::BF16), moves, "{}", spec.name);
        assert_eq!(session.supports(spec.id, DType::F64), any, "{}", spec.name);
    }
    assert!(!session.supports(9999, DType::F32));
}

#[test]
fn devices_and_options_that_are_not_there_are_refused_with_the_remedy() {
    let refusal = |device: &str, path: serde_json::Value| {
        let mut options = SessionOptions { device: device.into(), ..SessionOptions::default() };
        options.options.insert("path".into(), path);
        Candle::open(&options).err().unwrap()
    };
    let auto = || serde_json::Value::from("auto");
    for (device, word) in [("cuda:0", "a backend that has CUDA"), ("tpu", "cpu, metal"), ("metal", "--features metal")]
    {
        let error = refusal(device, auto());
        assert_eq!(error.code, Code::DEVICE, "{error}");
        assert!(error.message.contains(word), "{error}");
    }
    for value in [serde_json::Value::from("fast"), serde_json::Value::from(3)] {
        assert_eq!(refusal("cpu", value).code, Code::OPTION);
    }
}
