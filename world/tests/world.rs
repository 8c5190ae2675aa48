//! Laws of the generated world, for every example, pair and document of either split.

use std::collections::BTreeSet;

use telos_world::{Flaw, MAX_ANSWER_BYTES, MAX_DOCUMENT_BYTES, MAX_PROMPT_BYTES, Split, Task, World, gold};

const SPLITS: [Split; 2] = [Split::Train, Split::HeldOut];

#[test]
fn examples_earn_the_full_gold_reward_and_fit_their_limits() {
    let world = World::new(1, &[]);
    for split in SPLITS {
        for index in 0..3000 {
            let example = world.example(split, index);
            assert_eq!(gold(&example.prompt, &example.answer), Some(1.0), "{example:?}");
            assert!(example.prompt.len() <= MAX_PROMPT_BYTES, "{example:?}");
            assert!(example.answer.len() <= MAX_ANSWER_BYTES, "{example:?}");
            assert!(example.prompt.ends_with('\n') && !example.answer.contains('\n'));
        }
    }
}

/// Catches flaws that are too frequent or in other prompts, and an answer that counts as flawed but is right.
#[test]
fn demonstrations_are_examples_with_a_share_of_flawed_answers() {
    let world = World::new(1, &[]);
    let flawed = |share: f64| {
        let one = |index| (world.example(Split::Train, index), world.demonstration(Split::Train, index, share));
        let all: Vec<_> = (0..3000).map(one).collect();
        assert!(all.iter().all(|(example, shown)| (&example.prompt, example.task) == (&shown.prompt, shown.task)));
        let other = all.iter().filter(|(example, shown)| example.answer != shown.answer);
        other.map(|(_, shown)| assert!(gold(&shown.prompt, &shown.answer) < Some(1.0), "{shown:?}")).count()
    };
    assert_eq!((flawed(0.0), flawed(1.0)), (0, 3000));
    // Four standard errors of 3000 draws.
    assert!(flawed(0.3).abs_diff(900) < 101, "{}", flawed(0.3));
}

#[test]
fn no_prompt_is_in_both_splits_for_any_seed_and_kind() {
    let prompts = |split, seed| -> BTreeSet<String> {
        let world = World::new(seed, &[]);
        let examples = (0..2000).map(|index| world.example(split, index).prompt);
        let pairs = (0..2000).map(|index| world.preference(split, index, false).prompt);
        examples.chain(pairs).collect()
    };
    let (train, held_out) = (prompts(Split::Train, 1), prompts(Split::HeldOut, 2));
    assert!(train.is_disjoint(&held_out));
    assert!(held_out.len() > 1000, "only {} held-out prompts", held_out.len());
}

#[test]
fn no_training_document_answers_a_held_out_instruction() {
    // Catches a document that draws its problems regardless of their side.
    let world = World::new(3, &[]);
    for split in SPLITS {
        for index in 0..4000 {
            let document = world.document(split, index);
            let lines: Vec<&str> = document.split('\n').collect();
            for prompt in lines.iter().map(|line| format!("{line}\n")).filter(|line| gold(line, "").is_some()) {
                assert_eq!(Split::of(&prompt), split, "{document:?}");
            }
        }
    }
    let lines = |split| -> BTreeSet<String> {
        let documents = (0..4000).map(|index| world.document(split, index));
        documents.flat_map(|text| text.split('\n').map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let shared: Vec<String> = lines(Split::Train).intersection(&lines(Split::HeldOut)).cloned().collect();
    // Bare answers ("ant fox", "7") may recur; whole sentences or descriptions may not.
    assert!(shared.iter().all(|line| !line.ends_with('.')), "{shared:?}");
}

#[test]
fn documents_fit_their_limit_and_are_mostly_not_instructions() {
    let world = World::new(4, &[]);
    let (mut instructions, mut lines) = (0, 0);
    for index in 0..3000 {
        let document = world.document(Split::Train, index);
        assert!(document.len() <= MAX_DOCUMENT_BYTES && !document.is_empty(), "{document:?}");
        lines += document.split('\n').count();
        instructions += document.split('\n').filter(|line| gold(line, "").is_some()).count();
    }
    let share = instructions as f64 / lines as f64;
    assert!((0.05..0.25).contains(&share), "{share} of the lines are instructions");
}

#[test]
fn pairs_prefer_the_right_and_terse_answer() {
    let world = World::new(5, &[]);
    let mut flaws = [0; 3];
    for index in 0..3000 {
        let pair = world.preference(Split::Train, index, false);
        assert_eq!(gold(&pair.prompt, &pair.chosen), Some(1.0), "{pair:?}");
        let rejected = gold(&pair.prompt, &pair.rejected).expect("an instruction of this world");
        match pair.flaw {
            // A filler that holds a noun or a number would make this 0.
            Flaw::Rambling => assert!(rejected > 0.0 && rejected < 0.6, "{pair:?}"),
            Flaw::Wrong | Flaw::WrongRambling => assert_eq!(rejected, 0.0, "{pair:?}"),
        }
        flaws[pair.flaw as usize] += 1;
    }
    assert!(flaws.iter().all(|&count| count > 500), "{flaws:?}");
}

#[test]
fn equal_length_pairs_have_no_length_signal() {
    let world = World::new(6, &[]);
    for index in 0..3000 {
        let pair = world.preference(Split::HeldOut, index, true);
        assert_eq!(pair.chosen.len(), pair.rejected.len(), "{pair:?}");
        assert_eq!(gold(&pair.prompt, &pair.rejected), Some(0.0), "{pair:?}");
    }
}

#[test]
fn only_the_selected_tasks_appear_in_turn() {
    let world = World::new(7, &[Task::Sort, Task::Add, Task::Sort]);
    let tasks: Vec<Task> = (0..4).map(|index| world.example(Split::Train, index).task).collect();
    assert_eq!(tasks, [Task::Sort, Task::Add, Task::Sort, Task::Add]);
    for index in 0..500 {
        let document = world.document(Split::Train, index);
        assert!(!document.contains("reverse:") && !document.contains("backwards"), "{document:?}");
    }
}

#[test]
fn the_world_matches_published_hashes() {
    // A changed generator, word list or draw order changes every published figure: this text must be changed knowingly.
    let world = World::new(7, &[]);
    let shown: Vec<String> = (0..5)
        .map(|index| world.example(Split::Train, index))
        .map(|example| format!("{}{}", example.prompt, example.answer))
        .collect();
    assert_eq!(shown, EXPECTED);
    assert_eq!(world.document(Split::HeldOut, 3), EXPECTED_DOCUMENT);
    assert_ne!(World::new(8, &[]).example(Split::Train, 0), world.example(Split::Train, 0));
}

const EXPECTED: [&str; 5] = [
    "copy: elk owl pig\nelk owl pig",
    "reverse: pig gnu\ngnu pig",
    "sort: ant rat dog pig\nant dog pig rat",
    "count koi: koi koi koi\n3",
    "add: 6 + 11\n17",
];
const EXPECTED_DOCUMENT: &str = "line up owl pig bee gnu: bee gnu owl pig.\ncopy: koi tup ant yak\nkoi tup ant yak";

/// Catches labels that are right again after a wrong word, answers that are all right or all wrong, and a label of a wrong segment.
#[test]
fn segments_are_labelled_by_whether_the_answer_so_far_is_right() {
    let world = World::new(5, &[]);
    let (mut right, mut mixed) = (0, 0);
    for index in 0..1000 {
        let answer = world.segments(Split::Train, index);
        assert_eq!((answer.segments.len(), answer.labels.is_sorted_by(|a, b| a >= b)), (answer.labels.len(), true));
        let whole = gold(&answer.prompt, &answer.segments.join(" ")).unwrap();
        assert_eq!(whole == 1.0, *answer.labels.last().unwrap(), "{answer:?}");
        right += usize::from(whole == 1.0);
        mixed += usize::from(answer.labels.first() != answer.labels.last());
    }
    assert!((400..600).contains(&right) && mixed > 100, "{right} {mixed}");
}
