use std::collections::BTreeSet;
use std::sync::Arc;

use super::byte_tokens;
use crate::data::batches::batcher::{BatchSize, Batcher, BatcherOptions, BatcherState, eval_batches};
use crate::data::batches::pack::Window;
use crate::data::document::Document;
use crate::data::error::DataError;
use crate::data::tokenizer::Tokenizer;
use crate::data::tokens::TokenSet;

fn set() -> Arc<TokenSet> {
    let long: String = ('a'..='z').cycle().take(233).collect();
    Arc::new(byte_tokens(&[&long, "short", "", "of middling length", "x"]))
}

fn batcher(tokens: &Arc<TokenSet>, batch: BatchSize, epochs: Option<u64>) -> Batcher {
    Batcher::new(tokens.clone(), BatcherOptions { seed: 7, batch, prefix: None, epochs }).unwrap()
}

fn windows(mut batcher: Batcher, context: usize) -> Vec<Window> {
    std::iter::from_fn(|| batcher.next_window(context).unwrap()).collect()
}

/// Every (document, predicted token with its neighbour) of the windows, sorted.
fn targets(windows: &[Window]) -> Vec<(u64, u32, u32)> {
    let mut targets: Vec<(u64, u32, u32)> = windows
        .iter()
        .flat_map(Window::sequences)
        .flat_map(|sequence| sequence.ids.windows(2).map(|pair| (sequence.row, pair[0], pair[1])))
        .collect();
    targets.sort_unstable();
    targets
}

/// Catches cuts that lose or repeat the token at a seam, sequences that reach into the next document (they would contain a pair
/// of neighbours that no document has), and a first token, which is only read, that is marked as a target.
#[test]
fn gotcha_06_every_token_is_a_target_once_an_epoch_within_its_document() {
    let tokens = set();
    let mut expected: Vec<(u64, u32, u32)> = (0..tokens.documents())
        .flat_map(|document| tokens.document(document).windows(2).map(move |pair| (document as u64, pair[0], pair[1])))
        .collect();
    expected.sort_unstable();
    for context in [1, 3, 8, 32, 1000] {
        for batch in [BatchSize::Sequences(4), BatchSize::Tokens(40)] {
            let windows = windows(batcher(&tokens, batch, Some(1)), context);
            assert_eq!(targets(&windows), expected, "context {context}, {batch:?}");
            let longest =
                windows.iter().flat_map(Window::sequences).map(|sequence| sequence.positions()).max().unwrap();
            assert!(longest <= context);
            // Objectives that compose read the flags before packing drops the first of them.
            for sequence in windows.iter().flat_map(Window::sequences) {
                assert!(!sequence.supervised[0] && sequence.supervised[1..].iter().all(|supervised| *supervised));
            }
        }
    }
}

#[test]
fn with_a_prefix_every_sequence_begins_with_it_and_first_tokens_are_targets() {
    let tokens = set();
    let options = BatcherOptions { seed: 7, batch: BatchSize::Sequences(3), prefix: Some(300), epochs: Some(1) };
    let windows = windows(Batcher::new(tokens.clone(), options).unwrap(), 8);
    let sequences: Vec<_> = windows.iter().flat_map(Window::sequences).collect();
    assert!(sequences.iter().all(|sequence| sequence.ids[0] == 300 && !sequence.ids[1..].contains(&300)));
    let targets: usize = sequences.iter().map(|sequence| sequence.positions()).sum();
    assert_eq!(targets as u64, tokens.tokens());
}

#[test]
fn windows_have_the_requested_size() {
    let tokens = set();
    let mut endless = batcher(&tokens, BatchSize::Sequences(4), None);
    assert!((0..50).all(|_| endless.next_window(8).unwrap().unwrap().sequences().len() == 4));
    // The last window of each epoch may be short.
    let sequences = windows(batcher(&tokens, BatchSize::Sequences(4), Some(3)), 8);
    let short = sequences.iter().filter(|window| window.sequences().len() < 4).count();
    assert!(short <= 3 && sequences.iter().all(|window| window.sequences().len() <= 4), "{short} short windows");
    for window in windows(batcher(&tokens, BatchSize::Tokens(20), Some(3)), 8) {
        // The longest has 8 positions: a window of 12 or fewer would have had room for it.
        assert!(window.positions() <= 20, "{}", window.positions());
    }
    // A sequence longer than the window still trains, alone.
    for window in windows(batcher(&tokens, BatchSize::Tokens(5), Some(1)), 8) {
        assert!(window.positions() <= 5 || window.sequences().len() == 1);
    }
}

/// Catches an order that repeats in each epoch, and cuts at the same places in each epoch.
#[test]
fn epochs_differ_in_order_and_in_cuts_and_seeds_differ_too() {
    let tokens = set();
    let sequences = |seed: u64, epoch: u64| -> Vec<Vec<u32>> {
        let spans = crate::data::batches::order::epoch(&tokens, 8, false, seed, epoch);
        spans.iter().map(|span| span.sequence(&tokens, None).ids).collect()
    };
    let sorted = |seed, epoch| sequences(seed, epoch).into_iter().collect::<BTreeSet<_>>();
    assert_ne!(sorted(1, 0), sorted(1, 1));
    assert_ne!(sorted(1, 0), sorted(2, 0));
    assert_eq!(sequences(1, 0), sequences(1, 0));
    // Documents that are never cut are still shuffled: twelve of them in the same order by chance is 1 in 12!.
    let short = Arc::new(byte_tokens(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]));
    let order = |seed, epoch| crate::data::batches::order::epoch(&short, 8, false, seed, epoch);
    assert_ne!(order(1, 0), order(1, 1));
    assert_ne!(order(1, 0), order(2, 0));
    let starts: BTreeSet<usize> =
        (0..40).flat_map(|epoch| sequences(1, epoch)).filter(|ids| ids[0] == 97).map(|ids| ids.len()).collect();
    assert!(starts.len() > 4, "first spans of the lengths {starts:?}");
}

/// Catches a resume that replays epoch 0's order, starts an epoch again, or forgets a change of context length.
#[test]
fn gotcha_42_a_restored_batcher_yields_the_same_windows() {
    let tokens = set();
    let context = |step: usize| if step < 30 { 8 } else { 16 };
    for batch in [BatchSize::Sequences(3), BatchSize::Tokens(30)] {
        let mut whole = batcher(&tokens, batch, None);
        let expected: Vec<Window> = (0..80).map(|step| whole.next_window(context(step)).unwrap().unwrap()).collect();
        assert!(whole.state().epoch > 2);
        for stop in 0..80 {
            let mut first = batcher(&tokens, batch, None);
            for step in 0..stop {
                first.next_window(context(step)).unwrap();
            }
            let saved = serde_json::to_string(first.state()).unwrap();
            let mut second = batcher(&tokens, batch, None);
            second.restore(serde_json::from_str::<BatcherState>(&saved).unwrap()).unwrap();
            for (step, window) in expected.iter().enumerate().skip(stop) {
                assert_eq!(&second.next_window(context(step)).unwrap().unwrap(), window, "stop {stop}, step {step}");
            }
            assert_eq!(second.state(), whole.state());
        }
    }
}

#[test]
fn a_saved_place_of_other_data_is_refused() {
    let mut first = batcher(&set(), BatchSize::Sequences(2), None);
    first.next_window(8).unwrap();
    let other = Arc::new(byte_tokens(&["quite another text"]));
    let mut second = batcher(&other, BatchSize::Sequences(2), None);
    assert!(matches!(second.restore(first.state().clone()), Err(DataError::Resume(_))));
    let past = BatcherState { taken: 10_000, ..first.state().clone() };
    assert!(matches!(first.restore(past), Err(DataError::Resume(_))));
}

#[test]
fn windows_left_counts_the_remaining_windows() {
    let tokens = set();
    for batch in [BatchSize::Sequences(5), BatchSize::Tokens(33)] {
        let mut batcher = batcher(&tokens, batch, Some(4));
        let mut left = batcher.windows_left(8).unwrap().unwrap();
        while batcher.next_window(8).unwrap().is_some() {
            left -= 1;
            assert_eq!(batcher.windows_left(8).unwrap(), Some(left));
        }
        assert_eq!(left, 0);
    }
}

#[test]
fn limited_epochs_refuse_a_change_of_context_within_an_epoch() {
    let mut batcher = batcher(&set(), BatchSize::Sequences(2), Some(2));
    batcher.next_window(8).unwrap();
    assert!(batcher.next_window(16).is_err());
    assert!(batcher.next_window(0).is_err());
}

#[test]
fn gotcha_05_text_without_a_target_is_refused() {
    let options = BatcherOptions { seed: 1, batch: BatchSize::Sequences(2), prefix: None, epochs: None };
    let one = Document { text: "x".into(), ends: false };
    let nothing = Arc::new(TokenSet::load(&[one.clone(), one], &Tokenizer::bytes().unwrap(), None).unwrap());
    assert!(matches!(Batcher::new(nothing.clone(), options.clone()), Err(DataError::Empty(_))));
    // With a prefix, the one token can be predicted.
    let with_prefix = BatcherOptions { prefix: Some(300), ..options.clone() };
    assert_eq!(Batcher::new(nothing, with_prefix).unwrap().next_window(4).unwrap().unwrap().supervised(), 2);
    let zero = BatcherOptions { batch: BatchSize::Tokens(0), ..options };
    assert!(Batcher::new(set(), zero).is_err());
}

#[test]
fn evaluation_reads_all_data_in_order_or_an_even_selection() {
    let tokens = set();
    let batches: Vec<_> = eval_batches(&*tokens, 8, None, 20, None).map(Result::unwrap).collect();
    let targets: usize = batches.iter().map(|batch| batch.len()).sum();
    assert_eq!(targets as u64, tokens.tokens() - tokens.documents() as u64);
    assert!(batches.iter().all(|batch| batch.len() <= 20));
    assert_eq!(batches[0].tokens[..16], ('a'..='p').map(|c| c as i32).collect::<Vec<_>>());
    let part: Vec<_> = eval_batches(&*tokens, 8, None, 20, Some(80)).map(Result::unwrap).collect();
    assert_eq!(part.iter().map(|batch| batch.sequences()).sum::<usize>(), 10);
    // Catches a selection that reads only the beginning.
    assert!(part.last().unwrap().rows.last() > Some(&0));
    assert_eq!(eval_batches(&byte_tokens(&[]), 8, None, 20, Some(80)).count(), 0);
}

/// Catches a window that holds rows of two epochs although their number is limited, a row that an epoch reads twice
/// or not at all, and a batch larger than the data that is filled up with repeated rows.
#[test]
fn gotcha_54_limited_epochs_read_every_token_once_for_any_batch_size() {
    let tokens = set();
    let once = targets(&windows(batcher(&tokens, BatchSize::Sequences(4), Some(1)), 8));
    for batch in [1, 3, 4, 1000].map(BatchSize::Sequences).into_iter().chain([5, 40, 100_000].map(BatchSize::Tokens)) {
        let mut batcher = batcher(&tokens, batch, Some(3));
        let mut by_epoch: Vec<Vec<Window>> = vec![Vec::new(); 3];
        while let Some(window) = batcher.next_window(8).unwrap() {
            by_epoch[batcher.state().epoch as usize].push(window);
        }
        assert!(batcher.has_ended());
        for (epoch, windows) in by_epoch.iter().enumerate() {
            assert_eq!(targets(windows), once, "epoch {epoch}, {batch:?}");
        }
    }
    // The predicted count must be the actual one.
    let batcher = |epochs| batcher(&tokens, BatchSize::Sequences(4), epochs);
    let sizes: Vec<usize> = windows(batcher(Some(3)), 8).iter().map(|window| window.sequences().len()).collect();
    assert_eq!(batcher(None).windows_of(3.0, 8).unwrap(), sizes);
    let (one, two) = (batcher(None).windows_of(1.0, 8).unwrap().len(), batcher(None).windows_of(2.0, 8).unwrap().len());
    let half = one + (two - one).div_ceil(2);
    assert_eq!(batcher(None).windows_of(1.5, 8).unwrap(), sizes[..half]);
    assert_eq!(batcher(None).windows_of(1e-9, 8).unwrap(), sizes[..1]);
    let mut endless = batcher(Some(1));
    endless.never_end();
    assert!((0..100).all(|_| endless.next_window(8).unwrap().is_some()));
}

/// Catches rows that are predicted and not read, or read and not predicted.
#[test]
fn documents_ahead_are_the_documents_read_next() {
    let tokens = set();
    for (epochs, place) in [(None, 0), (None, 7), (Some(2), 3)] {
        let mut batcher = batcher(&tokens, BatchSize::Sequences(2), epochs);
        (0..place).for_each(|_| _ = batcher.next_window(8).unwrap());
        for windows in [0, 1, 5, 90] {
            let ahead = batcher.documents_ahead(windows, 8).unwrap();
            let mut copy = self::batcher(&tokens, BatchSize::Sequences(2), epochs);
            copy.restore(batcher.state().clone()).unwrap();
            let coming = (0..windows).map_while(|_| copy.next_window(8).unwrap());
            let read: BTreeSet<u32> =
                coming.flat_map(|window| window.sequences().iter().map(|s| s.row as u32).collect::<Vec<_>>()).collect();
            assert_eq!(ahead, read, "{windows} windows from {place}");
        }
    }
}
