//! Which kernels a session uses: the option `fused`, and the variable that overrides it. A program of its own, because the variable
//! belongs to the process.

use backend_torch::Torch;
use plugin_api::{
    Code, Error,
    backend::{Backend, SessionOptions},
};

fn open(fused: bool) -> Result<(), Error> {
    let mut options = SessionOptions::default();
    options.options.insert("fused".into(), fused.into());
    Torch::open(&options).map(drop)
}

fn set(value: &str) {
    // SAFETY: this program has one test, so no other thread reads or writes variables now.
    unsafe { std::env::set_var("TELOS_TORCH_KERNELS", value) };
}

/// Catches a variable that is ignored or accepted with any value, and kernels that are silently not used on the processor.
#[test]
fn kernels_are_chosen_by_option_and_variable() {
    let emulated = cfg!(feature = "emulated-kernels");
    let refused = |opened: Result<(), Error>| {
        let error = opened.expect_err("the processor has no fused kernels");
        assert_eq!(error.code, Code::DEVICE, "{error}");
        assert!(error.message.contains("run on CUDA alone; set `fused = false`"), "{error}");
    };
    open(false).unwrap();
    if emulated {
        open(true).unwrap()
    } else {
        refused(open(true))
    }
    set("fused");
    if emulated {
        open(false).unwrap()
    } else {
        refused(open(false))
    }
    set("aten");
    open(true).unwrap();
    for wrong in ["", "on", "Fused"] {
        set(wrong);
        let error = open(false).unwrap_err();
        assert_eq!(error.code, Code::OPTION, "{error}");
        assert!(error.message.ends_with("expected `aten` or `fused`"), "{error}");
    }
}
