//! Ratings as arrays that cross: `score` per sample, each part per sample, and the spans of all samples as rows of three numbers
//! with their count per sample.

use super::{
    types::ArrayOwned,
    wire::{ROLE_ARRAY, owned},
};
use crate::{
    Code, Error, Result,
    batch::{Scope, names},
    reward::{Rating, Span},
};
use abi_stable::std_types::RVec;

/// Name of the array of scores.
pub const SCORE: &str = "score";
/// [`ArrayOwned::owner`] of a part; its name is the array's.
pub const PART: &str = "part";
/// Name of the array of spans: start, end and value in each row.
pub const SPANS: &str = "spans";

/// Sends ratings back.
///
/// # Errors
/// [`Code::ARRAY`] if the samples have different parts.
pub fn give_ratings(ratings: Vec<Rating>, out: &mut RVec<ArrayOwned>) -> Result<()> {
    let names: Vec<String> = ratings.first().iter().flat_map(|r| &r.parts).map(|(name, _)| name.clone()).collect();
    let mut columns = vec![Vec::with_capacity(ratings.len()); names.len()];
    for (sample, rating) in ratings.iter().enumerate() {
        if !rating.parts.iter().map(|(name, _)| name).eq(&names) {
            let own: Vec<&str> = rating.parts.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::new(
                Code::ARRAY,
                format!(
                    "`rate` returned the parts [{}] for sample {sample}, and [{}] for sample 0; every sample has the same ones, \
                     in one order",
                    own.join(", "),
                    names.join(", ")
                ),
            ));
        }
        rating.parts.iter().zip(&mut columns).for_each(|((_, value), column)| column.push(*value));
    }
    let per_sample = |owner: &str, name: &str, data| owned(owner, name, ROLE_ARRAY, Scope::SEQUENCE, 1, data);
    out.push(per_sample("", SCORE, ratings.iter().map(|rating| rating.score).collect()));
    names.iter().zip(columns).for_each(|(name, column)| out.push(per_sample(PART, name, column)));
    if ratings.iter().any(|rating| !rating.spans.is_empty()) {
        let lengths = ratings.iter().map(|rating| rating.spans.len() as f64).collect();
        out.push(per_sample("", &format!("{SPANS}{}", names::LENGTH), lengths));
        let spans = ratings.iter().flat_map(|rating| &rating.spans);
        let data = spans.flat_map(|span| [span.start as f64, span.end as f64, span.value]).collect();
        out.push(owned("", SPANS, ROLE_ARRAY, Scope::LIST, 3, data));
    }
    Ok(())
}

/// Takes the ratings of `samples` samples that were sent back. Skips arrays of a newer minor version.
///
/// # Errors
/// [`Code::ARRAY`] for arrays that are missing, occur twice or do not fit the number of samples.
pub fn take_ratings(arrays: RVec<ArrayOwned>, samples: usize) -> Result<Vec<Rating>> {
    let refuse = |what: String| Error::new(Code::ARRAY, what);
    let per_sample = |array: &ArrayOwned| match array.data.len() == samples {
        true => Ok(()),
        false => {
            let (name, found) = (&array.name, array.data.len());
            Err(refuse(format!("`{name}` was returned with {found} numbers for {samples} samples")))
        }
    };
    let of_owner =
        |owner: &'static str| arrays.iter().filter(move |a| a.role == ROLE_ARRAY && a.owner.as_str() == owner);
    let own = |name: &str| {
        let mut found = of_owner("").filter(|array| array.name.as_str() == name);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(refuse(format!("`{name}` was returned twice"))),
            (first, None) => Ok(first),
        }
    };
    let scores = own(SCORE)?.ok_or_else(|| refuse(format!("`{SCORE}` was not returned")))?;
    per_sample(scores)?;
    let mut ratings: Vec<Rating> = scores.data.iter().map(|score| Rating::from(*score)).collect();
    for part in of_owner(PART) {
        per_sample(part)?;
        for (rating, value) in ratings.iter_mut().zip(part.data.iter()) {
            rating.parts.push((part.name.to_string(), *value));
        }
    }
    let (spans, lengths) = (own(SPANS)?, own(&format!("{SPANS}{}", names::LENGTH))?);
    let (Some(spans), Some(lengths)) = (spans, lengths) else {
        return match spans.or(lengths) {
            Some(one) => Err(refuse(format!("`{}` was returned without its other half", one.name))),
            None => Ok(ratings),
        };
    };
    per_sample(lengths)?;
    let whole =
        |number: f64| (number.fract() == 0.0 && (0.0..=u32::MAX.into()).contains(&number)).then_some(number as usize);
    let total = lengths.data.iter().try_fold(0, |sum, length| Some(sum + whole(*length)?));
    if total.map(|total: usize| 3 * total) != Some(spans.data.len()) {
        return Err(refuse(format!("`{SPANS}` was returned with {} numbers, not 3 for each span", spans.data.len())));
    }
    let mut rows = spans.data.chunks_exact(3);
    for (rating, length) in ratings.iter_mut().zip(lengths.data.iter()) {
        for row in rows.by_ref().take(*length as usize) {
            let (Some(start), Some(end)) = (whole(row[0]), whole(row[1])) else {
                return Err(refuse(format!(
                    "a span was returned from {} to {}, expected whole numbers",
                    row[0], row[1]
                )));
            };
            rating.spans.push(Span { start, end, value: row[2] });
        }
    }
    Ok(ratings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rating(score: f64, part: &str, spans: &[(usize, usize, f64)]) -> Rating {
        let spans = spans.iter().map(|(start, end, value)| Span { start: *start, end: *end, value: *value }).collect();
        Rating { score, parts: vec![(part.to_owned(), -score)], spans }
    }

    fn crossed(ratings: Vec<Rating>) -> RVec<ArrayOwned> {
        let mut wire = RVec::new();
        give_ratings(ratings, &mut wire).unwrap();
        wire
    }

    /// Catches spans that cross with another sample's, and a sample without spans that shifts those after it.
    #[test]
    fn ratings_cross_unchanged() {
        let some = vec![
            rating(0.5, "right", &[(0, 2, 1.0)]),
            rating(-1.0, "right", &[]),
            rating(f64::MIN_POSITIVE, "right", &[(3, 4, 0.25), (4, 9, -0.5)]),
        ];
        assert_eq!(take_ratings(crossed(some.clone()), 3).unwrap(), some);
        assert_eq!(take_ratings(crossed(vec![]), 0).unwrap(), []);
        let plain = vec![Rating::from(1.0), Rating::from(2.0)];
        assert_eq!(take_ratings(crossed(plain.clone()), 2).unwrap(), plain);
    }

    /// Catches parts that are taken for those of other samples, and arrays whose lengths are not checked.
    #[test]
    fn contradictory_ratings_are_refused() {
        let error = give_ratings(vec![rating(1.0, "a", &[]), rating(1.0, "b", &[])], &mut RVec::new()).unwrap_err();
        assert!(error.message.contains("[b] for sample 1, and [a] for sample 0"), "{error}");
        let wire = || crossed(vec![rating(1.0, "a", &[(0, 1, 1.0)]), rating(2.0, "a", &[])]);
        let refused = |change: fn(&mut RVec<ArrayOwned>), samples| {
            let mut arrays = wire();
            change(&mut arrays);
            take_ratings(arrays, samples).unwrap_err().message
        };
        assert!(refused(|_| (), 3).contains("`score` was returned with 2 numbers for 3 samples"));
        assert!(refused(|a| _ = a.remove(0), 2).contains("`score` was not returned"));
        assert!(refused(|a| a.push(a[0].clone()), 2).contains("`score` was returned twice"));
        assert!(refused(|a| a[1].data.clear(), 2).contains("`a` was returned with 0 numbers"));
        assert!(refused(|a| _ = a.remove(2), 2).contains("`spans` was returned without its other half"));
        assert!(refused(|a| a[2].data[1] = 1.0, 2).contains("not 3 for each span"));
        assert!(refused(|a| a[2].data[0] = f64::NAN, 2).contains("not 3 for each span"));
        assert!(refused(|a| a[3].data[0] = 0.5, 2).contains("from 0.5 to 1"));
    }
}
