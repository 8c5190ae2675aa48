//! One case on the candidate: it gives the reference's numbers, the same bits again, and the same through strided views.

use crate::backend::{
    cases::Prepared,
    compare::compare,
    stage::{Layout, run},
};
use crate::{Agreement, Broken};
use plugin_api::{abi::DType, backend::Session};

/// Runs the case three times; returns the worst error, or what is wrong.
pub fn check(candidate: &mut dyn Session, prepared: &Prepared, dtype: DType) -> Result<Agreement, Broken> {
    let Prepared { case, expected, limits } = prepared;
    let dense = run(candidate, case, dtype, Layout::Dense).map_err(|e| e.to_string())?;
    let found = compare(case, expected, limits, &dense)?;
    let again = run(candidate, case, dtype, Layout::Dense).map_err(|e| format!("called again: {e}"))?;
    if again.bits != dense.bits {
        return Err("a second call gives different bits".to_owned().into());
    }
    let strided = run(candidate, case, dtype, Layout::Strided).map_err(|e| format!("strided views: {e}"))?;
    let strided = compare(case, expected, limits, &strided).map_err(|broken| broken.within("strided views"))?;
    Ok(found.worse(strided))
}
