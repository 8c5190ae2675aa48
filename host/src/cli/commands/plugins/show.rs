//! `telos plugins show`: a plugin's manifest.

use crate::decimals::percent;
use std::fmt::Write as _;

use plugin_api::{
    manifest::{
        BackendManifest, Candidates, Divergence, ObjectiveColumn, ObjectiveManifest, OptionSpec, Requirements,
        RewardColumn, RewardManifest, TermSpec, kind,
    },
    objective::{Objective, role_of, trains},
    options::OptionMap,
};
use plugin_api_load::{Library, PluginInfo};
use serde_json::{Value, json};

use super::table::{contract, entry_json, section};
use crate::cli::print;
use crate::error::{Error, Result};
use crate::plugins::Registry;
use crate::runs::breadcrumb;

/// What an objective requires under its default options, or why it cannot be created with those.
type Read = std::result::Result<Box<Requirements>, String>;

/// A plugin's manifest.
enum Manifest {
    Objective(Box<(ObjectiveManifest, Read)>),
    Backend(BackendManifest),
    Reward(RewardManifest),
}

impl Manifest {
    fn of(info: &PluginInfo) -> Result<Manifest> {
        let library = breadcrumb::within(&info.id, "open", || Library::load(info))?;
        breadcrumb::within(&info.id, "manifest", || Manifest::of_library(&library, info))
    }

    fn of_library(library: &Library, info: &PluginInfo) -> Result<Manifest> {
        Ok(match info.kind.as_str() {
            kind::OBJECTIVE => Manifest::Objective(Box::new((library.objective_manifest()?, requirements(library)))),
            kind::BACKEND => Manifest::Backend(library.backend_manifest()?),
            kind::REWARD => Manifest::Reward(library.reward_manifest()?),
            other => {
                let message =
                    format!("plugin `{}` is of kind `{other}`, which this version of telos does not support", info.id);
                return Err(Error::request(message).with_hint("update telos"));
            }
        })
    }

    fn json(&self) -> Value {
        match self {
            Manifest::Objective(described) => json!(described.0),
            Manifest::Backend(m) => json!(m),
            Manifest::Reward(m) => json!(m),
        }
    }

    fn text(&self) -> String {
        match self {
            Manifest::Objective(described) => objective(&described.0, &described.1),
            Manifest::Backend(m) => backend(m),
            Manifest::Reward(m) => reward(m),
        }
    }
}

/// Returns what an objective requires under its default options, or why it cannot be created with those.
fn requirements(library: &Library) -> Read {
    let id = &library.info().id;
    let required = breadcrumb::within(id, "create", || library.objective(&OptionMap::new()))
        .and_then(|instance| breadcrumb::within(id, "requirements", || instance.requirements()));
    required.map(Box::new).map_err(|error| error.message)
}

pub(super) fn show(registry: &Registry, id: &str, as_json: bool) -> Result<()> {
    for info in registry.find_any(id)? {
        let manifest = Manifest::of(info)?;
        if as_json {
            let mut shown = json!({"plugin": entry_json(info), "manifest": manifest.json()});
            if let Manifest::Objective(described) = &manifest {
                let required = described.1.as_ref().ok();
                shown["statistics"] = json!(required.map(|required| &required.statistics));
                if let Some(divergence) = required.and_then(|required| required.divergence) {
                    shown["divergence"] = json!(divergence);
                }
                if let Some(candidates) = required.and_then(|required| required.candidates.as_ref()) {
                    shown["candidates"] = json!(candidates);
                }
                if let Some(required) = required.filter(|required| !required.normalisers.is_empty()) {
                    shown["normalisers"] = json!(required.normalisers);
                }
            }
            print::json(&shown)?;
        } else {
            let head = format!("{} {} {}, contract {}\n", info.kind, info.id, info.version, contract(info));
            print::out(&format!("{head}{}\n{}", info.path.display(), manifest.text()))?;
        }
    }
    Ok(())
}

fn line(text: &mut String, label: &str, value: &str) {
    if !value.is_empty() {
        _ = writeln!(text, "{label:<10}{value}");
    }
}

fn objective(m: &ObjectiveManifest, requirements: &Read) -> String {
    let mut text = format!("\n{}\n\n", m.summary);
    line(&mut text, "formula", &m.formula);
    line(&mut text, "paper", &m.paper);
    line(&mut text, "data", m.data.as_str());
    line(&mut text, "coupled", if m.coupled { "yes: its loss needs the whole window at once" } else { "" });
    options(&mut text, &m.options);
    let required = requirements.as_deref().ok();
    let terms = m.terms.iter().map(|term| [term.name.clone(), per(term, required), term.meaning.clone()]);
    section(&mut text, "Terms (each a sum, divided by its normaliser)", ["NAME", "PER", "MEANING"], terms.collect());
    let metrics = m.metrics.iter().map(|metric| {
        let healthy = metric.healthy.map(|(low, high)| format!("{low} to {high}")).unwrap_or_default();
        [metric.name.clone(), metric.reduction.to_string(), healthy, metric.meaning.clone()]
    });
    section(&mut text, "Metrics", ["NAME", "REDUCTION", "HEALTHY", "MEANING"], metrics.collect());
    match requirements {
        Ok(required) => {
            let head = ["ROLE", "LEARNS", "STATISTICS READ"];
            section(&mut text, "Models (with the default options)", head, models(&required.statistics));
            if required.divergence.is_some() || required.candidates.is_some() || !required.columns.is_empty() {
                text.push('\n');
            }
            let columns: Vec<String> = required.columns.iter().map(column).collect();
            line(&mut text, "columns", &columns.join(", "));
            compared(required).iter().for_each(|(label, value)| line(&mut text, label, value));
        }
        Err(why) => {
            line(&mut text, "models", &format!("unknown: it cannot be created with its default options ({why})"));
        }
    }
    let expectations =
        m.expectations.iter().map(|e| [e.quantity.clone(), e.value.clone(), percent(e.tolerance), e.when.clone()]);
    section(
        &mut text,
        "Expected before the first update",
        ["QUANTITY", "VALUE", "WITHIN", "WHEN"],
        expectations.collect(),
    );
    text
}

/// What a term is divided by: under the default options, and the manifest's normaliser if it is another one.
fn per(term: &TermSpec, required: Option<&Requirements>) -> String {
    let declared = term.normaliser.to_string();
    match required.map(|required| required.normaliser(term)) {
        Some((normaliser, times)) if *normaliser != term.normaliser || times != 1.0 => {
            let times = if times == 1.0 { String::new() } else { format!(" times {times}") };
            format!("{normaliser}{times} with the default options ({declared} otherwise)")
        }
        _ => declared,
    }
}

/// A column that it reads in every row.
fn column(own: &ObjectiveColumn) -> String {
    let values = if own.per_segment { "one number per segment" } else { "a number" };
    let least = own.least.map(|least| format!(" from {least}")).unwrap_or_default();
    let most = own.most.map(|most| format!(" to {most}")).unwrap_or_default();
    format!("`{}` in every row, {values}{least}{most}", own.name)
}

/// Which divergence and which ids the statistics are about.
fn compared(required: &Requirements) -> Vec<(&'static str, String)> {
    let divergence = required.divergence.map(|Divergence { weight, temperature }| {
        let which = match weight {
            0.0 => "forward, KL(role || policy)".to_owned(),
            1.0 => "reverse, KL(policy || role)".to_owned(),
            weight => format!("generalised Jensen-Shannon of weight {weight}"),
        };
        let at = if temperature == 1.0 { String::new() } else { format!(", at temperature {temperature}") };
        ("kl", format!("{which}{at}"))
    });
    let candidates = required.candidates.as_ref().map(|Candidates { from, count }| {
        let from = match from.as_str() {
            Candidates::COMPOSED => "that `compose` returns".to_owned(),
            role => format!("that the {role} finds most probable"),
        };
        ("ids", format!("the {count} per token {from}"))
    });
    divergence.into_iter().chain(candidates).collect()
}

/// Each role with whether it is trained and what is read from it.
fn models(statistics: &[String]) -> Vec<[String; 3]> {
    let mut roles: Vec<(&str, Vec<&str>)> = Vec::new();
    for (role, name) in statistics.iter().map(|statistic| role_of(statistic)) {
        match roles.iter_mut().find(|(known, _)| *known == role) {
            Some((_, names)) => names.push(name),
            None => roles.push((role, vec![name])),
        }
    }
    let row = |(role, names): (&str, Vec<&str>)| {
        let learns = match role {
            // What the sampler computed belongs to the answers, not to a model.
            "sampler" => "no model: recorded when an answer was sampled",
            "context" => "no gradient: by default the policy's current weights, or a frozen model",
            role if trains(role) => "trains",
            _ => "frozen",
        };
        [role.to_owned(), learns.to_owned(), names.join(", ")]
    };
    roles.into_iter().map(row).collect()
}

fn backend(m: &BackendManifest) -> String {
    let mut text = format!("\n{}\n\n", m.summary);
    line(&mut text, "dtypes", &m.dtypes.join(", "));
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let devices = m.devices.iter().map(|d| [d.name.clone(), yes(d.compiled), yes(d.tested), d.note.clone()]);
    section(&mut text, "Devices", ["NAME", "COMPILED IN", "TESTED", "NOTE"], devices.collect());
    options(&mut text, &m.options);
    text
}

fn reward(m: &RewardManifest) -> String {
    let mut text = format!("\n{}\n\n", m.summary);
    let named = |c: RewardColumn| if c.option.is_empty() { c.name } else { format!("named by option `{}`", c.option) };
    let columns: Vec<String> = m.declared_columns().into_iter().map(named).collect();
    line(&mut text, "columns", &columns.join(", "));
    line(&mut text, "spans", if m.spans { "numbers for passages of an answer: reward.NAME.token" } else { "" });
    let parts = m.parts.iter().map(|part| [part.name.clone(), part.meaning.clone()]);
    section(&mut text, "Parts", ["NAME", "MEANING"], parts.collect());
    options(&mut text, &m.options);
    text
}

fn options(text: &mut String, specs: &[OptionSpec]) {
    let rows = specs.iter().map(|o| [o.name.clone(), o.kind.clone(), default(o), range(o), o.meaning.clone()]);
    section(text, "Options", ["NAME", "TYPE", "DEFAULT", "VALUES", "MEANING"], rows.collect());
}

fn default(option: &OptionSpec) -> String {
    if option.default.is_null() { "(required)".to_owned() } else { option.default.to_string() }
}

fn range(option: &OptionSpec) -> String {
    match (option.min, option.max) {
        _ if !option.choices.is_empty() => option.choices.join(" | "),
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => String::new(),
    }
}

/// A page with the manifest of every objective, as Markdown.
pub(super) fn page(registry: &Registry) -> Result<String> {
    let mut text = "# Objectives\n\nWhat `telos plugins show` prints for each objective of this version. Written by \
                    `cargo xtask test --accept`; a test compares it.\n"
        .to_owned();
    for info in registry.plugins().iter().filter(|info| info.kind == kind::OBJECTIVE) {
        let shown = Manifest::of(info)?.text();
        _ = write!(text, "\n## `{}`\n\n```text\n{}\n```\n", info.id, shown.trim());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::manifest::{Normaliser, TermNormaliser};

    /// Catches a range that is shown only in part, or a required option that looks like one with a default.
    #[test]
    fn options_are_shown_with_default_and_range() {
        let spec = |min, max, choices: &[&str], default: Value| OptionSpec {
            name: "beta".into(),
            kind: "float".into(),
            default,
            min,
            max,
            choices: choices.iter().map(|c| (*c).to_owned()).collect(),
            meaning: "Strength.".into(),
        };
        let shown = |spec: &OptionSpec| (default(spec), range(spec));
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(shown(&spec(Some(0.0), Some(1.5), &[], json!(0.1))), pair("0.1", "0 to 1.5"));
        assert_eq!(shown(&spec(Some(1.0), None, &[], Value::Null)), pair("(required)", "at least 1"));
        assert_eq!(shown(&spec(None, None, &["a", "b"], json!("a"))), pair("\"a\"", "a | b"));
    }

    /// Catches a term that is shown with the manifest's normaliser although the default options choose another one.
    #[test]
    fn terms_are_shown_with_the_normaliser_of_the_default_options() {
        let term = TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "nats");
        let requires = |normaliser, times| Requirements {
            normalisers: vec![TermNormaliser { term: "nll".into(), normaliser, times }],
            ..Default::default()
        };
        for (required, expected) in [
            (None, "supervised tokens"),
            (Some(Requirements::default()), "supervised tokens"),
            (Some(requires(Normaliser::SUPERVISED_TOKENS, 1.0)), "supervised tokens"),
            (
                Some(requires(Normaliser::SEQUENCES, 64.0)),
                "sequences times 64 with the default options (supervised tokens otherwise)",
            ),
            (Some(requires(Normaliser::GROUPS, 1.0)), "groups with the default options (supervised tokens otherwise)"),
        ] {
            assert_eq!(per(&term, required.as_ref()), expected);
        }
    }

    /// Catches a direction that is named the wrong way round, a temperature that is left out, and ids without their origin.
    #[test]
    fn comparisons_are_named_with_their_direction() {
        let required = |weight: f64, temperature: f64, from: &str| Requirements {
            divergence: Some(Divergence { weight, temperature }),
            candidates: Some(Candidates { from: from.into(), count: 8 }),
            ..Requirements::default()
        };
        let shown = |weight, temperature, from| compared(&required(weight, temperature, from));
        let ids = "the 8 per token that the teacher finds most probable";
        assert_eq!(
            shown(0.0, 1.0, "teacher"),
            [("kl", "forward, KL(role || policy)".to_owned()), ("ids", ids.to_owned())]
        );
        assert_eq!(shown(1.0, 2.0, "compose")[0].1, "reverse, KL(policy || role), at temperature 2");
        assert_eq!(shown(0.5, 1.0, "compose")[0].1, "generalised Jensen-Shannon of weight 0.5");
        assert_eq!(shown(0.5, 1.0, "compose")[1].1, "the 8 per token that `compose` returns");
        assert!(compared(&Requirements::default()).is_empty());
    }

    /// Catches a role that is listed once per statistic or not at all, a critic that is shown as frozen, and a context that is
    /// although it is the policy by default.
    #[test]
    fn each_model_is_listed_once_with_its_statistics() {
        let statistics = ["logp", "reference.logp", "entropy", "critic.value"].map(str::to_owned);
        let expected =
            [["policy", "trains", "logp, entropy"], ["reference", "frozen", "logp"], ["critic", "trains", "value"]];
        assert_eq!(models(&statistics), expected.map(|row| row.map(str::to_owned)));
        let others = models(&["context.kl".to_owned(), "sampler.logp".to_owned()]);
        assert!(others[0][1].contains("the policy's current weights"), "{others:?}");
        assert_eq!((others[1][0].as_str(), others[1][2].as_str()), ("sampler", "logp"));
    }
}
