//! Chat templates and the assistant's places, against transformers and by hand.

use std::fs;

use serde_json::{Value, json};

use crate::data::error::DataError;
use crate::data::rows::read::jsonl;
use crate::data::rows::write::layout::RowLayout;
use crate::data::rows::write::template::{PLAIN, Variables};
use crate::data::rows::{ChatTemplate, Columns, Message, Part, Row, RowKind};
use crate::data::tests::references;
use crate::data::tokenizer::Tokenizer;

pub(super) fn reference(name: &str) -> (Tokenizer, Value) {
    let folder = references().join("tokenizer").join(name);
    let cases = fs::read(folder.join("cases.json")).unwrap();
    (Tokenizer::open(&folder).unwrap(), serde_json::from_slice(&cases).unwrap())
}

fn messages(value: Value) -> Vec<Message> {
    serde_json::from_value(value).unwrap()
}

fn row(line: &Value) -> Row {
    jsonl::parse("rows.jsonl".as_ref(), &line.to_string(), RowKind::PromptCompletion, &Columns::new())
        .unwrap()
        .remove(0)
}

/// The supervised spans of a row, as text.
fn supervised_texts(template: &str, line: Value) -> Result<Vec<String>, DataError> {
    let tokenizer = Tokenizer::bytes().unwrap();
    let layout = RowLayout { template: ChatTemplate::new(template, &tokenizer).unwrap(), strings: true };
    let laid = layout.lay_out(&row(&line), Part::Completion)?;
    Ok(laid.supervised.iter().map(|s| laid.text.chars().skip(s.start).take(s.len()).collect()).collect())
}

/// Compares text, ids and masks with those of transformers, exactly. Catches whitespace that Jinja's block rules
/// would strip, places counted in bytes, and an assistant's span that is one character off.
#[test]
fn rendered_chats_their_ids_and_masks_match_the_reference() {
    for name in ["gpt2", "split"] {
        let (tokenizer, reference) = reference(name);
        let template = ChatTemplate::new(tokenizer.chat_template().unwrap(), &tokenizer).unwrap();
        let chats = reference["chats"].as_array().unwrap();
        assert!(!chats.is_empty());
        for chat in chats {
            let open = chat["add_generation_prompt"].as_bool().unwrap();
            let rendered = template.render(&messages(chat["messages"].clone()), &Variables::default(), open).unwrap();
            assert_eq!(Value::from(rendered.text.as_str()), chat["text"], "{name}");
            let placed = tokenizer.encode_placed(vec![&rendered.text]).unwrap().remove(0);
            assert_eq!(json!(placed.ids), chat["input_ids"], "{name}");
            let marked = rendered.marked.unwrap();
            let inside = |(a, b): &(usize, usize)| marked.iter().any(|m| *a < m.place.end && *b > m.place.start);
            let mask: Vec<u8> = placed.offsets.iter().map(|place| u8::from(inside(place))).collect();
            assert_eq!(json!(mask), chat["assistant_mask"], "{name}: {}", rendered.text);
        }
    }
}

/// Gotcha 11: most published templates have no marks, and a mask from marks alone would be all zero. Without its
/// marks, the reference's template must give the same spans (except for what follows its end-of-text token).
#[test]
fn gotcha_11_a_template_that_marks_nothing_gives_the_same_spans() {
    for name in ["gpt2", "split"] {
        let (tokenizer, reference) = reference(name);
        let marked = tokenizer.chat_template().unwrap();
        let unmarked = marked.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "");
        assert_ne!(marked, unmarked);
        let eos = tokenizer.token(tokenizer.eos().unwrap()).unwrap();
        let layout = |source: &str| {
            let template = ChatTemplate::new(source, &tokenizer).unwrap();
            assert_eq!(template.marks_answers(), source == marked);
            RowLayout { template, strings: true }
        };
        let (marked, unmarked) = (layout(marked), layout(&unmarked));
        // A conversation without an answer has nothing to learn, and is refused.
        let learned = |chat: &&Value| chat["assistant_mask"].as_array().unwrap().contains(&json!(1));
        for chat in reference["chats"].as_array().unwrap().iter().filter(learned) {
            let row = row(&json!({"messages": chat["messages"]}));
            let (a, b) =
                (marked.lay_out(&row, Part::Completion).unwrap(), unmarked.lay_out(&row, Part::Completion).unwrap());
            assert_eq!(a.text, b.text);
            assert_eq!(a.supervised.len(), b.supervised.len());
            for (a_span, b_span) in a.supervised.iter().zip(&b.supervised) {
                assert_eq!(a_span.start, b_span.start);
                let rest: String = b.text.chars().skip(a_span.end).take(b_span.end - a_span.end).collect();
                assert!(rest.trim().is_empty() || rest.trim() == eos, "{rest:?}");
            }
        }
    }
}

/// Catches a prompt's own assistant messages that are learned, and completions of several turns of which one is lost.
#[test]
fn gotcha_11_the_completions_answers_are_learned_and_the_prompts_are_not() {
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let prompt = [turn("system", "Be brief."), turn("user", "1?"), turn("assistant", "one"), turn("user", "2?")];
    let completion = [turn("assistant", "two"), turn("user", "3?"), turn("assistant", "three")];
    let end = "<|endoftext|>";
    assert_eq!(
        supervised_texts(PLAIN, json!({"prompt": prompt, "completion": completion})).unwrap(),
        [format!("two{end}"), format!("three{end}")]
    );
    let all: Vec<Value> = prompt.iter().chain(&completion).cloned().collect();
    assert_eq!(supervised_texts(PLAIN, json!({"messages": all})).unwrap().len(), 3);
    assert_eq!(supervised_texts(PLAIN, json!({"prompt": "2?", "completion": "two"})).unwrap(), [format!("two{end}")]);
}

/// What a template does to an answer, and what is then learned. Catches places found from a render of the beginning
/// alone (the first two), a mark that must belong to a message (the third), and an answer's end that includes the
/// next message's tag.
#[test]
fn gotcha_50_answers_are_found_where_the_template_rewrites_them() {
    let chat = |first: &str| {
        json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": first},
            {"role": "user", "content": "q2"}, {"role": "assistant", "content": "b"}]})
    };
    let upper = "{% for m in messages %}{% if loop.last %}{{ m.content }}{% else %}{{ m.content | upper }}{% endif %}\n{% endfor %}";
    assert_eq!(supervised_texts(upper, json!({"prompt": "a", "completion": "b"})).unwrap(), ["b"]);
    let drops = "{% for m in messages %}<{{ m.role }}>{{ m.content if loop.last else m.content.split('</think>')[-1] }}|\n\
        {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    assert_eq!(supervised_texts(drops, chat("<think>r</think>a")).unwrap(), ["a|\n", "b|\n"]);
    let one_mark = "{% for m in messages %}{{ m.content }}{% endfor %}{% generation %}x{% endgeneration %}";
    assert_eq!(supervised_texts(one_mark, chat("a")).unwrap(), ["x"]);
    // The end-of-text token follows every conversation, but only at its end.
    let ends = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}";
    assert_eq!(supervised_texts(ends, chat("a")).unwrap(), ["a<|end|>\n", "b<|end|>\n<|endoftext|>"]);
    // The generation prompt opens the model's reasoning, and earlier answers are written without it.
    let opens = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]<think>\n{% endif %}";
    assert_eq!(supervised_texts(opens, chat("a")).unwrap(), ["a\n", "b\n"]);
}

/// If the assistant's words cannot be found: an error for the last answer, a count for an earlier one. Catches a
/// guess.
#[test]
fn gotcha_11_a_template_that_hides_answers_is_refused_with_a_remedy() {
    let twice = "{% for m in messages %}{{ m.content }}{{ messages | length }}{{ m.content }}\n{% endfor %}";
    let error = supervised_texts(twice, json!({"prompt": "a", "completion": "b"})).unwrap_err().to_string();
    assert!(error.starts_with("rows.jsonl:1: ") && error.contains("{% generation %}"), "{error}");
    let first = "{% for m in messages %}{{ m.content if loop.last else m.content | length }}\n{% endfor %}";
    let tokenizer = Tokenizer::bytes().unwrap();
    let layout = RowLayout { template: ChatTemplate::new(first, &tokenizer).unwrap(), strings: true };
    let chat = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "abc"},
        {"role": "user", "content": "q2"}, {"role": "assistant", "content": "b"}]});
    let laid = layout.lay_out(&row(&chat), Part::Completion).unwrap();
    assert_eq!(
        (laid.unplaced, laid.supervised, laid.text.as_str()),
        (1, std::iter::once(6..8).collect(), "1\n3\n2\nb\n")
    );
}

/// Gotcha 50: transformers masks the union of all spans. Catches a count of marks that is compared with messages, a
/// mark that is learned although its message belongs to the prompt, and marks within marks that are learned twice.
#[test]
fn gotcha_50_marks_are_a_union_and_each_belongs_to_its_message() {
    let template = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<{{ m.reasoning }}>{% endgeneration %}\
        -{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %};{% endfor %}";
    let turn = |content: &str| json!({"role": "assistant", "content": content, "reasoning": "r"});
    let user = json!({"role": "user", "content": "q"});
    assert_eq!(
        supervised_texts(template, json!({"messages": [user, turn("a"), user, turn("b")]})).unwrap(),
        ["<r>", "a", "<r>", "b"]
    );
    assert_eq!(
        supervised_texts(template, json!({"prompt": [user, turn("a"), user], "completion": [turn("b")]})).unwrap(),
        ["<r>", "b"]
    );
    let nested =
        "{% for m in messages %}{% generation %}a{% generation %}b{% endgeneration %}c{% endgeneration %}{% endfor %}";
    assert_eq!(supervised_texts(nested, json!({"messages": [user, turn("a")]})).unwrap(), ["abc", "abc"]);
}

/// Gotcha 48: a message has a flag that decides whether it is learned. Catches a weight that is dropped, and one
/// that is written as part of the text.
#[test]
fn gotcha_48_a_messages_weight_is_applied_or_refused() {
    let chat = |key: &str, value: Value| {
        let mut first = json!({"role": "assistant", "content": "one"});
        first[key] = value;
        json!({"messages": [{"role": "user", "content": "1?"}, first, {"role": "user", "content": "2?"},
            {"role": "assistant", "content": "two"}]})
    };
    let end = "<|endoftext|>";
    let unmarked = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    for (key, value) in [
        ("weight", json!(0)),
        ("weight", json!(0.0)),
        ("train", json!(false)),
        ("trainable", json!(false)),
        ("masked", json!(true)),
    ] {
        assert_eq!(supervised_texts(PLAIN, chat(key, value.clone())).unwrap(), [format!("two{end}")], "{key}");
        assert_eq!(supervised_texts(unmarked, chat(key, value)).unwrap(), ["two\n"], "{key}");
    }
    for (key, value) in
        [("weight", json!(1)), ("train", json!(true)), ("masked", json!(false)), ("weight", json!(null))]
    {
        assert_eq!(supervised_texts(PLAIN, chat(key, value)).unwrap().len(), 2, "{key}");
    }
    for (key, value, word) in [
        ("weight", json!(0.5), "0 (not learned) or 1"),
        ("train", json!("no"), "0 (not learned) or 1"),
        ("mask", json!(1), "`weight`: 0 or 1"),
        ("loss_scale", json!(2), "`weight`: 0 or 1"),
    ] {
        let error = supervised_texts(PLAIN, chat(key, value)).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("rows.jsonl:1: `{key}`: in message 2, ")) && error.contains(word),
            "{error}"
        );
    }
    let user = json!({"messages": [{"role": "user", "content": "1?", "train": true}, {"role": "assistant", "content": "one"}]});
    assert!(supervised_texts(PLAIN, user).unwrap_err().to_string().contains("only messages of the role"));
    let both = json!({"messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "one", "train": true, "weight": 0}]});
    assert!(supervised_texts(PLAIN, both).unwrap_err().to_string().contains("contradicts"));
}

/// What a row passes to its template reaches it, or is refused with its key. Catches a column that is silently
/// dropped.
#[test]
fn gotcha_48_tools_documents_and_variables_reach_the_template() {
    let template = "{% if tools %}T{{ tools | tojson }}{% endif %}{% if documents %}D{{ documents[0].title }}{% endif %}{{ mode }}{{ eos_token }}\n\
        {% for m in messages %}{{ m.content }};{% endfor %}";
    let text = |template: &str, more: Value| {
        let tokenizer = Tokenizer::bytes().unwrap();
        let layout = RowLayout { template: ChatTemplate::new(template, &tokenizer).unwrap(), strings: true };
        let mut line = json!({"prompt": "q", "completion": "a"});
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        layout.lay_out(&row(&line), Part::Completion).map(|laid| laid.text)
    };
    let end = "<|endoftext|>";
    assert_eq!(text(template, json!({"tools": [{"n": 1}]})).unwrap(), format!("T[{{\"n\": 1}}]{end}\nq;a;"));
    assert_eq!(text(template, json!({"tools": "[{\"n\": 1}]"})).unwrap(), format!("T[{{\"n\": 1}}]{end}\nq;a;"));
    assert_eq!(
        text(template, json!({"tools": null, "documents": [{"title": "x"}]})).unwrap(),
        format!("Dx{end}\nq;a;")
    );
    assert_eq!(text(template, json!({"chat_template_kwargs": {"mode": 7, "eos_token": "E"}})).unwrap(), "7E\nq;a;");
    assert_eq!(
        text(
            "{{ messages[0].content }}{{ messages[1].content }}",
            json!({"documents": "a column of its own", "tools": []})
        )
        .unwrap(),
        "qa"
    );
    for (template, more, key, word) in [
        (template, json!({"tools": "clock"}), "tools", "not a list of tools"),
        (template, json!({"tools": [1]}), "tools", "not a list of tools"),
        (template, json!({"documents": ["x"]}), "documents", "not a list of documents"),
        ("{{ messages[0].content }}", json!({"tools": [{"n": 1}]}), "tools", "does not use `tools`"),
        (
            template,
            json!({"chat_template_kwargs": {"nosuch": 1}}),
            "chat_template_kwargs.nosuch",
            "does not use this variable",
        ),
        (
            template,
            json!({"chat_template_kwargs": {"messages": []}}),
            "chat_template_kwargs.messages",
            "cannot be given here",
        ),
        (template, json!({"chat_template_kwargs": 1}), "chat_template_kwargs", "not an object"),
    ] {
        let error = text(template, more).unwrap_err().to_string();
        assert!(error.starts_with(&format!("rows.jsonl:1: `{key}`: ")) && error.contains(word), "{error}");
    }
}

/// Gotcha 63: rendering untrusted templates ends. Catches an endless loop, a stack that overflows, and memory that
/// fills up.
#[test]
fn gotcha_63_templates_run_with_limits() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let chat = || messages(json!([{"role": "user", "content": "q"}]));
    let render = |template: &str| {
        ChatTemplate::new(template, &tokenizer)?.render(&chat(), &Variables::default(), true).map_err(DataError::Option)
    };
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    let sum = format!("{{{{ {}1 }}}}", "1 + ".repeat(50_000));
    let ifs = format!("{}x{}", "{% if true %}".repeat(5000), "{% endif %}".repeat(5000));
    let nots = format!("{{{{ {}1 }}}}", "not ".repeat(50_000));
    let lookups = format!("{{{{ x{} }}}}", ".a".repeat(50_000));
    for (template, word) in [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recurses deeper"),
        (
            "{% set ns = namespace(s='xxxxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
            "the limit for an input of this size",
        ),
        (
            "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            "the limit for an input of this size",
        ),
        (
            "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
            "is larger than",
        ),
        ("{{ 'x' * 999999999999 }}", "longer than"),
        ("{{ '%999999999d' % 1 }}", "too wide"),
        ("{{ 'x'.ljust(999999999999) }}", "longer than"),
        ("{% for a in range(99999) %}{{ 'xxxxxxxxxxxxxxxxxxxx' * 100 }}{% endfor %}", "longer than"),
        (nested.as_str(), "nested deeper"),
        (sum.as_str(), "operations in one expression"),
        (ifs.as_str(), "nested deeper"),
        (nots.as_str(), "nested deeper"),
        (lookups.as_str(), "operations in one expression"),
    ] {
        let error = render(template).unwrap_err().to_string();
        assert!(error.contains(word), "{}: {error}", &template[..60.min(template.len())]);
    }
    // The error names the file and its line.
    let endless = "\n{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let template = ChatTemplate::of("models/x/chat_template.jinja", endless, &tokenizer).unwrap();
    let error = template.render(&chat(), &Variables::default(), true).unwrap_err();
    assert!(error.ends_with("(line 2 of models/x/chat_template.jinja)"), "{error}");
    let error =
        ChatTemplate::of("models/x/chat_template.jinja", "\n{{ (", &tokenizer).err().map(|error| error.to_string());
    assert!(
        error.as_ref().is_some_and(|error| error.ends_with("(line 2 of models/x/chat_template.jinja)")),
        "{error:?}"
    );
}

/// Whole numbers of any length print as they are written. Catches a number that was stored in 64 bits.
#[test]
fn gotcha_53_large_whole_numbers_reach_the_template_exactly() {
    let template = "{% for m in messages %}{{ m.z }} {{ m.z | tojson }} {{ m.z is integer }};{% endfor %}";
    for digits in [
        "12345678901234567890123",
        "-9007199254740993",
        "18446744073709551616",
        "170141183460469231731687303715884105728000",
    ] {
        let line = format!(
            "{{\"prompt\": [{{\"role\": \"user\", \"content\": \"\\\"1:\", \"z\": {digits}}}], \"completion\": \"a\"}}"
        );
        let row =
            jsonl::parse("rows.jsonl".as_ref(), &line, RowKind::PromptCompletion, &Columns::new()).unwrap().remove(0);
        let tokenizer = Tokenizer::bytes().unwrap();
        let layout = RowLayout { template: ChatTemplate::new(template, &tokenizer).unwrap(), strings: true };
        let laid = layout.lay_out(&row, Part::Prompt).unwrap();
        assert_eq!(laid.text, format!("{digits} {digits} True;"));
    }
}

/// What published templates use beyond Jinja, with Python's results.
#[test]
fn templates_may_use_what_those_of_published_models_use() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let render = |template: &str, chat: Value| {
        ChatTemplate::new(template, &tokenizer)?
            .render(&messages(chat), &Variables::default(), true)
            .map_err(DataError::Option)
    };
    let hello =
        || json!([{"role": "user", "content": " Hello "}, {"role": "assistant", "content": "<think>x</think>\nHi"}]);
    for (template, expected) in [
        ("{{ messages[0]['content'].strip() }}", "Hello"),
        ("{{ messages[1].content.split('</think>')[-1].lstrip('\\n') }}", "Hi"),
        ("{% if messages[1].content.startswith('<think>') %}yes{% endif %}", "yes"),
        ("{% for m in messages[::-1] %}{{ m.role[0] }}{% endfor %}", "au"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{% if tools is defined and tools %}t{% endif %}{% if strftime_now is defined %}d{% endif %}.", "."),
        ("{{ {'b': [1, 'ü'], 'a': '<&>'} | tojson }}", "{\"b\": [1, \"ü\"], \"a\": \"<&>\"}"),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{% if true %}\n  {% if true %}\nx\n  {% endif %}\n{% endif %}", "x\n"),
        ("{{ '<' + eos_token + '>' }}{{ bos_token }}", "<<|endoftext|>>"),
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
            " Hello ",
        ),
    ] {
        assert_eq!(render(template, hello()).unwrap().text, expected, "{template}");
    }
    let error = render("{{ raise_exception('roles must alternate') }}", hello()).unwrap_err().to_string();
    assert!(error.contains("roles must alternate") && error.contains("line 1"), "{error}");
    assert!(render("{% for %}", hello()).unwrap_err().to_string().contains("chat template"));
    let marker = json!([{"role": "user", "content": "a\u{FDD0}b"}]);
    assert!(render(PLAIN, marker).unwrap_err().to_string().contains("U+FDD0"));
}

/// The file takes precedence over the configuration, and the default is used if there are several templates.
/// Catches a template that is read and not saved with the model.
#[test]
fn gotcha_15_the_template_is_read_from_the_models_folder_and_saved_with_the_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    Tokenizer::bytes().unwrap().save(folder.path()).unwrap();
    let open = || Tokenizer::open(folder.path()).unwrap();
    assert_eq!(open().chat_template(), None);
    let config = folder.path().join("tokenizer_config.json");
    let write = |template: Value| {
        fs::write(&config, json!({"eos_token": "<|endoftext|>", "chat_template": template}).to_string()).unwrap();
    };
    write(json!("one"));
    assert_eq!(open().chat_template(), Some("one"));
    write(json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]));
    assert_eq!(open().chat_template(), Some("d"));
    let mut tokenizer = open();
    tokenizer.set_chat_template("mine");
    tokenizer.save(folder.path()).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("chat_template.jinja")).unwrap(), "mine");
    assert_eq!(open().chat_template(), Some("mine"));
}

/// Catches a row whose answer or tool call the template leaves out: only its end would be learned.
#[test]
fn a_template_that_leaves_the_answer_or_its_calls_out_is_refused() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let lay_out = |template: &str, messages: Value| {
        let layout = RowLayout { template: ChatTemplate::new(template, &tokenizer).unwrap(), strings: false };
        layout.lay_out(&row(&json!({"messages": messages})), Part::Completion).map(|laid| laid.text)
    };
    let answered = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
    let users = "{% for m in messages if m.role == 'user' %}{{ m.content }};{% endfor %}";
    let empty_marks = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{% endgeneration %}{% endif %}{{ m.content }};{% endfor %}";
    for template in [users, empty_marks] {
        let error = lay_out(template, answered.clone()).unwrap_err().to_string();
        assert!(error.contains("none of the assistant's words"), "{template}: {error}");
    }
    let call = json!({"function": {"name": "clock", "arguments": {}}});
    let calls = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]);
    let plain = "{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}";
    let error = lay_out(plain, calls.clone()).unwrap_err().to_string();
    assert!(error.contains("`tool_calls`") && error.contains("message 2 calls tools"), "{error}");
    let writes = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %}<{{ c.function.name }}>{% endfor %};{% endfor %}";
    assert_eq!(lay_out(writes, calls).unwrap(), "user: q;assistant: <clock>;");
}
