//! Converts between the arrays of the SDK and the arrays that cross. Only this file packs and unpacks.

use super::types::{ArrayOwned, ArrayRef};
use crate::{
    Code, Error, Result,
    batch::{Array, Batch, Scope},
    objective::{Loss, MetricPart, Term},
    tape::Detached,
};
use abi_stable::std_types::{RSlice, RStr, RVec};
use std::borrow::Cow;

/// [`ArrayOwned::role`] of an array of a batch.
pub const ROLE_ARRAY: u32 = 0;
/// [`ArrayOwned::role`] of a term: coefficient and sum.
pub const ROLE_TERM: u32 = 1;
/// [`ArrayOwned::role`] of a term's cotangent of a statistic.
pub const ROLE_COTANGENT: u32 = 2;
/// [`ArrayOwned::role`] of a metric: value and weight.
pub const ROLE_METRIC: u32 = 3;

/// Name of an array of a `loss` call that requests the values that the loss detaches: they come back with [`DETACHED`] as their
/// owner.
pub const RECORD: &str = "telos.record";
/// Prefix of the name of an array of a `loss` call that holds a detached value of the base point: the loss uses these, in order,
/// instead of its own. A plugin built before these names existed ignores such arrays.
pub const DETACHED: &str = "telos.detached.";
/// Name of the array that marks a call with all detached values of the base point, possibly none.
pub const REPLAY: &str = "telos.replay";

/// What a `loss` call does with detached values.
pub enum Request {
    /// Return them.
    Record,
    /// Use these values instead.
    Replay(Vec<Detached>),
}

/// Returns what the arrays of a `loss` call request about detached values.
pub fn request(arrays: &[ArrayRef<'_>]) -> Option<Request> {
    let has = |name: &str| arrays.iter().any(|a| a.name.as_str() == name);
    match (has(RECORD), has(REPLAY)) {
        (true, _) => Some(Request::Record),
        (false, true) => Some(Request::Replay(
            arrays
                .iter()
                .filter_map(|a| {
                    let name = a.name.as_str().strip_prefix(DETACHED)?.to_owned();
                    Some(Detached { name, values: a.data.to_vec() })
                })
                .collect(),
        )),
        (false, false) => None,
    }
}

/// A reserved array of a `loss` call.
pub fn reserved<'a>(name: &'a str, values: &'a [f64]) -> ArrayRef<'a> {
    ArrayRef {
        name: RStr::from_str(name),
        scope: Scope::BATCH.0,
        differentiable: 0,
        rows: values.len() as u64,
        cols: 1,
        data: RSlice::from_slice(values),
    }
}

/// Appends detached values to a loss that is sent back.
pub fn give_detached(values: Vec<Detached>, out: &mut RVec<ArrayOwned>) {
    for Detached { name, values } in values {
        out.push(owned(DETACHED, &name, ROLE_ARRAY, Scope::BATCH, 1, values));
    }
}

/// Takes the detached values that came back with a loss.
pub fn take_detached(arrays: &RVec<ArrayOwned>) -> Vec<Detached> {
    let own = arrays.iter().filter(|a| a.role == ROLE_ARRAY && a.owner.as_str() == DETACHED);
    own.map(|a| Detached { name: a.name.to_string(), values: a.data.to_vec() }).collect()
}

/// Borrows a batch as arrays that cross.
pub fn lend<'a>(batch: &'a Batch<'_>) -> Vec<ArrayRef<'a>> {
    batch
        .arrays()
        .iter()
        .map(|a| ArrayRef {
            name: RStr::from_str(&a.name),
            scope: a.scope.0,
            differentiable: u32::from(a.differentiable),
            rows: a.rows() as u64,
            cols: a.cols as u64,
            data: RSlice::from_slice(&a.data),
        })
        .collect()
}

/// Prefix of the names of arrays that are about the call itself, not part of its batch.
const OF_CALL: &str = "telos.";

/// Reads a lent batch on the other side, without copying. Skips arrays that are about the call, such as those of a later minor
/// version.
pub fn borrow<'a>(arrays: &[ArrayRef<'a>]) -> Batch<'a> {
    let own = arrays.iter().filter(|a| !a.name.as_str().starts_with(OF_CALL));
    own.fold(Batch::new(), |batch, a| {
        batch.with_array(Array {
            name: Cow::Borrowed(a.name.as_str()),
            scope: Scope(a.scope),
            differentiable: a.differentiable != 0,
            cols: a.cols as usize,
            data: Cow::Borrowed(a.data.as_slice()),
        })
    })
}

pub(super) fn owned(owner: &str, name: &str, role: u32, scope: Scope, cols: usize, data: Vec<f64>) -> ArrayOwned {
    ArrayOwned {
        owner: owner.into(),
        name: name.into(),
        scope: scope.0,
        role,
        rows: data.len().checked_div(cols).unwrap_or(0) as u64,
        cols: cols as u64,
        data: data.into(),
    }
}

/// Sends a batch back.
pub fn give_batch(batch: Batch<'_>, out: &mut RVec<ArrayOwned>) {
    for a in batch.arrays() {
        out.push(owned("", &a.name, ROLE_ARRAY, a.scope, a.cols, a.data.to_vec()));
    }
}

/// Whether an array that was sent back is one of the batch. Others are of a later minor version.
fn is_of_batch(array: &ArrayOwned) -> bool {
    array.role == ROLE_ARRAY && array.owner.is_empty()
}

/// Takes a batch that was sent back; `None` without any array. Skips roles of a later minor version.
///
/// # Errors
/// [`Code::ARRAY`] for a name that occurs twice, or for an array whose rows and columns do not match its length.
pub fn take_batch(arrays: RVec<ArrayOwned>) -> Result<Option<Batch<'static>>> {
    let mut batch = Batch::new();
    for a in arrays.into_iter().filter(is_of_batch) {
        let refuse = |what: String| Err(Error::new(Code::ARRAY, format!("`{}` was returned {what}", a.name)));
        if batch.find(&a.name).is_some() {
            return refuse("twice".to_owned());
        }
        if a.rows.checked_mul(a.cols) != Some(a.data.len() as u64) {
            return refuse(format!("with {} numbers for {} rows of {}", a.data.len(), a.rows, a.cols));
        }
        batch = batch.with_array(Array {
            name: Cow::Owned(a.name.into_string()),
            scope: Scope(a.scope),
            differentiable: false,
            cols: a.cols as usize,
            data: Cow::Owned(a.data.into_vec()),
        });
    }
    Ok(if batch.arrays().is_empty() { None } else { Some(batch) })
}

/// Sends named numbers back.
pub fn give_numbers(numbers: Vec<(String, f64)>, out: &mut RVec<ArrayOwned>) {
    for (name, value) in numbers {
        out.push(owned("", &name, ROLE_ARRAY, Scope::BATCH, 1, vec![value]));
    }
}

/// Takes named numbers that were sent back. Skips roles of a later minor version.
///
/// # Errors
/// [`Code::ARRAY`] for an array that holds more or less than one number.
pub fn take_numbers(arrays: RVec<ArrayOwned>) -> Result<Vec<(String, f64)>> {
    let number = |a: ArrayOwned| match a.data.as_slice() {
        [value] => Ok((a.name.to_string(), *value)),
        values => {
            let message = format!("`{}` was returned with {} numbers, expected 1", a.name, values.len());
            Err(Error::new(Code::ARRAY, message))
        }
    };
    arrays.into_iter().filter(is_of_batch).map(number).collect()
}

/// Sends a loss back.
pub fn give_loss(loss: Loss, out: &mut RVec<ArrayOwned>) {
    for term in loss.terms {
        out.push(owned("", &term.name, ROLE_TERM, Scope::BATCH, 2, vec![term.coefficient, term.sum]));
        for (statistic, data) in term.cotangents {
            out.push(owned(&term.name, &statistic, ROLE_COTANGENT, Scope::BATCH, 1, data));
        }
    }
    for metric in loss.metrics {
        out.push(owned("", &metric.name, ROLE_METRIC, Scope::BATCH, 2, vec![metric.value, metric.weight]));
    }
}

/// Takes a loss that was sent back. Skips roles of a newer minor version.
///
/// # Errors
/// [`Code::ARRAY`] for a cotangent without its term, or a term or metric without its two numbers.
pub fn take_loss(arrays: RVec<ArrayOwned>) -> Result<Loss> {
    let mut loss = Loss::default();
    for a in arrays {
        let pair = || match a.data.as_slice() {
            [first, second] => Ok((*first, *second)),
            _ => Err(Error::new(
                Code::ARRAY,
                format!("`{}` was returned with {} numbers, expected 2", a.name, a.data.len()),
            )),
        };
        match a.role {
            ROLE_TERM => {
                let (coefficient, sum) = pair()?;
                loss.terms.push(Term { name: a.name.into_string(), coefficient, sum, cotangents: Vec::new() });
            }
            ROLE_METRIC => {
                let (value, weight) = pair()?;
                loss.metrics.push(MetricPart { name: a.name.into_string(), value, weight });
            }
            ROLE_COTANGENT => {
                let term = loss.terms.iter_mut().find(|t| t.name == a.owner.as_str());
                let term = term.ok_or_else(|| {
                    Error::new(Code::ARRAY, format!("a cotangent of `{}` names no term: `{}`", a.name, a.owner))
                })?;
                term.cotangents.push((a.name.into_string(), a.data.into_vec()));
            }
            _ => {}
        }
    }
    Ok(loss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_crosses_the_boundary_unchanged() {
        let loss = Loss {
            terms: vec![Term {
                name: "nll".into(),
                coefficient: 0.5,
                sum: 3.0,
                cotangents: vec![("logp".into(), vec![-1.0, 0.0]), ("lse".into(), vec![0.1, 0.2])],
            }],
            metrics: vec![MetricPart { name: "accuracy".into(), value: 2.0, weight: 3.0 }],
        };
        let mut wire = RVec::new();
        give_loss(loss.clone(), &mut wire);
        assert_eq!(take_loss(wire).unwrap(), loss);
    }

    /// Catches an array that silently replaces another of its name, numbers of which all but the first are dropped, and shapes
    /// that are accepted without a check.
    #[test]
    fn contradictory_results_are_refused() {
        let array = |name: &str, rows, cols, count| ArrayOwned {
            rows,
            cols,
            ..owned("", name, ROLE_ARRAY, Scope::TOKEN, 1, vec![1.0; count])
        };
        let batch = |arrays: Vec<ArrayOwned>| take_batch(arrays.into()).map_err(|e| e.message);
        assert_eq!(batch(vec![]), Ok(None));
        assert!(batch(vec![array("a", 2, 1, 2), array("b", 2, 2, 4)]).is_ok());
        assert_eq!(batch(vec![array("a", 2, 1, 2), array("a", 2, 1, 2)]).unwrap_err(), "`a` was returned twice");
        assert!(batch(vec![array("a", 3, 1, 2)]).unwrap_err().contains("2 numbers for 3 rows of 1"));
        assert!(batch(vec![array("a", 1, u64::MAX, 2)]).is_err() && batch(vec![array("a", 2, u64::MAX, 2)]).is_err());
        let numbers = |count| take_numbers(vec![array("nll", count as u64, 1, count)].into()).map_err(|e| e.message);
        assert_eq!(numbers(1), Ok(vec![("nll".to_owned(), 1.0)]));
        assert!(numbers(0).unwrap_err().contains("0 numbers") && numbers(2).unwrap_err().contains("2 numbers"));
    }

    /// Catches a host that takes what a plugin of a later version adds for an array or a weight, and a plugin that takes what such a
    /// host adds to a call for one.
    #[test]
    fn what_a_later_version_adds_is_skipped() {
        let own = || owned("", "advantage", ROLE_ARRAY, Scope::TOKEN, 1, vec![1.0]);
        let later = || {
            [
                owned("", "spread", ROLE_METRIC, Scope::BATCH, 2, vec![1.0; 2]),
                owned("x", "y", 9, Scope::BATCH, 1, vec![]),
            ]
        };
        let batch = |arrays: Vec<ArrayOwned>| take_batch(arrays.into()).unwrap();
        assert_eq!(batch([vec![own()], later().into()].concat()), batch(vec![own()]));
        assert_eq!(batch(later().into()), None);
        let numbers = take_numbers([later().to_vec(), vec![own()]].concat().into()).unwrap();
        assert_eq!(numbers, [("advantage".to_owned(), 1.0)]);
        let given = Batch::new().with("reward", Scope::SEQUENCE, vec![1.0]);
        let more = given.clone().with("telos.later", Scope::BATCH, vec![1.0]);
        assert_eq!(borrow(&lend(&more)), given);
    }

    #[test]
    fn a_batch_crosses_the_boundary_without_a_copy() {
        let batch = Batch::new().with("offsets", Scope::BATCH, vec![0.0, 2.0]).with_statistic(
            "logp",
            Scope::TOKEN,
            vec![-1.0, -2.0],
        );
        let lent = lend(&batch);
        let seen = borrow(&lent);
        assert_eq!(seen, batch);
        assert_eq!(seen.get("logp").unwrap().as_ptr(), batch.get("logp").unwrap().as_ptr());
    }
}
