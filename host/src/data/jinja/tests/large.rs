//! Templates that are too long or too deep, made by repetition.

/// Returns them with their names.
pub fn large() -> Vec<(&'static str, String)> {
    let many = |text: &str, times: usize| text.repeat(times);
    let nested = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", many(open, times), many(close, times))
    };
    let mut all = vec![
        ("not", format!("{{{{ {}x }}}}", many("not ", 200_000))),
        ("minus", format!("{{{{ {}1 }}}}", many("-", 200_000))),
        ("parentheses", format!("{{{{ {} }}}}", nested("(", "1", ")", 200_000))),
        ("lists", format!("{{{{ {} }}}}", nested("[", "1", "]", 200_000))),
        ("dicts", format!("{{{{ {} }}}}", nested("{1: ", "1", "} ", 100_000))),
        ("open parentheses", format!("{{{{ {}", many("(", 200_000))),
        ("ifs", nested("{% if x %}", "", "{% endif %}", 40_000)),
        ("elifs", format!("{{% if x %}}{}{{% endif %}}", many("{% elif y %}", 40_000))),
        ("fors", nested("{% for x in [1] %}", "", "{% endfor %}", 20_000)),
        ("fors that run", nested("{% for x in [1] %}", "x", "{% endfor %}", 48)),
        ("macros", nested("{% macro f() %}", "", "{% endmacro %}", 20_000)),
        ("calls", nested("{% call f() %}", "", "{% endcall %}", 20_000)),
        ("sets", nested("{% set x %}", "", "{% endset %}", 20_000)),
        ("filter blocks", nested("{% filter upper %}", "", "{% endfilter %}", 20_000)),
        ("generations", nested("{% generation %}", "", "{% endgeneration %}", 20_000)),
        ("sum", format!("{{{{ 1{} }}}}", many(" + 1", 200_000))),
        ("power", format!("{{{{ 1{} }}}}", many(" ** 1", 200_000))),
        ("and", format!("{{{{ 1{} }}}}", many(" and 1", 150_000))),
        ("or", format!("{{{{ 0{} }}}}", many(" or 0", 150_000))),
        ("compare", format!("{{{{ 1{} }}}}", many(" == 1", 150_000))),
        ("concat", format!("{{{{ 1{} }}}}", many(" ~ 1", 200_000))),
        ("if else", format!("{{{{ 1{} }}}}", many(" if 1 else 1", 80_000))),
        ("if if", format!("{{{{ 1{} }}}}", many(" if 1", 150_000))),
        ("attributes", format!("{{{{ x{} }}}}", many(".x", 300_000))),
        ("items", format!("{{{{ x{} }}}}", many("[0]", 300_000))),
        ("items in items", format!("{{{{ {} }}}}", nested("x[", "0", "]", 200_000))),
        ("calls of calls", format!("{{{{ x{} }}}}", many("()", 300_000))),
        ("calls in calls", format!("{{{{ {} }}}}", nested("f(", "0", ")", 200_000))),
        ("filters", format!("{{{{ x{} }}}}", many("|upper", 100_000))),
        ("filters in filters", format!("{{{{ {} }}}}", nested("x|default(", "0", ")", 60_000))),
        ("tests", format!("{{{{ x{} }}}}", many(" is defined", 80_000))),
        ("tests in tests", format!("{{{{ {} }}}}", nested("x is eq(", "0", ")", 80_000))),
        ("targets", format!("{{% set {} = 1 %}}", nested("(", "x", ")", 200_000))),
        ("many targets", format!("{{% set x{} = 1 %}}", many(", x", 200_000))),
        ("strings", format!("{{{{ {} }}}}", many("'a' ", 200_000))),
        ("digits", format!("{{{{ {} }}}}", many("9", 900_000))),
        ("digits in a loop", format!("{{% for i in range(99999) %}}{{{{ {}|float }}}}{{% endfor %}}", many("9", 4000))),
        ("tags without a comment", many("{{ 1 }}", 140_000)),
        ("braces", many("{", 1_000_000)),
        ("comments", many("{##}", 250_000)),
        ("raws", many("{% raw %}{% endraw %}", 45_000)),
        ("raw without an end", format!("{{% raw %}}{}", many("{%   ", 200_000))),
        ("spaces", format!("{}{{%- if x -%}}", many(" ", 1_000_000))),
        ("too long", many("x", (1 << 20) + 1)),
        ("chain of cyclers", many("{% set x = cycler(x) %}", 40_000)),
        ("chain of joiners", many("{% set x = joiner(x) %}", 40_000)),
        ("chain of lists", many("{% set x = [x] %}", 60_000)),
        ("chain of dicts", many("{% set x = {1: x} %}", 50_000)),
        ("chain of iterators", many("{% set x = [x]|map('list') %}", 30_000)),
        ("chain of methods", many("{% set x = {'a': x}.get %}", 35_000)),
        ("chain of macros", many("{% macro f(x=f) %}{{ f }}{% endmacro %}", 20_000)),
        (
            "chain of callers",
            format!(
                "{}{}",
                many("{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}", 40),
                many("{% endcall %}", 40)
            ),
        ),
        ("variables", (0..60_000).map(|number| format!("{{%set a{number}=1%}}")).collect()),
        (
            "parameters",
            format!(
                "{{% macro f({}) %}}{{% endmacro %}}{{% for i in range(9999) %}}{{{{ f() }}}}{{% endfor %}}",
                (0..50_000).map(|number| format!("a{number}")).collect::<Vec<_>>().join(",")
            ),
        ),
        (
            "macro with a long body",
            format!(
                "{{% macro f() %}}{{{{ varargs|length }}}}{{% if false %}}{}{{% endif %}}{{% endmacro %}}{{% for i in range(99999) %}}{{{{ f(1) }}}}{{% endfor %}}",
                many("{{ x }}", 100_000)
            ),
        ),
    ];
    // Chains within parentheses within chains: every chain is short and the nesting is shallow, but the tree is
    // high.
    let chain = |inner: String| {
        format!("({inner}{}{}{}{})", many(".x", 190), many(" ** 1", 190), many(" * 1", 190), many(" + 1", 190))
    };
    all.push(("high tree", format!("{{{{ {} }}}}", (0..40).fold("x".to_owned(), |inner, _| chain(inner)))));
    all.push((
        "deep in a macro",
        format!(
            "{{% macro f(n) %}}{{% if n %}}{{{{ {} }}}}{{% endif %}}{{% endmacro %}}{{{{ f(200) }}}}",
            nested("[", "f(n - 1)", "]", 40)
        ),
    ));
    all.push((
        "deep with filters in a macro",
        format!(
            "{{% macro f(n) %}}{{{{ {} }}}}{{% endmacro %}}{{{{ f(200) }}}}",
            nested("dict(a=", "f(n - 1)", ")|tojson", 30)
        ),
    ));
    all
}
