//! The tables of docs/write-an-objective.md have what an author can use.

use plugin_api::{
    batch::names,
    manifest::{GivenNumber, ObjectiveColumn, Requirements, Statistic},
};

const GUIDE: &str = include_str!("../../docs/write-an-objective.md");

/// The section with the tables.
fn tables() -> &'static str {
    let tables = GUIDE.split("\n## 8. Reference\n").nth(1).expect("the section exists");
    tables.split("\n## ").next().unwrap_or(tables)
}

/// Whether a table has `name` in code, alone or with arguments.
fn has(name: &str) -> bool {
    ["`", "(", ".", "()"].iter().any(|after| {
        let tape = format!("`tape.{name}{after}");
        tables().contains(&format!("`{name}{after}")) || tables().contains(&tape)
    })
}

/// Catches a function of a variable or of a tape that the table lacks: its author would write the function again, or read the source.
#[test]
fn every_function_of_a_variable_is_in_the_guide() {
    let sources = [
        include_str!("../src/tape/ops/operators.rs"),
        include_str!("../src/tape/ops/compare.rs"),
        include_str!("../src/tape/ops/reduce.rs"),
        include_str!("../src/tape/ops/select.rs"),
        include_str!("../src/tape/ops/matrix.rs"),
        include_str!("../src/tape/graph/read.rs"),
    ];
    let functions = sources.iter().flat_map(|source| source.lines()).filter_map(|line| {
        let rest = line.strip_prefix("    pub fn ")?;
        rest.split(['(', '<']).next()
    });
    let functions: Vec<&str> = functions.collect();
    assert!(functions.len() > 40 && functions.contains(&"log1mexp"), "{functions:?}");
    let missing: Vec<&&str> = functions.iter().filter(|name| !has(name)).collect();
    assert!(missing.is_empty(), "not in section 8 of docs/write-an-objective.md: {missing:?}");
}

/// Catches a statistic, an array or a requirement that the tables lack.
#[test]
fn every_array_and_requirement_is_in_the_guide() {
    let of_critic = |name: &&str| has(name) || has(&format!("critic.{name}")) || has(&format!("teacher.{name}"));
    let missing: Vec<&&str> = Statistic::ALL.iter().filter(|name| !of_critic(name)).collect();
    assert!(missing.is_empty(), "statistics that are not in section 8 of docs/write-an-objective.md: {missing:?}");
    for name in [
        names::MASK,
        names::TARGET,
        names::POSITION,
        names::OFFSETS,
        names::GROUP,
        names::SIDE,
        names::REWARD,
        "reward.NAME",
        names::ENDED,
        names::SAMPLER_LOGP,
        names::SAMPLER_ENTROPY,
        names::SAMPLER_STEP,
        "column.NAME",
        names::SEGMENT_END,
        names::STEP,
        names::STEPS,
        names::CANDIDATE_IDS,
    ] {
        assert!(has(name), "the array `{name}` is not in section 8 of docs/write-an-objective.md");
    }
    // Fields that are left out of JSON if they are empty.
    let full = Requirements {
        columns: vec![ObjectiveColumn::default()],
        reserved_ids: vec![GivenNumber::default()],
        least_context: Some(GivenNumber::default()),
        max_new_tokens: Some(GivenNumber::default()),
        ..Default::default()
    };
    let fields = serde_json::to_value(full).expect("JSON");
    for field in fields.as_object().expect("an object").keys() {
        assert!(has(field), "the requirement `{field}` is not in section 8 of docs/write-an-objective.md");
    }
}
