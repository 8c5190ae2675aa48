//! pass@k: the probability that at least one of `k` sampled answers to a held-out prompt is right.
//!
//! Of `n` sampled answers to a prompt, `c` equal an answer of its row. Over all sets of `k` of them the share with a right one is
//! `1 - C(n-c, k) / C(n, k)`, which is unbiased for every `k` up to `n` (Chen et al. 2021, arXiv 2107.03374, equation 1); one
//! minus the `k`-th power of the share of wrong answers would not be. `eval/pass@k` is its mean over the prompts whose rows have
//! an answer. Rewards do not decide what is right.

use super::{
    compare::{ComparedAnswer, compare, lengths, with_answers},
    evaluator::{Evaluator, HeldOutPrompts, Measured, sampling},
    prompts::EvalPrompt,
};
use crate::{capacity, error::Result};

/// Minimum bytes of a sampled answer in addition to its prompt: its text, the row's answer and its length.
const ANSWER: u64 = 128;

/// Measures `pass@k` for each `k` of `eval.pass_at`, of `eval.samples` answers to each prompt.
pub struct PassAtK;

impl Evaluator for PassAtK {
    fn names(&self, held_out: &HeldOutPrompts<'_>) -> Vec<String> {
        let known = with_answers(held_out.prompts).next().is_some();
        let pass_at = held_out.experiment.eval.pass.as_ref().filter(|_| known).map(|pass| pass.pass_at.as_slice());
        pass_at.unwrap_or_default().iter().map(|k| format!("pass@{k}")).collect()
    }

    fn refusal(&self, held_out: &HeldOutPrompts<'_>) -> Option<(&'static str, String)> {
        let samples = held_out.experiment.eval.pass.as_ref()?.samples as u64;
        let (mut answers, mut bytes) = (0_u64, 0_u64);
        for prompt in with_answers(held_out.prompts) {
            answers = answers.saturating_add(samples);
            bytes = bytes.saturating_add(samples.saturating_mul(4 * prompt.prompt().ids.len() as u64 + ANSWER));
        }
        if answers == 0 {
            let why = "unused: no held-out prompt has an answer to compare with; for rows that are only prompts, \
                       data.columns.answer names the column with the answer";
            return Some(("eval.pass_at", why.to_owned()));
        }
        let why = capacity::check(bytes).err()?;
        Some(("eval.samples", format!("{answers} answers: {why}; draw fewer, or give a smaller eval.generate")))
    }

    fn measure(&self, held_out: &mut HeldOutPrompts<'_>) -> Result<Measured> {
        let HeldOutPrompts { experiment, tokenizer, prompts, models, .. } = *held_out;
        let Some(pass) = &experiment.eval.pass else { return Ok(Default::default()) };
        let repeated = |prompt| std::iter::repeat_n(prompt, pass.samples);
        let prompts_to_answer: Vec<&EvalPrompt> = with_answers(prompts).flat_map(repeated).collect();
        let answers = compare(models.policy, tokenizer, &prompts_to_answer, &sampling(experiment, prompts))?;
        Ok(Measured {
            values: pass.pass_at.iter().map(|k| mean(&answers, pass.samples, *k)).collect(),
            answers: answers.iter().map(|answer| answer.line("pass")).collect(),
            distributions: lengths("pass/length", &answers),
        })
    }
}

/// Returns the mean of pass@k over prompts with `samples` answers each.
fn mean(answers: &[ComparedAnswer], samples: usize, k: usize) -> f64 {
    let of_prompts = answers.chunks(samples.max(1));
    let count = of_prompts.len();
    let right = |answers: &[ComparedAnswer]| answers.iter().filter(|answer| answer.is_match).count();
    of_prompts.map(|answers| pass_at_k(answers.len(), right(answers), k)).sum::<f64>() / count.max(1) as f64
}

/// Returns `1 - C(n-c, k) / C(n, k)` for `c` right answers of `n`, `k` at most `n`.
///
/// The binomials overflow from about a thousand answers on. Their quotient is a product of factors from 0 to 1:
/// `C(n-c, k) / C(n, k) = (1 - k/(n-c+1)) (1 - k/(n-c+2)) ... (1 - k/n)`.
pub(crate) fn pass_at_k(n: usize, c: usize, k: usize) -> f64 {
    if n - c < k {
        return 1.0;
    }
    1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches the biased estimator `1 - (1 - c/n)^k`, a product that begins or ends one factor off, and a prompt with fewer
    /// than `k` wrong answers that is not certain to pass.
    #[test]
    fn the_estimate_is_the_share_of_subsets_with_a_right_answer() {
        for n in 1..=8_usize {
            for c in 0..=n {
                for k in 1..=n {
                    let subsets = (0..1_u32 << n).filter(|subset| subset.count_ones() as usize == k);
                    // The first `c` answers are the right ones.
                    let right = (1_u32 << c) - 1;
                    let (all, passed) = subsets
                        .fold((0, 0), |(all, passed), subset| (all + 1, passed + u32::from(subset & right != 0)));
                    let expected = f64::from(passed) / f64::from(all);
                    let found = pass_at_k(n, c, k);
                    assert!((found - expected).abs() < 1e-12, "n {n}, c {c}, k {k}: {found}, expected {expected}");
                }
            }
        }
    }

    /// Catches binomials that overflow to infinity, whose quotient is not a number.
    #[test]
    fn thousands_of_answers_do_not_overflow() {
        let (n, c, k) = (10_000, 17, 4_000);
        // The logarithm of the same quotient, from logarithms of factorials.
        let ln_factorial = |n: usize| (1..=n).map(|i| (i as f64).ln()).sum::<f64>();
        let ln_quotient = ln_factorial(n - c) + ln_factorial(n - k) - ln_factorial(n - c - k) - ln_factorial(n);
        let expected = -ln_quotient.exp_m1();
        assert!((pass_at_k(n, c, k) - expected).abs() < 1e-9, "{} {expected}", pass_at_k(n, c, k));
    }

    /// Catches a mean over answers instead of prompts, and answers that are counted for another prompt than their own.
    #[test]
    fn prompts_count_equally() {
        let answer = |is_match| ComparedAnswer {
            text: crate::generate::text::SampleText {
                prompt: String::new(),
                text: String::new(),
                tokens: 1,
                finish: "end of sequence",
            },
            expected: String::new(),
            more_expected: Vec::new(),
            is_match,
        };
        let answers: Vec<_> = [true, true, false, false, false, false].map(answer).into();
        assert!((mean(&answers, 3, 1) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(mean(&answers, 3, 2), 0.5);
        assert_eq!(mean(&answers, 3, 3), 0.5);
    }
}
