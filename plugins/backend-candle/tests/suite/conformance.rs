//! The contract's conformance suite on both paths.

use backend_candle::{Candle, CandleSession};
use backend_reference::ReferenceBackend;
use plugin_api::{
    Code,
    backend::{Backend, DType, Session, SessionOptions},
};
use plugin_api_laws::backend::{Suite, verify};

/// Catches a lower instruction set with wrong results, and one that is accepted although the processor lacks it. Sets that this
/// processor lacks are printed.
#[test]
fn every_instruction_set_of_this_processor_conforms() {
    let options = Candle::manifest().options;
    let sets = &options.iter().find(|option| option.name == "isa").unwrap().choices[1..];
    let mut reference = ReferenceBackend::open(&SessionOptions::default()).unwrap();
    let suites = [DType::F32, DType::BF16].map(|dtype| Suite::prepare(&mut reference, dtype, |_| true).unwrap());
    let mut opened = 0;
    for isa in sets {
        let mut options = SessionOptions { threads: 2, ..SessionOptions::default() };
        options.options.insert("isa".into(), isa.as_str().into());
        let mut session = match Candle::open(&options) {
            Ok(session) => session,
            Err(e) if e.code == Code::OPTION && e.message.contains("this processor lacks") => {
                eprintln!("NOT RUN: {e}");
                continue;
            }
            // The environment selects another set.
            Err(e) if e.code == Code::OPTION && e.message.contains("leave one out") => {
                eprintln!("NOT RUN: {e}");
                continue;
            }
            Err(e) => panic!("{isa}: {e}"),
        };
        for (suite, dtype) in suites.iter().zip(["f32", "bf16"]) {
            let report = suite.verify(&mut session, |_| true);
            let failures = report.failures().map(|l| format!("{isa} {dtype}: {}: {}: {}", l.group, l.case, l.detail));
            let failures: Vec<_> = failures.collect();
            assert!(report.is_ok(), "{}", failures.join("\n"));
        }
        opened += 1;
    }
    assert!(opened > 0, "none of {sets:?} was there");
}

fn open(path: &str, threads: usize) -> CandleSession {
    let mut options = SessionOptions { threads, ..SessionOptions::default() };
    options.options.insert("path".into(), path.into());
    Candle::open(&options).unwrap()
}

#[test]
fn both_paths_conform() {
    for dtype in [DType::F32, DType::BF16] {
        for path in ["kernels", "generic"] {
            let mut reference = ReferenceBackend::open(&SessionOptions::default()).unwrap();
            let report = verify(&mut open(path, 2), &mut reference, dtype);
            let failures = report.failures().map(|l| format!("{path} {dtype}: {}: {}: {}", l.group, l.case, l.detail));
            let failures: Vec<_> = failures.collect();
            assert!(report.is_ok(), "{}", failures.join("\n"));
        }
    }
}

#[test]
fn every_operation_is_offered_for_f32_and_bf16() {
    let session = open("kernels", 1);
    for spec in plugin_api::backend::ops::CATALOGUE {
        let any = ["nop", "cast"].contains(&spec.name);
        assert!(session.supports(spec.id, DType::F32), "{}", spec.name);
        assert!(session.supports(spec.id, DType::BF16), "{}", spec.name);
        assert_eq!(session.supports(spec.id, DType::F64), any, "{}", spec.name);
    }
    assert!(!session.supports(9999, DType::F32));
}

#[test]
fn unknown_devices_and_options_are_refused_with_the_remedy() {
    let refusal = |device: &str, path: serde_json::Value| {
        let mut options = SessionOptions { device: device.into(), ..SessionOptions::default() };
        options.options.insert("path".into(), path);
        Candle::open(&options).err().unwrap()
    };
    let auto = || serde_json::Value::from("auto");
    let metal = cfg!(all(feature = "metal", target_os = "macos"));
    let devices = if metal { "cpu or metal" } else { "cpu" };
    let unknown =
        [("cuda:0", format!("only {devices}; choose a backend that has CUDA")), ("tpu", format!("expected {devices}"))];
    let absent = (!metal).then(|| ("metal", "--features metal".to_owned()));
    for (device, words) in unknown.into_iter().chain(absent) {
        let error = refusal(device, auto());
        assert_eq!(error.code, Code::DEVICE, "{error}");
        assert!(error.message.contains(&words), "{error}");
    }
    for value in [serde_json::Value::from("fast"), serde_json::Value::from(3)] {
        assert_eq!(refusal("cpu", value).code, Code::OPTION);
    }
    let isa = |path: &str, isa: &str| {
        let mut options = SessionOptions::default();
        options.options.insert("path".into(), path.into());
        options.options.insert("isa".into(), isa.into());
        Candle::open(&options).err().unwrap().message
    };
    assert!(isa("auto", "sse9").contains("\"sse9\", expected one of auto, "), "{}", isa("auto", "sse9"));
    assert!(isa("generic", "baseline").contains("own kernels"), "{}", isa("generic", "baseline"));
}
