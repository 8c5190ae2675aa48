//! The tests whose numbers depend on the processor, once for each instruction set that a library can be forced to.
//!
//! A result that is right on one machine only is wrong; another machine's instruction set shows most of the differences. A setting
//! that the machine lacks or a library ignores does not count as a test: it is reported as not run.

use crate::{
    cargo::{self, Workspace},
    errors::Result,
    torch::Libtorch,
};
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// The sets of candle's kernels, as values of `TELOS_CANDLE_ISA`.
pub const CANDLE: &[&str] = &["amx", "avx512bf16", "avx512", "avx2", "baseline"];

/// Part of candle's error for a set that this processor lacks.
const LACKS: &str = "which this processor lacks";

/// An instruction set of libtorch's libraries.
pub struct Forced {
    /// Its name in the summary.
    pub name: &'static str,
    /// Each library, the value of its variable, and the library's name for the set in use.
    libraries: [(Library, &'static str, &'static str); 3],
}

/// A part of libtorch that chooses its instruction set itself.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Library {
    /// Kernels of libtorch itself.
    Aten,
    /// Products in bf16.
    OneDnn,
    /// Products in f32 and f64.
    Mkl,
}

impl Library {
    fn name(self) -> &'static str {
        match self {
            Library::Aten => "ATen",
            Library::OneDnn => "oneDNN",
            Library::Mkl => "MKL",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Library::Aten => "ATEN_CPU_CAPABILITY",
            Library::OneDnn => "ONEDNN_MAX_CPU_ISA",
            Library::Mkl => "MKL_ENABLE_INSTRUCTIONS",
        }
    }

    /// The set in use, read from the output of the test that prints it.
    fn in_use(self, output: &str) -> Option<&str> {
        let after = |mark: &str| output.lines().find_map(|line| Some(line.split_once(mark)?.1.trim()));
        match self {
            Library::Aten => after("ATen instruction set: "),
            Library::OneDnn => after("cpu,isa:"),
            Library::Mkl => {
                let line =
                    output.lines().find(|line| line.starts_with("MKL_VERBOSE") && line.contains("architecture"))?;
                Some(
                    line.split_once("architecture")?
                        .1
                        .split(',')
                        .next()?
                        .trim()
                        .trim_end_matches(" enabled processors"),
                )
            }
        }
    }
}

/// Sets of libtorch, lowest first.
pub const TORCH: &[Forced] = &[
    Forced {
        name: "SSE4",
        libraries: [
            (Library::Aten, "default", "DEFAULT"),
            (Library::OneDnn, "SSE41", "Intel SSE4.1"),
            (Library::Mkl, "SSE4_2", "(Intel(R) SSE4.2)"),
        ],
    },
    Forced {
        name: "AVX2",
        libraries: [
            (Library::Aten, "avx2", "AVX2"),
            (Library::OneDnn, "AVX2", "Intel AVX2"),
            (Library::Mkl, "AVX2", "(Intel(R) AVX2)"),
        ],
    },
    Forced {
        name: "AVX-512",
        libraries: [
            (Library::Aten, "avx512", "AVX512"),
            (Library::OneDnn, "AVX512_CORE", "Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions"),
            (Library::Mkl, "AVX512", "(Intel(R) AVX-512)"),
        ],
    },
];

/// Which libraries use a setting.
#[derive(Debug, PartialEq)]
pub struct Applied {
    /// Those that use it.
    pub forced: Vec<&'static str>,
    /// Those that do not, with the set that they use.
    pub ignored: Vec<String>,
}

impl Applied {
    /// One line for the summary.
    pub fn note(&self) -> String {
        let forced = if self.forced.is_empty() { "nothing".to_owned() } else { self.forced.join(", ") };
        match self.ignored.is_empty() {
            true => format!("forced: {forced}"),
            false => format!("forced: {forced}; NOT RUN: {}", self.ignored.join(", ")),
        }
    }
}

impl Forced {
    fn set(&self, command: &mut Command) {
        for (library, value, _) in &self.libraries {
            command.env(library.variable(), value);
        }
    }

    /// Runs the test that prints the set of each library.
    ///
    /// # Errors
    /// If that test cannot be run.
    pub fn probe(&self, libtorch: &Libtorch, workspace: &Workspace, folder: &Path) -> Result<Applied> {
        let mut command = libtorch.cargo(workspace, "test")?;
        self.set(&mut command);
        let only = ["--test", "conformance", "--", "--exact", "the_instruction_sets_in_use_are_printed", "--nocapture"];
        command.args(only).env("ONEDNN_VERBOSE", "1").env("MKL_VERBOSE", "1").env("TELOS_TEST_BIN", folder);
        let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("cannot run cargo test: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(format!("libtorch does not start with {}:\n{text}", self.name));
        }
        Ok(self.applied(&text))
    }

    fn applied(&self, output: &str) -> Applied {
        let mut applied = Applied { forced: Vec::new(), ignored: Vec::new() };
        for (library, value, expected) in &self.libraries {
            match library.in_use(output) {
                Some(used) if used.ends_with(expected) => applied.forced.push(library.name()),
                Some(used) => applied.ignored.push(format!("{} ignores {value}, it uses {used}", library.name())),
                None => applied.ignored.push(format!("{} was not called with {value}", library.name())),
            }
        }
        applied
    }

    /// The torch plugin's own tests, with this set.
    ///
    /// # Errors
    /// If cargo cannot be called.
    pub fn plugin_tests(&self, libtorch: &Libtorch, workspace: &Workspace) -> Result<Command> {
        let mut command = libtorch.cargo(workspace, "test")?;
        self.set(&mut command);
        command.arg("--no-fail-fast");
        Ok(command)
    }

    /// Trajectories and oracles of models, on every backend, with this set.
    ///
    /// # Errors
    /// If cargo cannot be called.
    pub fn model_tests(&self) -> Result<Command> {
        let mut command = cargo::cargo()?;
        self.set(&mut command);
        command.args(["test", "--release", "--workspace", "--test", "model", "--no-fail-fast"]);
        Ok(command)
    }

    /// Runs through the built program that train on the torch plugin, with this set.
    ///
    /// # Errors
    /// If cargo cannot be called.
    pub fn runs(&self) -> Result<Command> {
        let mut command = cargo::cargo()?;
        self.set(&mut command);
        command.args(["test", "--release", "--workspace", "--test", "e2e", "backends::torch::"]);
        Ok(command)
    }
}

/// The tests of candle whose numbers depend on its kernels, with `isa`: conformance and agreement with the reference, then
/// trajectories and oracles of models, then runs of the built program.
///
/// # Errors
/// If cargo cannot be called.
pub fn candle_tests(isa: &str) -> Result<Vec<Command>> {
    let mut commands = Vec::new();
    for rest in
        [&["--test", "suite", "--test", "model", "--no-fail-fast"][..], &["--test", "e2e", "real_data::golden::"]]
    {
        let mut command = cargo::cargo()?;
        command.args(["test", "--release", "--workspace"]).args(rest).env("TELOS_CANDLE_ISA", isa);
        commands.push(command);
    }
    Ok(commands)
}

/// Why candle's kernels cannot be forced to `isa` here; `None` if they can. Opens candle through the host to find out.
///
/// # Errors
/// If the host cannot be run, or refuses the set for another reason.
pub fn candle_lacks(isa: &str, host: &Path) -> Result<Option<String>> {
    let mut command = Command::new(host);
    command.args(["plugins", "verify", "candle", "--only", "nop"]).env("TELOS_CANDLE_ISA", isa);
    let output = command.output().map_err(|e| format!("cannot run {}: {e}", host.display()))?;
    let error = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(None),
        false if error.contains(LACKS) => Ok(Some(format!("this processor lacks {isa}"))),
        false => Err(format!("candle cannot be opened with {isa}: {error}{}", String::from_utf8_lossy(&output.stdout))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a setting that counts as tested although the library ignored it, and a line that is read wrongly.
    #[test]
    fn an_ignored_setting_is_reported_as_not_run() {
        let output = "running 1 test\n\
            ATen instruction set: AVX2\n\
            MKL_VERBOSE oneMKL 2024.0 Update 2 Product build 20240605 for Intel(R) 64 architecture Intel(R) Advanced Vector \
            Extensions 512 (Intel(R) AVX-512) enabled processors, Lnx 2.45GHz lp64 gnu_thread\n\
            onednn_verbose,v1,info,cpu,isa:Intel AVX2\n";
        let applied = TORCH[1].applied(output);
        assert_eq!(applied.forced, ["ATen", "oneDNN"]);
        assert!(applied.ignored.len() == 1 && applied.ignored[0].contains("MKL ignores AVX2, it uses"), "{applied:?}");
        assert!(applied.note().contains("NOT RUN: MKL"), "{}", applied.note());
        let other = TORCH[2].applied(output);
        assert_eq!(other.forced, ["MKL"]);
        let silent = TORCH[0].applied("running 1 test\n");
        assert!(silent.forced.is_empty() && silent.ignored.len() == 3, "{silent:?}");
    }
}
