//! Random changes to valid and to hostile templates.

use std::fs;

use super::hostile;
use crate::data::fuzz;
use crate::data::jinja::error::Error;
use crate::data::reading::guard;

/// Pieces of templates.
const WORDS: [&str; 48] = [
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{%- ",
    " -%}",
    "{# ",
    " #}",
    "{% for x in messages %}",
    "{% endfor %}",
    "{% if x %}",
    "{% else %}",
    "{% endif %}",
    "{% set ns = namespace(x=[]) %}",
    "{% set ns.x = ns.x + ns.x %}",
    "{% macro f(x) %}",
    "{% endmacro %}",
    "{{ f(x) }}",
    "{% generation %}",
    "{% endgeneration %}",
    "{% raw %}",
    "{% endraw %}",
    "{% break %}",
    "|tojson(indent=4)",
    "|list",
    "|string",
    "|join(',')",
    "|map('upper')",
    "|sort",
    "|unique",
    "|batch(2)",
    "|indent(4)",
    "|truncate(9)",
    "|default('x')",
    "|selectattr('role')",
    " is defined",
    " is eq(1)",
    ".split()",
    ".format(x)",
    "[::-1]",
    "[1:]",
    " * 9999",
    " ** 99",
    " ~ ",
    " in ",
    "range(99999)",
    "messages",
    "loop.cycle(",
];

/// Gotcha 63. Catches a panic or a render that never ends for changed templates.
#[test]
fn gotcha_63_changed_templates_render_or_are_refused() {
    let folder = crate::data::tests::references().join("templates").join("families");
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        corpus.push(fs::read(entry.unwrap().path()).unwrap());
    }
    corpus.sort();
    assert!(corpus.len() > 20);
    corpus.extend(hostile::templates().into_iter().map(String::into_bytes).filter(|template| template.len() < 20_000));
    fuzz::run("templates", if cfg!(debug_assertions) { 500 } else { 4000 }, move |random| {
        let source = fuzz::mutated(random, &corpus, &WORDS);
        let source = String::from_utf8_lossy(&source).into_owned();
        match guard::caught(|| hostile::render(&source)) {
            Ok(Ok(_)) => Ok("rendered"),
            Ok(Err(Error { what, .. })) if what.contains("the limit") => Ok("past a limit"),
            Ok(Err(Error { what, .. })) if what.is_empty() => Err(format!("an empty error for {source:?}")),
            Ok(Err(_)) => Ok("refused"),
            Err(panic) => Err(format!("panics with {panic:?} at {source:?}")),
        }
    });
}
