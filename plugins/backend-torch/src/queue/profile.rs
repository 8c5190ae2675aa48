//! The time that each operation takes, for `TELOS_TORCH_PROFILE=FILE`: on CUDA by events around the operation, so that the host
//! never waits for the device; on the processor by the host's clock.
//!
//! The file is written when the session ends. It lists the sessions of the process that have ended, in that order.

use super::Event;
use crate::fault::Attempt;
use plugin_api::{Code, Error, Result};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    fs::OpenOptions,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};
use tch::Device;

/// The variable that names the file.
const VARIABLE: &str = "TELOS_TORCH_PROFILE";

/// Operations whose events may be outstanding before finished ones are added to the totals.
const FOLD: usize = 1024;
/// Operations whose events may be outstanding at all. CUDA's own queue is shorter, so this is not reached unless events fail.
const MOST: usize = 1 << 16;

/// Counted by a session at all times.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Times that the host read values of the device, for which it waits.
    pub(crate) host_reads: Cell<u64>,
    /// Uploads of integers.
    pub(crate) uploads: Cell<u64>,
}

impl Counts {
    /// Counts that the host read values of the device.
    pub(crate) fn count_reads(&self, reads: u64) {
        self.host_reads.set(self.host_reads.get() + reads);
    }

    fn now(&self) -> [u64; 2] {
        [self.host_reads.get(), self.uploads.get()]
    }
}

/// A point in time.
enum Mark {
    Host(Instant),
    Device(Event),
}

impl Mark {
    fn is_reached(&self) -> Attempt<bool> {
        match self {
            Mark::Host(_) => Ok(true),
            Mark::Device(event) => event.is_done(),
        }
    }

    fn wait(&self) -> Attempt {
        match self {
            Mark::Host(_) => Ok(()),
            Mark::Device(event) => event.wait(),
        }
    }

    fn ms_until(&self, later: &Mark) -> Attempt<f64> {
        match (self, later) {
            (Mark::Device(event), Mark::Device(later)) => event.ms_until(later),
            (Mark::Host(from), Mark::Host(to)) => Ok(1e3 * to.duration_since(*from).as_secs_f64()),
            _ => Err(Error::internal("marks of different clocks").into()),
        }
    }
}

/// An operation whose end may be outstanding.
struct Span {
    name: &'static str,
    from: Mark,
    to: Mark,
}

#[derive(Default)]
struct Total {
    calls: u64,
    ms: f64,
    /// As [`Counts::now`].
    counts: [u64; 2],
}

/// The times of one session.
pub(crate) struct Profile {
    path: PathBuf,
    device: Device,
    /// Start of the first operation.
    first: Option<Mark>,
    /// End of the last operation whose time is in the totals.
    last: Option<Mark>,
    /// Start of the current operation, and the counts then.
    begun: Option<(Mark, [u64; 2])>,
    outstanding: VecDeque<Span>,
    spare: Vec<Event>,
    totals: BTreeMap<&'static str, Total>,
    /// Operations without a time.
    not_timed: u64,
    /// Why recording stopped.
    failed: Option<String>,
}

impl Profile {
    /// A profile if the environment requests one.
    ///
    /// # Errors
    /// `OPTION` for a file that cannot be written.
    pub(crate) fn from_environment(device: Device) -> Result<Option<Profile>> {
        match std::env::var_os(VARIABLE).filter(|file| !file.is_empty()) {
            Some(file) => Profile::open(Path::new(&file), device).map(Some),
            None => Ok(None),
        }
    }

    /// A profile that will be written to `path`. An existing file keeps its content until then.
    fn open(path: &Path, device: Device) -> Result<Profile> {
        OpenOptions::new().create(true).append(true).open(path).map_err(|e| {
            let text = format!("open: {VARIABLE}: {} cannot be written: {e}", path.display());
            Error::new(Code::OPTION, text)
        })?;
        Ok(Profile {
            path: path.to_owned(),
            device,
            first: None,
            last: None,
            begun: None,
            outstanding: VecDeque::new(),
            spare: Vec::new(),
            totals: BTreeMap::new(),
            not_timed: 0,
            failed: None,
        })
    }

    /// Before an operation.
    pub(crate) fn begin(&mut self, counts: &Counts) {
        self.guarded(|profile| {
            if profile.first.is_none() {
                profile.first = Some(profile.mark()?);
            }
            profile.begun = Some((profile.mark()?, counts.now()));
            Ok(())
        });
    }

    /// After the operation.
    pub(crate) fn end(&mut self, name: &'static str, counts: &Counts) {
        self.guarded(|profile| {
            let Some((from, before)) = profile.begun.take() else { return Ok(()) };
            let total = profile.totals.entry(name).or_default();
            total.calls += 1;
            for (sum, (now, before)) in total.counts.iter_mut().zip(counts.now().into_iter().zip(before)) {
                *sum += now - before;
            }
            let to = profile.mark()?;
            profile.outstanding.push_back(Span { name, from, to });
            if profile.outstanding.len() >= FOLD { profile.fold() } else { Ok(()) }
        });
    }

    /// Stops at the first failure of an event, which is reported in the file: a profile never fails an operation.
    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> Attempt) {
        if self.failed.is_none()
            && let Err(fault) = work(self)
        {
            self.failed = Some(fault.named("profile").message);
        }
    }

    /// Now, in the order of the device's work.
    fn mark(&mut self) -> Attempt<Mark> {
        let Device::Cuda(index) = self.device else { return Ok(Mark::Host(Instant::now())) };
        let mut event = match self.spare.pop() {
            Some(event) => event,
            None => Event::new()?,
        };
        event.record(index)?;
        Ok(Mark::Device(event))
    }

    fn reuse(&mut self, mark: Mark) {
        if let Mark::Device(event) = mark {
            self.spare.push(event);
        }
    }

    /// Adds the operations that have ended to the totals, without waiting.
    fn fold(&mut self) -> Attempt {
        while let Some(span) = self.outstanding.pop_front() {
            let ended = span.to.is_reached()?;
            if !ended && self.outstanding.len() < MOST {
                self.outstanding.push_front(span);
                return Ok(());
            }
            let Span { name, from, to } = span;
            if ended {
                self.totals.entry(name).or_default().ms += from.ms_until(&to)?;
            } else {
                self.not_timed += 1;
            }
            self.reuse(from);
            if let Some(before) = self.last.replace(to) {
                self.reuse(before);
            }
        }
        Ok(())
    }

    /// Waits for the last operation and returns what was measured.
    fn report(&mut self) -> Value {
        self.guarded(|profile| {
            if let Some(span) = profile.outstanding.back() {
                span.to.wait()?;
            }
            profile.fold()
        });
        let mut span = 0.0;
        self.guarded(|profile| {
            if let (Some(first), Some(last)) = (&profile.first, &profile.last) {
                span = first.ms_until(last)?;
            }
            Ok(())
        });
        let mut totals: Vec<(&str, &Total)> = self.totals.iter().map(|(name, total)| (*name, total)).collect();
        totals.sort_by(|a, b| b.1.ms.total_cmp(&a.1.ms));
        let operation = |(name, total): &(&str, &Total)| {
            let [host_reads, uploads] = total.counts;
            let share = if span > 0.0 { total.ms / span } else { 0.0 };
            json!({
                "name": name, "calls": total.calls, "ms": total.ms, "share": share,
                "host_reads": host_reads, "uploads": uploads,
            })
        };
        let device = match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".into(),
        };
        let mut report = json!({
            "device": device,
            "clock": if self.device == Device::Cpu { "host" } else { "device events" },
            "span_ms": span,
            "operations_ms": totals.iter().map(|(_, total)| total.ms).sum::<f64>(),
            "operations": totals.iter().map(operation).collect::<Vec<_>>(),
        });
        if self.not_timed > 0 {
            report["not_timed"] = self.not_timed.into();
        }
        if let Some(why) = &self.failed {
            report["failed"] = why.as_str().into();
        }
        report
    }

    fn write(&mut self) -> std::io::Result<()> {
        static ENDED: Mutex<BTreeMap<PathBuf, Vec<Value>>> = Mutex::new(BTreeMap::new());
        let report = self.report();
        let mut ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = ended.entry(self.path.clone()).or_default();
        sessions.push(report);
        let text = serde_json::to_string_pretty(&json!({ "sessions": sessions }))?;
        std::fs::write(&self.path, text + "\n")
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        if let Err(e) = self.write() {
            // The run is over and nothing else can report it.
            eprintln!("warning: {VARIABLE}: {} cannot be written: {e}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("telos-torch-profile-{}-{name}.json", std::process::id()))
    }

    fn read(path: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// Catches a total that loses an operation when it is folded, a time of the wrong pair, shares that do not add up, a second
    /// session that erases the first, and operations kept one by one for the whole run.
    #[test]
    fn every_call_is_in_the_totals_and_every_session_in_the_file() {
        let path = file("totals");
        let counts = Counts::default();
        for (calls, wait) in [(3 * FOLD + 1, Duration::ZERO), (2, Duration::from_millis(20))] {
            let mut profile = Profile::open(&path, Device::Cpu).unwrap();
            for call in 0..calls {
                profile.begin(&counts);
                counts.uploads.set(counts.uploads.get() + 1);
                std::thread::sleep(wait);
                profile.end(if call % 2 == 0 { "even" } else { "odd" }, &counts);
                counts.host_reads.set(counts.host_reads.get() + 1);
                assert!(profile.outstanding.len() <= FOLD);
            }
        }
        let content = read(&path);
        let [first, second] = &content["sessions"].as_array().unwrap()[..] else { panic!("{content}") };
        let of = |session: &Value, name: &str| {
            session["operations"].as_array().unwrap().iter().find(|op| op["name"] == name).cloned().unwrap()
        };
        assert_eq!(of(first, "even")["calls"], 3 * FOLD as u64 / 2 + 1);
        assert_eq!(of(first, "odd")["uploads"], 3 * FOLD as u64 / 2);
        assert_eq!(of(first, "odd")["host_reads"], 0);
        let (even, odd) = (of(second, "even"), of(second, "odd"));
        let ms = |value: &Value| value.as_f64().unwrap();
        assert!(ms(&even["ms"]) >= 20.0 && ms(&odd["ms"]) >= 20.0, "{content}");
        assert!(ms(&even["ms"]) + ms(&odd["ms"]) <= ms(&second["span_ms"]) + 1e-6, "{content}");
        let shares = ms(&even["share"]) + ms(&odd["share"]);
        assert!((0.5..=1.000001).contains(&shares), "{content}");
        assert!(second.get("failed").is_none() && first.get("not_timed").is_none());
        std::fs::remove_file(path).unwrap();
    }

    /// Catches a file whose fault shows only when the run has ended.
    #[test]
    fn a_file_that_cannot_be_written_is_refused_at_once() {
        let path = std::env::temp_dir().join("telos-no-such-folder/profile.json");
        let refused = Profile::open(&path, Device::Cpu).err().unwrap();
        assert_eq!(refused.code, Code::OPTION);
        assert!(refused.message.contains("telos-no-such-folder/profile.json cannot be written"), "{refused}");
    }

    /// Catches a profile that hides the failure of an event, or fails the operation instead.
    #[test]
    fn a_failure_ends_the_recording_and_is_reported() {
        let path = file("failure");
        let mut profile = Profile::open(&path, Device::Cpu).unwrap();
        profile.guarded(|_| Err(crate::fault::Fault::Torch("no event".into())));
        profile.begin(&Counts::default());
        profile.end("late", &Counts::default());
        drop(profile);
        let session = read(&path)["sessions"][0].clone();
        assert_eq!(session["failed"], "profile: libtorch: no event");
        assert_eq!(session["operations"].as_array().unwrap().len(), 0);
        std::fs::remove_file(path).unwrap();
    }
}
