//! Files of rows that are much larger than what a run may hold in memory.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rustix::process::Signal;
use telos_random::SplitMix64;

use crate::support::{
    kills::with_enough_steps,
    lab::{Lab, Run, Running},
};

const EXPERIMENT: &str = r#"
seed = 7
backend = { plugin = "candle", threads = 1 }
model = { layers = 1, dim = 16, heads = 2, context = 256 }
tokenizer = { kind = "file", path = "tokenizer/tokenizer.json" }
data = { source = "jsonl", held_out = 0.001 }
objective = { plugin = "sft" }
train = { batch = { sequences = 4 }, optimizer.lr = 1e-3 }
eval = { every = 0 }
"#;

/// A row's prompt and completion: a few hundred words of a small vocabulary, different in every row.
fn row(number: u64) -> (String, String) {
    const WORDS: [&str; 16] = [
        "river", "stone", "light", "under", "seven", "quiet", "green", "letter", "window", "answer", "of", "and",
        "the", "to", "in", "is",
    ];
    let mut random = SplitMix64::new(number);
    let mut words =
        |count: usize| -> String { (0..count).map(|_| WORDS[random.below(WORDS.len())]).collect::<Vec<_>>().join(" ") };
    (format!("Question {number}: {}?\n", words(40)), words(160))
}

/// Writes rows until the file has about `bytes` of text.
fn write_lines(path: &Path, bytes: u64) {
    let mut file = BufWriter::new(File::create(path).expect("a file"));
    let (mut written, mut number) = (0, 0);
    while written < bytes {
        let (prompt, completion) = row(number);
        let line = serde_json::json!({"prompt": prompt, "completion": completion}).to_string();
        writeln!(file, "{line}").expect("room on the disk");
        written += line.len() as u64 + 1;
        number += 1;
    }
}

/// Writes the same rows as a Parquet file.
fn write_parquet(path: &Path, bytes: u64) {
    let schema =
        parse_message_type("message rows { required binary prompt (UTF8); required binary completion (UTF8); }");
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let file = File::create(path).expect("a file");
    let schema = Arc::new(schema.expect("a schema"));
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).expect("a writer");
    let (mut written, mut number) = (0, 0);
    while written < bytes {
        let mut columns = [Vec::new(), Vec::new()];
        while written < bytes && columns[0].len() < 20_000 {
            let (prompt, completion) = row(number);
            written += (prompt.len() + completion.len()) as u64;
            columns[0].push(ByteArray::from(prompt.into_bytes()));
            columns[1].push(ByteArray::from(completion.into_bytes()));
            number += 1;
        }
        let mut group = writer.next_row_group().expect("a row group");
        for column in &columns {
            let mut chunk = group.next_column().expect("a column").expect("a column");
            chunk.typed::<ByteArrayType>().write_batch(column, None, None).expect("room on the disk");
            chunk.close().expect("room on the disk");
        }
        group.close().expect("room on the disk");
    }
    writer.close().expect("room on the disk");
}

/// Trains on `file` for `steps` as the run `name`; returns the peak memory of the training process in bytes. `stop`: interrupts the
/// run after some steps; `None` if it was over before.
fn train(lab: &Lab, file: &str, name: &str, steps: u64, stop: bool, more: &[&str]) -> Option<u64> {
    let (path, length) = (format!("data.path={file}"), format!("train.steps={steps}"));
    let args = [&["run", "large.toml", "--name", name, "--set", &path, "--set", &length], more].concat();
    let mut running = Running::start(&mut lab.command(&args));
    let (mut peak, metrics) = (0, lab.at("runs").join(name).join("metrics.jsonl"));
    let mut signalled = false;
    while running.is_running() {
        peak = peak.max(running.worker_peak());
        let seen = fs::read_to_string(&metrics).map_or(0, |text| text.matches("\"train\"").count());
        if stop && !signalled && seen >= 5 {
            running.signal(Signal::INT);
            signalled = true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let answer = running.answer();
    assert!(peak > 0, "no peak of memory was measured");
    if answer.code == Some(130) && signalled {
        return (Run(lab.at("runs").join(name)).pointer("LATEST") != Some(steps)).then_some(peak);
    }
    answer.succeeds();
    (!stop).then_some(peak)
}

/// Writes rows of about this many bytes to a file.
type WriteRows = fn(&Path, u64);

/// Catches a file that is held in memory as a whole, in any form, and a resumed run that reads other rows than one that was
/// never interrupted. `TELOS_LARGE_MB` sets the size of the files in MB, instead of 2048.
#[test]
#[ignore = "writes files of 2 GB and reads each several times: cargo xtask test --full"]
fn large_files_stream_with_flat_memory_and_resume_exactly() {
    let megabytes: u64 = std::env::var("TELOS_LARGE_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(2048);
    let lab = Lab::new();
    lab.write("large.toml", EXPERIMENT);
    let sample: String = (0..2000).map(row).map(|(prompt, completion)| prompt + &completion + "\n").collect();
    lab.write("sample.txt", sample);
    fs::create_dir(lab.at("tokenizer")).expect("a folder");
    let tokenizer = ["tokenizer", "train", "sample.txt", "--vocab-size", "600", "--out", "tokenizer/tokenizer.json"];
    lab.ask(&tokenizer).succeeds();
    let writers: [(&str, WriteRows); 2] = [("jsonl", write_lines), ("parquet", write_parquet)];
    for (ending, write) in writers {
        let (large, small) = (megabytes << 20, (megabytes << 20) / 16);
        write(&lab.at(&format!("small.{ending}")), small);
        let of_small = train(&lab, &format!("small.{ending}"), &format!("small-{ending}"), 400, false, &[]);
        let of_small = of_small.expect("it was not interrupted");
        let (file, mut of_large) = (format!("large.{ending}"), 0);
        write(&lab.at(&file), large);
        with_enough_steps(400, |steps| {
            let (whole, resumed) = (format!("whole-{ending}-{steps}"), format!("resumed-{ending}-{steps}"));
            if train(&lab, &file, &resumed, steps, true, &[]).is_none() {
                return false;
            }
            train(&lab, &file, &resumed, steps, false, &["--resume"]);
            of_large = train(&lab, &file, &whole, steps, false, &[]).expect("it was not interrupted");
            let (whole, resumed) = (Run(lab.at("runs").join(whole)), Run(lab.at("runs").join(resumed)));
            assert_eq!(whole.metrics("train"), resumed.metrics("train"), "{ending}");
            whole.equals(&resumed, steps);
            true
        });
        println!(
            "{ending}: {} MB of rows, peak {} MB; {} MB, peak {} MB",
            small >> 20,
            of_small >> 20,
            large >> 20,
            of_large >> 20
        );
        // A row of about a thousand bytes leaves its place and its length in memory, and passes through buffers of fixed size.
        assert!(of_large < of_small + (large - small) / 10 + (160 << 20), "{ending}: {of_small} and {of_large} bytes");
        fs::remove_file(lab.at(&file)).expect("a file");
    }
}
