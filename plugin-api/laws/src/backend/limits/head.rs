//! The language-model head.

use super::{
    attention::{cap, cap_slope},
    bounded::{Bounded, exact, log_sum_exp, sum},
    operands::{Formulas, Matrix, Operands, Outputs, Sums},
};
use plugin_api::Result;

/// The operations of this file.
pub const FORMULAS: Formulas = &[("head_stats", stats), ("head_backward", backward), ("head_fused", fused)];

/// How hidden states become logits: `z = cap(scale (x w^T + bias)) / temperature`.
pub struct Logits {
    /// Hidden states.
    pub x: Matrix,
    w: Matrix,
    bias: Option<Matrix>,
    temperature: Bounded,
    softcap: f64,
    scale: Bounded,
}

/// The logits with their targets.
struct Head {
    logits: Logits,
    targets: Vec<usize>,
}

/// One token's statistics, by the names of the outputs.
type Statistics = [(&'static str, Bounded); 4];

impl Logits {
    /// The logits of `x`, `w` and `bias`.
    pub fn of(o: &Operands<'_>) -> Result<Logits> {
        Logits::named(o, ["x", "w", "bias"], ["softcap", "scale"])
    }

    /// The logits of operands and attributes with other names.
    pub fn named(o: &Operands<'_>, [x, w, bias]: [&str; 3], [softcap, scale]: [&str; 2]) -> Result<Logits> {
        Ok(Logits {
            x: o.matrix(x)?,
            w: o.matrix(w)?,
            bias: o.optional(bias),
            temperature: o.factor("temperature")?,
            softcap: o.number(softcap)?,
            scale: o.factor(scale)?,
        })
    }

    /// The logits of token `n`.
    pub fn row(&self, n: usize) -> Vec<Bounded> {
        let z = |v: usize| {
            let products = self.x.row(n).iter().zip(self.w.row(v)).map(|(&x, &w)| x * w);
            let raw = sum(products.chain(self.bias.as_ref().map(|bias| bias.data[v])));
            // A kernel may combine scale and temperature into one factor.
            cap(self.scale * raw, self.softcap).rounded(1.0) / self.temperature
        };
        (0..self.w.rows).map(z).collect()
    }

    /// Cotangent of a raw logit, `x w^T + bias`, from `z` and the terms of its cotangent.
    pub fn raw(&self, z: Bounded, terms: impl IntoIterator<Item = Bounded>) -> Bounded {
        let slope = cap_slope(z * self.temperature, self.softcap);
        sum(terms) / self.temperature * slope * self.scale
    }
}

impl Head {
    fn of(o: &Operands<'_>) -> Result<Head> {
        Ok(Head { logits: Logits::of(o)?, targets: o.integers("targets")? })
    }

    fn statistics(&self, n: usize, z: &[Bounded]) -> Statistics {
        let lse = log_sum_exp(z, |p| p);
        let surprise = |&z: &Bounded| lse - z;
        [
            ("logp", z[self.targets[n]] - lse),
            ("lse", lse),
            ("entropy", sum(z.iter().map(surprise).map(|i| (-i).exp() * i))),
            ("mean_logit", sum(z.iter().copied()) / exact(z.len() as f64)),
        ]
    }

    /// Cotangent of `x w^T + bias` for one token: `[dlogp, dlse, dmean_logit, dentropy]` are those of its statistics.
    fn cotangent(&self, n: usize, z: &[Bounded], lse: Bounded, entropy: Bounded, d: [Bounded; 4]) -> Vec<Bounded> {
        let [dlogp, dlse, dmean_logit, dentropy] = d;
        let through = |(v, &z_v): (usize, &Bounded)| {
            let logp = z_v - lse;
            let p = logp.exp();
            let hit = exact(f64::from(u8::from(v == self.targets[n])));
            let mut terms = vec![dlogp * hit, -(dlogp * p), dlse * p, dmean_logit / exact(z.len() as f64)];
            if dentropy.value != 0.0 && p.value > 0.0 {
                terms.push(-(dentropy * p * sum([logp, entropy])));
            }
            self.logits.raw(z_v, terms)
        };
        z.iter().enumerate().map(through).collect()
    }
}

/// The gradients of the head's operands.
pub struct Gradients {
    dx: Sums,
    /// The product, and the value to which it is added.
    dw: Option<(Sums, Matrix)>,
    dbias: Option<Sums>,
}

impl Gradients {
    /// Gradients of no token.
    pub fn of(o: &Operands<'_>, head: &Logits) -> Gradients {
        let grown = |name| o.optional(name).map(|start| Sums::from(&start));
        let dw = o.optional("dw").map(|start| (Sums::new(start.rows, start.cols), start));
        Gradients { dx: Sums::new(head.x.rows, head.x.cols), dw, dbias: grown("dbias") }
    }

    /// Adds one token's cotangent of the raw logits. It may be stored before the products, and the products before they are added.
    pub fn add(&mut self, head: &Logits, n: usize, d: &[Bounded]) {
        for (v, &d) in d.iter().enumerate() {
            let d = d.stored();
            self.dx.add(n, 0, d, head.w.row(v));
            self.dw.iter_mut().for_each(|(dw, _)| dw.add(v, 0, d, head.x.row(n)));
            self.dbias.iter_mut().for_each(|dbias| dbias.add(0, v, d, &[exact(1.0)]));
        }
    }

    /// The gradients by the names of the outputs.
    pub fn outputs(self) -> Outputs {
        let mut outputs = vec![("dx", self.dx.total())];
        outputs.extend(self.dw.map(|(dw, start)| ("dw", dw.added_to(&start))));
        outputs.extend(self.dbias.map(|dbias| ("dbias", dbias.total())));
        outputs
    }
}

fn rows(statistics: &[Statistics]) -> Outputs {
    let name = |at: usize| ["logp", "lse", "entropy", "mean_logit"][at];
    (0..4).map(|at| (name(at), Matrix::of_row(statistics.iter().map(|token| token[at].1).collect()))).collect()
}

/// Statistics per token.
fn stats(o: &Operands<'_>) -> Result<Outputs> {
    let head = Head::of(o)?;
    let mut logits = Matrix::zeros(0, head.logits.w.rows);
    let mut statistics = Vec::with_capacity(head.logits.x.rows);
    for n in 0..head.logits.x.rows {
        let z = head.logits.row(n);
        statistics.push(head.statistics(n, &z));
        logits.data.extend(z);
        logits.rows += 1;
    }
    let mut outputs = rows(&statistics);
    outputs.push(("logits", logits));
    Ok(outputs)
}

/// From cotangents of the statistics to those of hidden states, weight and bias. A kernel may recompute `lse` and `entropy`, so
/// both include the rounding of the saved values.
fn backward(o: &Operands<'_>) -> Result<Outputs> {
    let head = Head::of(o)?;
    let (lse, kept) = (o.matrix("lse")?, o.optional("logits"));
    let entropy = o.optional_row("entropy");
    let cotangents = ["dlogp", "dlse", "dmean_logit", "dentropy"].map(|name| o.optional_row(name));
    let mut gradients = Gradients::of(o, &head.logits);
    for n in 0..head.logits.x.rows {
        let z = kept.as_ref().map_or_else(|| head.logits.row(n), |kept| kept.row(n).to_vec());
        let d = [0, 1, 2, 3].map(|i| cotangents[i](n));
        let d = head.cotangent(n, &z, lse.data[n].rounded(1.0), entropy(n).rounded(1.0), d);
        gradients.add(&head.logits, n, &d);
    }
    Ok(gradients.outputs())
}

/// Statistics and gradients from one computation of the logits.
fn fused(o: &Operands<'_>) -> Result<Outputs> {
    let head = Head::of(o)?;
    let cotangents = ["dlogp", "dlse", "dmean_logit"].map(|name| o.optional_row(name));
    let mut gradients = Gradients::of(o, &head.logits);
    let mut statistics = Vec::with_capacity(head.logits.x.rows);
    for n in 0..head.logits.x.rows {
        let z = head.logits.row(n);
        let token = head.statistics(n, &z);
        let [(_, _), (_, lse), (_, entropy), _] = token;
        let d = [cotangents[0](n), cotangents[1](n), cotangents[2](n), exact(0.0)];
        gradients.add(&head.logits, n, &head.cotangent(n, &z, lse, entropy, d));
        statistics.push(token);
    }
    let mut outputs = rows(&statistics);
    outputs.extend(gradients.outputs());
    Ok(outputs)
}
