//! The counts of all faults in `tests/results/faults.md`, a part for each test.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

const HEAD: &str = "# Faults of the disk, and early ends

Counts of the tests in `tests/e2e/faults`, written by `TELOS_RESULTS=1 cargo xtask test --full`. Every trial disturbs one tiny run
and resumes it. Three outcomes are right: the run has the same bits as an undisturbed one; it is refused with the file's name, and
has the same bits once it is resumed; it reports a message about the file and has the same bits (a cache that could not be
written, and was named, may lack what a later run computes again). Anything else is a fault. *Something left over*: the same bits,
but a temporary file or a checkpoint that rotation would have removed remains. *Not reached*: the run ended before that call.
";

/// One part at a time: each takes all cores.
static TURN: Mutex<()> = Mutex::new(());

/// A part of the results in progress.
pub struct Part {
    title: &'static str,
    start: Instant,
    _turn: MutexGuard<'static, ()>,
}

impl Part {
    /// Starts when no other part is in progress.
    pub fn begin(title: &'static str) -> Part {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Part { title, start: Instant::now(), _turn: turn }
    }

    /// Prints the part, writes it to the file if `TELOS_RESULTS` is set, and fails if there were faults.
    #[track_caller]
    pub fn end(self, tables: &[String], wrong: &[String]) {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let (date, commit) = (first_line("date", &["-u", "+%F"]), first_line("git", &["rev-parse", "--short", "HEAD"]));
        let minutes = self.start.elapsed().as_secs_f64() / 60.0;
        let text = format!(
            "{date}, commit {commit}, {cores} cores of {}; {minutes:.1} minutes, {} faults.\n\n{}",
            processor(),
            wrong.len(),
            tables.join("\n")
        );
        println!("## {}\n\n{text}", self.title);
        if std::env::var_os("TELOS_RESULTS").is_some() {
            write(self.title, text);
        }
        assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
    }
}

/// Writes a part into the file, replacing an earlier one with its title.
fn write(title: &str, text: String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/faults.md");
    let before = fs::read_to_string(&file).unwrap_or_default();
    let parts = before.split("\n## ").skip(1).filter_map(|part| part.split_once("\n\n"));
    let mut parts: BTreeMap<&str, String> = parts.map(|(title, text)| (title, text.to_owned())).collect();
    parts.insert(title, text);
    let parts = parts.iter().map(|(title, text)| format!("\n## {title}\n\n{}\n", text.trim_end()));
    fs::write(file, HEAD.to_owned() + &parts.collect::<String>()).expect("the results are written");
}

/// The first line that a program prints; `unknown` without one.
fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success());
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}
