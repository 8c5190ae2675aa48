use crate::data::SyntheticOptions;
use crate::data::rows::{Content, Part, RowKind};
use crate::data::tokenizer::Tokenizer;
use telos_world::{MAX_DOCUMENT_BYTES, Task};

fn options() -> SyntheticOptions {
    SyntheticOptions {
        rows: 300,
        held_out_rows: 40,
        tasks: vec![Task::Sort, Task::Add],
        equal_length: false,
        flawed: 0.0,
        segments: false,
        hint: false,
        seed: 3,
    }
}

#[test]
fn rows_tasks_and_seed_determine_the_text() {
    let corpus = options().read().unwrap();
    assert_eq!((corpus.train.len(), corpus.held_out.len()), (300, 40));
    assert!(corpus.train.to_vec().iter().all(|document| document.ends && !document.text.contains("backwards")));
    assert_eq!(options().read().unwrap().train.to_vec(), corpus.train.to_vec());
    let other = SyntheticOptions { seed: 4, ..options() }.read().unwrap();
    assert_ne!(other.train, corpus.train);
    assert_ne!(other.sources, corpus.sources);
    assert!(SyntheticOptions { rows: 0, ..options() }.read().is_err());
}

#[test]
fn a_document_in_bytes_fits_a_context_of_128() {
    let data = options().read().unwrap().tokenize(&Tokenizer::bytes().unwrap(), 128, None).unwrap();
    assert_eq!((data.train.documents(), data.held_out.documents()), (300, 40));
    let longest = data.train.in_order(1000, false).iter().map(|whole| whole.targets() + 1).max().unwrap();
    assert!(longest <= MAX_DOCUMENT_BYTES + 1, "{longest}");
}

/// Rows of the world are its examples. Catches held-out rows that were trained on, and an answer without its end.
#[test]
fn rows_are_the_examples_of_the_world() {
    let corpus = options().read_rows(RowKind::PromptCompletion).unwrap();
    assert_eq!((corpus.train.len(), corpus.held_out.len()), (300, 40));
    let trained: Vec<String> = corpus.train.to_vec().iter().map(|row| row.question()).collect();
    assert!(corpus.held_out.to_vec().iter().all(|row| !trained.contains(&row.question())));
    for row in corpus.train.to_vec().iter().chain(&corpus.held_out.to_vec()) {
        let [Content::Text(prompt), Content::Text(answer)] =
            [Part::Prompt, Part::Completion].map(|p| row.parts[&p].clone())
        else {
            panic!("{row:?}");
        };
        assert_eq!(telos_world::gold(&prompt, &answer), Some(1.0), "{prompt}{answer}");
    }
    assert_eq!(options().read_rows(RowKind::PromptCompletion).unwrap().train.to_vec(), corpus.train.to_vec());
    assert_ne!(
        SyntheticOptions { seed: 4, ..options() }.read_rows(RowKind::PromptCompletion).unwrap().sources,
        corpus.sources
    );
    assert!(SyntheticOptions { rows: 0, ..options() }.read_rows(RowKind::PromptCompletion).is_err());
}

/// Catches sides that are swapped, lengths that reveal the answer where they must not, held-out prompts that were
/// trained on, and prompts without their answer.
#[test]
fn pairs_and_prompts_match_the_world() {
    for equal_length in [false, true] {
        let corpus = SyntheticOptions { equal_length, ..options() }.read_rows(RowKind::Preference).unwrap();
        assert_eq!((corpus.kind, corpus.train.len(), corpus.held_out.len()), (RowKind::Preference, 300, 40));
        let mut equal = 0;
        for row in corpus.train.to_vec().iter().chain(&corpus.held_out.to_vec()) {
            let [Content::Text(prompt), Content::Text(chosen), Content::Text(rejected)] =
                [Part::Prompt, Part::Chosen, Part::Rejected].map(|p| row.parts[&p].clone())
            else {
                panic!("{row:?}");
            };
            assert_eq!(telos_world::gold(&prompt, &chosen), Some(1.0));
            assert!(telos_world::gold(&prompt, &rejected) < Some(1.0));
            equal += usize::from(chosen.len() == rejected.len());
        }
        assert!(if equal_length { equal == 340 } else { (100..300).contains(&equal) }, "{equal}");
        let trained: Vec<String> = corpus.train.to_vec().iter().map(|row| row.question()).collect();
        assert!(corpus.held_out.to_vec().iter().all(|row| !trained.contains(&row.question())));
    }
    let prompts = options().read_rows(RowKind::Prompt).unwrap();
    for row in prompts.train.to_vec().iter().chain(&prompts.held_out.to_vec()) {
        let text = row.text();
        assert!(text.prompt.ends_with('\n'));
        assert_eq!(telos_world::gold(&text.prompt, &text.answer.unwrap()), Some(1.0));
    }
}

/// Catches labels that are exchanged, an answer that is always the same side's, and held-out prompts that were trained on.
#[test]
fn labelled_rows_are_the_two_answers_of_each_pair() {
    let corpus = options().read_rows(RowKind::Unpaired).unwrap();
    assert_eq!((corpus.kind, corpus.train.len(), corpus.held_out.len()), (RowKind::Unpaired, 300, 40));
    for rows in [&corpus.train, &corpus.held_out] {
        for pair in rows.to_vec().chunks(2) {
            assert_eq!(pair[0].question(), pair[1].question());
            for (row, desirable) in pair.iter().zip([true, false]) {
                let Content::Text(answer) = &row.parts[&Part::Completion] else { panic!("{row:?}") };
                assert_eq!(row.columns["label"], desirable);
                assert_eq!(telos_world::gold(&row.question(), answer) == Some(1.0), desirable, "{row:?}");
            }
        }
    }
    let trained: Vec<String> = corpus.train.to_vec().iter().map(|row| row.question()).collect();
    assert!(corpus.held_out.to_vec().iter().all(|row| !trained.contains(&row.question())));
}

/// Catches flaws in evaluation data, and a share that is ignored.
#[test]
fn only_training_demonstrations_are_flawed() {
    let right = options().read_rows(RowKind::PromptCompletion).unwrap();
    let flawed = SyntheticOptions { flawed: 0.5, ..options() }.read_rows(RowKind::PromptCompletion).unwrap();
    let (flawed_rows, right_rows) = (flawed.train.to_vec(), right.train.to_vec());
    assert_eq!(flawed.held_out.to_vec(), right.held_out.to_vec());
    let changed = flawed_rows.iter().zip(&right_rows).filter(|(flawed, right)| flawed.parts != right.parts).count();
    assert!((100..200).contains(&changed), "{changed}");
}

/// Catches labels that belong to other segments, and an end that is not the space after a word.
#[test]
fn segments_of_the_world_have_labels() {
    let corpus = SyntheticOptions { segments: true, ..options() }.read_rows(RowKind::PromptCompletion).unwrap();
    for row in corpus.train.to_vec().iter().chain(&corpus.held_out.to_vec()) {
        let Content::Text(answer) = &row.parts[&Part::Completion] else { panic!("{row:?}") };
        let spaces: Vec<usize> = answer.match_indices(' ').map(|(at, _)| at + 1).collect();
        assert_eq!((&row.segments, row.columns["labels"].as_array().unwrap().len()), (&spaces, spaces.len()));
    }
}

/// Catches hints that are absent from some kinds of rows, or that hint at a wrong answer.
#[test]
fn hints_are_the_prompts_behind_their_right_answers() {
    for kind in [RowKind::PromptCompletion, RowKind::Preference, RowKind::Unpaired, RowKind::Prompt] {
        let corpus = SyntheticOptions { hint: true, flawed: 1.0, ..options() }.read_rows(kind).unwrap();
        for row in corpus.train.to_vec().iter().chain(&corpus.held_out.to_vec()) {
            let Content::Text(prompt) = &row.parts[&Part::Prompt] else { panic!("{row:?}") };
            let answer = row.columns["hint"].as_str().unwrap().strip_suffix(prompt.as_str()).unwrap();
            assert_eq!(telos_world::gold(prompt, answer.trim_end()), Some(1.0), "{row:?}");
        }
    }
}
