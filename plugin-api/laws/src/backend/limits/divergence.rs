//! The divergence between two heads.

use super::{
    bounded::{Bounded, exact, log_sum_exp, sum},
    head::{Gradients, Logits},
    operands::{Formulas, Matrix, Operands, Outputs},
};
use plugin_api::Result;

/// The operations of this file.
pub const FORMULAS: Formulas = &[("head_divergence", divergence), ("head_divergence_backward", backward)];

/// The two models.
struct Pair {
    head: Logits,
    other: Logits,
    /// The weight, and one minus it.
    weight: [Bounded; 2],
}

/// The logarithms of p, q and m at one id.
struct Logs {
    p: Bounded,
    q: Bounded,
    m: Bounded,
}

impl Pair {
    fn of(o: &Operands<'_>) -> Result<Pair> {
        let weight = o.factor("weight")?;
        let other = Logits::named(o, ["x2", "w2", "bias2"], ["softcap2", "scale2"])?;
        Ok(Pair { head: Logits::of(o)?, other, weight: [weight, exact(1.0) - weight] })
    }

    fn is_mixed(&self) -> bool {
        self.weight.iter().all(|weight| weight.value > 0.0)
    }

    /// The logarithms at every id.
    fn logs(&self, (z, lse): (&[Bounded], Bounded), (z2, lse2): (&[Bounded], Bounded)) -> Vec<Logs> {
        let of = |(&z, &z2): (&Bounded, &Bounded)| {
            let (p, q) = (z - lse, z2 - lse2);
            let m = match self.is_mixed() {
                true => log_sum_exp(&[self.weight[0].ln() + q, self.weight[1].ln() + p], |p| p),
                false => exact(0.0),
            };
            Logs { p, q, m }
        };
        z.iter().zip(z2).map(of).collect()
    }

    fn divergence(&self, logs: &[Logs]) -> Bounded {
        let term = |a: Bounded, b: Bounded| if a.value.exp() > 0.0 { a.exp() * (a - b) } else { exact(0.0) };
        let [w, rest] = self.weight;
        if w.value == 0.0 {
            return sum(logs.iter().map(|l| term(l.q, l.p)));
        }
        if w.value == 1.0 {
            return sum(logs.iter().map(|l| term(l.p, l.q)));
        }
        let (q_m, p_m) = (sum(logs.iter().map(|l| term(l.q, l.m))), sum(logs.iter().map(|l| term(l.p, l.m))));
        w * q_m + rest * p_m
    }

    /// The terms of the cotangent of each logit, for a cotangent of 1.
    fn slopes(&self, logs: &[Logs]) -> Vec<[Bounded; 2]> {
        let [w, rest] = self.weight;
        if w.value == 0.0 {
            return logs.iter().map(|l| [l.p.exp(), -l.q.exp()]).collect();
        }
        let by_p = |l: &Logs| if w.value == 1.0 { l.p - l.q } else { rest * (l.p - l.m) };
        let term = |l: &Logs| if l.p.value.exp() > 0.0 { l.p.exp() * by_p(l) } else { exact(0.0) };
        let mean = sum(logs.iter().map(term));
        logs.iter().map(|l| [term(l), -(l.p.exp() * mean)]).collect()
    }
}

fn divergence(o: &Operands<'_>) -> Result<Outputs> {
    let pair = Pair::of(o)?;
    let [mut kl, mut lse, mut lse2] = [(); 3].map(|()| Vec::new());
    for n in 0..pair.head.x.rows {
        let (z, z2) = (pair.head.row(n), pair.other.row(n));
        let (a, b) = (log_sum_exp(&z, |p| p), log_sum_exp(&z2, |p| p));
        kl.push(pair.divergence(&pair.logs((&z, a), (&z2, b))));
        lse.push(a);
        lse2.push(b);
    }
    Ok([("kl", kl), ("lse", lse), ("lse2", lse2)].map(|(name, row)| (name, Matrix::of_row(row))).into())
}

/// A kernel may recompute the log-sum-exps, so both include the rounding of the saved values.
fn backward(o: &Operands<'_>) -> Result<Outputs> {
    let pair = Pair::of(o)?;
    let (lse, lse2, dkl) = (o.matrix("lse")?, o.matrix("lse2")?, o.matrix("dkl")?);
    let mut gradients = Gradients::of(o, &pair.head);
    for n in 0..pair.head.x.rows {
        let (z, z2) = (pair.head.row(n), pair.other.row(n));
        let logs = pair.logs((&z, lse.data[n].rounded(1.0)), (&z2, lse2.data[n].rounded(1.0)));
        let d: Vec<Bounded> = pair
            .slopes(&logs)
            .into_iter()
            .zip(&z)
            .map(|(terms, &z)| pair.head.raw(z, terms.map(|term| dkl.data[n] * term)))
            .collect();
        gradients.add(&pair.head, n, &d);
    }
    Ok(gradients.outputs())
}
