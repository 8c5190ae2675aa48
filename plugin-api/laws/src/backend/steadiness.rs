//! Faults visible only in a second session or over many calls: other bits from the same inputs, and memory that grows.

use super::{
    case::Case,
    cases::canonical,
    stage::{Layout, run},
    suite::Suite,
};
use crate::Report;
use plugin_api::{
    abi::DType,
    backend::{
        Session,
        catalogue::{OpSpec, Usage},
    },
};

/// Steps before memory is measured: caches and pools are full by then.
const WARM_UP: usize = 300;
/// Intervals of steps: a leak grows in each of them, a cache is filled once.
const STRETCHES: usize = 4;
/// Steps in an interval.
const STEPS: usize = 500;
/// Bytes that an interval may add: less than any buffer kept per step, more than normal variation of an allocator.
const ALLOWED: u64 = 64 << 10;

impl Suite {
    /// Whether two new sessions give the same bits: one line per operation that `wanted` selects.
    pub fn verify_repeatability(
        &self,
        first: &mut dyn Session,
        second: &mut dyn Session,
        wanted: impl Fn(&OpSpec) -> bool,
    ) -> Report {
        let mut report = Report::default();
        for (spec, cases) in self.by_operation(wanted) {
            if !first.supports(spec.id, self.dtype) || spec.outputs.iter().all(|o| o.usage == Usage::Input) {
                continue;
            }
            let same = "another session gives the same bits";
            if !(self.watch)(same) {
                continue;
            }
            let cases = cases.iter().filter(|p| (self.watch)(&p.case.name));
            let other = cases.into_iter().find_map(|p| same_bits(first, second, &p.case, self.dtype).err());
            (self.watch)(same);
            report.push(spec.name, "another session gives the same bits", other.map_or(Ok(String::new()), Err));
        }
        report
    }

    /// Whether the process keeps its size while an operation is repeated with its buffers, transfers and scratch
    /// memory. `resident` returns the resident bytes of the process; if it returns `None`, nothing is checked.
    ///
    /// Must run alone in its process: other work would change the size.
    pub fn verify_growth(
        &self,
        candidate: &mut dyn Session,
        wanted: impl Fn(&OpSpec) -> bool,
        resident: &mut dyn FnMut() -> Option<u64>,
    ) -> Report {
        let mut report = Report::default();
        for (spec, cases) in self.by_operation(wanted) {
            let Some(canonical) = canonical(&cases) else { continue };
            if !(self.watch)(&canonical.case.name) || !(self.watch)("the process does not grow from step to step") {
                continue;
            }
            if candidate.supports(spec.id, self.dtype)
                && let Some(grown) = growth(candidate, &canonical.case, self.dtype, resident)
            {
                report.push(spec.name, "the process does not grow from step to step", grown);
            }
        }
        report
    }
}

fn same_bits(first: &mut dyn Session, second: &mut dyn Session, case: &Case, dtype: DType) -> Result<(), String> {
    let bits = |session: &mut dyn Session| {
        let outcome = run(session, case, dtype, Layout::Dense).map_err(|e| format!("{}: {e}", case.name))?;
        Ok::<_, String>(outcome.bits)
    };
    if bits(first)? == bits(second)? { Ok(()) } else { Err(format!("{}: different bits", case.name)) }
}

/// Whether each interval of steps left the process larger; `None` if its size is not known.
fn growth(
    session: &mut dyn Session,
    case: &Case,
    dtype: DType,
    resident: &mut dyn FnMut() -> Option<u64>,
) -> Option<Result<String, String>> {
    let mut steps = |count: usize| -> Result<(), String> {
        let step = |session: &mut dyn Session| run(session, case, dtype, Layout::Dense).map(drop);
        (0..count).try_for_each(|_| step(session)).and_then(|()| session.sync()).map_err(|e| e.to_string())
    };
    if let Err(e) = steps(WARM_UP) {
        return Some(Err(e));
    }
    let mut sizes = vec![resident()?];
    for _ in 0..STRETCHES {
        if let Err(e) = steps(STEPS) {
            return Some(Err(e));
        }
        sizes.push(resident()?);
    }
    let grown: Vec<u64> = sizes.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    let least = grown.iter().copied().min().unwrap_or(0);
    Some(match least > ALLOWED {
        true => Err(format!("the process grows by {} KiB or more every {STEPS} steps", least >> 10)),
        false => Ok(format!("{} steps", STRETCHES * STEPS)),
    })
}
