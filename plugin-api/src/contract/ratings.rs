//! Checks of a reward's ratings.

use super::{
    fault::{Fault, fault, twice},
    option_names::RESERVED_PREFIX,
    requirements::unknown_feature,
};
use crate::{
    manifest::RewardManifest,
    reward::{Rating, Sample},
};

/// Whether a reward or a part of one may have this name: letters, digits, `_` and `-`; not a number, not `token`, and not beginning
/// with [`RESERVED_PREFIX`]. The array `reward.NAME.1` is then never a part, and `reward.NAME.token` neither.
pub fn is_reward_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let number = name.chars().all(|c| c.is_ascii_digit());
    !name.is_empty() && name.chars().all(allowed) && !number && name != "token" && !name.starts_with(RESERVED_PREFIX)
}

/// All mistakes of a reward's declared parts, and the feature of a later version that it requires; empty if there are none.
pub fn reward_parts(manifest: &RewardManifest) -> Vec<String> {
    let invalid = manifest.parts.iter().filter(|part| !is_reward_name(&part.name));
    let mut wrong: Vec<String> = invalid
        .map(|part| {
            let name = &part.name;
            format!(
                "the part {name:?} has a name other than letters, digits, `_` and `-` (and not a number, not `token`, and without \
                 `{RESERVED_PREFIX}` at the beginning)"
            )
        })
        .collect();
    if let Some(name) = twice(manifest.parts.iter().map(|part| part.name.as_str())) {
        wrong.push(format!("the part `{name}` is declared twice"));
    }
    // Without another one, its id is the reward's name in an experiment.
    if !manifest.id.is_empty() && !is_reward_name(&manifest.id) {
        let id = &manifest.id;
        wrong.push(format!(
            "its id `{id}` cannot be the name of a reward: it is a number, `token`, or begins with `{RESERVED_PREFIX}`; rename it"
        ));
    }
    wrong.extend(unknown_feature(&manifest.features));
    wrong
}

/// Checks the ratings that `rate` returned for `samples`.
///
/// # Errors
/// The first mistake, with its sample: not one rating per sample; a score, part or span value that is not finite; parts other than
/// the declared ones; spans without being declared, empty, outside of the text, out of order or overlapping.
pub fn ratings(manifest: &RewardManifest, samples: &[Sample], ratings: &[Rating]) -> Result<(), Fault> {
    if ratings.len() != samples.len() {
        return fault(format!("it returned {} ratings for {} samples", ratings.len(), samples.len()));
    }
    samples.iter().zip(ratings).enumerate().try_for_each(|(index, (sample, rating))| {
        rating_of(manifest, sample, rating).map_err(|text| Fault::at(format!("sample {index}: {text}"), Some(index)))
    })
}

fn rating_of(manifest: &RewardManifest, sample: &Sample, rating: &Rating) -> Result<(), String> {
    if !rating.score.is_finite() {
        return Err(format!("the score is {}, expected a finite number", rating.score));
    }
    if let Some(part) = manifest.parts.iter().find(|part| !rating.parts.iter().any(|(name, _)| *name == part.name)) {
        return Err(format!("the declared part `{}` is missing", part.name));
    }
    if let Some((name, _)) = rating.parts.iter().find(|(name, _)| !manifest.parts.iter().any(|part| part.name == *name))
    {
        return Err(format!("the part `{name}` is not declared in the manifest's `parts`"));
    }
    if let Some(name) = twice(rating.parts.iter().map(|(name, _)| name.as_str())) {
        return Err(format!("the part `{name}` was returned twice"));
    }
    if let Some((name, value)) = rating.parts.iter().find(|(_, value)| !value.is_finite()) {
        return Err(format!("the part `{name}` is {value}, expected a finite number"));
    }
    if !manifest.spans && !rating.spans.is_empty() {
        return Err("spans were returned, but the manifest does not declare them: set `spans`".to_owned());
    }
    let characters = sample.completion.chars().count();
    let mut last = 0;
    for (number, span) in rating.spans.iter().enumerate() {
        let place = format!("span {number} ({} to {})", span.start, span.end);
        if characters == 0 {
            return Err(format!("{place} ends in no token: the answer has no text"));
        }
        if span.start >= span.end || span.end > characters {
            return Err(format!("{place} does not lie in the text of {characters} characters"));
        }
        if span.start < last {
            return Err(format!("{place} begins before the end of the span before it, {last}; spans are ordered"));
        }
        if !span.value.is_finite() {
            return Err(format!("{place} has the value {}, expected a finite number", span.value));
        }
        last = span.end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{manifest::RewardPart, reward::Span};

    fn manifest(spans: bool) -> RewardManifest {
        RewardManifest { parts: vec![RewardPart::new("right", "Right")], spans, ..Default::default() }
    }

    fn rating(spans: &[(usize, usize, f64)]) -> Rating {
        let spans = spans.iter().map(|(start, end, value)| Span { start: *start, end: *end, value: *value }).collect();
        Rating { score: 1.0, parts: vec![("right".to_owned(), 0.5)], spans }
    }

    fn check(manifest: &RewardManifest, text: &str, rating: Rating) -> Result<(), String> {
        let samples = [Sample::default(), Sample { completion: text.to_owned(), ..Default::default() }];
        let first = Rating { score: 0.0, parts: rating_parts(manifest), spans: Vec::new() };
        ratings(manifest, &samples, &[first, rating]).map_err(|fault| {
            assert_eq!(fault.sequence, Some(1));
            fault.text
        })
    }

    fn rating_parts(manifest: &RewardManifest) -> Vec<(String, f64)> {
        manifest.parts.iter().map(|part| (part.name.clone(), 0.0)).collect()
    }

    /// Catches characters that are counted in bytes, spans that count twice, and values that are not numbers.
    #[test]
    fn spans_lie_in_the_text_in_order() {
        let with = manifest(true);
        for good in [&[][..], &[(0, 4, 1.0)], &[(0, 1, 1.0), (1, 2, -1.0), (3, 4, 0.5)]] {
            assert_eq!(check(&with, "é👩x!", rating(good)), Ok(()));
        }
        for (spans, part) in [
            (&[(0, 5, 1.0)][..], "span 0 (0 to 5) does not lie in the text of 4 characters"),
            (&[(2, 2, 1.0)], "span 0 (2 to 2)"),
            (&[(0, 2, 1.0), (1, 3, 1.0)], "span 1 (1 to 3) begins before the end"),
            (&[(2, 3, 1.0), (0, 1, 1.0)], "span 1 (0 to 1) begins before the end"),
            (&[(0, 1, f64::NAN)], "span 0 (0 to 1) has the value NaN"),
        ] {
            let why = check(&with, "é👩x!", rating(spans)).unwrap_err();
            assert!(why.starts_with("sample 1: ") && why.contains(part), "{part} is missing in {why}");
        }
        assert!(
            check(&with, "", rating(&[(0, 1, 1.0)])).unwrap_err().contains("ends in no token: the answer has no text")
        );
        assert!(check(&manifest(false), "abc", rating(&[(0, 1, 1.0)])).unwrap_err().contains("set `spans`"));
    }

    /// Catches a part that is missing for one sample, one that is not declared, and NaN.
    #[test]
    fn every_sample_has_the_declared_parts() {
        let with = manifest(false);
        let parts = |names: &[(&str, f64)]| Rating {
            parts: names.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            ..Rating::default()
        };
        for (wrong, part) in [
            (parts(&[]), "part `right` is missing"),
            (parts(&[("right", 1.0), ("other", 1.0)]), "`other` is not declared"),
            (parts(&[("right", 1.0), ("right", 1.0)]), "`right` was returned twice"),
            (parts(&[("right", f64::INFINITY)]), "`right` is inf"),
            (Rating::from(f64::NAN), "the score is NaN"),
        ] {
            let why = check(&with, "abc", wrong).unwrap_err();
            assert!(why.contains(part), "{part} is missing in {why}");
        }
        assert!(ratings(&with, &[], &[Rating::from(1.0)]).unwrap_err().text.contains("1 ratings for 0 samples"));
        let declared = |names: &[&str]| RewardManifest {
            parts: names.iter().map(|name| RewardPart::new(name, "x")).collect(),
            ..Default::default()
        };
        assert_eq!(reward_parts(&declared(&["a-b_2", "x"])), [""; 0]);
        let later = RewardManifest { features: vec!["batched".into()], ..Default::default() };
        assert!(reward_parts(&later)[0].contains("the feature `batched`"));
        for id in ["host_a", "token", "12"] {
            let named = RewardManifest { id: id.into(), ..Default::default() };
            assert!(reward_parts(&named)[0].contains(&format!("its id `{id}`")));
        }
        for wrong in [&["token"][..], &["1"], &["a.b"], &[""], &["host_a"], &["a", "a"]] {
            assert_eq!(reward_parts(&declared(wrong)).len(), 1, "{wrong:?}");
        }
    }
}
