//! The logs of a run: metrics.jsonl (the same bits every time), timing.jsonl (what may differ between two equal runs),
//! samples.jsonl, and histograms.jsonl if anything is counted in bins.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use plugin_api::backend::Memory;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    operations::MeasuredSteps,
    optional_log::{OptionalLog, lines_until},
    state::{Logs, TrainState},
};
use crate::{
    decimals::fixed,
    error::{Error, Result},
    generate::text::SampleText,
    optimizer::kind::Gradient,
    runs::{
        disk::{shown, sync_folder},
        events::Events,
        folder::RunFolder,
        jsonl::{JsonLines, Lines},
    },
    track::{Log, LogLine, TensorBoard},
    train::{
        alerts::{AlertChange, Line},
        eval::evaluator::{AnswerLines, Figures},
        histogram::Distribution,
        memory::process::process_memory,
        rollout::sampling::AnswerRecord,
        step::gradient::WindowLoss,
    },
};

/// The four files, and the events that programs receive: a line that is written becomes an event.
pub struct Records {
    metrics: JsonLines,
    timing: JsonLines,
    samples: JsonLines,
    histograms: OptionalLog,
    /// The part of each file that belongs to completed steps, evaluations and samples.
    done: [Lines; 4],
    /// Shows the lines; absent if the experiment does not ask for it, and after a failure.
    shown_by: Option<TensorBoard>,
    /// Lines that are not yet shown, because they may still be removed.
    not_shown: Vec<LogLine>,
    /// Why nothing more is shown.
    failure: Option<String>,
    events: Events,
}

/// Seconds of a step's phases.
pub struct Phases {
    last: Instant,
    seconds: Vec<(&'static str, f64)>,
}

impl Phases {
    /// Starts the clock.
    pub fn start() -> Phases {
        Phases { last: Instant::now(), seconds: Vec::new() }
    }

    /// Ends the phase that began at the last end.
    pub fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        self.seconds.push((name, (now - self.last).as_secs_f64()));
        self.last = now;
    }

    /// Returns the seconds of all phases that have ended.
    pub fn total(&self) -> f64 {
        self.seconds.iter().map(|(_, seconds)| seconds).sum::<f64>().max(1e-9)
    }
}

/// A training step's line in the logs.
pub struct StepLine<'a> {
    /// Steps done, this one included.
    pub step: u64,
    /// Learning rate used.
    pub lr: f64,
    /// The gradient before clipping.
    pub gradient: Gradient,
    /// Whether the update was applied.
    pub finite: bool,
    /// Context length used.
    pub context: usize,
    /// Loss and metrics.
    pub out: &'a WindowLoss,
}

impl Records {
    /// Opens the files of a run and truncates them to the lines of its checkpoint, whose state is `state`; without one, to
    /// nothing.
    ///
    /// # Errors
    /// Errors of the file system; files that do not belong to the checkpoint, before any of them is truncated.
    pub fn open(folder: &RunFolder, state: Option<&TrainState>, events: Events) -> Result<Records> {
        let lines = state.map(|state| state.logs.clone()).unwrap_or_default();
        JsonLines::check(&folder.metrics(), &lines.metrics)?;
        JsonLines::check(&folder.samples(), &lines.samples)?;
        let timing = state.map_or_else(|| Ok(Lines::default()), |state| lines_until(&folder.timing(), state))?;
        let metrics = JsonLines::open(&folder.metrics(), &lines.metrics)?;
        let samples = JsonLines::open(&folder.samples(), &lines.samples)?;
        let timing = JsonLines::open(&folder.timing(), &timing)?;
        let histograms = OptionalLog::open(&folder.histograms(), state)?;
        if let Some(folder) = folder.metrics().parent() {
            sync_folder(folder)?;
        }
        let done = [metrics.lines(), timing.lines(), samples.lines(), histograms.lines()];
        let (shown_by, not_shown, failure) = Default::default();
        Ok(Records { metrics, timing, samples, histograms, done, shown_by, not_shown, failure, events })
    }

    /// Writes event files for TensorBoard from now on, which replace earlier ones after `step` steps; `None`: a run that begins.
    /// A failure does not end the run: [`Records::take_failure`] returns it.
    pub fn show(&mut self, folder: &Path, step: Option<u64>) {
        match TensorBoard::create(folder, step.map_or(0, |step| step + 1)) {
            Ok(board) => self.shown_by = Some(board),
            Err(cause) => self.failed_to_show(folder, &cause),
        }
    }

    /// Takes the reason why nothing more is shown, if there is a new one.
    pub fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    fn failed_to_show(&mut self, path: &Path, cause: &io::Error) {
        let path = shown(path);
        self.failure = Some(format!(
            "track.tensorboard: cannot write {}: {cause}: TensorBoard gets nothing more of this run; its own logs are complete, \
             and `telos report` shows them",
            path.display()
        ));
        self.shown_by = None;
        self.not_shown = Vec::new();
    }

    /// Appends a line to one of the logs.
    fn append(&mut self, log: Log, line: Value) -> Result<()> {
        match log {
            Log::Metrics => self.metrics.append(&line),
            Log::Timing => self.timing.append(&line),
            Log::Samples => self.samples.append(&line),
            Log::Histograms => self.histograms.append(&line),
        }?;
        if self.shown_by.is_some() {
            self.not_shown.push(LogLine { log, line });
        }
        Ok(())
    }

    /// Marks everything written so far as belonging to completed steps, evaluations and samples.
    pub fn done(&mut self) {
        let Records { metrics, timing, samples, histograms, .. } = self;
        self.done = [metrics.lines(), timing.lines(), samples.lines(), histograms.lines()];
        let Some(board) = &mut self.shown_by else { return };
        let written = board.write(&std::mem::take(&mut self.not_shown));
        if let Err(cause) = written {
            let path = board.path().to_owned();
            self.failed_to_show(&path, &cause);
        }
    }

    /// Writes a training step and returns its line of metrics.jsonl. Numbers that are not finite are written as null.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn step(&mut self, line: &StepLine<'_>, phases: &Phases, memory: Memory) -> Result<Line> {
        let mut metrics = Map::new();
        metrics.insert("step".into(), line.step.into());
        metrics.insert("kind".into(), "train".into());
        metrics.insert("loss".into(), number(line.out.loss));
        metrics.insert("lr".into(), number(line.lr));
        metrics.insert("grad_norm".into(), number(line.gradient.norm));
        metrics.insert("tokens".into(), line.out.tokens.into());
        metrics.insert("context".into(), line.context.into());
        if !line.finite {
            metrics.insert("refused".into(), true.into());
        }
        for (name, value) in &line.out.metrics {
            metrics.insert(name.clone(), number(*value));
        }
        self.append(Log::Metrics, Value::Object(metrics.clone()))?;
        let seconds: Map<String, Value> = phases.seconds.iter().map(|(n, s)| ((*n).to_owned(), number(*s))).collect();
        let timing = json!({
            "step": line.step,
            "kind": "train",
            "tokens_per_s": line.out.tokens as f64 / phases.total(),
            "seconds": seconds,
            "memory_bytes": memory.in_use,
            "memory_peak_bytes": memory.peak,
            "process_peak_bytes": process_memory().map(|process| process.peak),
        });
        self.append(Log::Timing, timing)?;
        let mut event = metrics.clone();
        event.insert("tokens_per_s".into(), number(line.out.tokens as f64 / phases.total()));
        self.events.emit("step", &event);
        Ok(metrics)
    }

    /// Writes an evaluation and returns its line of metrics.jsonl.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn evaluation(&mut self, step: u64, figures: &Figures, elapsed: Duration) -> Result<Line> {
        let mut metrics = Map::new();
        metrics.insert("step".into(), step.into());
        metrics.insert("kind".into(), "eval".into());
        for (name, value) in figures {
            metrics.insert(format!("eval/{name}"), number(*value));
        }
        self.append(Log::Metrics, Value::Object(metrics.clone()))?;
        self.append(Log::Timing, json!({ "step": step, "kind": "eval", "seconds": elapsed.as_secs_f64() }))?;
        self.events.emit("eval", &metrics);
        Ok(metrics)
    }

    /// Writes samples.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn samples(&mut self, step: u64, texts: &[SampleText]) -> Result<()> {
        texts.iter().try_for_each(|text| self.sample(sample(step, text)))
    }

    fn sample(&mut self, line: Value) -> Result<()> {
        self.events.emit("sample", &line);
        self.append(Log::Samples, line)
    }

    /// Writes answers of the rollout that a step drew, each with its reward.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn answers(&mut self, step: u64, answers: &[AnswerRecord]) -> Result<()> {
        answers.iter().try_for_each(|AnswerRecord { text, reward }| {
            let mut line = sample(step, text);
            line["reward"] = number(*reward);
            self.sample(line)
        })
    }

    /// Writes the answers that a metric of an evaluation counted.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn evaluated_answers(&mut self, step: u64, answers: AnswerLines) -> Result<()> {
        answers.into_iter().try_for_each(|answer| {
            let line: Map<String, Value> = [("step".to_owned(), step.into())].into_iter().chain(answer).collect();
            self.append(Log::Samples, Value::Object(line))
        })
    }

    /// Writes distributions of a rollout (`kind` is `train`) or of an evaluation (`eval`).
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn distributions(&mut self, step: u64, kind: &'static str, all: &[Distribution]) -> Result<()> {
        all.iter().try_for_each(|distribution| {
            let own = serde_json::to_value(distribution)
                .map_err(|cause| Error::run("cannot write a distribution as JSON").with_cause(cause))?;
            let mut line = Map::from_iter([("step".to_owned(), step.into()), ("kind".to_owned(), kind.into())]);
            line.extend(own.as_object().cloned().unwrap_or_default());
            self.append(Log::Histograms, Value::Object(line))
        })
    }

    /// Writes the time of operations to timing.jsonl.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn operations(&mut self, step: u64, measured: &MeasuredSteps) -> Result<()> {
        let own = serde_json::to_value(measured)
            .map_err(|cause| Error::run("cannot write the time of operations as JSON").with_cause(cause))?;
        let mut line = Map::from_iter([("step".to_owned(), step.into()), ("kind".to_owned(), "operations".into())]);
        line.extend(own.as_object().cloned().unwrap_or_default());
        self.append(Log::Timing, Value::Object(line))
    }

    /// Writes a note to timing.jsonl, since notes may differ between a run and the same run resumed.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn note(&mut self, step: u64, text: &str) -> Result<()> {
        let line = json!({ "step": step, "kind": "note", "text": text });
        self.events.emit("note", &line);
        self.append(Log::Timing, line)
    }

    /// Writes to timing.jsonl that an alert began or ended, so that metrics.jsonl has the same bits whichever alerts there are.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn alert(&mut self, change: &AlertChange) -> Result<()> {
        let line = json!({
            "step": change.step,
            "kind": "alert",
            "name": change.name,
            "metric": change.metric,
            "value": change.value,
            "state": change.state,
            "text": change.text,
        });
        self.events.emit("alert", &line);
        self.append(Log::Timing, line)
    }

    /// Passes on an event that is not a line of these files.
    pub fn emit(&self, name: &str, content: &impl Serialize) {
        self.events.emit(name, content);
    }

    /// Removes the lines of an incomplete evaluation or of incomplete samples, syncs the files to disk, and returns the lengths
    /// of metrics.jsonl and samples.jsonl.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn durable(&mut self) -> Result<Logs> {
        let files = [&mut self.metrics, &mut self.timing, &mut self.samples];
        self.not_shown.clear();
        let [of_logs @ .., of_histograms] = &self.done;
        for (file, done) in files.into_iter().zip(of_logs) {
            file.take_back(done)?;
            file.sync()?;
        }
        self.histograms.take_back(of_histograms)?;
        self.histograms.sync()?;
        Ok(Logs { metrics: self.metrics.lines(), samples: self.samples.lines() })
    }
}

/// Returns a line of samples.jsonl.
fn sample(step: u64, text: &SampleText) -> Value {
    let SampleText { prompt, text, tokens, finish } = text;
    json!({ "step": step, "prompt": prompt, "text": text, "tokens": tokens, "finish": finish })
}

/// Returns a number as JSON; null for numbers that JSON cannot represent.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Returns an evaluation as a line for the terminal.
pub fn evaluation_line(step: u64, figures: &Figures) -> String {
    let shown = figures.iter().filter(|(name, _)| name != "tokens");
    let numbers: Vec<String> = shown.map(|(name, value)| format!("{name} {}", fixed(*value, 4))).collect();
    format!("step {step}: held out: {}", numbers.join(", "))
}
