//! Templates that hang or crash the renderer, on purpose or by accident. Each must end in time, with the text that
//! jinja2 writes or with a named error.

use std::time::Duration;

use serde_json::json;

use super::large::large;
use crate::data::fuzz;
use crate::data::jinja::Template;
use crate::data::jinja::error::Error;
use crate::data::jinja::json::from_json;
use crate::data::jinja::value::Value;

/// The stack of a thread of Rust's standard library.
const STACK: usize = 2 << 20;

/// Reads and renders a template with a short conversation.
pub fn render(source: &str) -> Result<String, Error> {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let messages =
        json!([message("system", "Be brief."), message("user", "Hello, wörld"), message("assistant", "Hi.")]);
    let tools =
        json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]);
    let variables = vec![
        ("messages".to_owned(), from_json(&messages)),
        ("tools".to_owned(), from_json(&tools)),
        ("documents".to_owned(), Value::None),
        ("add_generation_prompt".to_owned(), Value::Bool(true)),
        ("bos_token".to_owned(), Value::str("<s>")),
        ("eos_token".to_owned(), Value::str("</s>")),
    ];
    Template::new(source)?.render(variables)
}

/// [`render`] in a thread with a small stack, with the processor time that it took.
pub fn render_in_thread(source: String) -> (Result<String, Error>, Duration) {
    let work = move || {
        let start = fuzz::thread_time();
        (render(&source), fuzz::thread_time() - start)
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap();
    thread.join().unwrap()
}

/// Templates that must fail, with a part of the error that names the reason; those with an empty part may also
/// render.
const FAIL: &[(&str, &str)] = &[
    // Endless loops.
    ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps"),
    ("{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}", "steps"),
    ("{% for a in range(99999) %}{% set x = range(99999) %}{% endfor %}", "steps"),
    ("{% for a in range(99999) %}{% set x = range(99999)|list|length %}{% endfor %}", "steps"),
    ("{% for a in range(99999) if range(99999)|list %}{% endfor %}", "steps"),
    ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "deeper"),
    ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}", "steps"),
    (
        "{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}",
        "deeper",
    ),
    ("{% macro f(x) %}{{ f(x=[x]) }}{% endmacro %}{{ f(1) }}", "deeper"),
    ("{% macro f() %}{{ f(*varargs) }}{% endmacro %}{{ f(1, 2) }}", "deeper"),
    ("{% macro f() %}{{ f(**kwargs) }}{% endmacro %}{{ f(a=1) }}", "deeper"),
    ("{% macro f(x=f()) %}{% endmacro %}{{ f() }}", ""),
    ("{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", "deeper"),
    ("{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}", "deeper"),
    // Unlimited output and texts.
    ("{{ 'x' * 10 ** 12 }}", "longer"),
    ("{{ 10 ** 12 * 'x' }}", "longer"),
    ("{{ 'x' * 2 ** 126 }}", "longer"),
    ("{{ [0] * 10 ** 9 }}", "list of more"),
    ("{{ [[0] * 1000] * 10 ** 6 }}", ""),
    ("{{ ((1, 2) * 2 ** 70)|length }}", "list of more"),
    (
        "{% for i in range(40) %}{% set ns = namespace(x='ab') %}{% endfor %}{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x|length }}",
        "limit",
    ),
    ("{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "limit"),
    (
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('a', 'aa').replace('b', 'bb') %}{% endfor %}",
        "limit",
    ),
    (
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x|replace('', 'xy') %}{% endfor %}",
        "limit",
    ),
    ("{% set ns = namespace(x=[1, 2]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "limit"),
    ("{% set ns = namespace(x=[1, 2]) %}{% for i in range(400) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}", ""),
    (
        "{% set ns = namespace(x=[1, 2]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "larger",
    ),
    (
        "{% set ns = namespace(x=[1, 2]) %}{% for i in range(22) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == ns.x }}{{ ns.x|tojson|length }}",
        "limit",
    ),
    ("{% set ns = namespace(x={}) %}{% for i in range(400) %}{% set ns.x = {'k': ns.x} %}{% endfor %}{{ ns.x }}", ""),
    ("{% for i in range(99999) %}{{ 'x' * 100000 }}{% endfor %}", "limit"),
    ("{% for i in range(99999) %}{% set x = 'x' * 1000000 %}{% endfor %}", "steps"),
    ("{% for i in range(99999) %}{{ messages }}{% endfor %}", "steps"),
    ("{% for i in range(99999) %}{{ messages|tojson(indent=4) }}{% endfor %}", "limit"),
    ("{% set x = 'x' * 9999999 %}{% for i in range(999) %}{% set y = x|upper %}{% endfor %}", "steps"),
    ("{% set x = 'x' * 9999999 %}{% for i in range(999) %}{{ x|length }}{% endfor %}", "steps"),
    (
        "{% set x, y = 'x' * 9999999, 'y' * 9999999 %}{% for i in range(9999) %}{{ x[i] }}{{ y[i] }}{% endfor %}",
        "steps",
    ),
    ("{% set x = 'ä' * 4999999 %}{% for i in range(9999) %}{{ x[i] }}{{ x[-1] }}{% endfor %}", "steps"),
    ("{% set x = ('x' * 9999999) ~ 'ä' %}{% for i in range(9999) %}{{ x[-1] }}{% endfor %}", "steps"),
    ("{% set x = 'x' * 9999999 %}{% for i in range(9999) %}{% set y = x[::-1] %}{% endfor %}", "steps"),
    ("{% set x = 'x' * 9999999 %}{% for i in range(99999) %}{{ 'y' in x }}{% endfor %}", "steps"),
    (
        "{% set x = 'x' * 9999999 %}{% set y = 'x' * 9999999 %}{% for i in range(99999) %}{{ x == y }}{% endfor %}",
        "steps",
    ),
    (
        "{% set x = 'x' * 9999999 %}{% set y = 'x' * 9999999 %}{% for i in range(99999) %}{{ x < y }}{% endfor %}",
        "steps",
    ),
    (
        "{% set x = 'x' * 9999999 %}{% set y = 'x' * 9999999 %}{% for i in range(99999) %}{{ [x] == [y] }}{{ x is eq y }}{% endfor %}",
        "steps",
    ),
    ("{% set x = 'x' * 9999999 %}{% for i in range(99999) %}{{ x.count('y') }}{{ x.find('y') }}{% endfor %}", "steps"),
    ("{% set x = 'x' * 9999999 %}{% for i in range(99999) %}{{ x is upper }}{% endfor %}", "steps"),
    ("{% set x = 'x ' * 4999999 %}{{ x.split()|length }}", "steps"),
    ("{% set x = 'x ' * 4999999 %}{{ x.split('x')|length }}", "steps"),
    ("{% set x = 'x\\n' * 4999999 %}{{ x.splitlines()|length }}", "steps"),
    ("{% set x = 'x' * 9999999 %}{{ x|list|length }}", "steps"),
    ("{% set x = 'x' * 9999999 %}{% for c in x %}{% endfor %}", "steps"),
    ("{% set x = 'x' * 9999999 %}{{ x|urlencode|length }}", "steps"),
    ("{% set x = '<' * 9999999 %}{{ x|escape|length }}", "limit"),
    ("{% set x = '\\x01' * 9999999 %}{{ x|tojson|length }}", "limit"),
    ("{% set x = 'x' * 9999999 %}{{ ([x] * 99)|join|length }}", "larger"),
    ("{% set x = 'x' * 9999999 %}{{ x.join(range(99)|map('string'))|length }}", "limit"),
    ("{% set x = 'x' * 9999999 %}{{ x.center(10 ** 10) }}", "longer"),
    ("{{ 'x'.ljust(2 ** 126) }}{{ 'x'.rjust(10 ** 12) }}", "longer"),
    ("{{ 'x'.zfill(10 ** 12) }}", "longer"),
    ("{{ 'x'|center(10 ** 12) }}", "longer"),
    ("{{ 'a\\nb'|indent(10 ** 11) }}", "longer"),
    ("{{ 'a\\nb'|indent('x' * 9999999)|length }}{{ ('a\\n' * 99)|indent('x' * 9999999) }}", "longer"),
    ("{{ [1]|tojson(indent=2 ** 64 - 1) }}", "longer"),
    ("{{ [1]|tojson(indent=10 ** 30) }}", "longer"),
    ("{{ [[[[1]]]]|tojson(indent=9999999) }}", "longer"),
    ("{{ range(9999)|list|tojson(separators=['x' * 9999999, '']) }}", "longer"),
    ("{{ '\\t\\t\\t'.expandtabs(10 ** 12) }}", "longer"),
    ("{{ '%1000000000d' % 5 }}", "too wide"),
    ("{{ '%99999999999999999999999999999999999999999999d' % 5 }}", "too wide"),
    ("{{ '%.70000f' % 5 }}", "too wide"),
    ("{{ '%*d' % (10 ** 12, 5) }}", "too wide"),
    ("{{ '{:1000000000}'.format(5) }}", "too wide"),
    ("{{ '{:.99999999999999999999999999}'.format(5.0) }}", "too wide"),
    ("{{ '{:.70000f}'.format(5.0) }}", "too wide"),
    ("{{ '{:{}}'.format(5, 10 ** 9) }}", "too wide"),
    ("{{ ('%50000d' * 9999) % ((5,) * 9999) }}", "limit"),
    ("{{ ('%s' * 999) % (('x' * 99999,) * 999) }}", "limit"),
    ("{{ ('{0}' * 99999).format('x' * 99999) }}", "limit"),
    ("{% set x = '{a}' * 99999 %}{% for i in range(99) %}{% set y = x.format(a=1) %}{% endfor %}", "steps"),
    // Numbers.
    ("{{ 2 ** 100000000000 }}", "whole number"),
    ("{{ 10 ** 10 ** 10 ** 10 }}", "whole number"),
    ("{{ (-170141183460469231731687303715884105727 - 1)|abs }}", "whole number"),
    ("{{ -(-170141183460469231731687303715884105727 - 1) }}", "whole number"),
    ("{{ (-170141183460469231731687303715884105727 - 1) // -1 }}", "whole number"),
    ("{{ range(10 ** 30) }}", "Range too big"),
    ("{{ range(0, 10, 0) }}", "zero"),
    ("{{ [1][::0] }}", "zero"),
    ("{{ 1 // 0 }}{{ 1 % 0 }}", "zero"),
    ("{{ 1.0 % 0 }}", "zero"),
    ("{{ 4 is divisibleby(0) }}", "zero"),
    ("{{ [1, 2]|batch(0) }}", "above 0"),
    ("{{ [1, 2]|slice(0) }}", "above 0"),
    ("{{ [1, 2]|batch(10 ** 12, 'x')|list }}", "limit"),
    ("{{ [1, 2]|slice(10 ** 12, 'x')|list }}", "limit"),
    // Values that contain themselves, or nest deeply.
    ("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", "namespace"),
    ("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}", "namespace"),
    ("{% set ns = namespace() %}{% set ns.x = cycler(ns) %}{{ ns.x }}", "namespace"),
    ("{% macro f() %}{% endmacro %}{% set ns = namespace(f=f) %}", "namespace"),
    ("{% for x in [1] %}{% set ns = namespace(l=loop) %}{% endfor %}", "namespace"),
    ("{% for x in [1] %}{{ loop }}{{ loop.changed(loop) }}{{ loop.changed(loop) }}{% endfor %}", ""),
    // Work inside one expression.
    ("{{ range(99999)|map('string')|sort|unique|list|length }}", "steps"),
    ("{{ range(99999)|unique|list|length }}", "steps"),
    ("{{ dict(range(9999)|map('string')|map('list')|batch(2)) }}", ""),
    ("{{ dict.fromkeys(range(99999)) }}", "steps"),
    ("{{ range(99999)|sum(start=[]) }}", "unsupported"),
    ("{{ ([[1]] * 9999)|sum(start=[])|length }}", "steps"),
    ("{% set x = range(99999)|list %}{% for i in range(9999) %}{{ i in x }}{{ 'q' in x }}{% endfor %}", "steps"),
    ("{% set x = range(99999)|list %}{% for i in range(9999) %}{{ x.count(i) }}{% endfor %}", "steps"),
    ("{% set x = range(99999)|list %}{% for i in range(9999) %}{{ x.index(99998) }}{% endfor %}", "steps"),
    ("{% set x = range(99999)|list %}{% for i in range(9999) %}{% set y = x[1:] %}{% endfor %}", "steps"),
    ("{% set x = range(99999)|list %}{% for i in range(9999) %}{% set y = x|reverse %}{% endfor %}", "steps"),
    ("{% set x = range(99999)|list %}{% for i in range(9999) %}{{ x|max }}{{ x|min }}{% endfor %}", "steps"),
    ("{% set x = range(99999)|list %}{% for i in range(9999) %}{{ x < x }}{% endfor %}", "steps"),
    ("{% set x = range(99999)|list %}{% for i in range(9999) %}{{ loop.changed(x, i) }}{% endfor %}", "steps"),
    ("{% set x = [['x' * 99999] * 999, 1] %}{{ ([x] * 9999)|sort|length }}", "larger"),
    ("{{ (['x' * 99999] * 9999)|sort|length }}", "larger"),
    ("{{ (['x' * 99999] * 9999)|sort(attribute='a.b.c.d,e,f,g')|length }}", ""),
    ("{{ ([{'a': 1}] * 99999)|map(attribute='a' * 99999)|list|length }}", "steps"),
    ("{{ ([1] * 9999)|map('default', *range(9999))|list }}", ""),
    ("{{ ([1] * 99999)|select('in', range(99999))|list|length }}", "steps"),
    ("{{ ([1] * 99999)|groupby('x')|list|length }}", ""),
    (
        "{% macro f() %}{{ kwargs|length }}{% endmacro %}{% set d = dict.fromkeys(range(999)|map('string')) %}{% for i in range(99999) %}{{ f(**d) }}{% endfor %}",
        "steps",
    ),
    (
        "{% macro f() %}{{ varargs|length }}{% endmacro %}{% set d = range(99999) %}{% for i in range(99999) %}{{ f(*d) }}{% endfor %}",
        "steps",
    ),
    ("{% for i in range(99999) %}{{ cycler(*range(99999)).next() }}{% endfor %}", "steps"),
    ("{% for i in range(99999) %}{{ messages|string|list|map('upper')|join }}{% endfor %}", "steps"),
    // Errors of the template itself.
    ("{% for x in [1] %}{{ loop.cycle() }}{% endfor %}", "cycling"),
    ("{{ cycler() }}", "at least one"),
    ("{{ joiner([[1]])() }}", "joiner needs a text"),
    ("{{ raise_exception('x' * 9999999) }}", "xxx ..."),
    ("{{ raise_exception() }}", "message"),
    ("{{ raise_exception('') }}", "without a message"),
    ("{{ 'x'.split('') }}", "separator"),
    ("{{ 'x'.format_map({}) ~ '{a}'.format_map({}) }}", "missing"),
    ("{{ '{' }}{{ '{'.format() }}", "expected"),
    ("{{ '{0[}'.format(1) }}", "']'"),
    ("{{ '{:{:{:{}}}}'.format(1, 2, 3, 4) }}", ""),
    ("{{ '%(' % {} }}", "incomplete"),
    ("{{ '%' % () }}", "incomplete"),
    ("{{ '%c' % 1114112 }}", "range"),
    ("{{ ''|truncate(2 ** 126, leeway=2 ** 126) }}{{ 'x'|truncate(-1) }}", "length"),
    ("{{ messages[0][messages] }}", ""),
    ("{{ messages.x.y }}", "no attribute"),
    ("{{ messages|attr('x' * 9999999) ~ messages['x' * 9999999].y }}", "no attribute"),
    ("{{ range(3)[10 ** 30].x }}", "no element"),
    ("{% set a, b = 1, 2, 3 %}", "unpacked"),
    ("{% for a, b in 'xyz' %}{% endfor %}", "unpacked"),
    ("{% include 'x' %}", "not supported"),
    ("{{ x", "no end"),
    ("{% raw %}", "no end"),
    ("{# ", "no end"),
    ("{{ 'x }}", "no end"),
    ("{{ '\\u12' }}", "escape"),
    ("{{ '\\U00110000' }}", "escape"),
    ("{{ 0x }}", "number"),
    ("{{ 0xfffffffffffffffffffffffffffffffffffff }}", "number"),
    ("{{ (] }}", "unexpected"),
    ("{% endfor %}", ""),
    ("{% break %}", "outside"),
    ("\u{FDD0}{{ messages }}", "U+FDD0"),
    ("{% generation %}{{ '\\ufdd1' }}{% endgeneration %}", "U+FDD1"),
];

/// Templates that look harmful and are not, with what jinja2 writes.
const RENDER: &[(&str, &str)] = &[
    ("{{ 'x'|center(5) }}|{{ ('a\\nb'|indent(2000))|length }}", "  x  |2003"),
    ("{{ ([1]|tojson(indent=2000))|length }}", "2005"),
    ("{{ ('a\\tb'.expandtabs(2000))|length }}", "2001"),
    ("{{ 'x'|truncate(2 ** 126, leeway=2 ** 126) }}", "x"),
    ("{{ 1.5|round(-(10 ** 37)) }}|{{ 1.5|round(10 ** 37) }}", "0.0|1.5"),
    ("{{ (10 ** 300)|default('big') if false else 'ok' }}", "ok"),
    (
        "{{ 'abc'[10 ** 30:] }}|{{ 'abc'[-(10 ** 30):] }}|{{ 'abc'[::10 ** 30] }}|{{ [1, 2][::-(10 ** 30)] }}",
        "|abc|a|[2]",
    ),
    ("{{ 'abc'.find('b', 10 ** 30) }}|{{ 'abc'.find('b', -(10 ** 30)) }}", "-1|1"),
    ("{{ 'a-b-c'.split('-', 10 ** 30) }}|{{ 'a-b'.replace('-', '+', 10 ** 30) }}", "['a', 'b', 'c']|a+b"),
    ("{% set c = cycler(cycler('a'), 'b') %}{{ c.next().next() }}{{ c.next() }}", "ab"),
    ("{{ ('%50000d' % 5)|length }}|{{ ('{:.50000f}'.format(1))|length }}", "50000|50002"),
    ("{% for x in [1, 2] %}{{ loop.changed(x) }}{{ loop.cycle('a') }}{% endfor %}", "TrueaTruea"),
    (
        "{% set x = 'x' * 9999999 %}{% for i in range(9999) %}{% if x[i] ~ x[-1] != 'xx' %}{{ i }}{% endif %}{% endfor %}",
        "",
    ),
    ("{{ range(99999)|list|last }}|{{ range(99999)|first }}", "99998|0"),
];

/// All templates, as input for mutation.
pub fn templates() -> Vec<String> {
    let written = FAIL.iter().chain(RENDER).map(|(source, _)| (*source).to_owned());
    written.chain(large().into_iter().map(|(_, source)| source)).collect()
}

/// The processor time allowed for one: a second on the slowest processor, and several times that without
/// optimisation.
fn allowed() -> Duration {
    Duration::from_secs(if cfg!(debug_assertions) { 16 } else { 8 })
}

/// Gotcha 63. Catches work that is not counted (in a filter, a comparison, a lookup, a copy), a text or list
/// without a limit, a number that overflows or makes a library panic, recursion over what a template nests
/// (reading, rendering, printing, comparing, dropping), and an error without its reason.
#[test]
fn gotcha_63_hostile_templates_end_with_a_named_error() {
    let mut wrong = Vec::new();
    let mut slowest = (Duration::ZERO, String::new());
    let mut check = |title: &str, source: String, right: &dyn Fn(&Result<String, Error>) -> bool| {
        let (result, time) = render_in_thread(source);
        if time > slowest.0 {
            slowest = (time, title.to_owned());
        }
        if !right(&result) || time > allowed() {
            let shown = result.map(|text| text.chars().take(80).collect::<String>());
            wrong.push(format!("{title}: {shown:?} after {time:?}"));
        }
    };
    for (source, part) in FAIL {
        check(source, (*source).to_owned(), &|result| match result {
            Ok(_) => part.is_empty(),
            Err(error) => error.what.contains(part) && error.what.len() < 2000,
        });
    }
    for (source, text) in RENDER {
        check(source, (*source).to_owned(), &|result| result.as_ref().is_ok_and(|found| found == text));
    }
    for (title, source) in large() {
        check(title, source, &|_| true);
    }
    let deep = (0..35).fold("1".to_owned(), |inner, _| format!("({inner} + 1 - 1)"));
    check("deep and evaluated", format!("{{{{ {deep} }}}}"), &|result| result.as_ref().is_ok_and(|text| text == "1"));
    println!("slowest: {slowest:?}");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
