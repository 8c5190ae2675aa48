//! Supervision of real processes: this test binary acts as supervisor and worker.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{ChildStdout, Output, Stdio};
use std::thread;
use std::time::Duration;

use super::super::tests::{as_process, part, wait_until};
use super::super::{Breadcrumb, Checkpoints, Interrupt, RunFolder};
use super::*;

const NAME: &str = "runs::supervise::tests::acts_as_supervisor_and_worker";

/// The other processes of the tests below start here.
#[test]
#[ignore = "not a test of its own"]
fn acts_as_supervisor_and_worker() {
    let Some(part) = part() else { return };
    let code = match role().unwrap() {
        Role::Supervisor => {
            let args = ["target/telos", "run", "my exp.toml"].map(OsString::from);
            Supervision::begin().unwrap().wait_for(as_process(NAME, &part)).unwrap().report(&args)
        }
        Role::Worker => {
            let code = work(&part);
            Breadcrumb::from_env().finish(u8::try_from(exit_number(code)).unwrap());
            code
        }
    };
    // The test harness has its own exit codes.
    std::process::exit(if code == ExitCode::SUCCESS { 0 } else { exit_number(code) });
}

fn exit_number(code: ExitCode) -> i32 {
    (0..=255u8).find(|number| ExitCode::from(*number) == code).map_or(-1, i32::from)
}

#[expect(unconditional_recursion, reason = "the stack shall overflow")]
fn overflow(depth: u64) -> u64 {
    std::hint::black_box([depth; 1000])[0] + overflow(depth + 1)
}

fn work(part: &str) -> ExitCode {
    let (what, runs) = part.split_once(' ').unwrap();
    let crumb = Breadcrumb::from_env();
    let run = RunFolder::create(Path::new(runs), "a", crate::runs::folder::Existing::Keep).unwrap();
    fs::write(run.experiment(), "").unwrap();
    crumb.set_run(run.path());
    let checkpoints = Checkpoints::new(&run, 1, None).unwrap();
    let write = |folder: &Path| {
        fs::write(folder.join("model.safetensors"), "weights").unwrap();
        Ok(())
    };
    checkpoints.save(10, false, write).unwrap();
    crumb.set("candle", "loss", 12);
    let raise = |signal| kill_process(rustix::process::getpid(), signal).unwrap();
    match what {
        "exit" => return ExitCode::from(7),
        "done" => return ExitCode::SUCCESS,
        "quit" => std::process::exit(0),
        "quit-2" => std::process::exit(2),
        "children" => {
            let listed = Command::new("ls").args(["-l", "/proc/self/fd/"]).output().unwrap();
            println!("descriptors: {}", String::from_utf8_lossy(&listed.stdout));
            return ExitCode::SUCCESS;
        }
        "quit-late" => {
            crumb.finish(0);
            std::process::exit(3)
        }
        "host" => {
            crumb.clear(12);
            raise(Signal::KILL);
        }
        "kill" => raise(Signal::KILL),
        // Again until it works: the standard library's handler takes the first signal, and two at once count as
        // one.
        "segv" => loop {
            raise(Signal::SEGV);
            thread::sleep(Duration::from_millis(5));
        },
        "abort" => std::process::abort(),
        "overflow" => println!("{}", overflow(0)),
        "panic" => panic!("a mistake of the host"),
        "loop" | "stuck" => {
            let interrupt = Interrupt::listen(|line| println!("{line}")).unwrap();
            println!("ready {}", std::process::id());
            while what == "stuck" || !interrupt.requested() {
                thread::sleep(Duration::from_millis(5));
            }
            crumb.clear(12);
            println!("saved");
            return ExitCode::from(130);
        }
        other => panic!("no such part: {other}"),
    }
    thread::sleep(Duration::from_secs(600));
    ExitCode::SUCCESS
}

fn part_of(what: &str, runs: &Path) -> Command {
    as_process(NAME, &format!("{what} {}", runs.display()))
}

fn run(what: &str) -> (Output, String) {
    let runs = tempfile::tempdir().unwrap();
    let output = part_of(what, runs.path()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, errors)
}

/// Catches a parent that reports success, does not name the plugin, or does not say how to continue, for each way
/// in which the child dies.
#[test]
fn a_worker_that_dies_is_reported_with_plugin_call_step_and_how_to_resume() {
    let deaths = [("kill", "SIGKILL"), ("segv", "SIGSEGV"), ("abort", "SIGABRT"), ("overflow", "SIGABRT")];
    for (what, signal) in deaths {
        let (output, errors) = run(what);
        assert_eq!(output.status.code(), Some(1), "{what}: {errors}");
        for expected in [
            &format!("telos was ended by {signal} ("),
            "in plugin `candle`, call `loss`, step 12",
            "the last checkpoint is",
            "a/checkpoints/step-00000010",
            "help: continue with: telos run 'my exp.toml' --resume",
        ] {
            assert!(errors.contains(expected), "{what}: {expected:?} is missing in\n{errors}");
        }
    }
}

/// Catches a plugin that is blamed for an error of the host.
#[test]
fn outside_a_plugin_no_plugin_is_named() {
    let (output, errors) = run("host");
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("step 12, outside any plugin") && !errors.contains("`candle`"), "{errors}");
}

/// Catches exit codes that are lost or invented, and reports where there is nothing to report.
#[test]
fn exit_codes_are_passed_on_and_a_panic_is_a_failed_run() {
    for (what, code) in [("exit", 7), ("done", 0), ("panic", 1)] {
        let (output, errors) = run(what);
        assert_eq!(output.status.code(), Some(code), "{what}: {errors}");
        assert_eq!(errors.contains("error:"), what == "panic", "{errors}");
    }
}

/// Catches a plugin that ends the process, so that no further step is done, and a run that then counts as complete.
#[test]
fn a_worker_that_calls_exit_is_a_failed_run_whatever_the_code() {
    let within = "before its work was done in plugin `candle`, call `loss`, step 12";
    for (what, code, expected) in
        [("quit", 0, within), ("quit-2", 2, within), ("quit-late", 3, "after its work was done")]
    {
        let (output, errors) = run(what);
        assert_eq!(output.status.code(), Some(1), "{what}: {errors}");
        assert!(errors.contains(&format!("exited with code {code} {expected}")), "{what}: {errors}");
    }
}

/// Catches a temporary file that is left for each run that is killed with its parent.
#[test]
fn killing_both_leaves_no_temporary_file() {
    let (runs, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = part_of("stuck", runs.path());
    let (mut parent, _, mut lines) = start(command.env("TMPDIR", temporary.path()));
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(lines.all(|line| line.unwrap() != "saved"));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

/// Catches a run that requires a temporary folder, and a crash that is reported with less detail without one.
#[cfg(target_os = "linux")]
#[test]
fn no_temporary_folder_is_needed() {
    for (what, code, expected) in
        [("done", 0, ""), ("kill", 1, "in plugin `candle`, call `loss`, step 12"), ("quit", 1, "step 12")]
    {
        let runs = tempfile::tempdir().unwrap();
        let output = part_of(what, runs.path()).env("TMPDIR", "/nonexistent").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && errors.contains(expected), "{what}: {errors}");
    }
}

/// Catches a process started by the worker that can write its own calls and its own end into the worker's file.
#[cfg(target_os = "linux")]
#[test]
fn what_the_worker_starts_does_not_inherit_the_file() {
    let (output, errors) = run("children");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("descriptors: ") && printed.contains("->"), "{printed} {errors}");
    assert!(!printed.contains("telos-breadcrumb"), "{printed}");
}

/// Catches a request of the user, or a limit on processor time, that counts as a backend's death, and SIGKILL that looks as others.
#[test]
fn a_death_that_can_be_left_out_has_certain_signals() {
    let killed = |signal: i32| {
        let trace = Trace { part: 1, ..Trace::default() };
        Ended { status: ExitStatus::from_raw(signal), trace, stopped: false }.death().map(|death| death.killed)
    };
    assert_eq!([SIGKILL, SIGSEGV, SIGQUIT, SIGXCPU].map(killed), [Some(true), Some(false), None, None]);
}

/// Catches a worker without breadcrumbs whose normal end is taken for a crash.
#[test]
fn without_breadcrumbs_an_exit_code_is_used() {
    let ended = |code: i32| ExitStatus::from_raw(code << 8);
    for code in [0, 2] {
        let trace = Trace { finished: Some(code), ..Trace::default() };
        assert_eq!(exit_number(report(ended(code.into()), &trace, &[])), i32::from(code));
    }
    assert_eq!(exit_number(report(ExitStatus::from_raw(11), &Trace::default(), &[])), 1);
}

/// Starts a supervisor and its worker, and waits until that is ready; returns the worker's process number, and
/// their output.
fn start(command: &mut Command) -> (Child, Pid, Lines<BufReader<ChildStdout>>) {
    let mut parent = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let ready = lines.find_map(|line| line.unwrap().rsplit_once("ready ").map(|(_, pid)| pid.parse().unwrap()));
    (parent, Pid::from_raw(ready.unwrap()).unwrap(), lines)
}

/// Catches a parent that dies of the signal and leaves the child alone, or does not wait until it has saved; and a
/// terminal's Ctrl-C, which reaches both, that is counted twice.
#[test]
fn after_a_signal_the_worker_saves_and_the_exit_code_is_130() {
    for (signal, to_both) in [(Signal::TERM, false), (Signal::INT, false), (Signal::INT, true)] {
        let runs = tempfile::tempdir().unwrap();
        let (mut parent, worker, mut lines) = start(&mut part_of("loop", runs.path()));
        if to_both {
            kill_process(worker, signal).unwrap();
        }
        kill_process(Pid::from_child(&parent), signal).unwrap();
        assert!(lines.any(|line| line.unwrap() == "saved"));
        assert_eq!(parent.wait().unwrap().code(), Some(130));
    }
}

/// Catches a run that survives its killed parent: it would continue writing unnoticed.
#[test]
fn killing_the_parent_kills_the_worker() {
    let runs = tempfile::tempdir().unwrap();
    let (mut parent, worker, mut lines) = start(&mut part_of("stuck", runs.path()));
    parent.kill().unwrap();
    parent.wait().unwrap();
    // The worker held the other end of this pipe, which closes when the worker ends.
    assert!(lines.all(|line| line.unwrap() != "saved"));
    if !wait_until(Duration::from_millis(10), || test_kill_process(worker).is_err() || is_zombie(worker)) {
        kill_process(worker, Signal::KILL).unwrap();
        panic!("the worker continues without its parent");
    }
}

/// Whether the process is dead, and only waits for its parent to collect it.
fn is_zombie(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).is_ok_and(|stat| stat.contains(") Z "))
}

/// Catches an endless loop in a plugin that is ended without naming the plugin.
#[test]
fn a_second_ctrl_c_in_an_endless_loop_names_the_plugin() {
    let runs = tempfile::tempdir().unwrap();
    let (mut parent, _, mut lines) = start(&mut part_of("stuck", runs.path()));
    kill_process(Pid::from_child(&parent), Signal::INT).unwrap();
    assert!(lines.any(|line| line.unwrap().contains("press Ctrl-C again")));
    let ended = wait_until(Duration::from_millis(50), || {
        let ended = parent.try_wait().unwrap().is_some();
        if !ended {
            _ = kill_process(Pid::from_child(&parent), Signal::INT);
        }
        ended
    });
    if !ended {
        parent.kill().unwrap();
        panic!("the second Ctrl-C does not end the run");
    }
    let output = parent.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130));
    assert!(errors.contains("telos was stopped in plugin `candle`, call `loss`, step 12"), "{errors}");
}
