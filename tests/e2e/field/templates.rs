//! Chat templates as transformers renders them, and where an answer starts and ends in them.
//!
//! The expected texts are those of `apply_chat_template` of transformers 5.23.0. `⟦` and `⟧` enclose the supervised part, and the
//! end-of-text token closes it.

use super::case;
use crate::support::lab::Lab;

/// The first row as the model reads it.
fn example(lab: &Lab) -> String {
    lab.check("case.toml", &[])["example"].as_str().expect("rows have an example").to_owned()
}

/// The first row of a case with another template, or with other rows.
fn example_of(name: &str, template: &str, rows: &str) -> String {
    let lab = case(name);
    lab.write("t.jinja", template);
    lab.write("rows.jsonl", rows);
    example(&lab)
}

/// Standard error of a case that is refused, and the exit code.
fn refused(lab: &Lab) -> (Option<i32>, String) {
    let answer = lab.ask(&["check", "case.toml"]);
    (answer.code, answer.err)
}

const ROW: &str = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#;
const TURNS: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
const LEARNED: &str = "user: q\nassistant: ⟦a\n<|endoftext|>⟧";

/// Catches a variable that is undefined where transformers passes `none`.
#[test]
fn tools_undefined() {
    assert_eq!(example(&case("tools-undefined")), LEARNED);
    let guards = "{% if documents is not none %}D{% endif %}{% if tools is defined and tools is none %}N{% endif %}{{ tools }}\n";
    assert_eq!(example_of("tools-undefined", &format!("{guards}{TURNS}"), ROW), format!("NNone\n{LEARNED}"));
}

/// Catches a row's tools that do not reach the template, and a template that ignores them without a note.
#[test]
fn tools_column_ignored() {
    let tools = r#"tools: [{"type": "function", "function": {"name": "clock"}}]"#;
    assert_eq!(example(&case("tools-column-ignored")), format!("{tools}\n{LEARNED}"));
    let row = ROW.replace("]}", r#"], "tools": "[{\"n\": 1.0}]", "documents": [{"text": "t"}]}"#);
    let reads = "{{ tools | tojson }}{{ documents[0].text }}\n";
    assert_eq!(
        example_of("tools-column-ignored", &format!("{reads}{TURNS}"), &row),
        format!("[{{\"n\": 1.0}}]t\n{LEARNED}")
    );

    let lab = case("tools-column-ignored");
    lab.write("t.jinja", TURNS);
    let (code, error) = refused(&lab);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("rows.jsonl:1: `tools`: the chat template does not use `tools`"), "{error}");
}

/// Catches carriage returns of the template that reach the text, and carriage returns of the row that do not.
#[test]
fn template_crlf() {
    assert_eq!(example(&case("template-crlf")), "<user>\nq\n⟦<assistant>\na\n<|endoftext|>⟧");
    let old_mac = TURNS.replace('\n', "\r").replace("{% for", "{# one #}\r{% for");
    let row = ROW.replace(r#""q""#, r#""q\r\nq""#);
    assert_eq!(example_of("template-crlf", &old_mac, &row), LEARNED.replacen('q', "q\r\nq", 1));
}

/// Catches numbers as another language writes them, and whole numbers that pass through 64 bits.
#[test]
fn template_numbers() {
    let numbers = "1e-07 1e+20 | 1e-07 1e+20 | 12345678901234567890123\n";
    assert_eq!(example(&case("template-numbers")), format!("{numbers}{LEARNED}"));
    let row = ROW.replace(
        r#""q"}"#,
        r#""q", "v": [1e16, 123456789012345.0, 0.0001, -0.00001, 1E+3, 18446744073709551616, -1, true, null]}"#,
    );
    let template =
        format!("{{{{ messages[0].v }}}} {{{{ messages[0].v | tojson }}}} {{{{ 7 / 2 }}}} {{{{ 7 // 2 }}}}\n{TURNS}");
    let numbers = "[1e+16, 123456789012345.0, 0.0001, -1e-05, 1000.0, 18446744073709551616, -1, True, None] \
        [1e+16, 123456789012345.0, 0.0001, -1e-05, 1000.0, 18446744073709551616, -1, true, null] 3.5 3\n";
    assert_eq!(example_of("template-numbers", &template, &row), format!("{numbers}{LEARNED}"));
}

/// Catches keywords that are refused, and defaults that are jinja2's and not transformers'.
#[test]
fn template_tojson_keywords() {
    assert_eq!(example(&case("template-tojson-keywords")), "user: qassistant: ⟦{\"city\": \"Zürich\"}<|endoftext|>⟧");
    let template = "{{ {'b': 'ü<', 'a': [1]} | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}\n\
        {{ {'b': 1} | tojson(indent=2) }}\n";
    let text = "{\"a\":[1],\"b\":\"\\u00fc<\"}\n{\n  \"b\": 1\n}\n";
    assert_eq!(example_of("template-tojson-keywords", &format!("{template}{TURNS}"), ROW), format!("{text}{LEARNED}"));
}

/// Catches a string method or a format that Python has.
#[test]
fn template_python_methods() {
    assert_eq!(example(&case("template-python-methods")), format!("b ['a', 'b'] 5%\n{LEARNED}"));
    let template = "{{ 'x=1'.partition('=') }} {{ '{:>4}|{}'.format('a', 2) }} {{ 'a.b'.removesuffix('.b') }} {{ '7'.zfill(2) }} \
        {{ '%s is %.2f' % ('pi', 3.14159) }} {{ 'a' is string }} {{ {} is mapping }} {{ messages is sequence }} {{ 1 < 2 < 3 }}\n";
    let text = "('x', '=', '1')    a|2 a 07 pi is 3.14 True True True True\n";
    assert_eq!(example_of("template-python-methods", &format!("{template}{TURNS}"), ROW), format!("{text}{LEARNED}"));
}

/// Catches a date that reaches the data, and a refusal that names neither the reason nor the remedy, wherever the call is.
#[test]
fn date_in_template() {
    let lab = case("date-in-template");
    let direct = format!("{{{{ strftime_now('%Y') }}}}\n{TURNS}");
    let in_loop =
        format!("{{% set now = strftime_now %}}{{% for m in messages %}}{{{{ now('%d') }}}}{{% endfor %}}{TURNS}");
    for template in [None, Some(direct), Some(in_loop)] {
        if let Some(template) = template {
            lab.write("t.jinja", template);
        }
        let (code, error) = refused(&lab);
        assert_eq!(code, Some(2), "{error}");
        for word in [
            "rows.jsonl:1: ",
            "strftime_now",
            "must not be part of the data",
            "write a fixed date",
            "data.chat_template",
            "line 1",
        ] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
    // A template can have a text for the case that there is no clock.
    let guarded = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}26 Jul 2024{% endif %}\n";
    assert_eq!(example_of("date-in-template", &format!("{guarded}{TURNS}"), ROW), format!("26 Jul 2024{LEARNED}"));
    // And a row can provide one if the template tests for it first.
    let provides = "{% if not date is defined %}{% set date = strftime_now('%Y') %}{% endif %}{{ date }}\n";
    let row = ROW.replace("]}", r#"], "chat_template_kwargs": {"date": "1 May"}}"#);
    assert_eq!(example_of("date-in-template", &format!("{provides}{TURNS}"), &row), format!("1 May\n{LEARNED}"));
}

/// Catches a count of marks against messages, a second mark that is lost, and an end that is learned outside of the marks.
#[test]
fn generation_two_spans() {
    let lab = case("generation-two-stretches");
    let found = lab.check("case.toml", &[]);
    assert_eq!(found["example"], "user: qassistant: ⟦<think>r</think>a⟧");
    assert_eq!(found["rows"]["no_end_learned"], true, "{found}");
    let expected = "no row teaches a token that ends an answer";
    for command in ["check", "run"] {
        let answer = lab.ask(&[command, "case.toml"]);
        assert_eq!(answer.code, Some(0), "{}", answer.err);
        let both = answer.out + &answer.err;
        assert!(both.contains(expected) && both.contains("{{ message.content + eos_token }}"), "{command}: {both}");
    }
    // Apart, and with an answer that belongs to the prompt.
    let marks = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<{{ m.thinking }}>{% endgeneration %} - \
        {% generation %}{{ m.content }}.{% endgeneration %}{% else %}{{ m.content }}: {% endif %}{% endfor %}";
    let row = r#"{"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning": "r"}, {"role": "user", "content": "q2"}], "completion": [{"role": "assistant", "content": "b", "thinking": "t"}]}"#;
    assert_eq!(example_of("generation-two-stretches", marks, row), "q: <r> - a.q2: ⟦<t>⟧ - ⟦b.⟧");
    // With its end in a mark, and an ending that is not learned.
    let ends =
        marks.replace("{{ m.content }}.{%", "{{ m.content + eos_token }}{%").replace("{% else %}", ";{% else %}");
    let text = "q: <r> - a<|endoftext|>;q2: ⟦<t>⟧ - ⟦b<|endoftext|>⟧;";
    assert_eq!(example_of("generation-two-stretches", &ends, row), text);
}

/// Catches a conversation that is refused since its earlier turns are rewritten, and reasoning that is learned though it is not in
/// the text.
#[test]
fn template_thinking_dropped() {
    let lab = case("template-thinking-dropped");
    assert_eq!(example(&lab), "<user>q|\n<assistant>⟦a|\n⟧<user>q2|\n<assistant>⟦b|\n<|endoftext|>⟧");
    // As Qwen3's: reasoning of the last turn is in the text, and an opening with an empty one does not.
    let qwen = "{% for m in messages %}<{{ m.role }}>\n{% if m.role == 'assistant' and loop.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\
        {% endif %}{{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt %}<assistant>\n{% if off is defined %}<think>\n\n</think>\n{% endif %}{% endif %}";
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning": "r"}, {"role": "user", "content": "q2"}, {"role": "assistant", "content": "b", "reasoning": "s"}]}"#;
    let text = "<user>\nq<end>\n<assistant>\n⟦a<end>\n⟧<user>\nq2<end>\n<assistant>\n⟦<think>\ns\n</think>\nb<end>\n<|endoftext|>⟧";
    assert_eq!(example_of("template-thinking-dropped", qwen, row), text);
    // As Phi-3's: an end of text behind every conversation, and no piece of the next turn's tag is learned.
    let phi = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}";
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "q2"}, {"role": "assistant", "content": "b"}]}"#;
    let text =
        "<|user|>\nq<|end|>\n<|assistant|>\n⟦a<|end|>\n⟧<|user|>\nq2<|end|>\n<|assistant|>\n⟦b<|end|>\n<|endoftext|>⟧";
    assert_eq!(example_of("template-thinking-dropped", phi, row), text);
    // As reasoning models': the opening thinks, the answer does not.
    let opens = TURNS.replace("assistant: {% endif %}", "assistant: <think>{% endif %}");
    assert_eq!(example_of("template-thinking-dropped", &opens, ROW), LEARNED);
    // If the words cannot be found, the reason and the remedy are reported.
    lab.write(
        "t.jinja",
        "{% for m in messages %}{{ m.content }} and {{ m.content }}, {{ messages | length }}\n{% endfor %}",
    );
    let (code, error) = refused(&lab);
    assert_eq!(code, Some(2), "{error}");
    assert!(
        error.contains("rows.jsonl:1: ")
            && error.contains("the place of message")
            && error.contains("{% generation %}"),
        "{error}"
    );
}

/// Catches a message's weight that is dropped: OpenAI's and axolotl's keys.
#[test]
fn a_messages_weight_is_honoured() {
    for key in [r#""weight": 0"#, r#""train": false"#] {
        let row = format!(
            r#"{{"messages": [{{"role": "user", "content": "q"}}, {{"role": "assistant", "content": "a", {key}}}, {{"role": "user", "content": "q2"}}, {{"role": "assistant", "content": "b"}}]}}"#
        );
        assert_eq!(
            example_of("tools-undefined", TURNS, &row),
            "user: q\nassistant: a\nuser: q2\nassistant: ⟦b\n<|endoftext|>⟧"
        );
    }
    let lab = case("tools-undefined");
    lab.write("rows.jsonl", ROW.replace(r#""a"}"#, r#""a", "weight": 0.5}"#));
    let (code, error) = refused(&lab);
    assert_eq!(code, Some(2), "{error}");
    assert!(
        error.contains("rows.jsonl:1: `weight`: in message 2, expected 0 (not learned) or 1 (learned), found 0.5"),
        "{error}"
    );
}

/// Catches a warning for every row, which hides the rows of which it is true.
#[test]
fn chatml_false_alarm() {
    let lab = case("chatml-false-alarm");
    let found = lab.check("case.toml", &[]);
    assert_eq!(found["rows"]["ended_early"], 0, "{found}");
    assert!(!lab.ask(&["check", "case.toml"]).out.contains("end-of-text token inside"));
    // Several turns neither; but words behind an end within one answer are lost, and this is reported.
    let two = ROW.replace("]}", r#", {"role": "user", "content": "q2"}, {"role": "assistant", "content": "b"}]}"#);
    lab.write("rows.jsonl", &two);
    assert_eq!(lab.check("case.toml", &[])["rows"]["ended_early"], 0);
    lab.write("rows.jsonl", two.replace(r#""a"}"#, r#""a<|im_end|>lost"}"#));
    assert_eq!(lab.check("case.toml", &[])["rows"]["ended_early"], 1);
}
