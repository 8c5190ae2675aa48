//! What a chat template's `{% generation %}` marks select for learning, compared with transformers and by hand.

use serde_json::json;

use super::chats::reference;
use super::encoding::{Case, bytes, pair};
use crate::data::rows::RowKind;
use crate::data::tokenizer::Tokenizer;

/// Gotcha 50: what a run learns is the reference's assistant mask, token by token. Catches a token outside the
/// marks that is learned, one that is added after them, and an ending of the template that is removed.
#[test]
fn gotcha_50_the_supervised_tokens_are_the_references_assistant_mask() {
    for name in ["gpt2", "split"] {
        let (tokenizer, reference) = reference(name);
        let template = tokenizer.chat_template().unwrap().to_owned();
        let case = Case { template: Some(&template), longest: 2000, ..bytes(&tokenizer) };
        let mut compared = 0;
        for chat in reference["chats"].as_array().unwrap() {
            let mask = chat["assistant_mask"].as_array().unwrap();
            if chat["add_generation_prompt"].as_bool().unwrap() || !mask.contains(&json!(1)) {
                continue;
            }
            let (sequences, counts) = case.encode(&[json!({"messages": chat["messages"]})]);
            let learned: Vec<u8> = sequences[0].supervised.iter().map(|learned| u8::from(*learned)).collect();
            let (ids, all) = (json!(sequences[0].ids), chat["input_ids"].as_array().unwrap());
            let length = learned.len();
            assert_eq!((&ids, json!(learned)), (&json!(all[..length]), json!(mask[..length])), "{name}: {chat}");
            // After the last answer, the text keeps what the template writes there; other messages that no answer
            // follows are cut off.
            let ends_with_answer = chat["messages"].as_array().unwrap().last().unwrap()["role"] == "assistant";
            assert!(
                if ends_with_answer { length == all.len() } else { !mask[length..].contains(&json!(1)) },
                "{name}: {chat}"
            );
            assert!(!counts.no_end_learned, "{name}: {chat}");
            compared += 1;
        }
        assert_eq!(compared, 2, "{name}");
    }
}

/// Gotcha 50: what a template marks is learned and nothing else, as with transformers'
/// `return_assistant_tokens_mask`. Catches an end-of-text token that is added after the last mark or learned
/// outside of one, an ending that is removed from the last turn, text after an end within a mark that is not
/// learned, and data without any learned end that is not reported.
#[test]
fn gotcha_50_exactly_the_marked_text_is_learned() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let end = "<|endoftext|>";
    let two = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]});
    let around = |before: &str, after: &str| {
        format!(
            "{{% for m in messages %}}{{% if m.role == 'assistant' %}}{{% generation %}}{{{{ m.content{before} }}}}{{% endgeneration %}}\
             {after}{{% else %}}{{{{ m.content }}}}{{% endif %}}{{% endfor %}}"
        )
    };
    for (template, text, has_no_end) in [
        (around("", ""), "a[b]c[d]".to_owned(), true),
        (around("", "{{ eos_token + ';' }}"), format!("a[b]{end};c[d]{end};"), true),
        (around(" + eos_token", ";"), format!("a[b{end}];c[d{end}];"), false),
        (around(" + eos_token + ';'", ""), format!("a[b{end};]c[d{end};]"), false),
        (
            around("", "{% if loop.last %}{% generation %}{{ eos_token }}{% endgeneration %}{% endif %}"),
            format!("a[b]c[d{end}]"),
            false,
        ),
    ] {
        let case = Case { template: Some(&template), ..bytes(&tokenizer) };
        let (sequences, counts) = case.encode(std::slice::from_ref(&two));
        assert_eq!(case.marked(&sequences[0]), text, "{template}");
        assert_eq!(counts.no_end_learned, has_no_end, "{template}");
        let note = "no row teaches a token that ends an answer, so the model does not learn to stop";
        assert_eq!(counts.to_string().contains(note), has_no_end, "{counts}");
    }
    // A user's last message is never generated, whatever it contains.
    let template = around("", "{{ eos_token }}");
    let case = Case { template: Some(&template), ..bytes(&tokenizer) };
    let mut more = two.clone();
    more["messages"].as_array_mut().unwrap().push(json!({"role": "user", "content": "e"}));
    assert_eq!(case.shown(more), format!("a[b]{end}c[d]"));
    // A row that is cut off has no end to learn, but others have.
    let cut = json!({"prompt": "a", "completion": "b", "completion_ended": false});
    let plain = bytes(&tokenizer);
    assert!(plain.encode(std::slice::from_ref(&cut)).1.no_end_learned);
    assert!(!plain.encode(&[cut, pair("a", "b")]).1.no_end_learned);
}

/// Gotcha 50: for each side of a pair, the marked text is learned. Catches reasoning outside of the marks that
/// is learned because the two answers begin to differ there.
#[test]
fn gotcha_50_both_answers_of_a_pair_are_supervised_where_marked() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let template = "{% for m in messages %}{% if m.role == 'assistant' %}{% if m.reasoning_content %}<{{ m.reasoning_content }}>{% endif %}\
                    {% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}:{% endif %}{% endfor %}";
    let case = Case { kind: RowKind::Preference, template: Some(template), ..bytes(&tokenizer) };
    let row = json!({"prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": "assistant", "content": "good", "reasoning_content": "hm"}],
        "rejected": [{"role": "assistant", "content": "bad"}]});
    assert_eq!(case.all_shown(row), ["q:<hm>[good]", "q:[bad]"]);
}
