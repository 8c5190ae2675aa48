//! Chat templates and the assistant's places, against transformers and by hand.

use std::fs;

use serde_json::{Value, json};

use super::references;
use crate::data::rows::layout::Layout;
use crate::data::rows::template::PLAIN;
use crate::data::rows::{ChatTemplate, Columns, Message, Part, Row, RowKind, jsonl};
use crate::data::{DataError, Tokenizer};

fn reference(name: &str) -> (Tokenizer, Value) {
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

/// The supervised stretches of a row, as text.
fn said(template: &str, line: Value) -> Result<Vec<String>, DataError> {
    let tokenizer = Tokenizer::bytes().unwrap();
    let layout = Layout { template: ChatTemplate::new(template, &tokenizer).unwrap(), strings: true };
    let laid = layout.lay_out(&row(&line), Part::Completion)?;
    Ok(laid.supervised.iter().map(|s| laid.text.chars().skip(s.start).take(s.len()).collect()).collect())
}

/// Text, ids and masks of transformers, exactly. Catches whitespace that Jinja's block rules would strip, places in bytes,
/// and an assistant's stretch that is one character off.
#[test]
fn rendered_chats_their_ids_and_masks_are_those_of_the_reference() {
    for name in ["gpt2", "split"] {
        let (tokenizer, reference) = reference(name);
        let template = ChatTemplate::new(&tokenizer.chat_template().unwrap(), &tokenizer).unwrap();
        let chats = reference["chats"].as_array().unwrap();
        assert!(!chats.is_empty());
        for chat in chats {
            let open = chat["add_generation_prompt"].as_bool().unwrap();
            let rendered = template.render(&messages(chat["messages"].clone()), open).unwrap();
            assert_eq!(Value::from(rendered.text.as_str()), chat["text"], "{name}");
            let placed = tokenizer.encode_placed(vec![&rendered.text]).unwrap().remove(0);
            assert_eq!(json!(placed.ids), chat["input_ids"], "{name}");
            let spans = rendered.spans.unwrap();
            let inside = |(a, b): &(usize, usize)| spans.iter().any(|s| *a < s.end && *b > s.start);
            let mask: Vec<u8> = placed.offsets.iter().map(|place| u8::from(inside(place))).collect();
            assert_eq!(json!(mask), chat["assistant_mask"], "{name}: {}", rendered.text);
        }
    }
}

/// Gotcha 11: most published templates mark nothing, and a mask from marks alone would be all zero. Without its marks, the
/// reference's template must give the same stretches (to what follows its end-of-text token).
#[test]
fn gotcha_11_a_template_that_marks_nothing_gives_the_same_stretches() {
    for name in ["gpt2", "split"] {
        let (tokenizer, reference) = reference(name);
        let marked = tokenizer.chat_template().unwrap();
        let unmarked = marked.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "");
        assert_ne!(marked, unmarked);
        let eos = tokenizer.token(tokenizer.eos().unwrap()).unwrap();
        let layout = |source: &str| {
            let template = ChatTemplate::new(source, &tokenizer).unwrap();
            assert_eq!(template.marks_answers(), source == marked);
            Layout { template, strings: true }
        };
        let (marked, unmarked) = (layout(&marked), layout(&unmarked));
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
        said(PLAIN, json!({"prompt": prompt, "completion": completion})).unwrap(),
        [format!("two{end}"), format!("three{end}")]
    );
    let all: Vec<Value> = prompt.iter().chain(&completion).cloned().collect();
    assert_eq!(said(PLAIN, json!({"messages": all})).unwrap().len(), 3);
    assert_eq!(said(PLAIN, json!({"prompt": "2?", "completion": "two"})).unwrap(), [format!("two{end}")]);
}

/// A template that rewrites earlier turns says nothing of where they stand: refused, not guessed.
#[test]
fn gotcha_11_a_template_that_hides_the_places_is_refused_with_the_remedy() {
    let rewrites = "{% for m in messages %}{% if loop.last %}{{ m.content }}{% else %}{{ m.content | upper }}{% endif %}\n{% endfor %}";
    let error = said(rewrites, json!({"prompt": "a", "completion": "b"})).unwrap_err().to_string();
    assert!(error.starts_with("rows.jsonl:1: ") && error.contains("{% generation %}"), "{error}");
    let one_mark = "{% for m in messages %}{{ m.content }}{% endfor %}{% generation %}x{% endgeneration %}";
    let chat = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]});
    let error = said(one_mark, chat).unwrap_err().to_string();
    assert!(error.contains("marks 1 stretches of 2 messages"), "{error}");
}

/// What published templates use beyond Jinja, with the answers of Python.
#[test]
fn templates_may_use_what_those_of_published_models_use() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let render = |template: &str, chat: Value| {
        ChatTemplate::new(template, &tokenizer)?.render(&messages(chat), true).map_err(DataError::Option)
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

/// The file goes before the configuration, and of several templates the default counts. Catches a template that is read and
/// not saved with the model.
#[test]
fn gotcha_15_the_template_is_found_where_models_carry_it_and_goes_with_the_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    Tokenizer::bytes().unwrap().save(folder.path()).unwrap();
    let open = || Tokenizer::open(folder.path()).unwrap();
    assert_eq!(open().chat_template(), None);
    let config = folder.path().join("tokenizer_config.json");
    let write = |template: Value| {
        fs::write(&config, json!({"eos_token": "<|endoftext|>", "chat_template": template}).to_string()).unwrap();
    };
    write(json!("one"));
    assert_eq!(open().chat_template().as_deref(), Some("one"));
    write(json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]));
    assert_eq!(open().chat_template().as_deref(), Some("d"));
    let mut tokenizer = open();
    tokenizer.set_chat_template("mine");
    tokenizer.save(folder.path()).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("chat_template.jinja")).unwrap(), "mine");
    assert_eq!(open().chat_template().as_deref(), Some("mine"));
}
