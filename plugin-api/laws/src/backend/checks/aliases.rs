//! An output that is allowed to share an input's memory has the same result there.

use crate::backend::{
    cases::Prepared,
    compare::compare,
    stage::{Layout, run_aliased},
};
use crate::{Agreement, Broken, Report};
use plugin_api::{abi::DType, backend::Session};

/// Cases tried for each allowed pair.
const TRIED: usize = 3;

/// One line per allowed pair of the operation.
pub fn verify(candidate: &mut dyn Session, dtype: DType, cases: &[&Prepared], report: &mut Report) {
    let Some(spec) = cases.first().map(|p| p.case.spec) else { return };
    for &(output, input) in spec.aliases {
        let has_both = |p: &&&Prepared| {
            let case = &p.case;
            case.is_filled() && case.packed.is_empty() && [output, input].iter().all(|n| case.operand(n).is_some())
        };
        let mut outcome = Err("no case has both".to_owned().into());
        for prepared in cases.iter().filter(has_both).take(TRIED) {
            outcome = check(candidate, dtype, prepared, (output, input));
            if outcome.is_err() {
                break;
            }
        }
        report.measure(spec.name, &format!("`{output}` in the place of `{input}`"), outcome);
    }
}

fn check(
    candidate: &mut dyn Session,
    dtype: DType,
    prepared: &Prepared,
    alias: (&str, &str),
) -> Result<Agreement, Broken> {
    let Prepared { case, expected, limits } = prepared;
    let mut largest = Agreement::EXACT;
    for layout in [Layout::Dense, Layout::Strided] {
        let agreement = run_aliased(candidate, case, dtype, layout, Some(alias))
            .map_err(|e| Broken::from(e.to_string()))
            .and_then(|found| compare(case, expected, limits, &found))
            .map_err(|broken| broken.within(&case.name))?;
        largest = largest.worse(agreement);
    }
    Ok(largest)
}
