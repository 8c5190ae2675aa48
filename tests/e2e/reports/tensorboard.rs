//! Event files for TensorBoard, read by their format, and by TensorBoard itself where it is installed.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::support::{
    experiments::{PPO, lab, two_stages},
    lab::{Lab, Run},
};

const TRACKED: &str = "track.tensorboard=true";

/// The messages of an event file; fails unless every length and message has its CRC-32C, masked.
fn records(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).expect("an event file");
    let crc = |bytes: &[u8]| {
        let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
        });
        (!crc).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
    };
    let (mut rest, mut found) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let (length, after) = rest.split_at(8);
        assert_eq!(after[..4], crc(length), "the check of a length");
        let size = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
        let (message, after) = after[4..].split_at(size);
        assert_eq!(after[..4], crc(message), "the check of a message");
        found.push(message.to_vec());
        rest = &after[4..];
    }
    found
}

/// A field of a protobuf message: its number, and its number or bytes.
#[derive(Debug, Clone)]
enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
}

fn fields(mut message: &[u8]) -> Vec<Field<'_>> {
    fn varint(from: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = from[0];
            *from = &from[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let fixed = |size: usize, from: &mut &[u8]| {
            let (own, rest) = from.split_at(size);
            *from = rest;
            own.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
        };
        found.push(match key & 7 {
            0 => Field::Number(key >> 3, varint(&mut message)),
            1 => Field::Number(key >> 3, fixed(8, &mut message)),
            5 => Field::Number(key >> 3, fixed(4, &mut message)),
            _ => {
                let size = varint(&mut message) as usize;
                let (own, rest) = message.split_at(size);
                message = rest;
                Field::Bytes(key >> 3, own)
            }
        });
    }
    found
}

fn number(message: &[u8], field: u64) -> Option<u64> {
    fields(message).iter().find_map(|one| match one {
        Field::Number(own, value) if *own == field => Some(*value),
        _ => None,
    })
}

fn parts(message: &[u8], field: u64) -> Vec<&[u8]> {
    let own = |one| match one {
        Field::Bytes(own, bytes) if own == field => Some(bytes),
        _ => None,
    };
    fields(message).into_iter().filter_map(own).collect()
}

/// The run's event files in the order of their names.
fn event_files(run: &Run) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(run.0.join("tensorboard")).expect("event files");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// Steps and values of a scalar, after what a resumed run replaced was dropped.
fn scalar(run: &Run, tag: &str) -> Vec<(u64, f32)> {
    let mut found = Vec::new();
    for file in event_files(run) {
        let records = records(&file);
        assert_eq!(parts(&records[0], 3), [b"brain.Event:2"], "the first event");
        for event in &records {
            let step = number(event, 2).unwrap_or(0);
            if parts(event, 7).iter().any(|log| number(log, 1) == Some(1)) {
                found.retain(|(at, _)| *at < step);
            }
            let values = parts(event, 5).into_iter().flat_map(|summary| parts(summary, 1));
            let own = values.filter(|value| parts(value, 1) == [tag.as_bytes()]);
            found.extend(own.filter_map(|value| Some((step, f32::from_bits(number(value, 2)? as u32)))));
        }
    }
    found
}

/// Fails unless TensorBoard would show each number of the run's losses and evaluations once.
#[track_caller]
fn shows_the_metrics(run: &Run, keys: &[(&str, &str)]) {
    for (kind, key) in keys {
        let of = |line: &Value| Some((line["step"].as_u64()?, line[key].as_f64()? as f32));
        let expected: Vec<(u64, f32)> = run.metrics(kind).iter().filter_map(of).collect();
        assert!(!expected.is_empty(), "{key}");
        assert_eq!(scalar(run, key), expected, "{key}");
    }
}

const LOSSES: [(&str, &str); 3] = [("train", "loss"), ("train", "lr"), ("eval", "eval/loss")];

/// Catches frames whose checks are wrong, numbers of another step, event files without being asked for, steps that a resumed run
/// computed again and that are shown twice, and a key that may not change on resuming.
#[test]
fn a_resumed_run_is_shown_once() {
    let lab = Lab::tiny();
    lab.run(&["train.steps=6"]).succeeds();
    let run = lab.tiny_run();
    assert!(!run.0.join("tensorboard").exists());
    lab.resume(&["train.steps=10", TRACKED]).succeeds();
    assert_eq!(event_files(&run).len(), 1);
    assert_eq!(scalar(&run, "loss").iter().map(|(step, _)| *step).collect::<Vec<_>>(), [7, 8, 9, 10]);

    let lab = Lab::tiny();
    lab.run(&["train.steps=6", TRACKED]).succeeds();
    let run = lab.tiny_run();
    shows_the_metrics(&run, &LOSSES);
    // As after a kill: the steps after the checkpoint of step 4 are computed again.
    fs::remove_dir_all(run.0.join("checkpoints/step-00000006")).expect("removed");
    fs::write(run.0.join("checkpoints/LATEST"), "step-00000004\n").expect("written");
    lab.resume(&["train.steps=6", TRACKED]).succeeds();
    assert_eq!(event_files(&run).len(), 2);
    shows_the_metrics(&run, &LOSSES);
    lab.resume(&["train.steps=6", TRACKED]).succeeds();
    assert_eq!(event_files(&run).len(), 2, "nothing was left to do");
}

/// Catches a run that fails, stops or loses a line because events cannot be written, and a failure that is not reported or is
/// reported at every step.
#[test]
fn a_run_without_room_for_events_goes_on() {
    let (lab, whole) = (Lab::tiny(), Lab::tiny());
    whole.run(&[]).succeeds();
    lab.run(&["train.steps=4"]).succeeds();
    lab.write("runs/tiny/tensorboard", "not a folder");
    let answer = lab.resume(&["train.steps=8", TRACKED]);
    answer.succeeds();
    assert_eq!(answer.err.matches("track.tensorboard: cannot write").count(), 1, "{answer:#?}");
    lab.tiny_run().equals(&whole.tiny_run(), 8);
}

/// Catches a pipeline whose stages share a folder of events, or whose table is not passed to them, and a failed start whose event
/// files keep its name in use.
#[test]
fn every_stage_has_events_of_its_own() {
    let lab = Lab::new();
    lab.write("tiny.toml", two_stages());
    lab.run(&[TRACKED]).succeeds();
    for (stage, steps) in [("pre", 4), ("more", 3)] {
        let run = Run(lab.at(&format!("runs/tiny/{stage}")));
        shows_the_metrics(&run, &LOSSES[..1]);
        assert_eq!(scalar(&run, "loss").len(), steps);
    }
    let lab = Lab::tiny();
    fs::create_dir_all(lab.at("runs/tiny/tensorboard")).expect("a folder");
    for (file, text) in [("tensorboard/events.out.tfevents.0000000001.telos", ""), (".track-wandb.json", "{}")] {
        lab.write(&format!("runs/tiny/{file}"), text);
    }
    for file in ["experiment.toml", "metrics.jsonl"] {
        lab.write(&format!("runs/tiny/{file}"), "");
    }
    lab.run(&[TRACKED]).succeeds();
    let run = lab.tiny_run();
    assert_eq!((event_files(&run).len(), run.0.join(".track-wandb.json").exists()), (1, false));
}

/// Catches events that TensorBoard reads otherwise: `tests/peers/tensorboard_events.py` compares all that it shows of a run with
/// rewards, histograms and samples.
#[test]
#[cfg_attr(not(telos_tensorboard), ignore = "needs TensorBoard's Python package")]
fn tensorboard_shows_what_the_logs_say() {
    let lab = lab(PPO);
    lab.run(&["eval.generate=4", "checkpoint.every=4", "train.steps=8", TRACKED]).succeeds();
    lab.resume(&["eval.generate=4", "checkpoint.every=4", "train.steps=12", TRACKED]).succeeds();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/tensorboard_events.py");
    let python = Command::new("python3")
        .arg(script)
        .arg(lab.at("runs/tiny"))
        .env("PYTHONPATH", env!("TELOS_TENSORBOARD_PATH"))
        .output()
        .expect("python3");
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(python.status.success(), "{}\n{}", shown(&python.stdout), shown(&python.stderr));
    assert!(shown(&python.stdout).contains("all values agree"), "{}", shown(&python.stdout));
}
