//! Log-probabilities of several ids per token, and the most probable ids.

use super::{
    bounded::{Bounded, exact, log_sum_exp},
    head::{Gradients, Logits},
    operands::{Formulas, Matrix, Operands, Outputs},
};
use plugin_api::Result;

/// The operations of this file.
pub const FORMULAS: Formulas =
    &[("head_candidates", candidates), ("head_candidates_backward", backward), ("head_topk", topk)];

fn tail(z: &[Bounded], lse: Bounded, ids: &[usize]) -> Bounded {
    let rest: Vec<Bounded> = z.iter().enumerate().filter(|(v, _)| !ids.contains(v)).map(|(_, &z)| z).collect();
    let rest = log_sum_exp(&rest, |p| p);
    if rest.value == f64::NEG_INFINITY { rest } else { rest - lse }
}

/// Log-probabilities of `ids`, K per token, with the tail and the log-sum-exp.
fn numbers(head: &Logits, ids: &[usize], count: usize) -> Outputs {
    let mut logp = Matrix::zeros(head.x.rows, count);
    let (mut tails, mut lses) = (Vec::new(), Vec::new());
    for n in 0..head.x.rows {
        let ids = &ids[n * count..(n + 1) * count];
        let z = head.row(n);
        let lse = log_sum_exp(&z, |p| p);
        logp.row_mut(n).iter_mut().zip(ids).for_each(|(logp, &id)| *logp = z[id] - lse);
        tails.push(tail(&z, lse, ids));
        lses.push(lse);
    }
    vec![("logp", logp), ("tail", Matrix::of_row(tails)), ("lse", Matrix::of_row(lses))]
}

fn candidates(o: &Operands<'_>) -> Result<Outputs> {
    let count = o.columns("ids")?;
    Ok(numbers(&Logits::of(o)?, &o.integers("ids")?, count))
}

/// The log-probabilities of the ids that the reference found; the ids must be equal.
fn topk(o: &Operands<'_>) -> Result<Outputs> {
    let ids: Vec<usize> = o.of_reference("ids").iter().map(|&id| id as usize).collect();
    let mut outputs = numbers(&Logits::of(o)?, &ids, o.columns("ids")?);
    outputs.pop();
    Ok(outputs)
}

/// A kernel may recompute `lse` and `tail`, so both include the rounding of the saved values.
fn backward(o: &Operands<'_>) -> Result<Outputs> {
    let head = Logits::of(o)?;
    let (all, count) = (o.integers("ids")?, o.columns("ids")?);
    let lse = o.matrix("lse")?;
    let (tail, dtail, dlogp) = (o.optional_row("tail"), o.optional_row("dtail"), o.optional("dlogp"));
    let mut gradients = Gradients::of(o, &head);
    for n in 0..head.x.rows {
        let (z, ids) = (head.row(n), &all[n * count..(n + 1) * count]);
        let dtail = if count == z.len() { exact(0.0) } else { dtail(n) };
        let dlogp: Vec<Bounded> = dlogp.as_ref().map_or(vec![exact(0.0); count], |dlogp| dlogp.row(n).to_vec());
        let through = |(v, &z): (usize, &Bounded)| {
            let logp = z - lse.data[n].rounded(1.0);
            let mut terms: Vec<Bounded> = dlogp.iter().map(|&d| -(d * logp.exp())).collect();
            terms.push(-(dtail * logp.exp()));
            match ids.iter().position(|&id| id == v) {
                Some(k) => terms.push(dlogp[k]),
                None if dtail.value != 0.0 => terms.push(dtail * (logp - tail(n).rounded(1.0)).exp()),
                None => {}
            }
            head.raw(z, terms)
        };
        let d: Vec<Bounded> = z.iter().enumerate().map(through).collect();
        gradients.add(&head, n, &d);
    }
    Ok(gradients.outputs())
}
