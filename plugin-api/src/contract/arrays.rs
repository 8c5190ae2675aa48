//! Arrays and numbers that come back from `prepare`, `weigh` and `after_step`.

use super::description::host_owns_array;
use super::fault::{Fault, fault, place, sequence_of, twice};
use crate::{
    batch::{Array, Batch, Scope, names},
    manifest::{Normaliser, ObjectiveManifest, Requirements, TermSpec},
    objective::Verdict,
};

/// The largest number of prompts that `request` may ask for.
const MOST_PROMPTS: f64 = 1e9;

/// Checks the arrays that `prepare` returned for `given`. With rollouts, `keep` and `request` may be among them.
///
/// Numbers per token must be finite where the mask is 1, all others everywhere.
///
/// # Errors
/// The first mistake: an array of the host, a wrong scope or length, a `keep` other than 0 and 1 or a `request` other than one
/// whole number from 0, either of them without rollouts, a number that is not finite where it counts.
pub fn prepared(given: &Batch<'_>, answer: &Batch<'_>, rollouts: bool) -> Result<(), Fault> {
    let (offsets, mask) = (given.offsets()?, given.mask()?);
    let (tokens, sequences) = (given.tokens()?, given.sequences()?);
    for array in answer.arrays() {
        let name = array.name.as_ref();
        if host_owns_array(name) || given.find(name).is_some() {
            return fault(format!(
                "it returned `{name}`, an array of the host, which a plugin may not replace; rename it"
            ));
        }
        if [names::KEEP, names::REQUEST].contains(&name) && !rollouts {
            return fault(format!("it returned `{name}`, which only an objective that learns from rollouts may do"));
        }
        if name == names::REQUEST {
            request(array)?;
            continue;
        }
        let expected = match array.scope {
            _ if array.cols == 0 => return fault(format!("it returned `{name}` with 0 columns")),
            _ if rollouts && array.cols != 1 => {
                return fault(format!("it returned `{name}` with {} columns, expected one in rollouts", array.cols));
            }
            Scope::TOKEN if name != names::KEEP => tokens,
            Scope::SEQUENCE => sequences,
            Scope::BATCH if !rollouts => array.rows(),
            scope => {
                let expected =
                    if name == names::KEEP { "one number per sequence" } else { "numbers per token or sequence" };
                return fault(format!("it returned `{name}` per {scope:?}, expected {expected}"));
            }
        };
        if expected.checked_mul(array.cols) != Some(array.data.len()) {
            let (found, cols, scope) = (array.data.len(), array.cols, array.scope);
            let rows = if cols == 1 { String::new() } else { format!(", each with {cols} columns") };
            let has = format!("{sequences} sequences of {tokens} tokens");
            return fault(format!(
                "it returned {found} numbers as `{name}`, expected {expected}, one per {scope:?}{rows} (the batch has {has})"
            ));
        }
        finite(array, mask, &offsets)?;
        if let (names::KEEP, Some(s)) = (name, array.data.iter().position(|keep| *keep != 0.0 && *keep != 1.0)) {
            return Err(Fault::at(format!("`keep` is {} for sequence {s}, expected 0 or 1", array.data[s]), Some(s)));
        }
    }
    Ok(())
}

/// Checks `request`: one whole number of prompts.
fn request(array: &Array<'_>) -> Result<(), Fault> {
    let whole = |number: f64| number.fract() == 0.0 && (0.0..=MOST_PROMPTS).contains(&number);
    match (array.scope, array.data.as_ref()) {
        (Scope::BATCH, [number]) if whole(*number) => Ok(()),
        (Scope::BATCH, [number]) => fault(format!(
            "it returned {number} as `request`, expected a whole number of prompts from 0 to {MOST_PROMPTS:e}"
        )),
        (scope, data) => {
            let count = data.len();
            fault(format!("it returned {count} numbers as `request`, per {scope:?}, expected one number per batch"))
        }
    }
}

fn finite(array: &Array<'_>, mask: &[f64], offsets: &[usize]) -> Result<(), Fault> {
    let per_token = array.scope == Scope::TOKEN;
    let counts = |i: usize| !per_token || mask.get(i / array.cols) == Some(&1.0);
    let Some(i) = (0..array.data.len()).find(|i| counts(*i) && !array.data[*i].is_finite()) else { return Ok(()) };
    let (name, value, row) = (&array.name, array.data[i], i / array.cols);
    let (at, sequence) = match array.scope {
        Scope::TOKEN => (place(offsets, row), sequence_of(offsets, row)),
        Scope::SEQUENCE => (format!("sequence {row}"), Some(row)),
        _ => (format!("place {i}"), None),
    };
    Err(Fault::at(format!("`{name}` is {value} at {at}, expected a finite number"), sequence))
}

/// Checks that `weigh` returned one weight for each term with a custom normaliser under the instance's options, and nothing else.
///
/// # Errors
/// The first mistake: a term that is missing, unknown or given twice; a weight that is negative or not finite.
pub fn weights(
    manifest: &ObjectiveManifest,
    requirements: &Requirements,
    answer: &[(String, f64)],
) -> Result<(), Fault> {
    let custom = |term: &TermSpec| *requirements.normaliser(term).0 == Normaliser::CUSTOM;
    let is_custom = |name: &str| manifest.terms.iter().any(|term| term.name == name && custom(term));
    for (name, weight) in answer {
        if !is_custom(name) {
            return fault(format!("it returned a weight for `{name}`, which is not a term with a custom normaliser"));
        }
        if !(weight.is_finite() && *weight >= 0.0) {
            return fault(format!("it returned {weight} as normaliser of the term `{name}`, expected a number from 0"));
        }
    }
    if let Some(name) = twice(answer.iter().map(|(name, _)| name.as_str())) {
        return fault(format!("it returned two weights for the term `{name}`"));
    }
    let missing = manifest.terms.iter().find(|t| is_custom(&t.name) && !answer.iter().any(|(name, _)| *name == t.name));
    match missing {
        Some(term) => fault(format!("it returned no weight for the term `{}`, whose normaliser is custom", term.name)),
        None => Ok(()),
    }
}

/// Checks a verdict: 0, 1 or 2, and 1 (the end of a rollout) only with rollouts.
///
/// # Errors
/// The verdict found and those that are allowed.
pub fn verdict(verdict: Verdict, rollouts: bool) -> Result<(), Fault> {
    match verdict {
        Verdict::CONTINUE | Verdict::STOP => Ok(()),
        Verdict::END_ROLLOUT if rollouts => Ok(()),
        Verdict::END_ROLLOUT => fault("it returned END_ROLLOUT (1), but this run has no rollouts"),
        Verdict(other) => {
            fault(format!("it returned the verdict {other}, expected 0 (CONTINUE), 1 (END_ROLLOUT) or 2 (STOP)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::TermNormaliser;

    fn given() -> Batch<'static> {
        Batch::new()
            .with(names::OFFSETS, Scope::BATCH, vec![0.0, 2.0, 5.0])
            .with(names::MASK, Scope::TOKEN, vec![1.0, 0.0, 1.0, 1.0, 0.0])
            .with("custom", Scope::SEQUENCE, vec![0.0; 2])
    }

    fn refused(answer: Batch<'_>, rollouts: bool) -> String {
        prepared(&given(), &answer, rollouts).expect_err("it is wrong").text
    }

    /// Catches a `prepare` that replaces an array of the host: the run would learn from other data than its receipt records.
    #[test]
    fn gotcha_57_prepare_cannot_replace_an_array_of_the_host() {
        for name in ["mask", "group", "target", "offsets", "side", "reward", "ended", "logp", "column.margin", "custom"]
        {
            for rollouts in [true, false] {
                let why = refused(Batch::new().with(name, Scope::SEQUENCE, vec![0.0; 2]), rollouts);
                assert!(why.contains(&format!("`{name}`, an array of the host")), "{why}");
            }
        }
    }

    /// Catches lengths that are checked only for rollouts, or compared with the number of tokens instead of sequences.
    #[test]
    fn prepare_returns_the_right_lengths_and_scopes() {
        let array = |scope, count| Batch::new().with("a", scope, vec![1.0; count]);
        for rollouts in [true, false] {
            assert_eq!(prepared(&given(), &array(Scope::TOKEN, 5), rollouts), Ok(()));
            assert_eq!(prepared(&given(), &array(Scope::SEQUENCE, 2), rollouts), Ok(()));
            for (scope, count, expected) in
                [(Scope::TOKEN, 4, "expected 5"), (Scope::TOKEN, 2, "expected 5"), (Scope::SEQUENCE, 5, "expected 2")]
            {
                let why = refused(array(scope, count), rollouts);
                assert!(why.contains(&format!("{count} numbers as `a`, {expected}")), "{why}");
            }
            assert!(refused(array(Scope(9), 5), rollouts).contains("scope 9"));
        }
        assert_eq!(prepared(&given(), &array(Scope::BATCH, 3), false), Ok(()));
        assert!(refused(array(Scope::BATCH, 3), true).contains("per batch"));
        let wide = |cols, data| Array { name: "a".into(), scope: Scope::TOKEN, differentiable: false, cols, data };
        assert_eq!(prepared(&given(), &Batch::new().with_array(wide(2, vec![0.0; 10].into())), false), Ok(()));
        assert!(refused(Batch::new().with_array(wide(2, vec![0.0; 10].into())), true).contains("2 columns"));
        assert!(refused(Batch::new().with_array(wide(2, vec![0.0; 9].into())), false).contains("expected 5"));
        assert!(refused(Batch::new().with_array(wide(0, vec![0.0; 5].into())), false).contains("0 columns"));
    }

    /// Catches a `request` of half a prompt, of fewer than none or of more than can be drawn, and one outside rollouts.
    #[test]
    fn request_is_one_whole_number_of_prompts() {
        let request = |scope, values: &[f64]| Batch::new().with("request", scope, values.to_vec());
        for good in [0.0, 1.0, 64.0] {
            assert_eq!(prepared(&given(), &request(Scope::BATCH, &[good]), true), Ok(()));
        }
        assert!(refused(request(Scope::BATCH, &[1.0]), false).contains("`request`, which only"));
        for wrong in [-1.0, 0.5, f64::NAN, f64::INFINITY, 1e10] {
            let why = refused(request(Scope::BATCH, &[wrong]), true);
            assert!(why.contains(&format!("{wrong} as `request`")), "{why}");
        }
        for (scope, values) in [(Scope::BATCH, &[][..]), (Scope::BATCH, &[1.0, 2.0]), (Scope::SEQUENCE, &[1.0, 1.0])] {
            assert!(refused(request(scope, values), true).contains("expected one number per batch"));
        }
    }

    /// Catches a `keep` of 0.5 or NaN that counts as 1, and one outside rollouts.
    #[test]
    fn keep_is_0_or_1() {
        let keep = |values: [f64; 2]| Batch::new().with("keep", Scope::SEQUENCE, values.to_vec());
        assert_eq!(prepared(&given(), &keep([0.0, 1.0]), true), Ok(()));
        assert!(refused(keep([0.0, 1.0]), false).contains("`keep`"));
        assert!(refused(keep([1.0, 0.5]), true).contains("`keep` is 0.5 for sequence 1"));
        assert!(refused(keep([f64::NAN, 1.0]), true).contains("`keep` is NaN at sequence 0"));
        assert!(refused(keep([-1.0, 1.0]), true).contains("`keep` is -1"));
        let per_token = Batch::new().with("keep", Scope::TOKEN, vec![1.0; 5]);
        assert!(refused(per_token, true).contains("one number per sequence"));
    }

    /// Catches NaN that enters the loss, and a NaN behind the mask that is refused too.
    #[test]
    fn prepared_numbers_are_finite_at_supervised_tokens() {
        let token = |at: usize| {
            let mut values = vec![0.5; 5];
            values[at] = f64::NAN;
            Batch::new().with("a", Scope::TOKEN, values)
        };
        assert_eq!(prepared(&given(), &token(1), true), Ok(()));
        let why = prepared(&given(), &token(3), true).unwrap_err();
        assert!(why.text.contains("`a` is NaN at token 3 (token 1 of sequence 1)"), "{why}");
        assert_eq!(why.sequence, Some(1));
        assert!(
            refused(Batch::new().with("a", Scope::SEQUENCE, vec![0.0, f64::INFINITY]), false).contains("sequence 1")
        );
    }

    /// Catches negative counts, which reverse the gradient, and weights that belong to no term.
    #[test]
    fn weights_are_unique_and_not_negative() {
        let manifest = ObjectiveManifest {
            terms: vec![
                TermSpec::new("a", Normaliser::CUSTOM, ""),
                TermSpec::new("b", Normaliser::CUSTOM, ""),
                TermSpec::new("c", Normaliser::SEQUENCES, ""),
            ],
            ..Default::default()
        };
        let answer = |pairs: &[(&str, f64)]| {
            let answer: Vec<_> = pairs.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
            weights(&manifest, &Requirements::default(), &answer)
        };
        assert_eq!(answer(&[("b", 0.0), ("a", 2.0)]), Ok(()));
        for (pairs, part) in [
            (&[("a", 1.0)][..], "no weight for the term `b`"),
            (&[("a", 1.0), ("b", 1.0), ("a", 1.0)], "two weights for the term `a`"),
            (&[("a", -1.0), ("b", 1.0)], "-1 as normaliser of the term `a`"),
            (&[("a", f64::NAN), ("b", 1.0)], "NaN as normaliser"),
            (&[("a", f64::INFINITY), ("b", 1.0)], "inf as normaliser"),
            (&[("a", 1.0), ("b", 1.0), ("c", 1.0)], "`c`, which is not a term with a custom"),
            (&[("a", 1.0), ("b", 1.0), ("d", 1.0)], "`d`, which is not a term"),
        ] {
            let why = answer(pairs).unwrap_err().text;
            assert!(why.contains(part), "{part} is missing in {why}");
        }
    }

    /// Catches weights that are asked for by the manifest, although the options choose another normaliser.
    #[test]
    fn options_decide_which_terms_are_weighed() {
        let terms = vec![TermSpec::new("a", Normaliser::CUSTOM, ""), TermSpec::new("b", Normaliser::SEQUENCES, "")];
        let manifest = ObjectiveManifest { terms, ..Default::default() };
        let own = |term: &str, normaliser| TermNormaliser { term: term.to_owned(), normaliser, times: 1.0 };
        let normalisers = vec![own("a", Normaliser::SEQUENCES), own("b", Normaliser::CUSTOM)];
        let requirements = Requirements { normalisers, ..Default::default() };
        assert_eq!(weights(&manifest, &requirements, &[("b".to_owned(), 1.0)]), Ok(()));
        assert!(weights(&manifest, &requirements, &[("a".to_owned(), 1.0)]).is_err());
        assert!(weights(&manifest, &requirements, &[]).unwrap_err().text.contains("`b`"));
    }

    /// Catches an unknown verdict that is treated as CONTINUE.
    #[test]
    fn verdicts_are_known_ones() {
        for rollouts in [true, false] {
            assert_eq!(verdict(Verdict::CONTINUE, rollouts), Ok(()));
            assert_eq!(verdict(Verdict::STOP, rollouts), Ok(()));
            assert!(verdict(Verdict(7), rollouts).unwrap_err().text.contains("verdict 7"));
        }
        assert_eq!(verdict(Verdict::END_ROLLOUT, true), Ok(()));
        assert!(verdict(Verdict::END_ROLLOUT, false).unwrap_err().text.contains("no rollouts"));
    }
}
