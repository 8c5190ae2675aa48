//! `TELOS_TORCH_PROFILE`, which is read from the environment, so a process of its own is profiled.

use backend_torch::Torch;
use plugin_api::backend::{
    Backend, DType, Op, Session, SessionOptions, View,
    ops::{Fill, Linear},
};
use serde_json::Value;
use std::{path::Path, process::Command};

/// What is profiled: three calls of two operations, one of which fails.
#[test]
fn a_session_computes() {
    let mut session = Torch::open(&SessionOptions { threads: 1, ..SessionOptions::default() }).unwrap();
    let [x, w, y] = [(); 3].map(|()| View::dense(session.alloc(DType::F32, 64).unwrap(), DType::F32, 8, 8));
    for view in [x, w] {
        Fill { x: view, value: 2.0 }.with_call(|call| session.invoke(call)).unwrap();
    }
    Linear { x, w, bias: None, y }.with_call(|call| session.invoke(call)).unwrap();
    let narrow = View { cols: 7, ..w };
    assert!(Linear { x, w: narrow, bias: None, y }.with_call(|call| session.invoke(call)).is_err());
}

fn run(profile: &Path) -> std::process::Output {
    let own = std::env::current_exe().unwrap();
    let arguments = ["--exact", "a_session_computes"];
    Command::new(own).args(arguments).env("TELOS_TORCH_PROFILE", profile).output().unwrap()
}

/// Catches a variable that is not read, a file that is not written at the session's end, and calls that are not counted or
/// counted under another name.
#[test]
fn the_environment_requests_a_profile() {
    let file = std::env::temp_dir().join(format!("telos-torch-profile-{}.json", std::process::id()));
    let done = run(&file);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    let content: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let session = &content["sessions"][0];
    assert_eq!((&session["device"], &session["clock"]), (&"cpu".into(), &"host".into()));
    let calls = |name: &str| {
        let operations = session["operations"].as_array().unwrap();
        operations.iter().find(|one| one["name"] == name).map(|one| one["calls"].as_u64().unwrap())
    };
    assert_eq!((calls("fill"), calls("linear")), (Some(2), Some(2)));
    std::fs::remove_file(file).unwrap();
}

/// Catches a run that reports only at its end that its profile cannot be written.
#[test]
fn a_profile_that_cannot_be_written_is_refused() {
    let done = run(Path::new("/no-such-folder/profile.json"));
    assert!(!done.status.success());
    let printed = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(printed.contains("TELOS_TORCH_PROFILE: /no-such-folder/profile.json cannot be written"), "{printed}");
}
