//! Progress output during a run: a bar with the latest metrics on a terminal, about twenty plain lines elsewhere.
//!
//! All of it is written to standard error; standard output is for a command's result, so that `--json` can be
//! piped. Which lines are printed depends only on step numbers, so that the log of a resumed run shows the same
//! steps.

mod sparkline;
mod view;

use super::events::Events;
use crate::decimals::fixed;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use view::View;

/// The least time between two lines of a task.
const PAUSE: Duration = Duration::from_secs(3);

/// Number of lines that a whole run prints without a terminal, besides messages.
const LINES: u64 = 20;

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// A bar if standard error is a terminal, lines if not.
    Auto,
    /// Messages only.
    Quiet,
}

/// How a run is watched.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Where progress is shown.
    pub show: Show,
    /// The metric whose curve a terminal shows; `None`: the loss.
    pub metric: Option<String>,
    /// What programs receive.
    pub events: Events,
}

impl From<Show> for Watch {
    /// The loss, and no program.
    fn from(show: Show) -> Watch {
        Watch { show, metric: None, events: Events::default() }
    }
}

/// A run's progress. Clones share one display, so that a signal handler's thread may print above the bar.
#[derive(Clone)]
pub struct Progress {
    display: Display,
    total: u64,
    first: u64,
    started: Instant,
    /// What a bar shows below itself.
    view: Arc<Mutex<View>>,
}

#[derive(Clone)]
enum Display {
    Bar(ProgressBar),
    Lines { to: Arc<Mutex<dyn Write + Send>>, steps: bool },
}

impl Progress {
    /// Progress from step `done` (0 for a new run) to step `total`.
    pub fn new(done: u64, total: u64, watch: &Watch) -> Self {
        let Watch { show, metric, .. } = watch.clone();
        if show == Show::Auto && io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style(None));
            bar.set_position(done);
            bar.reset_eta();
            Self { view: Arc::new(Mutex::new(View::new(metric))), ..Self::with(Display::Bar(bar), done, total) }
        } else {
            Self::lines(io::stderr(), show == Show::Auto, done, total)
        }
    }

    fn lines(to: impl Write + Send + 'static, steps: bool, done: u64, total: u64) -> Self {
        Self::with(Display::Lines { to: Arc::new(Mutex::new(to)), steps }, done, total)
    }

    fn with(display: Display, first: u64, total: u64) -> Self {
        Self { display, total, first, started: Instant::now(), view: Arc::default() }
    }

    /// Shows that optimizer step `step` (the first is 1) is done, with its loss, its metrics and its speed.
    pub fn step(&self, step: u64, loss: f64, metrics: &[(String, f64)], tokens_per_second: f64) {
        let speed = format!("{} tokens/s", short(tokens_per_second));
        match &self.display {
            Display::Bar(bar) => {
                if let Ok(mut view) = self.view.lock() {
                    view.step(loss, metrics);
                    bar.set_message(view.numbers());
                }
                bar.set_prefix(speed);
                bar.set_position(step);
            }
            Display::Lines { steps, .. } if *steps && is_shown(step, self.first, self.total) => {
                let left =
                    left(self.started.elapsed(), step.saturating_sub(self.first), self.total.saturating_sub(step));
                self.message(&format!("step {step}/{}  loss {}  {speed}{left}", self.total, fixed(loss, 4)));
            }
            Display::Lines { .. } => {}
        }
    }

    /// Shows the first line of a sample below the bar.
    pub fn sample(&self, text: &str) {
        if let Display::Bar(bar) = &self.display
            && let Ok(mut view) = self.view.lock()
        {
            view.sample(text);
            bar.set_style(style(view.sampled()));
        }
    }

    /// Shows the progress of work before the next step: `total` is a number of `unit`, such as "rows scored".
    pub fn task(&self, unit: &str, total: u64) -> Task {
        if let Display::Bar(bar) = &self.display
            && total > 0
        {
            bar.set_style(task_style());
            bar.set_message(unit.to_owned());
            bar.set_length(total);
            bar.set_position(0);
            bar.reset_eta();
        }
        Task {
            progress: self.clone(),
            unit: unit.to_owned(),
            total,
            shown: Cell::new(0),
            note: RefCell::default(),
            started: Instant::now(),
            last: Cell::new(Instant::now()),
        }
    }

    /// Prints a line for the user, above the bar if there is one: an evaluation, a warning, a checkpoint.
    pub fn message(&self, text: &str) {
        match &self.display {
            Display::Bar(bar) => bar.suspend(|| eprint_line(text)),
            Display::Lines { to, .. } => {
                if let Ok(mut to) = to.lock() {
                    // The reader closed the pipe on purpose; the run continues.
                    _ = writeln!(to, "{text}");
                }
            }
        }
    }

    /// Removes the bar; later output is printed as usual.
    pub fn finish(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

/// Work before the next step; see [`Progress::task`].
pub struct Task {
    progress: Progress,
    unit: String,
    total: u64,
    /// How much was done when the last line was printed.
    shown: Cell<u64>,
    /// What is shown behind the unit.
    note: RefCell<String>,
    started: Instant,
    /// When the last line was printed, or the work began.
    last: Cell<Instant>,
}

impl Task {
    /// Shows that `done` of the total are done.
    pub fn done(&self, done: u64) {
        let (before, total) = (self.shown.get(), self.total);
        match &self.progress.display {
            Display::Bar(bar) => bar.set_position(done),
            Display::Lines { steps: true, .. } if is_due(before, done, total, self.last.get().elapsed()) => {
                self.shown.set(done);
                self.last.set(Instant::now());
                let left = left(self.started.elapsed(), done, total.saturating_sub(done));
                let note = self.note.borrow();
                let gap = if note.is_empty() { "" } else { "  " };
                self.progress.message(&format!("{done}/{total} {}{gap}{note}{left}", self.unit));
            }
            Display::Lines { .. } => {}
        }
    }

    /// Shows `text`, such as a speed, behind the unit.
    pub fn note(&self, text: &str) {
        if let Display::Bar(bar) = &self.progress.display {
            bar.set_message(format!("{}  {text}", self.unit));
        }
        text.clone_into(&mut self.note.borrow_mut());
    }

    /// Shows the steps in the bar again.
    pub fn finish(self) {
        if let Display::Bar(bar) = &self.progress.display
            && self.total > 0
        {
            bar.set_style(style(None));
            bar.set_message(String::new());
            bar.set_length(self.progress.total);
            bar.set_position(self.progress.first);
            bar.reset_eta();
        }
    }
}

fn eprint_line(text: &str) {
    _ = writeln!(io::stderr().lock(), "{text}");
}

fn task_style() -> ProgressStyle {
    let template = "{bar:24} {pos}/{len} {msg}  {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The template of the bar; with a line for a sample.
fn template(has_sample: bool) -> &'static str {
    if has_sample {
        "{bar:24} {pos}/{len}  {prefix}  {eta} left\n{wide_msg}\n{sample}"
    } else {
        "{bar:24} {pos}/{len}  {prefix}  {eta} left\n{wide_msg}"
    }
}

fn style(sample: Option<&str>) -> ProgressStyle {
    let style = ProgressStyle::with_template(template(sample.is_some()));
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    match sample.map(str::to_owned) {
        None => style,
        Some(line) => {
            style.with_key("sample", move |_: &ProgressState, to: &mut dyn fmt::Write| _ = to.write_str(&line))
        }
    }
}

/// Whether a plain line is printed at `step`: at the run's first and last step, at the first after a resume, and
/// whenever another twentieth of the run is done.
fn is_shown(step: u64, first: u64, total: u64) -> bool {
    step == first + 1 || step >= total || part(step, total) != part(step.saturating_sub(1), total)
}

/// Whether a plain line is printed when `done` of the total are done: at the end, and whenever another twentieth is done, unless the
/// line before, at `before`, is only `since` old.
fn is_due(before: u64, done: u64, total: u64, since: Duration) -> bool {
    done >= total || since >= PAUSE && (before == 0 || part(done, total) != part(before, total))
}

/// The number of twentieths that are done.
fn part(done: u64, total: u64) -> u128 {
    u128::from(done) * u128::from(LINES) / u128::from(total.max(1))
}

fn left(elapsed: Duration, done: u64, to_do: u64) -> String {
    if done == 0 || to_do == 0 {
        return String::new();
    }
    let seconds = elapsed.as_secs_f64() / done as f64 * to_do as f64;
    match Duration::try_from_secs_f64(seconds) {
        Ok(left) => format!("  {:#} left", HumanDuration(left)),
        Err(_) => String::new(),
    }
}

/// A speed with three digits: 870, 12.3k, 4.56M.
fn short(number: f64) -> String {
    let (scaled, unit) = match number {
        n if n >= 1e6 => (n / 1e6, "M"),
        n if n >= 1e3 => (n / 1e3, "k"),
        n => return format!("{n:.0}"),
    };
    let digits = if scaled >= 100.0 {
        0
    } else if scaled >= 10.0 {
        1
    } else {
        2
    };
    format!("{scaled:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(first: u64, total: u64) -> Vec<u64> {
        (first + 1..=total).filter(|step| is_shown(*step, first, total)).collect()
    }

    /// Catches a log of thousands of lines, one without its first or last step, and one without lines for short
    /// runs.
    #[test]
    fn a_run_prints_about_twenty_lines_whatever_its_length() {
        assert_eq!(shown(0, 5), [1, 2, 3, 4, 5]);
        assert_eq!(shown(0, 2000).len(), 21);
        assert_eq!(shown(0, 2000)[..3], [1, 100, 200]);
        assert_eq!(shown(0, 2003).last(), Some(&2003));
        assert!(shown(0, 0).is_empty());
    }

    /// Catches twenty lines about work that takes a moment, and long work without a line.
    #[test]
    fn short_work_prints_only_its_last_line() {
        let lines =
            |since: u64| (1..=60).filter(|done| is_due(done - 1, *done, 60, Duration::from_secs(since))).count();
        assert_eq!((lines(0), lines(10)), (1, 21));
        assert!(is_due(0, 1, 60, PAUSE) && !is_due(1, 2, 60, PAUSE));
    }

    /// Catches a schedule that counts from the resume and so shows different steps from an uninterrupted run.
    #[test]
    fn a_resumed_run_shows_the_steps_that_the_uninterrupted_one_shows() {
        let whole = shown(0, 2000);
        let resumed = shown(730, 2000);
        assert_eq!(resumed[0], 731);
        assert!(resumed[1..].iter().all(|step| whole.contains(step)), "{resumed:?}");
    }

    /// Catches messages lost in quiet mode, steps printed there, and lines without their numbers.
    #[test]
    fn lines_show_loss_and_speed_and_quiet_mode_shows_only_messages() {
        let text = Arc::new(Mutex::new(Vec::new()));
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for steps in [true, false] {
            let progress = Progress::lines(Shared(text.clone()), steps, 0, 1);
            progress.step(1, 2.34567, &[("kl".to_owned(), 1.0)], 12_345.0);
            progress.clone().message("eval: loss 2.3");
            progress.finish();
        }
        let text = String::from_utf8(text.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "step 1/1  loss 2.3457  12.3k tokens/s\neval: loss 2.3\neval: loss 2.3\n");
    }

    /// Catches a wrong unit or digit, and a remaining time that divides by zero or counts steps before the resume.
    #[test]
    fn speeds_have_three_digits_and_time_left_uses_the_steps_of_this_process() {
        assert_eq!([0.4, 870.2, 1234.0, 123_456.0, 4.56e6].map(short), ["0", "870", "1.23k", "123k", "4.56M"]);
        assert_eq!(left(Duration::from_secs(10), 10, 120), "  2m left");
        assert_eq!(left(Duration::from_secs(10), 0, 120), "");
        assert_eq!(left(Duration::MAX, 1, u64::MAX), "");
    }

    /// Catches an error in the bar's templates, which would silently fall back to another style.
    #[test]
    fn the_bars_templates_are_valid() {
        for has_sample in [false, true] {
            assert!(ProgressStyle::with_template(template(has_sample)).is_ok());
        }
    }
}
