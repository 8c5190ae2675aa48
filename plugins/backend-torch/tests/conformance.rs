//! The contract's conformance suite on the processor, and sessions that are refused.

use backend_torch::{Torch, TorchSession};
use plugin_api::{
    Code,
    backend::{Backend, DType, Op, Session, SessionOptions, View, catalogue::OpSpec, ops::Linear},
};
use plugin_api_laws::{
    Report,
    backend::{Suite, verify, verify_gradients},
};
use plugin_api_load::{Library, LoadedSession, scan};
use std::{path::PathBuf, process::Command};

fn open(threads: usize) -> TorchSession {
    Torch::open(&SessionOptions { threads, ..SessionOptions::default() }).unwrap()
}

/// The reference through its library, from where `cargo xtask` put it.
fn reference() -> LoadedSession {
    let beside = || std::env::current_exe().ok().and_then(|own| Some(own.parent()?.parent()?.to_owned()));
    let folder = std::env::var_os("TELOS_TEST_BIN").map(PathBuf::from).or_else(beside);
    let folder = folder.expect("a test lies in target/release/deps").join("plugins");
    let name = format!("{}backend_reference{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let plugins = scan(&folder.join(name)).expect("run `cargo xtask build`");
    let library = Library::load(&plugins[0]).expect("the reference loads");
    library.session(&SessionOptions { tag: 2, ..SessionOptions::default() }).expect("the reference opens")
}

fn assert_clean(report: &Report, least: usize) {
    let failures: Vec<_> = report.failures().map(|l| format!("{}: {}: {}", l.group, l.case, l.detail)).collect();
    assert!(report.is_ok(), "{} of {} lines:\n{}", failures.len(), report.lines.len(), failures.join("\n"));
    assert!(report.lines.len() > least, "the suite has shrunk: {}", report.lines.len());
}

fn conforms(dtype: DType) {
    let mut reference = reference();
    assert_clean(&verify(&mut open(2), &mut reference, dtype), 700);
}

#[test]
fn conforms_in_f32() {
    conforms(DType::F32);
}

#[test]
fn conforms_in_f64() {
    conforms(DType::F64);
}

#[test]
fn conforms_in_bf16() {
    conforms(DType::BF16);
}

/// Attention on the path that `TELOS_TORCH_ATTENTION` names; the test below runs it again for each.
#[test]
fn attention_conforms() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let wanted = |spec: &OpSpec| spec.name.starts_with("attention");
        let suite = Suite::prepare(&mut reference(), dtype, wanted).unwrap();
        assert_clean(&suite.verify(&mut open(2), wanted), 50);
    }
}

/// Catches a path that serves only what reaches it by default: calls that the flash kernels take on the processor go through
/// products on other devices.
#[test]
fn attention_conforms_on_every_path() {
    for path in ["batched", "blocks"] {
        let own = std::env::current_exe().unwrap();
        let arguments = ["--exact", "attention_conforms", "--test-threads", "1"];
        let run = Command::new(own).args(arguments).env("TELOS_TORCH_ATTENTION", path).output().unwrap();
        let printed = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && printed.contains("1 passed"), "{path}:\n{printed}");
    }
    let own = std::env::current_exe().unwrap();
    let run = Command::new(own).args(["--exact", "attention_conforms"]).env("TELOS_TORCH_ATTENTION", "fast").output();
    let run = run.unwrap();
    assert!(!run.status.success());
    assert!(String::from_utf8_lossy(&run.stdout).contains("expected batched or blocks"));
}

/// Prints which instruction sets are in use, for `cargo xtask test --full`, which forces others and must not count a setting that
/// a library ignores. ATen's set is printed here, oneDNN's and MKL's in their verbose lines.
///
/// Catches a libtorch without a name for its instruction set.
#[test]
fn the_instruction_sets_in_use_are_printed() {
    let capability = backend_torch::cpu_capability();
    println!("ATen instruction set: {capability}");
    assert!(!capability.is_empty());
    // One product in f32 and one in bf16: the first calls of MKL and oneDNN.
    const SIDE: u64 = 64;
    let mut session = open(1);
    for dtype in [DType::F32, DType::BF16] {
        let [x, w, y] = [(); 3].map(|()| View::dense(session.alloc(dtype, SIDE * SIDE).unwrap(), dtype, SIDE, SIDE));
        for view in [&x, &w] {
            session.upload(view.buffer, 0, &vec![0; SIDE as usize * SIDE as usize * dtype.size().unwrap()]).unwrap();
        }
        Linear { x, w, bias: None, y }.with_call(|call| session.invoke(call)).unwrap();
    }
}

#[test]
fn gotcha_38_every_backward_agrees_with_finite_differences() {
    // Thousands of calls on a few numbers: there is nothing to split, and threads that wait for each other take minutes on a busy
    // machine.
    assert_clean(&verify_gradients(&mut open(1)), 100);
}

#[test]
fn unknown_devices_and_options_are_refused_with_the_remedy() {
    let refusal = |device: &str, key: &str, value: serde_json::Value| {
        let mut options = SessionOptions { device: device.into(), ..SessionOptions::default() };
        options.options.insert(key.into(), value);
        Torch::open(&options).err().unwrap()
    };
    let right = || serde_json::Value::from(true);
    for (device, word) in [("metal", "candle"), ("tpu", "cpu, cuda:0"), ("cuda:x", "cuda:0"), ("cuda:99", "cuda:99")] {
        let error = refusal(device, "tf32", right());
        assert_eq!(error.code, Code::DEVICE, "{error}");
        assert!(error.message.contains(word), "{error}");
    }
    assert_eq!(refusal("cpu", "tf32", serde_json::Value::from("yes")).code, Code::OPTION);
    let unknown = refusal("cpu", "fast", right());
    assert!(unknown.code == Code::OPTION && unknown.message.contains("deterministic"), "{unknown}");
}
