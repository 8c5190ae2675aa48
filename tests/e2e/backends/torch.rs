//! The libtorch backend through the built program: training, resume, and every way in which libtorch can be missing.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use super::{bf16_trains_close_to_f32_but_not_equal, in_bf16_the_first_ratios_are_1};
use crate::support::{
    kills::{kill_at, with_enough_steps},
    lab::{Lab, Run, close},
    rig::{Answer, bin, clean, library, plugins},
};

const TORCH: &str = "backend.plugin=torch";

/// A program with its own plugins folder: candle, `ce`, and those of `extra`.
fn program(lab: &Lab, extra: &[&str]) -> PathBuf {
    let folder = lab.at("program");
    fs::create_dir_all(folder.join("plugins")).expect("a folder");
    let program = folder.join("telos");
    fs::copy(bin().join("telos"), &program).expect("the program is copied");
    for package in ["backend-candle", "objective-ce"].iter().chain(extra) {
        let file = library(&plugins(), package);
        fs::copy(&file, folder.join("plugins").join(file.file_name().expect("a name"))).expect("a plugin is copied");
    }
    program
}

fn run(program: &Path, lab: &Lab, sets: &[&str]) -> Answer {
    let mut command = Command::new(program);
    clean(&mut command).current_dir(lab.path()).env_remove("LD_LIBRARY_PATH").args(["run", "tiny.toml"]);
    Answer::of(command.args(sets.iter().flat_map(|set| ["--set", *set])))
}

/// Catches a run that begins, or a missing hint, if the plugin was never built.
#[test]
fn a_folder_without_the_plugin_is_refused_with_the_command_that_builds_it() {
    let lab = Lab::tiny();
    let program = program(&lab, &[]);
    run(&program, &lab, &[TORCH]).refuses(2, &["there is no backend `torch`", "cargo xtask torch", "candle"]);
    assert!(!lab.at("runs").exists());
    run(&program, &lab, &["train.steps=1", "sample.every=0"]).succeeds();
}

/// Catches a loader's message without the library, the symbol or the remedy.
#[test]
fn a_missing_or_different_libtorch_is_refused_with_the_command_that_installs_it() {
    let lab = Lab::tiny();
    let program = program(&lab, &["backend-torch"]);
    run(&program, &lab, &[TORCH]).refuses(2, &["libbackend_torch.so", "libc10.so", "cargo xtask torch"]);
    // Libraries of the right names without libtorch's symbols, as another version's lack some.
    let lib = lab.at("program/plugins/libtorch/lib");
    fs::create_dir_all(&lib).expect("a folder");
    let source = lab.write("empty.c", "int telos_nothing;\n");
    for name in ["libc10.so", "libtorch_cpu.so"] {
        let built = Command::new("cc").args(["-shared", "-o"]).arg(lib.join(name)).arg(&source).status();
        assert!(built.expect("cc runs").success());
    }
    run(&program, &lab, &[TORCH]).refuses(2, &["undefined symbol", "cargo xtask torch"]);
    assert!(!lab.at("runs").exists());
}

/// Catches a program that finds libtorch only where it was built: plugin and link are somewhere else here.
#[test]
fn a_moved_program_finds_libtorch_next_to_its_plugin() {
    let lab = Lab::tiny();
    let program = program(&lab, &["backend-torch"]);
    let libtorch = fs::canonicalize(plugins().join("libtorch")).expect("`cargo xtask torch` links libtorch");
    symlink(libtorch, lab.at("program/plugins/libtorch")).expect("a link");
    run(&program, &lab, &[TORCH, "train.steps=2"]).succeeds();
}

/// Catches a libtorch that is replaced without a report: its libraries compute the numbers.
#[test]
fn the_libraries_of_libtorch_are_pinned_and_recorded_in_the_receipt() {
    let lab = Lab::tiny();
    let program = program(&lab, &["backend-torch"]);
    let libtorch = fs::canonicalize(plugins().join("libtorch")).expect("`cargo xtask torch` links libtorch");
    let lib = lab.at("program/plugins/libtorch/lib");
    fs::create_dir_all(&lib).expect("a folder");
    for entry in fs::read_dir(libtorch.join("lib")).expect("libtorch's libraries").flatten() {
        symlink(fs::canonicalize(entry.path()).expect("a library"), lib.join(entry.file_name())).expect("a link");
    }
    let ask = |name: &str, more: &[&str]| {
        let mut command = Command::new(&program);
        clean(&mut command).current_dir(lab.path()).args([
            "run",
            "tiny.toml",
            "--set",
            TORCH,
            "--set",
            "train.steps=1",
        ]);
        Answer::of(command.args(["--name", name]).args(more))
    };
    ask("a", &[]).succeeds();
    let receipt = Run(lab.at("runs/a")).receipt();
    let libraries = receipt["plugins"][0]["libraries"].as_array().expect("a list").clone();
    for name in ["libc10.so", "libtorch_cpu.so"] {
        let own = libraries.iter().find(|own| own["name"] == name).unwrap_or_else(|| panic!("no {name}: {receipt:#}"));
        assert_eq!(own["sha256"].as_str().map(str::len), Some(64), "{receipt:#}");
    }
    // The stages of a pipeline open it one after another in one process, where it is mapped once.
    lab.write("two.toml", crate::support::experiments::two_stages());
    let mut command = Command::new(&program);
    let stages = ["run", "two.toml", "--set", TORCH, "--name", "two"];
    Answer::of(clean(&mut command).current_dir(lab.path()).args(stages)).succeeds();
    for stage in ["pre", "more"] {
        let receipt = Run(lab.at(&format!("runs/two/{stage}"))).receipt();
        assert_eq!(receipt["plugins"][0]["libraries"].as_array(), Some(&libraries), "{stage}: {receipt:#}");
    }
    // Bytes after the end of a library change nothing but its hash.
    let core = lib.join("libc10.so");
    let bytes = fs::read(&core).expect("a library");
    fs::remove_file(&core).expect("removed");
    fs::write(&core, [&bytes[..], b"x"].concat()).expect("written");
    ask("b", &[]).refuses(2, &["libc10.so", "backend `torch`", "plugins.lock", "--update-lock"]);
    assert!(!lab.at("runs/b").exists());
    ask("dev", &["--dev"]).succeeds();
    let dev = Run(lab.at("runs/dev")).receipt()["unpinned"].to_string();
    assert!(dev.contains("libc10.so"), "{dev}");
    ask("b", &["--update-lock"]).succeeds();
    ask("c", &[]).succeeds();
    ask("a", &["--resume", "--set", "train.steps=2"]).refuses(2, &["plugins[torch].libraries[libc10.so].sha256: \""]);
}

/// Catches a changed number of threads that changes the last bits without a report, if the backend does not exclude that.
#[test]
fn a_changed_number_of_threads_is_reported() {
    let lab = Lab::tiny();
    lab.run(&[TORCH, "train.steps=1"]).succeeds();
    let answer = lab.resume(&[TORCH, "train.steps=2", "backend.threads=2"]);
    answer.succeeds();
    assert!(answer.err.contains("backend.threads: 1 is now 2"), "{answer:#?}");
    assert!(lab.tiny_run().receipt()["replaced"].to_string().contains("backend.threads"));
}

/// Catches a device that is accepted without a check, or confused with another.
#[test]
fn unavailable_devices_are_refused() {
    let lab = Lab::tiny();
    let refused = |device: &str, words: &[&str]| {
        lab.run(&[TORCH, &format!("backend.device={device}")])
            .refuses(2, &[&["backend.device", device], words].concat());
        assert!(!lab.at("runs").exists());
    };
    refused("cuda:99", &[]);
    refused("metal", &["candle"]);
    refused("cuda:x", &["cuda:0"]);
    if !Path::new("/dev/nvidiactl").exists() {
        refused("cuda:0", &["driver", "cpu"]);
        refused("cuda:9", &["driver", "cpu"]);
    }
    lab.run(&["backend.device=metal"]).refuses(2, &["metal", "candle"]);
}

/// Catches another loss, another data order or other initial weights behind the same experiment.
#[test]
fn torch_and_candle_compute_the_same_steps() {
    let (torch, candle) = (Lab::tiny(), Lab::tiny());
    torch.run(&[TORCH]).succeeds();
    candle.run(&[]).succeeds();
    let [a, b] = [&torch, &candle].map(|lab| lab.tiny_run());
    let pairs = |key: &str| a.train(key).into_iter().zip(b.train(key)).collect::<Vec<_>>();
    let (losses, norms) = (pairs("loss"), pairs("grad_norm"));
    close(losses[0].0, losses[0].1, 1e-6, "first loss");
    close(norms[0].0, norms[0].1, 1e-5, "first gradient norm");
    assert_eq!(losses.len(), 8);
    for (step, (x, y)) in losses.into_iter().enumerate() {
        close(x, y, 1e-4, &format!("loss of step {}", step + 1));
    }
}

#[test]
fn gotcha_07_bf16_trains_close_to_f32_but_not_equal() {
    bf16_trains_close_to_f32_but_not_equal(&[TORCH]);
}

#[test]
fn gotcha_07_27_in_bf16_the_first_ratios_are_1_too() {
    in_bf16_the_first_ratios_are_1(&[TORCH]);
}

/// Catches state of libtorch that is missing from a checkpoint.
#[test]
fn gotcha_41_a_killed_run_on_torch_resumes_bit_for_bit() {
    with_enough_steps(60, |steps| {
        let length = format!("train.steps={steps}");
        let sets = [TORCH, &length, "eval.every=7", "sample.every=10", "checkpoint.every=1", "checkpoint.keep=2"];
        let whole = Lab::tiny();
        whole.run(&sets).succeeds();
        let lab = Lab::tiny();
        let run = lab.tiny_run();
        let killed = kill_at(&lab, &sets, &run, [15, 30, 45]);
        lab.resume(&sets).succeeds();
        run.has_steps(steps);
        run.equals(&whole.tiny_run(), steps);
        killed
    });
}
