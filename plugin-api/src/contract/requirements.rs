//! Checks of an instance's requirements when it is created.

use super::fault::{Fault, fault, twice};
use crate::{
    manifest::{
        AttentionMask, Candidates, DataKind, GivenNumber, Normaliser, ObjectiveColumn, ObjectiveManifest, Requirements,
        Statistic,
    },
    objective::role_of,
};

/// The largest number of candidates per token.
const MOST_CANDIDATES: u64 = 4096;

/// Checks that the requirements of an instance are possible and agree with its manifest.
///
/// # Errors
/// The first mistake: a feature of a later version; no statistic, one twice; a divergence or candidates that are read without being
/// described, or described without being read; a temperature, weight, count or constant out of range; a normaliser of a term that is
/// not declared; requirements of rollouts without prompts; columns of running text, one twice, and a range without a value; a number of an option that is not
/// declared; reserved ids with prompts, one twice; a reward's array without a name or twice.
pub fn requirements(manifest: &ObjectiveManifest, requirements: &Requirements) -> Result<(), Fault> {
    if let Some(why) = unknown_feature(&requirements.features) {
        return fault(why);
    }
    let statistics = &requirements.statistics;
    if statistics.is_empty() {
        return fault("it requires no statistic, so that nothing can be learned; logp is the usual one");
    }
    if let Some(name) = twice(statistics.iter().map(String::as_str)) {
        return fault(format!("it requires the statistic `{name}` twice"));
    }
    temperature("temperature", requirements.temperature)?;
    divergence(requirements)?;
    candidates(requirements)?;
    normalisers(manifest, requirements)?;
    columns(manifest, &requirements.columns)?;
    numbers(manifest, requirements)?;
    let attention = requirements.attention.as_str();
    if !AttentionMask::ALL.contains(&attention) {
        let known = AttentionMask::ALL.join(", ");
        return fault(format!("it requires the attention mask `{attention}`, expected one of {known}"));
    }
    reward_names(manifest, &requirements.reward_names)?;
    rollouts(manifest, requirements)
}

/// Why a plugin that requires these features is refused: this version of the contract has none.
pub(super) fn unknown_feature(features: &[String]) -> Option<String> {
    let feature = features.first()?;
    Some(format!("it requires the feature `{feature}`, which this version of telos does not have; use a newer one"))
}

fn temperature(what: &str, value: f64) -> Result<(), Fault> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    fault(format!("it requires the {what} {value}, expected a number above 0"))
}

fn reads(requirements: &Requirements, base: &Statistic) -> Option<String> {
    requirements.statistics.iter().find(|name| role_of(name).1 == base.as_str()).cloned()
}

fn divergence(requirements: &Requirements) -> Result<(), Fault> {
    if requirements.statistics.iter().any(|name| name == Statistic::KL.as_str()) {
        return fault(
            "it requires the statistic `kl` of no role; name the role that the policy is compared with: `teacher.kl`",
        );
    }
    match (&requirements.divergence, reads(requirements, &Statistic::KL)) {
        (None, None) => Ok(()),
        (None, Some(name)) => fault(format!(
            "it requires the statistic `{name}`, but no divergence; add to its Requirements, for example, `divergence: \
                 Some(Divergence::new(0.0, 1.0))`: weight 0 is KL(role || policy), 1 is KL(policy || role)"
        )),
        (Some(_), None) => fault("it requires a `divergence`, but no statistic `ROLE.kl`"),
        (Some(divergence), Some(_)) => {
            temperature("temperature of the divergence", divergence.temperature)?;
            if (0.0..=1.0).contains(&divergence.weight) {
                return Ok(());
            }
            fault(format!(
                "it requires a divergence of the weight {}, expected a number from 0 to 1",
                divergence.weight
            ))
        }
    }
}

fn candidates(requirements: &Requirements) -> Result<(), Fault> {
    let read = reads(requirements, &Statistic::CANDIDATES).or_else(|| reads(requirements, &Statistic::TAIL));
    match (&requirements.candidates, read) {
        (None, None) => Ok(()),
        (None, Some(name)) => fault(format!(
            "it requires the statistic `{name}`, but no candidates; add to its Requirements, for example, `candidates: \
                 Some(Candidates::new(\"teacher\", 20))`: the 20 ids that the teacher finds most probable"
        )),
        (Some(_), None) => fault("it requires `candidates`, but no statistic `candidates` or `tail`"),
        (Some(Candidates { count, .. }), Some(_)) if !(1..=MOST_CANDIDATES).contains(count) => {
            fault(format!("it requires {count} candidates per token, expected 1 to {MOST_CANDIDATES}"))
        }
        (Some(Candidates { from, .. }), Some(_)) if from.is_empty() => {
            fault("it requires `candidates` from no role; name one, such as `teacher`, or `compose`")
        }
        _ => Ok(()),
    }
}

fn normalisers(manifest: &ObjectiveManifest, requirements: &Requirements) -> Result<(), Fault> {
    if let Some(term) = twice(requirements.normalisers.iter().map(|own| own.term.as_str())) {
        return fault(format!("it requires two normalisers of the term `{term}`"));
    }
    for own in &requirements.normalisers {
        let (term, normaliser) = (&own.term, &own.normaliser);
        if !manifest.terms.iter().any(|declared| declared.name == *term) {
            return fault(format!(
                "it requires a normaliser of the term `{term}`, which its manifest does not declare"
            ));
        }
        if !Normaliser::ALL.contains(&normaliser.as_str()) {
            let known = Normaliser::ALL.join(", ");
            return fault(format!("it divides the term `{term}` by `{normaliser}`, expected one of {known}"));
        }
        if !(own.times.is_finite() && own.times > 0.0) {
            let times = own.times;
            return fault(format!(
                "it multiplies the normaliser of the term `{term}` by {times}, expected a number above 0"
            ));
        }
    }
    Ok(())
}

fn columns(manifest: &ObjectiveManifest, columns: &[ObjectiveColumn]) -> Result<(), Fault> {
    if let Some(name) = twice(columns.iter().map(|column| column.name.as_str())) {
        return fault(format!("it requires the column `{name}` twice"));
    }
    for ObjectiveColumn { name, per_segment, least, most } in columns {
        if name.is_empty() {
            return fault("it requires a column without a name");
        }
        if manifest.data == DataKind::TEXT {
            return fault(format!("it requires the column `{name}`, but it learns from running text, which has none"));
        }
        if *per_segment && manifest.data != DataKind::PROMPT_COMPLETION {
            let data = &manifest.data;
            return fault(format!(
                "it requires the column `{name}` per segment, but it learns from {data} data, whose answers have no segments"
            ));
        }
        let (least, most) = (least.unwrap_or(f64::NEG_INFINITY), most.unwrap_or(f64::INFINITY));
        if least.is_nan() || most.is_nan() || least > most {
            return fault(format!("it requires the column `{name}` from {least} to {most}, a range without a value"));
        }
    }
    Ok(())
}

/// Checks the numbers that options give, and the reserved ids among them.
fn numbers(manifest: &ObjectiveManifest, requirements: &Requirements) -> Result<(), Fault> {
    let ids = requirements.reserved_ids.iter().map(|id| ("reserved_ids", id));
    let others = [("least_context", &requirements.least_context), ("max_new_tokens", &requirements.max_new_tokens)];
    let others = others.into_iter().filter_map(|(field, number)| Some((field, number.as_ref()?)));
    for (field, GivenNumber { number, option }) in ids.chain(others) {
        if !option.is_empty() && manifest.options.iter().all(|declared| declared.name != *option) {
            return fault(format!(
                "its requirement `{field}` names the option `{option}` for the number {number}, but its manifest declares no such option"
            ));
        }
    }
    if manifest.data == DataKind::PROMPT && !requirements.reserved_ids.is_empty() {
        return fault("it requires reserved ids, but it learns from prompt data, for which `compose` is not called");
    }
    let ids: Vec<u64> = requirements.reserved_ids.iter().map(|id| id.number).collect();
    match (1..ids.len()).find(|at| ids[..*at].contains(&ids[*at])) {
        Some(at) => fault(format!("it requires the reserved id {} twice", ids[at])),
        None => Ok(()),
    }
}

/// Checks the names of the arrays of single rewards.
fn reward_names(manifest: &ObjectiveManifest, names: &[String]) -> Result<(), Fault> {
    let Some(first) = names.first() else { return Ok(()) };
    if manifest.data != DataKind::PROMPT {
        let data = &manifest.data;
        return fault(format!(
            "it requires the reward `{first}`, but it learns from {data} data, and only rollouts are scored"
        ));
    }
    if let Some(name) = names.iter().find(|name| name.split('.').any(str::is_empty)) {
        return fault(format!("it requires the reward {name:?}, expected NAME, NAME.PART or NAME.token"));
    }
    match twice(names.iter().map(String::as_str)) {
        Some(name) => fault(format!("it requires the reward `{name}` twice")),
        None => Ok(()),
    }
}

fn rollouts(manifest: &ObjectiveManifest, requirements: &Requirements) -> Result<(), Fault> {
    if requirements.samples == 0 {
        return fault("it requires 0 answers to a prompt, expected at least 1");
    }
    if manifest.data == DataKind::PROMPT {
        let temperature = requirements.temperature;
        if temperature != 1.0 {
            return fault(format!(
                "it requires the temperature {temperature}; with rollouts statistics are read at `rollout.temperature`"
            ));
        }
        return match requirements.window_statistics {
            true => fault("it requires `window_statistics`; with rollouts `prepare` always reads the statistics"),
            false => Ok(()),
        };
    }
    if requirements.max_new_tokens.is_some() {
        let data = &manifest.data;
        return fault(format!(
            "it requires a longest answer, but it learns from {data} data, whose answers are not generated"
        ));
    }
    if requirements.samples > 1 {
        let (samples, data) = (requirements.samples, &manifest.data);
        return fault(format!("it requires {samples} answers to a prompt, but it learns from {data} data"));
    }
    match requirements.statistics.iter().find(|name| role_of(name).0 == "sampler") {
        Some(name) => fault(format!(
            "it requires `{name}`, but it learns from {} data, and only answers to prompts are sampled",
            manifest.data
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Divergence, TermNormaliser, TermSpec};

    fn manifest(data: DataKind) -> ObjectiveManifest {
        let terms = vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "nats")];
        ObjectiveManifest { terms, data, ..Default::default() }
    }

    fn refused(data: DataKind, wrong: Requirements) -> String {
        requirements(&manifest(data), &wrong).expect_err("it is impossible").text
    }

    /// Catches requirements that are not checked: the run would learn nothing, or divide by 0. Catches a message about a missing
    /// description without the line that describes it.
    #[test]
    fn impossible_requirements_are_refused() {
        let requires = |statistics: &[&str], temperature| {
            let statistics = statistics.iter().map(|name| (*name).to_owned()).collect();
            requirements(&manifest(DataKind::TEXT), &Requirements { statistics, temperature, ..Default::default() })
        };
        assert_eq!(requires(&["logp"], 0.7), Ok(()));
        for (statistics, temperature, part) in [
            (&[][..], 1.0, "no statistic"),
            (&["logp", "logp"], 1.0, "`logp` twice"),
            (&["logp"], 0.0, "temperature 0"),
            (&["logp"], f64::NAN, "temperature NaN"),
            (&["kl"], 1.0, "`teacher.kl`"),
            (&["teacher.kl"], 1.0, "`divergence: Some(Divergence::new(0.0, 1.0))`"),
            (&["candidates"], 1.0, "`candidates: Some(Candidates::new(\"teacher\", 20))`"),
            (&["teacher.tail"], 1.0, "`teacher.tail`, but no candidates"),
            (&["sampler.logp"], 1.0, "text data, and only answers"),
        ] {
            let why = requires(statistics, temperature).unwrap_err().text;
            assert!(why.contains(part), "{part} is missing in {why}");
        }
        // Of a later version, which an older host would otherwise ignore.
        let later = Requirements { features: vec!["padded".into()], ..Default::default() };
        assert!(refused(DataKind::TEXT, later).contains("the feature `padded`"));
    }

    /// Catches required columns that are not checked: the host would refuse every row, or wait for a column that cannot come.
    #[test]
    fn required_columns_are_possible() {
        let labels = ObjectiveColumn { name: "labels".into(), per_segment: true, least: Some(0.0), most: Some(1.0) };
        let requires = |columns: Vec<ObjectiveColumn>| Requirements { columns, ..Default::default() };
        let data = DataKind::PROMPT_COMPLETION;
        assert_eq!(requirements(&manifest(data.clone()), &requires(vec![labels.clone()])), Ok(()));
        let plain = ObjectiveColumn { name: "weight".into(), ..Default::default() };
        assert_eq!(requirements(&manifest(DataKind::PREFERENCE), &requires(vec![plain.clone()])), Ok(()));
        for (data, columns, part) in [
            (data.clone(), vec![labels.clone(), labels.clone()], "`labels` twice"),
            (data.clone(), vec![ObjectiveColumn::default()], "without a name"),
            (data.clone(), vec![ObjectiveColumn { least: Some(2.0), ..labels.clone() }], "from 2 to 1"),
            (data, vec![ObjectiveColumn { most: Some(f64::NAN), ..plain.clone() }], "to NaN"),
            (DataKind::TEXT, vec![plain], "running text"),
            (DataKind::PREFERENCE, vec![labels], "no segments"),
        ] {
            let why = refused(data, requires(columns));
            assert!(why.contains(part), "{part} is missing in {why}");
        }
    }

    /// Catches requirements that the host would never look at, and messages that point at an option that does not exist.
    #[test]
    fn numbers_of_options_and_arrays_of_rewards_are_possible() {
        let (text, prompt) = (DataKind::TEXT, DataKind::PROMPT);
        let ids = |ids: &[(u64, &str)]| Requirements {
            reserved_ids: ids.iter().map(|(id, option)| GivenNumber::new(*id, option)).collect(),
            ..Default::default()
        };
        let rewards = |names: &[&str]| Requirements {
            reward_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        let context = |option| Requirements { least_context: Some(GivenNumber::new(4, option)), ..Default::default() };
        for (data, good) in
            [(&text, ids(&[(3, ""), (4, "")])), (&text, context("")), (&prompt, rewards(&["a", "a.part", "a.token"]))]
        {
            assert_eq!(requirements(&manifest(data.clone()), &good), Ok(()));
        }
        for (data, wrong, part) in [
            (&text, ids(&[(3, "nope")]), "the option `nope` for the number 3"),
            (&text, context("nope"), "`least_context`"),
            (&text, ids(&[(3, ""), (4, ""), (3, "")]), "reserved id 3 twice"),
            (&prompt, ids(&[(3, "")]), "`compose` is not called"),
            (&text, rewards(&["a"]), "only rollouts are scored"),
            (&prompt, rewards(&["a", "b", "a"]), "`a` twice"),
            (&prompt, rewards(&[""]), "expected NAME"),
            (&prompt, rewards(&["a."]), "expected NAME"),
        ] {
            let why = refused(data.clone(), wrong);
            assert!(why.contains(part), "{part} is missing in {why}");
        }
    }

    /// Catches a description of something that is not read, or with numbers that cannot be.
    #[test]
    fn divergences_candidates_and_normalisers_are_possible() {
        let (text, prompt) = (DataKind::TEXT, DataKind::PROMPT);
        let divergence = |weight, temperature| Some(Divergence { weight, temperature });
        let candidates = |from: &str, count| Some(Candidates { from: from.to_owned(), count });
        let kl = || Requirements::reading(["teacher.kl"]);
        let ids = || Requirements::reading(["logp", "candidates", "teacher.candidates"]);
        let divided = |term: &str, normaliser, times| Requirements {
            normalisers: vec![TermNormaliser { term: term.to_owned(), normaliser, times }],
            ..Default::default()
        };
        for good in [
            Requirements { divergence: divergence(0.5, 2.0), ..kl() },
            Requirements { candidates: candidates("teacher", 8), ..ids() },
            divided("nll", Normaliser::SEQUENCES, 64.0),
        ] {
            assert_eq!(requirements(&manifest(DataKind::TEXT), &good), Ok(()));
        }
        let many = Requirements { samples: 2, ..Default::default() };
        assert_eq!(requirements(&manifest(DataKind::PROMPT), &many), Ok(()));
        for (wrong, part) in [
            (Requirements { divergence: divergence(1.5, 1.0), ..kl() }, "weight 1.5"),
            (Requirements { divergence: divergence(0.5, 0.0), ..kl() }, "temperature of the divergence 0"),
            (Requirements { divergence: divergence(0.5, 1.0), ..Default::default() }, "no statistic `ROLE.kl`"),
            (Requirements { candidates: candidates("teacher", 0), ..ids() }, "0 candidates"),
            (Requirements { candidates: candidates("", 1), ..ids() }, "from no role"),
            (Requirements { candidates: candidates("compose", 1), ..Default::default() }, "no statistic `candidates`"),
            (divided("other", Normaliser::SEQUENCES, 1.0), "`other`, which its manifest"),
            (divided("nll", Normaliser("words".into()), 1.0), "`words`"),
            (divided("nll", Normaliser::SEQUENCES, 0.0), "by 0, expected"),
            (Requirements { samples: 0, ..Default::default() }, "0 answers"),
            (Requirements { samples: 4, ..Default::default() }, "text data"),
            (Requirements { attention: AttentionMask("left".into()), ..Default::default() }, "`left`"),
        ] {
            let why = refused(text.clone(), wrong);
            assert!(why.contains(part), "{part} is missing in {why}");
        }
        let window = Requirements { window_statistics: true, ..Default::default() };
        assert!(refused(prompt.clone(), window).contains("always reads"));
        let warm = Requirements { temperature: 2.0, ..Default::default() };
        assert!(refused(prompt, warm).contains("`rollout.temperature`"));
    }
}
