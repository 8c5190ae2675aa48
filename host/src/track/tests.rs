use prost::Message;
use serde_json::json;

use super::{
    event::{Shown, Summary},
    *,
};

/// The events of a file, whose frames and checks are read as TensorBoard reads them.
fn events(path: &Path) -> Vec<Event> {
    let bytes = fs::read(path).unwrap();
    let (mut rest, mut events) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        events.push(Event::decode(&rest[12..12 + length]).unwrap());
        rest = &rest[12 + length + 4..];
    }
    events
}

/// What is shown: step, name and value.
fn shown(events: &[Event]) -> Vec<(i64, String, Shown)> {
    let of = |event: &Event| match event.what.clone() {
        Some(What::Summary(Summary { values })) => {
            values.into_iter().map(|value| (event.step, value.tag, value.shown.unwrap())).collect()
        }
        _ => Vec::new(),
    };
    events.iter().flat_map(of).collect()
}

fn line(log: Log, line: Value) -> LogLine {
    LogLine { log, line }
}

/// Catches numbers that are left out because they are 0 or not finite, text that becomes a number, an evaluation's seconds under
/// the name of a step's, bins whose lower edges are written, and samples that overwrite one another.
#[test]
fn lines_of_the_logs_become_values() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::create(folder.path(), 3).unwrap();
    let counted = json!({ "step": 3, "kind": "eval", "name": "margin", "count": 3, "not_finite": 0, "sum": 6.0,
        "sum_squares": 14.0, "min": 1.0, "max": 3.0, "edges": [0.5, 1.5, 2.5, 3.5], "counts": [1, 1, 1] });
    let calibration = json!({ "step": 3, "kind": "eval", "name": "calibration", "count": 1, "edges": [0.0, 1.0],
        "predicted": [0.5], "observed": [1.0], "counts": [1] });
    let lines = [
        line(
            Log::Metrics,
            json!({ "step": 3, "kind": "train", "loss": 0.5, "lr": 0, "grad_norm": null, "refused": true }),
        ),
        line(Log::Timing, json!({ "step": 3, "kind": "train", "tokens_per_s": 8.0, "seconds": { "data": 0.25 } })),
        line(Log::Timing, json!({ "step": 3, "kind": "eval", "seconds": 2.0 })),
        line(
            Log::Timing,
            json!({ "step": 3, "kind": "operations", "steps": 1, "operations": { "linear": { "calls": 1 } } }),
        ),
        line(Log::Timing, json!({ "step": 3, "kind": "note", "text": "a note" })),
        line(Log::Histograms, counted),
        line(Log::Histograms, calibration),
        line(Log::Samples, json!({ "step": 3, "prompt": "a", "text": "*b*\nc" })),
        line(Log::Samples, json!({ "step": 3, "prompt": "d", "text": "e" })),
        line(Log::Samples, json!({ "step": 3, "prompt": "f", "text": "g", "reward": 1.0 })),
        line(Log::Samples, json!({ "step": 3, "kind": "pass", "prompt": "h", "answer": "i" })),
    ];
    board.write(&lines).unwrap();
    let found = events(board.path());
    assert_eq!(found[0].what, Some(What::version()));
    assert_eq!((found[1].step, found[1].what.clone()), (3, Some(What::start())));
    let found = shown(&found);
    assert!(found.iter().all(|(step, _, _)| *step == 3));
    let names: Vec<&str> = found.iter().map(|(_, name, _)| name.as_str()).collect();
    let expected = [
        "loss",
        "lr",
        "grad_norm",
        "timing/tokens_per_s",
        "timing/seconds/data",
        "timing/eval/seconds",
        "eval/margin/distribution",
        "samples/text",
        "samples/rollout",
        "samples/pass",
    ];
    assert_eq!(names, expected);
    let value = |index: usize| found[index].2.clone();
    assert_eq!((value(0), value(1), value(5)), (Shown::Scalar(0.5), Shown::Scalar(0.0), Shown::Scalar(2.0)));
    assert!(matches!(value(2), Shown::Scalar(number) if number.is_nan()));
    let Shown::Histogram(histogram) = value(6) else { panic!("not a histogram") };
    assert_eq!((histogram.bucket_limit, histogram.bucket), (vec![1.5, 2.5, 3.5], vec![1.0; 3]));
    let Shown::Tensor(texts) = value(7) else { panic!("not texts") };
    let texts: Vec<String> = texts.texts.into_iter().map(|text| String::from_utf8(text).unwrap()).collect();
    assert_eq!(texts, ["    prompt: a\n    text: *b*\n    c\n", "    prompt: d\n    text: e\n"]);
}

/// Catches a second process whose file comes first in the order of names, or replaces the first one's.
#[test]
fn every_process_has_its_own_later_file() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("tensorboard");
    let boards = [0, 5, 7].map(|from| TensorBoard::create(&below, from).unwrap());
    let names: Vec<&Path> = boards.iter().map(TensorBoard::path).collect();
    assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
    let starts = names.iter().map(|path| events(path)[1].step).collect::<Vec<_>>();
    assert_eq!(starts, [0, 5, 7]);
    assert!(holds_only_events(&below));
    fs::write(below.join("mine.txt"), "x").unwrap();
    assert!(!holds_only_events(&below) && !holds_only_events(&folder.path().join("missing")));
}
